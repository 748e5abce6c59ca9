//! Finds out how a topic's keys are placed, and from that, to which partition a copy belongs.

use super::{Run, Snapshot, share};
use crate::base::error::{Error, Reason, Result};
use crate::base::range::Range;
use crate::fill::preflight::Preflight;
use crate::job::Job;
use crate::job::window::Window;
use crate::kafka::cluster::Cluster;
use crate::kafka::partition::Placement;
use crate::kafka::record::describe;
use crate::kafka::sides::Side;
use crate::kafka::sys::Message;
use crate::kafka::topic::Topic;
use crate::kafka::watermarks::{Watermarks, ends};

/// How many offsets of each partition are read to find out how keys are placed.
const SAMPLE: i64 = 100;
/// How many of a topic's keys are kept as a sample.
const KEYS: usize = 100_000;

impl Run<'_> {
    /// How to place copies if the target has another number of partitions than the source: as the target's own
    /// producers place keys, judging by its newest records. If those have too few keys to tell, the source's keys
    /// decide. `None` if the numbers are equal, because each record then keeps its partition.
    ///
    /// # Errors
    /// [`Error::Refused`] if no known placement fits: a copy could then be in another partition than other records of
    /// its key.
    pub(super) fn target_placement(
        &mut self,
        source_cluster: &Cluster,
        checked: &Preflight,
        snapshot: &Snapshot,
    ) -> Result<Option<Placement>> {
        let (source, target) = (&checked.source, &checked.target);
        if source.partitions == target.partitions {
            return Ok(None);
        }
        let (placement, why) = match self.job.selection.properties.target.partitioner() {
            Some(given) => (given, "-X partitioner says so".to_owned()),
            None => self.find_placement(source_cluster, checked, snapshot)?,
        };
        self.told.warn(format!(
            "{} has {} partitions and {} has {}: each record goes to the partition of its key, {placement} ({why})",
            self.job.selection.shown_source(),
            source.partitions,
            self.job.selection.shown_target(),
            target.partitions
        ));
        Ok(Some(placement))
    }

    fn find_placement(
        &mut self,
        source_cluster: &Cluster,
        checked: &Preflight,
        snapshot: &Snapshot,
    ) -> Result<(Placement, String)> {
        let Preflight { source, target, ledger, .. } = checked;
        let selection = &self.job.selection;
        let (shown_source, shown_target) = (selection.shown_source(), selection.shown_target());
        let of_target = self.keys(Side::Target, &ledger.name, &snapshot.target)?;
        let fitting = Placement::fitting(&of_target, target.partitions);
        let shown = |topic: &str| format!("as the keys of {topic} are placed");
        match fitting.as_slice() {
            [] => return Err(unknown(&shown_target)),
            [placement] => return Ok((*placement, shown(&shown_target))),
            _ => {}
        }
        // The target has too few keys to tell, so the source's keys decide, even those that this job has not read yet.
        let of_source = self.keys(Side::Source, &ledger.name, &source_cluster.watermarks(source)?)?;
        let of_both = Placement::fitting(&of_source, source.partitions);
        match (fitting.iter().find(|placement| of_both.contains(placement)), of_target.is_empty()) {
            (Some(placement), _) if of_source.is_empty() => {
                Ok((*placement, format!("neither {shown_source} nor {shown_target} has keys that show it")))
            }
            (Some(placement), _) => Ok((*placement, shown(&shown_source))),
            (None, true) => Err(unknown(&shown_source)),
            (None, false) => Ok((fitting[0], shown(&shown_target))),
        }
    }

    /// The keys of each partition's newest records, with their partitions. If those have no keys, the keys of all
    /// records.
    fn keys(&mut self, side: Side, group: &str, watermarks: &[Watermarks]) -> Result<Vec<(Vec<u8>, i32)>> {
        let lows: Vec<i64> = watermarks.iter().map(|w| w.low).collect();
        let newest: Vec<i64> = watermarks.iter().map(|w| w.low.max(w.high - SAMPLE)).collect();
        let from = |starts: &[i64]| Range::all(starts, &ends(watermarks));
        let found = self.keys_in(side, group, &from(&newest), KEYS)?;
        // Transaction markers and aborted records take offsets too, so the newest offsets may hold no record.
        if found.is_empty() && newest != lows {
            self.keys_in(side, group, &from(&lows), KEYS)
        } else {
            Ok(found)
        }
    }

    /// Returns at most `most` keys.
    fn keys_in(
        &mut self,
        side: Side,
        group: &str,
        ranges: &[Range],
        most: usize,
    ) -> Result<Vec<(Vec<u8>, i32)>> {
        let mut found = Vec::new();
        self.read(side, group, ranges, &indicatif::ProgressBar::hidden(), |_, message| {
            let key = message.key().filter(|key| !key.is_empty() && found.len() < most);
            found.extend(key.map(|key| (key.to_vec(), message.partition())));
            Ok(())
        })?;
        Ok(found)
    }

    /// With --scale-out, how the source's keys are placed, judging by the window's first records. Each instance reads
    /// the same ones.
    pub(super) fn source_placement(
        &mut self,
        cluster: &Cluster,
        source: &Topic,
        group: &str,
        window: Window,
        watermarks: &[Watermarks],
    ) -> Result<Placement> {
        let start = window.start.filter(|_| self.job.selection.event_time.is_indexed());
        let starts = cluster.positions_from(source, start, watermarks)?;
        let first: Vec<Range> = Range::all(&starts, &ends(watermarks))
            .into_iter()
            .map(|range| Range { end: range.end.min(range.start + SAMPLE), ..range })
            .collect();
        let found = self.keys_in(Side::Source, group, &first, usize::MAX)?;
        Placement::fitting(&found, source.partitions).first().copied().ok_or_else(|| {
            Error::refused(format!(
                "the keys of {} are not placed by Java's partitioner, nor by librdkafka's, nor by Sarama's: a key may \
                 be in two partitions, and two instances would both write it; {}",
                self.job.selection.shown_source(),
                share::alone(self.job)
            ))
            .because(Reason::UnknownPlacement)
        })
    }
}

impl Placement {
    /// # Errors
    /// [`Error::Refused`] if the record has no key, or one that belongs to another partition.
    pub(super) fn check(self, message: &Message, partitions: usize, job: &Job) -> Result<()> {
        let why = match message.key().map(|key| self.partition(key, partitions)) {
            Some(belongs) if belongs == message.partition() => return Ok(()),
            Some(belongs) => {
                format!("its key belongs to partition {belongs}, judging by the topic's other keys")
            }
            None => "it has no key".to_owned(),
        };
        Err(Error::refused(format!(
            "{}: {why}, so a record like it may be in two partitions, and two instances would both write it; {}",
            describe(message),
            share::alone(job)
        )))
    }
}

fn unknown(topic: &str) -> Error {
    Error::refused(format!(
        "no known partitioner explains where the keys of {topic} are, neither Java's (murmur2), nor librdkafka's (CRC-32), \
         nor Sarama's (FNV-1a): several kinds of producers write to it, or its number of partitions was changed. The \
         topics have different numbers of partitions, so a copy could go to another partition than later records of \
         its key. Name the partitioner of the target's producers with -X partitioner=murmur2, =consistent (CRC-32) or \
         =fnv1a, or fill a topic with the same number of partitions"
    ))
    .because(Reason::UnknownPlacement)
}
