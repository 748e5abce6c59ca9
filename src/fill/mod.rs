//! The main job. The order of its start-up is the proof that a run is exactly once.

pub(crate) mod consequences;
pub(crate) mod preflight;
pub(crate) mod receipt;

mod bar;
mod begin;
mod close;
mod compression;
mod copy;
pub(crate) mod differences;
mod follow;
mod marks;
#[cfg(test)]
mod model;
mod placement;
mod portion;
mod reading;
mod refuse;
mod scan;
mod share;
mod start;
mod state;
mod tell;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rdkafka::consumer::Consumer;

use self::begin::fingerprint;
use self::copy::Copying;
use self::follow::Followed;
use self::marks::Marking;
use self::portion::Portion;
use self::state::{FirstScan, Run, Snapshot};
use crate::base::error::{Error, Reason, Result};
use crate::base::failpoint::{self, Rule};
use crate::base::interrupt::Interrupt;
use crate::base::invariant;
use crate::base::progress::Progress;
use crate::base::range::Range;
use crate::base::time::millis;
use crate::fill::consequences::Foresight;
use crate::fill::preflight::Preflight;
use crate::fill::receipt::{Counts, Receipt};
use crate::job::identity::Fingers;
use crate::job::names::Names;
use crate::job::order::Order;
use crate::job::rate::Throttle;
use crate::job::window::Window;
use crate::job::{Job, Mode, TargetScan};
use crate::judge::Look;
use crate::judge::elsewhen::Outside;
use crate::kafka::mark::{Committed, Trusted};
use crate::kafka::member::Share;
use crate::kafka::offsets;
use crate::kafka::producer::Producer;
use crate::kafka::sides::Clusters;
use crate::kafka::watermarks::ends;
use crate::telemetry::{self, Phase};

/// Fills the window. The receipt says what the run did, even if the run failed.
///
/// # Errors
/// Any [`Error`] that has an exit code of its own, so never [`Error::Restart`].
pub fn fill(job: &Job, mode: Mode, progress: Progress, interrupt: &Interrupt) -> (Receipt, Result<()>) {
    fill_telling(job, mode, progress, interrupt, None)
}

/// [`fill()`], which tells after each commit what the receipt would say, and waits until `tell` returns.
///
/// # Errors
/// As [`fill()`].
pub fn fill_telling(
    job: &Job,
    mode: Mode,
    progress: Progress,
    interrupt: &Interrupt,
    tell: Option<&dyn Fn(Receipt)>,
) -> (Receipt, Result<()>) {
    let started = Instant::now();
    let fingers = match Fingers::new() {
        Ok(fingers) => fingers,
        Err(err) => return (Receipt { names: Names::from(&job.selection), ..Receipt::default() }, Err(err)),
    };
    let mut run = Run { tell, ..Run::new(job, mode, progress, interrupt, fingers) };
    telemetry::phase(Phase::Preflight);
    run.publish(Counts::default());
    run.tell();
    let result = match run.until_done() {
        Err(Error::Restart { why, .. } | Error::Grown(why)) => Err(Error::failed(why)),
        result => result,
    };
    if let Some(warning) = run.told.other_days.warning() {
        run.told.warn(warning);
    }
    let mut receipt = run.receipt();
    run.publish(run.told.counts);
    receipt.complete = result.is_ok() && !run.is_stopped;
    receipt.elapsed_ms = millis(started.elapsed());
    (receipt, result)
}

impl Run<'_> {
    /// One start-up, and all the work that follows. The order of the steps is the proof. Each step says why it comes at
    /// this point.
    fn attempt(
        &mut self,
        clusters: &Clusters,
        checked: &Preflight,
        window: Option<Window>,
        share: Option<&Share>,
    ) -> Result<Ended> {
        let job = self.job;
        let Preflight { source, target, ledger, .. } = checked;

        invariant::nothing_is_left(Rc::strong_count(&self.pace));
        failpoint::instant("before-init");
        if self.mode == Mode::Fill {
            tracing::debug!(
                "taking over the job: this ends the open transaction of a dead run, and fences a live one"
            );
        }
        telemetry::phase(Phase::Init);
        // 1. Take over the transactional ids of this job. From here on, no earlier producer with these ids can commit,
        //    and no transaction of a dead run is open. So the next steps see all that any earlier run did.
        let mut producer = match self.mode {
            Mode::Fill if failpoint::breaks(Rule::TakeOverFirst) => None,
            Mode::Fill => self.take_over(checked, share)?,
            Mode::Plan => None,
        };
        // A single run must not work beside instances of `--scale-out`. Check this before looking anything up: the
        // coordinator accepts nothing more from members that have left by now, and an instance that joins later fences
        // this run.
        if share.is_none() && self.mode == Mode::Fill {
            // This call reports a missing permission or a missing coordinator. The commit in `has_members` would only
            // wait.
            offsets::committed(&clusters.target, ledger.extent(), self.interrupt)?;
            if clusters.target.has_members(&ledger.topic)? {
                return Err(share::members_at_work());
            }
        }
        failpoint::instant("after-init");
        tracing::debug!("asking how far an earlier run came; an open commit delays the answer");

        // 2. Ask where the job's last committed transaction ended. If a transaction is about to commit offsets, the
        //    answer waits for it.
        let mut committed = match self.mode {
            Mode::Fill if failpoint::breaks(Rule::PositionsInTarget) => {
                offsets::committed(&clusters.source, (&source.name, source.partitions), self.interrupt)?
            }
            Mode::Fill => offsets::committed(&clusters.target, ledger.extent(), self.interrupt)?,
            Mode::Plan => vec![None; source.partitions],
        };
        failpoint::instant("after-committed");
        let known = committed.iter().flatten().count();
        tracing::debug!("{known} of {} partitions have a committed position", committed.len());

        self.settle_doubt(&mut committed);
        // With --follow, a partition that bears its mark goes on behind it. The others need a fill first.
        let mut followed = None;
        if let (Some(_), Some(share)) = (&job.follow, share) {
            let found = self.followed(clusters, checked, &committed, share)?;
            if found.unfilled.is_empty() {
                return Ok(Ended::Joint(found, producer));
            }
            self.live.is_joined = false;
            followed = Some(found);
        } else {
            refuse_followed(checked, &committed, clusters)?;
        }
        let Some(window) = window else {
            self.live.needs_window = true;
            return Err(Error::Reassigned);
        };
        let own = match &followed {
            Some(followed) => Some(followed.unfilled.clone()),
            None => share.map(|share| share.partitions.clone()),
        };
        let own = own.as_ref();

        // 3. Take the ends before reading anything: they bound what the promise covers.
        //    Take the target's ends first. A copy comes after its original, so every copy below the target's end then
        //    has its original below the source's end. In the other order, the run could take the copy of a later record
        //    for the copy of an equal earlier record that the target lacks.
        let mut too_early = None;
        if failpoint::breaks(Rule::TargetEndsFirst) {
            too_early = Some(clusters.source.watermarks(source)?);
            failpoint::instant("between-the-ends");
        }
        let target_watermarks = clusters.target.watermarks(target)?;
        tracing::debug!("took the target's ends: {:?}", ends(&target_watermarks));
        failpoint::instant("between-the-ends");
        let source_watermarks = too_early.map_or_else(|| clusters.source.watermarks(source), Ok)?;
        let mut snapshot = Snapshot { source: source_watermarks, target: target_watermarks };
        if failpoint::breaks(Rule::HighWatermarks) {
            for (topic, cluster, watermarks) in [
                (source, &clusters.source, &mut snapshot.source),
                (target, &clusters.target, &mut snapshot.target),
            ] {
                let stable = cluster.last_stable_offsets(topic)?;
                watermarks.iter_mut().zip(stable).for_each(|(watermarks, stable)| watermarks.high = stable);
            }
        }
        let source_ends = match share {
            Some(share) => self.ends_of(share, &snapshot.source),
            None => ends(&snapshot.source),
        };
        let target_ends = ends(&snapshot.target);
        failpoint::instant("after-snapshot");
        tracing::debug!("took the source's ends: {source_ends:?}; the run copies nothing beyond");

        // 4. Decide where to begin: at a committed offset whose mark still holds, otherwise by time. All records before
        //    the start are done, or are older than the window.
        let fingerprint = fingerprint(job, checked, window);
        let mut trusted = Trusted::of(&fingerprint, &committed, &snapshot.source, &snapshot.target);
        self.check_positions(&snapshot.source, &committed, &fingerprint, ledger, own)?;
        let starts = self.starts(clusters, checked, window, &trusted, &snapshot)?;
        let mut marking = Marking::new(clusters, checked, &fingerprint, &snapshot, &source_ends, own);
        // A single run that finds no offset of this job reads the whole window, so it can tell that the window is
        // empty.
        let is_anew = share.is_none() && !committed.iter().flatten().any(|c| fingerprint.is_of(&c.metadata));
        let mut ranges = Range::all(&starts, &source_ends);
        let all = ranges.clone();
        // The snapshot ends there too, because this run reads no record beyond these ends.
        for (watermarks, end) in snapshot.source.iter_mut().zip(&source_ends) {
            watermarks.high = *end;
        }
        ranges.retain(|range| own.is_none_or(|own| own.contains(&range.partition)));
        if let Some(share) = share.filter(|_| followed.is_none()) {
            self.claim(producer.as_ref(), &ranges, &mut trusted, &marking, ledger, &share.group)?;
        }

        telemetry::phase(Phase::Wait);
        tracing::debug!(
            "waiting until every transaction below the ends is committed or aborted, for {} at most without progress",
            humantime::format_duration(job.selection.patience)
        );
        // 5. Wait until all transactions below the ends are committed or aborted. Then no record can appear there any
        //    more.
        let patience = job.selection.patience;
        clusters.target.wait_until_stable(target, &target_ends, patience, self.interrupt)?;
        clusters.source.wait_until_stable(source, &source_ends, patience, self.interrupt)?;
        failpoint::instant("after-wait");
        tracing::debug!("every transaction below the ends has ended, so no record can appear there any more");

        if self.mode == Mode::Plan {
            self.foresight = Some(Foresight::new(job, window, target.partitions)?);
        }

        // 6. If nothing is left to read or to check, end here. After step 5, everything that was committed is readable,
        //    and closed marks say that the runs have checked what they wrote.
        if ranges.iter().all(|range| trusted.is_done(range)) {
            tracing::debug!("an earlier run has done all of this, so nothing is scanned or copied");
            if is_anew || trusted.done().is_some_and(|done| done.in_window == 0) {
                self.warn_of_nothing(&clusters.source, source, window);
            }
            self.foresee(&clusters.target, checked, &snapshot)?;
            self.close(clusters, checked, window, &snapshot.target)?;
            if let Some(followed) = followed {
                let followed = self.joined(clusters, checked, &snapshot, &joints(&ranges), followed)?;
                return Ok(Ended::Joint(followed, producer));
            }
            self.wait_for_others(clusters, checked, &fingerprint, &ranges, &all)?;
            self.told.done_before = trusted.done().filter(|_| self.told.transactions == 0);
            return Ok(Ended::Done);
        }

        // 7. Scan what the target holds already. Then copy what it lacks, and commit the source's positions in the same
        //    transactions.
        telemetry::phase(Phase::Scan);
        telemetry::ends(ranges.iter().map(|range| (range.partition, range.end)));
        let keeps_partitions = source.partitions == target.partitions;
        let look = Look::new(self.fingers.clone(), &job.selection, window, keeps_partitions);
        tracing::debug!("scanning the target for what it holds already, so that nothing is written twice");
        let portion = self.portion(clusters, checked, window, &snapshot, own, followed.as_ref())?;
        let order = || Order::of(&job.selection, window, source.partitions);
        let of_source = (ranges.as_slice(), order());
        let mut scanned =
            self.scan_target(clusters, checked, &snapshot, &look, portion.as_ref(), of_source)?;
        if let (Some(portion), Some(producer), Some(share)) = (&portion, &producer, share)
            && portion.is_vouched()
        {
            // Several instances share the scan: `portion` says why this misses nothing. The marks must say on which
            // records of the target the positions depend, before they are committed again.
            marking.scanned(scanned.firsts.clone(), &trusted);
            marking.vouch(portion.vouched(&scanned, &snapshot.target));
            let starts: Vec<(i32, i64)> = ranges.iter().map(|range| (range.partition, range.start)).collect();
            copy::commit_positions(producer, ledger, || marking.open(&starts), &share.group)?;
            failpoint::instant("after-vouch");
            let others = (portion, scanned.ranges.as_slice());
            let rest = self.unvouched(clusters, checked, &fingerprint, &snapshot, others)?;
            self.scan(checked, &look, Some(portion), &mut scanned, &rest)?;
        }
        scanned.outside.iter_mut().for_each(Outside::end);
        tracing::debug!(
            "{} holds {} identities that count for the window; read {} of its {} offsets from the window's start on",
            job.selection.target,
            scanned.judge.len(),
            scanned.read.iter().map(Range::len).sum::<u64>(),
            scanned.ranges.iter().map(Range::len).sum::<u64>()
        );
        marking.scanned(scanned.firsts.clone(), &trusted);
        let source_starts = if job.selection.rules.target_scan == TargetScan::All {
            snapshot.source.iter().map(|watermarks| watermarks.low).collect()
        } else {
            all.iter().map(|range| range.start).collect()
        };
        match &mut self.first {
            // A later share may depend on earlier records of the target.
            Some(first) => {
                let both = first.firsts.iter_mut().zip(&scanned.firsts);
                both.for_each(|(first, now)| *first = (*first).min(*now));
            }
            none => {
                let (ranges, firsts) = (scanned.ranges.clone(), scanned.firsts.clone());
                *none = Some(FirstScan { ranges, firsts, source_starts });
            }
        }
        self.look_again(clusters, checked, &look, &scanned, &ranges, order())?;
        failpoint::instant("after-scan");
        if failpoint::breaks(Rule::TakeOverFirst) {
            producer = self.take_over(checked, share)?;
        }
        let group = match share {
            Some(share) => share.group.clone(),
            None => clusters
                .target
                .committed
                .group_metadata()
                .map(Arc::new)
                .ok_or_else(|| Error::failed("the client has no group metadata".to_owned()))?,
        };
        let target_placement = match followed.as_ref().and_then(|followed| followed.to) {
            Some(to) => to,
            None => self.target_placement(&clusters.source, checked, &snapshot)?,
        };
        if let Some(followed) = &mut followed {
            followed.to = Some(target_placement);
        }
        telemetry::phase(Phase::Copy);
        tracing::debug!(
            "reading {} offsets of the source, up to its ends: a record of the window may stand behind later ones",
            ranges.iter().map(Range::len).sum::<u64>()
        );
        self.told.unfit.clear();
        // Read the clock again after taking the ends, so that no record counts as too new only because it was created
        // after the preflight.
        let limits = checked.limits.at(chrono::Utc::now().timestamp_millis());
        // Only the bar needs this answer, so without it the bar is less exact.
        let window_end =
            window.end.filter(|_| self.progress.is_shown() && job.selection.event_time.is_indexed());
        let window_ends = window_end.map_or_else(Vec::new, |end| {
            clusters.source.positions_from(source, Some(end), &snapshot.source).unwrap_or_default()
        });
        let mut copy = Copying {
            run: self,
            look: &look,
            source_partitions: source.partitions,
            target_partitions: target.partitions,
            target_placement,
            judge: &mut scanned.judge,
            outside: scanned.outside.as_ref(),
            limits: &limits,
            producer: producer.as_ref(),
            transaction: None,
            marking: &marking,
            ledger,
            group: group.clone(),
            committed: Vec::new(),
            pending: Counts::default(),
            blocked: false,
            throttle: job.max_rate.map(|rate| Throttle::new(rate, Instant::now())),
            epochs: vec![-1; source.partitions],
            source_placement: portion.as_ref().and_then(Portion::placement),
            window_ends,
            order: order(),
        };
        let result = copy.all(&ranges);
        // `close` and the marks rely on the snapshot, so it must still say how far the scan and the copy read.
        invariant::ends_never_move(&ranges, &ends(&snapshot.source));
        invariant::ends_never_move(&scanned.ranges, &ends(&snapshot.target));
        let is_blocked = copy.blocked;
        let is_judged = result.is_ok() && !self.is_stopped;
        let doubles = scanned.judge.duplicates_in_target(is_judged);
        self.told.duplicates_in_target = doubles + self.told.copies_at_other_times;
        result?;
        if is_blocked {
            return Err(self.blocked(&limits));
        }
        if is_anew {
            self.warn_of_nothing(&clusters.source, source, window);
        }
        if self.is_stopped {
            let limit = job.limit.unwrap_or_default();
            self.told.warn(format!(
                "stopped after {limit} records, as --limit says; the same command without --limit continues from there"
            ));
        }
        if self.mode == Mode::Plan {
            self.foresee(&clusters.target, checked, &snapshot)?;
            return Ok(Ended::Done);
        }

        // Free the scan's tables, because the check below needs a table of its own.
        drop(scanned);
        // 8. Check that all copies are readable, that the target lost no record of the window, and that nobody else has
        //    doubled one.
        failpoint::instant("after-copy");
        telemetry::phase(Phase::Close);
        tracing::debug!(
            "copied; checking that all copies are readable, and that nobody else wrote them meanwhile"
        );
        self.close(clusters, checked, window, &snapshot.target)?;
        failpoint::instant("after-close");
        tracing::debug!("the target holds what the run wrote");

        if self.is_stopped {
            return Ok(Ended::Done);
        }
        // 9. With --follow, the joint is here. The follow commits it first of all: from then on, everything below it is in
        //    the target, and nothing above it.
        if let Some(followed) = followed {
            failpoint::instant("before-joint");
            let followed = self.joined(clusters, checked, &snapshot, &joints(&ranges), followed)?;
            return Ok(Ended::Joint(followed, producer));
        }
        // 9. Otherwise, commit closed marks, so that later runs skip what this run has checked. If this run dies before this
        //    commit, the next run checks first.
        let closed = joints(&ranges);
        if let Some(producer) = &producer {
            let counts = self.told.counts;
            copy::commit_positions(producer, ledger, || marking.closed(&closed, counts), &group)?;
        }
        self.wait_for_others(clusters, checked, &fingerprint, &ranges, &all)?;
        Ok(Ended::Done)
    }
}

/// How a start-up ended, if it did not fail.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
enum Ended {
    /// The window is filled, or planned.
    Done,
    /// With --follow: what is to be followed now, and by which producer.
    Joint(Followed, Option<Producer>),
}

/// The ends that the ranges were read up to.
fn joints(ranges: &[Range]) -> Vec<(i32, i64)> {
    ranges.iter().map(|range| (range.partition, range.end.max(range.start))).collect()
}

/// A fill would replace the positions of a follow, which would then have to fill its whole window anew.
fn refuse_followed(checked: &Preflight, committed: &[Option<Committed>], clusters: &Clusters) -> Result<()> {
    if follow::marks(&checked.follow_job(), committed).iter().all(Option::is_none) {
        return Ok(());
    }
    let target = clusters.target.properties();
    Err(target.says(Error::refused(checked.ledger.followed(target)).because(Reason::Followed)))
}
