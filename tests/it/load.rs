//! Loading a file into a real Kafka topic, with every record compared.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use replicator::{
    Cluster, Error, Given, Interrupt, LoadReceipt, Loading, Progress, Properties, Result, TransactionLimits,
    load, load_within, partition,
};
use rstest::rstest;

use crate::kit::{consume, create, delete, properties, replicator, until, watermarks};

const QUIET: Progress = Progress { quiet: true };
const START: i64 = 1_618_394_400_000; // 2021-04-14T10:00:00Z
/// Small transactions, so that a test can end a load between many of them.
const SMALL: TransactionLimits =
    TransactionLimits { records: 100, bytes: 1 << 20, time: Duration::from_secs(1) };

/// A name that no other test uses.
fn topic() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos();
    format!("load-{}-{since}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

struct Case {
    _folder: tempfile::TempDir,
    args: Loading,
}

/// The receipt of a load, which must succeed.
fn whole((receipt, result): (Option<LoadReceipt>, Result<()>)) -> Result<LoadReceipt> {
    result.map(|()| receipt.filter(|receipt| receipt.complete).expect("a receipt of the whole"))
}

impl Case {
    fn new(content: &[u8]) -> Case {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("events.json");
        std::fs::write(&file, content).expect("written");
        let given = Given { key_field: "id".parse().ok(), time_field: "ts".parse().ok() };
        let args = Loading {
            file,
            topic: topic(),
            given,
            partitions: 3,
            except: None,
            date: None,
            skip_invalid: false,
        };
        Case { _folder: folder, args }
    }

    fn load(&self) -> Result<LoadReceipt> {
        whole(load(&self.args, &properties(), QUIET, &Interrupt::default()))
    }

    fn records(&self) -> Vec<Vec<Record>> {
        records(&self.args.topic)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    key: Option<Vec<u8>>,
    value: Vec<u8>,
    millis: i64,
}

/// Each partition's committed records, in order.
fn records(topic: &str) -> Vec<Vec<Record>> {
    let mut partitions = vec![Vec::new(); watermarks(topic).len()];
    for record in consume(topic) {
        let partition = usize::try_from(record.partition).expect("a partition");
        let value = record.value.expect("a value");
        partitions[partition].push(Record { key: record.key, value, millis: record.time });
    }
    partitions
}

fn line(number: usize) -> String {
    // Every seventh line has no key.
    let id = if number % 7 == 6 { String::new() } else { format!("\"id\":\"k{}\",", number % 1000) };
    let millis = START + i64::try_from(number).expect("small") * 10;
    format!("{{{id}\"ts\":{millis},\"n\":{number}, \"text\":\"é {}\"}}", "x".repeat(number % 50))
}

fn lines(count: usize) -> String {
    (0..count).map(|number| line(number) + "\n").collect()
}

/// The records of the lines with these numbers, by partition.
fn expected(numbers: impl Iterator<Item = usize>, partitions: usize) -> Vec<Vec<Record>> {
    let mut all = vec![Vec::new(); partitions];
    for number in numbers {
        let key = (number % 7 != 6).then(|| format!("k{}", number % 1000).into_bytes());
        let place = match &key {
            Some(key) => usize::try_from(partition::of_key(key, partitions)).expect("a partition"),
            None => number % partitions,
        };
        let millis = START + i64::try_from(number).expect("small") * 10;
        all[place].push(Record { key, value: line(number).into_bytes(), millis });
    }
    all
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).expect("in memory");
    encoder.finish().expect("in memory")
}

fn array(content: &str) -> Vec<u8> {
    format!("[\n{}\n]", content.trim_end().replace('\n', ",\n")).into_bytes()
}

#[rstest]
#[case::lines(lines(5000).into_bytes())]
#[case::gzipped_lines(gzip(lines(5000).as_bytes()))]
#[case::array(array(&lines(5000)))]
#[case::gzipped_array(gzip(&array(&lines(5000))))]
fn every_line_is_a_record_and_a_second_load_writes_nothing(#[case] content: Vec<u8>) {
    let case = Case::new(&content);
    let first = case.load().expect("loads");
    assert_eq!((first.lines, first.loaded, first.already_loaded), (5000, 5000, 0));
    assert_eq!(first.without_key, 714);
    assert!(first.transactions > 0);
    let records = case.records();
    assert_eq!(records, expected(0..5000, 3));

    let second = case.load().expect("is a no-op");
    assert_eq!((second.loaded, second.already_loaded, second.transactions), (0, 5000, 0));
    assert_eq!(case.records(), records);
}

#[test]
fn equal_lines_are_as_many_records() {
    let content = format!("{0}\n{0}\n{1}\n{0}\n", line(0), line(1));
    let case = Case::new(content.as_bytes());
    assert_eq!(case.load().expect("loads").loaded, 4);
    assert_eq!(case.records(), expected([0, 0, 1, 0].into_iter(), 3));
}

#[test]
fn the_topic_is_made_to_keep_what_is_loaded() {
    let case = Case::new(lines(10).as_bytes());
    case.load().expect("loads");
    let cluster = Cluster::connect(&properties(), "test").expect("connects");
    let configuration =
        cluster.configuration(&[&case.args.topic]).expect("answers").expect("visible").remove(0);
    assert_eq!(configuration.get("retention.ms").map(String::as_str), Some("-1"));
    assert_eq!(configuration.get("message.timestamp.type").map(String::as_str), Some("CreateTime"));
    assert_eq!(cluster.topic(&case.args.topic).expect("answers").expect("there").partitions, 3);
}

#[test]
fn a_topic_that_is_there_is_used_as_it_is() {
    let case = Case::new(lines(1000).as_bytes());
    create(&case.args.topic, 2, &[]);
    case.load().expect("loads");
    assert_eq!(case.records(), expected(0..1000, 2));
}

#[test]
fn small_transactions_hold_the_same() {
    let case = Case::new(lines(2050).as_bytes());
    let receipt =
        whole(load_within(SMALL, &case.args, &properties(), QUIET, &Interrupt::default())).expect("loads");
    assert_eq!((receipt.loaded, receipt.transactions), (2050, 21));
    assert_eq!(case.records(), expected(0..2050, 3));
}

#[test]
fn the_events_of_the_window_are_left_out() {
    let mut case = Case::new(lines(5000).as_bytes());
    case.args.except = "10:00:10-10:00:20".parse().ok();
    let receipt = case.load().expect("loads");
    assert_eq!((receipt.loaded, receipt.skipped_by_window), (4000, Some(1000)));
    assert_eq!(case.records(), expected((0..1000).chain(2000..5000), 3));
    let again = case.load().expect("is a no-op");
    assert_eq!((again.loaded, again.already_loaded, again.skipped_by_window), (0, 4000, Some(1000)));
}

#[test]
fn all_may_be_left_out() {
    let mut case = Case::new(lines(10).as_bytes());
    case.args.except = "10:00-".parse().ok();
    for _ in 0..2 {
        assert_eq!(case.load().expect("loads").skipped_by_window, Some(10));
    }
    assert!(case.records().concat().is_empty());
}

#[test]
fn other_options_are_refused_and_a_topic_made_anew_is_not() {
    let mut case = Case::new(lines(300).as_bytes());
    case.load().expect("loads");
    case.args.except = "10:00:01-10:00:02".parse().ok();
    let error = case.load().expect_err("refused");
    assert!(matches!(error, Error::Refused(_)) && error.to_string().contains("another way"), "{error}");
    case.args.except = None;
    case.args.given.key_field = "n".parse().ok();
    assert!(matches!(case.load(), Err(Error::Refused(_))));
    assert_eq!(case.records(), expected(0..300, 3));

    delete(&case.args.topic);
    case.args.given.key_field = "id".parse().ok();
    let receipt = case.load().expect("loads anew");
    assert_eq!((receipt.loaded, receipt.already_loaded), (300, 0));
    assert_eq!(case.records(), expected(0..300, 3));
}

#[test]
fn a_malformed_line_is_named_before_anything_is_written() {
    let content = lines(3000) + "{\"id\":\"broken\n" + &line(3000) + "\n{\"id\":1}\n";
    let mut case = Case::new(content.as_bytes());
    let error = case.load().expect_err("refused");
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("line 3001") && error.to_string().contains("line 3003"), "{error}");
    let cluster = Cluster::connect(&properties(), "test").expect("connects");
    assert_eq!(cluster.topic(&case.args.topic).expect("answers"), None, "no topic was made");

    case.args.skip_invalid = true;
    let receipt = case.load().expect("skips them");
    assert_eq!((receipt.lines, receipt.loaded, receipt.invalid), (3003, 3001, 2));
    let records = case.records().concat();
    assert_eq!(records.len(), 3001);
}

#[test]
fn interrupted_and_run_again() {
    let case = Case::new(lines(40_000).as_bytes());
    let interrupt = Interrupt::default();
    let outcome = std::thread::scope(|scope| {
        let loading = scope.spawn(|| load_within(SMALL, &case.args, &properties(), QUIET, &interrupt));
        wait_for_records(&case.args.topic, 2000);
        interrupt.set();
        loading.join().expect("no panic")
    });
    let (receipt, result) = outcome;
    assert_eq!(result.expect_err("interrupted").exit_code(), 130);
    let part = case.records().concat().len();
    assert!((2000..40_000).contains(&part), "{part} records");
    let receipt = receipt.expect("a part was loaded");
    assert_eq!((receipt.loaded, receipt.complete), (part as u64, false), "{receipt}");
    assert!(receipt.to_string().contains("NOT complete"), "{receipt}");

    let receipt = case.load().expect("goes on");
    assert_eq!((receipt.already_loaded, receipt.loaded), (part as u64, 40_000 - part as u64));
    assert_eq!(case.records(), expected(0..40_000, 3));
}

#[test]
fn killed_again_and_again_each_line_is_there_once() {
    let mut case = Case::new(lines(200_000).as_bytes());
    case.args.except = "10:01-10:02".parse().ok();
    let file = case.args.file.to_str().expect("a path");
    let arguments = ["load", file, "--topic", &case.args.topic, "--partitions", "3"];
    for round in 1..=3 {
        let mut child = replicator(&arguments)
            .args(["--key-field", "id", "--time-field", "ts", "--except", "10:01-10:02"])
            .env("FAILPOINTS", "load-transaction-records=return(10000)")
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("starts");
        // A round writes more than one transaction holds, so it commits at least one.
        wait_for_records(&case.args.topic, round * 51_000);
        child.kill().expect("killed"); // SIGKILL
        child.wait().expect("ended");
    }
    let receipt = case.load().expect("goes on");
    assert_eq!((receipt.already_loaded + receipt.loaded, receipt.skipped_by_window), (194_000, Some(6000)));
    assert!(receipt.already_loaded > 0 && receipt.loaded > 0, "{receipt}");
    assert_eq!(case.records(), expected((0..6000).chain(12_000..200_000), 3));
}

#[test]
fn a_second_load_of_the_same_file_takes_over() {
    let case = Case::new(lines(40_000).as_bytes());
    let slow = std::thread::scope(|scope| {
        let first =
            scope.spawn(|| load_within(SMALL, &case.args, &properties(), QUIET, &Interrupt::default()));
        wait_for_records(&case.args.topic, 1000);
        let second = case.load();
        assert!(second.is_ok(), "{second:?}");
        first.join().expect("no panic")
    });
    assert!(matches!(slow.1, Err(Error::Fenced(_))), "{slow:?}");
    assert_eq!(case.records(), expected(0..40_000, 3));
}

#[test]
fn guessed_fields_are_told() {
    let content: String = (0..100)
        .map(|n| {
            format!("{{\"event_id\":{n},\"user_id\":1,\"timestamp\":\"2021-04-14T11:00:{:02}Z\"}}\n", n % 60)
        })
        .collect();
    let mut case = Case::new(content.as_bytes());
    case.args.given = Given { key_field: None, time_field: None };
    let receipt = case.load().expect("loads");
    assert_eq!((receipt.key_field.as_str(), receipt.time_field.as_str()), ("/event_id", "/timestamp"));
    assert_eq!(receipt.first_event.as_deref(), Some("2021-04-14T11:00:00Z"));
    let keys: BTreeMap<_, _> =
        case.records().concat().into_iter().map(|record| (record.key, record.millis)).collect();
    assert_eq!(keys.len(), 100);
}

#[test]
fn bad_names_and_absent_brokers() {
    let mut case = Case::new(lines(1).as_bytes());
    case.args.topic = "no/topic".to_owned();
    assert!(matches!(case.load(), Err(Error::Usage(_))));

    case.args.topic = topic();
    let nobody = Properties::new(Some("localhost:1"), None, std::iter::empty(), &[]).expect("valid");
    let error = load(&case.args, &nobody, QUIET, &Interrupt::default()).1.expect_err("fails");
    assert_eq!(error.exit_code(), 1);
}

fn wait_for_records(topic: &str, count: i64) {
    let cluster = Cluster::connect(&properties(), "test").expect("connects");
    until(|| {
        cluster.topic(topic).ok().flatten().is_some_and(|found| {
            cluster.watermarks(&found).is_ok_and(|all| all.iter().map(|w| w.high).sum::<i64>() >= count)
        })
    });
}

#[test]
fn lines_that_the_broker_refuses_are_named_at_once() {
    let content = format!("{}\n\n{}\n{}\n{}\n", line(0), line(1), line(6), line(13));
    let case = Case::new(content.as_bytes());
    create(&case.args.topic, 1, &[("cleanup.policy", "compact")]);
    let error = case.load().expect_err("fails");
    assert_eq!(error.exit_code(), 1);
    let text = error.to_string();
    assert!(text.contains("line 4 of ") && text.contains("key null"), "{text}");
    assert!(text.contains("compacted"), "{text}");
    assert!(case.records().concat().is_empty());
}
