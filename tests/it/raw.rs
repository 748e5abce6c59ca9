//! Records that no client library writes: a timestamp of 0, header keys that are not UTF-8.

use std::ffi::{CString, c_char, c_void};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ptr;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, CreateAclsRequest, CreateAclsResponse, DescribeAclsRequest, DescribeAclsResponse,
    MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader,
    TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record,
    RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use rdkafka::Offset;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka_sys as ffi;

use replicator::{EventTime, Interrupt, Isolation, Range, Reader, Reading};

use crate::kit::*;

const PRODUCE_VERSION: i16 = 9;

/// Writes one record to partition 0, with a produce request that this function makes itself.
pub(crate) fn produce_at(topic: &str, timestamp: i64, key: &str, value: &str) {
    let record = Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        timestamp_type: TimestampType::Creation,
        offset: 0,
        sequence: NO_SEQUENCE,
        timestamp,
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Default::default(),
    };
    let mut batch = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut batch, [&record], &options).expect("a batch");
    let data = PartitionProduceData::default().with_index(0).with_records(Some(batch.freeze()));
    let name = TopicName(StrBytes::from_string(topic.to_owned()));
    let topic = TopicProduceData::default().with_name(name).with_partition_data(vec![data]);
    let request =
        ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic]);
    let response: ProduceResponse = ask(broker(), ApiKey::Produce, PRODUCE_VERSION, &request);
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0, "{response:?}");
}

/// Sends one request on a new connection, and returns the answer.
fn ask<Q: Encodable + HeaderVersion, A: Decodable + HeaderVersion>(
    address: &str,
    key: ApiKey,
    version: i16,
    request: &Q,
) -> A {
    let header = RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_client_id(Some(StrBytes::from_static_str("raw")));
    let mut bytes = BytesMut::new();
    header.encode(&mut bytes, Q::header_version(version)).expect("a header");
    request.encode(&mut bytes, version).expect("a request");
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.write_all(&u32::try_from(bytes.len()).expect("small").to_be_bytes()).expect("sent");
    stream.write_all(&bytes).expect("sent");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("an answer");
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).expect("an answer");
    let mut answer = Bytes::from(answer);
    ResponseHeader::decode(&mut answer, A::header_version(version)).expect("a header");
    A::decode(&mut answer, version).expect("a response")
}

/// The id of a topic, as `kafka-topics.sh --describe` prints it.
pub(crate) fn topic_id(side: &Side, topic: &str) -> String {
    let name = TopicName(StrBytes::from_string(topic.to_owned()));
    let asked = MetadataRequestTopic::default().with_name(Some(name));
    let request = MetadataRequest::default().with_topics(Some(vec![asked]));
    let response: MetadataResponse = ask(&side.0, ApiKey::Metadata, 12, &request);
    assert_eq!(response.topics[0].error_code, 0, "{response:?}");
    BASE64_URL_SAFE_NO_PAD.encode(response.topics[0].topic_id.as_bytes())
}

/// An access control entry, with the protocol's numbers.
pub struct Entry<'a> {
    pub principal: &'a str,
    pub resource: i8,
    pub name: &'a str,
    pub pattern: i8,
    pub operation: i8,
    pub permission: i8,
}

pub const LITERAL: i8 = 3;
pub const PREFIXED: i8 = 4;
pub const DENY: i8 = 2;
pub const ALLOW: i8 = 3;

/// Denies everybody one operation on one resource. This denies all other operations too, since the broker allows all
/// only if the resource has no entry.
pub fn deny(resource: i8, name: &str, operation: i8) {
    everybody(resource, name, operation, DENY);
}

/// Allows everybody these operations on one resource, and no others.
pub fn allow_only(resource: i8, name: &str, operations: &[i8]) {
    for operation in operations {
        everybody(resource, name, *operation, ALLOW);
    }
}

fn everybody(resource: i8, name: &str, operation: i8, permission: i8) {
    let principal = "User:ANONYMOUS";
    control(broker(), &Entry { principal, resource, name, pattern: LITERAL, operation, permission });
}

/// Makes an access control entry.
pub fn control(address: &str, entry: &Entry<'_>) {
    const VERSION: i16 = 3;
    let &Entry { principal, resource, name, pattern, operation, permission } = entry;
    let creation = AclCreation::default()
        .with_resource_type(resource)
        .with_resource_name(StrBytes::from_string(name.to_owned()))
        .with_resource_pattern_type(pattern)
        .with_principal(StrBytes::from_string(principal.to_owned()))
        .with_host(StrBytes::from_static_str("*"))
        .with_operation(operation)
        .with_permission_type(permission);
    let request = CreateAclsRequest::default().with_creations(vec![creation]);
    let response: CreateAclsResponse = ask(address, ApiKey::CreateAcls, VERSION, &request);
    assert_eq!(response.results[0].error_code, 0, "{response:?}");
    // The controller answers before the broker's own authorizer knows the entry.
    let filter = DescribeAclsRequest::default()
        .with_resource_type_filter(resource)
        .with_resource_name_filter(Some(StrBytes::from_string(name.to_owned())))
        .with_pattern_type_filter(pattern)
        .with_principal_filter(Some(StrBytes::from_string(principal.to_owned())))
        .with_host_filter(None)
        .with_operation(operation)
        .with_permission_type(permission);
    until(|| {
        let known: DescribeAclsResponse = ask(address, ApiKey::DescribeAcls, VERSION, &filter);
        !known.resources.is_empty()
    });
}

#[test]
fn a_timestamp_of_0_is_refused_and_one_of_minus_1_kept() {
    let pair = Pair::new(1, 1);
    let pair =
        pair.with(|job| job.selection.event_time = EventTime::Field("/at".parse().expect("a pointer")));
    let value = format!("{{\"at\":{}}}", WINDOW.0);
    produce_at(&pair.a, -1, "minus one", &value);
    assert_eq!(pair.filled().counts.written, 1);
    assert_same(&consume(&pair.b), &[record(0, -1, "minus one", &value)]);
    produce_at(&pair.a, 0, "zero", &value);
    let (receipt, result) = pair.fill();
    assert_eq!(result.expect_err("refused").exit_code(), 1);
    assert_eq!(receipt.counts.invalid, 1);
    assert!(receipt.examples[0].starts_with("timestamp 0"), "{receipt:?}");
    assert_eq!(consume(&pair.b).len(), 1);
}

#[test]
fn a_record_without_a_timestamp_has_no_event_time() {
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(60, 1));
    produce_at(&pair.a, -1, "minus one", "x");
    let (receipt, result) = pair.fill();
    assert_eq!(result.expect_err("refused").exit_code(), 1);
    assert_eq!(receipt.counts.invalid, 1);
}

const KEYS: [&[u8]; 4] = [b"plain", &[0xff, 0xfe], b"plain", &[0xc3, 0x28]];

/// Writes one record with header keys that are not UTF-8; the safe API takes only text.
fn produce_with_keys(topic: &str) {
    let producer: BaseProducer =
        rdkafka::ClientConfig::new().set("bootstrap.servers", broker()).create().expect("a producer");
    let topic = CString::new(topic).expect("a name");
    let keys = KEYS.map(|key| CString::new(key).expect("no NUL"));
    let code = unsafe {
        let headers = ffi::rd_kafka_headers_new(4);
        for (n, key) in keys.iter().enumerate() {
            let value = [u8::try_from(n).expect("small"); 2];
            ffi::rd_kafka_header_add(headers, key.as_ptr(), -1, value.as_ptr().cast(), 2);
        }
        ffi::rd_kafka_producev(
            producer.client().native_ptr(),
            ffi::rd_kafka_vtype_t::RD_KAFKA_VTYPE_TOPIC,
            topic.as_ptr() as *const c_char,
            ffi::rd_kafka_vtype_t::RD_KAFKA_VTYPE_PARTITION,
            0i32,
            ffi::rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY,
            c"key".as_ptr().cast::<c_void>(),
            3usize,
            ffi::rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE,
            ptr::null::<c_void>(),
            0usize,
            ffi::rd_kafka_vtype_t::RD_KAFKA_VTYPE_TIMESTAMP,
            WINDOW.0,
            ffi::rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADERS,
            headers,
            ffi::rd_kafka_vtype_t::RD_KAFKA_VTYPE_END,
        )
    };
    assert_eq!(code, ffi::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
    producer.flush(TIMEOUT).expect("flushed");
}

fn header_keys(topic: &str) -> Vec<Vec<u8>> {
    let properties = properties();
    let reading = Reading {
        properties: &properties,
        group: "replicator/kit",
        topic,
        isolation: Isolation::ReadCommitted,
        patience: TIMEOUT,
    };
    until(|| last_stable_offsets(topic)[0] == watermarks(topic)[0].1);
    let mut reader = Reader::open(&reading, &[Range { partition: 0, start: 0, end: 1 }]).expect("opens");
    let mut keys = Vec::new();
    while let Some(batch) = reader.next(&Interrupt::default()).expect("reads") {
        for (event, ()) in batch.events() {
            if let Some(message) = reader.accept(event).expect("accepted") {
                message.for_each_header(|key, _| keys.push(key.to_vec()));
            }
        }
    }
    keys
}

#[test]
fn header_keys_that_are_not_utf_8() {
    let pair = Pair::new(1, 1);
    produce_with_keys(&pair.a);
    assert_eq!(pair.filled().counts.written, 1);
    assert_eq!(header_keys(&pair.b), KEYS.map(<[u8]>::to_vec));
    let (receipt, result) = pair.fill();
    result.expect("fills");
    assert_eq!(receipt.counts.written, 0);
    pair.verify().1.expect("the same");
}

#[test]
fn topics_of_one_name_in_two_clusters_are_two_topics() {
    let across = Across::same_name(2, 1);
    assert_eq!(across.source, across.target);
    assert_ne!(topic_id(&across.from, &across.source), topic_id(&across.to, &across.target));
    let (old, new) = (day(20, 2), day(5, 1));
    across.from.produce(&across.source, &old);
    across.to.begin().send(&across.target, &new).commit();
    assert_eq!(across.consume_source().len(), 20);
    assert_eq!(across.consume_target(), new);
    let group = unique("group");
    across.to.reset_group(&group, &across.target, Offset::Offset(3));
    assert_eq!(across.to.committed(&group, &across.target), [(3, String::new())]);
    assert_eq!(across.from.committed(&group, &across.source)[0].0, -1001);
}
