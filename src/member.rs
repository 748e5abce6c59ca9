//! A member of the job's consumer group, for `--scale-out`: which partitions are this instance's, and what
//! proves it to the coordinator (KIP-447).
//!
//! It joins by a consumer of its own, which a thread polls and which reads nothing. The partitions and the group
//! metadata that is committed with are taken as a pair, of one generation: metadata of a later one would let a
//! transaction commit what was read under an earlier one, of partitions that are another instance's by now.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::{ClientContext, TopicPartitionList};

use crate::client::{Properties, close};
use crate::error::{Error, Result, denied};
use crate::interrupt::Interrupt;
use crate::sys::groups as sys;

/// The partitions that the group gave to this instance, and the membership that it did so under.
pub struct Share {
    /// May be none: there are more instances than partitions.
    pub partitions: BTreeSet<i32>,
    pub group: Arc<ConsumerGroupMetadata>,
}

/// Stays a member until it is dropped.
pub struct Member {
    consumer: Arc<BaseConsumer<Rebalances>>,
    is_ended: Arc<AtomicBool>,
    poll: Option<JoinHandle<()>>,
}

const POLL: Duration = Duration::from_millis(50);
/// How long an instance waits for the group's first word; a group that knows none waits three seconds for more
/// (`group.initial.rebalance.delay.ms`).
const FIRST_WORD: Duration = Duration::from_secs(5);

impl Member {
    /// Joins the group `name` for `topic`.
    ///
    /// # Errors
    /// [`Error::Usage`] names a property that librdkafka refuses.
    pub fn join(properties: &Properties, name: &str, topic: &str, interrupt: &Interrupt) -> Result<Member> {
        let rebalances = Rebalances { interrupt: interrupt.clone(), state: Mutex::default() };
        let consumer = Arc::new(properties.member(name, rebalances)?);
        consumer.subscribe(&[topic]).map_err(|e| Error::kafka(format!("the group {name}"), e))?;
        let is_ended = Arc::new(AtomicBool::new(false));
        let (polled, until) = (consumer.clone(), is_ended.clone());
        let poll = std::thread::Builder::new()
            .name("member".into())
            .spawn(move || {
                while !until.load(Ordering::Relaxed) {
                    // A record that came before its partition was paused is dropped.
                    if let Some(Err(err)) = polled.poll(POLL) {
                        polled.context().heard(err);
                    }
                }
                close(&polled);
            })
            .map_err(|e| Error::io("the group's thread", e))?;
        Ok(Member { consumer, is_ended, poll: Some(poll) })
    }

    /// The newest assignment. What is done under it ends with [`Error::Reassigned`] once it is an old one.
    ///
    /// # Errors
    /// [`Error::Refused`] without permission for the group, [`Error::Restart`] where the group is not to be joined
    /// within `patience`, [`Error::Interrupted`].
    pub fn share(&self, patience: Duration, interrupt: &Interrupt) -> Result<Share> {
        let asked = Instant::now();
        loop {
            // From here on, whatever moves is told.
            interrupt.forget_reassigned();
            let generation = sys::generation(&self.consumer);
            let state = self.consumer.context().state().clone();
            let group = self.consumer.group_metadata();
            if let Some(refusal) = state.refusal {
                return Err(Error::Refused(refusal));
            }
            let is_known = state.is_told || asked.elapsed() > FIRST_WORD;
            if let (Some(_), Some(group), true) = (generation, group, is_known)
                && sys::generation(&self.consumer) == generation
                && !interrupt.is_reassigned()
            {
                return Ok(Share { partitions: state.partitions, group: Arc::new(group) });
            }
            std::thread::sleep(Duration::from_millis(10));
            if interrupt.is_set() {
                return Err(Error::Interrupted);
            }
            if asked.elapsed() > patience {
                return Err(Error::restart("the group gave this instance no assignment in time"));
            }
        }
    }
}

impl Drop for Member {
    /// Leaves the group, so that the others are given its partitions at once.
    fn drop(&mut self) {
        self.is_ended.store(true, Ordering::Relaxed);
        if let Some(poll) = self.poll.take() {
            let _ = poll.join();
        }
    }
}

struct Rebalances {
    interrupt: Interrupt,
    state: Mutex<State>,
}

#[derive(Clone, Default)]
struct State {
    partitions: BTreeSet<i32>,
    /// The group gave an assignment, if an empty one.
    is_told: bool,
    refusal: Option<String>,
}

impl Rebalances {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self, err: KafkaError) {
        tracing::debug!("the group: {err}");
        if err.rdkafka_error_code().and_then(denied).is_some() {
            self.state().refusal = Some(Error::kafka("joining the group", err).to_string());
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
    /// Before librdkafka tells the group that the partitions are given up, and so before another generation.
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        self.interrupt.reassign();
        if let Rebalance::Revoke(revoked) = rebalance {
            let mut state = self.state();
            for partition in partitions(revoked) {
                state.partitions.remove(&partition);
            }
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(assigned) = rebalance {
            // What is read of them is read elsewhere.
            if let Err(err) = consumer.pause(assigned) {
                tracing::debug!("the group's own consumer goes on reading: {err}");
            }
            let mut state = self.state();
            state.partitions.extend(partitions(assigned));
            state.is_told = true;
        }
        self.interrupt.reassign();
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<i32> {
    list.elements().iter().map(rdkafka::topic_partition_list::TopicPartitionListElem::partition).collect()
}
