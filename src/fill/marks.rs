//! The marks that a start-up leaves beside the positions that it commits.

use std::collections::BTreeSet;

use chrono::Utc;

use super::Snapshot;
use crate::base::error::Result;
use crate::base::invariant;
use crate::base::range::index;
use crate::fill::receipt::Counts;
use crate::kafka::cluster::Cluster;
use crate::kafka::mark::{Done, Evidence, Fingerprint, Mark, Trusted};
use crate::kafka::producer::Position;
use crate::kafka::topic::Topic;
use crate::kafka::watermarks::{Watermarks, ends};

/// What the marks of one start-up have in common.
pub(super) struct Marking<'r> {
    cluster: &'r Cluster,
    target: &'r Topic,
    job: &'r Fingerprint,
    /// How both topics were found. Whatever a later leader has, it is not known to be what was looked at; so the epochs
    /// of the marks are these.
    source: Vec<Watermarks>,
    found: Vec<Watermarks>,
    /// The target's first offsets that matter.
    first: Vec<i64>,
    /// With `--scale-out`, the partitions of this instance.
    share: Option<&'r BTreeSet<i32>>,
}

impl<'r> Marking<'r> {
    /// Nothing of the target matters yet.
    pub(super) fn new(
        cluster: &'r Cluster,
        target: &'r Topic,
        job: &'r Fingerprint,
        snapshot: &Snapshot,
        share: Option<&'r BTreeSet<i32>>,
    ) -> Marking<'r> {
        let (source, found) = (snapshot.source.clone(), snapshot.target.clone());
        Marking { cluster, target, job, source, first: ends(&found), found, share }
    }

    /// The target's window begins at `first` in each partition, by the scan; to marks that are trusted it may have
    /// begun earlier.
    pub(super) fn scanned(&mut self, first: Vec<i64>, trusted: &Trusted) {
        self.first = first;
        trusted.lower(&mut self.first, &self.found);
    }

    /// Positions with their marks, of a transaction whose records are in the log: a leader that loses them is found
    /// out by where its log ends.
    pub(super) fn open(&self, positions: &[(i32, i64)]) -> Result<Vec<Position>> {
        self.of(positions, None)
    }

    /// Of ends, once all that was written up to them was looked at by a run that did `counts`.
    pub(super) fn closed(&self, positions: &[(i32, i64)], counts: Counts) -> Result<Vec<Position>> {
        let (at, Counts { in_window, written, .. }) = (Utc::now().timestamp_millis(), counts);
        self.of(positions, Some(Done { at, in_window, written }))
    }

    fn of(&self, positions: &[(i32, i64)], closed: Option<Done>) -> Result<Vec<Position>> {
        invariant::no_position_passes_an_end(positions, self.source.iter().map(|watermarks| watermarks.high));
        if let Some(share) = self.share {
            invariant::a_share_commits_its_own(positions, share);
        }
        let now = self.cluster.watermarks(self.target)?;
        let target = Evidence::new(&self.first, &self.found, &ends(&now), self.source.len());
        let marked = positions.iter().map(|(partition, position)| {
            let (job, source_epoch) = (self.job.clone(), self.source[index(*partition)].epoch);
            let mark = Mark { job, source_epoch, target: target.clone(), closed };
            let metadata = mark.to_string();
            invariant::a_mark_reads_back(&mark, Mark::parse(&metadata).as_ref());
            Position { partition: *partition, position: *position, metadata }
        });
        Ok(marked.collect())
    }
}
