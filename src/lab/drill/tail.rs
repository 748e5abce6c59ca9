//! A read_committed reader that watches the target during a round. It must see exactly the records that are there at the
//! end.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::statistics::Statistics;
use rdkafka::{Offset, TopicPartitionList};

use super::topics::{Log, Topics, of, record};
use crate::base::error::{Error, Result};
use crate::base::range::{id, index};

/// A reader that lacks records and sees none for this long will not see them.
const SILENCE: Duration = Duration::from_secs(10);

/// Reads until it is told to finish.
pub(super) struct Tail {
    partitions: usize,
    seen: Arc<AtomicUsize>,
    finish: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Reader>>>,
}

/// What the reader saw in the end.
#[derive(Default)]
pub(super) struct Seen {
    /// Each partition's records, in the order in which the reader got them.
    pub logs: Vec<Log>,
    /// Where the reader stood whenever a new client took over.
    pub renewals: Vec<String>,
    /// Where the reader stands, and what its client says, if it lacks records.
    pub short: Option<String>,
}

impl Tail {
    /// # Errors
    /// [`Error::Failed`] if the reader cannot be created.
    pub(super) fn start(topics: &Topics, topic: &str, partitions: usize) -> Result<Tail> {
        let (seen, finish) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let mut reader = Reader::start(topics, topic, partitions, seen.clone())?;
        let finished = finish.clone();
        let thread = std::thread::spawn(move || {
            while !finished.load(Ordering::Relaxed) {
                reader.poll();
                if reader.has_lost_its_brokers() || reader.is_stuck() {
                    reader.renew()?;
                }
            }
            Ok(reader)
        });
        Ok(Tail { partitions, seen, finish, thread: Some(thread) })
    }

    /// How many partitions it reads.
    pub(super) fn partitions(&self) -> usize {
        self.partitions
    }

    /// How many records were readable so far.
    pub(super) fn seen(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }

    /// Waits until the reader has seen `count` records, or sees none for [`SILENCE`].
    ///
    /// # Errors
    /// [`Error::Failed`] if the reader panicked, or could not create a client.
    pub(super) fn finish(mut self, count: usize) -> Result<Seen> {
        let (mut seen, mut quiet) = (self.seen(), Instant::now());
        while seen < count && quiet.elapsed() < SILENCE {
            std::thread::sleep(Duration::from_millis(10));
            if self.seen() > seen {
                (seen, quiet) = (self.seen(), Instant::now());
            }
        }
        self.finish.store(true, Ordering::Relaxed);
        let died = || Error::failed("the drill's own reader died".to_owned());
        let reader = self.thread.take().and_then(|thread| thread.join().ok()).ok_or_else(died)??;
        let short = (self.seen() < count).then(|| reader.lacks());
        Ok(Seen { logs: reader.logs, renewals: reader.renewals, short })
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.finish.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Reader {
    topics: Topics,
    topic: String,
    consumer: BaseConsumer<State>,
    seen: Arc<AtomicUsize>,
    logs: Vec<Log>,
    /// The offset after the last record of each partition.
    next: Vec<Option<i64>>,
    last_error: Option<(KafkaError, Instant)>,
    renewals: Vec<String>,
}

impl Reader {
    fn start(topics: &Topics, topic: &str, partitions: usize, seen: Arc<AtomicUsize>) -> Result<Reader> {
        let next = vec![None; partitions];
        Ok(Reader {
            consumer: consumer(topics, topic, &next)?,
            topics: topics.clone(),
            topic: topic.to_owned(),
            seen,
            logs: vec![Vec::new(); partitions],
            next,
            last_error: None,
            renewals: Vec::new(),
        })
    }

    /// librdkafka#5301: a broker that shuts down as the last one of its cluster may list no brokers at all. The client then
    /// forgets all brokers, never asks its bootstrap servers again, and reports no error.
    fn has_lost_its_brokers(&self) -> bool {
        self.consumer.context().lost_for.load(Ordering::Relaxed) > 1
    }

    /// After its broker came back, a client was seen to wait for the end of a leader's epoch for good, in one of six
    /// partitions (compare librdkafka#4492).
    fn is_stuck(&self) -> bool {
        self.consumer.context().stuck_for.load(Ordering::Relaxed) > 5
    }

    /// Reads on with a new client, behind the last record of each partition.
    fn renew(&mut self) -> Result<()> {
        self.renewals.push(self.to_string());
        self.consumer = consumer(&self.topics, &self.topic, &self.next)?;
        self.last_error = None;
        Ok(())
    }

    /// Where the reader stands, and where the topic ends.
    fn lacks(&self) -> String {
        let ends = |isolation| match self.topics.ends(&self.topic, self.next.len(), isolation) {
            Ok(ends) => format!("{ends:?}"),
            Err(err) => err.to_string(),
        };
        let (high, stable) = (ends("read_uncommitted"), ends("read_committed"));
        format!("{self}; ends {high}, last stable offsets {stable}")
    }

    fn poll(&mut self) {
        match self.consumer.poll(Duration::from_millis(20)) {
            Some(Ok(message)) => {
                let partition = index(message.partition());
                self.logs[partition].push((message.offset(), record(&message)));
                self.next[partition] = Some(message.offset() + 1);
                self.seen.fetch_add(1, Ordering::Relaxed);
            }
            // Go on after errors, since a broker may be down. If the reader misses a record, the verdict finds out.
            Some(Err(error)) if !matches!(error, KafkaError::PartitionEOF(_)) => {
                self.last_error = Some((error, Instant::now()));
            }
            _ => {}
        }
    }
}

/// Where the reader stands, and what its client says about it.
impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let next: Vec<i64> = self.next.iter().map(|next| next.unwrap_or(0)).collect();
        write!(f, "{} records, positions {next:?}", self.seen.load(Ordering::Relaxed))?;
        match &self.last_error {
            Some((error, at)) => write!(f, "; last error {} ms ago: {error}", at.elapsed().as_millis())?,
            None => f.write_str("; no error")?,
        }
        write!(f, "; {}", self.consumer.context().told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn consumer(topics: &Topics, topic: &str, next: &[Option<i64>]) -> Result<BaseConsumer<State>> {
    let mut list = TopicPartitionList::new();
    for (partition, next) in next.iter().enumerate() {
        let offset = next.map_or(Offset::Beginning, Offset::Offset);
        list.add_partition_offset(topic, id(partition), offset).map_err(of("an assignment"))?;
    }
    let mut config = topics.reader_config("read_committed");
    config.set("statistics.interval.ms", "1000");
    let consumer: BaseConsumer<State> =
        config.create_with_context(State::default()).map_err(of("a consumer"))?;
    consumer.assign(&list).map_err(of("an assignment"))?;
    Ok(consumer)
}

/// What the client's statistics say.
#[derive(Default)]
struct State {
    /// Its partitions and brokers.
    told: Mutex<String>,
    /// How many times in a row it had no broker to ask.
    lost_for: AtomicUsize,
    /// How many times in a row a partition waited for the end of a leader's epoch, although its leader was up.
    stuck_for: AtomicUsize,
}

impl ClientContext for State {
    fn stats(&self, statistics: Statistics) {
        let count = |counter: &AtomicUsize, holds: bool| match holds {
            true => _ = counter.fetch_add(1, Ordering::Relaxed),
            false => counter.store(0, Ordering::Relaxed),
        };
        let mut brokers = statistics.brokers.values();
        count(&self.lost_for, !brokers.any(|b| b.source == "learned" || b.source == "configured"));
        let is_up = |leader| statistics.brokers.values().any(|b| b.nodeid == leader && b.state == "UP");
        let mut all = statistics.topics.values().flat_map(|topic| topic.partitions.values());
        count(&self.stuck_for, all.any(|p| p.fetch_state == "validate-epoch-wait" && is_up(p.leader)));
        let partitions = statistics.topics.values().flat_map(|topic| topic.partitions.values());
        let mut told: Vec<String> = partitions
            .filter(|p| p.partition >= 0)
            .map(|p| {
                format!(
                    "partition {} is {} at offset {}, from broker {} (leader {}), with {} records queued",
                    p.partition, p.fetch_state, p.next_offset, p.broker, p.leader, p.fetchq_cnt
                )
            })
            .collect();
        told.sort();
        told.extend(statistics.brokers.values().map(|b| format!("{} is {}", b.name, b.state)));
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = told.join("; ");
    }
}

impl ConsumerContext for State {}
