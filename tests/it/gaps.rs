//! `gaps` finds the holes that the tests made.

use std::time::Duration;

use rstest::rstest;

use replicator::{Gaps, Interrupt, Progress, Window, WindowSpec, gaps, rfc3339};

use crate::kit::*;

/// Runs a printed command as somebody does who pastes it into a shell, in which nothing names the brokers.
fn pasted(command: &str) -> std::process::Output {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_replicator"));
    let path = std::env::var("PATH").expect("a path");
    let path = format!("{}:{path}", program.parent().expect("a folder").display());
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", command]).env("PATH", path).env_remove("KAFKA_BOOTSTRAP_SERVERS");
    shell.output().expect("runs")
}

fn find(pair: &Pair) -> Gaps {
    let mut selection = pair.job.selection.clone();
    selection.window = WindowSpec::Instants(Window { start: None, end: None });
    gaps(&selection, Duration::from_secs(60), None, Progress { quiet: true }, &Interrupt::default())
        .expect("looks")
}

/// 4050 records, one every six seconds. The target gets those for which `keeps` is true.
fn pair(keeps: impl Fn(usize) -> bool) -> (Pair, Vec<Record>) {
    let pair = Pair::new(3, 3);
    let day = day(4050, 3);
    produce(&pair.a, &day);
    let kept: Vec<Record> =
        day.iter().enumerate().filter(|(n, _)| keeps(*n)).map(|(_, r)| r.clone()).collect();
    produce(&pair.b, &kept);
    (pair, day)
}

/// `made` has half-open ranges of record numbers.
#[rstest]
#[case::none(&[])]
#[case::in_the_middle(&[(600, 1800)])]
#[case::at_the_start(&[(0, 77)])]
#[case::at_the_end(&[(4000, 4050)])]
#[case::several(&[(0, 1), (100, 200), (3000, 3001), (4049, 4050)])]
#[case::everything(&[(0, 4050)])]
fn holes(#[case] made: &[(usize, usize)]) {
    let (pair, day) = pair(|n| !made.iter().any(|(from, to)| (*from..*to).contains(&n)));
    let found = find(&pair);
    let missing: usize = made.iter().map(|(from, to)| to - from).sum();
    assert_eq!((found.missing, found.in_source), (missing as u64, 4050));
    let edges: Vec<(String, String, u64, u64)> = found
        .holes
        .iter()
        .map(|h| (h.first_missing.clone(), h.last_missing.clone(), h.missing, h.of))
        .collect();
    let wanted: Vec<(String, String, u64, u64)> = made
        .iter()
        .map(|(from, to)| {
            let count = (to - from) as u64;
            (rfc3339(day[*from].time), rfc3339(day[to - 1].time), count, count)
        })
        .collect();
    assert_eq!(edges, wanted);
}

#[test]
fn a_thinned_stretch_is_a_partial_hole() {
    let (pair, day) = pair(|n| !(1000..2000).contains(&n) || n % 4 != 0);
    let found = find(&pair);
    assert_eq!(found.holes.len(), 1, "{found}");
    let hole = &found.holes[0];
    assert_eq!((hole.missing, hole.of), (250, 997));
    assert_eq!(hole.first_missing, rfc3339(day[1000].time));
    assert_eq!(hole.last_missing, rfc3339(day[1996].time));
}

#[test]
fn a_partition_that_stood_still() {
    let (pair, _) = pair(|n| !(600..1800).contains(&n) || n % 3 != 1);
    let found = find(&pair);
    assert_eq!(found.holes.len(), 1, "{found}");
    assert_eq!(found.holes[0].per_partition, [0, 400, 0]);
}

#[test]
fn the_command_that_is_printed_fills_the_hole() {
    let (pair, day) = pair(|n| !(600..1800).contains(&n) && !(3000..3100).contains(&n));
    // An aborted transaction is no record of either.
    Foreign::begin().send(&pair.a, &day[..10]).abort();
    let arguments = ["gaps", "--source", &pair.a, "--target", &pair.b, "--output", "json"];
    let output = replicator(&arguments).output().expect("runs");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let holes = receipt(&output)["holes"].as_array().expect("holes").clone();
    assert_eq!(holes.len(), 2);
    for hole in holes {
        let command = hole["command"].as_str().expect("a command");
        let filled = pasted(command);
        assert_eq!(code(&filled), 0, "{}", stderr(&filled));
    }
    assert!(find(&pair).holes.is_empty());
    let by_key = |mut records: Vec<Record>| {
        records.sort_by(|a, b| a.key.cmp(&b.key));
        records
    };
    assert_same(&by_key(consume(&pair.b)), &by_key(day));
    let text = replicator(&arguments[..5]).output().expect("runs");
    assert!(String::from_utf8_lossy(&text.stdout).contains("lacks none of the 4050 records"), "{text:?}");
}

/// Keys are users. If the target holds one record of a key, this says nothing about the other records of that key.
#[test]
fn keys_that_many_records_share_hide_no_hole() {
    let pair = Pair::new(2, 2);
    let records: Vec<Record> = day(1200, 2)
        .into_iter()
        .enumerate()
        .map(|(n, r)| Record { key: Some(format!("user-{}", n % 20).into_bytes()), ..r })
        .collect();
    produce(&pair.a, &records);
    produce(&pair.b, &outside_of(&records));
    let missing = window_of(&records).len() as u64;
    let found = find(&pair);
    assert_eq!((found.missing, found.conflicts), (missing, missing));
    assert_eq!(found.holes.len(), 1, "{found}");
    let command = &found.holes[0].command;
    assert!(command.contains("--identity record"), "{command}");
    let filled = pasted(command);
    assert_eq!(code(&filled), 0, "{}", stderr(&filled));
    let found = find(&pair);
    assert_eq!((found.missing, found.only_in_target), (0, 0), "{found}");
    let sorted = |mut records: Vec<Record>| {
        records.sort();
        records
    };
    assert_same(&sorted(consume(&pair.b)), &sorted(records));
}

/// Some count includes each record that was read.
#[test]
fn what_stands_in_no_hole_is_named() {
    let pair = Pair::new(1, 1).with(|job| {
        job.selection.event_time = replicator::EventTime::Field("/at".parse().expect("a pointer"));
    });
    let timed = |n: i64, key: &str| record(0, WINDOW.0 + n, key, &format!("{{\"at\":{}}}", WINDOW.0 + n));
    let without = |n: i64, key: &str| record(0, WINDOW.0 + n, key, "{}");
    produce(&pair.a, &[timed(0, "a"), timed(0, "a"), timed(1, "b"), without(2, "c"), without(3, "d")]);
    produce(&pair.b, &[timed(0, "a"), timed(9, "other"), without(2, "c")]);
    let found = find(&pair);
    assert_eq!((found.in_source, found.in_target, found.missing), (5, 3, 2));
    assert_eq!((found.duplicates_in_source, found.only_in_target, found.doubled), (1, 1, 0));
    let none = found.without_time;
    assert_eq!((none.in_source, none.in_target, none.missing), (2, 1, 1));
    let text = found.to_string();
    assert!(text.contains("have no event time: 1 of them are missing"), "{text}");
    assert!(text.contains("lacks 2 of the 5 records"), "{text}");
}

/// If the whole target is compared, the counts still leave out records outside of the window.
#[test]
fn the_window_alone_is_told_of_whatever_is_compared() {
    let pair = Pair::new(1, 1).with(|job| job.selection.rules.target_scan = replicator::TargetScan::All);
    let records = day(600, 1);
    produce(&pair.a, &records);
    produce(&pair.b, &records);
    let found = gaps(
        &pair.job.selection,
        Duration::from_secs(60),
        None,
        Progress { quiet: true },
        &Interrupt::default(),
    )
    .expect("looks");
    assert_eq!((found.in_source, found.in_target), (178, 178));
    assert_eq!((found.missing, found.only_in_target, found.doubled), (0, 0, 0));
}

/// `gaps` also reports copies of the missing records with another timestamp.
#[test]
fn copies_under_another_time_are_named() {
    let (pair, day) = pair(|n| !(600..1800).contains(&n));
    let stamped: Vec<Record> = day[700..800]
        .iter()
        .map(|r| Record { time: chrono::Utc::now().timestamp_millis(), ..r.clone() })
        .collect();
    produce(&pair.b, &stamped);
    let found = find(&pair);
    assert_eq!((found.missing, found.conflicts, found.only_in_target), (1200, 100, 100));
    let found = gaps(
        &pair.job.selection,
        Duration::from_secs(60),
        None,
        Progress { quiet: true },
        &Interrupt::default(),
    )
    .expect("looks");
    assert_eq!(found.under_another_time, 100, "{found}");
    assert!(found.warnings[0].contains("differ only in timestamp"), "{found:?}");
}

/// The printed command has what a shell would read otherwise, and what the connection needs.
#[test]
fn the_command_that_is_printed_can_be_pasted_whatever_was_given() {
    let pair = Pair::new(1, 1);
    let timed =
        |n: i64, key: &str| record(0, WINDOW.0 + n, key, &format!("{{\"the time\":{}}}", WINDOW.0 + n));
    produce(&pair.a, &[timed(0, "a"), timed(1, "b"), timed(2, "c")]);
    produce(&pair.b, &[timed(0, "a")]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("it's mine.properties").display().to_string();
    std::fs::write(&file, "client.id=me\n").expect("written");
    let arguments = ["gaps", "--source", &pair.a, "--target", &pair.b, "--time-field", "/the time"];
    let more = ["-F", &file, "-X", "linger.ms=5", "--skip-invalid", "-o", "json"];
    let found = receipt(&replicator(&[&arguments[..], &more].concat()).output().expect("runs"));
    let command = found["holes"][0]["command"].as_str().expect("a command").to_owned();
    for part in [broker(), "-X linger.ms=5", "-F '", "--time-field '/the time'", "--skip-invalid"] {
        assert!(command.contains(part), "{part}: {command}");
    }
    let filled = pasted(&command);
    assert_eq!(code(&filled), 0, "{command}: {}", stderr(&filled));
    assert_eq!(consume(&pair.b).len(), 3);
}
