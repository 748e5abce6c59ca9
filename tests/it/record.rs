//! With `--identity record`, the target must hold each record as often as the source does.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};

use rstest::rstest;

use replicator::{Identity, partition};

use crate::kit::*;

/// Records with devices as keys. Each device repeats itself, sometimes in the same millisecond.
fn devices(count: usize, partitions: i32) -> Vec<Record> {
    let records = day(count, partitions).into_iter().enumerate().map(|(n, record)| Record {
        key: Some(format!("device-{}", n % 7).into_bytes()),
        value: Some(format!("state {}", n % 3).into_bytes()),
        ..record
    });
    let twice = |(n, record): (usize, Record)| vec![record; if n % 10 == 0 { 3 } else { 1 }];
    records.enumerate().flat_map(twice).collect()
}

fn by_record(pair: Pair) -> Pair {
    pair.with(|job| job.selection.rules.identity = Identity::Record)
}

fn sorted(mut records: Vec<Record>) -> Vec<Record> {
    records.sort();
    records
}

/// Checks that the target holds each record as often as the source's window and `outside` do together. Also checks that
/// a further run writes nothing, and that `verify` agrees.
fn assert_counted(pair: &Pair, outside: &[Record]) {
    let wanted = sorted([&window_of(&consume(&pair.a)), outside].concat());
    assert_same(&sorted(consume(&pair.b)), &wanted);
    assert_eq!(pair.filled().counts.written, 0);
    assert_same(&sorted(consume(&pair.b)), &wanted);
    let (findings, result) = pair.verify();
    result.unwrap_or_else(|e| panic!("verify agrees: {e} {findings:?}"));
}

#[test]
fn equal_records_are_counted() {
    let pair = by_record(Pair::new(2, 2));
    let records = devices(1000, 2);
    produce(&pair.a, &records);
    // The target already holds one or two records of each triple in the window.
    let window = window_of(&records);
    let before: Vec<Record> = window.iter().step_by(2).cloned().collect();
    let outside = outside_of(&records);
    produce(&pair.b, &[&before[..], &outside[..]].concat());
    let receipt = pair.filled();
    assert_eq!(receipt.counts.written, (window.len() - before.len()) as u64);
    assert_eq!((receipt.counts.conflicts, receipt.counts.duplicates_in_source), (0, 0));
    assert_counted(&pair, &outside);
}

/// The same key and value at ten times. No other identity fits these records.
#[rstest]
#[case("key")]
#[case("key+value")]
#[case("value")]
fn what_no_other_identity_takes(#[case] identity: &str) {
    let pair = Pair::new(1, 1);
    let records: Vec<Record> = (0..10).map(|n| record(0, WINDOW.0 + n * MINUTE, "device", "ok")).collect();
    produce(&pair.a, &records);
    let pair = pair.with(|job| job.selection.rules.identity = identity.parse().expect("an identity"));
    let error = pair.fill().1.expect_err("conflicts");
    assert_eq!(error.exit_code(), 1);
    let text = error.to_string();
    assert!(text.contains("--identity record"), "{text}");
    assert!(!text.contains(&format!("--identity {identity},")), "it does not name the one in use: {text}");
    let pair = by_record(pair);
    assert_eq!(pair.filled().counts.written, 10);
    assert_counted(&pair, &[]);
}

#[test]
fn a_target_that_has_more_is_reported() {
    let pair = by_record(Pair::new(1, 1));
    let records = day(600, 1);
    produce(&pair.a, &records);
    let window = window_of(&records);
    produce(&pair.b, &[&window[..10], &window[..4]].concat());
    let receipt = pair.filled();
    assert_eq!((receipt.counts.written, receipt.duplicates_in_target), (168, 4));
    let (findings, result) = pair.verify();
    assert_eq!(result.expect_err("differs").exit_code(), 4);
    assert_eq!((findings.duplicated, findings.missing, findings.extra), (4, 0, 0));
}

/// If the partition counts are equal, equal records in two partitions are different records. If not, the counts are
/// over the whole topic.
#[rstest]
#[case::kept(2)]
#[case::not_kept(3)]
fn equal_records_of_two_partitions(#[case] of_b: i32) {
    let pair = by_record(Pair::new(2, of_b));
    let of = |partition: i32| -> Vec<Record> {
        (0..10).map(|n| record(partition, WINDOW.0 + n, "key", "value")).collect()
    };
    produce(&pair.a, &[of(0), of(1)].concat());
    produce(&pair.b, &of(partition::of_key(b"key", usize::try_from(of_b).expect("fits"))));
    let receipt = pair.filled();
    assert_eq!((receipt.counts.already_in_target, receipt.counts.written), (10, 10));
    assert_eq!(consume(&pair.b).len(), 20);
    assert_eq!(pair.filled().counts.written, 0);
}

#[rstest]
#[case::after_the_scan("after-scan", 1)]
#[case::in_mid_transaction("after-send", 150)]
#[case::after_send_offsets("after-send-offsets", 1)]
#[case::after_the_first_commit("after-commit", 1)]
#[case::before_later_offsets("before-send-offsets", 3)]
#[case::after_a_later_commit("after-commit", 3)]
#[case::after_the_copy("after-copy", 1)]
#[case::after_the_close("after-close", 1)]
fn a_run_that_dies(#[case] instant: &str, #[case] pass: usize) {
    let pair = by_record(Pair::new(2, 2));
    let records = devices(2000, 2);
    produce(&pair.a, &records);
    let before: Vec<Record> = [&outside_of(&records)[..100], &window_of(&records)[..40]].concat();
    produce(&pair.b, &before);
    let outside: Vec<Record> = outside_of(&before);
    let passes = if pass > 1 { format!("{}*off->", pass - 1) } else { String::new() };
    let run = |failpoints: &str| {
        let mut command = pair.command(100);
        command.args(["--identity", "record"]).env("FAILPOINTS", failpoints).output().expect("runs")
    };
    let first = run(&format!("{instant}={passes}return"));
    assert_eq!(first.status.signal(), Some(9), "it passes this instant: {}", stderr(&first));
    assert_counted_after(&pair, &outside, || run(""));
}

fn assert_counted_after(pair: &Pair, outside: &[Record], run: impl Fn() -> std::process::Output) {
    let output = run();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_counted(pair, outside);
}

/// Each start-up within a run counts anew.
#[test]
fn a_run_that_starts_up_again() {
    let pair = by_record(Pair::new(2, 2));
    produce(&pair.a, &devices(2000, 2));
    let mut command = pair.command(100);
    command.args(["--identity", "record"]).env("FAILPOINTS", "abort=1*off->1*return->1*off->1*return->off");
    let output = command.output().expect("runs");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(receipt(&output)["restarts"], 2);
    let window = window_of(&consume(&pair.a)).len() as u64;
    assert_eq!(receipt(&output)["written"], window);
    assert_counted(&pair, &[]);
}

#[test]
fn instances_share_the_window() {
    let pair = by_record(Pair::new(6, 6));
    let records = devices(6000, 6);
    produce(&pair.a, &records);
    produce(&pair.b, &outside_of(&records));
    let spawn = || -> Child {
        let mut command = pair.command(20);
        command.args(["--identity", "record", "--scale-out", "--max-rate", "300/s"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
    };
    let children: Vec<Child> = (0..3).map(|_| spawn()).collect();
    for child in children {
        let output = child.wait_with_output().expect("ends");
        assert_eq!(code(&output), 0, "{}", stderr(&output));
    }
    assert_counted(&pair, &outside_of(&records));
}

#[test]
fn instances_need_as_many_partitions() {
    let pair = by_record(Pair::new(2, 3)).with(|job| job.scale_out = true);
    produce(&pair.a, &devices(100, 2));
    let error = pair.fill().1.expect_err("refused");
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("without --scale-out"), "{error}");
    assert!(consume(&pair.b).is_empty());
}

#[test]
fn somebody_else_adding_equal_records_is_found() {
    let pair = by_record(Pair::new(1, 1)).with(|job| job.limits.records = 5);
    let records = devices(6000, 1);
    produce(&pair.a, &records);
    let others = window_of(&records);
    let (_, result) = std::thread::scope(|scope| {
        let fill = scope.spawn(|| pair.fill());
        until(|| watermarks(&pair.b)[0].1 > 100);
        produce(&pair.b, &others[..9]);
        fill.join().expect("ends")
    });
    let error = result.expect_err("found");
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains("somebody else"), "{error}");
    let again = pair.filled();
    assert_eq!((again.counts.written, again.duplicates_in_target), (0, 9));
}

/// A running mirror copies a record that reached the source while the run began. The record equals an earlier one that
/// the target lacks. The run must not silently take the copy for that earlier one.
#[test]
fn a_copy_of_a_later_record_does_not_stand_for_an_earlier_one() {
    let pair = by_record(Pair::new(1, 1));
    let ok = [record(0, WINDOW.0 + MINUTE, "device", "ok")];
    produce(&pair.a, &ok);
    let mut command = pair.command(100);
    command.args(["--identity", "record", "-v"]).env("FAILPOINTS", "between-the-ends=sleep(4000)");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut log = BufReader::new(child.stderr.take().expect("piped")).lines().map(|line| line.expect("text"));
    assert!(log.any(|line| line.contains("took the target's ends")));
    produce(&pair.a, &ok);
    produce(&pair.b, &ok);
    let log: Vec<String> = log.collect();
    let output = child.wait_with_output().expect("ends");
    let (held, wanted) = (consume(&pair.b).len(), consume(&pair.a).len());
    assert!(held >= wanted, "lost: {held} of {wanted}, {log:?}");
    assert!(held == wanted || code(&output) == 1, "doubled in silence: {log:?}");
}
