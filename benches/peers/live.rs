//! What the comparison of followers needs: records that come all the time, and a reader that sees when they are readable.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::Rng;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord};
use rdkafka::{Offset, TopicPartitionList};
use replicator::topics::{Record, Topics, delivered, send};

use super::{config, end, partitions, read, reader};

/// A source and its target.
#[derive(Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) from: &'a str,
    pub(super) source: &'a str,
    pub(super) to: &'a str,
    pub(super) target: &'a str,
}

/// How long to wait for a copier's next record. MirrorMaker needs many seconds before its first one.
const PATIENCE: Duration = Duration::from_secs(400);
/// The bytes of a record's value.
const VALUE: usize = 500;

/// Appends `rate` records a second, and prints how long they took until a read_committed reader of the target in this
/// process had them: p50, p99 and the maximum in milliseconds, then the number of records, then how many transactions a
/// second ended in each partition of the target. Counts the records of `seconds` that begin `warm_up` after the
/// first copy.
///
/// # Panics
/// If the target does not get each record once, in order.
pub(super) fn latency(pair: Pair<'_>, rate: f64, warm_up: Duration, seconds: Duration) {
    let base = Instant::now();
    let consumer = at_end(pair);
    let width = partitions(&consumer, pair.target).len();
    let stop = Arc::new(AtomicBool::new(false));
    // The thread is not scoped: a scope would wait for it in vain if a check below fails.
    let writer = {
        let (from, source, stop) = (pair.from.to_owned(), pair.source.to_owned(), stop.clone());
        std::thread::spawn(move || append(&from, &source, rate, width, base, &stop))
    };
    let (mut first, mut markers, mut taken) = (None, 0, Vec::new());
    let mut next: Vec<(usize, i64)> = (0..width).map(|number| (number, 0)).collect();
    loop {
        let message = consumer.poll(Duration::from_millis(100)).and_then(Result::ok);
        let now = base.elapsed();
        let Some(message) = message else {
            assert!(first.is_some() || now < PATIENCE, "no copy in {PATIENCE:?}");
            continue;
        };
        let (number, at) = parse(&message);
        let (expected, offset) = &mut next[usize::try_from(message.partition()).expect("fits")];
        assert_eq!(number, *expected, "the next record of partition {}", message.partition());
        // Each transaction leaves one marker in each partition that it wrote to.
        markers += message.offset() - *offset;
        (*expected, *offset) = (number + width, message.offset() + 1);
        let begin = *first.get_or_insert(now) + warm_up;
        if at >= begin + seconds {
            break;
        }
        if at >= begin {
            taken.push(now - at);
        }
    }
    let lasted = (base.elapsed() - first.unwrap_or_default()).as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    writer.join().expect("written");
    taken.sort_unstable();
    let at = |part: usize| taken[(taken.len() * part / 100).min(taken.len() - 1)].as_secs_f64() * 1000.0;
    let in_each = markers as f64 / width as f64 / lasted;
    println!("{:.0} {:.0} {:.0} {} {in_each:.1}", at(50), at(99), at(100), taken.len());
}

/// Appends records evenly, each with its number and its time.
fn append(bootstrap: &str, topic: &str, rate: f64, width: usize, base: Instant, stop: &AtomicBool) {
    let producer = Topics::new(bootstrap).producer(None).expect("a producer");
    let begun = Instant::now();
    for number in 0_usize.. {
        let due = Duration::from_secs_f64(number as f64 / rate);
        while let Some(early) = due.checked_sub(begun.elapsed()).filter(|early| !early.is_zero()) {
            producer.poll(Duration::ZERO);
            std::thread::sleep(early.min(Duration::from_millis(1)));
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let head = format!("{number} {} ", base.elapsed().as_nanos());
        let record = Record {
            partition: i32::try_from(number % width).expect("fits"),
            time: now(),
            key: Some(format!("user-{}", number % 997).into_bytes()),
            value: Some(format!("{head}{:x<width$}", "", width = VALUE - head.len()).into_bytes()),
            headers: Vec::new(),
        };
        send(&producer, topic, &[record]).expect("sent");
    }
    delivered(&producer).expect("delivered");
}

fn parse(message: &BorrowedMessage<'_>) -> (usize, Duration) {
    let value = std::str::from_utf8(message.payload().unwrap_or_default()).expect("text");
    let mut words = value.split(' ');
    let number = words.next().and_then(|word| word.parse().ok()).expect("a number");
    let at = words.next().and_then(|word| word.parse().ok()).expect("a time");
    (number, Duration::from_nanos(at))
}

/// For each line on the standard input, appends a record to each partition, prints `written`, and prints `readable` when
/// a read_committed reader of the target has them all.
pub(super) fn marks(pair: Pair<'_>) {
    let producer = Topics::new(pair.from).producer(None).expect("a producer");
    let consumer = at_end(pair);
    let width = partitions(&consumer, pair.target).len();
    let say = |word: &str| {
        println!("{word}");
        std::io::stdout().flush().expect("printed");
    };
    say("ready");
    for (round, _) in std::io::stdin().lock().lines().enumerate() {
        let key = format!("mark-{round}").into_bytes();
        let record = |partition| Record {
            partition,
            time: now(),
            key: Some(key.clone()),
            value: Some(b"{}".to_vec()),
            headers: Vec::new(),
        };
        let records: Vec<Record> = (0..i32::try_from(width).expect("fits")).map(record).collect();
        send(&producer, pair.source, &records).and_then(|()| delivered(&producer)).expect("delivered");
        say("written");
        let (asked, mut seen) = (Instant::now(), BTreeSet::new());
        while seen.len() < width {
            assert!(asked.elapsed() < PATIENCE, "not readable in {PATIENCE:?}");
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
            if message.key() == Some(&key[..]) {
                seen.insert(message.partition());
            }
        }
        say("readable");
    }
}

/// Appends `rate` records a second of random users until the standard input ends, and prints how many.
pub(super) fn load(bootstrap: &str, topic: &str, rate: f64) {
    let stop = Arc::new(AtomicBool::new(false));
    let ended = stop.clone();
    std::thread::spawn(move || {
        let _ = std::io::read_to_string(std::io::stdin());
        ended.store(true, Ordering::Relaxed);
    });
    let producer: BaseProducer = Topics::new(bootstrap).producer(None).expect("a producer");
    let (begun, mut random, mut count) = (Instant::now(), rand::rng(), 0_u32);
    while !stop.load(Ordering::Relaxed) {
        while f64::from(count) < begun.elapsed().as_secs_f64() * rate {
            let key = format!("user-{}", random.random_range(0..100_000));
            let noise: Vec<u8> = (0..random.random_range(0..VALUE)).map(|_| random.random()).collect();
            let number = count.to_be_bytes();
            let header = Header { key: "n", value: Some(&number) };
            let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic)
                .key(key.as_bytes())
                .timestamp(now())
                .headers(OwnedHeaders::new().insert(header));
            // Some are tombstones, and many are equal.
            record.payload = match count % 10 {
                0 => None,
                1..4 => Some(b"{\"same\":true}"),
                _ => Some(&noise),
            };
            producer.send(record).map_err(|(error, _)| error).expect("queued");
            count += 1;
        }
        producer.poll(Duration::ZERO);
        std::thread::sleep(Duration::from_millis(5));
    }
    delivered(&producer).expect("delivered");
    println!("{count}");
}

/// Prints, for each partition, how many committed records it holds, their bytes, and a hash over their keys, values,
/// headers and times in their order.
pub(super) fn digest(bootstrap: &str, topic: &str) {
    let mut found: Vec<(u64, usize, DefaultHasher)> = Vec::new();
    read(bootstrap, topic, |message| {
        let partition = usize::try_from(message.partition()).expect("fits");
        if found.len() <= partition {
            found.resize(partition + 1, (0, 0, DefaultHasher::new()));
        }
        let (count, bytes, hasher) = &mut found[partition];
        *count += 1;
        *bytes +=
            [message.key(), message.value()].map(|part| part.map_or(0, <[u8]>::len)).iter().sum::<usize>();
        (message.key(), message.value(), message.timestamp().0).hash(hasher);
        message.for_each_header(|name, value| (name, value).hash(hasher));
    });
    let each = found.iter().map(|(count, bytes, hasher)| format!("{count}:{bytes}:{:016x}", hasher.finish()));
    println!("{}", each.collect::<Vec<_>>().join(" "));
}

/// A reader of what comes to the target from now on.
fn at_end(pair: Pair<'_>) -> BaseConsumer {
    let mut config = config(pair.to);
    reader(&mut config);
    let consumer: BaseConsumer = config.set("enable.partition.eof", "false").create().expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    for partition in partitions(&consumer, pair.target) {
        let from = Offset::Offset(end(&consumer, pair.target, partition));
        assignment.add_partition_offset(pair.target, partition, from).expect("an offset");
    }
    consumer.assign(&assignment).expect("assigned");
    consumer
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("fits")
}
