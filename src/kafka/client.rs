//! Makes the clients: consumers, producers and admin clients. Keeps what librdkafka reports about their connections.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, FromClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::base::error::Result;
use crate::kafka::properties::Properties;

/// How long one request to the cluster may take. After that the start-up gives up.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

impl Properties {
    /// Makes a consumer that answers questions, or reads partitions that the caller assigns. It never joins a group.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::base::error::Error::Usage) names a property that librdkafka refuses.
    pub fn consumer(&self, group: &str, isolation: Isolation) -> Result<BaseConsumer<Listener>> {
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
            // Readers read only ranges that exist, so they need not wait for more. And a consumer cannot end while a
            // fetch waits at the broker.
            ("fetch.wait.max.ms", "10"),
            ("queued.min.messages", "1000000"),
            // This also limits one fetch (`fetch.max.bytes`, in `rd_kafka_conf_finalize`).
            ("queued.max.messages.kbytes", "8192"),
        ] {
            self.set_unless_given(&mut config, key, value);
        }
        config.create_with_context(Listener::default()).map_err(Properties::invalid)
    }

    /// Makes a member of a consumer group. It gets partitions assigned, but does not read them.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::base::error::Error::Usage) names a property that librdkafka refuses.
    pub fn member<C: ConsumerContext>(&self, group: &str, context: C) -> Result<BaseConsumer<C>> {
        let mut config = self.common();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("queued.min.messages", "1")
            .set("queued.max.messages.kbytes", "1024");
        // The member learns of a topic's new partitions from its metadata. The default is five minutes.
        self.set_unless_given(&mut config, "topic.metadata.refresh.interval.ms", "10000");
        config.extend(self.of_members());
        // With KIP-848, the broker sets this timeout.
        if !self.is_given("group.protocol", "consumer") {
            self.set_unless_given(&mut config, "session.timeout.ms", "10000");
        }
        config.create_with_context(context).map_err(Properties::invalid)
    }

    /// The configuration of a transactional producer for a topic that accepts batches of at most `batch_bytes`. The
    /// producer keeps records in order, and writes each once.
    pub fn producer(&self, transactional_id: &str, batch_bytes: usize) -> ClientConfig {
        let mut config = self.common();
        config
            // librdkafka reports a lost connection only by a log line.
            .set_log_level(RDKafkaLogLevel::Debug)
            .set("transactional.id", transactional_id)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string())
            .set("message.timeout.ms", (TRANSACTION_TIMEOUT.as_millis() * 3 / 4).to_string())
            .set("delivery.report.only.error", "true");
        let batch_bytes = batch_bytes.to_string();
        for (key, value) in [
            // No record should wait this long, because a commit and a full queue both flush. If a record waits this
            // long while a batch of its partition is in flight, the client's thread spins
            // (`rd_kafka_msgq_allow_wakeup_at`).
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
    /// [`Error::Usage`](crate::base::error::Error::Usage) names a property that librdkafka refuses.
    pub fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        AdminClient::from_config(&self.common()).map_err(Properties::invalid)
    }
}

/// How long a transaction may stay open before the coordinator aborts it and fences its producer.
pub(crate) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);

/// Whether a client sees records of open and aborted transactions.
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

/// Logs librdkafka's lines at debug level, since calls return almost all errors that matter. They do not return the
/// reason why a connection fails, so this keeps it.
#[derive(Default)]
pub struct Listener {
    heard: Mutex<Heard>,
}

/// The last reports about connections that failed.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// The brokers refuse this client, or it refuses them. Trying again will not help.
    pub refusal: Option<String>,
    pub failure: Option<String>,
}

impl Listener {
    /// The reports up to the last poll of the client.
    pub fn heard(&self) -> Heard {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Listener {
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
            // With TLS 1.3, a broker that refuses the client's certificate says so only after the handshake.
            _ if reason.contains("SSL alert") => heard.refusal = Some(reason.to_owned()),
            // This code says only that no broker is left.
            Some(RDKafkaErrorCode::AllBrokersDown) => {}
            // Keep an error that guesses the listener's protocol. It says more than the next one.
            _ if heard.failure.as_ref().is_some_and(|failure| failure.contains("listener?")) => {}
            _ => heard.failure = Some(reason.to_owned()),
        }
    }
}

impl ConsumerContext for Listener {}

/// Closes a consumer before its drop, since `rdkafka`'s drop waits in steps of 100 ms.
pub fn close<C: ConsumerContext>(consumer: &BaseConsumer<C>) {
    if consumer.close_queue().is_ok() {
        while !consumer.closed() {
            consumer.poll(Duration::ZERO);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
