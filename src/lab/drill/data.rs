//! The records that a drill puts into its topics. They are difficult on purpose, and the same for the same seed. Pure.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::topics::Record;
use crate::base::range::id;
use crate::kafka::partition::Placement;

const MINUTE: i64 = 60_000;
/// 2021-04-14, 11:00 to 13:00 UTC, in milliseconds.
pub(super) const WINDOW: (i64, i64) = (1_618_398_000_000, 1_618_405_200_000);
/// The same window, as a user writes it.
pub(super) const WINDOW_ARGUMENT: &str = "2021-04-14T11:00Z/2021-04-14T13:00Z";
/// The window of a run that follows the source.
pub(super) const OPEN_WINDOW_ARGUMENT: &str = "2021-04-14T11:00Z/";

pub(super) fn in_window(record: &Record) -> bool {
    (WINDOW.0..WINDOW.1).contains(&record.time)
}

/// Records that are committed or aborted together.
pub(super) struct Batch {
    pub records: Vec<Record>,
    pub committed: bool,
}

/// The size of a round's topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub source_partitions: usize,
    pub target_partitions: usize,
    pub records: usize,
    /// Whether all records are in the window, and none of them is in the target before.
    pub whole: bool,
    /// Whether a record's key decides about its partition.
    pub is_keyed: bool,
}

impl Shape {
    /// If keys decide about partitions, a run places each key as the producers of the topics do. So all producers of a
    /// round are of one kind, and the kinds take turns. Otherwise a record can be in any partition.
    pub fn place(self, record: &mut Record, partitions: usize) {
        if !self.is_keyed {
            return;
        }
        let known = [Placement::Java, Placement::Librdkafka];
        let placement = known[(self.source_partitions + self.target_partitions) % known.len()];
        record.partition = placement.partition(record.key.as_deref().unwrap_or_default(), partitions);
    }
}

/// Makes the records of one round.
pub(super) struct Data<'r> {
    shape: Shape,
    rng: &'r mut ChaCha8Rng,
    made: usize,
}

impl Data<'_> {
    pub(super) fn new(shape: Shape, rng: &mut ChaCha8Rng) -> Data<'_> {
        Data { shape, rng, made: 0 }
    }

    /// The source, in order.
    pub(super) fn source(&mut self) -> Vec<Batch> {
        let mut batches = Vec::new();
        let mut left = self.shape.records;
        while left > 0 {
            let count = self.rng.random_range(1..=left.min(2000));
            batches.push(self.batch(count, true));
            if !self.shape.whole || self.rng.random_bool(0.3) {
                batches.push(self.aborted());
            }
            left -= count;
        }
        batches
    }

    /// The records of `source` that the target holds before: most of those outside the window, some inside, and a few of
    /// these twice.
    pub(super) fn target(&mut self, source: &[Batch]) -> Vec<Batch> {
        let mut aborted = self.aborted();
        for record in &mut aborted.records {
            record.partition %= id(self.shape.target_partitions);
            self.shape.place(record, self.shape.target_partitions);
        }
        if self.shape.whole {
            return vec![aborted];
        }
        let mut records = Vec::new();
        let committed = source.iter().filter(|batch| batch.committed).flat_map(|batch| &batch.records);
        for record in committed {
            let copies = match (in_window(record), self.rng.random_range(0..100)) {
                (true, 0) => 2,
                (true, 1..15) | (false, 0..70) => 1,
                _ => 0,
            };
            for _ in 0..copies {
                let mut copy = record.clone();
                self.shape.place(&mut copy, self.shape.target_partitions);
                records.push(copy);
            }
        }
        vec![Batch { records, committed: true }, aborted]
    }

    /// New records, inside and outside the window.
    pub(super) fn batch(&mut self, count: usize, committed: bool) -> Batch {
        let mut records: Vec<Record> = Vec::with_capacity(count);
        while records.len() < count {
            let again = records.choose(self.rng).cloned().filter(|_| self.rng.random_bool(0.01));
            let record = again.unwrap_or_else(|| self.record(if committed { "event" } else { "aborted" }));
            records.push(record);
        }
        Batch { records, committed }
    }

    fn aborted(&mut self) -> Batch {
        let count = self.rng.random_range(1..30);
        self.batch(count, false)
    }

    /// A record of another producer, outside the window. It goes to `partition` of the target, if the round allows any
    /// partition.
    pub(super) fn foreign(&mut self, partition: usize) -> Record {
        let record = self.record("foreign");
        let mut record = Record { partition: id(partition), time: WINDOW.1 + 3 * 60 * MINUTE, ..record };
        self.shape.place(&mut record, self.shape.target_partitions);
        record
    }

    fn record(&mut self, kind: &str) -> Record {
        self.made += 1;
        let rng = &mut *self.rng;
        let (start, end) = WINDOW;
        let time = match rng.random_range(0..100) {
            0 => start,
            1 => end - 1,
            2 if !self.shape.whole => end,
            3 if !self.shape.whole => start - 1,
            _ if self.shape.whole => rng.random_range(start..end),
            // Roughly in order of time, as in a real topic.
            _ => {
                let span = 405 * MINUTE;
                let at = span * i64::try_from(self.made % self.shape.records.max(1)).unwrap_or(0)
                    / i64::try_from(self.shape.records.max(1)).unwrap_or(1);
                start - 60 * MINUTE + (at + rng.random_range(-5 * MINUTE..5 * MINUTE)).clamp(0, span)
            }
        };
        let value = match rng.random_range(0..200) {
            0 => None,
            1 => Some(Vec::new()),
            2 => Some((0..rng.random_range(1000..20_000)).map(|_| rng.random()).collect()),
            _ => Some(
                format!(
                    "{{\"n\":{},\"action\":\"play\",\"pad\":\"{:x<2$}\"}}",
                    self.made,
                    "",
                    rng.random_range(0..200)
                )
                .into_bytes(),
            ),
        };
        let headers = match rng.random_range(0..50) {
            0 => vec![("trace".to_owned(), Some(vec![0xff, 0, 7])), ("trace".to_owned(), None)],
            1 => vec![(String::new(), Some(Vec::new()))],
            _ => Vec::new(),
        };
        let mut record = Record {
            partition: id(rng.random_range(0..self.shape.source_partitions)),
            time,
            key: Some(format!("{kind}-{}", self.made).into_bytes()),
            value,
            headers,
        };
        self.shape.place(&mut record, self.shape.source_partitions);
        record
    }
}
