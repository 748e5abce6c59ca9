//! Topics of many small segments. Retention, DeleteRecords and compaction delete some of them, so a record that a
//! broker does not find by time may still be there.

use rstest::rstest;

use crate::kit::*;

/// Gives each ten minutes of event time a segment: a broker begins a new one if a record is later than the segment's
/// first record by more than this.
const SEGMENTS: (&str, &str) = ("segment.ms", "600000");

/// A day in both topics. The target's records are deleted and written again, while the deleted segments are still on
/// the broker's disk.
fn refilled(partitions: i32) -> (Pair, Vec<Record>) {
    let pair = segmented(partitions, &[]);
    let records = day(1200, partitions);
    produce_in_parts(&pair.a, &records);
    purge_and_reload(&pair.b, &records);
    (pair, records)
}

fn segmented(partitions: i32, more: &[(&str, &str)]) -> Pair {
    let pair = Pair::new(partitions, partitions);
    for topic in [&pair.a, &pair.b] {
        delete(topic);
        create(topic, partitions, &[&[SEGMENTS], more].concat());
    }
    pair
}

/// Produces in batches, so that segments can end between them.
fn produce_in_parts(topic: &str, records: &[Record]) {
    for part in records.chunks(120) {
        produce(topic, part);
    }
}

fn purge_and_reload(topic: &str, records: &[Record]) {
    produce_in_parts(topic, records);
    purge(topic);
    produce_in_parts(topic, records);
}

fn purge(topic: &str) {
    for (partition, (_, high)) in watermarks(topic).into_iter().enumerate() {
        trim(topic, i32::try_from(partition).expect("fits"), high);
    }
}

#[rstest]
#[case::one_partition(1)]
#[ignore = "takes a minute"]
#[case::three_partitions(3)]
fn a_target_that_was_emptied_and_filled_again_is_seen(#[case] partitions: i32) {
    let (pair, records) = refilled(partitions);
    for window in ["11:00-13:00", "11:00-12:59", "11:00-12:58"] {
        let pair = Pair { a: pair.a.clone(), b: pair.b.clone(), job: pair.job.clone() }
            .with(|job| job.selection.window = window.parse().expect("a window"));
        let receipt = pair.filled();
        assert_eq!(receipt.counts.written, 0, "{window}: all of it is there: {receipt:?}");
        let (findings, result) = pair.verify();
        result.expect("the same");
        assert_eq!(findings.in_target, findings.in_source, "{findings:?}");
    }
    assert_same(&sorted(consume(&pair.b)), &sorted(records));
}

fn sorted(mut records: Vec<Record>) -> Vec<Record> {
    records.sort();
    records
}

#[test]
fn a_source_that_was_emptied_and_loaded_again_is_read() {
    let pair = segmented(2, &[]);
    let records = day(1200, 2);
    purge_and_reload(&pair.a, &records);
    let (findings, result) = pair.verify();
    assert_eq!(findings.missing, window_of(&records).len() as u64, "{findings:?}");
    result.expect_err("nothing of it is in the target");
    assert_eq!(pair.filled().counts.written, window_of(&records).len() as u64);
    pair.assert_filled(&[]);
}

#[test]
fn a_partial_deletion_leaves_what_is_there_in_sight() {
    let pair = segmented(1, &[]);
    let records = day(1200, 1);
    produce_in_parts(&pair.a, &records);
    produce_in_parts(&pair.b, &records[..700]);
    // Delete up to the middle of a segment. Its largest timestamp stays that of a deleted record, and older records
    // follow.
    trim(&pair.b, 0, 690);
    produce_in_parts(&pair.b, &records[..690]);
    let missing = window_of(&records[700..]).len() as u64;
    assert_eq!(pair.filled().counts.written, missing);
    assert_eq!(pair.filled().counts.written, 0);
}

#[test]
fn old_values_that_are_cleaned_away_hide_nothing() {
    let cleaned = [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("max.compaction.lag.ms", "1"),
        ("delete.retention.ms", "1"),
    ];
    let pair = segmented(1, &cleaned).with(|job| job.allow_compacted_target = true);
    let records = day(600, 1);
    produce_in_parts(&pair.a, &records);
    // Each key comes first late in the day, then at its own time. The cleaner deletes the late values, which have the
    // largest timestamps of their segments.
    let late: Vec<Record> =
        records.iter().map(|r| Record { time: r.time + 10 * HOUR, ..r.clone() }).collect();
    produce_in_parts(&pair.b, &late);
    produce_in_parts(&pair.b, &records);
    produce(&pair.b, &[record(0, DAY + 40 * HOUR, "last", "closes the segment before it")]);
    // The cleaner looks every 15 seconds (log.cleaner.backoff.ms).
    let is_late = |r: &Record| r.time >= DAY + 20 * HOUR && r.key != Some(b"last".to_vec());
    while consume(&pair.b).iter().any(is_late) {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    let receipt = pair.filled();
    assert_eq!(receipt.counts.written, 0, "{receipt:?}");
    let (findings, result) = pair.verify();
    result.expect("the same");
    assert_eq!(findings.in_target, findings.in_source, "{findings:?}");
}
