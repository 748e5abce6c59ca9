//! Producers that commit and abort transactions in the source all the time.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rdkafka::producer::{BaseProducer, Producer};

use crate::base::error::{Error, Result};
use crate::base::range::id;
use crate::lab::drill::compare::count;
use crate::lab::drill::data::{Shape, WINDOW};
use crate::lab::drill::topics::{Record, Topics, delivered, of, send};

/// How long a commit or an abort may take. A broker may be down during that time.
const PATIENCE: Duration = Duration::from_secs(60);
const HOUR: i64 = 3_600_000;
/// The keys are those of users, so they come again and again.
const USERS: usize = 20;
pub(super) const USER: &[u8] = b"user-";

/// Threads that write until they are stopped.
pub(super) struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

struct Shared {
    topics: Topics,
    topic: String,
    shape: Shape,
    /// The partitions that the source has now.
    width: AtomicUsize,
    is_stopped: AtomicBool,
    wrote: Counters,
    began: Instant,
    commits: Mutex<Vec<Commit>>,
    aborted: Mutex<Vec<Record>>,
}

/// A transaction whose commit the broker has confirmed.
struct Commit {
    writer: usize,
    records: Vec<Record>,
    /// When the commit was called, and when it was confirmed, in milliseconds since the writers started.
    millis: (u128, u128),
}

#[derive(Default)]
struct Counters {
    committed: AtomicU64,
    aborted: AtomicU64,
    unknown: AtomicU64,
}

/// What the writers did, in records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wrote {
    pub committed: u64,
    pub aborted: u64,
    /// Records of transactions whose commit failed. The source may hold them.
    pub unknown: u64,
}

impl Writers {
    /// Starts `count` writers, each with a generator of its own.
    pub(super) fn start(count: usize, topics: &Topics, topic: &str, shape: Shape, seed: u64) -> Writers {
        let shared = Arc::new(Shared {
            topics: topics.clone(),
            topic: topic.to_owned(),
            shape,
            width: AtomicUsize::new(shape.source_partitions),
            is_stopped: AtomicBool::new(false),
            wrote: Counters::default(),
            began: Instant::now(),
            commits: Mutex::default(),
            aborted: Mutex::default(),
        });
        let write = |number: usize| {
            let shared = shared.clone();
            let seed = seed.wrapping_mul(1000) + u64::try_from(number).unwrap_or(0);
            std::thread::spawn(move || {
                Writer { shared, number, made: 0, rng: ChaCha8Rng::seed_from_u64(seed) }.until_stopped()
            })
        };
        let threads = (0..count).map(write).collect();
        Writers { shared, threads }
    }

    /// From now on, they write to so many partitions.
    pub(super) fn widen(&self, partitions: usize) {
        self.shared.width.store(partitions, Ordering::Relaxed);
    }

    /// Stops all writers. No transaction of theirs is open then.
    ///
    /// # Errors
    /// [`Error::Failed`] if a writer could not go on.
    pub(super) fn stop(&mut self) -> Result<Wrote> {
        self.shared.is_stopped.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| Error::failed("a writer of the drill died".to_owned()))??;
        }
        let Counters { committed, aborted, unknown } = &self.shared.wrote;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Ok(Wrote { committed: read(committed), aborted: read(aborted), unknown: read(unknown) })
    }

    /// The records that no writer commits.
    pub(super) fn aborted(&self) -> Vec<Record> {
        self.shared.aborted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Compares the confirmed transactions with what a reader found.
    pub(super) fn missing(&self, found: &[Record]) -> Missing {
        missing(&self.shared.commits.lock().unwrap_or_else(PoisonError::into_inner), found)
    }
}

/// What a topic lacks of the confirmed transactions.
#[derive(Debug, Default)]
pub(super) struct Missing {
    /// The transactions of which nothing is there.
    pub whole: Vec<String>,
    /// The number of other records that it lacks.
    pub others: u64,
}

/// Equal records of several transactions cannot be told apart, so only their number counts.
fn missing(commits: &[Commit], found: &[Record]) -> Missing {
    let found = count(found);
    let mut lost = count(commits.iter().flat_map(|commit| &commit.records));
    for (content, lost) in &mut lost {
        *lost = lost.saturating_sub(found.get(content).copied().unwrap_or(0));
    }
    let mut whole = Vec::new();
    for Commit { writer, records, millis: (called, confirmed) } in commits {
        let own = count(records);
        if own.iter().all(|(content, own)| lost[content] >= *own) {
            lost.iter_mut().for_each(|(content, lost)| *lost -= own.get(content).copied().unwrap_or(0));
            whole.push(format!(
                "{} records of writer {writer}, committed from {called} to {confirmed} ms",
                records.len()
            ));
        }
    }
    Missing { whole, others: lost.values().sum() }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

struct Writer {
    shared: Arc<Shared>,
    number: usize,
    made: usize,
    rng: ChaCha8Rng,
}

impl Writer {
    fn until_stopped(mut self) -> Result<()> {
        let name = format!("drill/{}/{}", self.shared.topic, self.number);
        let mut producer = None;
        while !self.is_stopped() {
            let current = match producer.take() {
                Some(producer) => producer,
                // This ends what an earlier producer of this writer left open.
                None => self.shared.topics.producer(Some(&name))?,
            };
            if self.transaction(&current).is_ok() {
                producer = Some(current);
            }
            std::thread::sleep(Duration::from_millis(self.rng.random_range(10..120)));
        }
        if producer.is_none() {
            self.shared.topics.producer(Some(&name))?;
        }
        Ok(())
    }

    fn is_stopped(&self) -> bool {
        self.shared.is_stopped.load(Ordering::Relaxed)
    }

    /// Writes one transaction. After an error, this producer is of no more use.
    fn transaction(&mut self, producer: &BaseProducer) -> Result<()> {
        let commits = self.rng.random_bool(0.8);
        let count = self.rng.random_range(1..40);
        let records: Vec<Record> = (0..count).map(|_| self.record(commits)).collect();
        let number = u64::try_from(records.len()).unwrap_or(0);
        let shared = self.shared.clone();
        if !commits {
            let mut aborted = shared.aborted.lock().unwrap_or_else(PoisonError::into_inner);
            aborted.extend(records.iter().cloned());
        }
        producer.begin_transaction().map_err(of("transaction"))?;
        send(producer, &shared.topic, &records)?;
        delivered(producer)?;
        if !commits {
            producer.abort_transaction(PATIENCE).map_err(of("abort"))?;
            shared.wrote.aborted.fetch_add(number, Ordering::Relaxed);
            return Ok(());
        }
        let called = shared.began.elapsed().as_millis();
        let result = producer.commit_transaction(PATIENCE).map_err(of("commit"));
        if result.is_ok() {
            let (writer, millis) = (self.number, (called, shared.began.elapsed().as_millis()));
            let commit = Commit { writer, records, millis };
            shared.commits.lock().unwrap_or_else(PoisonError::into_inner).push(commit);
        }
        let counter = if result.is_ok() { &shared.wrote.committed } else { &shared.wrote.unknown };
        counter.fetch_add(number, Ordering::Relaxed);
        result
    }

    /// Many records equal others. Equal ones are always in the same partition, because the verdict could not tell apart
    /// which of them came first.
    fn record(&mut self, commits: bool) -> Record {
        self.made += 1;
        let (shape, rng) = (self.shared.shape, &mut self.rng);
        let width = self.shared.width.load(Ordering::Relaxed);
        let key = format!("user-{}", rng.random_range(0..USERS)).into_bytes();
        let partition = id(rng.random_range(0..width));
        let mut record =
            Record { partition, time: WINDOW.0, key: Some(key), value: None, headers: Vec::new() };
        shape.place(&mut record, shape.source_partitions);
        let partition = record.partition;
        record.time += i64::from(partition);
        // The window does not matter above the joint.
        if shape.is_keyed && rng.random_range(0..10) == 0 {
            record.time -= HOUR;
        }
        record.value = match rng.random_range(0..10) {
            _ if !commits => Some(b"{\"aborted\":true}".to_vec()),
            0 => None,
            1 | 2 => Some(format!("{{\"same\":true,\"partition\":{partition}}}").into_bytes()),
            _ => Some(format!("{{\"writer\":{},\"n\":{}}}", self.number, self.made).into_bytes()),
        };
        if rng.random_range(0..20) == 0 {
            record.headers = vec![("trace".to_owned(), Some(vec![0xff, 0, 7])), ("trace".to_owned(), None)];
        }
        record
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Three transactions of one writer; `s` stands for records that are equal.
    #[rstest]
    #[case::nothing("abcss", &[], 0)]
    #[case::in_another_order("scbsa", &[], 0)]
    #[case::a_transaction("css", &[0], 0)]
    #[case::with_one_of_two_equal_records("abs", &[1], 0)]
    #[case::a_part("acss", &[], 1)]
    #[case::two_transactions("cs", &[0, 2], 0)]
    #[case::a_transaction_and_a_part("as", &[1], 1)]
    #[case::more_than_was_committed("abcsssx", &[], 0)]
    fn a_lost_transaction_is_told_from_a_lost_record(
        #[case] found: &str,
        #[case] whole: &[usize],
        #[case] others: u64,
    ) {
        let records = |values: &str| -> Vec<Record> {
            let record = |value: u8| Record {
                partition: 0,
                time: 0,
                key: None,
                value: Some(vec![value]),
                headers: Vec::new(),
            };
            values.bytes().map(record).collect()
        };
        let commit =
            |(writer, values): (usize, &&str)| Commit { writer, records: records(values), millis: (1, 2) };
        let commits: Vec<Commit> = ["ab", "cs", "s"].iter().enumerate().map(commit).collect();
        let missing = missing(&commits, &records(found));
        let named: Vec<usize> = (0..3)
            .filter(|n| missing.whole.iter().any(|told| told.contains(&format!("writer {n},"))))
            .collect();
        assert_eq!((named.as_slice(), missing.others), (whole, others));
    }
}
