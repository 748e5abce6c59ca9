//! Records that the target's broker refuses, or deletes soon after. A plan reports them, and so does a run before it
//! writes. If nobody could know before, the run reports at once which record it is.

use chrono::Utc;
use replicator::{EventTime, Properties, Receipt};

use crate::kit::*;
use crate::raw::allow_only;

const TOPIC: i8 = 2;
const READ: i8 = 3;
const WRITE: i8 = 4;
const WEEK: &str = "604800000";

/// A pair of new topics. The target has these properties, and the source takes records of any time.
fn pair(target: &[(&str, &str)]) -> Pair {
    let plain = Pair::new(1, 1);
    let (a, b) = (format!("{}-set", plain.a), format!("{}-set", plain.b));
    create(&a, 1, &[("message.timestamp.after.max.ms", "9223372036854775807")]);
    create(&b, 1, target);
    Pair { job: job(&a, &b), a, b }
}

fn keyless(time: i64, value: &str) -> Record {
    Record { key: None, ..record(0, time, "", value) }
}

fn by_value(pair: Pair) -> Pair {
    pair.with(|job| job.selection.rules.identity = "value".parse().expect("an identity"))
}

/// Takes event times from the field `/at`, whatever the records' timestamps are.
fn by_field(pair: Pair) -> Pair {
    pair.with(|job| job.selection.event_time = EventTime::Field("/at".parse().expect("a pointer")))
}

fn stamped(key: &str, at: i64, timestamp: i64) -> Record {
    record(0, timestamp, key, &format!("{{\"at\":{at}}}"))
}

/// The text with which both a plan and a run refuse. Checks that they write nothing.
fn refused(pair: &Pair) -> (Receipt, String) {
    let before = consume(&pair.b);
    let (_, planned) = pair.plan();
    let planned = planned.expect_err("a plan says it");
    assert_eq!(planned.exit_code(), 3, "{planned}");
    let (receipt, result) = pair.fill();
    let error = result.expect_err("a run too");
    assert_eq!(error.exit_code(), 3, "{error}");
    assert_same(&consume(&pair.b), &before);
    assert_eq!(planned.to_string(), error.to_string());
    (receipt, error.to_string())
}

/// Hides the target's configuration, so that only the broker itself can refuse. False if this is impossible.
fn hide(pair: &Pair) -> bool {
    let can_deny = can_deny();
    if can_deny {
        allow_only(TOPIC, &pair.b, &[READ, WRITE]);
    }
    can_deny
}

/// The text with which a run fails at its first attempt, since the broker refuses a record.
fn fails(pair: &Pair) -> String {
    let (receipt, result) = pair.fill();
    let error = result.expect_err("fails");
    assert_eq!((error.exit_code(), receipt.restarts), (1, 0), "{error}");
    assert!(consume(&pair.b).is_empty(), "nothing was written");
    error.to_string()
}

#[test]
fn two_records_that_the_broker_refuses_behind_a_good_one() {
    let pair = by_value(pair(&[("cleanup.policy", "compact")])).with(|job| job.allow_compacted_target = true);
    if !hide(&pair) {
        return;
    }
    produce(&pair.a, &[record(0, WINDOW.0, "good", "1"), keyless(WINDOW.0, "2"), keyless(WINDOW.0, "3")]);
    let text = fails(&pair);
    assert!(text.contains(&format!("{}-0@1", pair.a)) && text.contains("key null"), "{text}");
    assert!(text.contains("compacted"), "the reason of its refusal: {text}");
}

#[test]
fn a_record_that_is_too_large_with_another_behind_it() {
    let pair = pair(&[("max.message.bytes", "100000")]);
    if !hide(&pair) {
        return;
    }
    let mut source = vec![record(0, WINDOW.0, "first", "x")];
    source.push(record(0, WINDOW.0, "large", &"x".repeat(200_000)));
    source.extend((0..10_000).map(|n| record(0, WINDOW.0, &format!("small-{n}"), "x")));
    produce(&pair.a, &source);
    let text = fails(&pair);
    assert!(text.contains(&format!("{}-0@1", pair.a)) && text.contains("key large"), "{text}");
    assert!(text.contains("max.message.bytes"), "{text}");
}

#[test]
fn a_timestamp_that_the_broker_takes_for_the_future() {
    let pair = pair(&[("message.timestamp.after.max.ms", "3600000")]);
    if !hide(&pair) {
        return;
    }
    let soon = Utc::now().timestamp_millis() + 3 * HOUR;
    let pair = by_field(pair);
    produce(&pair.a, &[stamped("good", WINDOW.0, DAY), stamped("late", WINDOW.0, soon)]);
    let text = fails(&pair);
    assert!(text.contains(&format!("{}-0@1", pair.a)) && text.contains("key late"), "{text}");
    assert!(text.contains("message.timestamp.after.max.ms"), "{text}");
}

#[test]
fn a_batch_that_no_segment_holds() {
    let pair = pair(&[("segment.bytes", "1048576")]);
    produce(&pair.a, &[record(0, WINDOW.0, "large", &"x".repeat(1_500_000))]);
    let (_, text) = refused(&pair);
    assert!(text.contains("segment.bytes=1048576"), "{text}");
}

#[test]
fn a_batch_that_no_segment_holds_where_nobody_could_know() {
    let pair = pair(&[("segment.bytes", "1048576")]);
    if !hide(&pair) {
        return;
    }
    produce(&pair.a, &[record(0, WINDOW.0, "large", &"x".repeat(1_500_000))]);
    let text = fails(&pair);
    assert!(text.contains("key large") && text.contains("segment.bytes"), "{text}");
}

#[test]
fn null_keys_into_a_compacted_target() {
    let pair = by_value(pair(&[("cleanup.policy", "compact")])).with(|job| job.allow_compacted_target = true);
    produce(&pair.a, &[record(0, WINDOW.0, "good", "1"), keyless(WINDOW.0, "2")]);
    let (receipt, text) = refused(&pair);
    assert!(text.contains("null key") && text.contains("compacted"), "{text}");
    assert_eq!(receipt.counts.refused, 1);
    assert!(receipt.examples[0].contains("partition 0 offset 1"), "{:?}", receipt.examples);
}

#[test]
fn timestamps_that_the_target_does_not_take() {
    let later = by_field(pair(&[("message.timestamp.after.max.ms", "3600000")]));
    let soon = Utc::now().timestamp_millis() + 3 * HOUR;
    produce(&later.a, &[stamped("good", WINDOW.0, DAY), stamped("late", WINDOW.0, soon)]);
    let (_, text) = refused(&later);
    assert!(text.contains("message.timestamp.after.max.ms=3600000"), "{text}");

    let earlier = by_field(pair(&[("message.timestamp.before.max.ms", "3600000")]));
    let now = Utc::now().timestamp_millis();
    produce(&earlier.a, &[stamped("good", WINDOW.0, now), stamped("old", WINDOW.0, now - 2 * HOUR)]);
    let (_, text) = refused(&earlier);
    assert!(text.contains("message.timestamp.before.max.ms=3600000"), "{text}");
}

/// The largest value that a batch of one record may hold if the key has one byte. The batch's header takes 61 bytes,
/// and the record takes 12 with its key.
const LARGEST: usize = 100_000 - 61 - 12;

#[test]
fn a_record_as_large_as_the_target_takes_and_one_byte_more() {
    let most = [("max.message.bytes", "100000")];
    for can_be_seen in [true, false] {
        let (fits, larger) = (pair(&most), pair(&most));
        if !can_be_seen && [&fits, &larger].into_iter().any(|pair| !hide(pair)) {
            return;
        }
        produce(&fits.a, &[record(0, WINDOW.0, "k", &"x".repeat(LARGEST))]);
        fits.plan().1.expect("plans");
        fits.filled();
        produce(&larger.a, &[record(0, WINDOW.0, "k", &"x".repeat(LARGEST + 1))]);
        if can_be_seen {
            let (_, text) = refused(&larger);
            assert!(text.contains("max.message.bytes=100000"), "{text}");
            assert!(text.contains("-X compression.type=zstd"), "{text}");
        } else {
            fails(&larger);
        }
    }
}

#[test]
fn compressed_a_larger_record_fits() {
    let pair = pair(&[("max.message.bytes", "100000")]).with(|job| {
        let flags = ["compression.type=zstd".to_owned()];
        let properties = Properties::new(Some(broker()), None, std::iter::empty(), &flags);
        job.selection.properties = properties.expect("properties").into();
    });
    let records = [record(0, WINDOW.0, "k", &"x".repeat(200_000))];
    produce(&pair.a, &records);
    pair.plan().1.expect("its size is not known before");
    pair.filled();
    assert_same(&consume(&pair.b), &records);
}

#[test]
fn a_target_that_deletes_by_size() {
    let pair = pair(&[("retention.bytes", "2000000")]);
    produce(&pair.a, &day(60, 1));
    let (_, text) = refused(&pair);
    assert!(text.contains("--add-config retention.bytes=-1"), "{text}");
    assert!(text.contains("--add-config retention.bytes=2000000"), "and back: {text}");
}

#[test]
fn a_compacted_target_does_not_delete_by_size() {
    let pair = pair(&[("retention.bytes", "2000000"), ("cleanup.policy", "compact")])
        .with(|job| job.allow_compacted_target = true);
    produce(&pair.a, &day(60, 1));
    pair.filled();
}

#[test]
fn old_records_of_a_field_of_today_into_a_target_that_deletes() {
    let pair = by_field(pair(&[("retention.ms", WEEK)])).with(|job| job.limits.records = 10);
    let now = Utc::now().timestamp_millis();
    let mut source: Vec<Record> = (0..100).map(|n| stamped(&format!("new-{n}"), WINDOW.0, now)).collect();
    source.push(stamped("old", WINDOW.0, DAY));
    produce(&pair.a, &source);
    let (receipt, text) = refused(&pair);
    assert!(text.contains("retention.ms=604800000"), "{text}");
    assert!(text.contains("--add-config retention.ms=-1"), "{text}");
    assert_eq!((receipt.counts.refused, receipt.counts.written), (1, 0));
    assert!(receipt.examples[0].contains("partition 0 offset 100"), "{:?}", receipt.examples);
}

#[test]
fn an_open_start_into_a_target_that_deletes() {
    let now = Utc::now().timestamp_millis();
    let pair = pair(&[("retention.ms", WEEK)]).with(|job| {
        job.limits.records = 10;
        job.selection.date = None;
        let end = replicator::rfc3339(now + HOUR);
        job.selection.window = format!("/{end}").parse().expect("a window");
    });
    let mut source: Vec<Record> = (0..100).map(|n| record(0, now, &format!("new-{n}"), "x")).collect();
    source.push(record(0, DAY, "old", "x"));
    produce(&pair.a, &source);
    let (_, text) = refused(&pair);
    assert!(text.contains("retention.ms=604800000"), "{text}");
}

#[test]
fn what_the_target_keeps_is_filled_by_field_and_from_an_open_start() {
    let now = Utc::now().timestamp_millis();
    let pair = by_field(pair(&[("retention.ms", WEEK)]));
    // The fill does not write a record that B holds already, however old it is.
    let old = stamped("old", WINDOW.0, DAY);
    produce(&pair.b, std::slice::from_ref(&old));
    produce(&pair.a, &[old, stamped("new", WINDOW.0, now), stamped("outside", WINDOW.1, DAY)]);
    assert_eq!(pair.filled().counts.written, 1);
}

#[test]
fn a_refusal_on_the_way_keeps_what_was_committed() {
    let pair = by_value(pair(&[("cleanup.policy", "compact")])).with(|job| {
        job.allow_compacted_target = true;
        job.limits.records = 10;
    });
    let mut source: Vec<Record> =
        (0..25).map(|n| record(0, WINDOW.0, &format!("k{n}"), &format!("{n}"))).collect();
    source.push(keyless(WINDOW.0, "null"));
    source.push(record(0, WINDOW.0, "behind", "it"));
    produce(&pair.a, &source);
    let (receipt, result) = pair.fill();
    let error = result.expect_err("fails");
    assert_eq!((error.exit_code(), receipt.counts.written), (1, 20), "{error}");
    assert_same(&consume(&pair.b), &source[..20]);
}
