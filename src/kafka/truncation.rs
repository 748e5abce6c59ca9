//! Finds out whether a leader's log was cut and has grown again since.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::base::error::{Error, Reason, Result};
use crate::base::interrupt::Interrupt;
use crate::kafka::client::{Isolation, Listener, REQUEST_TIMEOUT, close};
use crate::kafka::follow_mark::Checkpoint;
use crate::kafka::properties::Properties;

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
    let client = properties.consumer("replicator", Isolation::ReadUncommitted)?;
    let result = ask(&client, topic, &places, interrupt);
    close(&client);
    result.map_err(|err| properties.says(err))
}

fn ask(
    client: &BaseConsumer<Listener>,
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
    crate::kafka::sys::set_leader_epochs(
        &mut list,
        &places.iter().map(|(_, place)| place.epoch).collect::<Vec<_>>(),
    );
    let mut asked = false;
    let mut left: std::collections::BTreeSet<i32> = places.iter().map(|(partition, _)| *partition).collect();
    let started = Instant::now();
    while !left.is_empty() {
        interrupt.check()?;
        if started.elapsed() > REQUEST_TIMEOUT {
            return Err(Error::restart(format!("{}: no leader answered in time", what()))
                .because(Reason::Unreachable));
        }
        // A seek works only once the partitions are being fetched.
        if !asked && let Ok(answer) = client.seek_partitions(list.clone(), Duration::from_secs(1)) {
            asked = answer.elements().iter().all(|element| element.error().is_ok());
        }
        // Before the seek, an answer says nothing about the epochs.
        match client.poll(POLL) {
            Some(Ok(message)) if asked => {
                left.remove(&rdkafka::Message::partition(&message));
            }
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(partition))) if asked => {
                left.remove(&partition);
            }
            Some(Err(err)) if err.rdkafka_error_code() == Some(RDKafkaErrorCode::LogTruncation) => {
                return Err(lost(topic, &err.to_string()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The error that says so.
pub(crate) fn lost(topic: &str, why: &str) -> Error {
    Error::failed(format!(
        "{topic} lost records that were there: a leader's log was cut and has grown again ({why}); see whether unclean \
         leaders may be elected, and compare both topics with `replicator verify`"
    ))
    .because(Reason::LogLost)
}
