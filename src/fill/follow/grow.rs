//! Goes on when a topic got more partitions.

use std::time::Duration;

use super::begin::{is_marked, is_new, marks, placement};
use super::watch::answered;
use crate::base::error::{Error, Reason, Result};
use crate::base::interrupt::Interrupt;
use crate::fill::start::StartUps;
use crate::job::Follow;
use crate::job::ledger::{Ledger, Topics};
use crate::job::resolve;
use crate::kafka::create::{self, APPEARS};
use crate::kafka::follow_mark::FollowMark;
use crate::kafka::lag;
use crate::kafka::mark::Committed;
use crate::kafka::offsets;
use crate::kafka::sides::{Clusters, Side};
use crate::kafka::topic::Topic;

/// How long a topic that is not deleted may be unknown to brokers that start.
const DELETED: Duration = Duration::from_secs(20);

impl StartUps<'_, '_> {
    /// Takes the topics as they are now. If they have other numbers of partitions than before, the checks are made anew.
    ///
    /// # Errors
    /// [`Error::Failed`] if a topic was deleted or made anew; as [`resolve::topics`].
    pub(in crate::fill) fn keep_up(&mut self, clusters: &Clusters) -> Result<()> {
        let sides = &self.topics.sides;
        let mut is_wider = false;
        for side in Side::BOTH {
            let (topic, cluster) = (sides.of(side), clusters.of(side));
            // A broker that has just started may not know the topic yet.
            let width = answered(side, || lag::until(DELETED, || cluster.width(&topic.name)))?;
            let Some(width) = width else {
                let gone = Error::failed(format!("{} was deleted during the run", topic.name));
                return Err(cluster.properties().says(gone.because(Reason::TopicChanged)));
            };
            is_wider |= width > topic.partitions;
        }
        if is_wider {
            self.look_up(clusters)?;
        }
        Ok(())
    }

    fn look_up(&mut self, clusters: &Clusters) -> Result<()> {
        let selection = &self.run.job.selection;
        let sides = resolve::topics(clusters, selection)?;
        for side in Side::BOTH {
            let (before, now) = (self.topics.sides.of(side), sides.of(side));
            if before.id != now.id {
                let anew = Error::failed(format!(
                    "{} was deleted and made anew during the run; run again",
                    now.name
                ));
                return Err(clusters.of(side).properties().says(anew.because(Reason::TopicChanged)));
            }
            if before.partitions != now.partitions {
                tracing::info!("{} has {} partitions now", now.name, now.partitions);
            }
        }
        let ledger = Ledger::of(selection, clusters, &sides.source)?;
        (self.topics, self.prepared) = (Topics { sides, ledger }, None);
        Ok(())
    }

    /// Whether this start-up needs no window: every partition has a mark of a follow, or is followed from its beginning.
    /// Gives the target more partitions first, if the job says so.
    ///
    /// # Errors
    /// As [`offsets::now`]; [`Error::Refused`] without permission to add partitions.
    pub(in crate::fill) fn is_followed(&mut self, clusters: &Clusters, follow: &Follow) -> Result<bool> {
        let committed = self.committed(clusters)?;
        let Topics { sides, .. } = &self.topics;
        let marks = marks(&FollowMark::job(&sides.source.id, &sides.target.id), &committed);
        let keeps = placement(&marks) == Some(None);
        if keeps && follow.create_partitions && sides.target.partitions < sides.source.partitions {
            widen(clusters, &sides.target, sides.source.partitions, self.run.interrupt)?;
            self.look_up(clusters)?;
        }
        let Topics { sides, .. } = &self.topics;
        let is_left_out = |partition: usize| keeps && partition >= sides.target.partitions;
        Ok((0..sides.source.partitions).all(|partition| {
            is_new(&marks, &committed, partition) || is_left_out(partition) || is_marked(&marks, partition)
        }))
    }

    /// The offsets in the ledger. If it is missing, there are none.
    fn committed(&self, clusters: &Clusters) -> Result<Vec<Option<Committed>>> {
        let (topic, partitions) = self.topics.ledger.extent();
        match clusters.target.width(topic)? {
            Some(width) => offsets::now(&clusters.target, (topic, width.min(partitions)), self.run.interrupt),
            None => Ok(Vec::new()),
        }
    }
}

/// Gives `target` as many partitions as the source has.
fn widen(clusters: &Clusters, target: &Topic, partitions: usize, interrupt: &Interrupt) -> Result<()> {
    let (properties, name) = (clusters.target.properties(), &target.name);
    let says = |err| Err(properties.says(err));
    let denied = format!("--create-partitions: this principal may not add partitions to {name}");
    create::widen(properties, name, partitions, &denied).or_else(says)?;
    let wide = lag::until(APPEARS, || {
        interrupt.check()?;
        Ok(clusters.target.width(name)?.filter(|width| *width >= partitions))
    })?;
    match wide {
        Some(_) => Ok(()),
        None => says(Error::restart(format!("{name} was given more partitions, but they do not appear"))),
    }
}
