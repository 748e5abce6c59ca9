//! Committed offsets that say which job they belong to.

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::client::{Quiet, REQUEST_TIMEOUT};
use crate::cluster::{Cluster, Topic};
use crate::error::{Error, Result, denied};
use crate::interrupt::Interrupt;
use crate::range::{Range, id, index};
use crate::sys;

/// The metadata of a committed offset: the program, a format version, and a hash of all that decides
/// what "everything before this offset is done" means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    job: String,
    open: String,
    closed: String,
}

impl Fingerprint {
    /// A fingerprint of what is to be done, and of what was found where it is to be done.
    pub fn of(job: &[String], found: &[String]) -> Fingerprint {
        let job = format!("replicator/1 {}", hash(job));
        let closed = format!("{job}-{}", hash(found));
        Fingerprint { job, open: format!("{closed} open"), closed }
    }

    /// Of a position that was reached.
    pub fn open(&self) -> &str {
        &self.open
    }

    /// Of the end, once all that was written up to it was looked at.
    pub fn closed(&self) -> &str {
        &self.closed
    }

    pub fn is_of(&self, metadata: &str) -> bool {
        metadata == self.open || metadata == self.closed
    }

    /// Whether it is of the same job, whatever was found.
    pub fn is_of_job(&self, metadata: &str) -> bool {
        metadata.starts_with(&self.job)
    }

    /// Whether nothing is left to do of what `range` was when its start was looked up: by the group's committed
    /// offsets, to its end, and looked at.
    pub fn is_done(&self, range: &Range, committed: &[Option<Committed>]) -> bool {
        match &committed[index(range.partition)] {
            Some(c) if c.metadata == self.open => false,
            Some(c) if c.metadata == self.closed => c.position.max(range.start) >= range.end,
            _ => range.is_empty(),
        }
    }
}

/// Each part is told apart from its neighbours.
fn hash(parts: &[String]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

/// A committed offset as the group holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub position: i64,
    pub metadata: String,
}

/// The group's committed offsets of each of the topic's partitions. An offset that an open transaction is
/// about to commit is waited for (KIP-447's stable offsets, since the client is read_committed).
///
/// # Errors
/// [`Error::Failed`] where the group's coordinator does not answer, [`Error::Refused`] without permission.
pub fn committed(cluster: &Cluster, topic: &Topic, interrupt: &Interrupt) -> Result<Vec<Option<Committed>>> {
    of(&cluster.committed, topic, interrupt)
}

/// [`committed`], of the client's group.
///
/// # Errors
/// As [`committed`].
pub fn of(
    client: &BaseConsumer<Quiet>,
    topic: &Topic,
    interrupt: &Interrupt,
) -> Result<Vec<Option<Committed>>> {
    let started = Instant::now();
    let what = || format!("the committed offsets of {}", topic.name);
    let mut asked = TopicPartitionList::with_capacity(topic.partitions);
    for partition in 0..topic.partitions {
        asked.add_partition(&topic.name, id(partition));
    }
    let answer = loop {
        match client.committed_offsets(asked.clone(), Duration::from_secs(1)) {
            Ok(answer) => break answer,
            Err(err) if err.rdkafka_error_code() != Some(RDKafkaErrorCode::OperationTimedOut) => {
                return Err(Error::kafka(what(), err));
            }
            Err(err) => {
                // Why the group's coordinator is not found is told on the consumer's queue alone.
                while let Some(told) = client.poll(Duration::ZERO) {
                    told.map(drop).or_else(|told| match told.rdkafka_error_code().and_then(denied) {
                        Some(_) => Err(Error::kafka(what(), told)),
                        None => Ok(()),
                    })?;
                }
                interrupt.check()?;
                if started.elapsed() > REQUEST_TIMEOUT * 3 {
                    return Err(Error::kafka(what(), err));
                }
            }
        }
    };
    let mut found = vec![None; topic.partitions];
    for (element, metadata) in answer.elements().iter().zip(sys::offset_metadata(&answer)) {
        element.error().map_err(|e| Error::kafka(what(), e))?;
        if let Offset::Offset(position) = element.offset() {
            // Bytes that are not UTF-8 are not ours.
            let metadata = String::from_utf8(metadata).unwrap_or_default();
            found[index(element.partition())] = Some(Committed { position, metadata });
        }
    }
    Ok(found)
}
