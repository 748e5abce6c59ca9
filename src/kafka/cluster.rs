//! Asks the cluster about topics, configurations and the group.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::{Offset, TopicPartitionList};

use crate::base::error::{Error, Reason, Result, denied};
use crate::kafka::client::{Isolation, Listener, REQUEST_TIMEOUT, close};
use crate::kafka::properties::Properties;
use crate::kafka::sys::admin;
use crate::kafka::sys::describe;
use crate::kafka::sys::groups;
use crate::kafka::topic::{Topic, check_name};

/// Two clients that only ask. Asked for the end of a partition, a broker gives the read_committed client the last
/// stable offset, and the read_uncommitted client the high watermark. The read_committed client also waits for offsets
/// that an open transaction is about to commit.
pub struct Cluster {
    pub committed: BaseConsumer<Listener>,
    pub(super) uncommitted: BaseConsumer<Listener>,
    pub(super) properties: Properties,
    /// The group of both clients.
    pub(super) group: String,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        close(&self.committed);
        close(&self.uncommitted);
    }
}

/// How long each attempt waits for metadata; together [`REQUEST_TIMEOUT`].
const METADATA_STEPS: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(7)];

/// The topic id that librdkafka reports if the broker sends none. Metadata has ids from version 10 on, which came with
/// Kafka 2.8.
const NO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// How long to listen for the reason why a connection is refused.
const LISTEN: Duration = Duration::from_millis(50);

/// Bytes of metadata: more than `offset.metadata.max.bytes`, by default 4096, and less than the protocol's limit of
/// 32767.
const TOO_LONG: usize = 32_000;

impl Cluster {
    /// # Errors
    /// [`Error::Usage`] if librdkafka refuses a property.
    pub fn connect(properties: &Properties, group: &str) -> Result<Cluster> {
        Ok(Cluster {
            committed: properties.consumer(group, Isolation::ReadCommitted)?,
            uncommitted: properties.consumer(group, Isolation::ReadUncommitted)?,
            properties: properties.clone(),
            group: group.to_owned(),
        })
    }

    /// Describes the topic; `None` if no topic has this name.
    ///
    /// # Errors
    /// [`Error::Restart`] if no broker answers or a partition has no leader; [`Error::Refused`] if this principal may
    /// not see the topic, TLS or SASL refuses the connection, or the brokers give topics no ids.
    pub fn topic(&self, name: &str) -> Result<Option<Topic>> {
        check_name(name)?;
        let started = Instant::now();
        loop {
            match self.topic_now(name) {
                // This happens right after a broker's death.
                Err(Error::Restart { .. }) if started.elapsed() < REQUEST_TIMEOUT => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                result => return self.says(result),
            }
        }
    }

    /// The properties that this cluster was reached by.
    pub(crate) fn properties(&self) -> &Properties {
        &self.properties
    }

    /// The cluster's id; `None` if no broker tells it. Several clusters may have one id, since many are made from the
    /// same configuration.
    pub(crate) fn id(&self) -> Option<String> {
        self.uncommitted.client().fetch_cluster_id(REQUEST_TIMEOUT)
    }

    /// The result; an error begins with the cluster that it is about.
    pub(super) fn says<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|err| self.properties.says(err))
    }

    /// How many partitions the topic has, even if some have no leader now; `None` if no topic has this name.
    ///
    /// # Errors
    /// [`Error::Restart`] if no broker answers; [`Error::Refused`] if this principal may not see the topic.
    pub(crate) fn width(&self, name: &str) -> Result<Option<usize>> {
        let width = self.metadata(name).and_then(|metadata| {
            let found = Cluster::found(&metadata, name)?;
            Ok(found.map(|topic| topic.partitions().len()))
        });
        self.says(width)
    }

    /// The topic's id, in one request; `None` if no topic has this name.
    ///
    /// # Errors
    /// [`Error::Restart`] if no broker answers.
    pub(crate) fn topic_id(&self, name: &str) -> Result<Option<String>> {
        match describe::topic(&self.uncommitted, name, REQUEST_TIMEOUT) {
            Ok(described) => Ok(Some(described.id)),
            Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(None),
            Err(code) => self.says(Err(Error::topic(format!("the id of topic {name}"), "Read", name, code))),
        }
    }

    fn topic_now(&self, name: &str) -> Result<Option<Topic>> {
        let metadata = self.metadata(name)?;
        let Some(topic) = Cluster::found(&metadata, name)? else { return Ok(None) };
        if let Some(partition) = topic.partitions().iter().find(|p| p.leader() < 0) {
            return Err(Error::restart(format!(
                "partition {} of {name} has no leader now; bring its brokers up and run again",
                partition.id()
            ))
            .because(Reason::Unreachable));
        }
        let described = describe::topic(&self.uncommitted, name, REQUEST_TIMEOUT);
        let described =
            described.map_err(|code| Error::topic(format!("the id of topic {name}"), "Read", name, code))?;
        if described.id == NO_ID {
            return Err(Error::refused(format!(
                "the brokers give topic {name} no id, so a run could not tell it from a new topic of the same name; \
                 upgrade the brokers to Kafka 2.8 or later"
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

    /// The topic in the metadata that were asked for it; `None` if no topic has this name.
    fn found<'m>(metadata: &'m Metadata, name: &str) -> Result<Option<&'m MetadataTopic>> {
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
            return Ok(None);
        };
        match topic.error().map(RDKafkaErrorCode::from) {
            None if topic.partitions().is_empty() => Ok(None),
            None => Ok(Some(topic)),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(None),
            Some(RDKafkaErrorCode::InvalidTopic) => {
                Err(Error::usage(format!("`{name}` cannot be a topic's name")))
            }
            // A principal that may read a topic may also see it.
            Some(code) => Err(Error::topic(format!("topic {name}"), "Read", name, code)),
        }
    }

    fn metadata(&self, name: &str) -> Result<Metadata> {
        let bootstrap = self.properties.bootstrap();
        let mut last = None;
        // Ask in steps: librdkafka reports between them why a connection is refused.
        for step in METADATA_STEPS {
            let err = match self.uncommitted.fetch_metadata(Some(name), step) {
                Ok(metadata) => return Ok(metadata),
                Err(err) => err,
            };
            match err.rdkafka_error_code() {
                Some(code) if denied(code).is_none() => last = Some(code),
                _ => return Err(Error::kafka(format!("topic {name}"), err)),
            }
            // Poll more than once: a poll that only served a log line looks like one that found nothing.
            let listening = Instant::now();
            while listening.elapsed() < LISTEN {
                drop(self.uncommitted.poll(Duration::from_millis(5)));
            }
            if let Some(refusal) = self.uncommitted.context().heard().refusal {
                return Err(Error::refused(format!(
                    "no connection to {bootstrap}: {refusal}; {}",
                    self.way_in(&refusal)
                ))
                .because(Reason::NoPermission));
            }
        }
        let heard = self.uncommitted.context().heard().failure;
        let why = heard.or(last.map(|code| code.to_string())).unwrap_or_default();
        Err(Error::restart(format!(
            "no broker answered at {bootstrap} within {} s ({why}); check {}, the network and the security properties",
            REQUEST_TIMEOUT.as_secs(),
            self.properties.option("bootstrap-server")
        ))
        .because(Reason::Unreachable))
    }

    /// The topics' configurations; `None` if this principal may not see them.
    ///
    /// # Errors
    /// [`Error::Restart`] if no broker answers.
    pub fn configuration(&self, topics: &[&str]) -> Result<Option<Vec<HashMap<String, String>>>> {
        let described = admin::topic_configurations(&self.uncommitted, topics, REQUEST_TIMEOUT);
        match described {
            Ok(configurations) => Ok(Some(configurations)),
            Err(RDKafkaErrorCode::TopicAuthorizationFailed) => Ok(None),
            Err(code) => self.says(Err(Error::code("the configuration of the topics", code))),
        }
    }

    /// Whether the brokers list `group` as one with members. They list only groups that this principal may describe. This
    /// writes nothing, unlike [`Cluster::has_members`], but the answer may be older.
    ///
    /// # Errors
    /// [`Error::Restart`] if a broker does not answer.
    pub(crate) fn lists_members(&self, group: &str) -> Result<bool> {
        let what = || format!("the members of group {group}");
        let listed = groups::groups(&self.uncommitted, REQUEST_TIMEOUT);
        let (listed, failed) = self.says(listed.map_err(|code| Error::code(what(), code)))?;
        if listed.iter().any(|listed| listed.name == group && !listed.is_without_members) {
            return Ok(true);
        }
        match failed.first() {
            Some(code) => self.says(Err(Error::code(what(), *code))),
            None => Ok(false),
        }
    }

    /// Whether the job's group has members. To find out, this commits an offset without being a member. If the group
    /// has members, the coordinator refuses the commit. If it has none, the coordinator keeps nothing either, since the
    /// metadata is longer than a broker accepts by default. `ledger` is the topic whose offsets the group commits.
    ///
    /// # Errors
    /// The coordinator's error, if it gives another one.
    pub fn has_members(&self, ledger: &str) -> Result<bool> {
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(ledger, 0);
        element.set_metadata("x".repeat(TOO_LONG));
        let what = |e| Error::of_group("the group's members", &self.group, ledger, e);
        element.set_offset(Offset::Offset(0)).map_err(what)?;
        match self.committed.commit(&list, CommitMode::Sync) {
            Err(err) => match err.rdkafka_error_code() {
                Some(RDKafkaErrorCode::UnknownMemberId) => Ok(true),
                Some(RDKafkaErrorCode::OffsetMetadataTooLarge) => Ok(false),
                _ => self.says(Err(what(err))),
            },
            Ok(()) => Ok(false),
        }
    }

    /// Makes a client for another group than the job's. It sees committed offsets at once, and waits for no
    /// transaction.
    ///
    /// # Errors
    /// As [`Properties::consumer`].
    pub fn of_group(&self, group: &str) -> Result<BaseConsumer<Listener>> {
        self.properties.consumer(group, Isolation::ReadUncommitted)
    }

    /// The smallest `transaction.max.timeout.ms`, in milliseconds, of the brokers that show it to this principal.
    /// `topic` is as in [`Cluster::smallest`].
    pub fn transaction_max_timeout(&self, topic: &str) -> Option<i64> {
        self.smallest("transaction.max.timeout.ms", topic)
    }

    /// The shortest time for which the brokers keep committed offsets without a new commit (`offsets.retention.minutes`),
    /// of the brokers that show it to this principal. `topic` is as in [`Cluster::smallest`].
    pub(crate) fn offsets_retention(&self, topic: &str) -> Option<Duration> {
        let minutes = self.smallest("offsets.retention.minutes", topic)?;
        Some(Duration::from_secs(u64::try_from(minutes).ok()? * 60))
    }

    /// The smallest value of this property of the brokers that show it. `topic` may be any topic: a request that names
    /// none would return all topics.
    fn smallest(&self, property: &str, topic: &str) -> Option<i64> {
        let metadata = self.uncommitted.fetch_metadata(Some(topic), REQUEST_TIMEOUT).ok()?;
        let brokers = metadata.brokers().iter();
        let configured = brokers.map_while(|broker| {
            // A principal that may not see the configuration of one broker may see none.
            admin::broker_configuration(&self.uncommitted, broker.id(), Duration::from_secs(2)).ok()
        });
        configured.filter_map(|all| all.get(property)?.parse().ok()).min()
    }

    /// Says what to change if the brokers refuse this client, or it refuses them.
    fn way_in(&self, refusal: &str) -> String {
        let says = |words: &str| refusal.contains(words);
        if says("OAUTHBEARER token") {
            "check sasl.oauthbearer.token.endpoint.url, sasl.oauthbearer.client.id and sasl.oauthbearer.client.secret"
                .to_owned()
        } else if says(" alert ") {
            "the brokers want a client certificate that they trust and that has not expired: set \
             ssl.certificate.location, and ssl.key.location for its key"
                .to_owned()
        } else if says("certificate") {
            "set ssl.ca.location to the authority that signed the brokers' certificate, use a broker name that is in \
             the certificate, and check that the certificate has not expired"
                .to_owned()
        } else if says("mechanism handshake") {
            "set sasl.mechanism to one that this listener has, or security.protocol to one without SASL if it has none"
                .to_owned()
        } else {
            format!(
                "check sasl.mechanism, sasl.username and sasl.password (in a file for {}, or as {})",
                self.properties.file_option(),
                self.properties.variable("sasl.password")
            )
        }
    }
}
