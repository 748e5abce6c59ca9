//! What the comparison needs beside the other copiers: a broker, topics, the plain copy and the floor.

mod live;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};

use live::Pair;
use replicator::{
    ConsumerQueue, Event, Extras, Message, Origin, Outgoing, OutgoingTopic, Reports, Sandbox, memory,
    topics::Record, topics::Topics, topics::delivered, topics::send,
};

/// 2021-04-14T10:00Z, in milliseconds; the records are spread over 405 minutes from here.
const START: i64 = 1_618_394_400_000;
const SPAN: i64 = 405 * 60_000;

const USAGE: &str = "broker [PROPERTY…] | source BOOTSTRAP TOPIC PARTITIONS RECORDS \
                     | append BOOTSTRAP TOPIC PARTITIONS RECORDS \
                     | payloads BOOTSTRAP TOPIC PARTITIONS RECORDS BYTES CODEC FILE | create BOOTSTRAP TOPIC PARTITIONS \
                     | delete BOOTSTRAP TOPIC | sum BOOTSTRAP TOPIC \
                     | copy FROM SOURCE TO TARGET CODEC | safe-copy FROM SOURCE TO TARGET \
                     | transact BOOTSTRAP SOURCE TARGET | consume BOOTSTRAP SOURCE \
                     | await FROM SOURCE TO TARGET \
                     | latency FROM SOURCE TO TARGET RATE WARM_UP SECONDS | marks FROM SOURCE TO TARGET \
                     | load BOOTSTRAP TOPIC RATE | digest BOOTSTRAP TOPIC";

fn main() {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).filter_map(|a| OsString::into_string(a).ok()).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["broker", ref properties @ ..] => broker(properties),
        ["source", bootstrap, topic, partitions, records] => {
            Topics::new(bootstrap).create(topic, number(partitions), 1).expect("made");
            append(bootstrap, topic, number(partitions), number(records));
        }
        ["append", bootstrap, topic, partitions, records] => {
            append(bootstrap, topic, number(partitions), number(records));
        }
        ["payloads", bootstrap, topic, partitions, records, bytes, codec, file] => {
            let source = Payloads { topic, partitions: number(partitions), records: number(records) };
            payloads(bootstrap, &source, number(bytes), codec, &std::fs::read(file).expect("events"));
        }
        ["create", bootstrap, topic, partitions] => {
            Topics::new(bootstrap).create(topic, number(partitions), 1).expect("made");
        }
        ["delete", bootstrap, topic] => Topics::new(bootstrap).delete(&[topic]).expect("deleted"),
        ["sum", bootstrap, topic] => sum(bootstrap, topic),
        ["copy", from, source, to, target, codec] => copy((from, source), (to, target), codec),
        ["safe-copy", from, source, to, target] => safe_copy(from, source, to, target),
        ["transact", bootstrap, source, target] => transact(bootstrap, source, target),
        ["await", from, source, to, target] => await_copy(from, source, to, target),
        ["consume", bootstrap, source] => read(bootstrap, source, |_| ()),
        ["latency", from, source, to, target, rate, warm_up, seconds] => {
            let [warm_up, seconds] = [warm_up, seconds].map(|text| Duration::from_secs(number(text) as u64));
            live::latency(Pair { from, source, to, target }, number(rate) as f64, warm_up, seconds);
        }
        ["marks", from, source, to, target] => live::marks(Pair { from, source, to, target }),
        ["load", bootstrap, topic, rate] => live::load(bootstrap, topic, number(rate) as f64),
        ["digest", bootstrap, topic] => live::digest(bootstrap, topic),
        _ => panic!("{USAGE}"),
    }
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

/// Starts a broker with these properties (`NAME=VALUE`), prints its address, and keeps it until the standard input ends.
fn broker(properties: &[&str]) {
    let mut extras = Extras::for_measuring();
    let properties = properties.iter().filter_map(|property| property.split_once('='));
    extras.properties.extend(properties.map(|(name, value)| (&*name.to_owned().leak(), value.to_owned())));
    let sandbox = Sandbox::start_own_with(1, &extras).expect("a broker");
    println!("{}", sandbox.bootstrap());
    let _ = std::io::read_to_string(std::io::stdin());
}

/// Events of about 350 bytes of JSON, evenly spread over partitions and time.
fn append(bootstrap: &str, topic: &str, partitions: usize, records: usize) {
    let producer = Topics::new(bootstrap).producer(None).expect("a producer");
    for chunk in (0..records).collect::<Vec<_>>().chunks(50_000) {
        let chunk: Vec<Record> = chunk.iter().map(|n| event(*n, records, partitions)).collect();
        send(&producer, topic, &chunk).expect("sent");
    }
    delivered(&producer).expect("delivered");
}

fn event(n: usize, records: usize, partitions: usize) -> Record {
    let (number, of) = (i64::try_from(n).expect("fits"), i64::try_from(records).expect("fits"));
    Record {
        partition: i32::try_from(n % partitions).expect("fits"),
        time: START + SPAN * number / of,
        key: Some(format!("event-{n}").into_bytes()),
        value: Some(
            format!("{{\"n\":{n},\"action\":\"play\",\"user\":{},\"pad\":\"{:x<290}\"}}", n % 9973, "")
                .into_bytes(),
        ),
        headers: Vec::new(),
    }
}

struct Payloads<'a> {
    topic: &'a str,
    partitions: usize,
    records: usize,
}

/// Makes a topic of records that are spread over partitions and time as [`append`] does it, in batches of the codec. The values are
/// as many `bytes` of the `events`, one line after the other. Each begins at the line after the last value's.
fn payloads(bootstrap: &str, source: &Payloads<'_>, bytes: usize, codec: &str, events: &[u8]) {
    let Payloads { topic, partitions, records } = *source;
    Topics::new(bootstrap).create(topic, partitions, 1).expect("made");
    let mut config = config(bootstrap);
    fast(&mut config);
    let producer: BaseProducer = config.set("compression.type", codec).create().expect("a producer");
    let ends: Vec<usize> = (0..events.len()).filter(|at| events[*at] == b'\n').map(|at| at + 1).collect();
    let twice = [events, &events[..bytes.min(events.len())]].concat();
    let mut begin = 0;
    for n in 0..records {
        let value = &twice[begin..begin + bytes];
        let Record { partition, time, key, .. } = event(n, records, partitions);
        let key = key.expect("a key");
        let mut record: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(topic).partition(partition).timestamp(time).key(&key[..]).payload(value);
        while let Err((error, back)) = producer.send(record) {
            assert!(matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)), "{error}");
            producer.poll(Duration::from_millis(1));
            record = back;
        }
        // The next line after this value's last byte.
        let next = ends.partition_point(|end| *end < begin + bytes);
        begin = ends.get(next).copied().filter(|end| *end < events.len()).unwrap_or(0);
    }
    delivered(&producer).expect("delivered");
}

/// Prints how many committed records there are, and a sum over their keys, values, headers and times, which
/// does not depend on their order.
fn sum(bootstrap: &str, topic: &str) {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let (mut count, mut sum) = (0_u64, 0_u64);
    read(bootstrap, topic, |message| {
        let mut hasher = DefaultHasher::new();
        (message.key(), message.value(), message.timestamp().0).hash(&mut hasher);
        message.for_each_header(|name, value| (name, value).hash(&mut hasher));
        count += 1;
        sum = sum.wrapping_add(hasher.finish());
    });
    println!("{count} {sum:016x}");
}

/// Prints a line when the target's first record is written, and one when readers of committed records see the source's
/// last record of each partition. A copier that keeps the order has copied all then. Markers of transactions take
/// offsets too, so the target's end alone does not tell.
fn await_copy(from: &str, source: &str, to: &str, target: &str) {
    let reader = |bootstrap: &str, isolation: &str| -> BaseConsumer {
        let mut config = config(bootstrap);
        reader(&mut config);
        config.set("isolation.level", isolation).create().expect("a consumer")
    };
    let originals = reader(from, "read_committed");
    let lasts: Vec<_> = partitions(&originals, source).map(|p| last(&originals, source, p)).collect();
    let (written, readable) = (reader(to, "read_uncommitted"), reader(to, "read_committed"));
    let begun = Instant::now();
    let until = |condition: &mut dyn FnMut() -> bool| {
        while !condition() {
            assert!(begun.elapsed() < Duration::from_secs(300), "{target} is not whole after 300 s");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    until(&mut || partitions(&written, target).any(|partition| end(&written, target, partition) > 0));
    println!("first");
    for (partition, wanted) in lasts.iter().enumerate() {
        let partition = i32::try_from(partition).expect("fits");
        until(&mut || last(&readable, target, partition) == *wanted);
    }
    println!("whole");
}

fn end(consumer: &BaseConsumer, topic: &str, partition: i32) -> i64 {
    consumer.fetch_watermarks(topic, partition, Duration::from_secs(10)).map_or(0, |(_, end)| end)
}

/// The key and value of the last record that the consumer may see, if one is among the last offsets.
fn last(consumer: &BaseConsumer, topic: &str, partition: i32) -> Option<(Vec<u8>, Vec<u8>)> {
    let from = (end(consumer, topic, partition) - 16).max(0);
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, partition, Offset::Offset(from)).expect("an offset");
    consumer.assign(&assignment).expect("assigned");
    let mut found = None;
    loop {
        match consumer.poll(Duration::from_secs(10)) {
            Some(Ok(message)) => {
                let bytes = |part: Option<&[u8]>| part.unwrap_or_default().to_vec();
                found = Some((bytes(message.key()), bytes(message.payload())));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return found,
            Some(Err(_)) => {}
            None => panic!("{topic} has no end"),
        }
    }
}

/// The plain copy, with the calls and settings of the fill: no transaction, no window, no dedup.
fn copy((from, source): (&str, &str), (to, target): (&str, &str), codec: &str) {
    let mut config = config(to);
    fast(&mut config);
    config.set("compression.type", codec);
    let producer: Arc<BaseProducer<Reports>> =
        Arc::new(config.create_with_context(Reports::default()).expect("a producer"));
    let topic = OutgoingTopic::new(producer.clone(), target).expect("a topic");
    read(from, source, |message| produce(&producer, &topic, message));
    drain(&producer);
}

/// The plain copy as one writes it first: with rdkafka's safe calls, a message at a time, and large buffers.
fn safe_copy(from: &str, source: &str, to: &str, target: &str) {
    let mut producing = config(to);
    fast(&mut producing);
    let producer: BaseProducer =
        producing.set("queue.buffering.max.kbytes", "131072").create().expect("a producer");
    let mut consuming = config(from);
    reader(&mut consuming);
    for (key, value) in [
        ("fetch.message.max.bytes", "8388608"),
        ("fetch.max.bytes", "52428800"),
        ("queued.max.messages.kbytes", "65536"),
        ("fetch.wait.max.ms", "100"),
    ] {
        consuming.set(key, value);
    }
    let consumer: BaseConsumer = consuming.create().expect("a consumer");
    let mut open = assign_all(&consumer, source);
    while open > 0 {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => send_safely(&producer, target, &message),
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => panic!("{error}"),
            None => (),
        }
    }
    producer.flush(Duration::from_secs(30)).expect("flushed");
}

fn send_safely(producer: &BaseProducer, target: &str, message: &BorrowedMessage) {
    let mut record: BaseRecord<[u8], [u8]> = BaseRecord::to(target).partition(message.partition());
    record.key = message.key();
    record.payload = message.payload();
    record.timestamp = message.timestamp().to_millis();
    record.headers = message.headers().map(BorrowedHeaders::detach);
    while let Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) = producer.send(record)
    {
        producer.poll(Duration::from_millis(1));
        record = back;
    }
}

/// The same in transactions of 50,000 records, with offsets: no window, no dedup, no care for failures.
fn transact(bootstrap: &str, source: &str, target: &str) {
    let mut config = config(bootstrap);
    fast(&mut config);
    // `Properties::producer` raises linger.ms too, for the same reason.
    config.set("transactional.id", format!("bench/{target}")).set("linger.ms", "500");
    let producer: Arc<BaseProducer<Reports>> =
        Arc::new(config.create_with_context(Reports::default()).expect("a producer"));
    let topic = OutgoingTopic::new(producer.clone(), target).expect("a topic");
    let group: BaseConsumer =
        self::config(bootstrap).set("group.id", format!("bench/{target}")).create().expect("a client");
    let group = group.group_metadata().expect("a group");
    let timeout = Duration::from_secs(30);
    producer.init_transactions(timeout).expect("initialised");
    let (mut open, mut positions) = (0, BTreeMap::new());
    let commit = |positions: &BTreeMap<i32, i64>| {
        drain(&producer);
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in positions {
            offsets.add_partition_offset(source, *partition, Offset::Offset(*offset)).expect("an offset");
        }
        producer.send_offsets_to_transaction(&offsets, &group, timeout).expect("sent");
        producer.commit_transaction(timeout).expect("committed");
    };
    read(bootstrap, source, |message| {
        if open == 0 {
            producer.begin_transaction().expect("begun");
        }
        produce(&producer, &topic, message);
        positions.insert(message.partition(), message.next_position());
        open += 1;
        if open == 50_000 {
            commit(&positions);
            open = 0;
        }
    });
    if open > 0 {
        commit(&positions);
    }
}

fn produce(producer: &BaseProducer<Reports>, topic: &OutgoingTopic<Reports>, message: &Message) {
    let record = Outgoing {
        partition: message.partition(),
        key: message.key(),
        value: message.value(),
        timestamp: message.timestamp().0,
        headers_of: Some(message),
        origin: Origin::record(message.partition(), message.offset()),
    };
    while let Err(code) = topic.produce(record) {
        assert_eq!(code, RDKafkaErrorCode::QueueFull);
        producer.poll(Duration::ZERO);
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn drain<C: ProducerContext>(producer: &BaseProducer<C>) {
    while !replicator::flush(producer, Duration::from_millis(20)) {
        producer.poll(Duration::ZERO);
    }
}

fn fast(config: &mut ClientConfig) {
    for (key, value) in [
        ("acks", "all"),
        ("linger.ms", "10"),
        ("batch.size", "1000000"),
        ("batch.num.messages", "100000"),
        ("queue.buffering.max.messages", "200000"),
        ("queue.buffering.max.kbytes", "65536"),
        ("delivery.report.only.error", "true"),
    ] {
        config.set(key, value);
    }
}

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("log_level", "0").set("reconnect.backoff.ms", "20");
    config
}

fn partitions(consumer: &BaseConsumer, topic: &str) -> Range<i32> {
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).expect("metadata");
    0..i32::try_from(metadata.topics()[0].partitions().len()).expect("fits")
}

/// Assigns all partitions, from their beginnings, and returns how many there are.
fn assign_all(consumer: &BaseConsumer, topic: &str) -> usize {
    let mut assignment = TopicPartitionList::new();
    for partition in partitions(consumer, topic) {
        assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&assignment).expect("assigned");
    assignment.count()
}

fn reader(config: &mut ClientConfig) {
    for (key, value) in [
        ("group.id", "bench"),
        ("enable.auto.commit", "false"),
        ("enable.partition.eof", "true"),
        ("isolation.level", "read_committed"),
        ("queued.min.messages", "1000000"),
        ("queued.max.messages.kbytes", "8192"),
        ("fetch.queue.backoff.ms", "5"),
        ("fetch.wait.max.ms", "10"),
    ] {
        config.set(key, value);
    }
}

/// Reads all committed records, in batches, to the ends of the partitions.
fn read(bootstrap: &str, topic: &str, mut each: impl FnMut(&Message)) {
    memory::keep_freed();
    let mut config = config(bootstrap);
    reader(&mut config);
    let consumer: Arc<BaseConsumer> = Arc::new(config.create().expect("a consumer"));
    let mut open = assign_all(&consumer, topic);
    let queue = ConsumerQueue::new(consumer.clone()).expect("a queue");
    let begun = Instant::now();
    while open > 0 {
        assert!(begun.elapsed() < Duration::from_secs(300), "{topic} has no end");
        for event in queue.poll(Duration::from_millis(100), 2048).events() {
            match event {
                Event::Record(message) => each(message),
                Event::EndOfPartition { .. } => open -= 1,
                Event::Error(..) => {}
            }
        }
    }
    replicator::close(&consumer);
}
