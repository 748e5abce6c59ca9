//! One cluster as the tests see it: its topics, records and groups, by clients that share nothing with the code under
//! test.

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};
use rdkafka_sys as ffi;

use replicator::topics::{Record, Topics};

use super::{TIMEOUT, send, unique, until};

/// A cluster, by its `bootstrap.servers`.
#[derive(Clone, Debug)]
pub(crate) struct Side(pub String);

impl Side {
    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.0);
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().expect("an admin client")
    }

    fn reader(&self, isolation: &str) -> BaseConsumer {
        self.config()
            .set("group.id", unique("kit"))
            .set("enable.auto.commit", "false")
            .set("isolation.level", isolation)
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "20")
            .set("auto.offset.reset", "earliest")
            .create()
            .expect("a consumer")
    }

    pub(crate) fn create(&self, topic: &str, partitions: i32, config: &[(&str, &str)]) {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1))
            .set("retention.ms", "-1")
            .set("max.message.bytes", "2000000");
        for (key, value) in config {
            new = new.set(key, value);
        }
        let made =
            futures_executor::block_on(self.admin().create_topics([&new], &options())).expect("an answer");
        made[0].as_ref().expect("made");
        until(|| {
            let metadata =
                self.reader("read_committed").fetch_metadata(Some(topic), TIMEOUT).expect("metadata");
            let topic = &metadata.topics()[0];
            i32::try_from(topic.partitions().len()).ok() == Some(partitions)
                && topic.partitions().iter().all(|p| p.leader() >= 0)
        });
    }

    /// Gives the topic more partitions.
    pub(crate) fn grow(&self, topic: &str, partitions: usize) {
        Topics::new(&self.0).grow(topic, partitions).expect("grown");
    }

    pub(crate) fn delete(&self, topic: &str) {
        futures_executor::block_on(self.admin().delete_topics(&[topic], &options())).expect("deleted");
        until(|| !self.topics().iter().any(|name| name == topic));
    }

    /// The names of all topics, internal ones too.
    pub(crate) fn topics(&self) -> Vec<String> {
        let metadata = self.reader("read_committed").fetch_metadata(None, TIMEOUT).expect("metadata");
        metadata.topics().iter().map(|t| t.name().to_owned()).collect()
    }

    /// The names of all groups.
    pub(crate) fn groups(&self) -> Vec<String> {
        let groups = self.reader("read_committed").fetch_group_list(None, TIMEOUT).expect("groups");
        groups.groups().iter().map(|group| group.name().to_owned()).collect()
    }

    /// Deletes the records of a partition before `offset`.
    pub(crate) fn trim(&self, topic: &str, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("an offset");
        futures_executor::block_on(self.admin().delete_records(&list, &options())).expect("trimmed");
        until(|| {
            let reader = self.reader("read_committed");
            reader.fetch_watermarks(topic, partition, TIMEOUT).expect("watermarks").0 == offset
        });
    }

    pub(crate) fn delete_group(&self, group: &str) {
        let deleted = futures_executor::block_on(self.admin().delete_groups(&[group], &options()));
        deleted.expect("an answer")[0].as_ref().expect("deleted");
    }

    /// Commits offsets by hand, as `kafka-consumer-groups.sh --reset-offsets` does.
    pub(crate) fn reset_group(&self, group: &str, topic: &str, offset: Offset) {
        let consumer: BaseConsumer = self.config().set("group.id", group).create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        for (partition, (_, high)) in self.watermarks(topic).into_iter().enumerate() {
            let partition = i32::try_from(partition).expect("fits");
            let offset = if offset == Offset::End { Offset::Offset(high) } else { offset };
            list.add_partition_offset(topic, partition, offset).expect("an offset");
        }
        consumer.commit(&list, CommitMode::Sync).expect("committed");
    }

    /// The offsets and metadata that a group has committed for a topic's partitions; an offset is -1001 if there is
    /// none. A transaction that is still open does not change the answer.
    pub(crate) fn committed(&self, group: &str, topic: &str) -> Vec<(i64, String)> {
        let consumer: BaseConsumer = self
            .config()
            .set("group.id", group)
            .set("isolation.level", "read_committed")
            .create()
            .expect("a consumer");
        let mut list = TopicPartitionList::new();
        let partitions = self.watermarks(topic).len();
        list.add_partition_range(topic, 0, i32::try_from(partitions).expect("fits") - 1);
        let committed = consumer.committed_offsets(list, TIMEOUT).expect("an answer");
        let found = committed.elements();
        found.iter().map(|at| (at.offset().to_raw().expect("an offset"), at.metadata().to_owned())).collect()
    }

    pub(crate) fn watermarks(&self, topic: &str) -> Vec<(i64, i64)> {
        let reader = self.reader("read_uncommitted");
        let metadata = reader.fetch_metadata(Some(topic), TIMEOUT).expect("metadata");
        let partitions = metadata.topics()[0].partitions().len();
        // A broker that has just started may not lead its partitions yet.
        let of_partition = |partition| {
            let mut found = None;
            until(|| {
                found = reader.fetch_watermarks(topic, partition, TIMEOUT).ok();
                found.is_some()
            });
            found.expect("watermarks")
        };
        (0..i32::try_from(partitions).expect("fits")).map(of_partition).collect()
    }

    pub(crate) fn last_stable_offsets(&self, topic: &str) -> Vec<i64> {
        let reader = self.reader("read_committed");
        (0..i32::try_from(self.watermarks(topic).len()).expect("fits"))
            .map(|partition| reader.fetch_watermarks(topic, partition, TIMEOUT).expect("watermarks").1)
            .collect()
    }

    /// All committed records, partition by partition, in order. It waits until open transactions end.
    pub(crate) fn consume(&self, topic: &str) -> Vec<Record> {
        Topics::new(&self.0).consume(topic, self.watermarks(topic).len()).expect("reads")
    }

    /// Produces without a transaction.
    pub(crate) fn produce(&self, topic: &str, records: &[Record]) {
        let producer: BaseProducer = self
            .config()
            .set("linger.ms", "5")
            .set("message.max.bytes", "2000000")
            .set("enable.idempotence", "true")
            .create()
            .expect("a producer");
        send(&producer, topic, records);
        producer.flush(TIMEOUT).expect("flushed");
    }

    /// Another producer, with an open transaction.
    pub(crate) fn begin(&self) -> Foreign {
        let producer: BaseProducer = self
            .config()
            .set("transactional.id", unique("foreign"))
            .set("message.max.bytes", "2000000")
            .create()
            .expect("a producer");
        producer.init_transactions(TIMEOUT).expect("initialised");
        producer.begin_transaction().expect("begun");
        Foreign(producer)
    }

    /// Changes one property of a topic.
    pub(crate) fn alter(&self, topic: &str, key: &str, value: &str) {
        let change =
            AlterConfig::new(ResourceSpecifier::Topic(topic)).set(key, value).set("retention.ms", "-1");
        let altered = futures_executor::block_on(self.admin().alter_configs(&[change], &options()));
        altered.expect("an answer")[0].as_ref().expect("altered");
    }

    /// Commits offset 0 of partition 0 with bytes as its metadata. The safe API can only write text.
    pub(crate) fn commit_bytes(&self, group: &str, topic: &str, metadata: &[u8]) {
        let consumer: BaseConsumer = self.config().set("group.id", group).create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Offset(0)).expect("an offset");
        list.elements()[0].set_metadata(unsafe { std::str::from_utf8_unchecked(metadata) });
        let code = unsafe { ffi::rd_kafka_commit(consumer.client().native_ptr(), list.ptr(), 0) };
        assert_eq!(code, ffi::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT))
}

/// Another producer with an open transaction.
pub(crate) struct Foreign(BaseProducer);

impl Foreign {
    /// In the cluster of all tests.
    pub(crate) fn begin() -> Foreign {
        super::side_a().begin()
    }

    /// Sends records, and waits until the broker has them.
    pub(crate) fn send(self, topic: &str, records: &[Record]) -> Foreign {
        send(&self.0, topic, records);
        self.0.flush(TIMEOUT).expect("flushed");
        self
    }

    pub(crate) fn commit(self) {
        self.0.commit_transaction(TIMEOUT).expect("committed");
    }

    pub(crate) fn abort(self) {
        self.0.flush(TIMEOUT).expect("flushed");
        self.0.abort_transaction(TIMEOUT).expect("aborted");
    }
}
