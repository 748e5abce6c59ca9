//! Commits positions as a follow does, with metadata that these tests write themselves.

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};
use sha2::{Digest, Sha256};

use crate::kit::*;
use crate::raw;

/// Where a job between two topics keeps its positions, and what its marks say.
pub(crate) struct Marks {
    /// The cluster of the group.
    side: Side,
    pub group: String,
    pub ledger: String,
    /// The hash of both topics' ids.
    job: String,
}

/// A position of a partition: its number, the offset, and the joint.
pub(crate) type At = (i32, i64, i64);

impl Marks {
    pub(crate) fn of_pair(pair: &Pair) -> Marks {
        let group = format!("replicator/{}/{}", pair.a, pair.b);
        let job = job(&raw::topic_id(&side_a(), &pair.a), &raw::topic_id(&side_a(), &pair.b));
        Marks { side: side_a(), group, ledger: pair.a.clone(), job }
    }

    pub(crate) fn across(across: &Across) -> Marks {
        let Across { from, to, source, target } = across;
        let id = raw::topic_id(from, source);
        let group = format!("replicator/{id}/{source}/{target}");
        let job = job(&id, &raw::topic_id(to, target));
        Marks { side: to.clone(), group, ledger: format!("replicator.{id}.{source}.internal"), job }
    }

    /// The marks of a follow between other topics, in the same group.
    pub(crate) fn of_other_topics(self) -> Marks {
        Marks { job: job("A", "B"), ..self }
    }

    /// `level` is the time at which nothing was left, in RFC 3339.
    fn metadata(&self, (_, position, joint): At, level: &str) -> String {
        format!("replicator/2 {} follow to=kept of=1 joint={joint} level={level} a={position}:0 b=", self.job)
    }

    fn offsets(&self, positions: &[At], level: &str) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for at in positions {
            let mut element = list.add_partition(&self.ledger, at.0);
            element.set_offset(Offset::Offset(at.1)).expect("an offset");
            element.set_metadata(self.metadata(*at, level));
        }
        list
    }

    fn consumer(&self) -> BaseConsumer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.side.0).set("group.id", &self.group);
        config.create().expect("a consumer")
    }

    pub(crate) fn commit(&self, positions: &[At], level: &str) {
        self.consumer().commit(&self.offsets(positions, level), CommitMode::Sync).expect("committed");
    }

    /// Sends positions in a transaction, and leaves it open.
    pub(crate) fn send(&self, positions: &[At], level: &str) -> BaseProducer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.side.0).set("transactional.id", unique("marks"));
        let producer: BaseProducer = config.create().expect("a producer");
        producer.init_transactions(TIMEOUT).expect("initialised");
        producer.begin_transaction().expect("begun");
        let group = self.consumer().group_metadata().expect("a group");
        producer.send_offsets_to_transaction(&self.offsets(positions, level), &group, TIMEOUT).expect("sent");
        producer
    }
}

/// Hashes each part after its length. The ids are in the usual base64, as librdkafka prints them.
fn job(source: &str, target: &str) -> String {
    let mut hasher = Sha256::new();
    for part in ["follow", &usual(source), &usual(target)] {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

fn usual(id: &str) -> String {
    id.replace('-', "+").replace('_', "/")
}
