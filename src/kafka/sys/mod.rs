//! All unsafe code of the program is in this module and the modules below it. This code takes messages from librdkafka
//! and gives them back to it, without a copy in between.
//!
//! `rdkafka`'s own poll drops the offset of an end-of-partition event, which is our proof that a partition was read to
//! its end. It also panics on a header key that is not UTF-8. So this code consumes and produces through the C calls,
//! on clients that `rdkafka` made and owns. This is sound because:
//! - a [`Message`] never leaves its [`Batch`], which keeps the consumer alive until all are destroyed;
//! - key, value and headers are borrowed from the message, and librdkafka copies them on `produce`;
//! - each pointer that a C call hands over is destroyed once, in the `Drop` of the type that holds it.

pub(crate) mod admin;
pub(crate) mod describe;
pub(crate) mod groups;
pub(crate) mod largest;
pub mod memory;
pub mod names;

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use rdkafka::types::RDKafkaRespErr;
use rdkafka_sys as ffi;

use ffi::rd_kafka_vtype_t as vtype;

use crate::kafka::origin::Origin;

/// One slot of a batch: a record, or news about a partition.
pub enum Event<'a> {
    Record(&'a Message),
    /// Everything below `position` was delivered; nothing more is readable now.
    EndOfPartition {
        partition: i32,
        position: i64,
    },
    Error(RDKafkaErrorCode, String),
}

/// A record as librdkafka holds it.
pub struct Message {
    raw: NonNull<ffi::rd_kafka_message_t>,
    /// The message's own headers, or null if it has none; an error if librdkafka cannot parse them (it accepts at most
    /// 100,000). They are kept here, because librdkafka parses the message again at each call if it has no headers.
    headers: Result<*mut ffi::rd_kafka_headers_t, RDKafkaErrorCode>,
}

// SAFETY: a message is plain memory with atomic reference counts; librdkafka lets any thread use and
// destroy it, one at a time.
unsafe impl Send for Message {}

impl Message {
    fn new(raw: *mut ffi::rd_kafka_message_t) -> Option<Message> {
        let raw = NonNull::new(raw)?;
        let mut headers = ptr::null_mut();
        // SAFETY: librdkafka has just handed over the message; the headers stay the message's own.
        let code = unsafe {
            match raw.as_ref().err {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {
                    ffi::rd_kafka_message_headers(raw.as_ptr(), &mut headers)
                }
                code => code,
            }
        };
        let headers = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR | RDKafkaRespErr::RD_KAFKA_RESP_ERR__NOENT => {
                Ok(headers)
            }
            code => Err(code.into()),
        };
        Some(Message { raw, headers })
    }

    fn raw(&self) -> &ffi::rd_kafka_message_t {
        // SAFETY: non-null and owned by us until drop.
        unsafe { self.raw.as_ref() }
    }

    pub fn partition(&self) -> i32 {
        self.raw().partition
    }

    pub fn offset(&self) -> i64 {
        self.raw().offset
    }

    /// The position after this record. This is the only `+ 1` on an offset.
    pub fn next_position(&self) -> i64 {
        self.raw().offset + 1
    }

    /// The leader epoch of the record's batch; -1 if the broker named none.
    pub fn leader_epoch(&self) -> i32 {
        // SAFETY: a valid message.
        unsafe { ffi::rd_kafka_message_leader_epoch(self.raw.as_ptr()) }
    }

    /// `None` is a null key; an empty key is `Some(&[])`.
    pub fn key(&self) -> Option<&[u8]> {
        // SAFETY: librdkafka points into the message for as long as it lives.
        unsafe { bytes(self.raw().key, self.raw().key_len) }
    }

    /// `None` is a null value (a tombstone).
    pub fn value(&self) -> Option<&[u8]> {
        // SAFETY: as for the key.
        unsafe { bytes(self.raw().payload, self.raw().len) }
    }

    /// Bytes of key and value.
    pub fn bytes(&self) -> usize {
        self.raw().key_len + self.raw().len
    }

    /// Milliseconds since the epoch, or -1 if the record has no timestamp; and whether the broker set it.
    pub fn timestamp(&self) -> (i64, bool) {
        let mut kind = ffi::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: a valid message and a valid place for the answer.
        let millis = unsafe { ffi::rd_kafka_message_timestamp(self.raw.as_ptr(), &mut kind) };
        (millis, kind == ffi::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME)
    }

    /// Calls `each` with every header in order, repeated ones too: key bytes, and value or null. `each` sees a key with
    /// a NUL byte only up to that byte (librdkafka tells no length), but a copied record has the whole key.
    pub fn for_each_header(&self, mut each: impl FnMut(&[u8], Option<&[u8]>)) {
        let Some(headers) = self.headers.ok().filter(|headers| !headers.is_null()) else { return };
        for index in 0.. {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            // SAFETY: valid headers; the answers point into them.
            unsafe {
                let code = ffi::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size);
                if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                    return;
                }
                each(CStr::from_ptr(name).to_bytes(), bytes(value, size));
            }
        }
    }

    fn event(&self) -> Event<'_> {
        let raw = self.raw();
        match raw.err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => match self.headers {
                Ok(_) => Event::Record(self),
                // A record passed on without its headers would lose them silently.
                Err(code) => Event::Error(
                    RDKafkaErrorCode::BadMessage,
                    format!("the headers of partition {} offset {}: {code}", raw.partition, raw.offset),
                ),
            },
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
                Event::EndOfPartition { partition: raw.partition, position: raw.offset }
            }
            code => {
                // SAFETY: a static or message-owned C string, or null.
                let text = unsafe { ffi::rd_kafka_message_errstr(self.raw.as_ptr()) };
                Event::Error(code.into(), unsafe { string(text) })
            }
        }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: owned by us; its consumer is still alive (see `Batch`).
        unsafe { ffi::rd_kafka_message_destroy(self.raw.as_ptr()) }
    }
}

/// Messages of one poll. Those of one partition are in its order.
pub struct Batch {
    messages: Vec<Message>, // declared, and so dropped, before the consumer that they came from
    _consumer: Arc<dyn Send + Sync>,
}

impl Batch {
    pub fn events(&self) -> impl Iterator<Item = Event<'_>> {
        self.messages.iter().map(Message::event)
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.messages.iter().map(Message::bytes).sum()
    }

    pub fn len(&self) -> usize {
        self.messages.len()
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

/// The queue of a consumer that has a `group.id`.
pub struct ConsumerQueue<C: ConsumerContext + 'static> {
    queue: NonNull<ffi::rd_kafka_queue_t>,
    consumer: Arc<BaseConsumer<C>>,
}

// SAFETY: librdkafka's queues are locked inside.
unsafe impl<C: ConsumerContext + 'static> Send for ConsumerQueue<C> {}

impl<C: ConsumerContext + 'static> ConsumerQueue<C> {
    /// `None` if the consumer has no `group.id`.
    pub fn new(consumer: Arc<BaseConsumer<C>>) -> Option<Self> {
        // SAFETY: a live client; the queue is ours to destroy.
        let queue = unsafe { ffi::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        NonNull::new(queue).map(|queue| ConsumerQueue { queue, consumer })
    }

    /// Waits up to `timeout` for a first message, and then takes the other messages that are there, up to `max` in all.
    pub fn poll(&self, timeout: Duration, max: usize) -> Batch {
        let mut pointers: Vec<*mut ffi::rd_kafka_message_t> = vec![ptr::null_mut(); max.max(1)];
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: there is room for as many pointers as we say, and we own each one that is written.
        let taken = unsafe {
            pointers[0] = ffi::rd_kafka_consume_queue(self.queue.as_ptr(), millis);
            if pointers[0].is_null() {
                0
            } else {
                let more = ffi::rd_kafka_consume_batch_queue(
                    self.queue.as_ptr(),
                    0,
                    pointers[1..].as_mut_ptr(),
                    pointers.len() - 1,
                );
                1 + usize::try_from(more).unwrap_or(0)
            }
        };
        let messages = pointers[..taken].iter().filter_map(|p| Message::new(*p)).collect();
        Batch { messages, _consumer: self.consumer.clone() }
    }
}

impl<C: ConsumerContext + 'static> Drop for ConsumerQueue<C> {
    fn drop(&mut self) {
        // SAFETY: ours, and its client is still alive.
        unsafe { ffi::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

/// A record to produce to the given partition. `timestamp` is in milliseconds since the epoch (0 means now).
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    pub partition: i32,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub timestamp: i64,
    /// The record gets a whole copy of all headers of this message.
    pub headers_of: Option<&'a Message>,
    /// librdkafka gives it back with the report of the delivery.
    pub origin: Origin,
}

/// A topic that a producer writes to: its name is looked up once, not for every record.
pub struct OutgoingTopic<C: ProducerContext<DeliveryOpaque = usize> + 'static> {
    topic: NonNull<ffi::rd_kafka_topic_t>,
    producer: Arc<BaseProducer<C>>,
}

impl<C: ProducerContext<DeliveryOpaque = usize> + 'static> OutgoingTopic<C> {
    /// `None` if the name cannot be a topic's.
    pub fn new(producer: Arc<BaseProducer<C>>, name: &str) -> Option<Self> {
        let name = CString::new(name).ok()?;
        // SAFETY: a live client and a C string; no configuration means the client's own for topics.
        let topic = unsafe {
            ffi::rd_kafka_topic_new(producer.client().native_ptr(), name.as_ptr(), ptr::null_mut())
        };
        NonNull::new(topic).map(|topic| OutgoingTopic { topic, producer })
    }

    /// Queues a copy of one record.
    ///
    /// # Errors
    /// librdkafka's code, for example `QueueFull`. Then nothing was queued.
    pub fn produce(&self, record: Outgoing<'_>) -> Result<(), RDKafkaErrorCode> {
        let (key, key_len) = raw_bytes(record.key);
        let (value, value_len) = raw_bytes(record.value);
        let headers = record.headers_of.map_or(Ok(ptr::null_mut()), |message| message.headers)?;
        // SAFETY: all pointers live through the call, and F_COPY makes librdkafka copy what they point at;
        // the copied headers become librdkafka's when the call succeeds and stay ours when it does not.
        unsafe {
            let headers = if headers.is_null() { headers } else { ffi::rd_kafka_headers_copy(headers) };
            let code = ffi::rd_kafka_producev(
                self.producer.client().native_ptr(),
                vtype::RD_KAFKA_VTYPE_RKT,
                self.topic.as_ptr(),
                vtype::RD_KAFKA_VTYPE_PARTITION,
                record.partition,
                vtype::RD_KAFKA_VTYPE_MSGFLAGS,
                ffi::RD_KAFKA_MSG_F_COPY,
                vtype::RD_KAFKA_VTYPE_VALUE,
                value,
                value_len,
                vtype::RD_KAFKA_VTYPE_KEY,
                key,
                key_len,
                vtype::RD_KAFKA_VTYPE_TIMESTAMP,
                record.timestamp,
                vtype::RD_KAFKA_VTYPE_HEADERS,
                headers,
                vtype::RD_KAFKA_VTYPE_OPAQUE,
                ptr::without_provenance_mut::<c_void>(record.origin.as_opaque()),
                vtype::RD_KAFKA_VTYPE_END,
            );
            if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Ok(());
            }
            if !headers.is_null() {
                ffi::rd_kafka_headers_destroy(headers);
            }
            Err(code.into())
        }
    }
}

impl<C: ProducerContext<DeliveryOpaque = usize> + 'static> Drop for OutgoingTopic<C> {
    fn drop(&mut self) {
        // SAFETY: ours, and its client is still alive.
        unsafe { ffi::rd_kafka_topic_destroy(self.topic.as_ptr()) }
    }
}

/// Sends all queued records without waiting for more, and waits for the answers. Returns whether all answers came. The
/// next polls report errors.
pub fn flush<C: ProducerContext>(producer: &BaseProducer<C>, timeout: Duration) -> bool {
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: a live client, any of whose threads may flush it.
    let code = unsafe { ffi::rd_kafka_flush(producer.client().native_ptr(), millis) };
    code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// The metadata of each element of a list of committed offsets, in the list's order. `rdkafka`'s own accessor panics if
/// somebody committed bytes that are not UTF-8.
pub(crate) fn offset_metadata(list: &TopicPartitionList) -> Vec<Vec<u8>> {
    // SAFETY: a live list of `cnt` elements, each of whose metadata is null or `metadata_size` bytes.
    unsafe {
        let list = &*list.ptr();
        (0..usize::try_from(list.cnt).unwrap_or(0))
            .map(|index| {
                let element = &*list.elems.add(index);
                bytes(element.metadata, element.metadata_size).unwrap_or(&[]).to_vec()
            })
            .collect()
    }
}

/// The leader epoch of each element of a list, in the list's order; -1 if there is none. `rdkafka` has no accessor.
pub(crate) fn leader_epochs(list: &TopicPartitionList) -> Vec<i32> {
    // SAFETY: a live list of `cnt` elements.
    unsafe {
        let list = &*list.ptr();
        (0..usize::try_from(list.cnt).unwrap_or(0))
            .map(|index| ffi::rd_kafka_topic_partition_get_leader_epoch(list.elems.add(index)))
            .collect()
    }
}

/// Gives each element of a list its leader epoch, in the list's order. `rdkafka` has no accessor.
pub(crate) fn set_leader_epochs(list: &mut TopicPartitionList, epochs: &[i32]) {
    // SAFETY: a live list of `cnt` elements.
    unsafe {
        let list = &*list.ptr();
        for (index, epoch) in epochs.iter().enumerate().take(usize::try_from(list.cnt).unwrap_or(0)) {
            ffi::rd_kafka_topic_partition_set_leader_epoch(list.elems.add(index), *epoch);
        }
    }
}

/// # Safety
/// `pointer` is null or points at `len` bytes that outlive `'a`.
unsafe fn bytes<'a>(pointer: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!pointer.is_null()).then(|| unsafe { std::slice::from_raw_parts(pointer.cast(), len) })
}

/// # Safety
/// `text` is null or a C string.
unsafe fn string(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn raw_bytes(bytes: Option<&[u8]>) -> (*mut c_void, usize) {
    // An empty slice's pointer is dangling but not null, so librdkafka can tell empty from null.
    bytes.map_or((ptr::null_mut(), 0), |b| (b.as_ptr().cast_mut().cast(), b.len()))
}
