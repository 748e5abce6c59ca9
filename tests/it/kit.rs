//! A broker for all tests, records for its topics, and clients that share nothing with the code under test.

use std::any::Any;
use std::collections::HashMap;
use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use chrono::NaiveDate;
use rdkafka::Offset;
use rdkafka::producer::BaseProducer;

pub(crate) use replicator::topics::Record;
use replicator::{
    EventTime, INDEX_MEMORY, Identity, Interrupt, Job, Mode, Progress, Properties, Receipt, Result, Rules,
    Schemas, Selection, Tz, fill, partition,
};
use replicator::{Sandbox, topics};

use replicator::{Comparison, Findings, verify};

use crate::containers;

#[path = "across.rs"]
mod across;
#[path = "side.rs"]
mod side;

pub(crate) use across::Across;
pub(crate) use side::{Foreign, Side};

/// 2021-04-14T00:00:00Z, in milliseconds.
pub(crate) const DAY: i64 = 1_618_358_400_000;
pub(crate) const MINUTE: i64 = 60_000;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const WINDOW: (i64, i64) = (DAY + 11 * HOUR, DAY + 13 * HOUR);
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// A broker that tests share.
struct Broker {
    bootstrap: String,
    is_ours: bool,
    _lives: Box<dyn Any + Send + Sync>,
}

impl Broker {
    /// Connects to the cluster that the environment names. Otherwise starts a broker in a container, or by the sandbox.
    fn start() -> Broker {
        let named = std::env::var("REPLICATOR_TEST_BOOTSTRAP_SERVERS").unwrap_or_default();
        if !named.trim().is_empty() {
            return Broker::of(Sandbox::connect(&named).expect("the named cluster answers"), false);
        }
        Broker::start_own()
    }

    fn start_own() -> Broker {
        if containers::can_run() {
            match containers::kafka() {
                // The engine may publish ports on another machine than this one.
                Ok(container) if Sandbox::connect(&container.address).is_err() => {
                    tell(&format!("the container's broker does not answer at {}", container.address));
                }
                Ok(container) => {
                    let bootstrap = container.address.clone();
                    tell(&format!("the tests are on {bootstrap} (testcontainers)"));
                    return Broker { bootstrap, is_ours: true, _lives: Box::new(container) };
                }
                Err(why) => tell(&format!("no broker in a container: {why}")),
            }
        }
        Broker::of(Sandbox::start_own(1).expect("a broker"), true)
    }

    fn of(sandbox: Sandbox, is_ours: bool) -> Broker {
        tell(&format!("the tests are on {} ({})", sandbox.bootstrap(), sandbox.backend()));
        Broker { bootstrap: sandbox.bootstrap().to_owned(), is_ours, _lives: Box::new(sandbox) }
    }

    fn shared() -> &'static Broker {
        static BROKER: OnceLock<Broker> = OnceLock::new();
        BROKER.get_or_init(Broker::start)
    }

    /// A second cluster, for tests across two. It starts when the first such test asks for it.
    fn second() -> &'static Broker {
        static BROKER: OnceLock<Broker> = OnceLock::new();
        BROKER.get_or_init(Broker::start_own)
    }
}

/// The test harness hides the output of eprintln! if the test passes.
pub(crate) fn tell(what: &str) {
    std::io::stderr().write_all(format!("{what}\n").as_bytes()).expect("stderr");
}

pub(crate) fn broker() -> &'static str {
    &Broker::shared().bootstrap
}

/// The cluster of all tests.
pub(crate) fn side_a() -> Side {
    Side(broker().to_owned())
}

/// The second cluster.
pub(crate) fn side_b() -> Side {
    Side(Broker::second().bootstrap.clone())
}

/// Whether a test can deny permissions. Only our own broker surely has an authorizer that allows everything else.
pub(crate) fn can_deny() -> bool {
    let is_ours = Broker::shared().is_ours;
    if !is_ours {
        eprintln!("skipped: nothing can be denied on this broker");
    }
    is_ours
}

pub(crate) fn record(partition: i32, time: i64, key: &str, value: &str) -> Record {
    Record {
        partition,
        time,
        key: Some(key.as_bytes().to_vec()),
        value: Some(value.as_bytes().to_vec()),
        headers: Vec::new(),
    }
}

/// `count` records with different keys, spread evenly over 10:00-16:45 and the partitions.
pub(crate) fn day(count: usize, partitions: i32) -> Vec<Record> {
    let step = 405 * MINUTE / i64::try_from(count).expect("fits");
    (0..count)
        .map(|n| {
            let number = i64::try_from(n).expect("fits");
            let partition = i32::try_from(n).expect("fits") % partitions;
            record(
                partition,
                DAY + 10 * HOUR + number * step,
                &format!("event-{n}"),
                &format!("{{\"n\":{n}}}"),
            )
        })
        .collect()
}

/// Moves records to the partitions in which Java's producer puts their keys.
pub(crate) fn placed(mut records: Vec<Record>, partitions: i32) -> Vec<Record> {
    let partitions = usize::try_from(partitions).expect("a count");
    for record in &mut records {
        record.partition = partition::of_key(record.key.as_deref().unwrap_or_default(), partitions);
    }
    records
}

pub(crate) fn in_window(record: &Record) -> bool {
    (WINDOW.0..WINDOW.1).contains(&record.time)
}

pub(crate) fn window_of(records: &[Record]) -> Vec<Record> {
    records.iter().filter(|r| in_window(r)).cloned().collect()
}

pub(crate) fn outside_of(records: &[Record]) -> Vec<Record> {
    records.iter().filter(|r| !in_window(r)).cloned().collect()
}

pub(crate) fn unique(prefix: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// A source, a target, and the job that fills one from the other.
pub(crate) struct Pair {
    pub a: String,
    pub b: String,
    pub job: Job,
}

impl Pair {
    pub(crate) fn new(a_partitions: i32, b_partitions: i32) -> Pair {
        let (a, b) = (unique("a"), unique("b"));
        create(&a, a_partitions, &[]);
        create(&b, b_partitions, &[]);
        let job = job(&a, &b);
        Pair { a, b, job }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Job)) -> Pair {
        change(&mut self.job);
        self
    }

    pub(crate) fn fill(&self) -> (Receipt, Result<()>) {
        run(&self.job, Mode::Fill)
    }

    /// Fills, and expects success.
    pub(crate) fn filled(&self) -> Receipt {
        let (receipt, result) = self.fill();
        result.expect("fills");
        assert!(receipt.complete);
        receipt
    }

    pub(crate) fn plan(&self) -> (Receipt, Result<()>) {
        run(&self.job, Mode::Plan)
    }

    pub(crate) fn verify(&self) -> (Findings, Result<()>) {
        let comparison = Comparison {
            selection: self.job.selection.clone(),
            strict_order: false,
            list: None,
            latest_only: false,
        };
        verify(&comparison, Progress { quiet: true }, &Interrupt::default())
    }

    /// Asserts that the target holds `before` and then the source's window: each record once, byte for byte, in the
    /// source's order within its partition. Asserts that two further runs write nothing.
    pub(crate) fn assert_filled(&self, before: &[Record]) {
        self.assert_holds(before, &window_of(&consume(&self.a)));
        for _ in 0..2 {
            let receipt = self.filled();
            assert_eq!(receipt.counts.written, 0, "a further run writes nothing: {receipt:?}");
        }
        self.assert_holds(before, &window_of(&consume(&self.a)));
        let (findings, result) = self.verify();
        result.unwrap_or_else(|e| panic!("verify agrees: {e} {findings:?}"));
    }

    pub(crate) fn assert_holds(&self, before: &[Record], window: &[Record]) {
        assert_holds(&consume(&self.b), before, window);
    }
}

/// Asserts that a target holds `before` and then `window`: each record once, in the order of `window` within its
/// partition.
pub(crate) fn assert_holds(target: &[Record], before: &[Record], window: &[Record]) {
    let added: Vec<Record> = window.iter().filter(|r| !before.contains(r)).cloned().collect();
    let mut wanted: Vec<Record> = before.iter().chain(&added).cloned().collect();
    let mut found = target.to_vec();
    wanted.sort();
    found.sort();
    assert_same(&found, &wanted);
    for partition in 0..1000 {
        let of = |records: &[Record]| -> Vec<Record> {
            records.iter().filter(|r| r.partition == partition).cloned().collect()
        };
        let found: Vec<Record> = of(target).into_iter().filter(|r| !before.contains(r)).collect();
        assert_same(&found, &of(&added));
    }
}

pub(crate) fn assert_same(found: &[Record], wanted: &[Record]) {
    if found != wanted {
        let lost: Vec<_> = wanted.iter().filter(|r| !found.contains(r)).take(5).collect();
        let more: Vec<_> = found.iter().filter(|r| !wanted.contains(r)).take(5).collect();
        panic!(
            "{} records where {} were wanted (or in another order or number); missing {lost:?}, not wanted {more:?}",
            found.len(),
            wanted.len()
        );
    }
}

pub(crate) fn run(job: &Job, mode: Mode) -> (Receipt, Result<()>) {
    fill(job, mode, Progress { quiet: true }, &Interrupt::default())
}

pub(crate) fn properties() -> Properties {
    Properties::new(Some(broker()), None, std::iter::empty(), &[]).expect("properties")
}

pub(crate) fn job(a: &str, b: &str) -> Job {
    Job::new(Selection {
        properties: properties().into(),
        source: a.to_owned(),
        target: b.to_owned(),
        window: "11:00-13:00".parse().expect("a window"),
        date: NaiveDate::from_ymd_opt(2021, 4, 14),
        zone: Tz::UTC,
        event_time: EventTime::Timestamp,
        schemas: Schemas::default(),
        rules: Rules::by(Identity::Key),
        index_memory: INDEX_MEMORY,
        patience: Duration::from_secs(30),
        max_out_of_orderness: None,
    })
}

pub(crate) fn create(topic: &str, partitions: i32, config: &[(&str, &str)]) {
    side_a().create(topic, partitions, config);
}

pub(crate) fn delete(topic: &str) {
    side_a().delete(topic);
}

/// Deletes the records of a partition before `offset`.
pub(crate) fn trim(topic: &str, partition: i32, offset: i64) {
    side_a().trim(topic, partition, offset);
}

pub(crate) fn delete_group(group: &str) {
    side_a().delete_group(group);
}

/// Commits offsets by hand, as `kafka-consumer-groups.sh --reset-offsets` does.
pub(crate) fn reset_group(group: &str, topic: &str, offset: Offset) {
    side_a().reset_group(group, topic, offset);
}

pub(crate) fn watermarks(topic: &str) -> Vec<(i64, i64)> {
    side_a().watermarks(topic)
}

pub(crate) fn last_stable_offsets(topic: &str) -> Vec<i64> {
    side_a().last_stable_offsets(topic)
}

/// Waits until `condition` holds, and fails if that takes too long.
pub(crate) fn until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < TIMEOUT, "it did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// All committed records, partition by partition, in order. It waits until open transactions end.
pub(crate) fn consume(topic: &str) -> Vec<Record> {
    side_a().consume(topic)
}

/// Produces without a transaction.
pub(crate) fn produce(topic: &str, records: &[Record]) {
    side_a().produce(topic, records);
}

pub(crate) fn send(producer: &BaseProducer, topic: &str, records: &[Record]) {
    topics::send(producer, topic, records).expect("sent");
}

/// Changes one property of a topic.
pub(crate) fn alter(topic: &str, key: &str, value: &str) {
    side_a().alter(topic, key, value);
}

/// Commits offset 0 of partition 0 with bytes as its metadata. The safe API can only write text.
pub(crate) fn commit_bytes(group: &str, topic: &str, metadata: &[u8]) {
    side_a().commit_bytes(group, topic, metadata);
}

/// The real binary, as a user runs it.
pub(crate) fn replicator(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_replicator"));
    command.args(arguments).env("KAFKA_BOOTSTRAP_SERVERS", broker()).stdin(Stdio::null());
    command
}

impl Pair {
    /// Starts the main job as a process that prints JSON, with transactions of `records` records.
    pub(crate) fn spawn(&self, records: usize) -> Child {
        self.command(records).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
    }

    pub(crate) fn command(&self, records: usize) -> Command {
        let mut command = replicator(&["--window", "11:00-13:00", "--source", &self.a, "--target", &self.b]);
        command.args(["--output", "json", "--transaction-records", &records.to_string()]);
        command
    }
}

pub(crate) fn signal(child: &Child, signal: &str) {
    let killed = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill");
    assert!(killed.success());
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The fields of the receipt.
pub(crate) fn receipt(output: &Output) -> HashMap<String, serde_json::Value> {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("one JSON object on stdout: {e}; stderr: {}", stderr(output)))
}
