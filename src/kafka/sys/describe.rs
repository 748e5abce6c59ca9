//! Asks the broker about a topic and the cluster, and about the rights of this principal there (KIP-430).

use std::ffi::{CString, c_char};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka_sys as ffi;

use super::admin::{ask, check};
use super::string;
use ffi::rd_kafka_AclOperation_t as Operation;
use ffi::rd_kafka_admin_op_t as Request;

/// What a principal may do with a topic or the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    pub read: bool,
    pub write: bool,
    pub describe: bool,
}

/// A topic, as its cluster knows it.
pub(crate) struct Description {
    /// In base64 (KIP-516). It changes when the topic is deleted and created again.
    pub id: String,
    /// `None` if the broker does not tell.
    pub access: Option<Access>,
}

/// # Errors
/// librdkafka's code, for example `UnknownTopicOrPartition` or `OperationTimedOut`.
pub(crate) fn topic<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Description, RDKafkaErrorCode> {
    let name = CString::new(topic).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
    let mut names: [*const c_char; 1] = [name.as_ptr()];
    // SAFETY: the collection is made and destroyed here; the answer is copied out of the event.
    unsafe {
        let topics = ffi::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1);
        let answer = ask(
            client,
            Request::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            timeout,
            |rk, options, queue| {
                with_operations(options);
                ffi::rd_kafka_DescribeTopics(rk, topics, options, queue);
            },
            |event| {
                let result = ffi::rd_kafka_event_DescribeTopics_result(event);
                let mut count = 0;
                let found = ffi::rd_kafka_DescribeTopics_result_topics(result, &mut count);
                if found.is_null() || count == 0 {
                    return Err(RDKafkaErrorCode::UnknownTopic);
                }
                check(ffi::rd_kafka_error_code(ffi::rd_kafka_TopicDescription_error(*found)))?;
                let id = ffi::rd_kafka_TopicDescription_topic_id(*found);
                let may = ffi::rd_kafka_TopicDescription_authorized_operations(*found, &mut count);
                Ok(Description { id: string(ffi::rd_kafka_Uuid_base64str(id)), access: access(may, count) })
            },
        );
        ffi::rd_kafka_TopicCollection_destroy(topics);
        answer
    }
}

/// What this principal may do with the cluster. If it may not describe the cluster, the broker lists only the groups
/// that it may describe, and does not say that there are others.
///
/// # Errors
/// librdkafka's code, if no broker answers.
pub(crate) fn access_to_cluster<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    timeout: Duration,
) -> Result<Option<Access>, RDKafkaErrorCode> {
    // SAFETY: the answer is copied out of the event.
    unsafe {
        ask(
            client,
            Request::RD_KAFKA_ADMIN_OP_DESCRIBECLUSTER,
            timeout,
            |rk, options, queue| {
                with_operations(options);
                ffi::rd_kafka_DescribeCluster(rk, options, queue);
            },
            |event| {
                let result = ffi::rd_kafka_event_DescribeCluster_result(event);
                let mut count = 0;
                let may = ffi::rd_kafka_DescribeCluster_result_authorized_operations(result, &mut count);
                Ok(access(may, count))
            },
        )
    }
}

/// # Safety
/// `options` are live, and of a request that has this option.
unsafe fn with_operations(options: *mut ffi::rd_kafka_AdminOptions_t) {
    // SAFETY: the caller's promise; an error is ours to destroy.
    unsafe {
        let error = ffi::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
        if !error.is_null() {
            ffi::rd_kafka_error_destroy(error);
        }
    }
}

/// # Safety
/// `operations` is null or points at `count` operations.
unsafe fn access(operations: *const Operation, count: usize) -> Option<Access> {
    if operations.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let may = |operation| unsafe { (0..count).any(|index| *operations.add(index) == operation) };
    Some(Access {
        read: may(Operation::RD_KAFKA_ACL_OPERATION_READ),
        write: may(Operation::RD_KAFKA_ACL_OPERATION_WRITE),
        describe: may(Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE),
    })
}
