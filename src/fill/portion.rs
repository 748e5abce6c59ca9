//! The portion of the target that an instance compares, if several fill together.
//!
//! **Which identities count.** An instance writes records of its own partitions of the source only. With `--identity key`
//! or `key+value`, a record that it judges has a key that belongs to its partition ([`Placement::check`] refuses any
//! other), and an equal record has the same key. So a record of the target whose key belongs to another partition cannot
//! be equal, wherever it stands, and the instance does not keep it. With `--identity record`, equal records of two
//! partitions are two records, so only the target's partition of the same number counts.
//!
//! **What must be read.** With `--identity record`, only the instance's own partitions. Otherwise a copy may stand in any
//! partition of the target: somebody may have put it there by another partitioner. If both topics have the same number of
//! partitions, each instance reads its own ones first, and *vouches* in their marks: between these offsets, each key
//! belongs here. Of the other partitions it reads only what nobody vouches for. This sees the same records as reading
//! all, because what is vouched for holds no key of its own. Such a fact about a log that is only appended to stays true.
//! So nobody has to be at work while others use it: instances may come, die and swap partitions. A mark of another job,
//! placement or leader epoch vouches for nothing. If a key stands in a wrong partition, the owner vouches only for what is
//! before it; the others read the rest, which costs time and no record.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::scan::Scanned;
use super::{Run, Snapshot, share};
use crate::base::error::Result;
use crate::base::failpoint::{self, Rule};
use crate::base::range::{Range, index};
use crate::fill::follow::Followed;
use crate::fill::preflight::Preflight;
use crate::job::identity::Identity;
use crate::job::window::Window;
use crate::kafka::mark::{Committed, Fingerprint, Mark, Vouched};
use crate::kafka::offsets;
use crate::kafka::partition::Placement;
use crate::kafka::sides::Clusters;
use crate::kafka::sys::Message;
use crate::kafka::watermarks::Watermarks;

/// An instance waits no longer for others to vouch for an offset than it would take to read it. This is twice the time
/// that a scan took on two cores.
const TO_READ_ONE: Duration = Duration::from_micros(2);
const PAUSE: Duration = Duration::from_millis(20);

/// The target's records that may equal a record of this instance's partitions of the source.
#[derive(Clone)]
pub(super) struct Portion {
    /// The instance's partitions of the source.
    own: BTreeSet<i32>,
    /// How the source's keys are placed, over how many partitions. `None` if a record counts where it stands.
    placement: Option<(Placement, usize)>,
    /// Both topics have the same number of partitions.
    is_aligned: bool,
}

impl Run<'_> {
    /// The portion of an instance. `None` if this run is alone, and compares everything.
    ///
    /// # Errors
    /// As [`Run::source_placement`]; [`Error::Refused`](crate::base::error::Error::Refused) if several instances could
    /// take one copy for their own.
    pub(super) fn portion(
        &mut self,
        clusters: &Clusters,
        checked: &Preflight,
        window: Window,
        snapshot: &Snapshot,
        own: Option<&BTreeSet<i32>>,
        followed: Option<&Followed>,
    ) -> Result<Option<Portion>> {
        let Preflight { source, target, ledger, .. } = checked;
        let Some(own) = own.cloned() else { return Ok(None) };
        let is_aligned = source.partitions == target.partitions;
        if self.job.selection.rules.identity == Identity::Record && is_aligned {
            return Ok(Some(Portion { own, placement: None, is_aligned }));
        }
        if followed.is_some_and(|followed| followed.fills_alone) {
            return Ok(None);
        }
        if self.job.selection.rules.identity == Identity::Record {
            return Err(share::equal_in_two_places(self.job));
        }
        let placement =
            self.source_placement(&clusters.source, source, &ledger.name, window, &snapshot.source)?;
        Ok(Some(Portion { own, placement: Some((placement, source.partitions)), is_aligned }))
    }

    /// What is left to read of the target's `ranges`, after waiting a little for others to vouch for theirs.
    pub(super) fn unvouched(
        &self,
        clusters: &Clusters,
        checked: &Preflight,
        fingerprint: &Fingerprint,
        snapshot: &Snapshot,
        (portion, ranges): (&Portion, &[Range]),
    ) -> Result<Vec<Range>> {
        let began = Instant::now();
        loop {
            let committed = offsets::now(&clusters.target, checked.ledger.extent(), self.interrupt)?;
            let rest = portion.unvouched(ranges, &committed, fingerprint, &snapshot.target);
            let offsets = rest.iter().map(Range::len).sum::<u64>();
            let longest = TO_READ_ONE.saturating_mul(u32::try_from(offsets).unwrap_or(u32::MAX));
            if began.elapsed() >= longest {
                return Ok(rest);
            }
            self.interrupt.check()?;
            std::thread::sleep(PAUSE);
        }
    }
}

impl Portion {
    /// How the source's keys are placed, if that matters.
    pub(super) fn placement(&self) -> Option<Placement> {
        self.placement.map(|(placement, _)| placement)
    }

    /// The source's partition that a record of the target belongs to. A record without a key belongs where it stands,
    /// because a placement refuses such a record of the source.
    pub(super) fn of(&self, message: &Message) -> i32 {
        match self.placement.zip(message.key()) {
            Some(((placement, partitions), key)) => placement.partition(key, partitions),
            None => message.partition(),
        }
    }

    pub(super) fn has(&self, partition: i32) -> bool {
        self.own.contains(&partition)
    }

    /// What an instance reads first: its own partitions, or everything if the numbers of partitions differ.
    pub(super) fn first(&self, ranges: &[Range]) -> Vec<Range> {
        let is_first = |range: &&Range| !self.is_aligned || self.has(range.partition);
        ranges.iter().filter(is_first).copied().collect()
    }

    /// Whether instances vouch for their partitions.
    pub(super) fn is_vouched(&self) -> bool {
        self.is_aligned && self.placement.is_some()
    }

    /// What the instance has seen in its own partitions, after it has read them.
    pub(super) fn vouched(&self, scanned: &Scanned, found: &[Watermarks]) -> BTreeMap<i32, Vouched> {
        let Some((placement, _)) = self.placement.filter(|_| self.is_aligned) else { return BTreeMap::new() };
        let own = scanned.ranges.iter().filter(|range| self.has(range.partition));
        own.map(|range| {
            let misplaced = scanned.misplaced.get(&range.partition).copied();
            let end = misplaced.filter(|_| !failpoint::breaks(Rule::VouchForPlaced)).unwrap_or(range.end);
            let epoch = found[index(range.partition)].epoch;
            (range.partition, Vouched { placement, start: range.start, end, epoch })
        })
        .collect()
    }

    /// The parts of other instances' `ranges` of the target for which nobody has vouched.
    fn unvouched(
        &self,
        ranges: &[Range],
        committed: &[Option<Committed>],
        job: &Fingerprint,
        found: &[Watermarks],
    ) -> Vec<Range> {
        let rest = ranges.iter().filter(|range| !self.has(range.partition)).map(|range| {
            let at = index(range.partition);
            let mark = committed.get(at).and_then(|committed| Mark::parse(&committed.as_ref()?.metadata));
            let vouched = mark.filter(|mark| mark.job == *job).and_then(|mark| mark.vouched);
            let end = vouched
                .zip(self.placement())
                .and_then(|(vouched, placement)| vouched.end(placement, range.start, &found[at]));
            Range {
                start: end.unwrap_or(range.start).clamp(range.start, range.end.max(range.start)),
                ..*range
            }
        });
        rest.filter(|range| !range.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::mark::Evidence;

    const FOUND: Watermarks = Watermarks { low: 0, high: 50, epoch: 2 };

    fn committed(job: &Fingerprint, vouched: Option<Vouched>) -> Option<Committed> {
        let target = Evidence::new(&[50], &[FOUND], &[50], 1);
        let mark = Mark { job: job.clone(), source_epoch: 0, target, closed: None, vouched };
        Some(Committed { position: 0, metadata: mark.to_string() })
    }

    #[test]
    fn of_other_partitions_it_reads_what_nobody_vouches_for() {
        let (job, other) = (Fingerprint::of(&["this".into()]), Fingerprint::of(&["other".into()]));
        let vouched = Some(Vouched { placement: Placement::Java, start: 10, end: 30, epoch: 2 });
        let whole = Some(Vouched { placement: Placement::Java, start: 10, end: 50, epoch: 2 });
        let committed = [
            committed(&job, None), // its own
            committed(&job, vouched),
            committed(&job, whole),
            committed(&job, None),
            committed(&other, whole),
            None,
        ];
        let ranges = Range::all(&[10; 7], &[50; 7]);
        let placement = Some((Placement::Java, 7));
        let portion = Portion { own: BTreeSet::from([0]), placement, is_aligned: true };
        let rest = portion.unvouched(&ranges, &committed, &job, &[FOUND; 7]);
        let rest: Vec<_> = rest.iter().map(|range| (range.partition, range.start, range.end)).collect();
        assert_eq!(rest, [(1, 30, 50), (3, 10, 50), (4, 10, 50), (5, 10, 50), (6, 10, 50)]);
        assert_eq!(portion.first(&ranges), [ranges[0]]);
        assert_eq!(Portion { is_aligned: false, ..portion }.first(&ranges), ranges);
    }
}
