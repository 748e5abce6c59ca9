//! Decides where to begin, from the offsets that earlier runs and start-ups committed.

use std::collections::BTreeSet;

use super::{Run, Snapshot};
use crate::base::error::{Error, Reason, Result};
use crate::base::failpoint::{self, Rule};
use crate::base::range::{id, index};
use crate::fill::preflight::Preflight;
use crate::fill::receipt::Counts;
use crate::job::event_time::EventTime;
use crate::job::ledger::Ledger;
use crate::job::window::Window;
use crate::job::{Job, Rules, Selection};
use crate::kafka::mark::{Committed, Fingerprint, Mark, Trusted};
use crate::kafka::position::Position;
use crate::kafka::sides::Clusters;
use crate::kafka::watermarks::Watermarks;

impl Run<'_> {
    /// Finds out from the committed offsets whether the transaction whose commit got no answer was committed.
    pub(super) fn settle_doubt(&mut self, committed: &mut [Option<Committed>]) {
        let Some(doubt) = self.in_doubt.take() else { return };
        if failpoint::breaks(Rule::ResumeFromCommitted) {
            for doubt in &doubt.positions {
                committed[index(doubt.partition)] = Some(doubt.into());
            }
        }
        if are_committed(&doubt.positions, committed) {
            self.told.counts += doubt.counts;
            self.told.transactions += 1;
        } else {
            self.told.aborted_transactions += 1;
        }
    }

    /// # Errors
    /// [`Error::Refused`] if a position that this job committed is outside of the source's log. Then the source lost
    /// records. It does not count if the log begins above the position of a closed mark: such a run had copied all. Nor
    /// do partitions outside of this instance's `share`.
    pub(super) fn check_positions(
        &self,
        source: &[Watermarks],
        committed: &[Option<Committed>],
        fingerprint: &Fingerprint,
        ledger: &Ledger,
        share: Option<&BTreeSet<i32>>,
    ) -> Result<()> {
        let Selection { source: name, properties, .. } = &self.job.selection;
        for (partition, (committed, log)) in committed.iter().zip(source).enumerate() {
            let Some(Committed { position, metadata }) = committed else { continue };
            // Another instance may have read on from a position that it committed.
            if share.is_some_and(|share| !share.contains(&id(partition))) {
                continue;
            }
            let is_open = Mark::parse(metadata).is_some_and(|mark| mark.closed.is_none());
            let why = if !fingerprint.is_of(metadata) {
                continue;
            } else if *position > log.high {
                format!("is past its end {}: the topic lost records", log.high)
            } else if *position < log.low && is_open {
                format!(
                    "is below its first offset {}: the records in between were deleted before the job had finished \
                     there, and some of them may have been in the window",
                    log.low
                )
            } else {
                continue;
            };
            let lost = Error::refused(format!(
                "the committed offset {position} of {name}-{partition} {why}; to copy the records that are left, delete \
                 the job's offsets, and run again:\n  {}",
                ledger.deletion(&properties.target)
            ));
            return Err(properties.source.says(lost.because(Reason::LogLost)));
        }
        Ok(())
    }

    /// Where to begin in each partition: at the committed offset if its mark can be trusted, otherwise by time.
    pub(super) fn starts(
        &mut self,
        clusters: &Clusters,
        checked: &Preflight,
        window: Window,
        trusted: &Trusted,
        snapshot: &Snapshot,
    ) -> Result<Vec<i64>> {
        let source = &checked.source;
        let start = window.start.filter(|_| self.job.selection.event_time.is_indexed());
        let by_time = clusters.source.positions_from(source, start, &snapshot.source)?;
        let mut starts = Vec::with_capacity(by_time.len());
        let mut is_resumed = true;
        for (partition, watermarks) in snapshot.source.iter().enumerate() {
            let is_order_promised = self.job.selection.max_out_of_orderness.is_some();
            let resumed = resumed(trusted, partition, &self.job.selection.rules, is_order_promised);
            is_resumed &= resumed.is_some() || !self.advanced.contains(&id(partition));
            let start = resumed.unwrap_or(by_time[partition]);
            if watermarks.low > 0 && start <= watermarks.low {
                self.told.warn(format!(
                    "{}-{partition} begins at offset {}: if earlier records were in the window, they are gone",
                    self.job.selection.named_source(), watermarks.low
                ));
            }
            starts.push(start.max(watermarks.low));
        }
        if !is_resumed {
            // This start-up reads again what an earlier one of this run has counted, so keep only the count of written
            // records.
            self.told.recounted = self.told.counts.written;
            let Counts { written, written_bytes, .. } = self.told.counts;
            self.told.counts = Counts { written, written_bytes, ..Counts::default() };
        }
        Ok(starts)
    }
}

/// Whether the transaction that was to commit these positions did. Pure.
pub(super) fn are_committed(positions: &[Position], committed: &[Option<Committed>]) -> bool {
    positions.iter().all(|position| committed[index(position.partition)] == Some(position.into()))
}

/// The committed position from which a run goes on in this partition, if it may. Pure.
pub(super) fn resumed(
    trusted: &Trusted,
    partition: usize,
    rules: &Rules,
    is_order_promised: bool,
) -> Option<i64> {
    // An open mark does not say that all before it was in order.
    let position = if is_order_promised { trusted.closed(partition) } else { trusted.position(partition) };
    position.filter(|_| rules.can_resume())
}

/// A hash of everything on which the meaning of a committed offset depends. If any of it changes, the offset is void:
/// the run begins by time again, and the scan finds what is already there.
pub(super) fn fingerprint(job: &Job, checked: &Preflight, window: Window) -> Fingerprint {
    let event_time = match &job.selection.event_time {
        EventTime::Timestamp => "timestamp".to_owned(),
        EventTime::Field(pointer) => format!("field {}", pointer.as_str()),
    };
    let mut parts = vec![
        window.to_string(),
        event_time,
        job.selection.rules.identity.to_string(),
        format!(
            "{:?} {:?} {}",
            job.selection.rules.on_conflict,
            job.selection.rules.target_scan,
            job.selection.rules.skip_invalid
        ),
        checked.source.id.clone(),
        checked.target.id.clone(),
        format!("{} {}", checked.source.partitions, checked.target.partitions),
    ];
    // By another registry, other values have the fields. The user may have named the wrong one before.
    parts.extend(job.selection.registry_that_counts().map(|url| format!("schema registry {url}")));
    // A partition may have been left before its end, so the offset holds only under the same promise.
    parts.extend(job.selection.max_out_of_orderness.map(|bound| format!("out of order by {bound:?}")));
    if failpoint::breaks(Rule::OwnMarks) {
        parts.clear();
    }
    Fingerprint::of(&parts)
}
