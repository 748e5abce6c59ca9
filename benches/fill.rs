//! Measures a whole fill, from start-up to receipt, on a real broker of its own.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};

use replicator::{
    EventTime, Extras, INDEX_MEMORY, Identity, Interrupt, Job, Mode, Progress, Properties, Rules, Sandbox,
    Schemas, Selection, Tz, fill, topics::Record, topics::Topics, topics::delivered, topics::send,
};

const PARTITIONS: usize = 6;
/// 2021-04-14T11:00Z, in milliseconds.
const START: i64 = 1_618_398_000_000;
const HOUR: i64 = 3_600_000;

struct Bench {
    sandbox: Sandbox,
    topics: Topics,
    made: AtomicU32,
}

impl Bench {
    fn topic(&self, name: &str) -> String {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let name = format!("bench-{}-{number}-{name}", std::process::id());
        self.topics.create(&name, PARTITIONS, 1).expect("made");
        name
    }

    /// `records` of 350 bytes, evenly over the hour of the window and the hours `before` and `after` it.
    fn source(&self, records: usize, before: i64, after: i64) -> String {
        let topic = self.topic("a");
        let producer = self.topics.producer(None).expect("a producer");
        let span = (before + 1 + after) * HOUR;
        let of = i64::try_from(records).expect("fits");
        let records: Vec<Record> = (0..records)
            .map(|n| Record {
                partition: i32::try_from(n % PARTITIONS).expect("fits"),
                time: START - before * HOUR + span * i64::try_from(n).expect("fits") / of,
                key: Some(format!("user-{n}").into_bytes()),
                value: Some(format!("{{\"n\":{n},\"pad\":\"{:x<320}\"}}", "").into_bytes()),
                headers: Vec::new(),
            })
            .collect();
        send(&producer, &topic, &records).expect("sent");
        delivered(&producer).expect("delivered");
        topic
    }

    fn job(&self, source: &str, target: &str) -> Job {
        let properties = Properties::new(Some(self.sandbox.bootstrap()), None, std::iter::empty(), &[]);
        Job::new(Selection {
            properties: properties.expect("properties").into(),
            source: source.to_owned(),
            target: target.to_owned(),
            window: "2021-04-14T11:00Z/2021-04-14T12:00Z".parse().expect("a window"),
            date: None,
            zone: Tz::UTC,
            event_time: EventTime::Timestamp,
            schemas: Schemas::default(),
            rules: Rules::by(Identity::Key),
            index_memory: INDEX_MEMORY,
            patience: Duration::from_secs(60),
            max_out_of_orderness: None,
        })
    }

    /// The time for filling this number of new targets, with `wanted` records each.
    fn fills(&self, source: &str, wanted: u64, targets: u64) -> Duration {
        (0..targets)
            .map(|_| {
                let job = self.job(source, &self.topic("b"));
                let begun = Instant::now();
                assert_eq!(run(&job), wanted);
                begun.elapsed()
            })
            .sum()
    }
}

fn run(job: &Job) -> u64 {
    let (receipt, result) = fill(job, Mode::Fill, Progress { quiet: true }, &Interrupt::default());
    result.expect("fills");
    receipt.counts.written
}

fn fills(c: &mut Criterion) {
    let sandbox = Sandbox::start_own_with(1, &Extras::for_measuring()).expect("a broker");
    let topics = Topics::new(sandbox.bootstrap());
    let bench = Bench { sandbox, topics, made: AtomicU32::new(0) };

    let mut group = c.benchmark_group("fill");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(20));

    let source = bench.source(200_000, 0, 0);
    let target = bench.topic("b");
    let job = bench.job(&source, &target);
    run(&job);
    group.bench_function("again, with nothing to do", |b| b.iter(|| assert_eq!(run(&job), 0)));

    group.throughput(Throughput::ElementsAndBytes { elements: 200_000, bytes: 350 * 200_000 });
    group.bench_function("all of 200,000 records", |b| {
        b.iter_custom(|times| bench.fills(&source, 200_000, times))
    });

    // Records before the window should cost nothing. A fill reads the records after it.
    group.throughput(Throughput::Elements(20_000));
    for (before, after) in [(0, 0), (4, 0), (16, 0), (0, 4), (0, 16)] {
        let each = |hours| 20_000 * usize::try_from(hours).expect("fits");
        let source = bench.source(each(before + 1 + after), before, after);
        let name = format!("20,000 records, {} before them and {} after", each(before), each(after));
        group.bench_function(name, |b| b.iter_custom(|times| bench.fills(&source, 20_000, times)));
    }
    group.finish();
}

criterion_group!(benches, fills);
criterion_main!(benches);
