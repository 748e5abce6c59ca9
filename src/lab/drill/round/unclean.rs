//! A leader that lacks what the brokers had acknowledged.

use std::time::{Duration, Instant};

use super::faults::broken;
use super::{Finish, Play};
use crate::base::error::Result;
use crate::base::range::id;
use crate::kafka::sides::Side;
use crate::lab::drill::anomalies::Anomalies;
use crate::lab::drill::compare::{content, count};
use crate::lab::drill::tail::Tail;
use crate::lab::drill::wire;

/// How long a run may take to write to a leader that has lost its follower. The controller notices the loss first.
const ALONE: Duration = Duration::from_secs(20);

impl Play<'_, '_> {
    /// Ends one of a target's two replicas, lets runs write to the other one, ends that one too, and starts the first one
    /// again, which then leads. So the target loses records whose commits were confirmed. That breaks what the promise rests
    /// on, so the runs at work promise nothing. The next ones must write again what is lost.
    pub(super) fn elect_unclean(&mut self, turn: usize) -> Result<()> {
        let (brokers, partitions) =
            (self.stage.of(Side::Target).sandbox.brokers(), self.shape.target_partitions);
        if brokers < 3 {
            self.note("no unclean leader is elected: that takes three brokers".to_owned());
            return Ok(());
        }
        // The new leader would never end a transaction whose marker it lacks.
        while !self.runs.is_empty() {
            self.kill()?;
        }
        let (leader, behind) = (turn % brokers, (turn + 1) % brokers);
        let (topics, topic) = (self.stage.topics(Side::Target).clone(), self.job.target.clone());
        topics.consume(&topic, partitions)?;
        self.end_watch()?;
        let on: Vec<_> = (0..partitions).map(|p| (id(p), vec![id(leader), id(behind)])).collect();
        wire::reassign(topics.first_address(), &topic, &on)?;
        topics
            .configure(&topic, &[("min.insync.replicas", "1"), ("unclean.leader.election.enable", "true")])?;
        let lead_all = |broker: usize| {
            topics.leaders(&topic).is_ok_and(|leaders| leaders.iter().all(|leader| *leader == Some(broker)))
        };
        topics.until("the move of the leaders", || lead_all(leader))?;
        self.trouble();
        self.round.bounces += 2;
        self.round.count(Side::Target, |suffered| suffered.brokers_killed += 2);
        self.stage.of_mut(Side::Target).sandbox.kill(behind).map_err(broken)?;
        self.note(format!("broker {behind} is killed, and broker {leader} alone has the target"));
        let (seen, begun) = (self.tail.as_ref().map_or(0, Tail::seen), Instant::now());
        self.ready()?;
        while self.tail.as_ref().map_or(0, Tail::seen) == seen && begun.elapsed() < ALONE {
            self.pause(100)?;
            self.look()?;
            self.ready()?;
        }
        let written = self.tail.take().map_or(0, |tail| tail.seen()) - seen;
        self.runs.iter_mut().for_each(|run| run.known = None);
        let sandbox = &mut self.stage.of_mut(Side::Target).sandbox;
        sandbox.kill(leader).map_err(broken)?;
        sandbox.restart(behind).map_err(broken)?;
        topics.until("an unclean leader", || lead_all(behind))?;
        self.stage.of_mut(Side::Target).sandbox.restart(leader).map_err(broken)?;
        topics
            .until("the new leader's answer", || topics.ends(&topic, partitions, "read_committed").is_ok())?;
        self.note(format!("broker {behind} leads the target, which loses up to {written} records"));
        self.trouble();
        self.settle_unclean()
    }

    /// Waits for the runs that were at work. From then on, records of others that were lost are not missed.
    fn settle_unclean(&mut self) -> Result<()> {
        self.tail = Some(Tail::start(
            self.stage.topics(Side::Target),
            &self.job.target,
            self.shape.target_partitions,
        )?);
        if !self.runs.is_empty() {
            let Some(Finish(_)) = self.finish()? else { return Ok(()) };
        }
        let topics = self.stage.topics(Side::Target);
        let target = topics.consume(&self.job.target, self.shape.target_partitions)?;
        let others = std::mem::take(&mut self.others);
        let mut there = count(&target);
        let left = others.iter().filter(|record| {
            there.get_mut(&content(record)).filter(|left| **left > 0).map(|left| *left -= 1).is_some()
        });
        self.others = left.cloned().collect();
        let found = self.expected(&self.source).compare(&target);
        // Who writes again what is lost writes it behind what came later.
        self.keeps_order = false;
        if !(Anomalies { lost_write: 0, nonmonotonic_send: 0, ..found }).is_none() {
            self.wrong(format!("after an unclean election: {found}"));
        }
        Ok(())
    }
}
