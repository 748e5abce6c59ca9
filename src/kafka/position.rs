//! The offsets that a transaction commits for its group.

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::base::error::{Error, Result};
use crate::kafka::client::Isolation;
use crate::kafka::properties::Properties;

/// An offset that a transaction commits for its group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    pub partition: i32,
    pub position: i64,
    pub metadata: String,
}

/// # Errors
/// [`Error::Failed`] if librdkafka refuses an offset. We know of no offset that it refuses.
///
/// # Panics
/// If there are no positions, or one is not an offset. librdkafka would commit nothing, and report success.
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

/// Commits positions as an ordinary consumer does, to break `Rule::OffsetsInTransaction`.
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
