//! Records and topics of every shape.

use rstest::rstest;

use crate::kit::*;

fn with_headers(mut record: Record, headers: &[(&str, Option<&[u8]>)]) -> Record {
    record.headers = headers.iter().map(|(k, v)| ((*k).to_owned(), v.map(<[u8]>::to_vec))).collect();
    record
}

#[test]
fn values_and_headers_of_every_kind() {
    let pair = Pair::new(2, 2);
    let at = WINDOW.0 + MINUTE;
    let mut null = record(0, at, "null", "");
    null.value = None;
    let mut binary = record(1, at + 1, "binary", "");
    binary.value = Some((0..=255).collect());
    let mut large = record(0, at + 2, "large", "");
    large.value = Some((0..900_000u64).map(|n| ((n * 7919) >> 3) as u8).collect());
    let records = vec![
        null,
        record(0, at, "empty", ""),
        record(1, at, "", "an empty key"),
        binary,
        large,
        with_headers(
            record(0, at, "repeated", "x"),
            &[("h", Some(b"1")), ("g", Some(b"2")), ("h", Some(b"3"))],
        ),
        with_headers(
            record(1, at, "null and empty", "x"),
            &[("null", None), ("empty", Some(b"")), ("", Some(b"no key"))],
        ),
        with_headers(record(1, at, "binary header", "x"), &[("b", Some(&[0, 255, 0]))]),
    ];
    produce(&pair.a, &records);
    assert_eq!(pair.filled().counts.written, 8);
    pair.assert_filled(&[]);
}

#[test]
fn a_value_that_the_target_does_not_take() {
    let pair = Pair::new(1, 1);
    let small = format!("{}-small", pair.b);
    create(&small, 1, &[("max.message.bytes", "100000")]);
    let mut records = day(600, 1);
    records[500].value = None;
    records[200].value = Some(vec![b'x'; 300_000]);
    produce(&pair.a, &records);
    let pair = Pair { a: pair.a.clone(), b: small.clone(), job: job(&pair.a, &small) };
    let (receipt, result) = pair.fill();
    let error = result.expect_err("fails");
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("max.message.bytes"), "{error}");
    assert!(!receipt.complete && receipt.aborted_transactions == 1, "{receipt:?}");
    assert!(receipt.warnings.iter().any(|w| w.contains("max.message.bytes")));
    until(|| last_stable_offsets(&small)[0] == watermarks(&small)[0].1);
    assert_same(&consume(&small), &[]);
}

#[test]
fn batches_fit_a_target_that_takes_small_ones() {
    let pair = Pair::new(1, 1);
    let small = format!("{}-small", pair.b);
    create(&small, 1, &[("max.message.bytes", "20000")]);
    produce(&pair.a, &day(6000, 1));
    let pair = Pair { a: pair.a.clone(), b: small.clone(), job: job(&pair.a, &small) };
    pair.filled();
    pair.assert_filled(&[]);
}

#[rstest]
#[case(2, 5)]
#[case(5, 2)]
#[case(3, 1)]
fn unequal_partition_counts(#[case] a: i32, #[case] b: i32) {
    let pair = Pair::new(a, b);
    let records = placed(day(1200, a), a);
    produce(&pair.a, &records);
    assert_eq!(pair.filled().counts.written, 356);
    let found = consume(&pair.b);
    let wanted = window_of(&records);
    let bare = |records: &[Record]| {
        let mut bare: Vec<Record> = records.iter().map(|r| Record { partition: 0, ..r.clone() }).collect();
        bare.sort();
        bare
    };
    assert_same(&bare(&found), &bare(&wanted));
    // librdkafka's Java-compatible partitioner puts each key where it belongs.
    let probe = Pair::new(1, b);
    let producer: rdkafka::producer::BaseProducer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", broker())
        .set("partitioner", "murmur2_random")
        .create()
        .expect("a producer");
    for record in &wanted {
        let key = record.key.as_deref().expect("a key");
        let to = rdkafka::producer::BaseRecord::<[u8], [u8]>::to(&probe.b).key(key).timestamp(record.time);
        assert!(producer.send(to).is_ok());
    }
    rdkafka::producer::Producer::flush(&producer, TIMEOUT).expect("flushed");
    let places = |records: &[Record]| {
        let mut places: Vec<_> = records.iter().map(|r| (r.key.clone(), r.partition)).collect();
        places.sort();
        places
    };
    assert_eq!(places(&found), places(&consume(&probe.b)));
    assert_eq!(pair.filled().counts.written, 0);
    pair.verify().1.expect("the same");
}

#[test]
fn null_keys_and_unequal_partition_counts_are_refused() {
    let pair =
        Pair::new(1, 2).with(|job| job.selection.rules.identity = "value".parse().expect("an identity"));
    let mut records = day(60, 1);
    records[20].key = None;
    produce(&pair.a, &records);
    let (receipt, result) = pair.fill();
    assert_eq!(result.expect_err("refused").exit_code(), 1);
    assert_eq!(receipt.counts.invalid, 1);
    assert_same(&consume(&pair.b), &[]);
}

#[test]
fn empty_partitions() {
    let pair = Pair::new(7, 7);
    let records: Vec<Record> =
        day(600, 3).into_iter().map(|r| Record { partition: r.partition * 2, ..r }).collect();
    produce(&pair.a, &records);
    assert_eq!(pair.filled().counts.written, 178);
    pair.assert_filled(&[]);
}

#[test]
fn null_keys_need_another_identity() {
    let pair = Pair::new(1, 1);
    let mut records = day(600, 1);
    for record in records.iter_mut().skip(150).step_by(10) {
        record.key = None;
    }
    let nulls = window_of(&records).iter().filter(|r| r.key.is_none()).count() as u64;
    produce(&pair.a, &records);
    let (receipt, result) = pair.fill();
    let error = result.expect_err("refused");
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains("--identity"), "{error}");
    assert_eq!(receipt.counts.invalid, nulls, "all are counted");
    assert_same(&consume(&pair.b), &[]);
    let pair = pair.with(|job| job.selection.rules.identity = "value".parse().expect("an identity"));
    assert_eq!(pair.filled().counts.written, 178);
    pair.assert_filled(&[]);
}

#[test]
fn null_keys_are_left_out_on_request() {
    let pair = Pair::new(1, 1).with(|job| job.selection.rules.skip_invalid = true);
    let mut records = day(600, 1);
    records[100].key = None;
    records[101].key = None;
    produce(&pair.a, &records);
    let receipt = pair.filled();
    assert_eq!((receipt.counts.written, receipt.counts.invalid), (176, 2));
}

#[test]
fn a_hundred_partitions() {
    let pair = Pair::new(100, 100);
    produce(&pair.a, &day(3000, 100));
    assert_eq!(pair.filled().counts.written, 889);
    pair.assert_filled(&[]);
}
