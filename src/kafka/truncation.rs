//! Finds out whether a leader's log was cut and has grown again since.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::base::error::{Error, Reason, Result};
use crate::base::interrupt::Interrupt;
use crate::kafka::client::{Isolation, Listener, REQUEST_TIMEOUT, close};
use crate::kafka::follow_mark::Checkpoint;
use crate::kafka::properties::Properties;
use crate::kafka::sys::{self, ConsumerQueue, Event};

const POLL: Duration = Duration::from_millis(20);

/// Asks the leaders whether their logs still hold all that was below these places. A leader compares its own epochs with
/// the place's (`OffsetsForLeaderEpoch`, KIP-320); librdkafka asks it after a seek that names an epoch.
///
/// # Errors
/// [`Error::Failed`] if a log was cut; [`Error::Restart`] if a leader does not answer; as [`Interrupt::check`].
pub(crate) fn check(
    properties: &Properties,
    topic: &str,
    places: &[(i32, Checkpoint)],
    interrupt: &Interrupt,
) -> Result<()> {
    let places: Vec<_> =
        places.iter().filter(|(_, place)| place.epoch >= 0 && place.offset > 0).copied().collect();
    if places.is_empty() {
        return Ok(());
    }
    let client = Arc::new(properties.consumer("replicator", Isolation::ReadUncommitted)?);
    let result = ask(&client, topic, &places, interrupt);
    close(&client);
    result.map_err(|err| properties.says(err))
}

fn ask(
    client: &Arc<BaseConsumer<Listener>>,
    topic: &str,
    places: &[(i32, Checkpoint)],
    interrupt: &Interrupt,
) -> Result<()> {
    let what = || format!("the epochs of {topic}");
    let failed = |e| Error::on_topic(what(), "Read", topic, e);
    let mut list = TopicPartitionList::with_capacity(places.len());
    for (partition, place) in places {
        list.add_partition_offset(topic, *partition, Offset::Offset(place.offset)).map_err(failed)?;
    }
    client.assign(&list).map_err(failed)?;
    let epochs: Vec<i32> = places.iter().map(|(_, place)| place.epoch).collect();
    sys::set_leader_epochs(&mut list, &epochs);
    let queue = ConsumerQueue::new(client.clone())
        .ok_or_else(|| Error::failed("the consumer has no queue".to_owned()))?;
    let mut asked = false;
    let mut left: BTreeSet<i32> = places.iter().map(|(partition, _)| *partition).collect();
    let started = Instant::now();
    while !left.is_empty() {
        interrupt.check()?;
        if started.elapsed() > REQUEST_TIMEOUT {
            let late = Error::restart(format!("{}: no leader answered in time", what()));
            return Err(late.because(Reason::Unreachable));
        }
        // A seek works only once the partitions are being fetched. It drops the events from before it.
        if !asked && let Ok(answer) = client.seek_partitions(list.clone(), Duration::from_secs(1)) {
            asked = answer.elements().iter().all(|element| element.error().is_ok());
        }
        for event in queue.poll(POLL, 64).events() {
            match event {
                Event::Record(message) if asked => drop(left.remove(&message.partition())),
                Event::EndOfPartition { partition, .. } if asked => drop(left.remove(&partition)),
                Event::Error(code, reason) if is_truncation(code, &reason) => {
                    return Err(lost(topic, &reason));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Whether librdkafka reports that a leader's log does not reach a place. With `auto.offset.reset=error` it passes the code
/// on as `_AUTO_OFFSET_RESET`, and says only in words that it was a truncation (`rd_kafka_offset_reset`, and
/// `rd_kafka_toppar_handle_OffsetForLeaderEpoch`, in 2.12.1).
pub(crate) fn is_truncation(code: RDKafkaErrorCode, reason: &str) -> bool {
    let says_so = reason.contains("truncation") || reason.contains("No epoch found");
    code == RDKafkaErrorCode::LogTruncation || (code == RDKafkaErrorCode::AutoOffsetReset && says_so)
}

/// The error that says so.
pub(crate) fn lost(topic: &str, why: &str) -> Error {
    Error::failed(format!(
        "{topic} lost records that were there: a leader's log was cut and has grown again ({why}); see whether unclean \
         leaders may be elected, and compare both topics with `replicator verify`"
    ))
    .because(Reason::LogLost)
}
