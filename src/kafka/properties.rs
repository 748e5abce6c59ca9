//! Collects client properties from flags, the environment and a file, and refuses those that may not be set.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;

use super::environment::{Environment, variable_name};
use super::rules::{GROUP, OURS, SECRET};
use crate::base::error::{Error, Result};
use crate::kafka::partition::Placement;

/// The brokers to ask if none are named.
pub(crate) const DEFAULT_BOOTSTRAP: &str = "localhost:9092";

const BROKERS: &str = "bootstrap.servers";

/// Validated client properties. Flags beat the environment, which beats the file.
#[derive(Clone)]
pub struct Properties {
    bootstrap: String,
    given: BTreeMap<String, String>,
    partitioner: Option<Placement>,
}

impl Properties {
    /// The first of these that is given names the brokers: `bootstrap`, the value of a flag; `KAFKA_BOOTSTRAP_SERVERS`
    /// in the environment; `bootstrap.servers` in the file. Without any, they are at `localhost:9092`. `flags` are
    /// `key=value`. In the environment, `REPLICATOR_SASL_PASSWORD` stands for `sasl.password`.
    ///
    /// # Errors
    /// [`Error::Usage`] names the property that is refused, or the file that cannot be read.
    pub fn new(
        bootstrap: Option<&str>,
        file: Option<&Path>,
        environment: impl Iterator<Item = (OsString, OsString)>,
        flags: &[String],
    ) -> Result<Properties> {
        let mut given = BTreeMap::new();
        if let Some(path) = file {
            let from =
                |e: &dyn std::fmt::Display| Error::usage(format!("--command-config {}: {e}", path.display()));
            let opened = std::fs::File::open(path).map_err(|e| from(&e))?;
            given.extend(java_properties::read(opened).map_err(|e| from(&e))?);
        }
        // A file for Kafka's own tools may name the brokers too.
        let of_file = given.remove(BROKERS);
        let environment = Environment::read(environment)?;
        if let Some(warning) = environment.warning() {
            tracing::warn!("{warning}");
        }
        given.extend(environment.properties);
        let named = [bootstrap.map(str::to_owned), environment.brokers, of_file];
        let bootstrap = named.into_iter().flatten().find(|brokers| !brokers.trim().is_empty());
        let bootstrap = bootstrap.unwrap_or_else(|| DEFAULT_BOOTSTRAP.to_owned());
        for flag in flags {
            let (key, value) = flag
                .split_once('=')
                .ok_or_else(|| Error::usage("-X takes key=value, and one of them has no `=`".to_owned()))?;
            let key = key.trim();
            if SECRET.contains(&key) {
                return Err(Error::usage(format!(
                    "-X {key}: the process list shows flags; put it in the environment as {} or in a file for -F",
                    variable_name(key)
                )));
            }
            given.insert(key.to_owned(), value.to_owned());
        }
        if let Some((key, why)) = OURS.iter().find(|(key, _)| given.contains_key(*key)) {
            return Err(Error::usage(format!("the property {key} cannot be set: {why}")));
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
        let properties = Properties { bootstrap, given, partitioner };
        let mut all = properties.common();
        all.extend(properties.of_members());
        all.create_native_config().map_err(Properties::invalid)?;
        Ok(properties)
    }

    /// The same properties, for the cluster at `bootstrap`.
    #[must_use]
    pub fn at(self, bootstrap: &str) -> Properties {
        Properties { bootstrap: bootstrap.to_owned(), ..self }
    }

    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Whether a producer compresses what it sends.
    pub fn are_compressing(&self) -> bool {
        let codec = ["compression.type", "compression.codec"].iter().find_map(|key| self.given.get(*key));
        codec.is_some_and(|codec| !["none", "inherit"].contains(&codec.to_lowercase().as_str()))
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn with_file(
        flag: Option<&str>,
        file: Option<&str>,
        environment: &[(&str, &str)],
        flags: &[&str],
    ) -> Result<Properties> {
        let environment = environment.iter().map(|(k, v)| (OsString::from(*k), OsString::from(*v)));
        let flags: Vec<String> = flags.iter().map(|f| (*f).to_owned()).collect();
        let written = file.map(|text| {
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), text).expect("written");
            file
        });
        Properties::new(flag, written.as_ref().map(tempfile::NamedTempFile::path), environment, &flags)
    }

    fn properties(environment: &[(&str, &str)], flags: &[&str]) -> Result<Properties> {
        with_file(None, None, environment, flags)
    }

    const FILE: &str = "bootstrap.servers=file:1\nclient.id=me\n";

    #[rstest]
    #[case(Some("flag:1"), Some("environment:1"), Some(FILE), "flag:1")]
    #[case(Some("flag:1"), None, Some(FILE), "flag:1")]
    #[case(Some("flag:1"), Some("environment:1"), None, "flag:1")]
    #[case(Some("flag:1"), None, None, "flag:1")]
    #[case(None, Some("environment:1"), Some(FILE), "environment:1")]
    #[case(None, Some("environment:1"), None, "environment:1")]
    #[case(None, None, Some(FILE), "file:1")]
    #[case(None, None, Some("client.id=me"), "localhost:9092")]
    #[case(None, None, None, "localhost:9092")]
    #[case(Some(" "), Some(""), Some(FILE), "file:1")]
    #[case(None, Some(""), Some("bootstrap.servers="), "localhost:9092")]
    fn where_the_brokers_are(
        #[case] flag: Option<&str>,
        #[case] variable: Option<&str>,
        #[case] file: Option<&str>,
        #[case] wanted: &str,
    ) {
        let variables: Vec<_> =
            variable.map(|value| ("KAFKA_BOOTSTRAP_SERVERS", value)).into_iter().collect();
        let properties = with_file(flag, file, &variables, &[]).expect("accepted");
        assert_eq!(properties.bootstrap(), wanted);
        assert_eq!(properties.common().get(BROKERS), Some(wanted));
    }

    #[rstest]
    #[case::by_flag(&[], &["bootstrap.servers=x:1"], "bootstrap.servers")]
    #[case::by_environment(&[("REPLICATOR_BOOTSTRAP_SERVERS", "x:1")], &[], "bootstrap.servers")]
    #[case::by_another_name(&[], &["metadata.broker.list=x:1"], "metadata.broker.list")]
    fn brokers_named_as_a_property(
        #[case] environment: &[(&str, &str)],
        #[case] flags: &[&str],
        #[case] name: &str,
        #[values(None, Some(FILE))] file: Option<&str>,
        #[values(None, Some("flag:1"))] flag: Option<&str>,
    ) {
        let error = with_file(flag, file, environment, flags).err().expect("refused");
        assert!(matches!(error, Error::Usage(_)));
        assert!(error.to_string().contains(&format!("the property {name} cannot be set")), "{error}");
    }

    #[rstest]
    #[case("isolation.level=read_uncommitted", "isolation.level")]
    #[case("enable.auto.commit=true", "enable.auto.commit")]
    #[case("transactional.id=x", "transactional.id")]
    #[case("enable.idempotence=false", "enable.idempotence")]
    #[case("sasl.password=hunter2", "REPLICATOR_SASL_PASSWORD")]
    #[case("no.such.property=1", "no.such.property")]
    #[case("partitioner=random", "consistent (CRC-32)")]
    #[case("linger.ms", "key=value")]
    fn refused_by_name(#[case] flag: &str, #[case] names: &str) {
        let error = properties(&[], &[flag]).err().expect("refused");
        assert!(matches!(error, Error::Usage(_)));
        assert!(error.to_string().contains(names), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn flags_beat_the_environment() {
        let given = properties(
            &[
                ("REPLICATOR_LINGER_MS", "7"),
                ("REPLICATOR_SERVICE_HOST", "x"),
                ("REPLICATOR_SASL_PASSWORD", "hunter2"),
                ("HOME", "/"),
            ],
            &["linger.ms=9"],
        );
        let given = given.expect("accepted").given;
        assert_eq!(given.get("linger.ms").map(String::as_str), Some("9"));
        assert_eq!(given.get("sasl.password").map(String::as_str), Some("hunter2"));
        assert_eq!(given.len(), 2);
    }
}
