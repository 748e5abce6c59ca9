//! `verify --latest-only` judges a compacted target by the last record of each key.

use std::collections::BTreeMap;

use rstest::rstest;
use serde_json::Value;

use crate::kit::*;

/// Users who come again and again, all day.
fn events() -> Vec<Record> {
    let of_users = day(2_400, 2).into_iter().enumerate();
    // 40 users come until the window's middle, and 40 others until the day's end.
    let user = |n: usize| if n < 720 { n % 40 } else { 100 + n % 40 };
    of_users
        .map(|(n, r)| {
            let partition = i32::try_from(user(n) % 2).expect("0 or 1");
            Record { key: Some(format!("user-{}", user(n)).into_bytes()), partition, ..r }
        })
        .collect()
}

/// What compaction leaves.
fn compacted(records: &[Record]) -> Vec<Record> {
    let mut last: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for (n, record) in records.iter().enumerate() {
        last.insert(record.key.clone().expect("a key"), n);
    }
    records
        .iter()
        .enumerate()
        .filter(|(n, _)| last.values().any(|at| at == n))
        .map(|(_, r)| r.clone())
        .collect()
}

fn verified(pair: &Pair, more: &[&str]) -> (i32, Value, Vec<Value>) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().to_str().expect("text");
    let own = ["--differences", path, "--output", "json"];
    let arguments = ["verify", "--window", "11:00-13:00", "--source", &pair.a, "--target", &pair.b];
    let output = replicator(&[&arguments[..], &own, more].concat()).output().expect("runs");
    let list = std::fs::read_to_string(path).expect("a list");
    let lines = list.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    (code(&output), serde_json::from_slice(&output.stdout).expect("JSON"), lines)
}

#[rstest]
#[case::at_once("1024")]
#[case::in_several_rounds("1")]
fn only_the_last_record_of_a_key_counts(#[case] memory: &str) {
    let pair = Pair::new(2, 2);
    let events = events();
    produce(&pair.a, &events);
    produce(&pair.b, &compacted(&events));
    let (code, found, _) = verified(&pair, &["--index-memory", memory]);
    assert_eq!(code, 4);
    assert!(found["missing"].as_u64() > Some(100), "{found}");
    let (code, found, lines) = verified(&pair, &["--latest-only", "--index-memory", memory]);
    assert_eq!((code, &found["in_source"], lines.len()), (0, &40.into(), 0), "{found}");
}

#[test]
fn each_difference_of_a_last_record_is_found() {
    let pair = Pair::new(2, 2);
    let mut events = events();
    // A user of the window is deleted: compaction may have taken the tombstone out of the target.
    let at = events.iter().rposition(|r| r.key.as_deref() == Some(b"user-7")).expect("there");
    events[at].value = None;
    let mut target = compacted(&events);
    produce(&pair.a, &events);
    target.retain(|r| ![&b"user-7"[..], b"user-8"].contains(&r.key.as_deref().expect("a key")));
    let of = |name: &[u8]| target.iter().position(|r| r.key.as_deref() == Some(name)).expect("there");
    let (changed, later) = (of(b"user-9"), of(b"user-109"));
    target[changed].value = Some(b"changed".to_vec());
    target[later].value = Some(b"behind the window".to_vec());
    let extra = Record { key: Some(b"user-x".to_vec()), ..target[changed].clone() };
    target.push(extra);
    produce(&pair.b, &target);
    let (code, found, lines) = verified(&pair, &["--latest-only"]);
    assert_eq!(code, 4);
    let counts = ["missing", "changed", "extra", "duplicated"].map(|name| found[name].as_u64());
    assert_eq!(counts, [1, 1, 1, 0].map(Some), "{found}");
    let mut told: Vec<(&str, &str, &str)> = lines
        .iter()
        .map(|line| ["what", "side", "key"].map(|name| line[name].as_str().expect("text")).into())
        .collect();
    told.sort_unstable();
    let wanted = [
        ("changed", "target", "user-9"),
        ("extra", "target", "user-x"),
        ("missing", "source", "user-8"),
        ("other_content", "source", "user-9"),
    ];
    assert_eq!(told, wanted);
}

/// The value that the source has deleted is older than the window, and the target still holds it.
#[test]
fn a_deletion_that_the_target_lacks_is_a_difference() {
    let pair = Pair::new(1, 1);
    let old = record(0, DAY + 10 * HOUR, "user", "old");
    let deleted = Record { value: None, time: WINDOW.0 + 5, ..old.clone() };
    produce(&pair.a, &[old.clone(), deleted]);
    produce(&pair.b, &[old]);
    let (code, found, _) = verified(&pair, &["--latest-only"]);
    assert_eq!((code, &found["changed"]), (4, &1.into()), "{found}");
}

#[test]
fn a_key_in_two_partitions_has_no_last_record() {
    let pair = Pair::new(2, 2);
    produce(&pair.a, &[record(0, WINDOW.0, "user", "1"), record(1, WINDOW.0 + 1, "user", "2")]);
    produce(&pair.b, &[record(0, WINDOW.0, "user", "1")]);
    let (code, found, _) = verified(&pair, &["--latest-only"]);
    assert_eq!((code, &found["error"]["reason"]), (3, &"unknown-placement".into()), "{found}");
}

#[test]
fn it_goes_by_key_only() {
    for other in [["--identity", "value"], ["--target-scan", "all"]] {
        let arguments = ["verify", "--window", "11:00-13:00", "--latest-only"];
        let output = replicator(&[&arguments[..], &other].concat()).output().expect("runs");
        assert_eq!(code(&output), 2, "{}", stderr(&output));
        assert!(stderr(&output).contains("--latest-only"), "{}", stderr(&output));
    }
}
