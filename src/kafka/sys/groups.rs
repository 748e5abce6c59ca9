//! Requests about consumer groups that `rdkafka` has no safe call for. This code makes no admin request to a group's
//! coordinator: if the coordinator dies meanwhile, an assertion in librdkafka ends the process (librdkafka#4605).

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka_sys as ffi;

use super::admin::ask;
use super::string;

/// The names of the consumer groups that this principal may describe, and the errors of brokers that did not list
/// theirs.
///
/// # Errors
/// librdkafka's code, if no broker answers.
pub(crate) fn groups<C: ConsumerContext>(
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

/// A consumer's generation (KIP-848: member epoch) in its group; `None` while it is not a member. The coordinator
/// accepts commits that name no member, no matter who sends them.
pub(crate) fn generation<C: ConsumerContext>(client: &BaseConsumer<C>) -> Option<i32> {
    // SAFETY: a live client; the metadata is made and destroyed here.
    unsafe {
        let metadata = ffi::rd_kafka_consumer_group_metadata(client.client().native_ptr());
        if metadata.is_null() {
            return None;
        }
        let generation = ffi::rd_kafka_consumer_group_metadata_generation_id(metadata);
        let member = string(ffi::rd_kafka_consumer_group_metadata_member_id(metadata));
        ffi::rd_kafka_consumer_group_metadata_destroy(metadata);
        (generation > 0 && !member.is_empty()).then_some(generation)
    }
}
