//! Topics as a drill sees them: written and read by clients of its own, which share nothing with the
//! code under test.

use std::fmt;
use std::time::{Duration, Instant};

use futures_executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::base::error::{Error, Result};
use crate::base::range::{id, index};

/// A record as Kafka holds it, but for its offset.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    pub partition: i32,
    /// Milliseconds since the epoch.
    pub time: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &Option<Vec<u8>>| {
            bytes.as_ref().map(|b| String::from_utf8_lossy(&b[..b.len().min(40)]).into_owned())
        };
        let (key, value) = (text(&self.key), text(&self.value));
        write!(f, "{}@{} {key:?}={value:?} {:?}", self.partition, self.time, self.headers)
    }
}

/// How long a request, or all deliveries of a write, may take. A broker may be down meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster, reached by its brokers' own listeners.
#[derive(Clone)]
pub struct Topics {
    bootstrap: String,
}

impl Topics {
    pub fn new(bootstrap: &str) -> Topics {
        Topics { bootstrap: bootstrap.to_owned() }
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

    /// Makes a topic that keeps its records, and waits for its leaders.
    ///
    /// # Errors
    /// [`Error::Failed`] where the cluster does not make it.
    pub fn create(&self, topic: &str, partitions: usize, replicas: usize) -> Result<()> {
        let min_in_sync = if replicas > 2 { "2" } else { "1" };
        let new = NewTopic::new(topic, id(partitions), TopicReplication::Fixed(id(replicas)))
            .set("retention.ms", "-1")
            .set("min.insync.replicas", min_in_sync);
        let made = block_on(self.admin()?.create_topics([&new], &options())).map_err(of("making a topic"))?;
        for topic in made {
            topic.map_err(|(topic, code)| Error::failed(format!("making {topic}: {code}")))?;
        }
        self.until("the topic's leaders", || {
            let leaders = self.leaders(topic).unwrap_or_default();
            leaders.len() == partitions && leaders.iter().all(Option::is_some)
        })
    }

    /// # Errors
    /// [`Error::Failed`] where the cluster does not answer.
    pub fn delete(&self, topics: &[&str]) -> Result<()> {
        block_on(self.admin()?.delete_topics(topics, &options())).map(drop).map_err(of("deleting topics"))
    }

    /// Deletes a group with its committed offsets; no group is fine.
    ///
    /// # Errors
    /// [`Error::Failed`] where the cluster does not answer.
    pub fn delete_group(&self, group: &str) -> Result<()> {
        block_on(self.admin()?.delete_groups(&[group], &options())).map(drop).map_err(of("deleting a group"))
    }

    /// The leader of each partition, if it has one.
    ///
    /// # Errors
    /// [`Error::Failed`] where no broker answers.
    pub fn leaders(&self, topic: &str) -> Result<Vec<Option<usize>>> {
        let reader = self.reader("read_uncommitted")?;
        let metadata =
            reader.fetch_metadata(Some(topic), Duration::from_secs(5)).map_err(of("the topic's leaders"))?;
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        Ok(partitions.map(|p| usize::try_from(p.leader()).ok()).collect())
    }

    /// Each partition's end: the high watermark for `read_uncommitted`, else the last stable offset.
    ///
    /// # Errors
    /// [`Error::Failed`] where a leader does not answer.
    pub fn ends(&self, topic: &str, partitions: usize, isolation: &str) -> Result<Vec<i64>> {
        let reader = self.reader(isolation)?;
        let end = |partition| reader.fetch_watermarks(topic, id(partition), Duration::from_secs(5));
        (0..partitions).map(|p| end(p).map(|w| w.1).map_err(of("the topic's ends"))).collect()
    }

    /// A consumer of nothing yet.
    ///
    /// # Errors
    /// [`Error::Failed`] where librdkafka refuses.
    pub fn reader(&self, isolation: &str) -> Result<BaseConsumer<DefaultConsumerContext>> {
        self.config()
            .set("group.id", "drill")
            .set("enable.auto.commit", "false")
            .set("isolation.level", isolation)
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "20")
            .set("auto.offset.reset", "earliest")
            .create()
            .map_err(of("a consumer"))
    }

    /// All committed records, partition by partition, in order, up to the high watermarks of now. Open
    /// transactions are waited for.
    ///
    /// # Errors
    /// [`Error::Failed`] where a transaction stays open, or a leader does not answer.
    pub fn consume(&self, topic: &str, partitions: usize) -> Result<Vec<Record>> {
        let ends = self.ends(topic, partitions, "read_uncommitted")?;
        self.until(&format!("the end of the transactions in {topic}"), || {
            self.ends(topic, partitions, "read_committed")
                .is_ok_and(|stable| stable.iter().zip(&ends).all(|(stable, end)| stable >= end))
        })?;
        let consumer = self.reader("read_committed")?;
        consumer.assign(&beginning(topic, partitions)?).map_err(of("an assignment"))?;
        let mut records: Vec<Vec<Record>> = vec![Vec::new(); partitions];
        let (mut open, begun) = (partitions, Instant::now());
        while open > 0 {
            match consumer.poll(Duration::from_secs(1)) {
                Some(Ok(message)) => records[index(message.partition())].push(record(&message)),
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                _ if begun.elapsed() > PATIENCE => {
                    return Err(Error::failed(format!("reading {topic} takes too long")));
                }
                _ => {}
            }
        }
        Ok(records.concat())
    }

    /// A producer; with a transactional id, one that has initialised its transactions.
    ///
    /// # Errors
    /// [`Error::Failed`] where the coordinator does not answer.
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

    /// Waits until `condition` holds; it is asked, not a time slept.
    ///
    /// # Errors
    /// [`Error::Failed`] names `what` did not come in time.
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

/// All partitions, from their beginning.
///
/// # Errors
/// [`Error::Failed`], which none is known to cause.
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
/// [`Error::Failed`] where the producer takes them no more.
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

/// # Errors
/// [`Error::Failed`] where not all records were delivered in time.
pub fn delivered(producer: &BaseProducer) -> Result<()> {
    producer.flush(PATIENCE).map_err(of("producing"))
}

/// An error of the drill itself, not of what it drills.
pub fn of(what: &str) -> impl Fn(KafkaError) -> Error {
    move |err| Error::failed(format!("the drill's own {what}: {err}"))
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}
