//! Requests about consumer groups that `rdkafka` has no safe call for. This code makes no admin request to a group's
//! coordinator: if the coordinator dies meanwhile, an assertion in librdkafka ends the process (librdkafka#4605).

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka_sys as ffi;

use super::admin::ask;
use super::string;

/// A consumer group, as its coordinator lists it.
pub(crate) struct Listed {
    pub name: String,
    /// False also if librdkafka does not know the state.
    pub is_without_members: bool,
}

/// The consumer groups that this principal may describe, and the errors of brokers that did not list theirs.
///
/// # Errors
/// librdkafka's code, if no broker answers.
pub(crate) fn groups<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    timeout: Duration,
) -> Result<(Vec<Listed>, Vec<RDKafkaErrorCode>), RDKafkaErrorCode> {
    use ffi::rd_kafka_consumer_group_state_t as State;
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
                let group = |index| {
                    let listed = *listed.add(index);
                    let name = string(ffi::rd_kafka_ConsumerGroupListing_group_id(listed));
                    let state = ffi::rd_kafka_ConsumerGroupListing_state(listed);
                    let without = [
                        State::RD_KAFKA_CONSUMER_GROUP_STATE_EMPTY,
                        State::RD_KAFKA_CONSUMER_GROUP_STATE_DEAD,
                    ];
                    Listed { name, is_without_members: without.contains(&state) }
                };
                let groups = (0..count).map(group).collect();
                let mut count = 0;
                let failed = ffi::rd_kafka_ListConsumerGroups_result_errors(result, &mut count);
                let code = |index| ffi::rd_kafka_error_code(*failed.add(index)).into();
                Ok((groups, (0..count).map(code).collect()))
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
