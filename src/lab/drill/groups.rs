//! The drill's own look at consumer groups: their names, the partitions of their members, and their positions.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};
use rdkafka::topic_partition_list::TopicPartitionListElem;

use super::topics::{Record, Topics, beginning, of};
use crate::base::error::Result;

const TIMEOUT: Duration = Duration::from_secs(10);

/// The groups of the job that copies `source` to `target`. With two clusters their names also hold a topic's id, which the
/// drill does not know.
///
/// # Errors
/// [`Error::Failed`](crate::base::error::Error::Failed) if a broker does not answer.
pub(super) fn of_job(topics: &Topics, source: &str, target: &str) -> Result<Vec<String>> {
    let reader = topics.reader("read_uncommitted")?;
    let list = reader.fetch_group_list(None, TIMEOUT).map_err(of("list of groups"))?;
    let end = format!("/{source}/{target}");
    let names = list.groups().iter().map(|group| group.name());
    Ok(names
        .filter(|name| name.starts_with("replicator/") && name.ends_with(&end))
        .map(str::to_owned)
        .collect())
}

/// The group that holds the job's positions, and the topic of whose partitions it holds them: the source or, between two
/// clusters, a ledger that names an id. `None` before that ledger is there.
///
/// # Errors
/// As [`of_job`].
pub(super) fn place(
    topics: &Topics,
    source: &str,
    target: &str,
    are_two: bool,
) -> Result<Option<(String, String)>> {
    if !are_two {
        return Ok(Some((format!("replicator/{source}/{target}"), source.to_owned())));
    }
    let ledger = ledgers(topics, source)?.into_iter().next();
    let group = |ledger: &str| {
        let (id, _) = ledger.strip_prefix("replicator.")?.split_once('.')?;
        Some(format!("replicator/{id}/{source}/{target}"))
    };
    Ok(ledger.and_then(|ledger| Some((group(&ledger)?, ledger))))
}

/// The topics in the target's cluster that hold the positions of a job.
///
/// # Errors
/// As [`of_job`].
pub(super) fn ledgers(topics: &Topics, source: &str) -> Result<Vec<String>> {
    topics.names("replicator.", &format!(".{source}.internal"))
}

/// The topic in which the coordinators keep all positions.
pub(super) const LOG: &str = "__consumer_offsets";

/// The partition and the position of a record of [`LOG`], if `group` committed it. Kafka's `OffsetCommitKey` has a version
/// of 0 or 1, the group, the topic, and the partition; `OffsetCommitValue` has a version and the offset.
pub(super) fn commit(record: &Record, group: &str) -> Option<(usize, i64)> {
    let mut key = record.key.as_deref()?;
    let mut take = |count: usize| {
        let (taken, left) = key.split_at_checked(count)?;
        key = left;
        Some(taken)
    };
    let version = u16::from_be_bytes(take(2)?.try_into().ok()?);
    let length = u16::from_be_bytes(take(2)?.try_into().ok()?);
    if version > 1 || take(usize::from(length))? != group.as_bytes() {
        return None;
    }
    let topic = u16::from_be_bytes(take(2)?.try_into().ok()?);
    take(usize::from(topic))?;
    let partition = u32::from_be_bytes(take(4)?.try_into().ok()?);
    // Without a value, the position was deleted.
    let offset = record.value.as_deref()?.get(2..10)?;
    Some((usize::try_from(partition).ok()?, i64::from_be_bytes(offset.try_into().ok()?)))
}

/// The topics that the members of a group have partitions of. It knows only members of the classic protocol.
///
/// # Errors
/// As [`of_job`].
pub(super) fn assigned_topics(topics: &Topics, group: &str) -> Result<BTreeSet<String>> {
    let reader = topics.reader("read_uncommitted")?;
    let list = reader.fetch_group_list(Some(group), TIMEOUT).map_err(of("look at a group"))?;
    let members = list.groups().iter().flat_map(|group| group.members());
    Ok(members.filter_map(|member| parse(member.assignment()?)).flatten().collect())
}

/// The topics of an assignment, as Kafka's `ConsumerProtocolAssignment` holds them: a version of 2 bytes, then an array
/// of names with their partitions.
fn parse(assignment: &[u8]) -> Option<Vec<String>> {
    let mut rest = assignment.get(2..)?;
    let mut take = |count: usize| {
        let (taken, left) = rest.split_at_checked(count)?;
        rest = left;
        Some(taken)
    };
    let topics = u32::from_be_bytes(take(4)?.try_into().ok()?);
    let mut names = Vec::new();
    for _ in 0..topics {
        let length = u16::from_be_bytes(take(2)?.try_into().ok()?);
        names.push(String::from_utf8(take(usize::from(length))?.to_vec()).ok()?);
        let partitions = u32::from_be_bytes(take(4)?.try_into().ok()?);
        take(4 * usize::try_from(partitions).ok()?)?;
    }
    Some(names)
}

/// Whether the group holds a position for each partition of `topic`.
///
/// # Errors
/// As [`of_job`].
pub(super) fn has_positions(topics: &Topics, group: &str, topic: &str, partitions: usize) -> Result<bool> {
    Ok(positions(topics, group, topic, partitions)?.iter().all(Option::is_some))
}

/// The positions that the group holds for the partitions of `topic`, with their metadata.
///
/// # Errors
/// As [`of_job`].
pub(super) fn positions(
    topics: &Topics,
    group: &str,
    topic: &str,
    partitions: usize,
) -> Result<Vec<Option<(i64, String)>>> {
    stable(&topics.reader_of(group)?, topic, partitions, TIMEOUT)
}

/// As [`positions`], with a reader of the group. A position whose transaction is still open makes librdkafka ask again.
///
/// # Errors
/// As [`of_job`].
pub(super) fn stable(
    reader: &BaseConsumer<DefaultConsumerContext>,
    topic: &str,
    partitions: usize,
    timeout: Duration,
) -> Result<Vec<Option<(i64, String)>>> {
    let committed =
        reader.committed_offsets(beginning(topic, partitions)?, timeout).map_err(of("look at positions"))?;
    let position = |element: &TopicPartitionListElem<'_>| {
        let at = element.offset().to_raw().filter(|at| *at >= 0)?;
        Some((at, element.metadata().to_owned()))
    };
    let all = committed.elements().iter().map(position).collect();
    // A list that is alive when its consumer is dropped blocks that drop.
    drop(committed);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::{Record, commit, parse};

    #[test]
    fn reads_a_commit() {
        let record = |key: &[u8], value: Option<&[u8]>| Record {
            partition: 0,
            time: 0,
            key: Some(key.to_vec()),
            value: value.map(<[u8]>::to_vec),
            headers: Vec::new(),
        };
        let (key, value) =
            (b"\0\x01\0\x01g\0\x02ab\0\0\0\x03", b"\0\x03\0\0\0\0\0\0\x01\x02\xff\xff\xff\xff");
        assert_eq!(commit(&record(key, Some(value)), "g"), Some((3, 258)));
        assert_eq!(commit(&record(key, Some(value)), "h"), None);
        assert_eq!(commit(&record(key, None), "g"), None);
        // The state of the group itself.
        assert_eq!(commit(&record(b"\0\x02\0\x01g", Some(value)), "g"), None);
    }

    #[test]
    fn reads_an_assignment() {
        let bytes = b"\0\x01\0\0\0\x02\0\x01a\0\0\0\x02\0\0\0\0\0\0\0\x01\0\x02bc\0\0\0\0\xff\xff\xff\xff";
        assert_eq!(parse(bytes), Some(vec!["a".to_owned(), "bc".to_owned()]));
        assert_eq!(parse(&bytes[..12]), None);
    }
}
