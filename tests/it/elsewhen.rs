//! Copies with another timestamp, records that only look like such copies, and the edges of the window.

use rstest::rstest;

use replicator::{Identity, Reason, TargetScan};

use crate::kit::*;

fn all(pair: Pair) -> Pair {
    pair.with(|job| job.selection.rules.target_scan = TargetScan::All)
}

fn stamped(records: &[Record], time: i64) -> Vec<Record> {
    records.iter().map(|record| Record { time, ..record.clone() }).collect()
}

fn now() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

/// Three devices say "ok" before, in and after the window.
fn beats() -> Vec<Record> {
    let at = |minutes: i64| {
        (0..3).map(move |n| record(0, DAY + 10 * HOUR + minutes * MINUTE + n, &format!("device-{n}"), "ok"))
    };
    at(30).chain(at(150)).chain(at(270)).collect()
}

#[rstest]
#[case::window(TargetScan::Window, "key+value")]
#[case::all(TargetScan::All, "key+value")]
#[case::window_by_key(TargetScan::Window, "key")]
#[case::all_by_key(TargetScan::All, "key")]
#[case::window_by_record(TargetScan::Window, "record")]
#[case::all_by_record(TargetScan::All, "record")]
fn repeated_contents_are_no_stamped_copies(#[case] scan: TargetScan, #[case] identity: &str) {
    let pair = Pair::new(1, 1).with(|job| {
        job.selection.rules.target_scan = scan;
        job.selection.rules.identity = identity.parse().expect("an identity");
    });
    produce(&pair.a, &beats());
    let before = outside_of(&beats());
    produce(&pair.b, &before);
    assert_eq!(pair.plan().0.to_write, Some(3));
    assert_eq!(pair.filled().counts.written, 3);
    pair.assert_filled(&before);
}

/// An earlier repair by hand copied a part of the window, and stamped its own time.
#[test]
fn an_earlier_repair_under_another_time_is_found_before_anything_is_written() {
    let pair = Pair::new(2, 2);
    let records = day(6000, 2);
    produce(&pair.a, &records);
    let window = window_of(&records);
    let repaired = stamped(&window[800..1100], now());
    let before = [outside_of(&records), repaired].concat();
    produce(&pair.b, &before);
    for (receipt, result) in [pair.plan(), pair.fill()] {
        let error = result.expect_err("refused");
        assert_eq!((error.exit_code(), error.reason()), (3, Reason::OtherTimestamps), "{error}");
        assert!(error.to_string().contains("300 records of"), "{error}");
        assert!(error.to_string().contains("--target-scan all"), "{error}");
        assert_eq!(receipt.counts.written, 0);
    }
    assert_eq!(consume(&pair.b).len(), before.len());
    let (findings, result) = pair.verify();
    assert_eq!(result.expect_err("differs").exit_code(), 4);
    assert_eq!((findings.missing, findings.under_another_time), (window.len() as u64, 300));

    let pair = all(pair);
    let receipt = pair.filled();
    assert_eq!(receipt.counts.already_in_target, 300);
    assert_eq!(receipt.counts.written, window.len() as u64 - 300);
    assert_eq!(consume(&pair.b).len(), records.len());
    assert_eq!(pair.filled().counts.written, 0);
    let (findings, result) = pair.verify();
    result.unwrap_or_else(|e| panic!("{e} {findings:?}"));
    assert_eq!((findings.in_source, findings.in_target), (window.len() as u64, window.len() as u64));
}

/// If the run has written much before it meets such a copy, the written records are right, and none is doubled.
#[test]
fn an_earlier_repair_that_is_met_late_is_not_doubled() {
    let pair = Pair::new(1, 1).with(|job| job.limits.records = 100);
    let records = day(6000, 1);
    produce(&pair.a, &records);
    let window = window_of(&records);
    let before = [outside_of(&records), stamped(&window[800..1100], now())].concat();
    produce(&pair.b, &before);
    let error = pair.fill().1.expect_err("found");
    assert_eq!((error.exit_code(), error.reason()), (1, Reason::OtherTimestamps), "{error}");
    let after = consume(&pair.b);
    assert_same(&after[..before.len()], &before);
    assert_same(&after[before.len()..], &window[..after.len() - before.len()]);
    assert!(after.len() - before.len() <= 800);
}

/// Fill and verify report the records that both such a repair and a fill wrote.
#[test]
fn what_was_doubled_under_another_time_is_told() {
    let pair = Pair::new(1, 1);
    let records = day(600, 1);
    produce(&pair.a, &records);
    let window = window_of(&records);
    let doubled = stamped(&window[50..90], now());
    produce(&pair.b, &[&records[..], &doubled[..]].concat());
    let receipt = pair.filled();
    assert_eq!((receipt.counts.written, receipt.duplicates_in_target), (0, 40));
    assert!(receipt.warnings.iter().any(|warning| warning.contains("40 records")), "{receipt:?}");
    let (findings, result) = pair.verify();
    assert_eq!(result.expect_err("differs").exit_code(), 4);
    assert_eq!((findings.missing, findings.extra, findings.under_another_time), (0, 0, 40));
    let (findings, result) = all(pair).verify();
    assert_eq!(result.expect_err("differs").exit_code(), 4);
    assert_eq!((findings.missing, findings.duplicated), (0, 40));
}

/// If the whole record is the identity, a record with another time is another record.
#[test]
fn by_record_another_time_is_another_record() {
    let pair = Pair::new(1, 1).with(|job| job.selection.rules.identity = Identity::Record);
    let records = day(600, 1);
    produce(&pair.a, &records);
    let before = stamped(&window_of(&records)[..10], now());
    produce(&pair.b, &before);
    assert_eq!(pair.filled().counts.written, 178);
    pair.assert_filled(&before);
}

/// A target stamped all its copies, and holds fewer of them than there are records that differ only in timestamp.
/// Nobody can tell which record it lacks, so nothing counts as complete.
#[rstest]
#[case("key")]
#[case("record")]
fn copies_that_nobody_can_tell_apart_are_not_taken_for_others(#[case] identity: &str) {
    let pair = all(Pair::new(1, 1))
        .with(|job| job.selection.rules.identity = identity.parse().expect("an identity"));
    produce(&pair.a, &beats());
    let before = stamped(&outside_of(&beats()), now());
    produce(&pair.b, &before);
    let (receipt, result) = pair.fill();
    let error = result.expect_err("refused");
    assert!(error.to_string().contains("nobody can tell whose copies"), "{error}");
    assert_eq!((receipt.counts.conflicts, receipt.counts.written), (3, 0));
    let (findings, result) = pair.verify();
    assert_eq!(result.expect_err("differs").exit_code(), 4);
    assert_eq!(findings.missing, 3, "{findings:?}");
    assert_eq!(consume(&pair.b).len(), before.len());
}

/// Two copies with new timestamps have one content. Each stands for one record.
#[test]
fn two_stamped_copies_stand_for_two_records() {
    let pair = all(Pair::new(1, 1)).with(|job| job.selection.rules.identity = Identity::Record);
    let beats: Vec<Record> = (0..6).map(|n| record(0, WINDOW.0 + n * MINUTE, "device", "ok")).collect();
    produce(&pair.a, &beats);
    produce(&pair.b, &stamped(&beats[..2], now()));
    let receipt = pair.filled();
    assert_eq!((receipt.counts.already_in_target, receipt.counts.written), (2, 4));
    assert_eq!(pair.filled().counts.written, 0);
    pair.verify().1.expect("the same");
}

/// If the target stamps all records, verify agrees with a right fill.
#[test]
fn verify_judges_a_target_that_stamps_its_records() {
    let pair = Pair::new(1, 1);
    let target = format!("{}-stamped", pair.b);
    create(&target, 1, &[("message.timestamp.type", "LogAppendTime")]);
    let records = day(600, 1);
    produce(&pair.a, &records);
    produce(&target, &records[..140]);
    let pair = all(Pair { a: pair.a.clone(), b: target.clone(), job: job(&pair.a, &target) });
    let (findings, _) = pair.verify();
    assert_eq!((findings.missing, findings.extra, findings.duplicated), (127, 0, 0), "{findings:?}");
    pair.filled();
    let (findings, result) = pair.verify();
    result.unwrap_or_else(|e| panic!("{e} {findings:?}"));
    assert_eq!((findings.in_source, findings.in_target), (178, 178));
}

/// A record outside of the window causes no conflict, however near it is.
#[rstest]
#[case::just_before(-1)]
#[case::half_a_minute_before(-30_000)]
#[case::two_minutes_before(-120_000)]
#[case::just_after(2 * HOUR)]
#[case::half_a_minute_after(2 * HOUR + 30_000)]
fn another_content_near_the_window_is_no_conflict(#[case] distance: i64) {
    let pair = Pair::new(1, 1);
    let key = record(0, WINDOW.0 + MINUTE, "key", "in the window");
    let near = record(0, WINDOW.0 + distance, "key", "near it");
    produce(&pair.a, &[near.clone(), key]);
    produce(&pair.b, std::slice::from_ref(&near));
    let receipt = pair.filled();
    assert_eq!((receipt.counts.written, receipt.counts.conflicts), (1, 0));
    pair.assert_filled(&[near]);
}

#[test]
fn the_right_copy_beside_another_content_is_found() {
    let pair = Pair::new(1, 1);
    let records = day(600, 1);
    produce(&pair.a, &records);
    let window = window_of(&records);
    let others: Vec<Record> =
        window.iter().map(|r| Record { value: Some(b"another".to_vec()), ..r.clone() }).collect();
    produce(&pair.b, &[&others[..100], &window[..], &others[100..]].concat());
    let receipt = pair.filled();
    assert_eq!((receipt.counts.already_in_target, receipt.counts.conflicts), (178, 0));
    let (findings, _) = pair.verify();
    assert_eq!((findings.missing, findings.changed, findings.extra), (0, 0, 178));
}

/// A topic holds far more records after the window than a filter in little memory can tell apart. None is a copy, or a
/// few are.
#[rstest]
#[case::no_copies(0)]
#[case::copies(5)]
fn very_many_records_outside_of_the_window_do_not_look_like_copies(#[case] copies: usize) {
    let pair = Pair::new(1, 1).with(|job| job.selection.index_memory = 128 << 10);
    let at = |time: i64, n: usize| record(0, time, &format!("key-{n}"), "{}");
    let window: Vec<Record> = (0..1000).map(|n| at(WINDOW.0, n)).collect();
    let later: Vec<Record> = (0..40_000).map(|n| at(WINDOW.1, 10_000 + n)).collect();
    let stamped = stamped(&window[500..500 + copies], now());
    let before = [&later[..], &stamped].concat();
    produce(&pair.a, &[&window[..], &later].concat());
    produce(&pair.b, &before);
    let (plan, planned) = pair.plan();
    if copies == 0 {
        planned.expect("planned");
        assert_eq!(plan.to_write, Some(1000));
        assert_eq!(pair.filled().counts.written, 1000);
        let after = consume(&pair.b);
        assert_same(&after[..before.len()], &before);
        assert_same(&after[before.len()..], &window);
        pair.verify().1.expect("the same");
    } else {
        let error = planned.expect_err("refused");
        assert!(error.to_string().contains("5 records of"), "{error}");
        let error = pair.fill().1.expect_err("refused");
        assert_eq!((error.exit_code(), error.reason()), (3, Reason::OtherTimestamps), "{error}");
        assert_eq!(consume(&pair.b).len(), before.len());
        let (findings, _) = pair.verify();
        assert_eq!((findings.missing, findings.under_another_time), (1000, 5));
    }
}
