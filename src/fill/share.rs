//! With `--scale-out` or `--follow`: works on this instance's share, and keeps instances and single runs apart.
//!
//! Instances and single runs commit offsets of the same group, and its coordinator accepts a single run's transaction
//! even if the group has members. So they must keep each other out: an instance joins the group, and then fences the
//! single run's transactional id; a single run initialises that id, and then checks whether the group has members.
//!
//! Each partition has a transactional id too. An instance initialises the ids of all its partitions, and so ends at
//! once any transaction that a dead instance left open. It writes under the id of its first partition.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rdkafka::consumer::ConsumerGroupMetadata;

use super::marks::Marking;
use super::{Ended, Run, copy, follow, refuse_followed};
use crate::base::error::{Error, Reason, Result};
use crate::base::failpoint::{self, Rule};
use crate::base::range::{Range, id, index};
use crate::fill::preflight::Preflight;
use crate::fill::receipt::Counts;
use crate::job::Job;
use crate::job::identity::Identity;
use crate::job::ledger::Ledger;
use crate::job::window::Window;
use crate::kafka::mark::{Committed, Fingerprint, Mark, Trusted};
use crate::kafka::member::{Member, Share};
use crate::kafka::offsets;
use crate::kafka::pace::{Pace, TransactionLimits};
use crate::kafka::producer::Producer;
use crate::kafka::sides::Clusters;
use crate::kafka::watermarks::{Watermarks, ends};

/// How many transactional ids to initialise at the same time beside the one that writes, each by a client of its own.
const AT_ONCE: usize = 8;
const PAUSE: Duration = Duration::from_millis(200);
/// How long to wait for other instances before checking whether they work on another job.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// The state that an instance keeps from one share to the next.
#[derive(Default)]
pub(super) struct Joined {
    /// The source's ends before this instance joined. Other instances must reach them.
    ends: Vec<i64>,
    /// The committed offsets before this instance joined. If another job's offsets change later, that job is at work.
    committed: Vec<Option<Committed>>,
    /// The generation and the partitions of the newest share.
    share: (i32, BTreeSet<i32>),
    /// The source's ends when the work on this share began.
    share_ends: Vec<i64>,
    /// The generation in which the last start-up failed, and how many transactions the run had committed then.
    failed: Option<(i32, u64)>,
}

impl Run<'_> {
    /// One start-up, and all the work that follows, for the partitions that the group gives to this instance.
    pub(super) fn attempt_share(
        &mut self,
        clusters: &Clusters,
        checked: &Preflight,
        window: Option<Window>,
    ) -> Result<()> {
        let (selection, ledger) = (&self.job.selection, &checked.ledger);
        let member = match self.member.take() {
            Some(member) => member,
            None => {
                let ends = ends(&clusters.source.watermarks(&checked.source)?);
                self.joined = Joined { ends, ..Joined::default() };
                // A follow waits for no other instances.
                if self.job.follow.is_none() {
                    let committed = offsets::now(&clusters.target, ledger.extent(), self.interrupt)?;
                    // Ask before joining, which would make a follow pause.
                    refuse_followed(checked, &committed, clusters)?;
                    self.joined.committed = committed;
                }
                let subscribed = match failpoint::breaks(Rule::SubscribedLedger) {
                    true => &checked.target.name,
                    false => &ledger.topic,
                };
                Member::join(&selection.properties.target, &ledger.name, subscribed, self.interrupt)?
            }
        };
        let share = self.member.insert(member).share(selection.patience, self.interrupt)?;
        tracing::info!("this instance has the partitions {:?}", share.partitions);
        let result = match self.attempt(clusters, checked, window, Some(&share)) {
            Ok(Ended::Joint(followed, producer)) => {
                self.follow(clusters, checked, producer.as_ref(), &share, followed)
            }
            ended => ended.map(drop),
        };
        let result = match self.job.follow {
            Some(_) => result.map_err(|err| follow::way_out(err, checked, clusters)),
            None => result,
        };
        let err = match result {
            Err(Error::Fenced(_) | Error::Restart { .. }) if self.interrupt.is_reassigned() => {
                return Err(Error::Reassigned);
            }
            // The group will report this change too, but this instance has not heard of it yet.
            Err(Error::Fenced(_)) => Error::restart("another instance was given a partition of this one"),
            Err(err @ Error::Restart { .. }) => err,
            result => return result,
        };
        // The group may have forgotten this instance, and its client may never hear of it (librdkafka#5301).
        let failed = Some((share.generation, self.told.transactions));
        let is_again = std::mem::replace(&mut self.joined.failed, failed) == failed;
        // An instance that reaches the source can do the work. With one cluster, the group itself would be away.
        let is_away =
            !is_again && !ledger.is_source() && clusters.source.topic_id(&checked.source.name).is_err();
        if is_away {
            tracing::warn!("this instance does not reach the source, so it leaves the group for now");
        }
        if is_again || is_away {
            // While a share lives, its member waits for the work under it before it leaves.
            drop(share);
            self.member = None;
        }
        Err(err)
    }

    /// Initialises the transactional ids of this run, and returns the producer that writes. An instance without
    /// partitions has none.
    ///
    /// # Errors
    /// As [`Producer::init`] and [`Interrupt::check`](crate::base::interrupt::Interrupt::check).
    pub(super) fn take_over(&self, checked: &Preflight, share: Option<&Share>) -> Result<Option<Producer>> {
        let Preflight { producing, source, target, ledger, batch_bytes, .. } = checked;
        let (interrupt, patience) = (self.interrupt, self.job.selection.patience);
        let init = |id: &str, pace: &Rc<Pace>| {
            interrupt.check()?;
            let own = failpoint::breaks(Rule::OneId).then(|| format!("{id}/{}", std::process::id()));
            let id = own.as_deref().unwrap_or(id);
            Producer::init(producing, id, &source.name, &target.name, *batch_bytes, patience, pace)
        };
        let ids = transactional_ids(&ledger.name, share);
        let Some((own, others)) = ids.split_last() else { return Ok(None) };
        // Each takes some 50 ms, nearly all of it waiting for answers.
        let next = AtomicUsize::new(0);
        let fence = || {
            while let Some(id) = others.get(next.fetch_add(1, Relaxed)) {
                init(id, &Rc::new(Pace::new(TransactionLimits::default())))
                    .inspect_err(|_| next.store(others.len(), Relaxed))?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let fencing: Vec<_> = others.iter().take(AT_ONCE).map(|_| scope.spawn(fence)).collect();
            let own = init(own, &self.pace);
            fencing.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })?;
            own.map(Some)
        })
    }

    /// The end of each partition: this instance reads its own partitions up to there, and the whole job is done when
    /// the other instances have reached theirs. Instances that join together get their first shares in one generation,
    /// so each reads at least as far as the others wait for.
    pub(super) fn ends_of(&mut self, share: &Share, now: &[Watermarks]) -> Vec<i64> {
        let this = (share.generation, share.partitions.clone());
        if self.joined.share != this {
            (self.joined.share, self.joined.share_ends) = (this, ends(now));
        }
        // If equal records are counted, the source's ends must be newer than the target's: no copy below the target's
        // end may be of a record above the source's end.
        // The same holds for a follow, which compares nothing above its end.
        if self.job.selection.rules.identity == Identity::Record || self.job.follow.is_some() {
            self.joined.share_ends = ends(now);
        }
        let both = self.joined.share_ends.iter().zip(&self.joined.ends).enumerate();
        both.map(|(p, (own, joined))| if share.partitions.contains(&id(p)) { *own } else { *joined })
            .collect()
    }

    /// Commits the start of each partition in which this job has no mark yet. So other instances see at once which job
    /// works on the partition, and whether it is done.
    pub(super) fn claim(
        &self,
        producer: Option<&Producer>,
        ranges: &[Range],
        trusted: &mut Trusted,
        marking: &Marking<'_>,
        ledger: &Ledger,
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
            copy::commit_positions(producer, ledger, mark, group)?;
            for claimed in sent {
                let mark = Mark::parse(&claimed.metadata).map(|mark| (claimed.position, mark));
                trusted.0[index(claimed.partition)] = mark;
            }
        }
        Ok(())
    }

    /// With --scale-out, waits until the other instances are done with their partitions. If one dies, this instance
    /// takes partitions over.
    pub(super) fn wait_for_others(
        &mut self,
        clusters: &Clusters,
        checked: &Preflight,
        fingerprint: &Fingerprint,
        own: &[Range],
        all: &[Range],
    ) -> Result<()> {
        if self.member.is_none() {
            return Ok(());
        }
        let began = Instant::now();
        // Waiting for others is not a failed start-up.
        self.restarts.settle();
        loop {
            let committed = offsets::committed(&clusters.target, checked.ledger.extent(), self.interrupt)?;
            let source = clusters.source.watermarks(&checked.source)?;
            let target = clusters.target.watermarks(&checked.target)?;
            let trusted = Trusted::of(fingerprint, &committed, &source, &target);
            if all.iter().all(|range| trusted.is_done(range)) {
                return Ok(());
            }
            self.interrupt.check()?;
            // If this instance's own marks no longer hold, it must look again itself. The partitions of other instances
            // are theirs, and the group gives them to the remaining instances when those leave.
            if !own.iter().all(|range| trusted.is_done(range)) {
                return Err(Error::restart(
                    "the target may lack records that this instance had finished: a partition begins or ends \
                     elsewhere, or has another leader",
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

/// The ids to initialise. The run writes under the last one.
fn transactional_ids(name: &str, share: Option<&Share>) -> Vec<String> {
    let Some(share) = share else { return vec![name.to_owned()] };
    let partitions = share.partitions.iter().rev().map(|partition| format!("{name}/{partition}"));
    // An instance without partitions writes nothing, so it need not keep a single run out.
    let single = (!share.partitions.is_empty()).then(|| name.to_owned());
    single.into_iter().chain(partitions).collect()
}

/// How to fill by one instance, as a clause.
pub(super) fn alone(job: &Job) -> &'static str {
    match job.follow {
        Some(_) => "start one instance alone, and the others once it logs `following`",
        None => "run without --scale-out",
    }
}

pub(super) fn members_at_work() -> Error {
    Error::fenced(
        "instances of a run with --scale-out or --follow are at work on these topics, or died within the group's session \
         timeout; wait for them, or run with --scale-out too; a run with --follow fills by itself what is missing"
            .to_owned(),
    )
}

pub(super) fn equal_in_two_places(job: &Job) -> Error {
    Error::refused(format!(
        "instances that fill together with --identity record need topics with the same number of partitions: otherwise equal records \
         of two partitions could be in one partition of the target, and two instances would both take the same copy \
         for their own; {}",
        alone(job)
    ))
}

/// This is not [`Error::Fenced`], because a run with a share takes that error for a sign that partitions moved.
fn another_job_at_work() -> Error {
    Error::failed(
        "instances of another job are at work on these topics (another window, identity or policy), and hold some of \
         the partitions; let one job end before the other begins",
    )
    .because(Reason::Fenced)
}
