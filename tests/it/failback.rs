//! A cluster dies with a tail that was never mirrored, and comes back: the runbook `docs/failback.md`.

use std::collections::BTreeMap;

use replicator::Sandbox;
use rstest::rstest;

use crate::kit::*;
use crate::mirror::{MirrorMaker, await_records};

const PARTITIONS: i32 = 3;

/// What a mirror must keep byte for byte: headers, repeated and without a value; no value; no key; equal records.
fn awkward() -> Vec<Record> {
    let header = |name: &str, value: Option<&str>| (name.to_owned(), value.map(|v| v.as_bytes().to_vec()));
    let at = DAY + 10 * HOUR;
    let twice = record(0, at, "device-1", "ok");
    let mut headers = record(1, at + 1, "device-2", "with headers");
    headers.headers = vec![
        header("trace", Some("1")),
        header("trace", Some("2")),
        header("empty", Some("")),
        header("none", None),
    ];
    let mut tombstone = record(2, at + 2, "device-3", "");
    tombstone.value = None;
    let mut keyless = record(0, at + 3, "", "no key");
    keyless.key = None;
    vec![twice.clone(), twice, headers, tombstone, keyless, record(1, at + 4, "", "")]
}

fn by_partition(records: &[Record]) -> BTreeMap<i32, Vec<Record>> {
    let mut found: BTreeMap<i32, Vec<Record>> = BTreeMap::new();
    for record in records {
        found.entry(record.partition).or_default().push(record.clone());
    }
    found
}

#[test]
fn mirror_maker_keeps_every_byte() {
    let across = Across::same_name(PARTITIONS, PARTITIONS);
    let Some(mirror) = MirrorMaker::start(&across.from, &across.to, &across.source) else { return };
    let records: Vec<Record> = awkward().into_iter().chain(day(300, PARTITIONS)).collect();
    across.from.begin().send(&across.source, &day(30, PARTITIONS)).abort();
    across.from.produce(&across.source, &records);
    let mirrored = await_records(&across.to, &across.target, records.len());
    assert_same(&mirrored, &across.consume_source());
    // Each transaction ends with a marker, which takes an offset.
    let offsets: i64 = across.to.watermarks(&across.target).iter().map(|(_, end)| end).sum();
    assert!(usize::try_from(offsets).expect("a count") > records.len(), "it writes in transactions");
    mirror.stop();
}
