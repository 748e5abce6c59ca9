//! Asks for the offsets that a group committed, with their metadata.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::base::error::{Error, Reason, Result, denied};
use crate::base::interrupt::Interrupt;
use crate::base::range::{id, index};
use crate::kafka::client::Listener;
use crate::kafka::cluster::Cluster;
use crate::kafka::mark::Committed;
use crate::kafka::sys;

/// How long to wait for the group's coordinator, and for the transaction that is about to commit an offset.
const LONGEST: Duration = Duration::from_secs(30);

/// The group's committed offset of each of the topic's `partitions`. If an open transaction is about to commit an offset,
/// this waits for it (KIP-447's stable offsets, since the client is read_committed).
///
/// # Errors
/// [`Error::Restart`] if the group's coordinator does not answer, [`Error::Refused`] without permission.
pub(crate) fn committed(
    cluster: &Cluster,
    (topic, partitions): (&str, usize),
    interrupt: &Interrupt,
) -> Result<Vec<Option<Committed>>> {
    let started = Instant::now();
    of(&cluster.committed, &cluster.group, (topic, partitions), interrupt).map_err(|err| {
        let is_late = matches!(err, Error::Restart { .. }) && started.elapsed() >= LONGEST;
        let err = if is_late { hanging(cluster, topic) } else { err };
        cluster.properties().says(err)
    })
}

/// As [`committed`], but without waiting for an open transaction, which may be that of a dead run.
///
/// # Errors
/// As [`committed`].
pub(crate) fn now(
    cluster: &Cluster,
    (topic, partitions): (&str, usize),
    interrupt: &Interrupt,
) -> Result<Vec<Option<Committed>>> {
    of(&cluster.uncommitted, &cluster.group, (topic, partitions), interrupt)
        .map_err(|err| cluster.properties().says(err))
}

/// After a broker's death, the coordinator of transactions may take a transaction for committed although it wrote no
/// marker. Then the group's coordinator never gives stable offsets.
fn hanging(cluster: &Cluster, topic: &str) -> Error {
    let (group, properties) = (&cluster.group, cluster.properties());
    let find = |topic| {
        let words = ["find-hanging", "--topic", topic, "--max-transaction-timeout", "1"];
        properties.tool("kafka-transactions.sh", &words)
    };
    let abort = ["abort", "--topic", "TOPIC", "--partition", "PARTITION", "--start-offset", "OFFSET"];
    let delete = ["--delete-offsets", "--group", group, "--topic", topic];
    Error::restart(format!(
        "the coordinator of group {group} did not give its committed offsets within {} s: it is away, or a transaction of \
         this job hangs. If this lasts while all brokers are up, find the transaction:\n  {}\n  {}\nabort it in each partition \
         that is named, with the values that are shown for TOPIC, PARTITION and OFFSET:\n  {}\nand delete the job's \
         offsets, so that the next run scans the target:\n  {}",
        LONGEST.as_secs(),
        find(topic),
        find("__consumer_offsets"),
        properties.tool("kafka-transactions.sh", &abort),
        properties.tool("kafka-consumer-groups.sh", &delete)
    ))
    .because(Reason::Unreachable)
}

/// [`committed`], for the client's `group`.
///
/// # Errors
/// As [`committed`].
pub(crate) fn of(
    client: &BaseConsumer<Listener>,
    group: &str,
    (topic, partitions): (&str, usize),
    interrupt: &Interrupt,
) -> Result<Vec<Option<Committed>>> {
    let started = Instant::now();
    let what = || format!("the committed offsets of {topic}");
    let mut asked = TopicPartitionList::with_capacity(partitions);
    for partition in 0..partitions {
        asked.add_partition(topic, id(partition));
    }
    let answer = loop {
        match client.committed_offsets(asked.clone(), Duration::from_secs(1)) {
            Ok(answer) => break answer,
            Err(err) if err.rdkafka_error_code() != Some(RDKafkaErrorCode::OperationTimedOut) => {
                return Err(Error::of_group(what(), group, topic, err));
            }
            Err(err) => {
                // Only the consumer's queue tells why the client does not find the group's coordinator.
                while let Some(event) = client.poll(Duration::ZERO) {
                    event.map(drop).or_else(|err| match err.rdkafka_error_code().and_then(denied) {
                        Some(_) => Err(Error::of_group(what(), group, topic, err)),
                        None => Ok(()),
                    })?;
                }
                interrupt.check()?;
                if started.elapsed() >= LONGEST {
                    return Err(Error::kafka(what(), err));
                }
            }
        }
    };
    let mut found = vec![None; partitions];
    for (element, metadata) in answer.elements().iter().zip(sys::offset_metadata(&answer)) {
        element.error().map_err(|e| Error::of_group(what(), group, topic, e))?;
        if let Offset::Offset(position) = element.offset() {
            // Our own metadata is always UTF-8.
            let metadata = String::from_utf8(metadata).unwrap_or_default();
            found[index(element.partition())] = Some(Committed { position, metadata });
        }
    }
    Ok(found)
}
