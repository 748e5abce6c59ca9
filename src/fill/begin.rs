//! Decides where to begin, from the offsets that earlier runs and start-ups committed.

use super::{Run, Snapshot};
use crate::base::error::{Error, Reason, Result};
use crate::base::failpoint::{self, Rule};
use crate::base::range::{id, index};
use crate::fill::preflight::Preflight;
use crate::fill::receipt::Counts;
use crate::job::Job;
use crate::job::event_time::EventTime;
use crate::job::window::Window;
use crate::kafka::cluster::Cluster;
use crate::kafka::mark::{Committed, Fingerprint, Trusted};
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
        let is_committed =
            doubt.positions.iter().all(|doubt| committed[index(doubt.partition)] == Some(doubt.into()));
        if is_committed {
            self.told.counts += doubt.counts;
            self.told.transactions += 1;
        } else {
            self.told.aborted_transactions += 1;
        }
    }

    /// # Errors
    /// [`Error::Refused`] if the source ends before the position that this job committed.
    pub(super) fn check_ends(
        &self,
        source: &[Watermarks],
        committed: &[Option<Committed>],
        fingerprint: &Fingerprint,
    ) -> Result<()> {
        for (partition, (committed, watermarks)) in committed.iter().zip(source).enumerate() {
            let ours = committed.as_ref().filter(|c| fingerprint.is_of(&c.metadata));
            if let Some(Committed { position, .. }) = ours.filter(|c| c.position > watermarks.high) {
                let source = &self.job.selection.source;
                return Err(Error::refused(format!(
                    "the committed offset {position} of {source}-{partition} is past its end {}: the topic lost records; \
                     delete the offsets of group {} with kafka-consumer-groups.sh --delete-offsets, and run again",
                    watermarks.high,
                    self.job.selection.name()
                ))
                .because(Reason::LogLost));
            }
        }
        Ok(())
    }

    /// Where to begin in each partition: at the committed offset if its mark can be trusted, otherwise by time.
    pub(super) fn starts(
        &mut self,
        cluster: &Cluster,
        checked: &Preflight,
        window: Window,
        trusted: &Trusted,
        snapshot: &Snapshot,
    ) -> Result<Vec<i64>> {
        let source = &checked.source;
        let start = window.start.filter(|_| self.job.selection.event_time.is_indexed());
        let by_time = cluster.positions_from(source, start, &snapshot.source)?;
        let mut starts = Vec::with_capacity(by_time.len());
        let mut is_resumed = true;
        for (partition, watermarks) in snapshot.source.iter().enumerate() {
            let can_resume = self.job.selection.rules.can_resume();
            let resumed = trusted.position(partition).filter(|_| can_resume);
            is_resumed &= resumed.is_some() || !self.advanced.contains(&id(partition));
            let start = resumed.unwrap_or(by_time[partition]);
            if watermarks.low > 0 && start <= watermarks.low {
                self.told.warn(format!(
                    "{}-{partition} begins at offset {}: if earlier records were in the window, they are gone",
                    source.name, watermarks.low
                ));
            }
            starts.push(start.max(watermarks.low));
        }
        if !is_resumed {
            // This start-up reads again what an earlier one of this run has counted, so keep only the count of written
            // records.
            self.told.recounted = self.told.counts.written;
            self.told.counts = Counts { written: self.told.counts.written, ..Counts::default() };
        }
        Ok(starts)
    }
}

/// A hash of everything on which the meaning of a committed offset depends. If any of it changes, the offset is void:
/// the run begins by time again, and the scan finds what is already there.
pub(super) fn fingerprint(job: &Job, checked: &Preflight, window: Window) -> Fingerprint {
    let event_time = match &job.selection.event_time {
        EventTime::Timestamp => "timestamp".to_owned(),
        EventTime::Field(pointer) => format!("field {}", pointer.as_str()),
    };
    Fingerprint::of(&[
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
    ])
}
