//! The topics of a drill. Its own clients write and read them, and share nothing with the code under test.

use std::fmt;
use std::time::{Duration, Instant};

use futures_executor::block_on;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::base::error::{Error, Result};
use crate::base::range::id;

/// A record as Kafka holds it, without its offset.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    pub partition: i32,
    /// Milliseconds since the epoch.
    pub time: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// The records of one partition with their offsets.
pub type Log = Vec<(i64, Record)>;

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &Option<Vec<u8>>| {
            bytes.as_ref().map(|b| String::from_utf8_lossy(&b[..b.len().min(40)]).into_owned())
        };
        let (key, value) = (text(&self.key), text(&self.value));
        write!(f, "{}@{} {key:?}={value:?} {:?}", self.partition, self.time, self.headers)
    }
}

/// How long a request, or all deliveries of a write, may take. A broker may be down during that time.
const PATIENCE: Duration = Duration::from_secs(90);

/// A cluster. These clients connect to the brokers' own listeners, and not to the proxies.
#[derive(Clone)]
pub struct Topics {
    bootstrap: String,
}

impl Topics {
    pub fn new(bootstrap: &str) -> Topics {
        Topics { bootstrap: bootstrap.to_owned() }
    }

    /// The address of the first broker.
    pub(super) fn first_address(&self) -> &str {
        self.bootstrap.split(',').next().unwrap_or_default()
    }

    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("reconnect.backoff.max.ms", "500")
            .set("socket.timeout.ms", "10000")
            .set("log_level", "0");
        config
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        self.config().create().map_err(of("an admin client"))
    }

    /// Creates a topic that keeps its records, and waits for its leaders.
    ///
    /// # Errors
    /// [`Error::Failed`] if the cluster does not create it.
    pub fn create(&self, topic: &str, partitions: usize, replicas: usize) -> Result<()> {
        let min_in_sync = if replicas > 2 { "2" } else { "1" };
        let new = NewTopic::new(topic, id(partitions), TopicReplication::Fixed(id(replicas)))
            .set("retention.ms", "-1")
            .set("min.insync.replicas", min_in_sync);
        let made =
            block_on(self.admin()?.create_topics([&new], &options())).map_err(of("creation of a topic"))?;
        for topic in made {
            topic.map_err(|(topic, code)| Error::failed(format!("creating {topic}: {code}")))?;
        }
        self.until_led(topic, partitions)
    }

    /// Sets properties of a topic that keeps its records. Its other properties get their defaults.
    ///
    /// # Errors
    /// [`Error::Failed`] if the cluster does not accept them.
    pub(super) fn configure(&self, topic: &str, properties: &[(&str, &str)]) -> Result<()> {
        let set = AlterConfig::new(ResourceSpecifier::Topic(topic)).set("retention.ms", "-1");
        let set = properties.iter().fold(set, |set, (name, value)| set.set(name, value));
        let done =
            block_on(self.admin()?.alter_configs([&set], &options())).map_err(of("properties of a topic"))?;
        for topic in done {
            topic.map_err(|(topic, code)| Error::failed(format!("properties of {topic:?}: {code}")))?;
        }
        Ok(())
    }

    fn until_led(&self, topic: &str, partitions: usize) -> Result<()> {
        self.until("the topic's leaders", || {
            let leaders = self.leaders(topic).unwrap_or_default();
            leaders.len() == partitions && leaders.iter().all(Option::is_some)
        })
    }

    /// # Errors
    /// [`Error::Failed`] if the cluster does not answer.
    pub fn delete(&self, topics: &[&str]) -> Result<()> {
        block_on(self.admin()?.delete_topics(topics, &options())).map(drop).map_err(of("deletion of topics"))
    }

    /// Gives a topic more partitions, and waits for their leaders.
    ///
    /// # Errors
    /// [`Error::Failed`] if the cluster does not create them.
    pub fn grow(&self, topic: &str, partitions: usize) -> Result<()> {
        let more = NewPartitions::new(topic, partitions);
        let made =
            block_on(self.admin()?.create_partitions([&more], &options())).map_err(of("more partitions"))?;
        for topic in made {
            topic.map_err(|(topic, code)| Error::failed(format!("more partitions of {topic}: {code}")))?;
        }
        self.until_led(topic, partitions)
    }

    /// The topics whose names begin and end like this.
    ///
    /// # Errors
    /// [`Error::Failed`] if no broker answers.
    pub fn names(&self, begin: &str, end: &str) -> Result<Vec<String>> {
        let reader = self.reader("read_uncommitted")?;
        let metadata = reader.fetch_metadata(None, Duration::from_secs(5)).map_err(of("list of topics"))?;
        let names = metadata.topics().iter().map(|topic| topic.name());
        Ok(names.filter(|name| name.starts_with(begin) && name.ends_with(end)).map(str::to_owned).collect())
    }

    /// Deletes a group with its committed offsets. A missing group is fine.
    ///
    /// # Errors
    /// [`Error::Failed`] if the cluster does not answer.
    pub fn delete_group(&self, group: &str) -> Result<()> {
        block_on(self.admin()?.delete_groups(&[group], &options()))
            .map(drop)
            .map_err(of("deletion of a group"))
    }

    /// The leader of each partition, if it has one.
    ///
    /// # Errors
    /// [`Error::Failed`] if no broker answers.
    pub fn leaders(&self, topic: &str) -> Result<Vec<Option<usize>>> {
        let reader = self.reader("read_uncommitted")?;
        let metadata =
            reader.fetch_metadata(Some(topic), Duration::from_secs(5)).map_err(of("the topic's leaders"))?;
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        Ok(partitions.map(|p| usize::try_from(p.leader()).ok()).collect())
    }

    /// Each partition's end: the high watermark for `read_uncommitted`, otherwise the last stable offset.
    ///
    /// # Errors
    /// [`Error::Failed`] if a leader does not answer.
    pub fn ends(&self, topic: &str, partitions: usize, isolation: &str) -> Result<Vec<i64>> {
        let reader = self.reader(isolation)?;
        let end = |partition| reader.fetch_watermarks(topic, id(partition), Duration::from_secs(20));
        (0..partitions).map(|p| end(p).map(|w| w.1).map_err(of("the topic's ends"))).collect()
    }

    /// A consumer without an assignment.
    ///
    /// # Errors
    /// [`Error::Failed`] if librdkafka refuses.
    pub fn reader(&self, isolation: &str) -> Result<BaseConsumer<DefaultConsumerContext>> {
        self.reader_config(isolation).create().map_err(of("a consumer"))
    }

    /// A consumer of a group, without an assignment.
    ///
    /// # Errors
    /// [`Error::Failed`] if librdkafka refuses.
    pub fn reader_of(&self, group: &str) -> Result<BaseConsumer<DefaultConsumerContext>> {
        self.reader_config("read_committed").set("group.id", group).create().map_err(of("a consumer"))
    }

    pub(super) fn reader_config(&self, isolation: &str) -> ClientConfig {
        let mut config = self.config();
        config
            .set("group.id", "drill")
            .set("enable.auto.commit", "false")
            .set("isolation.level", isolation)
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "20")
            .set("auto.offset.reset", "earliest");
        config
    }

    /// All committed records up to the present high watermarks, partition by partition, in order. It waits until open
    /// transactions end.
    ///
    /// # Errors
    /// [`Error::Failed`] if a transaction stays open, or a leader does not answer.
    pub fn consume(&self, topic: &str, partitions: usize) -> Result<Vec<Record>> {
        let logs = self.logs(topic, partitions)?;
        Ok(logs.into_iter().flatten().map(|(_, record)| record).collect())
    }

    /// As [`Topics::consume`], with the offsets of the records.
    ///
    /// # Errors
    /// As [`Topics::consume`].
    pub fn logs(&self, topic: &str, partitions: usize) -> Result<Vec<Log>> {
        let ends = self.ends(topic, partitions, "read_uncommitted")?;
        self.until(&format!("the end of the transactions in {topic}"), || {
            self.ends(topic, partitions, "read_committed")
                .is_ok_and(|stable| stable.iter().zip(&ends).all(|(stable, end)| stable >= end))
        })?;
        let all: Vec<_> = (0..partitions).map(|partition| (partition, Offset::Beginning)).collect();
        self.read(topic, &all, "read_committed")
    }

    /// Reads partitions from these offsets to their ends.
    ///
    /// # Errors
    /// [`Error::Failed`] if a leader does not answer.
    pub fn read(&self, topic: &str, from: &[(usize, Offset)], isolation: &str) -> Result<Vec<Log>> {
        let consumer = self.reader(isolation)?;
        let mut list = TopicPartitionList::new();
        for (partition, offset) in from {
            list.add_partition_offset(topic, id(*partition), *offset).map_err(of("an assignment"))?;
        }
        consumer.assign(&list).map_err(of("an assignment"))?;
        let place = |partition| from.iter().position(|(p, _)| id(*p) == partition).unwrap_or(0);
        let mut logs: Vec<Log> = vec![Vec::new(); from.len()];
        // A partition that grows meanwhile ends more than once.
        let mut is_read = vec![false; from.len()];
        let begun = Instant::now();
        while is_read.contains(&false) {
            match consumer.poll(Duration::from_secs(1)) {
                Some(Ok(message)) => {
                    logs[place(message.partition())].push((message.offset(), record(&message)));
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => is_read[place(partition)] = true,
                _ if begun.elapsed() > PATIENCE => {
                    return Err(Error::failed(format!("reading {topic} takes too long")));
                }
                _ => {}
            }
        }
        Ok(logs)
    }

    /// Deletes the records of each partition below these offsets (DeleteRecords).
    ///
    /// # Errors
    /// [`Error::Failed`] if a leader does not delete them.
    pub fn delete_records(&self, topic: &str, below: &[i64]) -> Result<()> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in below.iter().enumerate() {
            list.add_partition_offset(topic, id(partition), Offset::Offset(*offset))
                .map_err(of("a list of partitions"))?;
        }
        let what = of("deletion of records");
        let deleted = block_on(self.admin()?.delete_records(&list, &options())).map_err(&what)?;
        deleted.elements().iter().try_for_each(|partition| partition.error()).map_err(&what)
    }

    /// A producer. With a transactional id, it has initialized its transactions.
    ///
    /// # Errors
    /// [`Error::Failed`] if the coordinator does not answer.
    pub fn producer(&self, transactional_id: Option<&str>) -> Result<BaseProducer> {
        let mut config = self.config();
        config.set("linger.ms", "5").set("message.max.bytes", "2000000").set("enable.idempotence", "true");
        if let Some(transactional_id) = transactional_id {
            config.set("transactional.id", transactional_id);
        }
        let producer: BaseProducer = config.create().map_err(of("a producer"))?;
        if transactional_id.is_some() {
            producer.init_transactions(PATIENCE).map_err(of("a transactional producer"))?;
        }
        Ok(producer)
    }

    /// Waits until `condition` holds.
    ///
    /// # Errors
    /// [`Error::Failed`] names `what`, if it did not come in time.
    pub fn until(&self, what: &str, condition: impl Fn() -> bool) -> Result<()> {
        let begun = Instant::now();
        while !condition() {
            if begun.elapsed() > PATIENCE {
                return Err(Error::failed(format!("{what} did not come in {} s", PATIENCE.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// All partitions, at their beginning.
///
/// # Errors
/// [`Error::Failed`]. We know of no cause.
pub fn beginning(topic: &str, partitions: usize) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, id(partition), Offset::Beginning).map_err(of("an assignment"))?;
    }
    Ok(list)
}

pub fn record(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map_or(Vec::new(), |headers| {
        headers.iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect()
    });
    Record {
        partition: message.partition(),
        time: message.timestamp().to_millis().unwrap_or(-1),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
    }
}

/// Queues records, in order; [`delivered`] waits for them.
///
/// # Errors
/// [`Error::Failed`] if the producer does not accept a record.
pub fn send(producer: &BaseProducer, topic: &str, records: &[Record]) -> Result<()> {
    for record in records {
        let mut to: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(topic).partition(record.partition).timestamp(record.time);
        to.key = record.key.as_deref();
        to.payload = record.value.as_deref();
        if !record.headers.is_empty() {
            to = to.headers(record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: value.as_ref() })
            }));
        }
        while let Err((error, back)) = producer.send(to) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(of("producing")(error));
            }
            producer.poll(Duration::from_millis(10));
            to = back;
        }
    }
    Ok(())
}

/// Waits until all queued records are delivered.
///
/// # Errors
/// [`Error::Failed`] if a record is not delivered in time.
pub fn delivered(producer: &BaseProducer) -> Result<()> {
    producer.flush(PATIENCE).map_err(of("producing"))
}

/// An error of the drill itself, not of the program under test.
pub fn of(what: &str) -> impl Fn(KafkaError) -> Error {
    move |err| Error::failed(format!("the drill's own {what}: {err}"))
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

/// The partition of an internal topic whose leader coordinates `name`. It is Java's hash of the name, as in Kafka's
/// `TransactionStateManager.partitionFor` and `GroupCoordinatorService.partitionFor`.
pub(super) fn coordinating_partition(name: &str, partitions: usize) -> usize {
    let hash = name.bytes().fold(0_i32, |hash, byte| hash.wrapping_mul(31).wrapping_add(i32::from(byte)));
    hash.checked_abs().and_then(|hash| usize::try_from(hash).ok()).unwrap_or(0) % partitions.max(1)
}

/// A log for tests. Each letter is a record, and its place is its offset. A dot is an offset without a record that can be
/// read.
#[cfg(test)]
pub(super) fn log(letters: &str) -> Log {
    let record = |letter: char| Record {
        partition: 0,
        time: 0,
        key: Some(letter.to_string().into_bytes()),
        value: None,
        headers: Vec::new(),
    };
    (0..).zip(letters.chars()).filter(|(_, l)| *l != '.').map(|(at, l)| (at, record(l))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_as_java_does() {
        // "hello".hashCode() == 99162322
        assert_eq!(coordinating_partition("hello", 50), 22);
        // "polygenelubricants".hashCode() == Integer.MIN_VALUE
        assert_eq!(coordinating_partition("polygenelubricants", 50), 0);
    }
}
