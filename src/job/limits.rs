//! Tells from a topic's configuration which records its brokers accept and keep. A run checks each record before it
//! writes it. Pure.

use std::collections::HashMap;

use crate::base::error::Result;
use crate::base::shell::line;
use crate::job::Selection;
use crate::job::window::Window;
use crate::kafka::sys::Message;
use crate::kafka::topic::Topic;

/// A topic's configuration: the value of each property.
#[derive(Clone, Copy)]
pub(crate) struct Configuration<'a>(pub &'a HashMap<String, String>);

impl Configuration<'_> {
    pub(crate) fn text(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    pub(crate) fn number(&self, key: &str) -> Option<i64> {
        self.0.get(key)?.parse().ok()
    }

    pub(crate) fn is_compacted(&self) -> bool {
        self.text("cleanup.policy").contains("compact")
    }

    /// Whether the broker stamps the records with its own time.
    pub(crate) fn is_stamped(&self) -> bool {
        self.text("message.timestamp.type") == "LogAppendTime"
    }

    /// How far a timestamp may be from the broker's clock. Like the broker, this reads the newer property (since Kafka
    /// 3.6) and, if that sets no limit, the older one, which Kafka 4.0 no longer has.
    fn distance(&self, key: &str) -> Option<i64> {
        let unbounded = |limit: &i64| *limit != i64::MAX;
        let older = || self.number("message.timestamp.difference.max.ms");
        self.number(key).filter(unbounded).or_else(|| older().filter(unbounded))
    }
}

/// The most bytes that librdkafka puts into a batch by default.
const BATCH: usize = 1_000_000;
/// Bytes of a batch before its first record.
const BATCH_HEADER: usize = 61;

/// Which records a topic accepts and keeps. An unknown limit counts as no limit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    topic: String,
    bootstrap: String,
    /// In milliseconds since the epoch.
    now: i64,
    /// In milliseconds from `now`, like the next two.
    retention: Option<i64>,
    before: Option<i64>,
    after: Option<i64>,
    /// The size in bytes at which the broker deletes a partition's oldest segments.
    retention_bytes: Option<i64>,
    /// The largest batch in bytes, and the property that says so.
    largest: Option<(usize, &'static str)>,
    /// The producer compresses, so nobody knows a record's size in advance.
    is_compressed: bool,
    needs_key: bool,
}

/// Why a record must not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Unfit {
    NullKey,
    /// The broker deletes it at the next retention check.
    Deleted,
    TooOld,
    TooNew,
    TooLarge,
}

impl Unfit {
    /// A name for the reason, shown beside an example of such a record.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Unfit::NullKey => "null key for a compacted topic",
            Unfit::Deleted => "older than retention.ms",
            Unfit::TooOld => "older than message.timestamp.before.max.ms",
            Unfit::TooNew => "later than message.timestamp.after.max.ms",
            Unfit::TooLarge => "too large",
        }
    }

    /// A clause that says how many records that would be written are unfit.
    pub(crate) fn of_records(self, count: u64) -> String {
        let are = match self {
            Unfit::NullKey => "have a null key",
            Unfit::Deleted | Unfit::TooOld => "are older",
            Unfit::TooNew => "are later",
            Unfit::TooLarge => "are larger",
        };
        format!("{count} records that would be written {are}")
    }
}

impl Limits {
    /// The limits of `topic` on the cluster of `bootstrap` at `now`. `is_compressed` says whether the producer
    /// compresses.
    pub(crate) fn of(
        topic: &str,
        bootstrap: &str,
        is_compressed: bool,
        config: Configuration<'_>,
        now: i64,
    ) -> Limits {
        // If the broker sets the timestamps itself, no limit on them applies.
        let of_time = |limit: Option<i64>| limit.filter(|limit| *limit >= 0 && !config.is_stamped());
        let deletes = config.text("cleanup.policy").contains("delete");
        let bytes = |key: &'static str| Some((usize::try_from(config.number(key)?).ok()?, key));
        Limits {
            topic: topic.to_owned(),
            bootstrap: bootstrap.to_owned(),
            now,
            retention: of_time(config.number("retention.ms").filter(|_| deletes)),
            before: of_time(config.distance("message.timestamp.before.max.ms")),
            after: of_time(config.distance("message.timestamp.after.max.ms")),
            retention_bytes: config.number("retention.bytes").filter(|bytes| deletes && *bytes >= 0),
            largest: [bytes("max.message.bytes"), bytes("segment.bytes")].into_iter().flatten().min(),
            is_compressed,
            needs_key: config.is_compacted(),
        }
    }

    /// The same limits at a later time, in milliseconds since the epoch. With these limits, a record that was created
    /// after the first limits were read does not count as too new.
    #[must_use]
    pub(crate) fn at(&self, now: i64) -> Limits {
        Limits { now, ..self.clone() }
    }

    /// How large batches may be, in bytes.
    pub(crate) fn batch_bytes(&self) -> usize {
        // Leave some room for the batch's header.
        self.largest.map_or(BATCH, |(bytes, _)| BATCH.min(bytes.saturating_sub(512).max(1)))
    }

    /// The reasons to refuse a timestamp, in milliseconds since the epoch. -1 means no timestamp, which is accepted.
    pub(crate) fn of_time(&self, millis: i64) -> impl Iterator<Item = Unfit> {
        let age = self.now.saturating_sub(millis);
        [
            (self.retention.is_some_and(|limit| age > limit), Unfit::Deleted),
            (self.before.is_some_and(|limit| age > limit), Unfit::TooOld),
            (self.after.is_some_and(|limit| age.saturating_neg() > limit), Unfit::TooNew),
        ]
        .into_iter()
        .filter_map(move |(is_so, unfit)| (is_so && millis >= 0).then_some(unfit))
    }

    /// The reason why the record must not be written, if there is one.
    pub(crate) fn of_record(&self, message: &Message) -> Option<Unfit> {
        if self.needs_key && message.key().is_none() {
            return Some(Unfit::NullKey);
        }
        let is_too_large =
            || self.largest.is_some_and(|(largest, _)| !self.is_compressed && batch_of(message) > largest);
        self.of_time(message.timestamp().0).next().or_else(|| is_too_large().then_some(Unfit::TooLarge))
    }

    /// Whether only the records themselves can tell if the broker would delete them, because the window sets no lower
    /// limit on their timestamps.
    pub(crate) fn are_of_records_alone(&self, selection: &Selection, window: Window) -> bool {
        self.retention.is_some() && (window.start.is_none() || !selection.event_time.is_indexed())
    }

    /// A sentence with the limit, the clause `what` that says which records exceed it, and the ways to solve it.
    pub(crate) fn sentence(&self, unfit: Unfit, what: &str) -> String {
        let topic = &self.topic;
        let millis = |limit: Option<i64>| limit.unwrap_or_default();
        match unfit {
            Unfit::NullKey => format!(
                "{topic} is compacted and accepts no null key, but {what}; write to another topic, or remove `compact` \
                 from its cleanup.policy"
            ),
            Unfit::Deleted => {
                let limit = millis(self.retention);
                format!(
                    "{topic} deletes records older than retention.ms={limit} ({} days), but {what}: the broker would \
                     delete the records that are written; {}",
                    limit / 86_400_000,
                    self.mend("retention.ms", -1, limit, " when it may delete them")
                )
            }
            Unfit::TooOld => {
                let limit = millis(self.before);
                let key = "message.timestamp.before.max.ms";
                let mend = self.mend(key, i64::MAX, limit, "");
                format!("{topic} accepts no record older than {key}={limit}, but {what}; {mend}")
            }
            Unfit::TooNew => {
                let limit = millis(self.after);
                let key = "message.timestamp.after.max.ms";
                let mend = self.mend(key, i64::MAX, limit, "");
                format!(
                    "{topic} accepts no record later than the broker's clock plus {key}={limit}, but {what}; {mend}"
                )
            }
            Unfit::TooLarge => {
                let (limit, key) = self.largest.unwrap_or_default();
                format!(
                    "{topic} accepts no batch larger than {key}={limit}, but {what}; raise that limit, or try to \
                     compress the records with -X compression.type=zstd"
                )
            }
        }
    }

    /// A sentence if the broker deletes by size, which may hit any record. librdkafka has no request that asks how
    /// large a partition is on the broker's disk.
    pub(crate) fn deletes_by_size(&self) -> Option<String> {
        let limit = self.retention_bytes?;
        Some(format!(
            "{} deletes the oldest segments of a partition that is larger than retention.bytes={limit}, whatever the \
             records' age, and replicator cannot ask for a partition's size: the broker may delete old records and \
             those that are written; {}",
            self.topic,
            self.mend("retention.bytes", -1, limit, " when it may delete them")
        ))
    }

    fn mend(&self, key: &str, to: i64, back: i64, when: &str) -> String {
        let command = |value: i64| {
            let setting = format!("{key}={value}");
            let words = [
                "kafka-configs.sh",
                "--bootstrap-server",
                &self.bootstrap,
                "--alter",
                "--topic",
                &self.topic,
            ];
            line(&[&words[..], &["--add-config", &setting]].concat())
        };
        format!("change it with `{}`, and change it back{when} with `{}`", command(to), command(back))
    }
}

/// Bytes of an uncompressed batch that holds only this record: <https://kafka.apache.org/documentation/#recordbatch>.
fn batch_of(message: &Message) -> usize {
    let mut headers = (0, 0);
    message.for_each_header(|name, value| {
        headers = (headers.0 + 1, headers.1 + sized(Some(name)) + sized(value));
    });
    // Three bytes for the attributes, and for the deltas of time and offset, which are 0.
    let body = 3 + sized(message.key()) + sized(message.value()) + varint(headers.0) + headers.1;
    BATCH_HEADER + varint(body) + body
}

/// The size of `bytes` with their length before them.
fn sized(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varint(bytes.len()) + bytes.len())
}

/// How many bytes a length takes: each byte holds 7 bits, and one bit is the sign.
fn varint(length: usize) -> usize {
    let bits = usize::BITS - length.leading_zeros() + 1;
    bits.div_ceil(7) as usize
}

/// Checks that the topic accepts writes with the replicas that it has.
///
/// # Errors
/// As [`Topic::takes_writes`].
pub(crate) fn takes_writes(topic: &Topic, config: Configuration<'_>) -> Result<()> {
    let min = config.number("min.insync.replicas").and_then(|min| usize::try_from(min).ok());
    min.map_or(Ok(()), |min| topic.takes_writes(min))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn limits(entries: &[(&str, &str)]) -> Limits {
        let entries = entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Limits::of("t", "broker:9092", false, Configuration(&entries), NOW)
    }

    #[rstest]
    #[case(&[], 1, &[])]
    #[case(&[("cleanup.policy", "delete"), ("retention.ms", "1000")], NOW - 1000, &[])]
    #[case(&[("cleanup.policy", "delete"), ("retention.ms", "1000")], NOW - 1001, &[Unfit::Deleted])]
    #[case(&[("cleanup.policy", "compact,delete"), ("retention.ms", "1000")], 1, &[Unfit::Deleted])]
    #[case(&[("cleanup.policy", "compact"), ("retention.ms", "1000")], 1, &[])]
    #[case(&[("cleanup.policy", "delete"), ("retention.ms", "-1")], 1, &[])]
    #[case(&[("message.timestamp.before.max.ms", "1000")], NOW - 1000, &[])]
    #[case(&[("message.timestamp.before.max.ms", "1000")], NOW - 1001, &[Unfit::TooOld])]
    #[case(&[("message.timestamp.before.max.ms", "1000")], -1, &[])]
    #[case(&[("message.timestamp.before.max.ms", "1000"), ("message.timestamp.type", "LogAppendTime")], 1, &[])]
    #[case(&[("message.timestamp.after.max.ms", "1000")], NOW + 1000, &[])]
    #[case(&[("message.timestamp.after.max.ms", "1000")], NOW + 1001, &[Unfit::TooNew])]
    #[case(&[("message.timestamp.difference.max.ms", "1000")], NOW + 1001, &[Unfit::TooNew])]
    #[case(
        &[("message.timestamp.difference.max.ms", "1000"), ("message.timestamp.before.max.ms", "9223372036854775807")],
        NOW - 1001,
        &[Unfit::TooOld]
    )]
    #[case(
        &[("message.timestamp.difference.max.ms", "1000"), ("message.timestamp.before.max.ms", "5000")],
        NOW - 1001,
        &[]
    )]
    fn times(#[case] entries: &[(&str, &str)], #[case] millis: i64, #[case] expected: &[Unfit]) {
        assert_eq!(limits(entries).of_time(millis).collect::<Vec<_>>(), expected);
    }

    #[rstest]
    #[case(&[("cleanup.policy", "delete"), ("retention.bytes", "0")], true)]
    #[case(&[("cleanup.policy", "compact,delete"), ("retention.bytes", "10")], true)]
    #[case(&[("cleanup.policy", "compact"), ("retention.bytes", "10")], false)]
    #[case(&[("cleanup.policy", "delete"), ("retention.bytes", "-1")], false)]
    fn sizes_on_disk(#[case] entries: &[(&str, &str)], #[case] expected: bool) {
        assert_eq!(limits(entries).deletes_by_size().is_some(), expected);
    }

    #[test]
    fn a_later_clock_takes_later_records() {
        let limits = limits(&[("message.timestamp.after.max.ms", "1000")]);
        assert_eq!(limits.of_time(NOW + 1500).next(), Some(Unfit::TooNew));
        assert_eq!(limits.at(NOW + 500).of_time(NOW + 1500).next(), None);
    }

    #[test]
    fn batches_fit_into_messages_and_segments() {
        assert_eq!(limits(&[]).batch_bytes(), BATCH);
        assert_eq!(limits(&[("max.message.bytes", "2000"), ("segment.bytes", "3000")]).batch_bytes(), 1488);
        assert_eq!(limits(&[("max.message.bytes", "3000"), ("segment.bytes", "2000")]).batch_bytes(), 1488);
    }

    #[rstest]
    #[case(0, 1)]
    #[case(63, 1)]
    #[case(64, 2)]
    #[case(8191, 2)]
    #[case(8192, 3)]
    #[case(usize::MAX >> 1, 10)]
    fn lengths(#[case] length: usize, #[case] bytes: usize) {
        assert_eq!(varint(length), bytes);
    }
}
