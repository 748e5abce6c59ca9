//! Makes the marks that a start-up commits beside its positions.

use std::collections::{BTreeMap, BTreeSet};

use chrono::Utc;

use super::Snapshot;
use crate::base::error::Result;
use crate::base::invariant;
use crate::base::range::index;
use crate::fill::preflight::Preflight;
use crate::fill::receipt::Counts;
use crate::kafka::mark::{Done, Evidence, Fingerprint, Mark, Trusted, Vouched};
use crate::kafka::position::Position;
use crate::kafka::sides::Clusters;
use crate::kafka::watermarks::{Watermarks, ends};

/// Makes the marks of one start-up, and asks the clusters what they must say.
pub(super) struct Marking<'r> {
    clusters: &'r Clusters,
    checked: &'r Preflight,
    marks: Marks<'r>,
}

/// Everything that the marks of one start-up have in common. Pure.
pub(super) struct Marks<'r> {
    job: &'r Fingerprint,
    /// Both topics as the start-up found them. The marks get their epochs from here, because a later leader's log may
    /// differ from the log that the run read.
    source: Vec<Watermarks>,
    found: Vec<Watermarks>,
    /// No position passes these offsets of the source.
    decided: Vec<i64>,
    /// The offset of the first record that matters, in each partition of the target.
    first: Vec<i64>,
    /// With `--scale-out`, the partitions of this instance.
    share: Option<&'r BTreeSet<i32>>,
    /// What this instance has seen in the target's partitions, by partition.
    vouched: BTreeMap<i32, Vouched>,
}

impl<'r> Marking<'r> {
    /// Until [`Marking::scanned`] is called, no record of the target matters.
    pub(super) fn new(
        clusters: &'r Clusters,
        checked: &'r Preflight,
        job: &'r Fingerprint,
        snapshot: &Snapshot,
        source_ends: &[i64],
        share: Option<&'r BTreeSet<i32>>,
    ) -> Marking<'r> {
        Marking { clusters, checked, marks: Marks::new(job, snapshot, source_ends, share) }
    }

    /// Takes the scan's result: the window's `first` record in each partition of the target. The trusted marks may
    /// depend on earlier records.
    pub(super) fn scanned(&mut self, first: Vec<i64>, trusted: &Trusted) {
        self.marks.scanned(first, trusted);
    }

    /// Lets all later marks say what this instance has seen in the target's partitions.
    pub(super) fn vouch(&mut self, vouched: BTreeMap<i32, Vouched>) {
        self.marks.vouched = vouched;
    }

    /// Positions with open marks, for a transaction whose records are in the log. If a leader loses the records, the
    /// end of its log shows it.
    pub(super) fn open(&self, positions: &[(i32, i64)]) -> Result<Vec<Position>> {
        self.of(positions, None)
    }

    /// Positions with closed marks, for ends up to which the run has checked all that it wrote. `counts` says what the
    /// run did.
    pub(super) fn closed(&self, positions: &[(i32, i64)], counts: Counts) -> Result<Vec<Position>> {
        let (at, Counts { in_window, written, .. }) = (Utc::now().timestamp_millis(), counts);
        self.of(positions, Some(Done { at, in_window, written }))
    }

    /// As [`Preflight::not_of_another_topic`].
    pub(super) fn not_of_another_topic(&self, result: Result<()>) -> Result<()> {
        self.checked.not_of_another_topic(self.clusters, result)
    }

    /// # Errors
    /// As [`Preflight::are_the_same`].
    pub(super) fn check_topics(&self) -> Result<()> {
        self.checked.are_the_same(self.clusters)
    }

    fn of(&self, positions: &[(i32, i64)], closed: Option<Done>) -> Result<Vec<Position>> {
        self.check_topics()?;
        let now = self.clusters.target.watermarks(&self.checked.target)?;
        Ok(self.marks.of(positions, closed, &now))
    }
}

impl<'r> Marks<'r> {
    /// As [`Marking::new`].
    pub(super) fn new(
        job: &'r Fingerprint,
        snapshot: &Snapshot,
        source_ends: &[i64],
        share: Option<&'r BTreeSet<i32>>,
    ) -> Marks<'r> {
        let (source, found) = (snapshot.source.clone(), snapshot.target.clone());
        // A share keeps its ends even if a new leader's log is shorter for a while.
        let decided = source.iter().zip(source_ends).map(|(found, end)| found.high.max(*end)).collect();
        let (first, vouched) = (ends(&found), BTreeMap::new());
        Marks { job, source, decided, first, found, share, vouched }
    }

    /// As [`Marking::scanned`].
    pub(super) fn scanned(&mut self, first: Vec<i64>, trusted: &Trusted) {
        self.first = first;
        trusted.lower(&mut self.first, &self.found);
    }

    /// Marks for positions, at a time at which the target's watermarks are `now`.
    pub(super) fn of(
        &self,
        positions: &[(i32, i64)],
        closed: Option<Done>,
        now: &[Watermarks],
    ) -> Vec<Position> {
        invariant::no_position_passes_an_end(positions, &self.decided);
        if let Some(share) = self.share {
            invariant::a_share_commits_its_own(positions, share);
        }
        let target = Evidence::new(&self.first, &self.found, &ends(now), self.source.len());
        let marked = positions.iter().map(|(partition, position)| {
            let (job, source_epoch) = (self.job.clone(), self.source[index(*partition)].epoch);
            let vouched = self.vouched.get(partition).copied();
            let mark = Mark { job, source_epoch, target: target.clone(), closed, vouched };
            let metadata = mark.to_string();
            invariant::a_mark_reads_back(&mark, || Mark::parse(&metadata));
            Position { partition: *partition, position: *position, metadata }
        });
        marked.collect()
    }
}
