//! Where to begin, by what earlier runs and start-ups committed.

use super::{Run, Snapshot};
use crate::cluster::{Cluster, Watermarks};
use crate::error::{Error, Result};
use crate::event_time::EventTime;
use crate::failpoint::{self, Rule};
use crate::job::Job;
use crate::offsets::{Committed, Fingerprint};
use crate::preflight::Preflight;
use crate::range::{id, index};
use crate::receipt::Counts;
use crate::window::Window;

impl Run<'_> {
    /// Whether the transaction that was not answered had been committed: its offsets tell.
    pub(super) fn settle_doubt(&mut self, committed: &mut [Option<Committed>]) {
        let Some(doubt) = self.in_doubt.take() else { return };
        if failpoint::breaks(Rule::ResumeFromCommitted) {
            for (partition, position) in &doubt.positions {
                let metadata = doubt.metadata.clone();
                committed[index(*partition)] = Some(Committed { position: *position, metadata });
            }
        }
        let is_committed = doubt.positions.iter().all(|(partition, position)| {
            committed[index(*partition)]
                .as_ref()
                .is_some_and(|c| c.position == *position && c.metadata == doubt.metadata)
        });
        if is_committed {
            self.counts += doubt.counts;
            self.transactions += 1;
        } else {
            self.aborted_transactions += 1;
        }
    }

    /// Where to begin in each partition: the committed offset if it is this very job's, else by time.
    pub(super) fn starts(
        &mut self,
        cluster: &Cluster,
        checked: &Preflight,
        window: Window,
        committed: &[Option<Committed>],
        fingerprint: &Fingerprint,
        snapshot: &Snapshot,
    ) -> Result<Vec<i64>> {
        let source = &checked.source;
        let start = window.start.filter(|_| self.job.selection.event_time.is_indexed());
        let by_time = cluster.positions_from(source, start, &snapshot.source)?;
        let mut starts = Vec::with_capacity(by_time.len());
        let mut is_resumed = true;
        for (partition, watermarks) in snapshot.source.iter().enumerate() {
            let can_resume = self.job.selection.rules.can_resume();
            let resumed =
                committed[partition].as_ref().filter(|c| can_resume && fingerprint.is_of(&c.metadata));
            is_resumed &= resumed.is_some() || !self.advanced.contains(&id(partition));
            let start = resumed.map_or(by_time[partition], |c| c.position);
            if start > watermarks.high {
                return Err(Error::refused(format!(
                    "the committed offset {start} of {}-{partition} is past its end {}: the topic lost records; delete \
                     the offsets of group {} with kafka-consumer-groups.sh --delete-offsets, and run again",
                    source.name,
                    watermarks.high,
                    self.job.selection.name()
                )));
            }
            if watermarks.low > 0 && start <= watermarks.low {
                self.warn(format!(
                    "{}-{partition} begins at offset {}: if records before it were of the window, they are gone",
                    source.name, watermarks.low
                ));
            }
            starts.push(start.max(watermarks.low));
        }
        if !is_resumed {
            // All is read anew, so what an earlier start-up of this run counted would be counted twice.
            self.recounted = self.counts.written;
            self.counts = Counts { written: self.counts.written, ..Counts::default() };
        }
        Ok(starts)
    }
}

/// All that decides what a committed offset means. A change in any of it makes the offset void, and the
/// run begins by time again; the scan then finds what is already there.
pub(super) fn fingerprint(
    job: &Job,
    checked: &Preflight,
    window: Window,
    target: &[Watermarks],
) -> Fingerprint {
    let event_time = match &job.selection.event_time {
        EventTime::Timestamp => "timestamp".to_owned(),
        EventTime::Field(pointer) => format!("field {}", pointer.as_str()),
    };
    let job = [
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
    let lows: Vec<String> = target.iter().map(|watermarks| watermarks.low.to_string()).collect();
    Fingerprint::of(&job, &lows)
}
