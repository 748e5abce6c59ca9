//! One identity with several contents, copies with other timestamps, and other writers.

use replicator::{OnConflict, Reason, Receipt, Result, TargetScan};

use crate::kit::*;

/// Records with users as keys: 20 users, each with many events.
fn users(count: usize) -> Vec<Record> {
    day(count, 1)
        .into_iter()
        .enumerate()
        .map(|(n, r)| Record { key: Some(format!("user-{}", n % 20).into_bytes()), ..r })
        .collect()
}

#[test]
fn a_user_id_as_key_is_refused_with_the_counts_and_the_way_out() {
    let pair = Pair::new(1, 1);
    produce(&pair.a, &users(600));
    let (plan, result) = pair.plan();
    assert_eq!(result.expect_err("a plan finds it").exit_code(), 1);
    assert_eq!(plan.counts.conflicts, 158);
    let command = plan.command.expect("a command");
    assert!(command.ends_with("--identity record"), "{command}");
    let (receipt, result) = pair.fill();
    let error = result.expect_err("refused");
    assert_eq!(error.exit_code(), 1);
    assert_eq!(receipt.counts.conflicts, 158, "178 records of 20 users");
    assert_eq!(receipt.examples.len(), 5);
    assert!(error.to_string().contains("--identity record"), "{error}");
    assert!(error.to_string().contains("--identity key+value"), "{error}");
    assert_same(&consume(&pair.b), &[]);
    let pair = pair.with(|job| job.selection.rules.identity = "key+value".parse().expect("an identity"));
    assert_eq!(pair.filled().counts.written, 178);
    pair.assert_filled(&[]);
}

#[test]
fn one_identity_with_two_contents_in_one_run_or_two() {
    let pair = Pair::new(1, 1).with(|job| job.limits.records = 50);
    let mut records = day(600, 1);
    records[240].key = records[100].key.clone();
    produce(&pair.a, &records[..200]);
    let first = pair.filled();
    assert_eq!(first.counts.conflicts, 0, "the first stands there alone, as after a kill");
    let before = consume(&pair.b);
    produce(&pair.a, &records[200..]);
    for _ in 0..2 {
        let (receipt, result) = pair.fill();
        assert_eq!(result.expect_err("refused").exit_code(), 1);
        assert_eq!(receipt.counts.conflicts, 1, "each run sees the same");
    }
    let after = consume(&pair.b);
    assert_same(&after[..before.len()], &before);
    let pair = pair.with(|job| job.selection.rules.on_conflict = OnConflict::Skip);
    let receipt = pair.filled();
    assert_eq!(receipt.counts.conflicts, 1);
    let wanted: Vec<Record> = window_of(&records).into_iter().filter(|r| *r != records[240]).collect();
    assert_same(&consume(&pair.b), &wanted);
}

#[test]
fn equal_records_in_the_source_are_written_once() {
    let pair = Pair::new(1, 1);
    let mut records = day(600, 1);
    let twice: Vec<Record> = records[100..110].to_vec();
    records.extend(twice);
    produce(&pair.a, &records);
    let receipt = pair.filled();
    assert_eq!((receipt.counts.written, receipt.counts.duplicates_in_source), (178, 10));
    assert_same(&consume(&pair.b), &window_of(&records[..600]));
    assert_eq!(pair.filled().counts.written, 0);
}

#[test]
fn copies_that_the_target_doubled_before_are_reported() {
    let pair = Pair::new(1, 1);
    let records = day(600, 1);
    produce(&pair.a, &records);
    produce(&pair.b, &records[100..130]);
    produce(&pair.b, &records[110..120]);
    let receipt = pair.filled();
    assert_eq!(receipt.duplicates_in_target, 10);
    assert_eq!((receipt.counts.written, receipt.counts.already_in_target), (148, 30));
    let (findings, result) = pair.verify();
    assert_eq!(result.expect_err("verify sees them").exit_code(), 4);
    assert_eq!((findings.duplicated, findings.missing, findings.extra), (10, 0, 0));
}

#[test]
fn another_content_in_the_target_is_a_conflict() {
    let pair = Pair::new(1, 1);
    let records = day(600, 1);
    produce(&pair.a, &records);
    let changed = Record { value: Some(b"changed".to_vec()), ..records[120].clone() };
    let mut with_header = records[121].clone();
    with_header.headers.push(("by".into(), Some(b"somebody".to_vec())));
    produce(&pair.b, &[changed, with_header]);
    let (receipt, result) = pair.fill();
    assert_eq!(result.expect_err("refused").exit_code(), 1);
    assert_eq!(receipt.counts.conflicts, 2);
    let (findings, _) = pair.verify();
    assert_eq!(findings.changed, 2);
}

#[test]
fn a_target_that_stamps_its_records_is_refused() {
    let pair = Pair::new(1, 1);
    let stamped = format!("{}-stamped", pair.b);
    create(&stamped, 1, &[("message.timestamp.type", "LogAppendTime")]);
    let records = day(600, 1);
    produce(&pair.a, &records);
    produce(&stamped, &records[..150]);
    let pair = Pair { a: pair.a.clone(), b: stamped.clone(), job: job(&pair.a, &stamped) };
    let error = pair.fill().1.expect_err("refused");
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("--target-scan all"), "{error}");
    let pair = pair.with(|job| job.selection.rules.target_scan = TargetScan::All);
    let receipt = pair.filled();
    assert_eq!(receipt.counts.already_in_target + receipt.counts.written, 178);
    assert_eq!(receipt.counts.already_in_target, 61);
    assert_eq!(pair.filled().counts.written, 0);
    assert_eq!(consume(&stamped).len(), 150 + 117);
}

#[test]
fn a_target_that_stamped_its_records_before_is_refused() {
    let pair = Pair::new(1, 1);
    let turned = format!("{}-turned", pair.b);
    create(&turned, 1, &[("message.timestamp.type", "LogAppendTime")]);
    let records = day(600, 1);
    produce(&pair.a, &records);
    produce(&turned, &records[100..150]);
    alter(&turned, "message.timestamp.type", "CreateTime");
    let pair = Pair { a: pair.a.clone(), b: turned.clone(), job: job(&pair.a, &turned) };
    assert_eq!(pair.fill().1.expect_err("refused").exit_code(), 3);
    assert_eq!(consume(&turned).len(), 50);
}

/// A copier that stamps its own time copied all but the window. The fill writes the window's records, with the source's
/// timestamps.
#[test]
fn a_hole_in_a_target_whose_copies_bear_other_times_is_filled() {
    let pair = Pair::new(2, 2);
    let records = day(600, 2);
    produce(&pair.a, &records);
    let now = chrono::Utc::now().timestamp_millis();
    let before: Vec<Record> = outside_of(&records).into_iter().map(|r| Record { time: now, ..r }).collect();
    produce(&pair.b, &before);
    assert_eq!(pair.filled().counts.written, 178);
    assert_eq!(consume(&pair.b).len(), 600);
    let pair = pair.with(|job| job.selection.rules.target_scan = TargetScan::All);
    assert_eq!(pair.filled().counts.written, 0);
}

/// A fill, while somebody else adds records to the target.
fn fill_beside(pair: &Pair, others: &[Record]) -> (Receipt, Result<()>) {
    std::thread::scope(|scope| {
        let fill = scope.spawn(|| pair.fill());
        until(|| watermarks(&pair.b)[0].1 > 100);
        produce(&pair.b, others);
        fill.join().expect("ends")
    })
}

#[test]
fn somebody_else_adding_the_same_records_during_the_fill_is_found() {
    let pair = Pair::new(1, 1).with(|job| job.limits.records = 5);
    let records = day(6000, 1);
    produce(&pair.a, &records);
    let others = window_of(&records);
    let (_, result) = fill_beside(&pair, &others[..10]);
    let error = result.expect_err("found");
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains("somebody else"), "{error}");
    let again = pair.filled();
    assert_eq!(again.counts.written, 0);
    assert_eq!(again.duplicates_in_target, 10, "what was found is not forgotten");
}

/// As the model found it: neither record of such a double is the run's.
#[test]
fn somebody_else_adding_again_what_the_target_held_is_found() {
    let pair = Pair::new(1, 1).with(|job| job.limits.records = 5);
    let records = day(6000, 1);
    produce(&pair.a, &records);
    let others = window_of(&records);
    produce(&pair.b, &others[..10]);
    let (_, result) = fill_beside(&pair, &others[..10]);
    let error = result.expect_err("found");
    assert_eq!((error.exit_code(), error.reason()), (1, Reason::DoubledByOthers), "{error}");
    assert!(error.to_string().contains("somebody else added 10"), "{error}");
    let again = pair.filled();
    assert_eq!((again.counts.written, again.duplicates_in_target), (0, 10));
}

#[test]
fn somebody_else_adding_other_records_during_the_fill_is_no_matter() {
    let pair = Pair::new(1, 1).with(|job| job.limits.records = 5);
    let records = day(6000, 1);
    produce(&pair.a, &records);
    let others: Vec<Record> =
        (0..50).map(|n| record(0, WINDOW.1 + HOUR, &format!("live-{n}"), "live")).collect();
    let (_, result) = fill_beside(&pair, &others);
    result.expect("fills");
    pair.assert_filled(&others);
}

#[test]
fn the_look_for_what_somebody_else_added_keeps_to_the_memory_of_the_index() {
    let pair = Pair::new(1, 1).with(|job| {
        job.limits.records = 5;
        job.selection.index_memory = 128 << 10;
    });
    let records = day(6000, 1);
    produce(&pair.a, &records);
    let others: Vec<Record> =
        (0..20_000).map(|n| record(0, WINDOW.0, &format!("live-{n}"), "live")).collect();
    let (_, result) = fill_beside(&pair, &others);
    let error = result.expect_err("they do not fit");
    assert_eq!((error.exit_code(), error.reason()), (1, Reason::IndexMemory), "{error}");
    let again = pair.with(|job| job.selection.index_memory = 1 << 20);
    assert_eq!(again.filled().counts.written, 0);
    again.assert_holds(&others, &window_of(&records));
}
