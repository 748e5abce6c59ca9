//! A plan names the consequences of a fill. The tests know the consequences for these topics.

use rdkafka::Offset;
use replicator::{Consequences, Group};

use crate::kit::*;

fn planned(pair: &Pair) -> (Consequences, String) {
    let (receipt, result) = pair.plan();
    result.expect("plans");
    (receipt.consequences.clone().expect("consequences"), receipt.to_string())
}

/// What the plan could not find out, without the group that another test hides from everybody.
fn unknown(found: &Consequences) -> Vec<&str> {
    found.not_known.iter().map(String::as_str).filter(|what| !what.starts_with("whether group ")).collect()
}

/// `count` records of the window's first minute, each with a key and a value of 5 bytes.
fn old(count: usize) -> Vec<Record> {
    (0..count).map(|n| record(0, WINDOW.0 + i64::try_from(n).expect("fits"), &key(n), "value")).collect()
}

fn key(n: usize) -> String {
    format!("k{n:04}")
}

#[test]
fn keys_with_newer_records_are_counted_once_each() {
    let pair = Pair::new(1, 1);
    let mut source = old(100);
    // The fill would write two records of each of these keys.
    source.extend(old(10).into_iter().map(|r| Record {
        time: r.time + MINUTE,
        value: Some(b"later".to_vec()),
        ..r
    }));
    produce(&pair.a, &source);
    let at = |n: usize, time: i64| record(0, time, &key(n), "newer");
    let mut target: Vec<Record> = (0..30).map(|n| at(n, WINDOW.1 + HOUR)).collect();
    // None of these counts: a second record of a key, an older one, one of another key, and one without a key.
    target.extend([at(7, WINDOW.1 + HOUR), at(50, WINDOW.0 - HOUR), at(5000, WINDOW.1 + HOUR)]);
    target.push(Record { key: None, ..at(0, WINDOW.1 + HOUR) });
    produce(&pair.b, &target);
    let pair = pair.with(|job| job.selection.rules.identity = "key+value".parse().expect("an identity"));
    let (found, text) = planned(&pair);
    assert_eq!((found.keys_with_newer_records, found.keys_are_exact), (Some(30), true));
    assert_eq!(found.bytes_to_write, 110 * 10);
    assert_eq!((found.target_is_compacted, found.groups.len()), (Some(false), 0));
    assert_eq!(unknown(&found), [] as [&str; 0]);
    assert!(
        text.contains(&format!("  - 30 of the keys that would be written have a newer record in {}", pair.b))
    );
    assert!(text.contains("  - 1100 bytes of keys and values would be written"), "{text}");
    assert!(
        text.contains("isolation.level=read_uncommitted, the default of Java's clients, also see"),
        "{text}"
    );
    assert!(text.contains("usually for about 1 s") && text.contains("or for 60 s"), "{text}");
    assert!(text.contains("no consumer group that could be asked has"), "{text}");
    assert!(found.estimate_basis.starts_with("this plan read 144 records of both topics"), "{found:?}");
    assert_eq!(watermarks(&pair.b)[0].1, 34, "nothing was written");
    assert!(pair.filled().consequences.is_none(), "a run does not look for them");
}

#[test]
fn a_newer_record_within_the_window_counts_and_an_older_one_does_not() {
    let pair = Pair::new(1, 1).with(|job| {
        job.selection.rules.identity = "key+value".parse().expect("an identity");
    });
    produce(&pair.a, &old(3));
    let at = |n: usize, after: i64| record(0, WINDOW.0 + 1 + after, &key(n), "other");
    produce(&pair.b, &[at(0, 10), at(1, -1), at(2, 1)]);
    // Both records of key 2 have the same time.
    assert_eq!(planned(&pair).0.keys_with_newer_records, Some(1));
}

#[test]
fn what_does_not_fit_into_memory_is_told_as_at_least() {
    let pair = Pair::new(1, 1).with(|job| job.selection.index_memory = 64 * 8 * 40);
    produce(&pair.a, &old(100));
    let newer: Vec<Record> = (0..60).map(|n| record(0, WINDOW.1 + HOUR, &key(n), "newer")).collect();
    produce(&pair.b, &newer);
    let (found, text) = planned(&pair);
    assert_eq!((found.keys_with_newer_records, found.keys_are_exact), (Some(40), false));
    assert!(text.contains("at least 40 of the keys"), "{text}");
}

#[test]
fn times_of_a_field_are_compared_where_they_are_the_events() {
    let pair = Pair::new(1, 1).with(|job| {
        job.selection.event_time = replicator::EventTime::Field("/at".parse().expect("a pointer"));
        job.selection.rules.identity = "key+value".parse().expect("an identity");
    });
    let at = |key: &str, time: i64, stamp: i64| record(0, stamp, key, &format!("{{\"at\":{time}}}"));
    produce(&pair.a, &[at("a", WINDOW.0, DAY), at("b", WINDOW.0, DAY + 20 * HOUR)]);
    produce(&pair.b, &[at("a", WINDOW.0 - 1, DAY + 5 * HOUR), at("b", WINDOW.1, DAY + 5 * HOUR)]);
    assert_eq!(planned(&pair).0.keys_with_newer_records, Some(1));
}

#[test]
fn where_the_broker_stamped_the_target_it_is_not_known() {
    let pair = Pair::new(1, 1);
    let stamped = format!("{}-stamped", pair.b);
    create(&stamped, 1, &[("message.timestamp.type", "LogAppendTime")]);
    produce(&pair.a, &old(5));
    produce(&stamped, &[record(0, WINDOW.1 + HOUR, &key(0), "value")]);
    let mut job = job(&pair.a, &stamped);
    job.selection.rules.target_scan = replicator::TargetScan::All;
    job.selection.rules.on_conflict = replicator::OnConflict::Skip;
    let (found, text) = planned(&Pair { b: stamped, job, ..pair });
    assert_eq!((found.keys_with_newer_records, found.keys_are_exact), (None, false));
    assert!(text.contains("not known: which keys have newer records"), "{text}");
}

#[test]
fn compaction_is_told() {
    let pair = Pair::new(1, 1);
    let compacted = format!("{}-compacted", pair.b);
    create(&compacted, 1, &[("cleanup.policy", "compact")]);
    produce(&pair.a, &old(5));
    let mut job = job(&pair.a, &compacted);
    job.allow_compacted_target = true;
    let (found, text) = planned(&Pair { b: compacted.clone(), job, ..pair });
    assert_eq!(found.target_is_compacted, Some(true));
    assert!(text.contains(&format!("  - {compacted} is compacted")), "{text}");
}

#[test]
fn groups_of_the_target_with_their_lag_and_whether_they_are_past_the_window() {
    let pair = Pair::new(2, 2);
    let records = day(600, 2);
    produce(&pair.a, &records);
    // In each partition, 89 records of the window are missing, and the target has 211 others.
    let outside = outside_of(&records);
    produce(&pair.b, &outside);
    let before = i64::try_from(outside.iter().filter(|r| r.partition == 0 && r.time < WINDOW.0).count())
        .expect("fits");
    let ends: Vec<i64> = watermarks(&pair.b).iter().map(|w| w.1).collect();
    assert_eq!(ends, [211, 211]);
    let group = |name: &str| format!("{}-{name}", pair.b);
    reset_group(&group("at-the-end"), &pair.b, Offset::End);
    reset_group(&group("before"), &pair.b, Offset::Offset(10));
    // This group has read all before the hole. It reads the first record after the hole next.
    reset_group(&group("just-past"), &pair.b, Offset::Offset(before.max(45)));
    reset_group(&group("just-before"), &pair.b, Offset::Offset(44));
    reset_group(&group("elsewhere"), &pair.a, Offset::End);
    let (found, text) = planned(&pair);
    let expected = |name: &str, lag: i64, past_window: bool| Group {
        group: group(name),
        lag: u64::try_from(lag).expect("fits"),
        past_window,
    };
    assert_eq!(before, 45);
    assert_eq!(
        found.groups,
        [
            expected("at-the-end", 0, true),
            expected("before", 2 * 201, false),
            expected("just-before", 2 * 167, false),
            expected("just-past", 2 * 166, true),
        ]
    );
    assert_eq!(unknown(&found), [] as [&str; 0]);
    assert!(
        text.contains(&format!(
            "group {} (lag 0) has read past the window: it will get the 178 old events",
            group("at-the-end")
        )),
        "{text}"
    );
    assert!(
        text.contains(&format!("group {} (lag 402) has not read all of the window", group("before"))),
        "{text}"
    );
    pair.filled();
    let (found, text) = planned(&pair);
    assert_eq!((found.bytes_to_write, found.keys_with_newer_records), (0, Some(0)));
    assert!(text.contains("nothing would be written, so nothing changes"), "{text}");
}

#[test]
fn where_a_load_or_a_fill_is_kept_is_no_reader() {
    let pair = Pair::new(1, 1);
    produce(&pair.a, &old(10));
    produce(&pair.b, &[record(0, WINDOW.1 + HOUR, "later", "x")]);
    for group in [format!("replicator/load/{}/x", pair.b), format!("replicator/{}/elsewhere", pair.b)] {
        reset_group(&group, &pair.b, Offset::End);
    }
    let (found, _) = planned(&pair);
    assert_eq!(found.groups, []);
}

#[test]
fn a_group_at_the_end_of_a_target_that_stopped_before_the_window_is_not_past_it() {
    let pair = Pair::new(1, 1);
    let records = day(600, 1);
    produce(&pair.a, &records);
    produce(&pair.b, &records[..50]);
    let group = format!("{}-reader", pair.b);
    reset_group(&group, &pair.b, Offset::End);
    assert_eq!(planned(&pair).0.groups, [Group { group, lag: 0, past_window: false }]);
}

#[test]
fn a_group_that_may_not_be_described_is_one_sentence_and_no_failure() {
    if !can_deny() {
        return;
    }
    let pair = Pair::new(1, 1);
    produce(&pair.a, &old(5));
    produce(&pair.b, &[record(0, WINDOW.1, "later", "x")]);
    let (seen, hidden) = (format!("{}-seen", pair.b), format!("{}-hidden", pair.b));
    reset_group(&seen, &pair.b, Offset::End);
    reset_group(&hidden, &pair.b, Offset::End);
    super::raw::deny(3, &hidden, 8);
    let (found, text) = planned(&pair);
    assert_eq!(found.groups, [Group { group: seen, lag: 0, past_window: true }]);
    let told = format!("whether group {hidden} read {}: no permission; grant", pair.b);
    assert!(found.not_known.len() == 1 && found.not_known[0].starts_with(&told), "{found:?}");
    assert!(text.contains("  - not known: whether group"), "{text}");
}

#[test]
fn as_json_beside_the_receipt() {
    let pair = Pair::new(1, 1);
    produce(&pair.a, &old(5));
    let arguments =
        ["plan", "--window", "11:00-13:00", "--source", &pair.a, "--target", &pair.b, "--output", "json"];
    let output = replicator(&arguments).output().expect("runs");
    let found = receipt(&output);
    assert_eq!((code(&output), &found["to_write"]), (0, &serde_json::json!(5)));
    let told = &found["consequences"];
    assert_eq!(told["bytes_to_write"], 50);
    assert_eq!(told["keys_with_newer_records"], 0);
    assert_eq!((&told["transaction_ms"], &told["transaction_timeout_ms"]), (&1000.into(), &60_000.into()));
    assert!(told["estimated_ms"].is_u64() && told["groups"].is_array(), "{told}");
}
