//! Asks for the offsets at which partitions begin and end, and for the offset of a time.

use std::collections::HashMap;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::base::error::{Error, Result};
use crate::base::range::{Range, id, index};
use crate::base::time::rfc3339;
use crate::kafka::client::{Listener, REQUEST_TIMEOUT};
use crate::kafka::cluster::Cluster;
use crate::kafka::sys;
use crate::kafka::sys::largest::{Stamped, largest_timestamps};
use crate::kafka::topic::Topic;

/// A partition's first offset, and the offset after its last record, committed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    pub low: i64,
    pub high: i64,
    /// The epoch of the leader that named `high`; -1 if it named none.
    pub epoch: i32,
}

impl Cluster {
    /// Each partition's low and high watermark. The read_uncommitted client asks, since a broker gives a read_committed
    /// one the last stable offset for the high watermark.
    ///
    /// # Errors
    /// [`Error::Restart`] if a leader does not answer.
    pub fn watermarks(&self, topic: &Topic) -> Result<Vec<Watermarks>> {
        self.says(fetch_watermarks(&self.uncommitted, topic))
    }

    /// Each partition's last stable offset. A read_committed reader may read only below it.
    ///
    /// # Errors
    /// [`Error::Restart`] if a leader does not answer.
    pub fn last_stable_offsets(&self, topic: &Topic) -> Result<Vec<i64>> {
        Ok(ends(&self.says(fetch_watermarks(&self.committed, topic))?))
    }

    /// All that a read_committed reader may read now, in each partition.
    ///
    /// # Errors
    /// [`Error::Restart`] if a leader does not answer.
    pub(crate) fn readable(&self, topic: &Topic) -> Result<Vec<Range>> {
        let starts: Vec<i64> = self.watermarks(topic)?.iter().map(|watermarks| watermarks.low).collect();
        Ok(Range::all(&starts, &self.last_stable_offsets(topic)?))
    }

    /// The offset in each partition from which to read. No record of `millis` or later lies before it, even if the
    /// topic is not in order of time. Without `millis`, these are the low watermarks.
    ///
    /// If a broker names an offset, it is that of the first such record. If it names none, this proves nothing: the
    /// broker looks only into the first segment whose largest timestamp is `millis` or later. That segment may hold no
    /// record above the log's start, although later segments hold some (`UnifiedLog.fetchOffsetByTimestamp`,
    /// `LogSegment.findOffsetByTimestamp`; the same in 2.8 to 4.0). A segment that DeleteRecords emptied is an example,
    /// until the broker next looks for such segments (`log.retention.check.interval.ms`). So if a broker names none,
    /// the reading begins at the low watermark, unless all records are certainly older.
    ///
    /// # Errors
    /// [`Error::Restart`] if a leader does not answer.
    pub fn positions_from(
        &self,
        topic: &Topic,
        millis: Option<i64>,
        watermarks: &[Watermarks],
    ) -> Result<Vec<i64>> {
        let Some(millis) = millis.map(|millis| millis.max(0)) else {
            return Ok(watermarks.iter().map(|w| w.low).collect());
        };
        // If the topic has an open transaction, a broker tells a read_committed client that there is nothing.
        let found = self.says(list_offsets(&self.uncommitted, topic, Offset::Offset(millis)))?;
        let is_in_doubt = found.iter().zip(watermarks).any(|(at, w)| at.is_none() && w.low < w.high);
        let older = if is_in_doubt { self.all_older(topic, millis)? } else { vec![true; topic.partitions] };
        let positions = found.into_iter().zip(watermarks).zip(older);
        Ok(positions
            .map(|((at, w), all_older)| match at {
                Some(at) => at.min(w.high),
                None if all_older => w.high,
                None => w.low,
            })
            .collect())
    }

    /// Says for each partition whether all of its records are certainly older than `millis`, which is not negative.
    /// They certainly are if the partition's largest timestamp is older than `millis` (KIP-734). A segment's largest
    /// timestamp may outlive its record, but it is never too small: appending and recovery raise it with each batch
    /// (`LogSegment.append`, `recover`), truncation and opening read it again from the log (`readLargestTimestamp`),
    /// and the cleaner takes it from what it keeps (`MemoryRecords.filterTo`). The answers of two kinds of brokers
    /// prove nothing:
    /// - A broker older than 3.0 understands -3 as a time, and names the partition's first record.
    /// - With tiered storage, a broker looks only at the segments on its own disk (`UnifiedLog`, 3.6 and later). If its
    ///   configuration is not visible, a topic may have tiered storage.
    fn all_older(&self, topic: &Topic, millis: i64) -> Result<Vec<bool>> {
        let unknown = vec![false; topic.partitions];
        let is_local = |configuration: &HashMap<String, String>| {
            let is_tiering = |name: &str| name.contains("remote") || name.contains("tier");
            !configuration.iter().any(|(name, value)| is_tiering(name) && value == "true")
        };
        let configurations = self.configuration(&[&topic.name])?.unwrap_or_default();
        if !configurations.first().is_some_and(is_local) {
            return Ok(unknown);
        }
        let largest =
            match largest_timestamps(&self.uncommitted, &topic.name, topic.partitions, REQUEST_TIMEOUT) {
                Ok(largest) => largest,
                Err(code) => {
                    tracing::debug!("the largest timestamps of {}: {code}", topic.name);
                    return Ok(unknown);
                }
            };
        // Ask for the first record only after that. If it lies before the record with the largest timestamp now, it
        // also did when the broker named that record. So the broker did not simply name its first record.
        let first = self.says(list_offsets(&self.uncommitted, topic, Offset::Offset(0)))?;
        let is_older = |(largest, first): (Option<Stamped>, Option<i64>)| {
            largest
                .zip(first)
                .is_some_and(|(largest, first)| first < largest.offset && largest.timestamp < millis)
        };
        Ok(largest.into_iter().zip(first).map(is_older).collect())
    }

    /// Estimates from the time index how many records of each partition lie from one time up to another, in milliseconds
    /// since the epoch. The index may miss records (see [`Cluster::positions_from`]), so nobody may skip records because
    /// of these numbers.
    ///
    /// # Errors
    /// [`Error::Restart`] if a leader does not answer.
    pub(crate) fn about_how_many(
        &self,
        topic: &Topic,
        (start, end): (Option<i64>, Option<i64>),
        watermarks: &[Watermarks],
    ) -> Result<Vec<i64>> {
        let at =
            |millis: i64| self.says(list_offsets(&self.uncommitted, topic, Offset::Offset(millis.max(0))));
        let none = || Ok(vec![None; topic.partitions]);
        let (from, to) = (start.map_or_else(none, at)?, end.map_or_else(none, at)?);
        let within = from.into_iter().zip(to).zip(watermarks).map(|((from, to), w)| {
            let from = from.unwrap_or(if start.is_some() { w.high } else { w.low });
            (to.unwrap_or(w.high) - from).max(0)
        });
        Ok(within.collect())
    }
}

/// The high watermarks.
pub(crate) fn ends(watermarks: &[Watermarks]) -> Vec<i64> {
    watermarks.iter().map(|w| w.high).collect()
}

fn fetch_watermarks(client: &BaseConsumer<Listener>, topic: &Topic) -> Result<Vec<Watermarks>> {
    let (lows, highs) = (list(client, topic, Offset::Beginning)?, list(client, topic, Offset::End)?);
    let both = lows
        .into_iter()
        .zip(highs)
        .map(|(low, high)| Some(Watermarks { low: low.offset?, high: high.offset?, epoch: high.epoch }));
    let both: Option<Vec<Watermarks>> = both.collect();
    both.ok_or_else(|| Error::failed(format!("a partition of {} has no beginning or no end", topic.name)))
}

/// Asks as [`list`] does, and leaves out the epochs.
fn list_offsets(client: &BaseConsumer<Listener>, topic: &Topic, at: Offset) -> Result<Vec<Option<i64>>> {
    Ok(list(client, topic, at)?.into_iter().map(|listed| listed.offset).collect())
}

/// A leader's answer for one partition.
#[derive(Clone, Copy)]
struct Listed {
    /// `None` if the leader found none.
    offset: Option<i64>,
    /// If the end was asked for, this is the leader's own epoch (KIP-320).
    epoch: i32,
}

/// Each partition's offset at `at`, which is its beginning, its end, or a time in milliseconds. This sends one request
/// to each leader.
fn list(client: &BaseConsumer<Listener>, topic: &Topic, at: Offset) -> Result<Vec<Listed>> {
    let what = || match at {
        Offset::Offset(millis) => format!("the offsets of {} at {}", topic.name, rfc3339(millis)),
        _ => format!("the offsets of {}", topic.name),
    };
    let mut asked = TopicPartitionList::with_capacity(topic.partitions);
    for partition in 0..topic.partitions {
        asked
            .add_partition_offset(&topic.name, id(partition), at)
            .map_err(|e| Error::on_topic(what(), "Read", &topic.name, e))?;
    }
    // librdkafka and the protocol use the same numbers for the beginning and the end.
    let answer = client
        .offsets_for_times(asked, REQUEST_TIMEOUT)
        .map_err(|e| Error::on_topic(what(), "Read", &topic.name, e))?;
    let mut found = vec![None; topic.partitions];
    for (element, epoch) in answer.elements().iter().zip(sys::leader_epochs(&answer)) {
        // A failed element keeps the offset that was asked for.
        element.error().map_err(|e| Error::on_topic(what(), "Read", &topic.name, e))?;
        let offset = match element.offset() {
            Offset::Offset(offset) if offset >= 0 => Some(offset),
            _ => None,
        };
        let slot = found.get_mut(index(element.partition()));
        *slot.ok_or_else(|| Error::failed(format!("{}: the answer has an unknown partition", what())))? =
            Some(Listed { offset, epoch });
    }
    let found: Option<Vec<_>> = found.into_iter().collect();
    found.ok_or_else(|| Error::failed(format!("{}: the answer lacks a partition", what())))
}
