//! Client properties, and the clients made of them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, FromClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaConfRes;

use crate::base::error::{Error, Result};
use crate::kafka::partition::Placement;

/// Properties that the promise rests on, or that have a flag.
const OURS: &[(&str, &str)] = &[
    ("bootstrap.servers", "use --bootstrap-server"),
    ("metadata.broker.list", "use --bootstrap-server"),
    ("isolation.level", "what is read must be committed"),
    ("enable.auto.commit", "offsets are committed in the transaction"),
    ("enable.auto.offset.store", "offsets are committed in the transaction"),
    ("auto.offset.reset", "records that are gone must be an error"),
    ("enable.partition.eof", "the end of a partition is told by it"),
    ("group.id", "it names the job's committed offsets"),
    ("group.instance.id", "no group is joined"),
    ("transactional.id", "it fences other runs of the same job"),
    ("transaction.timeout.ms", "the fencing rules rest on it"),
    ("message.timeout.ms", "the fencing rules rest on it"),
    ("delivery.timeout.ms", "the fencing rules rest on it"),
    ("enable.idempotence", "a record must be written once"),
    ("enable.gapless.guarantee", "a record must be written once"),
    ("acks", "a record must be on all replicas in sync"),
    ("request.required.acks", "a record must be on all replicas in sync"),
    ("max.in.flight", "order rests on it"),
    ("max.in.flight.requests.per.connection", "order rests on it"),
    ("retries", "a record must be written once"),
    ("message.send.max.retries", "a record must be written once"),
    ("sasl.jaas.config", "write sasl.username and sasl.password instead"),
    ("log.connection.close", "a producer that lost a connection is replaced"),
    ("plugin.library.paths", "no other code is loaded"),
];

/// For the members of a group alone: no other client joins one.
const GROUP: &[&str] = &[
    "group.protocol",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "max.poll.interval.ms",
    "partition.assignment.strategy",
    "session.timeout.ms",
];

/// What a process list would show if it were given by flag.
const SECRET: &[&str] = &[
    "sasl.password",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
];

/// The brokers that are asked where none are named.
pub(crate) const DEFAULT_BOOTSTRAP: &str = "localhost:9092";

/// Variables of ours that are no properties: --store, and the cluster of the tests.
const NO_PROPERTY: &[&str] = &["STORE", "TEST_BOOTSTRAP_SERVERS"];

const BROKERS: &str = "bootstrap.servers";

/// How long one request to the cluster may take before the start-up gives up on it.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Validated client properties. Flags beat the environment, which beats the file.
#[derive(Clone)]
pub struct Properties {
    bootstrap: String,
    given: BTreeMap<String, String>,
    partitioner: Option<Placement>,
}

impl Properties {
    /// The brokers are named by `bootstrap`, which is a flag's; else by the environment's `KAFKA_BOOTSTRAP_SERVERS`, else
    /// by the file's `bootstrap.servers`, else they are at `localhost:9092`. `flags` are `key=value`. The environment
    /// gives `REPLICATOR_SASL_PASSWORD` for `sasl.password`.
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
        // A file for Kafka's own tools names the brokers too.
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
                    "-X {key}: a flag is seen in the process list; put it in the environment as {} or in a file for -F",
                    environment_name(key)
                )));
            }
            given.insert(key.to_owned(), value.to_owned());
        }
        if let Some((key, why)) = OURS.iter().find(|(key, _)| given.contains_key(*key)) {
            return Err(Error::usage(format!("the property {key} cannot be set: {why}")));
        }
        // Each record is sent to a partition that the job chooses.
        let partitioner = match given.remove("partitioner") {
            None => None,
            Some(name) => Some(Placement::named(&name).ok_or_else(|| {
                Error::usage(format!(
                    "the property partitioner={name}: the copies of a key must stand together; write murmur2, \
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

    /// How the target's producers place keys, where that is given (`partitioner`, as librdkafka has it).
    pub fn partitioner(&self) -> Option<Placement> {
        self.partitioner
    }

    fn common(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("client.id", "replicator")
            .set("bootstrap.servers", &self.bootstrap)
            .set("socket.keepalive.enable", "true")
            // A client that begins waits for half of it, now and then (`rd_kafka_connect_any`).
            .set("reconnect.backoff.ms", "20")
            .set("reconnect.backoff.max.ms", "1000");
        let given = self.given.iter().filter(|(key, _)| !GROUP.contains(&key.as_str()));
        config.extend(given.map(|(key, value)| (key.clone(), value.clone())));
        config
    }

    fn of_members(&self) -> impl Iterator<Item = (String, String)> {
        GROUP.iter().filter_map(|key| Some(((*key).to_owned(), self.given.get(*key)?.clone())))
    }

    /// A consumer that is only asked, or assigned by hand; it never joins a group.
    ///
    /// # Errors
    /// [`Error::Usage`] names a property that librdkafka refuses.
    pub fn consumer(&self, group: &str, isolation: Isolation) -> Result<BaseConsumer<Quiet>> {
        let mut config = self.common();
        config
            .set("group.id", group)
            .set("isolation.level", isolation.as_str())
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error");
        for (key, value) in [
            // Measured: the default of 1000 ms makes a copy 2.4 times slower.
            ("fetch.queue.backoff.ms", "5"),
            // Only ranges that exist are read, and a consumer cannot end while a fetch waits at the broker.
            ("fetch.wait.max.ms", "10"),
            ("queued.min.messages", "1000000"),
            // A fetch asks for as much at most (`fetch.max.bytes`, in `rd_kafka_conf_finalize`).
            ("queued.max.messages.kbytes", "8192"),
        ] {
            self.set_unless_given(&mut config, key, value);
        }
        config.create_with_context(Quiet::default()).map_err(Properties::invalid)
    }

    /// A member of a consumer group: it is told partitions, and reads nothing of them.
    ///
    /// # Errors
    /// [`Error::Usage`] names a property that librdkafka refuses.
    pub fn member<C: ConsumerContext>(&self, group: &str, context: C) -> Result<BaseConsumer<C>> {
        let mut config = self.common();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("queued.min.messages", "1")
            .set("queued.max.messages.kbytes", "1024");
        config.extend(self.of_members());
        // By KIP-848, the broker sets it.
        if self.given.get("group.protocol").is_none_or(|protocol| protocol != "consumer") {
            self.set_unless_given(&mut config, "session.timeout.ms", "10000");
        }
        config.create_with_context(context).map_err(Properties::invalid)
    }

    /// The configuration of a transactional producer to a topic that takes batches of `batch_bytes` at most.
    /// Records stay in order and are written once.
    pub fn producer(&self, transactional_id: &str, batch_bytes: usize) -> ClientConfig {
        let mut config = self.common();
        config
            // Lost connections are told by log lines alone.
            .set_log_level(RDKafkaLogLevel::Debug)
            .set("transactional.id", transactional_id)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string())
            .set("message.timeout.ms", (TRANSACTION_TIMEOUT.as_millis() * 3 / 4).to_string())
            .set("delivery.report.only.error", "true");
        let batch_bytes = batch_bytes.to_string();
        for (key, value) in [
            // No record waits as long: a commit flushes, and so does a full queue. One that does, while a batch of
            // its partition is in flight, makes the client's thread spin (`rd_kafka_msgq_allow_wakeup_at`).
            ("linger.ms", "2000"),
            ("batch.size", batch_bytes.as_str()),
            ("batch.num.messages", "100000"),
            ("message.max.bytes", "1000000000"),
            ("queue.buffering.max.messages", "200000"),
            ("queue.buffering.max.kbytes", "65536"),
        ] {
            self.set_unless_given(&mut config, key, value);
        }
        config
    }

    /// # Errors
    /// [`Error::Usage`] names a property that librdkafka refuses.
    pub fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        AdminClient::from_config(&self.common()).map_err(Properties::invalid)
    }

    fn set_unless_given(&self, config: &mut ClientConfig, key: &str, value: &str) {
        if !self.given.contains_key(key) {
            config.set(key, value);
        }
    }

    /// An error of a client's making: a property that librdkafka does not take.
    pub fn invalid(err: KafkaError) -> Error {
        match err {
            // The value is left out: it may be a secret.
            KafkaError::ClientConfig(_, reason, key, _) => {
                let reason = if SECRET.contains(&key.as_str()) { "not accepted".to_owned() } else { reason };
                Error::usage(format!("the property {key}: {reason}"))
            }
            KafkaError::ClientCreation(reason) => Error::usage(format!("the client properties: {reason}")),
            other => Error::failed(other.to_string()),
        }
    }
}

/// What the environment says.
#[derive(Default)]
struct Environment {
    brokers: Option<String>,
    properties: BTreeMap<String, String>,
    /// Variables that name no property, though they begin as if they did.
    ignored: Vec<String>,
}

impl Environment {
    fn read(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Environment> {
        let mut read = Environment::default();
        for (name, value) in variables {
            let Some(name) = name.to_str() else { continue };
            let text = || {
                let text = value.to_str().map(str::to_owned);
                text.ok_or_else(|| Error::usage(format!("the environment's {name} is not UTF-8")))
            };
            if name == "KAFKA_BOOTSTRAP_SERVERS" {
                read.brokers = Some(text()?);
                continue;
            }
            let Some(rest) = name.strip_prefix("REPLICATOR_").filter(|rest| !NO_PROPERTY.contains(rest))
            else {
                continue;
            };
            // Few names have an underscore, as log_level.
            let names = [rest.to_lowercase().replace('_', "."), rest.to_lowercase()];
            match names.into_iter().find(|name| is_property(name)) {
                Some(property) => drop(read.properties.insert(property, text()?)),
                None if is_service_link(rest) => {}
                None => read.ignored.push(name.to_owned()),
            }
        }
        Ok(read)
    }

    fn warning(&self) -> Option<String> {
        let names = self.ignored.join(", ");
        (!names.is_empty()).then(|| {
            format!(
                "the environment's {names} is ignored: no client property has such a name; REPLICATOR_SASL_PASSWORD \
                 stands for sasl.password"
            )
        })
    }
}

/// Whether librdkafka knows the property, or it is one that we refuse by name.
fn is_property(name: &str) -> bool {
    let is_unknown = || {
        // The value may be wrong: it is the name that is asked for.
        let answer = ClientConfig::new().set(name, "").create_native_config();
        matches!(answer, Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)))
    };
    // Ours are not tried: to set plugin.library.paths loads them.
    OURS.iter().any(|(ours, _)| *ours == name) || !is_unknown()
}

/// Whether Kubernetes gives it to every pod beside a service whose name begins with `replicator`: as
/// `…SERVICE_HOST`, `…SERVICE_PORT_HTTP`, `…PORT` and `…PORT_9090_TCP_ADDR`.
fn is_service_link(rest: &str) -> bool {
    let has = |word: &str| rest.starts_with(word) || rest.contains(&format!("_{word}"));
    has("SERVICE_HOST") || has("SERVICE_PORT") || has("PORT_") || rest == "PORT" || rest.ends_with("_PORT")
}

fn environment_name(property: &str) -> String {
    format!("REPLICATOR_{}", property.to_uppercase().replace('.', "_"))
}

/// How long the coordinator lets a transaction stay open before it aborts it and fences its producer.
pub(crate) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);

/// Whether records of open and aborted transactions are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    ReadCommitted,
    ReadUncommitted,
}

impl Isolation {
    fn as_str(self) -> &'static str {
        match self {
            Isolation::ReadCommitted => "read_committed",
            Isolation::ReadUncommitted => "read_uncommitted",
        }
    }
}

/// Leaves librdkafka's own log lines at debug level: what matters comes back as the result of a call, but for
/// why a connection does not come up.
#[derive(Default)]
pub struct Quiet {
    heard: Mutex<Heard>,
}

/// What was last told of connections that failed.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Trying again will not help: the brokers refuse this client, or it refuses them.
    pub refusal: Option<String>,
    pub failure: Option<String>,
}

impl Quiet {
    /// What was told up to the last poll of the client.
    pub fn heard(&self) -> Heard {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Quiet {
    fn log(&self, _level: rdkafka::config::RDKafkaLogLevel, fac: &str, message: &str) {
        tracing::debug!(target: "librdkafka", "{fac} {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", "{error}: {reason}");
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL) => {
                heard.refusal = Some(reason.to_owned());
            }
            // By TLS 1.3, that a client's certificate is not taken is told after the handshake.
            _ if reason.contains("SSL alert") => heard.refusal = Some(reason.to_owned()),
            // Says no more than that no broker is left.
            Some(RDKafkaErrorCode::AllBrokersDown) => {}
            // One that guesses at the listener's protocol says more than the next one.
            _ if heard.failure.as_ref().is_some_and(|failure| failure.contains("listener?")) => {}
            _ => heard.failure = Some(reason.to_owned()),
        }
    }
}

impl ConsumerContext for Quiet {}

/// Closes a consumer before it is dropped: `rdkafka`'s drop does so in steps of 100 ms.
pub fn close<C: ConsumerContext>(consumer: &BaseConsumer<C>) {
    if consumer.close_queue().is_ok() {
        while !consumer.closed() {
            consumer.poll(Duration::ZERO);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let variables = variables.iter().map(|(k, v)| (OsString::from(*k), OsString::from(*v)));
        Environment::read(variables).expect("read")
    }

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

    #[test]
    fn links_to_services_are_no_properties() {
        let found = environment(&[
            ("REPLICATOR_SERVICE_HOST", "10.0.0.1"),
            ("REPLICATOR_PORT", "tcp://10.0.0.1:9090"),
            ("REPLICATOR_METRICS_SERVICE_HOST", "10.0.0.1"),
            ("REPLICATOR_METRICS_SERVICE_PORT", "9090"),
            ("REPLICATOR_METRICS_SERVICE_PORT_HTTP", "9090"),
            ("REPLICATOR_METRICS_PORT", "tcp://10.0.0.1:9090"),
            ("REPLICATOR_METRICS_PORT_9090_TCP", "tcp://10.0.0.1:9090"),
            ("REPLICATOR_METRICS_PORT_9090_TCP_PROTO", "tcp"),
            ("REPLICATOR_METRICS_PORT_9090_TCP_ADDR", "10.0.0.1"),
            ("REPLICATOR_STORE", "sqlite:x.db"),
            ("REPLICATOR_TEST_BOOTSTRAP_SERVERS", "x:1"),
        ]);
        assert!(found.properties.is_empty() && found.ignored.is_empty());
        assert!(properties(&[("REPLICATOR_METRICS_SERVICE_HOST", "10.0.0.1")], &[]).is_ok());
    }

    #[test]
    fn a_misspelt_variable_is_told() {
        let found = environment(&[("REPLICATOR_SASL_PASWORD", "hunter2"), ("REPLICATOR_LINGER_MS", "7")]);
        assert_eq!(found.properties.len(), 1);
        let warning = found.warning().expect("a warning");
        assert!(warning.contains("REPLICATOR_SASL_PASWORD") && !warning.contains("hunter2"), "{warning}");
        assert!(!warning.contains("LINGER"), "{warning}");
    }

    #[rstest]
    #[case("REPLICATOR_SASL_KERBEROS_SERVICE_NAME", "sasl.kerberos.service.name")]
    #[case("REPLICATOR_LOG_LEVEL", "log_level")]
    #[case::of_topics("REPLICATOR_COMPRESSION_TYPE", "compression.type")]
    #[case::of_topics_alone("REPLICATOR_REQUEST_TIMEOUT_MS", "request.timeout.ms")]
    #[case::refused_later("REPLICATOR_ISOLATION_LEVEL", "isolation.level")]
    #[case::not_librdkafkas("REPLICATOR_SASL_JAAS_CONFIG", "sasl.jaas.config")]
    fn a_variable_for_a_property(#[case] variable: &str, #[case] property: &str) {
        let found = environment(&[(variable, "5")]);
        assert_eq!(found.properties.keys().collect::<Vec<_>>(), [property]);
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
