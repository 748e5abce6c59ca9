//! If partition counts differ, each copy goes where the target's own producers put its key.

use std::collections::BTreeMap;

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use replicator::{Properties, Reason};
use rstest::rstest;

use crate::kit::{
    DAY, Foreign, HOUR, Pair, Record, TIMEOUT, WINDOW, broker, code, consume, create, day, in_window,
    outside_of, produce, record, replicator, stderr, unique, window_of,
};

/// Produces with a client that has this setting of librdkafka's `partitioner`.
fn produce_by(partitioner: &str, topic: &str, records: &[Record]) {
    let producer: BaseProducer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", broker())
        .set("partitioner", partitioner)
        .create()
        .expect("a producer");
    for record in records {
        let (key, value) = (record.key.as_deref().expect("a key"), record.value.as_deref().expect("a value"));
        let record = BaseRecord::<[u8], [u8]>::to(topic).key(key).payload(value).timestamp(record.time);
        assert!(producer.send(record).is_ok());
    }
    producer.flush(TIMEOUT).expect("flushed");
}

/// The partitions of each key.
fn places(records: &[Record]) -> BTreeMap<Vec<u8>, Vec<i32>> {
    let mut places: BTreeMap<Vec<u8>, Vec<i32>> = BTreeMap::new();
    for record in records {
        let of_key = places.entry(record.key.clone().expect("a key")).or_default();
        of_key.push(record.partition);
        of_key.sort_unstable();
        of_key.dedup();
    }
    places
}

/// The partitions in which librdkafka itself puts the keys with this setting.
fn by_librdkafka(partitioner: &str, partitions: i32, records: &[Record]) -> BTreeMap<Vec<u8>, Vec<i32>> {
    let probe = unique("probe");
    create(&probe, partitions, &[]);
    produce_by(partitioner, &probe, records);
    places(&consume(&probe))
}

/// Users, each with records in the window and outside of it.
fn users() -> Vec<Record> {
    let step = 60_000;
    (0..400)
        .map(|n| {
            record(0, DAY + 10 * HOUR + n * step, &format!("user-{}", n % 100), &format!("{{\"n\":{n}}}"))
        })
        .collect()
}

fn by_record(pair: Pair) -> Pair {
    pair.with(|job| job.selection.rules.identity = "record".parse().expect("an identity"))
}

#[rstest]
#[case::murmur2_in_both("murmur2_random", "murmur2_random")]
#[case::crc_32_in_both("consistent_random", "consistent_random")]
#[case::crc_32_in_b("murmur2_random", "consistent_random")]
#[case::murmur2_in_b("consistent_random", "murmur2_random")]
#[case::fnv_1a_in_b("murmur2_random", "fnv1a_random")]
fn copies_stand_where_the_targets_producers_put_their_keys(#[case] of_a: &str, #[case] of_b: &str) {
    let pair = by_record(Pair::new(3, 5));
    let all = users();
    produce_by(of_a, &pair.a, &all);
    produce_by(of_b, &pair.b, &outside_of(&all));
    let receipt = pair.filled();
    assert_eq!(receipt.counts.written, 120);
    let found = consume(&pair.b);
    assert_eq!(found.iter().filter(|record| in_window(record)).count(), 120);
    assert_eq!(places(&found), by_librdkafka(of_b, 5, &all));
    assert!(receipt.warnings.iter().any(|w| w.contains("as the keys of b-")), "{:?}", receipt.warnings);
    assert_eq!(pair.filled().counts.written, 0);
    pair.verify().1.expect("the same");
}

#[rstest]
#[case::murmur2("murmur2_random", "by murmur2")]
#[case::crc_32("consistent_random", "by CRC-32")]
fn an_empty_target_is_placed_as_the_source_is(#[case] partitioner: &str, #[case] told: &str) {
    let pair = by_record(Pair::new(3, 5));
    produce_by(partitioner, &pair.a, &users());
    let (receipt, result) = pair.plan();
    result.expect("plans");
    let says = receipt.warnings.iter().any(|w| w.contains(told) && w.contains("as the keys of a-"));
    assert!(says, "{:?}", receipt.warnings);
    assert_eq!(pair.filled().counts.written, 120);
    let found = consume(&pair.b);
    assert_eq!(places(&found), by_librdkafka(partitioner, 5, &window_of(&users())));
}

/// Aborted records and markers have the newest offsets. They show nothing about the keys below.
#[test]
fn aborted_records_do_not_hide_the_targets_keys() {
    let pair = by_record(Pair::new(3, 5));
    produce_by("murmur2_random", &pair.a, &users());
    produce_by("consistent_random", &pair.b, &outside_of(&users()));
    Foreign::begin().send(&pair.b, &day(1000, 5)).abort();
    pair.filled();
    let found = consume(&pair.b);
    assert_eq!(places(&found), by_librdkafka("consistent_random", 5, &users()));
}

/// This happens after a change of the partition count, or with two kinds of producers.
#[test]
fn keys_of_no_known_placement_are_refused_unless_it_is_named() {
    let pair = by_record(Pair::new(3, 5));
    produce_by("murmur2_random", &pair.a, &users());
    let before: Vec<Record> =
        (0..50).map(|n| record(n % 5, WINDOW.0 - 1, &format!("user-{n}"), "before")).collect();
    produce(&pair.b, &before);
    let output = pair.command(100).output().expect("runs");
    let told = stderr(&output);
    assert_eq!(code(&output), 3, "{told}");
    assert!(told.contains(&pair.b) && told.contains("-X partitioner="), "{told}");
    assert_eq!(pair.fill().1.expect_err("refused").reason(), Reason::UnknownPlacement);
    assert_eq!(consume(&pair.b).len(), 50);

    let with = |flag: &str| {
        let flags = ["-X", flag, "--window", "11:00-13:00", "--identity", "record"];
        let topics = ["--source", &pair.a, "--target", &pair.b];
        replicator(&flags).args(topics).output().expect("runs")
    };
    assert_eq!(code(&with("partitioner=random")), 2);
    let output = with("partitioner=consistent");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let written = window_of(&consume(&pair.b));
    assert_eq!(places(&written), by_librdkafka("consistent", 5, &written));
    assert_eq!(written.len(), 120);
    // A user of the library may give the property too.
    assert!(Properties::new(Some(broker()), None, std::iter::empty(), &["partitioner=fnv1a".into()]).is_ok());
}

/// With two partitions, both partitioners often put a key into the same one. The source then decides.
#[test]
fn few_keys_that_fit_several_leave_it_to_the_source() {
    let pair = by_record(Pair::new(3, 2));
    produce_by("consistent_random", &pair.a, &users());
    let both = users().into_iter().find(|record| {
        let places = |partitioner| by_librdkafka(partitioner, 2, std::slice::from_ref(record));
        !in_window(record) && places("consistent") == places("murmur2")
    });
    produce_by("consistent", &pair.b, &[both.expect("one in two")]);
    pair.filled();
    let found = consume(&pair.b);
    assert_eq!(places(&found), by_librdkafka("consistent", 2, &found));
}
