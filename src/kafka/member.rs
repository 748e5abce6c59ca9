//! A member of the job's consumer group, for `--scale-out` and `--follow`. It knows which partitions this instance has, and holds the
//! proof for the coordinator (KIP-447).
//!
//! The member joins with a consumer of its own, which a thread polls and which reads nothing. It takes the partitions
//! and the group metadata for commits as a pair, of one generation. With metadata of a later generation, a transaction
//! could commit records that were read under an earlier one, of partitions that another instance has by now.
//!
//! The member gives up no partition before the work on it has ended. The epoch alone does not protect against late
//! commits: by KIP-848, a member keeps its epoch while it still has partitions to give up, so it could still commit
//! those that it gave up first.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::{ClientContext, TopicPartitionList};

use crate::base::error::{Error, Result, Why};
use crate::base::interrupt::Interrupt;
use crate::kafka::client::close;
use crate::kafka::properties::Properties;
use crate::kafka::sys::groups as sys;

/// The partitions that the group gave to this instance, and the membership for which it did so. The group gets them
/// back only when the share is dropped, or a minute has passed.
pub(crate) struct Share {
    /// Empty if there are more instances than partitions.
    pub partitions: BTreeSet<i32>,
    pub generation: i32,
    pub group: Arc<ConsumerGroupMetadata>,
    _work: Work,
}

/// While this value lives, the main thread may commit under its share.
struct Work(Arc<AtomicBool>);

impl Work {
    fn begin(is_at_work: &Arc<AtomicBool>) -> Work {
        is_at_work.store(true, Ordering::SeqCst);
        Work(is_at_work.clone())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// Stays a member until it is dropped.
pub(crate) struct Member {
    properties: Properties,
    consumer: Arc<BaseConsumer<Rebalances>>,
    is_ended: Arc<AtomicBool>,
    poll: Option<JoinHandle<()>>,
}

const POLL: Duration = Duration::from_millis(50);
/// How long an instance waits for the group's first assignment. A group without members waits three seconds for more of
/// them (`group.initial.rebalance.delay.ms`).
const FIRST_ASSIGNMENT: Duration = Duration::from_secs(5);
/// How long the group must wait for the work on partitions that it takes away. This is longer than any transactional
/// call, and shorter than the group's own patience (`max.poll.interval.ms`, five minutes).
const LONGEST_WAIT: Duration = Duration::from_secs(60);

impl Member {
    /// Joins the group `name` for the partitions of `ledger`, the topic whose offsets it commits.
    ///
    /// # Errors
    /// [`Error::Usage`] names a property that librdkafka refuses.
    pub(crate) fn join(
        properties: &Properties,
        name: &str,
        ledger: &str,
        interrupt: &Interrupt,
    ) -> Result<Member> {
        let rebalances = Rebalances {
            group: name.to_owned(),
            ledger: ledger.to_owned(),
            interrupt: interrupt.clone(),
            is_at_work: Arc::default(),
            state: Mutex::default(),
        };
        let consumer = Arc::new(properties.member(name, rebalances)?);
        let group = |e| properties.says(Error::kafka(format!("the group {name}"), e));
        consumer.subscribe(&[ledger]).map_err(group)?;
        let is_ended = Arc::new(AtomicBool::new(false));
        let (polled, until) = (consumer.clone(), is_ended.clone());
        let poll = std::thread::Builder::new()
            .name("member".into())
            .spawn(move || {
                while !until.load(Ordering::Relaxed) {
                    // Drop a record that came before its partition was paused.
                    if let Some(Err(err)) = polled.poll(POLL) {
                        let fatal = polled.client().fatal_error().map(|(_, why)| why);
                        polled.context().note(err, fatal);
                    }
                }
                close(&polled);
            })
            .map_err(|e| Error::io("the group's thread", e))?;
        Ok(Member { properties: properties.clone(), consumer, is_ended, poll: Some(poll) })
    }

    /// The newest assignment. When the group changes it, the work under it ends with [`Error::Reassigned`].
    ///
    /// # Errors
    /// [`Error::Refused`] if the group does not accept this instance, [`Error::Restart`] if it gives no assignment
    /// within `patience`, [`Error::Interrupted`].
    pub(crate) fn share(&self, patience: Duration, interrupt: &Interrupt) -> Result<Share> {
        let asked = Instant::now();
        let rebalances = self.consumer.context();
        loop {
            // From here on, a rebalance sets the flag, and waits for the work.
            interrupt.forget_reassigned();
            let work = Work::begin(&rebalances.is_at_work);
            let before = sys::generation(&self.consumer);
            let state = rebalances.state().clone();
            let group = self.consumer.group_metadata();
            if let Some(refusal) = state.refusal {
                return Err(self.properties.says(Error::Refused(refusal)));
            }
            let is_known = !state.is_rebalancing && (state.is_assigned || asked.elapsed() > FIRST_ASSIGNMENT);
            if let (Some(generation), Some(group), true) = (before, group, is_known)
                && sys::generation(&self.consumer) == before
                && !interrupt.is_reassigned()
            {
                let (partitions, group) = (state.partitions, Arc::new(group));
                return Ok(Share { partitions, generation, group, _work: work });
            }
            drop(work);
            if interrupt.is_set() {
                return Err(Error::Interrupted);
            }
            if asked.elapsed() > patience {
                // librdkafka looks for another coordinator, and reports nothing, if the broker does not know the protocol.
                let silent = match self.properties.is_given("group.protocol", "consumer") {
                    true => "no error was reported; before Kafka 4, brokers need group.protocol=classic",
                    false => "no error was reported",
                };
                let why = state.last_error.unwrap_or_else(|| silent.to_owned());
                let late =
                    Error::restart(format!("the group gave this instance no assignment in time: {why}"));
                return Err(self.properties.says(late));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Member {
    /// Leaves the group, so that the other instances get its partitions at once.
    fn drop(&mut self) {
        self.is_ended.store(true, Ordering::Relaxed);
        if let Some(poll) = self.poll.take() {
            let _ = poll.join();
        }
    }
}

struct Rebalances {
    group: String,
    ledger: String,
    interrupt: Interrupt,
    is_at_work: Arc<AtomicBool>,
    state: Mutex<State>,
}

#[derive(Clone, Default)]
struct State {
    partitions: BTreeSet<i32>,
    /// The group gave an assignment, perhaps an empty one.
    is_assigned: bool,
    /// The group is taking partitions away, or giving some.
    is_rebalancing: bool,
    /// An error that another try would not change.
    refusal: Option<Why>,
    /// The last other error.
    last_error: Option<String>,
}

impl Rebalances {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, err: KafkaError, fatal: Option<String>) {
        tracing::debug!("the group: {err}");
        let err = Error::of_group("joining the group", &self.group, &self.ledger, err);
        let mut state = self.state();
        match (fatal, err) {
            (Some(fatal), _) => {
                let why = format!("joining the group: {fatal}; see -X group.protocol and the like");
                state.refusal = Some(why.into());
            }
            (None, Error::Refused(why)) => state.refusal = Some(why),
            (None, err) => state.last_error = Some(err.to_string()),
        }
    }
}

impl ClientContext for Rebalances {
    fn log(&self, _level: rdkafka::config::RDKafkaLogLevel, fac: &str, message: &str) {
        tracing::debug!(target: "librdkafka", "{fac} {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", "{error}: {reason}");
    }
}

impl ConsumerContext for Rebalances {
    /// librdkafka calls this before it tells the group that the partitions are given up, so before another generation.
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        self.state().is_rebalancing = true;
        self.interrupt.reassign();
        if let Rebalance::Revoke(revoked) = rebalance {
            let since = Instant::now();
            while self.is_at_work.load(Ordering::SeqCst) && since.elapsed() < LONGEST_WAIT {
                std::thread::sleep(Duration::from_millis(1));
            }
            let mut state = self.state();
            for partition in partitions(revoked) {
                state.partitions.remove(&partition);
            }
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(assigned) = rebalance {
            // This consumer reads nothing: a run reads the partitions with a reader of its own.
            if let Err(err) = consumer.pause(assigned) {
                tracing::debug!("the group's consumer could not be paused: {err}");
            }
            let mut state = self.state();
            state.partitions.extend(partitions(assigned));
            state.is_assigned = true;
        }
        self.state().is_rebalancing = false;
        self.interrupt.reassign();
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<i32> {
    list.elements().iter().map(rdkafka::topic_partition_list::TopicPartitionListElem::partition).collect()
}
