//! The transactional producer. It has one transaction at a time, and each call has a deadline of our own.
//!
//! If the outcome of a failure is not known for certain, the run drops the producer and does the whole start-up again
//! ([`Error::Restart`]). This costs a scan, but the run need not know what the broken producer may still do. librdkafka
//! has no client side of KIP-890, so a delayed EndTxn can end a later transaction of the same producer
//! (librdkafka#5423), but not one of the next epoch. Even an answer is no proof: when librdkafka loses a connection, it
//! sends the request again by itself, and the first one may still be on its way. So a producer that lost a connection
//! ends its transaction, and the run replaces it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer as _};

use crate::base::error::{Error, Reason, Result, denied};
use crate::base::failpoint::{self, Rule};
use crate::base::interrupt::Interrupt;
use crate::kafka::client::TRANSACTION_TIMEOUT;
use crate::kafka::delivery::{Extremes, Failed, Reports, is_permanent};
use crate::kafka::pace::Pace;
use crate::kafka::position::{Position, offsets};
use crate::kafka::properties::Properties;
use crate::kafka::sys::{self, Outgoing, OutgoingTopic};

/// A producer that has the newest epoch of its transactional id, until another producer takes the id over.
pub struct Producer {
    properties: Properties,
    inner: Arc<BaseProducer<Reports>>,
    transactional_id: String,
    /// The topic or the file that the records come from.
    source: String,
    /// The name of `topic`.
    target: String,
    topic: OutgoingTopic<Reports>,
    /// The oldest and the newest record of the open transaction.
    extremes: Extremes,
    batch_bytes: usize,
    /// How long one call may take.
    timeout: Duration,
    /// The reason why no further transaction may begin, if there is one.
    spent: RefCell<Option<String>>,
    pace: Rc<Pace>,
}

/// The permission that a call needs: an operation, and the topic that it is on.
type Needs<'a> = (&'static str, &'a str);

/// One open transaction. Commit and abort consume it. If it is dropped instead, the next `init` aborts it.
pub struct Transaction<'p> {
    producer: &'p Producer,
    /// On a clock that counts sleep too: the coordinator's clock goes on while this machine sleeps.
    begun: boot_time::Instant,
    records: usize,
    bytes: usize,
}

/// The limits for the time that one transactional call may take: less than the transaction's own timeout, and enough to
/// find the coordinator.
const LONGEST_CALL: Duration = Duration::from_secs(30);
const SHORTEST_CALL: Duration = Duration::from_secs(5);

/// How many offsets one request commits at most.
const TOGETHER: usize = 1000;

/// If the queue stays full for longer than this, it may hold no full batch. librdkafka would then send nothing before
/// `linger.ms`.
const BATCHES_FILL: Duration = Duration::from_millis(20);

impl Producer {
    /// Makes the producer and initialises its transactions. The coordinator aborts a dead run's open transaction, and
    /// fences a live run of the same id. A call waits for `patience`, but at least [`SHORTEST_CALL`] and at most
    /// [`LONGEST_CALL`]. `source` is the topic or the file that the records come from.
    ///
    /// # Errors
    /// [`Error::Refused`] without permission; [`Error::Restart`] if the coordinator does not answer.
    pub fn init(
        properties: &Properties,
        transactional_id: &str,
        source: &str,
        topic: &str,
        batch_bytes: usize,
        patience: Duration,
        pace: &Rc<Pace>,
    ) -> Result<Producer> {
        let config = properties.producer(transactional_id, batch_bytes);
        let inner = BaseProducer::from_config_and_context(&config, Reports::default())
            .map_err(Properties::invalid)?;
        let timeout = patience.clamp(SHORTEST_CALL, LONGEST_CALL);
        let inner = Arc::new(inner);
        let producer = Producer {
            properties: properties.clone(),
            topic: OutgoingTopic::new(inner.clone(), topic)
                .ok_or_else(|| Error::usage(format!("`{topic}` cannot be a topic's name")))?,
            inner,
            transactional_id: transactional_id.to_owned(),
            source: source.to_owned(),
            target: topic.to_owned(),
            extremes: Extremes::default(),
            batch_bytes,
            timeout,
            spent: RefCell::default(),
            pace: pace.clone(),
        };
        // Connect to a leader first. librdkafka closes its first connection once it knows the brokers, and without
        // another one it looks for the coordinator only half a second later (`rd_kafka_txn_coord_query`).
        let leader = producer.inner.client().fetch_watermarks(topic, 0, timeout);
        leader.map_err(|e| {
            properties.says(Error::on_topic(format!("the leader of {topic}-0"), "Write", topic, e))
        })?;
        match producer.call("init_transactions", producer.writing(), None, move |inner| {
            inner.init_transactions(timeout)
        }) {
            Ok(()) => Ok(producer),
            // librdkafka continues the call in the background, and may get a newer epoch than the next producer.
            Err(Error::Restart { why, .. }) => Err(Error::Restart { why, abandoned: true }),
            Err(err) => Err(err),
        }
    }

    /// # Errors
    /// As [`Transaction::commit`]; [`Error::Restart`] also if the last transaction lost a connection.
    pub fn begin(&self) -> Result<Transaction<'_>> {
        failpoint::instant("before-begin");
        if let Some(why) = self.spent.take() {
            return Err(Error::restart(format!(
                "the run replaces the producer, since it lost a connection ({why})"
            )));
        }
        self.inner.context().take_lost();
        self.extremes.reset();
        self.call("begin_transaction", self.writing(), None, |inner| inner.begin_transaction())?;
        failpoint::instant("after-begin");
        Ok(Transaction { producer: self, begun: boot_time::Instant::now(), records: 0, bytes: 0 })
    }

    fn abort(&self, begun: Option<boot_time::Instant>) -> Result<()> {
        let timeout = self.timeout;
        // librdkafka never sends the records behind a refused one, and its abort waits for them in vain.
        if self.inner.context().is_hopeless() {
            let Producer { properties, transactional_id, source, target, batch_bytes, pace, .. } = self;
            let next =
                Producer::init(properties, transactional_id, source, target, *batch_bytes, timeout, pace);
            return next.map(drop);
        }
        self.call("abort_transaction", self.writing(), begun, move |inner| {
            match inner.abort_transaction(timeout) {
                // The coordinator knows no such transaction: it was ended before its first partition was added.
                Err(err) if is_not_open(inner, &err) => Ok(()),
                result => result,
            }
        })
    }

    /// Makes one blocking call on a thread of its own, and polls meanwhile. Gives up after a deadline of our own, since
    /// librdkafka was seen to ignore its timeout (librdkafka#5456, #5511). The abandoned call keeps its thread and the
    /// producer, and nobody else uses that producer any more.
    fn call(
        &self,
        name: &'static str,
        needs: Needs<'_>,
        begun: Option<boot_time::Instant>,
        call: impl Fn(&BaseProducer<Reports>) -> std::result::Result<(), KafkaError> + Send + 'static,
    ) -> Result<()> {
        let timeout = self.timeout;
        let deadline = Instant::now() + timeout + timeout / 6;
        let (answer, answered) = channel();
        let inner = self.inner.clone();
        std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                let give_up = Instant::now() + timeout;
                failpoint::instant("in-call");
                let result = loop {
                    match call(&inner) {
                        Err(KafkaError::Transaction(e)) if e.is_retriable() && Instant::now() < give_up => {
                            std::thread::sleep(Duration::from_millis(20));
                        }
                        result => break result,
                    }
                };
                let _ = answer.send(result); // nobody listens after the deadline
            })
            .map_err(|e| Error::io("the thread for transactional calls", e))?;
        let mut pause = Duration::from_micros(100);
        loop {
            // Wait here and not in the poll, which spins if it waits for less than a millisecond.
            let answer = answered.recv_timeout(pause);
            self.inner.poll(Duration::ZERO);
            pause = (pause * 2).min(Duration::from_millis(2));
            match answer {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(e)) => return Err(self.classify(name, needs, &e, begun)),
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(_) => {
                    let why = format!("{name} did not answer in time").into();
                    return Err(self.properties.says(Error::Restart { why, abandoned: true }));
                }
            }
        }
    }

    /// The permission to write to the target.
    fn writing(&self) -> Needs<'_> {
        ("Write", &self.target)
    }

    fn classify(
        &self,
        step: &str,
        needs: Needs<'_>,
        err: &KafkaError,
        begun: Option<boot_time::Instant>,
    ) -> Error {
        self.properties.says(self.classified(step, needs, err, begun))
    }

    fn classified(
        &self,
        step: &str,
        (operation, topic): Needs<'_>,
        err: &KafkaError,
        begun: Option<boot_time::Instant>,
    ) -> Error {
        let code = err.rdkafka_error_code();
        let delivery = self.inner.context().failed(&self.extremes);
        // After a fencing, librdkafka answers each call with a bare "fatal", and keeps the reason elsewhere.
        let fatal = self.inner.client().fatal_error().map(|(code, _)| code);
        if [code, fatal, delivery.as_ref().map(|d| d.code)].into_iter().flatten().any(is_fenced) {
            // The coordinator also fences a producer whose transaction timed out, but not before that time.
            let timed_out = begun.is_some_and(|begun| begun.elapsed() >= TRANSACTION_TIMEOUT);
            return if timed_out {
                Error::restart(format!("{step}: the transaction outlived its timeout"))
            } else {
                Error::fenced(format!(
                    "another run took over the transactional id `{}` and continues the work; this run wrote nothing \
                     after that",
                    self.transactional_id
                ))
            };
        }
        // A call may also report what failed before it.
        let is_of_records = delivery.is_some() || err.to_string().contains("add partition");
        let (operation, topic) = if is_of_records { self.writing() } else { (operation, topic) };
        let sentence = |failed: &Failed| failed.sentence(&self.source, &self.target);
        match delivery.as_ref().map(|d| d.code).or(code) {
            Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed) => {
                Error::lacking(step, &format!("Write on the transactional id {}", self.transactional_id))
            }
            Some(code) if denied(code).is_some() => Error::topic(step, operation, topic, code),
            Some(code @ RDKafkaErrorCode::InvalidTransactionTimeout) => Error::refused(format!(
                "{step}: {code}; set the brokers' transaction.max.timeout.ms to {} or more",
                TRANSACTION_TIMEOUT.as_millis()
            )),
            Some(code) if is_permanent(code) => match &delivery {
                Some(failed) => Error::failed(sentence(failed)).because(Reason::RefusedRecords),
                None => Error::failed(format!("{step}: {code}")),
            },
            _ => Error::restart(format!("{step}: {}", delivery.as_ref().map_or(err.to_string(), sentence))),
        }
    }

    /// # Errors
    /// As [`Transaction::commit`], if a delivery failed that would fail again.
    fn check_deliveries(&self, begun: boot_time::Instant) -> Result<()> {
        let told = self.inner.context();
        // This runs for each record, so it takes no lock unless something failed.
        match told.is_hopeless().then(|| told.failed(&self.extremes)).flatten() {
            Some(failed) => {
                let err = KafkaError::MessageProduction(failed.code);
                Err(self.classify("producing", self.writing(), &err, Some(begun)))
            }
            None => Ok(()),
        }
    }
}

impl Transaction<'_> {
    /// Queues a record. Waits for room if the queue is full.
    ///
    /// # Errors
    /// As [`Transaction::commit`]; [`Error::Failed`] if the record is larger than the queue; as [`Interrupt::check`]
    /// during the wait.
    pub fn send(&mut self, record: Outgoing<'_>, interrupt: &Interrupt) -> Result<()> {
        failpoint::instant("before-send");
        self.check_deliveries()?;
        let bytes = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        let (mut full_since, mut is_alone) = (None, false);
        while let Err(code) = self.producer.topic.produce(record) {
            let waited = full_since.get_or_insert_with(Instant::now).elapsed();
            if code != RDKafkaErrorCode::QueueFull || waited >= self.producer.timeout {
                return Err(self.unsent(code, &record));
            }
            if is_alone {
                return Err(self.producer.properties.says(Error::failed(format!(
                    "a record of {bytes} bytes to partition {} is larger than the producer's queue; enlarge the queue \
                     with -X queue.buffering.max.kbytes={}",
                    record.partition,
                    (bytes >> 10) + 1
                ))));
            }
            interrupt.check()?;
            is_alone = self.producer.inner.in_flight_count() == 0;
            self.poll();
            self.check_deliveries()?;
            if waited < BATCHES_FILL {
                std::thread::sleep(Duration::from_millis(1));
            } else {
                sys::flush(&self.producer.inner, Duration::from_millis(1));
            }
        }
        self.producer.extremes.take(&record);
        self.records += 1;
        self.bytes += bytes;
        failpoint::instant("after-send");
        Ok(())
    }

    fn check_deliveries(&self) -> Result<()> {
        self.producer.check_deliveries(self.begun)
    }

    fn unsent(&self, code: RDKafkaErrorCode, record: &Outgoing<'_>) -> Error {
        self.producer.pace.failed(self.bytes);
        if is_permanent(code) {
            let Producer { source, target, properties, .. } = self.producer;
            let told = Failed::local(code, record).sentence(source, target);
            return properties.says(Error::failed(told).because(Reason::RefusedRecords));
        }
        // These two say only that the transaction has failed, and no delivery may say why. So ask for what cannot be: in
        // a failed transaction, librdkafka begins none, and its answer is what failed
        // (`rd_kafka_txn_require_states0`). A denied AddPartitionsToTxn is such a failure.
        if matches!(code, RDKafkaErrorCode::State | RDKafkaErrorCode::Fatal) {
            let begin = |inner: &BaseProducer<Reports>| inner.begin_transaction();
            let why = self.producer.call("producing", self.producer.writing(), Some(self.begun), begin);
            if let Err(why) = why {
                return why;
            }
        }
        let err = KafkaError::MessageProduction(code);
        self.producer.classify("producing", self.producer.writing(), &err, Some(self.begun))
    }

    /// Handles delivery reports. The caller must call this from time to time.
    pub fn poll(&self) {
        self.producer.inner.poll(Duration::ZERO);
    }

    pub fn is_full(&self) -> bool {
        self.producer.pace.is_full(self.records, self.bytes)
    }

    /// Whether the transaction was open for long enough. The caller must ask from time to time.
    pub fn is_due(&self) -> bool {
        self.producer.pace.is_due(self.begun.elapsed())
    }

    /// Commits the records together with offsets of the topic `ledger`, each with its metadata. Calls `positions` for
    /// the offsets once the records are in the log.
    ///
    /// # Errors
    /// [`Error::Fenced`] by another run; [`Error::Restart`] if the outcome is unknown or the transaction cannot be
    /// committed; [`Error::Failed`] if another attempt cannot help, for example for a record that is too large; as
    /// `positions`.
    pub fn commit(
        self,
        ledger: &str,
        positions: impl FnOnce() -> Result<Vec<Position>>,
        group: &Arc<ConsumerGroupMetadata>,
    ) -> Result<()> {
        let began = Instant::now();
        let result = self.try_commit(ledger, positions, group);
        match &result {
            Ok(()) => self.producer.pace.committed(self.bytes, began.elapsed()),
            Err(_) => self.producer.pace.failed(self.bytes),
        }
        result
    }

    fn try_commit(
        &self,
        ledger: &str,
        positions: impl FnOnce() -> Result<Vec<Position>>,
        group: &Arc<ConsumerGroupMetadata>,
    ) -> Result<()> {
        let (producer, begun, timeout) = (self.producer, Some(self.begun), self.producer.timeout);
        // If nobody will try again, the open transaction should not block readers until it times out.
        let abort_if_final = |err: &Error| {
            if matches!(err, Error::Failed(_) | Error::Refused(_)) {
                let _ = producer.abort(begun);
            }
        };
        self.drain().inspect_err(abort_if_final)?;
        let group = group.clone();
        positions()
            .and_then(|positions| {
                failpoint::outcome()?;
                failpoint::instant("before-send-offsets");
                assert!(!positions.is_empty(), "no offsets to commit for {ledger}");
                // The coordinator writes those of one request as one batch, by default of at most 1 MiB.
                positions.chunks(TOGETHER).try_for_each(|some| {
                    let (list, group) = (offsets(ledger, some)?, group.clone());
                    producer.call("send_offsets_to_transaction", ("Read", ledger), begun, move |inner| {
                        inner.send_offsets_to_transaction(&list, &group, timeout)
                    })
                })
            })
            .and_then(|()| {
                failpoint::instant("after-send-offsets");
                producer.call("commit_transaction", producer.writing(), begun, move |inner| {
                    inner.commit_transaction(timeout)
                })
            })
            .inspect_err(abort_if_final)?;
        failpoint::instant("after-commit");
        if !failpoint::breaks(Rule::ReplaceProducer) {
            producer.spent.replace(producer.inner.context().take_lost());
        }
        Ok(())
    }

    /// # Errors
    /// As [`Transaction::commit`].
    pub fn abort(self) -> Result<()> {
        self.producer.abort(Some(self.begun))
    }

    /// Aborts because the run ends with the error `result`, and returns that error. It returns another error only if
    /// `result` promises the abort and the abort failed.
    ///
    /// # Errors
    /// `result`; [`Error::Failed`] if `result` is [`Error::Interrupted`] and the abort failed.
    pub fn abort_after(self, result: Result<()>) -> Result<()> {
        match (self.abort(), result) {
            // The run that took over the id has ended the transaction.
            (Ok(()) | Err(Error::Fenced(_)), result) => result,
            (Err(err), Err(Error::Interrupted)) => Err(Error::failed(format!(
                "interrupted, but could not abort the open transaction ({err}): the broker aborts it within {} s, or \
                 the next run does at once",
                TRANSACTION_TIMEOUT.as_secs()
            ))),
            (Err(err), result) => {
                tracing::warn!("could not abort the open transaction, so the next run aborts it: {err}");
                result
            }
        }
    }

    /// Waits until all records are in the log. `rdkafka`'s own flush, also the one in its commit, waits in steps of
    /// 100 ms, and its polls spin below a millisecond. If a record was refused, this fails at once, since librdkafka
    /// never sends the records behind it.
    fn drain(&self) -> Result<()> {
        let deadline = Instant::now() + self.producer.timeout;
        // Sleep between the flushes: during a flush, the client's thread spins (see `linger.ms`).
        while !sys::flush(&self.producer.inner, Duration::from_millis(1)) && Instant::now() < deadline {
            self.poll();
            self.check_deliveries()?;
            std::thread::sleep(Duration::from_millis(2));
        }
        self.check_deliveries()
    }
}

/// Whether an abort failed because there is nothing to abort. librdkafka calls this error fatal, and keeps the reason of
/// a fatal error elsewhere.
fn is_not_open(producer: &BaseProducer<Reports>, err: &KafkaError) -> bool {
    let fatal = producer.client().fatal_error().map(|(code, _)| code);
    [err.rdkafka_error_code(), fatal].contains(&Some(RDKafkaErrorCode::InvalidTransactionalState))
}

fn is_fenced(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch
    )
}
