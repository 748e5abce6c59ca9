//! The transactional producer: one transaction at a time, each call bounded by a deadline of our own.
//!
//! There is one way out of every failure whose outcome is not plainly known: drop the producer and do the
//! whole start-up again ([`Error::Restart`]). It costs a scan, and it needs no belief about what the
//! broken producer may still do: librdkafka has no client side of KIP-890, so an EndTxn that was delayed
//! can end a later transaction of the same producer (librdkafka#5423), but not one of the next epoch. Nor is
//! an answer enough: librdkafka sends a request again by itself when its connection is lost, and the first
//! one may still be on its way. So a producer that lost a connection ends its transaction and is replaced.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{CommitMode, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::base::error::{Error, Reason, Result, denied};
use crate::base::failpoint::{self, Rule};
use crate::base::interrupt::Interrupt;
use crate::kafka::client::{Isolation, TRANSACTION_TIMEOUT};
use crate::kafka::delivery::{Extremes, Failed, Told, is_permanent};
use crate::kafka::pace::Pace;
use crate::kafka::properties::Properties;
use crate::kafka::sys::{self, Outgoing, OutgoingTopic};

/// A producer that holds the transactional id's newest epoch, until another one takes it.
pub struct Producer {
    inner: Arc<BaseProducer<Told>>,
    transactional_id: String,
    /// The topic or the file that the records come from.
    source: String,
    /// The name of `topic`.
    target: String,
    topic: OutgoingTopic<Told>,
    /// Of the records of the open transaction.
    extremes: Extremes,
    /// How long one call may take.
    timeout: Duration,
    /// Why no further transaction may begin.
    spent: RefCell<Option<String>>,
    pace: Rc<Pace>,
}

/// An operation and the topic that it is on, as permissions have it.
type Needs<'a> = (&'static str, &'a str);

/// One open transaction. Commit and abort consume it; a drop leaves it to the next `init` to abort.
pub struct Transaction<'p> {
    producer: &'p Producer,
    /// Counts sleep too: what matters is how long the coordinator saw it open.
    begun: boot_time::Instant,
    records: usize,
    bytes: usize,
}

/// The bounds of how long one transactional call may take: below the transaction's own timeout, and enough
/// for a coordinator that is just being found.
const LONGEST_CALL: Duration = Duration::from_secs(30);
const SHORTEST_CALL: Duration = Duration::from_secs(5);

/// A queue that is full for longer may hold no full batch, so that nothing of it is sent before `linger.ms`.
const BATCHES_FILL: Duration = Duration::from_millis(20);

impl Producer {
    /// Makes the producer and initialises its transactions: a dead run's open transaction is aborted, a
    /// live run of the same id is fenced. No call waits longer than `patience`, nor than half a minute. `source` is
    /// the topic or the file that the records come from.
    ///
    /// # Errors
    /// [`Error::Refused`] without permission; [`Error::Restart`] where the coordinator does not answer.
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
        let inner =
            BaseProducer::from_config_and_context(&config, Told::default()).map_err(Properties::invalid)?;
        let timeout = patience.clamp(SHORTEST_CALL, LONGEST_CALL);
        let inner = Arc::new(inner);
        let producer = Producer {
            topic: OutgoingTopic::new(inner.clone(), topic)
                .ok_or_else(|| Error::usage(format!("`{topic}` cannot be a topic's name")))?,
            inner,
            transactional_id: transactional_id.to_owned(),
            source: source.to_owned(),
            target: topic.to_owned(),
            extremes: Extremes::default(),
            timeout,
            spent: RefCell::default(),
            pace: pace.clone(),
        };
        // librdkafka closes the connection that it began with once it knows the brokers, and without another
        // one looks for the coordinator half a second later (`rd_kafka_txn_coord_query`).
        let leader = producer.inner.client().fetch_watermarks(topic, 0, timeout);
        leader.map_err(|e| Error::kafka(format!("the leader of {topic}-0"), e))?;
        match producer.call("init_transactions", producer.writing(), None, move |inner| {
            inner.init_transactions(timeout)
        }) {
            Ok(()) => Ok(producer),
            // librdkafka goes on with it in the background, and may get an epoch after the next producer.
            Err(Error::Restart { why, .. }) => Err(Error::Restart { why, abandoned: true }),
            Err(err) => Err(err),
        }
    }

    /// # Errors
    /// As [`Transaction::commit`]; [`Error::Restart`] too where the last transaction saw a connection lost.
    pub fn begin(&self) -> Result<Transaction<'_>> {
        failpoint::instant("before-begin");
        if let Some(why) = self.spent.take() {
            return Err(Error::restart(format!(
                "the producer is replaced, since it lost a connection ({why})"
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
        self.call("abort_transaction", self.writing(), begun, move |inner| {
            match inner.abort_transaction(timeout) {
                // The coordinator knows of no transaction: it was ended before its first partition was added.
                Err(err) if is_not_open(inner, &err) => Ok(()),
                result => result,
            }
        })
    }

    /// Makes one blocking call on a thread of its own, polls meanwhile, and gives up on it after a deadline
    /// of our own, since librdkafka has been seen to ignore its own (librdkafka#5456, #5511). A call given
    /// up on keeps its thread and the producer, which nobody else uses any more.
    fn call(
        &self,
        name: &'static str,
        needs: Needs<'_>,
        begun: Option<boot_time::Instant>,
        call: impl Fn(&BaseProducer<Told>) -> std::result::Result<(), KafkaError> + Send + 'static,
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
                let _ = answer.send(result); // nobody listens once the deadline passed
            })
            .map_err(|e| Error::io("the thread for transactional calls", e))?;
        let mut pause = Duration::from_micros(100);
        loop {
            // Not in the poll: below a millisecond that one spins.
            let answer = answered.recv_timeout(pause);
            self.inner.poll(Duration::ZERO);
            pause = (pause * 2).min(Duration::from_millis(2));
            match answer {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(e)) => return Err(self.classify(name, needs, &e, begun)),
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(_) => {
                    return Err(Error::Restart {
                        why: format!("{name} did not answer in time").into(),
                        abandoned: true,
                    });
                }
            }
        }
    }

    /// What a call that writes needs.
    fn writing(&self) -> Needs<'_> {
        ("Write", &self.target)
    }

    fn classify(
        &self,
        step: &str,
        (operation, topic): Needs<'_>,
        err: &KafkaError,
        begun: Option<boot_time::Instant>,
    ) -> Error {
        let code = err.rdkafka_error_code();
        let delivery = self.inner.context().failed(&self.extremes);
        // Once fenced, librdkafka answers each call with a bare "fatal"; the reason is kept elsewhere.
        let fatal = self.inner.client().fatal_error().map(|(code, _)| code);
        if [code, fatal, delivery.as_ref().map(|d| d.code)].into_iter().flatten().any(is_fenced) {
            // The coordinator fences us for our own timeout as well, but not before that has passed.
            let timed_out = begun.is_some_and(|begun| begun.elapsed() >= TRANSACTION_TIMEOUT);
            return if timed_out {
                Error::restart(format!("{step}: the transaction outlived its timeout"))
            } else {
                Error::fenced(format!(
                    "another run took over the transactional id `{}`, and goes on with the work; this one wrote \
                     nothing after that",
                    self.transactional_id
                ))
            };
        }
        // A step tells what failed before it, too.
        let is_of_records = delivery.is_some() || err.to_string().contains("add partition");
        let (operation, topic) = if is_of_records { self.writing() } else { (operation, topic) };
        let sentence = |failed: &Failed| failed.sentence(&self.source, &self.target);
        match delivery.as_ref().map(|d| d.code).or(code) {
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
    /// As [`Transaction::commit`], where a delivery failed that would fail again.
    fn check_deliveries(&self, begun: boot_time::Instant) -> Result<()> {
        let told = self.inner.context();
        // Asked for each record: no lock where there is nothing to tell.
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
    /// Queues a record; where the queue is full, waits for room in it.
    ///
    /// # Errors
    /// As [`Transaction::commit`]; [`Error::Failed`] for a record that is larger than the queue; as
    /// [`Interrupt::check`] while it waits.
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
                return Err(Error::failed(format!(
                    "a record of {bytes} bytes to partition {} is more than the producer queues; raise it with -X \
                     queue.buffering.max.kbytes={}",
                    record.partition,
                    (bytes >> 10) + 1
                )));
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
            let Producer { source, target, .. } = self.producer;
            return Error::failed(Failed::local(code, record).sentence(source, target))
                .because(Reason::RefusedRecords);
        }
        let err = KafkaError::MessageProduction(code);
        self.producer.classify("producing", self.producer.writing(), &err, Some(self.begun))
    }

    /// Serves delivery reports; to be called now and then.
    pub fn poll(&self) {
        self.producer.inner.poll(Duration::ZERO);
    }

    pub fn is_full(&self) -> bool {
        self.producer.pace.is_full(self.records, self.bytes)
    }

    /// Whether it was open for long enough; to be asked now and then.
    pub fn is_due(&self) -> bool {
        self.producer.pace.is_due(self.begun.elapsed())
    }

    /// Commits the records together with offsets of `topic`, the source, each with its metadata. They are asked for
    /// when the records are in the log.
    ///
    /// # Errors
    /// [`Error::Fenced`] by another run; [`Error::Restart`] where the outcome is unknown or the transaction
    /// cannot be committed; [`Error::Failed`] where trying again cannot help (a record too large, say); as
    /// `positions`.
    pub fn commit(
        self,
        topic: &str,
        positions: impl FnOnce() -> Result<Vec<Position>>,
        group: &Arc<ConsumerGroupMetadata>,
    ) -> Result<()> {
        let began = Instant::now();
        let result = self.try_commit(topic, positions, group);
        match &result {
            Ok(()) => self.producer.pace.committed(self.bytes, began.elapsed()),
            Err(_) => self.producer.pace.failed(self.bytes),
        }
        result
    }

    fn try_commit(
        &self,
        topic: &str,
        positions: impl FnOnce() -> Result<Vec<Position>>,
        group: &Arc<ConsumerGroupMetadata>,
    ) -> Result<()> {
        let (producer, begun, timeout) = (self.producer, Some(self.begun), self.producer.timeout);
        // What will not be tried again should not block readers until it times out.
        let abort_if_final = |err: &Error| {
            if matches!(err, Error::Failed(_) | Error::Refused(_)) {
                let _ = producer.abort(begun);
            }
        };
        self.drain().inspect_err(abort_if_final)?;
        let group = group.clone();
        positions()
            .and_then(|positions| offsets(topic, &positions))
            .and_then(|list| {
                failpoint::outcome()?;
                failpoint::instant("before-send-offsets");
                producer.call("send_offsets_to_transaction", ("Read", topic), begun, move |inner| {
                    inner.send_offsets_to_transaction(&list, &group, timeout)
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

    /// Aborts on the way out with `result`, an error, which stays the reason unless it promised the abort.
    ///
    /// # Errors
    /// `result`; [`Error::Failed`] where it was [`Error::Interrupted`] and the abort failed.
    pub fn abort_after(self, result: Result<()>) -> Result<()> {
        match (self.abort(), result) {
            // Who took over the id has ended it.
            (Ok(()) | Err(Error::Fenced(_)), result) => result,
            (Err(err), Err(Error::Interrupted)) => Err(Error::failed(format!(
                "interrupted, and the open transaction was not aborted ({err}): the broker does that within {} s, or \
                 the next run at once",
                TRANSACTION_TIMEOUT.as_secs()
            ))),
            (Err(err), result) => {
                tracing::warn!("the open transaction was not aborted, and will be by the next run: {err}");
                result
            }
        }
    }

    /// `rdkafka`'s own flush, also the one in its commit, waits in steps of 100 ms, and its polls spin below
    /// a millisecond. What is behind a record that was refused is never sent, so that there is nothing to wait for.
    fn drain(&self) -> Result<()> {
        let deadline = Instant::now() + self.producer.timeout;
        // In between, nobody flushes: while one does, the client's thread spins (see `linger.ms`).
        while !sys::flush(&self.producer.inner, Duration::from_millis(1)) && Instant::now() < deadline {
            self.poll();
            self.check_deliveries()?;
            std::thread::sleep(Duration::from_millis(2));
        }
        self.check_deliveries()
    }
}

/// An offset that a transaction commits for its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    pub partition: i32,
    pub position: i64,
    pub metadata: String,
}

/// # Errors
/// [`Error::Failed`] where librdkafka refuses an offset, which none is known to be.
///
/// # Panics
/// Where there are none, or one that is no offset: to commit them would do nothing, and say that it did.
pub(crate) fn offsets(topic: &str, positions: &[Position]) -> Result<TopicPartitionList> {
    let what = |e| Error::kafka("the offsets to commit", e);
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for Position { partition, position, metadata } in positions {
        // librdkafka takes a list of invalid offsets, commits nothing, and says Ok.
        assert!(*position >= 0, "an invalid position for {topic}-{partition}");
        let mut element = list.add_partition(topic, *partition);
        element.set_offset(Offset::Offset(*position)).map_err(what)?;
        element.set_metadata(metadata);
    }
    assert!(list.count() > 0, "no offsets to commit for {topic}");
    Ok(list)
}

/// Commits positions as an ordinary consumer does, for [`Rule::OffsetsInTransaction`].
///
/// # Errors
/// As [`offsets`].
pub(crate) fn commit_outside(
    properties: &Properties,
    group: &str,
    topic: &str,
    positions: &[Position],
) -> Result<()> {
    let consumer = properties.consumer(group, Isolation::ReadCommitted)?;
    let _ = consumer.commit(&offsets(topic, positions)?, CommitMode::Sync);
    Ok(())
}

/// Whether the error of an abort says that there is nothing to abort. It is fatal to librdkafka, which keeps
/// the reason of a fatal error elsewhere.
fn is_not_open(producer: &BaseProducer<Told>, err: &KafkaError) -> bool {
    let fatal = producer.client().fatal_error().map(|(code, _)| code);
    [err.rdkafka_error_code(), fatal].contains(&Some(RDKafkaErrorCode::InvalidTransactionalState))
}

fn is_fenced(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch
    )
}
