//! The clients that ask the cluster, and what it says of topics, their configuration and the group.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::Metadata;
use rdkafka::{Offset, TopicPartitionList};

use crate::base::error::{Error, Reason, Result, denied};
use crate::kafka::client::{Isolation, Quiet, REQUEST_TIMEOUT, close};
use crate::kafka::properties::Properties;
use crate::kafka::sys::admin;
use crate::kafka::sys::describe;
use crate::kafka::topic::{Topic, check_name};

/// The two clients that only ask. A read_committed one is told the last stable offset where the other is
/// told the high watermark, and waits for offsets that an open transaction is about to commit.
pub struct Cluster {
    pub committed: BaseConsumer<Quiet>,
    pub(super) uncommitted: BaseConsumer<Quiet>,
    pub(super) properties: Properties,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        close(&self.committed);
        close(&self.uncommitted);
    }
}

/// How long to wait for metadata, one after the other: together [`REQUEST_TIMEOUT`].
const METADATA_STEPS: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(7)];

/// What librdkafka takes for a topic's id where the broker tells none: metadata before version 10, which came with
/// Kafka 2.8.
const NO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// How long to listen for why a client is refused.
const LISTEN: Duration = Duration::from_millis(50);

/// Bytes of metadata; `offset.metadata.max.bytes` is 4096 unless it was changed, and the protocol's bound 32767.
const TOO_LONG: usize = 32_000;

impl Cluster {
    /// # Errors
    /// [`Error::Usage`] for properties that librdkafka refuses.
    pub fn connect(properties: &Properties, group: &str) -> Result<Cluster> {
        Ok(Cluster {
            committed: properties.consumer(group, Isolation::ReadCommitted)?,
            uncommitted: properties.consumer(group, Isolation::ReadUncommitted)?,
            properties: properties.clone(),
        })
    }

    /// `None` where there is no such topic.
    ///
    /// # Errors
    /// [`Error::Failed`] where no broker answers, [`Error::Refused`] where the topic must not be seen or a
    /// partition has no leader.
    pub fn topic(&self, name: &str) -> Result<Option<Topic>> {
        check_name(name)?;
        let started = Instant::now();
        loop {
            match self.topic_now(name) {
                // As right after a broker's death.
                Err(Error::Restart { .. }) if started.elapsed() < REQUEST_TIMEOUT => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                result => return result,
            }
        }
    }

    fn topic_now(&self, name: &str) -> Result<Option<Topic>> {
        let metadata = self.metadata(name)?;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
            return Ok(None);
        };
        if let Some(code) = topic.error() {
            return match RDKafkaErrorCode::from(code) {
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => Ok(None),
                RDKafkaErrorCode::InvalidTopic => {
                    Err(Error::usage(format!("`{name}` cannot be a topic's name")))
                }
                // Who may read or write it may see it.
                code => Err(Error::topic(format!("topic {name}"), "Read", name, code)),
            };
        }
        if topic.partitions().is_empty() {
            return Ok(None);
        }
        if let Some(partition) = topic.partitions().iter().find(|p| p.leader() < 0) {
            return Err(Error::restart(format!(
                "partition {} of {name} has no leader now; bring its brokers up and run again",
                partition.id()
            ))
            .because(Reason::Unreachable));
        }
        let described = describe::topic(&self.uncommitted, name, REQUEST_TIMEOUT);
        let described = described.map_err(|code| Error::code(format!("the id of topic {name}"), code))?;
        if described.id == NO_ID {
            return Err(Error::refused(format!(
                "the brokers give topic {name} no id, so one that was deleted and made anew would pass for the same one; \
                 upgrade them to Kafka 2.8 or later"
            ))
            .because(Reason::UnsupportedBroker));
        }
        Ok(Some(Topic {
            name: name.to_owned(),
            id: described.id,
            access: described.access,
            partitions: topic.partitions().len(),
            min_replicas: topic.partitions().iter().map(|p| p.replicas().len()).min().unwrap_or(0),
            min_in_sync: topic.partitions().iter().map(|p| p.isr().len()).min().unwrap_or(0),
        }))
    }

    fn metadata(&self, name: &str) -> Result<Metadata> {
        let bootstrap = self.properties.bootstrap();
        let mut last = None;
        // In steps, since why a client is refused is told between them.
        for step in METADATA_STEPS {
            let err = match self.uncommitted.fetch_metadata(Some(name), step) {
                Ok(metadata) => return Ok(metadata),
                Err(err) => err,
            };
            match err.rdkafka_error_code() {
                Some(code) if denied(code).is_none() => last = Some(code),
                _ => return Err(Error::kafka(format!("topic {name}"), err)),
            }
            // A poll that only served a log line looks like one that found nothing.
            let listening = Instant::now();
            while listening.elapsed() < LISTEN {
                drop(self.uncommitted.poll(Duration::from_millis(5)));
            }
            if let Some(refusal) = self.uncommitted.context().heard().refusal {
                return Err(Error::refused(format!(
                    "no connection to {bootstrap}: {refusal}; {}",
                    way_in(&refusal)
                ))
                .because(Reason::NoPermission));
            }
        }
        let heard = self.uncommitted.context().heard().failure;
        let why = heard.or(last.map(|code| code.to_string())).unwrap_or_default();
        Err(Error::restart(format!(
            "no broker answered at {bootstrap} within {} s ({why}); check --bootstrap-server, the network and the \
             security properties",
            REQUEST_TIMEOUT.as_secs()
        ))
        .because(Reason::Unreachable))
    }

    /// The topic's configuration; `None` where this principal may not see it.
    ///
    /// # Errors
    /// [`Error::Failed`] where no broker answers.
    pub fn configuration(&self, topics: &[&str]) -> Result<Option<Vec<HashMap<String, String>>>> {
        let described = admin::topic_configurations(&self.uncommitted, topics, REQUEST_TIMEOUT);
        match described {
            Ok(configurations) => Ok(Some(configurations)),
            Err(RDKafkaErrorCode::TopicAuthorizationFailed) => Ok(None),
            Err(code) => Err(Error::code("the configuration of the topics", code)),
        }
    }

    /// Whether the job's group has members: then its coordinator refuses what a stranger commits. Of this commit
    /// nothing is kept, since its metadata is longer than a broker takes by default.
    ///
    /// # Errors
    /// As its coordinator answers.
    pub fn has_members(&self, topic: &Topic) -> Result<bool> {
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(&topic.name, 0);
        element.set_metadata("x".repeat(TOO_LONG));
        let what = |e| Error::kafka("the group's members", e);
        element.set_offset(Offset::Offset(0)).map_err(what)?;
        match self.committed.commit(&list, CommitMode::Sync) {
            Err(err) => match err.rdkafka_error_code() {
                Some(RDKafkaErrorCode::UnknownMemberId) => Ok(true),
                Some(RDKafkaErrorCode::OffsetMetadataTooLarge) => Ok(false),
                _ => Err(what(err)),
            },
            Ok(()) => Ok(false),
        }
    }

    /// A client of another group than the job's, that sees what is committed at once.
    ///
    /// # Errors
    /// As [`Properties::consumer`].
    pub fn of_group(&self, group: &str) -> Result<BaseConsumer<Quiet>> {
        self.properties.consumer(group, Isolation::ReadUncommitted)
    }

    /// The least `transaction.max.timeout.ms` of the brokers, in milliseconds, of those that tell. The topic is any:
    /// to ask for none is to be told of all.
    pub fn transaction_max_timeout(&self, topic: &str) -> Option<i64> {
        let metadata = self.uncommitted.fetch_metadata(Some(topic), REQUEST_TIMEOUT).ok()?;
        let brokers = metadata.brokers().iter();
        let configured = brokers.map_while(|broker| {
            // Who may not see one broker's may see none.
            admin::broker_configuration(&self.uncommitted, broker.id(), Duration::from_secs(2)).ok()
        });
        configured.filter_map(|all| all.get("transaction.max.timeout.ms")?.parse().ok()).min()
    }
}

/// What to change where the brokers refuse this client, or it refuses them.
fn way_in(refusal: &str) -> &'static str {
    let says = |words: &str| refusal.contains(words);
    if says("OAUTHBEARER token") {
        "check sasl.oauthbearer.token.endpoint.url, sasl.oauthbearer.client.id and sasl.oauthbearer.client.secret"
    } else if says(" alert ") {
        "the brokers ask for a certificate of this client that they trust: name it by ssl.certificate.location, and its \
         key by ssl.key.location"
    } else if says("certificate") {
        "name the authority that signed the brokers' certificate by ssl.ca.location, and the brokers by a name that \
         stands in it"
    } else if says("mechanism handshake") {
        "set sasl.mechanism to one that this listener has, or security.protocol to one without SASL if it has none"
    } else {
        "check sasl.mechanism, sasl.username and sasl.password (in a file for -F, or as REPLICATOR_SASL_PASSWORD)"
    }
}
