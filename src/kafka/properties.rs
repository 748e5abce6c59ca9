//! The client properties of one cluster. Refuses those that may not be set.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;

use super::environment::variable_name;
use super::given::Given;
use super::rules::{GROUP, OURS, SECRET};
use super::sides::Side;
use crate::base::error::{Error, Result};
use crate::base::shell::line;
use crate::kafka::partition::Placement;

/// The brokers to ask if none are named.
pub(crate) const DEFAULT_BOOTSTRAP: &str = "localhost:9092";

/// The validated client properties of one cluster.
#[derive(Clone)]
pub struct Properties {
    bootstrap: String,
    pub(super) given: BTreeMap<String, String>,
    partitioner: Option<Placement>,
    /// Set if the job names two clusters.
    side: Option<Side>,
    /// The options of the command line that give these properties.
    options: Vec<String>,
}

impl Properties {
    /// The properties of a command that works on one cluster: see [`Given`].
    ///
    /// # Errors
    /// As [`Given::one`].
    pub fn new(
        bootstrap: Option<&str>,
        file: Option<&Path>,
        environment: impl Iterator<Item = (OsString, OsString)>,
        flags: &[String],
    ) -> Result<Properties> {
        Given { bootstrap, file, flags, ..Given::default() }.one(environment)
    }

    /// Checks the properties `given` for the cluster at `bootstrap`.
    pub(super) fn checked(
        bootstrap: String,
        mut given: BTreeMap<String, String>,
        side: Option<Side>,
    ) -> Result<Properties> {
        if let Some((key, why)) = OURS.iter().find(|(key, _)| given.contains_key(*key)) {
            let of = side.map_or_else(String::new, |side| format!(" of the {} cluster", side.word()));
            return Err(Error::usage(format!("the property {key}{of} cannot be set: {why}")));
        }
        // librdkafka does not get this property: the job itself chooses each record's partition.
        let partitioner = match given.remove("partitioner") {
            None => None,
            Some(name) => Some(Placement::named(&name).ok_or_else(|| {
                Error::usage(format!(
                    "the property partitioner={name}: all records of a key must go to one partition; use murmur2, \
                     consistent (CRC-32) or fnv1a"
                ))
            })?),
        };
        let properties = Properties { bootstrap, given, partitioner, side, options: Vec::new() };
        let mut all = properties.common();
        all.extend(properties.of_members());
        all.create_native_config().map_err(Properties::invalid).map_err(|err| properties.says(err))?;
        Ok(properties)
    }

    pub(super) fn given_by(self, options: Vec<String>) -> Properties {
        Properties { options, ..self }
    }

    /// The options of the command line that give these properties, without the brokers.
    pub(crate) fn options(&self) -> &[String] {
        &self.options
    }

    /// The command line of one of Kafka's own tools, for this cluster.
    pub(crate) fn tool(&self, tool: &str, words: &[&str]) -> String {
        line(&[&[tool, "--bootstrap-server", &self.bootstrap], words].concat())
    }

    pub(super) fn side(&self) -> Option<Side> {
        self.side
    }

    /// The cluster's part and its address, `the source cluster (a:9092)`; `None` if the job names one cluster.
    pub(crate) fn place(&self) -> Option<String> {
        self.side.map(|side| format!("the {} cluster ({})", side.word(), self.bootstrap))
    }

    /// The option `name` for this cluster: `--bootstrap-server` or `--source-bootstrap-server`.
    pub(crate) fn option(&self, name: &str) -> String {
        self.side.map_or_else(|| format!("--{name}"), |side| format!("--{}-{name}", side.word()))
    }

    /// The options that take a file of properties for this cluster.
    pub(super) fn file_option(&self) -> String {
        self.side.map_or_else(|| "-F".to_owned(), |side| format!("-F or --{}-command-config", side.word()))
    }

    /// The variable that sets a property of this cluster.
    pub(super) fn variable(&self, property: &str) -> String {
        variable_name(
            &self.side.map_or_else(|| property.to_owned(), |side| format!("{}.{property}", side.word())),
        )
    }

    /// The error, beginning with the cluster that it is about.
    pub(crate) fn says(&self, err: Error) -> Error {
        match self.place() {
            Some(place) => err.within(&place),
            None => err,
        }
    }

    /// The same properties, for the cluster at `bootstrap`.
    #[must_use]
    pub fn at(self, bootstrap: &str) -> Properties {
        Properties { bootstrap: bootstrap.to_owned(), ..self }
    }

    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// How a producer compresses what it sends, if that is given.
    pub(crate) fn codec(&self) -> Option<&str> {
        ["compression.type", "compression.codec"]
            .iter()
            .find_map(|key| self.given.get(*key))
            .map(String::as_str)
    }

    /// Whether a producer compresses what it sends.
    pub fn are_compressing(&self) -> bool {
        self.codec().is_some_and(|codec| !["none", "inherit"].contains(&codec.to_lowercase().as_str()))
    }

    /// The same properties, with this codec for a producer.
    #[must_use]
    pub(crate) fn compressing(mut self, codec: &str) -> Properties {
        self.given.insert("compression.type".to_owned(), codec.to_owned());
        self
    }

    /// The same properties. Unless they say how long a producer waits for more records, it is this time in milliseconds.
    #[must_use]
    pub(crate) fn lingering(mut self, millis: &str) -> Properties {
        self.given.entry("linger.ms".to_owned()).or_insert_with(|| millis.to_owned());
        self
    }

    /// How the target's producers place keys, if librdkafka's property `partitioner` is given.
    pub fn partitioner(&self) -> Option<Placement> {
        self.partitioner
    }

    pub(super) fn common(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("client.id", "replicator")
            .set("bootstrap.servers", &self.bootstrap)
            .set("socket.keepalive.enable", "true")
            // A new client sometimes waits for half of this time (`rd_kafka_connect_any`).
            .set("reconnect.backoff.ms", "20")
            .set("reconnect.backoff.max.ms", "1000");
        let given = self.given.iter().filter(|(key, _)| !GROUP.contains(&key.as_str()));
        config.extend(given.map(|(key, value)| (key.clone(), value.clone())));
        config
    }

    pub(super) fn of_members(&self) -> impl Iterator<Item = (String, String)> {
        GROUP.iter().filter_map(|key| Some(((*key).to_owned(), self.given.get(*key)?.clone())))
    }

    /// Whether `key` is given with this `value`.
    pub(super) fn is_given(&self, key: &str, value: &str) -> bool {
        self.given.get(key).is_some_and(|given| given == value)
    }

    pub(super) fn set_unless_given(&self, config: &mut ClientConfig, key: &str, value: &str) {
        if !self.given.contains_key(key) {
            config.set(key, value);
        }
    }

    /// Turns librdkafka's error for a new client into one that names the property.
    pub fn invalid(err: KafkaError) -> Error {
        match err {
            // Leave out the value, since it may be a secret.
            KafkaError::ClientConfig(_, reason, key, _) => {
                let reason = if SECRET.contains(&key.as_str()) { "not accepted".to_owned() } else { reason };
                Error::usage(format!("the property {key}: {reason}"))
            }
            KafkaError::ClientCreation(reason) => Error::usage(format!("the client properties: {reason}")),
            other => Error::failed(other.to_string()),
        }
    }
}
