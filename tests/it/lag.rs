//! `lag` says how far a job is behind, and never takes silence for an answer.

use std::process::Output;

use rdkafka::Offset;
use rdkafka::producer::Producer;
use rstest::rstest;
use serde_json::{Value, json};

use crate::follow_marks::{At, Marks};
use crate::kit::*;
use crate::raw;
use crate::secure::{DESCRIBE, GROUP};

/// A time of the past.
const LEVEL: &str = "2026-01-01T00:00:00Z";

fn lag(pair: &Pair, more: &[&str]) -> Output {
    let topics = ["lag", "--source", &pair.a, "--target", &pair.b, "--output", "json"];
    replicator(&topics).args(more).output().expect("runs")
}

fn answer(output: &Output, code: i32) -> Value {
    assert_eq!(self::code(output), code, "{}", stderr(output));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// A pair whose source has `counts` records in its partitions.
fn pair(counts: &[i64]) -> (Pair, Marks) {
    let partitions = i32::try_from(counts.len()).expect("few");
    let pair = Pair::new(partitions, partitions);
    let of = |(partition, count): (i32, &i64)| (0..*count).map(move |n| record(partition, DAY + n, "k", "v"));
    produce(&pair.a, &(0..).zip(counts).flat_map(of).collect::<Vec<_>>());
    let marks = Marks::of_pair(&pair);
    (pair, marks)
}

fn ago(millis: i64) -> String {
    replicator::rfc3339(chrono::Utc::now().timestamp_millis() - millis)
}

#[test]
fn positions_ends_and_what_is_left() {
    let (pair, marks) = pair(&[10, 10, 10]);
    let now = chrono::Utc::now().timestamp_millis();
    produce(&pair.a, &[record(2, now - MINUTE, "k", "v")]);
    let before = (watermarks(&pair.a), watermarks(&pair.b));
    marks.commit(&[(0, 10, 0), (1, 4, 0), (2, 10, 0)], &ago(HOUR));
    let found = answer(&lag(&pair, &[]), 0);
    assert_eq!(
        (&found["status"], &found["group"], &found["ledger"]),
        (&json!("done"), &json!(marks.group), &json!(pair.a))
    );
    assert_eq!((&found["source"], &found["target"]), (&json!(pair.a), &json!(pair.b)));
    let each: Vec<Value> = found["partitions"].as_array().expect("partitions").clone();
    let numbers = |of: &Value| {
        ["partition", "position", "low", "end", "lag"].map(|name| of[name].as_i64().expect("a number"))
    };
    let wanted = [[0, 10, 0, 10, 0], [1, 4, 0, 10, 6], [2, 10, 0, 11, 1]];
    assert_eq!(each.iter().map(numbers).collect::<Vec<_>>(), wanted);
    let seconds: Vec<f64> = each.iter().map(|of| of["behind_seconds"].as_f64().expect("a number")).collect();
    // The records of partition 1 are of 2021, but an hour ago nothing was left.
    assert!(seconds[0] == 0.0 && (3600.0..30_000.0).contains(&seconds[1]), "{seconds:?}");
    assert!((60.0..3600.0).contains(&seconds[2]), "{seconds:?}");
    assert_eq!((&found["lag"], &found["behind_seconds"]), (&json!(7), &each[1]["behind_seconds"]));
    assert_eq!((watermarks(&pair.a), watermarks(&pair.b)), before, "it writes nothing");
    let committed = side_a().committed(&marks.group, &pair.a);
    assert_eq!(committed.iter().map(|at| at.0).collect::<Vec<_>>(), [10, 4, 10]);
    let made = side_a().topics().into_iter().filter(|name| name.contains(&pair.a));
    assert_eq!(made.collect::<Vec<_>>(), std::slice::from_ref(&pair.a));
    let text = replicator(&["lag", "--source", &pair.a, "--target", &pair.b]).output().expect("runs");
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["partition", "position", "end", "lag", "seconds", "behind"], "{text}");
    assert_eq!(
        (&rows[1][..], &rows[2][..4], &rows[4][..2]),
        (&["0", "10", "10", "0", "0.0"][..], &["1", "4", "10", "6"][..], &["all", "7"][..])
    );
}

#[rstest]
#[case::beyond("5", 4)]
#[case::just_so_much("6", 0)]
#[case::none_is_allowed("0", 4)]
fn more_than_the_most(#[case] most: &str, #[case] code: i32) {
    let (pair, marks) = pair(&[3, 4]);
    marks.commit(&[(0, 1, 0), (1, 0, 0)], LEVEL);
    let output = lag(&pair, &["--max-lag", most]);
    let found = answer(&output, code);
    assert_eq!(found["lag"], 6, "the numbers are there in any case: {found}");
    if code == 4 {
        assert_eq!((&found["status"], &found["error"]["reason"]), (&json!("different"), &json!("lagging")));
        assert!(stderr(&output).contains("6 offsets"), "{}", stderr(&output));
    }
}

/// The positions of a fill, and those that somebody set by hand, say nothing about time.
#[test]
fn only_a_follow_knows_since_when() {
    let (pair, marks) = pair(&[3]);
    reset_group(&marks.group, &pair.a, Offset::Offset(1));
    let found = answer(&lag(&pair, &[]), 0);
    let of = &found["partitions"][0];
    assert_eq!((&of["position"], &of["lag"], &of["behind_seconds"]), (&json!(1), &json!(2), &Value::Null));
    assert_eq!(found["behind_seconds"], Value::Null);
}

#[test]
fn a_partition_without_position_counts_from_where_the_source_begins() {
    let (pair, marks) = pair(&[10, 10]);
    trim(&pair.a, 1, 4);
    marks.commit(&[(0, 10, 0)], LEVEL);
    let output = lag(&pair, &["--max-lag", "5"]);
    let found = answer(&output, 4);
    let of = &found["partitions"][1];
    assert_eq!((&of["position"], &of["lag"], &of["behind_seconds"]), (&Value::Null, &json!(6), &Value::Null));
    assert_eq!((&found["lag"], &found["behind_seconds"]), (&json!(6), &Value::Null));
    let told = found["warnings"][0].as_str().expect("a warning");
    assert!(told.contains("partition 1: the job has committed no position"), "{told}");
    let text = replicator(&["lag", "--source", &pair.a, "--target", &pair.b]).output().expect("runs");
    assert!(String::from_utf8_lossy(&text.stdout).contains("  1                       -"), "{text:?}");
}

#[rstest]
#[case::deleted(3, "records-deleted", "3 offsets were deleted before they were copied")]
#[case::cut(11, "log-lost", "ends at offset 10, below the position 11")]
fn a_position_outside_of_the_log(#[case] position: i64, #[case] reason: &str, #[case] says: &str) {
    let (pair, marks) = pair(&[10, 10]);
    trim(&pair.a, 1, 6);
    marks.commit(&[(0, 2, 0), (1, position, 0)], LEVEL);
    let output = lag(&pair, &["--max-lag", "1"]);
    let found = answer(&output, 1);
    assert_eq!((&found["status"], &found["error"]["reason"]), (&json!("failed"), &json!(reason)));
    assert!(stderr(&output).contains(says), "{}", stderr(&output));
    assert_eq!(found["partitions"][1]["position"], position);
}

#[test]
fn a_job_that_never_ran_has_no_lag() {
    let (pair, marks) = pair(&[3]);
    let output = lag(&pair, &["--max-lag", "100"]);
    let found = answer(&output, 3);
    assert_eq!((&found["error"]["reason"], &found["lag"]), (&json!("no-position"), &Value::Null), "{found}");
    let told = stderr(&output);
    assert!(told.contains(&marks.group) && told.contains("--follow"), "{told}");
}

#[test]
fn the_positions_of_topics_that_are_gone_are_none() {
    let (pair, marks) = pair(&[3, 3]);
    let marks = marks.of_other_topics();
    marks.commit(&[(0, 3, 0), (1, 3, 0)], LEVEL);
    assert_eq!(answer(&lag(&pair, &[]), 3)["error"]["reason"], "topic-changed");
    Marks::of_pair(&pair).commit(&[(0, 3, 0)], LEVEL);
    let found = answer(&lag(&pair, &[]), 0);
    assert_eq!((&found["lag"], &found["partitions"][1]["position"]), (&json!(3), &Value::Null));
    assert!(found["warnings"][0].as_str().expect("a warning").contains("had these names before"), "{found}");
}

/// A group that nobody may see is not one without offsets, and neither is one of a cluster that does not answer.
#[test]
fn silence_is_not_taken_for_absence() {
    let (pair, marks) = pair(&[3]);
    marks.commit(&[(0, 3, 0)], LEVEL);
    let away = answer(&lag(&pair, &["-b", "127.0.0.1:1"]), 1);
    assert_eq!((&away["error"]["reason"], &away["lag"]), (&json!("unreachable"), &Value::Null), "{away}");
    if can_deny() {
        raw::deny(GROUP, &marks.group, DESCRIBE);
        let output = lag(&pair, &[]);
        assert_eq!(answer(&output, 3)["error"]["reason"], "no-permission");
        assert!(stderr(&output).contains(&format!("the group {}", marks.group)), "{}", stderr(&output));
    }
}

/// What a transaction is about to commit is no position yet, and `lag` does not wait for it. What a transaction of the
/// source holds back is not left yet.
#[test]
fn open_transactions_are_not_waited_for() {
    let (pair, marks) = pair(&[6]);
    marks.commit(&[(0, 2, 0)], LEVEL);
    let pending = marks.send(&[(0, 6, 0)], LEVEL);
    let open = Foreign::begin().send(&pair.a, &[record(0, DAY, "k", "v")]);
    let of = |found: &Value| (found["partitions"][0]["position"].clone(), found["lag"].clone());
    assert_eq!(of(&answer(&lag(&pair, &[]), 0)), (json!(2), json!(4)));
    pending.commit_transaction(TIMEOUT).expect("committed");
    until(|| of(&answer(&lag(&pair, &[]), 0)) == (json!(6), json!(0)));
    open.abort();
    // The aborted record and its marker are left.
    until(|| of(&answer(&lag(&pair, &[]), 0)) == (json!(6), json!(2)));
    let behind = answer(&lag(&pair, &[]), 0)["behind_seconds"].as_f64().expect("a number");
    assert!(behind > 0.0, "no record is left, so only the mark says since when: {behind}");
}

#[test]
fn many_partitions() {
    let counts: Vec<i64> = (0..120).map(|n| n % 3).collect();
    let (pair, marks) = pair(&counts);
    let positions: Vec<At> = (0..120).map(|partition| (partition, 0, 0)).collect();
    marks.commit(&positions, LEVEL);
    let found = answer(&lag(&pair, &[]), 0);
    assert_eq!(found["lag"], counts.iter().sum::<i64>());
    let each = found["partitions"].as_array().expect("partitions");
    assert!(each.iter().zip(&counts).all(|(of, count)| of["lag"] == *count), "{found}");
    assert!(each.iter().all(|of| of["behind_seconds"].is_number()), "{found}");
}

#[test]
fn between_two_clusters() {
    let across = Across::same_name(2, 2);
    let marks = Marks::across(&across);
    across.from.produce(&across.source, &day(20, 2));
    let lag = |more: &[&str]| {
        across.command(&[&["lag", "--output", "json"], more].concat()).output().expect("runs")
    };
    let never = lag(&[]);
    assert_eq!(answer(&never, 3)["error"]["reason"], "no-position", "{}", stderr(&never));
    assert!(stderr(&never).contains("the target cluster"), "{}", stderr(&never));
    assert!(!across.to.topics().contains(&marks.ledger), "it creates nothing");
    across.to.create(&marks.ledger, 2, &[]);
    let never = lag(&[]);
    assert_eq!(answer(&never, 3)["error"]["reason"], "no-position", "{}", stderr(&never));
    marks.commit(&[(0, 10, 0), (1, 7, 0)], LEVEL);
    let found = answer(&lag(&["--max-lag", "3"]), 0);
    assert_eq!(
        (&found["lag"], &found["ledger"], &found["group"]),
        (&json!(3), &json!(marks.ledger), &json!(marks.group))
    );
    assert_eq!(found["source_bootstrap_server"], json!(across.from.0));
    assert_eq!(answer(&lag(&["--max-lag", "2"]), 4)["error"]["reason"], "lagging");
    assert!(!across.from.groups().iter().any(|group| group.contains(&across.source)));
    assert_eq!(
        across.to.committed(&marks.group, &marks.ledger).iter().map(|at| at.0).collect::<Vec<_>>(),
        [10, 7]
    );
}
