//! `--max-out-of-orderness`: the reading of the source ends behind the window, and says what it took for granted.

use std::time::Duration;

use replicator::{EventTime, Reason};
use rstest::rstest;

use crate::kit::*;

/// More records than must be late in a row.
const MANY: usize = 12_000;
/// How many must be.
const IN_A_ROW: u64 = 10_000;
const BOUND: Duration = Duration::from_secs(600);

/// A job that takes the source for at most ten minutes out of order.
fn pair(partitions: i32) -> Pair {
    Pair::new(partitions, partitions).with(|job| job.selection.max_out_of_orderness = Some(BOUND))
}

/// Records of this partition behind the window, at the bound and later.
fn late(partition: i32, count: usize) -> Vec<Record> {
    let at = |n: usize| WINDOW.1 + 10 * MINUTE + i64::try_from(n % 1000).expect("fits");
    (0..count).map(|n| record(partition, at(n), &format!("late-{partition}-{n}"), "x")).collect()
}

/// `count` records of the window, in order and up to its end, in this partition.
fn of_window(partition: i32, count: usize, name: &str) -> Vec<Record> {
    let at = |n: usize| WINDOW.1 - i64::try_from(count - n).expect("fits");
    (0..count).map(|n| record(partition, at(n), &format!("{name}-{partition}-{n}"), "x")).collect()
}

fn error(pair: &Pair) -> (u8, Reason, String) {
    let error = pair.fill().1.expect_err("the promise is broken");
    (error.exit_code(), error.reason(), error.to_string())
}

fn without_the_promise(pair: Pair) -> Pair {
    pair.with(|job| job.selection.max_out_of_orderness = None)
}

/// A partition with few records behind the window is read to its end.
#[rstest]
#[case::alone(false)]
#[case::as_an_instance(true)]
fn a_partition_is_left_behind_the_window(#[case] scale_out: bool) {
    let pair = pair(2).with(|job| job.scale_out = scale_out);
    let records =
        [of_window(0, 50, "event"), late(0, MANY), of_window(1, 50, "event"), late(1, 9_000)].concat();
    let records = if scale_out {
        // Instances need keys where a partitioner puts them, so each partition gets the keys that belong there.
        let mut placed = placed(records, 2);
        placed.sort_by_key(|record| record.time >= WINDOW.1);
        placed
    } else {
        records
    };
    produce(&pair.a, &records);
    let last = |partition: i32| {
        let behind = records.iter().filter(|r| r.partition == partition && r.time >= WINDOW.1).count();
        u64::try_from(behind).expect("fits").min(IN_A_ROW)
    };
    let wanted = 100 + last(0) + last(1);
    if !scale_out {
        let (receipt, result) = pair.plan();
        result.expect("plans");
        assert_eq!((receipt.to_write, receipt.counts.read), (Some(100), wanted));
        assert!(receipt.command.expect("a command").contains(" --max-out-of-orderness 10m"));
    }
    let receipt = pair.filled();
    assert_eq!((receipt.counts.written, receipt.counts.read), (100, wanted));
    assert_eq!(receipt.assumed_max_out_of_orderness.as_deref(), Some("10m"));
    assert!(receipt.to_string().contains("more than 10m older"), "{receipt}");
    let again = pair.filled();
    assert!(again.done_before.is_some() && again.counts.read == 0, "{again:?}");
    assert_eq!(again.assumed_max_out_of_orderness.as_deref(), Some("10m"));
    pair.assert_filled(&[]);
    let whole = without_the_promise(pair).filled();
    assert_eq!((whole.counts.written, whole.counts.already_in_target), (0, 100));
    assert_eq!((whole.counts.read, whole.assumed_max_out_of_orderness), (records.len() as u64, None));
}

/// One wrong clock, and even many, says nothing of the others.
#[test]
fn records_of_the_future_lose_nothing() {
    let pair = pair(1);
    delete(&pair.a);
    create(&pair.a, 1, &[("message.timestamp.after.max.ms", "9223372036854775807")]);
    let future = chrono::Utc::now().timestamp_millis() + 4 * 365 * 24 * HOUR;
    let of_future = (0..MANY).map(|n| record(0, future, &format!("future-{n}"), "x")).collect::<Vec<_>>();
    produce(&pair.a, &[of_future, of_window(0, 50, "event"), late(0, 100)].concat());
    assert_eq!(pair.filled().counts.written, 50);
    pair.assert_filled(&[]);
}

#[test]
fn a_broken_promise_is_an_error_again_and_again() {
    let pair = pair(1);
    let older = record(0, WINDOW.0, "older", "x");
    produce(&pair.a, &[of_window(0, 50, "event"), late(0, 10), vec![older]].concat());
    for _ in 0..2 {
        let (code, reason, text) = error(&pair);
        assert_eq!((code, reason), (3, Reason::OutOfOrder), "{text}");
        let told =
            "2021-04-14T11:00:00Z, but an earlier record of its partition is of 2021-04-14T13:10:00.009Z";
        assert!(
            text.starts_with(&pair.a)
                && text.contains("offset 60")
                && text.contains(told)
                && text.contains("10m"),
            "{text}"
        );
        assert_same(&consume(&pair.b), &[]);
    }
    let pair = pair.with(|job| job.selection.max_out_of_orderness = Some(3 * BOUND));
    assert_eq!(error(&pair).0, 3, "half an hour is not enough");
    let pair = pair.with(|job| job.selection.max_out_of_orderness = Some(20 * BOUND));
    assert_eq!(pair.filled().counts.written, 51);
    pair.assert_filled(&[]);
}

/// A later run begins before what it committed, so it sees again which records are out of order.
#[test]
fn what_was_committed_before_does_not_hide_it() {
    let pair = pair(1).with(|job| job.limits.records = 20);
    // Only the first record, which is committed, shows that the last one is out of order.
    let (first, last) =
        (record(0, WINDOW.0 + 20 * MINUTE, "first", "x"), record(0, WINDOW.0 + 5 * MINUTE, "last", "x"));
    let between = (0..50).map(|n| record(0, WINDOW.0 + 11 * MINUTE, &format!("event-{n}"), "x")).collect();
    produce(&pair.a, &[vec![first], between, vec![last]].concat());
    for written in [40, 0] {
        let (receipt, result) = pair.fill();
        let error = result.expect_err("the promise is broken");
        let wanted = if written > 0 { 1 } else { 3 };
        assert_eq!((error.exit_code(), error.reason()), (wanted, Reason::OutOfOrder), "{error}");
        assert_eq!(receipt.counts.written, written);
    }
    let pair = without_the_promise(pair);
    assert_eq!(pair.filled().counts.written, 12);
    pair.assert_filled(&[]);
}

/// Nobody can see a broken promise in records that are not read. Only a run under the same promise trusts it.
#[test]
fn only_the_same_promise_is_trusted() {
    let pair = pair(1);
    produce(&pair.a, &[of_window(0, 50, "event"), late(0, MANY), of_window(0, 1, "behind")].concat());
    assert_eq!(pair.filled().counts.written, 50);
    // What arrives later is read.
    produce(&pair.a, &of_window(0, 1, "new"));
    let receipt = pair.filled();
    assert_eq!((receipt.counts.read, receipt.counts.written), (1, 1));
    let pair = pair.with(|job| job.selection.max_out_of_orderness = Some(2 * BOUND));
    assert_eq!(pair.filled().counts.written, 1, "this promise leads further");
    let (mut found, mut wanted) = (consume(&pair.b), window_of(&consume(&pair.a)));
    found.sort();
    wanted.sort();
    assert_same(&found, &wanted);
    pair.verify().1.expect("the same records");
}

/// The bound is on the event time, wherever that stands.
#[test]
fn by_the_time_of_a_field() {
    let pair =
        pair(1).with(|job| job.selection.event_time = EventTime::Field("/at".parse().expect("a pointer")));
    let now = chrono::Utc::now().timestamp_millis();
    let records: Vec<Record> = [of_window(0, 50, "event"), late(0, MANY)]
        .concat()
        .into_iter()
        .map(|r| Record { value: Some(format!("{{\"at\":{}}}", r.time).into_bytes()), time: now, ..r })
        .collect();
    produce(&pair.a, &records);
    let receipt = pair.filled();
    assert_eq!((receipt.counts.written, receipt.counts.read), (50, 50 + IN_A_ROW));
    assert_eq!(without_the_promise(pair).filled().counts.written, 0);
}

/// One partition was left, and its position committed, before the run died in another.
#[test]
fn a_run_that_dies_between_two_partitions() {
    let pair = pair(2);
    let records =
        [of_window(0, 50, "event"), late(0, MANY), of_window(1, 500, "event"), late(1, 100)].concat();
    produce(&pair.a, &records);
    for passes in ["", "1*off->", "3*off->"] {
        let mut dying = pair.command(100);
        dying
            .args(["--max-out-of-orderness", "10m"])
            .env("FAILPOINTS", format!("after-commit={passes}return"));
        assert!(!dying.output().expect("runs").status.success());
    }
    let receipt = pair.filled();
    assert!(receipt.counts.written < 550, "{receipt:?}");
    pair.assert_filled(&[]);
}

/// `verify` and `gaps` take the promise only from their own command line, and say so.
#[test]
fn a_comparison_takes_it_only_where_it_is_given() {
    let pair = pair(1);
    produce(&pair.a, &[of_window(0, 50, "event"), late(0, MANY), of_window(0, 1, "behind")].concat());
    assert_eq!(pair.filled().counts.written, 50);
    let (findings, result) = pair.verify();
    result.expect("the same, as far as it looks");
    assert_eq!((findings.in_source, findings.in_target), (50, 50));
    assert!(findings.warnings[0].contains("more than 10m older"), "{:?}", findings.warnings);
    let gaps = |options: &[&str]| {
        let mut command =
            replicator(&["gaps", "--window", "11:00-13:00", "--source", &pair.a, "--target", &pair.b]);
        let output = command.args(["--output", "json", "--exit-code"]).args(options).output().expect("runs");
        (code(&output), receipt(&output)["warnings"].to_string())
    };
    let (code, told) = gaps(&["--max-out-of-orderness", "10m"]);
    assert!(code == 0 && told.contains("more than 10m older"), "{told}");
    assert_eq!(gaps(&[]), (4, "[]".to_owned()));
    let (findings, result) = without_the_promise(pair).verify();
    assert_eq!((findings.missing, result.expect_err("one is missing").exit_code()), (1, 4));
}
