//! With `--scale-out`: the share of this instance, and what instances and single runs must know of each other.
//!
//! Both commit the offsets of one group, whose coordinator takes what a single run commits in a transaction beside
//! a group's members. So they keep each other out: an instance, once it has joined, fences the single run's
//! transactional id; a single run, once it has initialised that id, looks for members.
//!
//! Each partition has a transactional id too, and an instance writes under that of its first one. Whoever is given
//! partitions initialises all of theirs, which ends at once what a dead instance left open.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::ConsumerGroupMetadata;

use super::marks::Marking;
use super::{Run, copy};
use crate::base::error::{Error, Reason, Result};
use crate::base::range::{Range, id, index};
use crate::fill::preflight::Preflight;
use crate::fill::receipt::Counts;
use crate::job::identity::Identity;
use crate::job::window::Window;
use crate::kafka::cluster::Cluster;
use crate::kafka::mark::{Committed, Fingerprint, Mark, Trusted};
use crate::kafka::member::{Member, Share};
use crate::kafka::offsets;
use crate::kafka::producer::Producer;
use crate::kafka::watermarks::{Watermarks, ends};

const PAUSE: Duration = Duration::from_millis(200);
/// How long to wait for other instances before they are looked at: they may be another job's.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// What an instance remembers from one share to the next.
#[derive(Default)]
pub(super) struct Joined {
    /// The source's ends before it joined: by them, the progress of others is measured.
    ends: Vec<i64>,
    /// The committed offsets before it joined: who changes another job's is at work.
    committed: Vec<Option<Committed>>,
    /// The generation and the partitions of the newest share, and the source's ends when it was first worked on.
    share: (i32, BTreeSet<i32>),
    share_ends: Vec<i64>,
}

impl Run<'_> {
    /// One start-up, and all that follows, for the partitions that the group gives to this instance.
    pub(super) fn attempt_share(
        &mut self,
        cluster: &Cluster,
        checked: &Preflight,
        window: Window,
    ) -> Result<()> {
        let selection = &self.job.selection;
        let member = match self.member.take() {
            Some(member) => member,
            None => {
                self.joined = Joined {
                    ends: ends(&cluster.watermarks(&checked.source)?),
                    committed: offsets::committed(cluster, &checked.source, self.interrupt)?,
                    ..Joined::default()
                };
                Member::join(&selection.properties, &selection.name(), &selection.source, self.interrupt)?
            }
        };
        let share = self.member.insert(member).share(selection.patience, self.interrupt)?;
        tracing::info!("this instance has the partitions {:?}", share.partitions);
        match self.attempt(cluster, checked, window, Some(&share)) {
            Err(Error::Fenced(_) | Error::Restart { .. }) if self.interrupt.is_reassigned() => {
                Err(Error::Reassigned)
            }
            // The group will say so as well, as soon as it is heard.
            Err(Error::Fenced(_)) => {
                Err(Error::restart("another instance was given a partition of this one"))
            }
            result => result,
        }
    }

    /// Where to read its own partitions to, and how far others must be for the whole to be done. All who joined
    /// together have their first shares in one generation, so each reads as far as any of them waits for.
    pub(super) fn ends_of(&mut self, share: &Share, now: &[Watermarks]) -> Vec<i64> {
        let this = (share.generation, share.partitions.clone());
        if self.joined.share != this {
            (self.joined.share, self.joined.share_ends) = (this, ends(now));
        }
        // Equal records are counted: no copy below the target's end may be of a record above the source's.
        if self.job.selection.rules.identity == Identity::Record {
            self.joined.share_ends = ends(now);
        }
        let both = self.joined.share_ends.iter().zip(&self.joined.ends).enumerate();
        both.map(|(p, (own, joined))| if share.partitions.contains(&id(p)) { *own } else { *joined })
            .collect()
    }

    /// Commits where to begin in each partition of which this job has no mark yet: so other instances see at once
    /// what is being done with it.
    pub(super) fn claim(
        &self,
        producer: Option<&Producer>,
        ranges: &[Range],
        trusted: &mut Trusted,
        marking: &Marking<'_>,
        group: &Arc<ConsumerGroupMetadata>,
    ) -> Result<()> {
        let Some(producer) = producer else { return Ok(()) };
        for is_done in [false, true] {
            let is_new = |range: &&Range| trusted.position(index(range.partition)).is_none();
            let claimed: Vec<(i32, i64)> = ranges
                .iter()
                .filter(|range| range.is_empty() == is_done)
                .filter(is_new)
                .map(|range| (range.partition, range.start))
                .collect();
            if claimed.is_empty() {
                continue;
            }
            let mark = || match is_done {
                false => marking.open(&claimed),
                true => marking.closed(&claimed, Counts::default()),
            };
            let mut sent = Vec::new();
            let mark = || mark().inspect(|marked| sent.clone_from(marked));
            copy::commit_positions(producer, self.job, mark, group)?;
            for claimed in sent {
                let mark = Mark::parse(&claimed.metadata).map(|mark| (claimed.position, mark));
                trusted.0[index(claimed.partition)] = mark;
            }
        }
        Ok(())
    }

    /// With --scale-out, waits until other instances are done with their partitions; to take these over if they
    /// die.
    pub(super) fn wait_for_others(
        &mut self,
        cluster: &Cluster,
        checked: &Preflight,
        fingerprint: &Fingerprint,
        own: &[Range],
        all: &[Range],
    ) -> Result<()> {
        if self.member.is_none() {
            return Ok(());
        }
        let began = Instant::now();
        // To wait for others is no vain start-up.
        self.restarts.settle();
        loop {
            let committed = offsets::committed(cluster, &checked.source, self.interrupt)?;
            let (source, target) =
                (cluster.watermarks(&checked.source)?, cluster.watermarks(&checked.target)?);
            let trusted = Trusted::of(fingerprint, &committed, &source, &target);
            if all.iter().all(|range| trusted.is_done(range)) {
                return Ok(());
            }
            self.interrupt.check()?;
            // What others had finished is given to an instance that is left when they leave; what this one had is its own
            // to look at again.
            if !own.iter().all(|range| trusted.is_done(range)) {
                return Err(Error::restart(
                    "what this instance had finished may not be in the target any more: its logs begin, end or are led \
                     elsewhere",
                ));
            }
            if began.elapsed() > LOOK_AGAIN {
                let is_another = |c: &&Committed| !fingerprint.is_of(&c.metadata);
                let mut changed =
                    committed.iter().zip(&self.joined.committed).filter(|(now, then)| now != then);
                if changed.any(|(now, _)| now.as_ref().filter(is_another).is_some()) {
                    return Err(another_job_at_work());
                }
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// In the order in which they are to be initialised; the last one is written under.
pub(super) fn transactional_ids(name: &str, share: Option<&Share>) -> Vec<String> {
    let Some(share) = share else { return vec![name.to_owned()] };
    let partitions = share.partitions.iter().rev().map(|partition| format!("{name}/{partition}"));
    // With no partition there is nothing to write, and nobody to keep out.
    let single = (!share.partitions.is_empty()).then(|| name.to_owned());
    single.into_iter().chain(partitions).collect()
}

pub(super) fn members_at_work() -> Error {
    Error::fenced(
        "instances of a run with --scale-out are at work on these topics, or died within the group's session timeout; \
         wait for them, or run with --scale-out too"
            .to_owned(),
    )
}

pub(super) fn equal_in_two_places() -> Error {
    Error::refused(
        "--scale-out with --identity record needs topics of as many partitions: else equal records of two partitions \
         could stand in one, and two instances would both take the same copy for theirs; run without --scale-out",
    )
}

/// It passes; and as [`Error::Fenced`] it would stand for a move of partitions.
fn another_job_at_work() -> Error {
    Error::failed(
        "instances of another job are at work on these topics (another window, identity or policy), and hold some of \
         the partitions; let one job end before the other begins",
    )
    .because(Reason::Fenced)
}
