//! A member of the job's consumer group, for `--scale-out`: which partitions are this instance's, and what
//! proves it to the coordinator (KIP-447).
//!
//! It joins by a consumer of its own, which a thread polls and which reads nothing. The partitions and the group
//! metadata that is committed with are taken as a pair, of one generation: metadata of a later one would let a
//! transaction commit what was read under an earlier one, of partitions that are another instance's by now.
//!
//! Partitions are not given up before the work on them has ended: by KIP-848, a member keeps its epoch where it is
//! to give up more of them than it has by then, so the epoch alone would let it commit the first ones still.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::{ClientContext, TopicPartitionList};

use crate::base::error::{Error, Result, denied};
use crate::base::interrupt::Interrupt;
use crate::kafka::client::close;
use crate::kafka::properties::Properties;
use crate::kafka::sys::groups as sys;

/// The partitions that the group gave to this instance, and the membership that it did so under. The group is not
/// given them back before it is dropped, or a minute has passed.
pub(crate) struct Share {
    /// May be none: there are more instances than partitions.
    pub partitions: BTreeSet<i32>,
    pub generation: i32,
    pub group: Arc<ConsumerGroupMetadata>,
    _work: Work,
}

/// While it lives, the main thread may commit under its share.
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
    consumer: Arc<BaseConsumer<Rebalances>>,
    is_ended: Arc<AtomicBool>,
    poll: Option<JoinHandle<()>>,
}

const POLL: Duration = Duration::from_millis(50);
/// How long an instance waits for the group's first word; a group that knows none waits three seconds for more
/// (`group.initial.rebalance.delay.ms`).
const FIRST_WORD: Duration = Duration::from_secs(5);
/// How long the group waits for the work on partitions that it takes away: longer than any transactional call, and
/// shorter than the group's own patience (`max.poll.interval.ms`, five minutes).
const LONGEST_WAIT: Duration = Duration::from_secs(60);

impl Member {
    /// Joins the group `name` for `topic`.
    ///
    /// # Errors
    /// [`Error::Usage`] names a property that librdkafka refuses.
    pub(crate) fn join(
        properties: &Properties,
        name: &str,
        topic: &str,
        interrupt: &Interrupt,
    ) -> Result<Member> {
        let rebalances =
            Rebalances { interrupt: interrupt.clone(), is_at_work: Arc::default(), state: Mutex::default() };
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
                        let fatal = polled.client().fatal_error().map(|(_, why)| why);
                        polled.context().heard(err, fatal);
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
    /// [`Error::Refused`] where the group does not take this instance, [`Error::Restart`] where it is not to be
    /// joined within `patience`, [`Error::Interrupted`].
    pub(crate) fn share(&self, patience: Duration, interrupt: &Interrupt) -> Result<Share> {
        let asked = Instant::now();
        let rebalances = self.consumer.context();
        loop {
            // From here on, whatever moves is told, and waits for the work.
            interrupt.forget_reassigned();
            let work = Work::begin(&rebalances.is_at_work);
            let before = sys::generation(&self.consumer);
            let state = rebalances.state().clone();
            let group = self.consumer.group_metadata();
            if let Some(refusal) = state.refusal {
                return Err(Error::refused(refusal));
            }
            let is_known = !state.is_moving && (state.is_told || asked.elapsed() > FIRST_WORD);
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
                let why = state.heard.unwrap_or_else(|| "no word of it".to_owned());
                return Err(Error::restart(format!(
                    "the group gave this instance no assignment in time: {why}"
                )));
            }
            std::thread::sleep(Duration::from_millis(10));
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
    is_at_work: Arc<AtomicBool>,
    state: Mutex<State>,
}

#[derive(Clone, Default)]
struct State {
    partitions: BTreeSet<i32>,
    /// The group gave an assignment, if an empty one.
    is_told: bool,
    /// The group is about to be given back partitions, or to give some.
    is_moving: bool,
    /// Trying again will not help.
    refusal: Option<String>,
    /// What went wrong last.
    heard: Option<String>,
}

impl Rebalances {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self, err: KafkaError, fatal: Option<String>) {
        tracing::debug!("the group: {err}");
        let is_denied = err.rdkafka_error_code().and_then(denied).is_some();
        let why = Error::kafka("joining the group", err).to_string();
        let mut state = self.state();
        match fatal {
            Some(fatal) => {
                state.refusal =
                    Some(format!("joining the group: {fatal}; see -X group.protocol and the like"));
            }
            None if is_denied => state.refusal = Some(why),
            None => state.heard = Some(why),
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
        self.state().is_moving = true;
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
            // What is read of them is read elsewhere.
            if let Err(err) = consumer.pause(assigned) {
                tracing::debug!("the group's own consumer goes on reading: {err}");
            }
            let mut state = self.state();
            state.partitions.extend(partitions(assigned));
            state.is_told = true;
        }
        self.state().is_moving = false;
        self.interrupt.reassign();
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<i32> {
    list.elements().iter().map(rdkafka::topic_partition_list::TopicPartitionListElem::partition).collect()
}
