//! Admin requests about consumer groups that `rdkafka` has no safe call for.

use std::ffi::CString;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka_sys as ffi;

use super::{ask, check, string};

/// The names of the consumer groups, of those that this principal may describe; and the errors of brokers that
/// did not tell theirs.
///
/// # Errors
/// librdkafka's code, where no broker answers.
pub fn groups<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    timeout: Duration,
) -> Result<(Vec<String>, Vec<RDKafkaErrorCode>), RDKafkaErrorCode> {
    let operation = ffi::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPS;
    // SAFETY: the answer is copied out of the event.
    unsafe {
        ask(
            client,
            operation,
            timeout,
            |rk, options, queue| ffi::rd_kafka_ListConsumerGroups(rk, options, queue),
            |event| {
                let result = ffi::rd_kafka_event_ListConsumerGroups_result(event);
                let mut count = 0;
                let listed = ffi::rd_kafka_ListConsumerGroups_result_valid(result, &mut count);
                let name = |index| string(ffi::rd_kafka_ConsumerGroupListing_group_id(*listed.add(index)));
                let names = (0..count).map(name).collect();
                let mut count = 0;
                let failed = ffi::rd_kafka_ListConsumerGroups_result_errors(result, &mut count);
                let code = |index| ffi::rd_kafka_error_code(*failed.add(index)).into();
                Ok((names, (0..count).map(code).collect()))
            },
        )
    }
}

/// The offsets that a group has committed on `asked`: partition and offset, where there is one.
///
/// # Errors
/// librdkafka's code, `GroupAuthorizationFailed` among them.
pub fn committed_offsets<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    group: &str,
    asked: &TopicPartitionList,
    timeout: Duration,
) -> Result<Vec<(i32, i64)>, RDKafkaErrorCode> {
    let name = CString::new(group).map_err(|_| RDKafkaErrorCode::InvalidGroupId)?;
    let operation = ffi::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS;
    // SAFETY: the request copies the name and the list, and is made and destroyed here; the answer is copied
    // out of the event, whose list has `cnt` elements.
    unsafe {
        let mut request = ffi::rd_kafka_ListConsumerGroupOffsets_new(name.as_ptr(), asked.ptr());
        let answer = ask(
            client,
            operation,
            timeout,
            |rk, options, queue| {
                ffi::rd_kafka_ListConsumerGroupOffsets(rk, &mut request, 1, options, queue);
            },
            |event| {
                let result = ffi::rd_kafka_event_ListConsumerGroupOffsets_result(event);
                let mut count = 0;
                let groups = ffi::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &mut count);
                if groups.is_null() || count == 0 {
                    return Ok(Vec::new());
                }
                check(ffi::rd_kafka_error_code(ffi::rd_kafka_group_result_error(*groups)))?;
                let list = ffi::rd_kafka_group_result_partitions(*groups);
                if list.is_null() {
                    return Ok(Vec::new());
                }
                let mut offsets = Vec::new();
                for index in 0..usize::try_from((*list).cnt).unwrap_or(0) {
                    let element = &*(*list).elems.add(index);
                    check(element.err)?;
                    if element.offset >= 0 {
                        offsets.push((element.partition, element.offset));
                    }
                }
                Ok(offsets)
            },
        );
        ffi::rd_kafka_ListConsumerGroupOffsets_destroy(request);
        answer
    }
}
