//! Makes admin requests through a consumer that exists already.

use std::collections::HashMap;
use std::ffi::{CString, c_char};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;
use rdkafka_sys as ffi;

use super::string;

/// The configurations of topics, in the topics' order: property names to values, without secret ones.
///
/// # Errors
/// librdkafka's code, for example `TopicAuthorizationFailed` or `OperationTimedOut`.
pub(crate) fn topic_configurations<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topics: &[&str],
    timeout: Duration,
) -> Result<Vec<HashMap<String, String>>, RDKafkaErrorCode> {
    configurations(client, ffi::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC, topics, timeout)
}

/// The configuration of a broker, like [`topic_configurations`].
///
/// # Errors
/// librdkafka's code, for example `ClusterAuthorizationFailed` or `OperationTimedOut`.
pub(crate) fn broker_configuration<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    broker: i32,
    timeout: Duration,
) -> Result<HashMap<String, String>, RDKafkaErrorCode> {
    let kind = ffi::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_BROKER;
    Ok(configurations(client, kind, &[&broker.to_string()], timeout)?.pop().unwrap_or_default())
}

fn configurations<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    kind: ffi::rd_kafka_ResourceType_t,
    names: &[&str],
    timeout: Duration,
) -> Result<Vec<HashMap<String, String>>, RDKafkaErrorCode> {
    let names: Result<Vec<CString>, _> = names.iter().map(|name| CString::new(*name)).collect();
    let names = names.map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
    let operation = ffi::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS;
    // SAFETY: the resources are made and destroyed here; the answer is copied out of the event.
    unsafe {
        let mut resources: Vec<_> =
            names.iter().map(|name| ffi::rd_kafka_ConfigResource_new(kind, name.as_ptr())).collect();
        let answer = ask(
            client,
            operation,
            timeout,
            |rk, options, queue| {
                ffi::rd_kafka_DescribeConfigs(rk, resources.as_mut_ptr(), resources.len(), options, queue);
            },
            |event| {
                let result = ffi::rd_kafka_event_DescribeConfigs_result(event);
                let mut count = 0;
                let described = ffi::rd_kafka_DescribeConfigs_result_resources(result, &mut count);
                (0..count).map(|index| configuration(*described.add(index))).collect()
            },
        );
        ffi::rd_kafka_ConfigResource_destroy_array(resources.as_mut_ptr(), resources.len());
        answer
    }
}

/// # Safety
/// `resource` belongs to a live answer.
unsafe fn configuration(
    resource: *const ffi::rd_kafka_ConfigResource_t,
) -> Result<HashMap<String, String>, RDKafkaErrorCode> {
    // SAFETY: the entries live as long as the answer.
    unsafe {
        check(ffi::rd_kafka_ConfigResource_error(resource))?;
        let mut count = 0;
        let entries = ffi::rd_kafka_ConfigResource_configs(resource, &mut count);
        let entry = |index| {
            let entry = *entries.add(index);
            let value = ffi::rd_kafka_ConfigEntry_value(entry);
            (!value.is_null()).then(|| (string(ffi::rd_kafka_ConfigEntry_name(entry)), string(value)))
        };
        Ok((0..count).filter_map(entry).collect())
    }
}

/// Makes one admin request, waits for its event, and reads the answer out of it. `rdkafka`'s admin client would need a
/// connection of its own, and 100 ms to end.
///
/// # Safety
/// `request` and `read` use their arguments only while they run.
pub(super) unsafe fn ask<C: ConsumerContext, T>(
    client: &BaseConsumer<C>,
    operation: ffi::rd_kafka_admin_op_t,
    timeout: Duration,
    request: impl FnOnce(*mut ffi::rd_kafka_t, *mut ffi::rd_kafka_AdminOptions_t, *mut ffi::rd_kafka_queue_t),
    read: impl FnOnce(*mut ffi::rd_kafka_event_t) -> Result<T, RDKafkaErrorCode>,
) -> Result<T, RDKafkaErrorCode> {
    let rk = client.client().native_ptr();
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: a live client; every object is made and destroyed here, in this order.
    unsafe {
        let options = ffi::rd_kafka_AdminOptions_new(rk, operation);
        let queue = ffi::rd_kafka_queue_new(rk);
        let mut text = [0 as c_char; 256];
        ffi::rd_kafka_AdminOptions_set_request_timeout(options, millis, text.as_mut_ptr(), text.len());
        request(rk, options, queue);
        let event = ffi::rd_kafka_queue_poll(queue, millis);
        let answer = if event.is_null() {
            Err(RDKafkaErrorCode::OperationTimedOut)
        } else {
            let answer = check(ffi::rd_kafka_event_error(event)).and_then(|()| read(event));
            ffi::rd_kafka_event_destroy(event);
            answer
        };
        ffi::rd_kafka_queue_destroy(queue);
        ffi::rd_kafka_AdminOptions_destroy(options);
        answer
    }
}

pub(super) fn check(code: RDKafkaRespErr) -> Result<(), RDKafkaErrorCode> {
    match code {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(code.into()),
    }
}
