//! Asks for the largest timestamp of each partition (ListOffsets with -3, KIP-734).

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka_sys as ffi;

use super::admin::ask;
use crate::base::range::id;

/// A record, or a transaction's marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamped {
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
}

/// The record with the largest timestamp in each partition, by the partition's number; `None` if its leader names none.
/// A broker older than 3.0 understands -3 as a time, and names the partition's first record instead.
///
/// # Errors
/// librdkafka's code, for example `OperationTimedOut`.
pub(crate) fn largest_timestamps<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    partitions: usize,
    timeout: Duration,
) -> Result<Vec<Option<Stamped>>, RDKafkaErrorCode> {
    let mut asked = TopicPartitionList::with_capacity(partitions);
    for partition in 0..partitions {
        asked.add_partition(topic, id(partition));
    }
    // SAFETY: the list lives through the call, which copies it; the answer is copied out of the event.
    unsafe {
        let elements = asked.ptr();
        for index in 0..partitions {
            // `rdkafka` has no name for this offset.
            (*(*elements).elems.add(index)).offset =
                ffi::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_MAX_TIMESTAMP as i64;
        }
        ask(
            client,
            ffi::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS,
            timeout,
            |rk, options, queue| ffi::rd_kafka_ListOffsets(rk, elements, options, queue),
            |event| {
                let result = ffi::rd_kafka_event_ListOffsets_result(event);
                let mut count = 0;
                let infos = ffi::rd_kafka_ListOffsets_result_infos(result, &mut count);
                let mut found = vec![None; partitions];
                for index in 0..count {
                    let info = *infos.add(index);
                    let element = &*ffi::rd_kafka_ListOffsetsResultInfo_topic_partition(info);
                    let timestamp = ffi::rd_kafka_ListOffsetsResultInfo_timestamp(info);
                    let is_there = element.err == ffi::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
                        && element.offset >= 0
                        && timestamp >= 0;
                    let slot = usize::try_from(element.partition).ok().and_then(|p| found.get_mut(p));
                    if let (Some(slot), true) = (slot, is_there) {
                        *slot = Some(Stamped { offset: element.offset, timestamp });
                    }
                }
                Ok(found)
            },
        )
    }
}
