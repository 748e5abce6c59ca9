//! The rules of client properties: which ones may be set, and how.

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

const BY_OPTION: &str =
    "use --bootstrap-server, or --source-bootstrap-server and --target-bootstrap-server for two clusters";

/// Properties that the promise depends on, or that have a flag.
pub(super) const OURS: &[(&str, &str)] = &[
    ("bootstrap.servers", BY_OPTION),
    ("metadata.broker.list", BY_OPTION),
    ("allow.auto.create.topics", "no question about a topic may create it"),
    ("isolation.level", "a run reads only committed records"),
    ("enable.auto.commit", "the transaction commits the offsets"),
    ("enable.auto.offset.store", "the transaction commits the offsets"),
    ("auto.offset.reset", "records that are gone must be an error"),
    ("enable.partition.eof", "readers need it to find the end of a partition"),
    ("group.id", "it names the job's committed offsets"),
    ("group.instance.id", "members of the group are never static"),
    ("transactional.id", "it fences other runs of the same job"),
    ("transaction.timeout.ms", "the fencing rules depend on it"),
    ("message.timeout.ms", "the fencing rules depend on it"),
    ("delivery.timeout.ms", "the fencing rules depend on it"),
    ("enable.idempotence", "a record must be written once"),
    ("enable.gapless.guarantee", "a record must be written once"),
    ("acks", "a record must be on all replicas in sync"),
    ("request.required.acks", "a record must be on all replicas in sync"),
    ("max.in.flight", "the order of records depends on it"),
    ("max.in.flight.requests.per.connection", "the order of records depends on it"),
    ("retries", "a record must be written once"),
    ("message.send.max.retries", "a record must be written once"),
    ("sasl.jaas.config", "use sasl.username and sasl.password"),
    ("log.connection.close", "a run must learn of lost connections"),
    ("plugin.library.paths", "replicator loads no other code"),
];

/// Properties that only the members of a group get. No other client joins a group.
pub(super) const GROUP: &[&str] = &[
    "group.protocol",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "max.poll.interval.ms",
    "partition.assignment.strategy",
    "session.timeout.ms",
];

/// Secrets. Flags may not set them, since a process list shows flags.
pub(super) const SECRET: &[&str] = &[
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

/// Whether librdkafka knows the property, or `OURS` refuses it by name.
pub(super) fn is_property(name: &str) -> bool {
    let is_unknown = || {
        // Only the name matters here. The value may be wrong.
        let answer = ClientConfig::new().set(name, "").create_native_config();
        matches!(answer, Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)))
    };
    // Do not try the properties in `OURS`: setting plugin.library.paths loads the plugins.
    OURS.iter().any(|(ours, _)| *ours == name) || !is_unknown()
}
