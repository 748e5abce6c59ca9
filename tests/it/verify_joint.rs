//! `verify` and `gaps` above the joint of a follow: each record needs a copy of its own.

use rstest::rstest;

use crate::follow_marks::Marks;
use crate::kit::*;

const LEVEL: &str = "2026-01-01T00:00:00Z";
/// The joint of partition 0: below it stand the first records.
const JOINT: i64 = 4;

/// Records of the window: the key is a user, and the number makes the content.
fn event(n: i64, user: &str, content: &str) -> Record {
    record(0, WINDOW.0 + n, user, content)
}

/// A source of four records below the joint and four above it, as a follow meets them: users come again, and one
/// record above equals another above and one below.
fn source() -> Vec<Record> {
    vec![
        event(0, "ada", "0"),
        event(1, "bob", "1"),
        event(2, "eve", "2"),
        event(2, "eve", "2"),
        event(4, "ada", "4"),
        event(5, "bob", "5"),
        event(5, "bob", "5"),
        event(1, "bob", "1"),
    ]
}

/// What a fill and then a follow make of it: repeats below the joint are left out, and those above it are not.
fn copied() -> Vec<Record> {
    let mut copied = source();
    copied.remove(3);
    copied
}

fn pair(target: &[Record]) -> (Pair, Marks) {
    let pair = Pair::new(1, 1);
    produce(&pair.a, &source());
    produce(&pair.b, target);
    let marks = Marks::of_pair(&pair);
    (pair, marks)
}

/// Missing, duplicated, changed and extra records, as the command prints them.
fn verified(pair: &Pair, code: i32) -> ([u64; 4], serde_json::Value) {
    let arguments =
        ["verify", "--window", "11:00-13:00", "--source", &pair.a, "--target", &pair.b, "--output", "json"];
    let output = replicator(&arguments).output().expect("runs");
    assert_eq!(self::code(&output), code, "{}", stderr(&output));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let count = |name: &str| found[name].as_u64().expect("a count");
    (["missing", "duplicated", "changed", "extra"].map(count), found)
}

#[test]
fn user_ids_as_keys_are_no_difference_above_the_joint() {
    let (pair, marks) = pair(&copied());
    let (without, _) = verified(&pair, 0);
    assert_eq!(without, [0; 4], "by key, repeats need no copy");
    marks.commit(&[(0, 8, JOINT)], LEVEL);
    let (found, json) = verified(&pair, 0);
    assert_eq!((found, &json["in_source"], &json["in_target"]), ([0; 4], &8.into(), &7.into()));
    assert_eq!((&json["duplicates_in_source"], &json["warnings"]), (&1.into(), &serde_json::json!([])));
}

#[rstest]
#[case::a_repeat_above(6, [1, 0, 0, 0])]
#[case::the_one_above_though_an_equal_one_is_below(7, [1, 0, 0, 0])]
#[case::one_above_with_the_key_of_one_below(4, [1, 0, 0, 0])]
#[case::one_below(0, [1, 0, 0, 0])]
#[case::the_repeated_one_below(2, [1, 0, 0, 0])]
fn a_lost_record_is_missing(#[case] lost: usize, #[case] wanted: [u64; 4]) {
    let lost = source()[lost].clone();
    let mut target = copied();
    let at = target.iter().rposition(|record| *record == lost).expect("there");
    target.remove(at);
    let (pair, marks) = pair(&target);
    marks.commit(&[(0, 8, JOINT)], LEVEL);
    let (found, json) = verified(&pair, 4);
    assert_eq!(found, wanted, "{json}");
}

#[rstest]
#[case::doubled_above(event(4, "ada", "4"), [0, 1, 0, 0])]
#[case::doubled_once_more(event(5, "bob", "5"), [0, 1, 0, 0])]
#[case::another_writers(event(6, "ada", "9"), [0, 0, 0, 1])]
fn what_is_too_many_is_found(#[case] more: Record, #[case] wanted: [u64; 4]) {
    let (pair, marks) = pair(&[copied(), vec![more]].concat());
    marks.commit(&[(0, 8, JOINT)], LEVEL);
    let (found, json) = verified(&pair, 4);
    assert_eq!(found, wanted, "{json}");
}

#[test]
fn a_changed_record_above_is_missing_and_extra() {
    let mut target = copied();
    target[3].value = Some(b"changed".to_vec());
    let (pair, marks) = pair(&target);
    marks.commit(&[(0, 8, JOINT)], LEVEL);
    assert_eq!(verified(&pair, 4).0, [1, 0, 0, 1]);
}

/// A mark of other topics, and one of a partition that holds nothing above it, change nothing.
#[test]
fn other_marks_are_none() {
    let mut target = copied();
    target.remove(5);
    let (pair, marks) = pair(&target);
    let marks = marks.of_other_topics();
    marks.commit(&[(0, 8, JOINT)], LEVEL);
    assert_eq!(verified(&pair, 0).0, [0; 4], "by key, a repeat needs no copy");
    let marks = Marks::of_pair(&pair);
    marks.commit(&[(0, 8, 8)], LEVEL);
    assert_eq!(verified(&pair, 0).0, [0; 4]);
    marks.commit(&[(0, 8, JOINT)], LEVEL);
    assert_eq!(verified(&pair, 4).0, [1, 0, 0, 0]);
}

/// A partition without a mark is compared as the job says.
#[test]
fn each_partition_has_its_own_joint() {
    let pair = Pair::new(2, 2);
    let twice =
        |partition: i32| [event(1, "ada", "1"), event(1, "ada", "1")].map(|r| Record { partition, ..r });
    produce(&pair.a, &[twice(0), twice(1)].concat());
    produce(&pair.b, &[twice(0)[0].clone()]);
    let marks = Marks::of_pair(&pair);
    assert_eq!(verified(&pair, 0).0, [0; 4], "by key, one is enough for all four");
    marks.commit(&[(1, 2, 1)], LEVEL);
    assert_eq!(verified(&pair, 4).0, [1, 0, 0, 0]);
    marks.commit(&[(0, 2, 1)], LEVEL);
    assert_eq!(verified(&pair, 4).0, [2, 0, 0, 0]);
}

/// A follow copies records that a fill may leave out.
#[test]
fn a_record_without_key_is_not_left_out_above_the_joint() {
    let without_key = Record { key: None, ..event(6, "", "6") };
    let (pair, marks) = pair(&copied());
    produce(&pair.a, std::slice::from_ref(&without_key));
    let pair = pair.with(|job| job.selection.rules.skip_invalid = true);
    let (findings, result) = pair.verify();
    result.expect("a fill leaves it out");
    assert_eq!((findings.missing, findings.invalid), (0, 1), "{findings:?}");
    marks.commit(&[(0, 9, JOINT)], LEVEL);
    let (findings, result) = pair.verify();
    assert_eq!(result.expect_err("differs").exit_code(), 4);
    assert_eq!((findings.missing, findings.invalid), (1, 0), "{findings:?}");
    produce(&pair.b, &[without_key]);
    pair.verify().1.expect("the same");
}

/// Below the joint, a copy may have another timestamp if the job says so. Above it, no copy has.
#[test]
fn copies_with_another_timestamp_are_those_of_records_below() {
    let mut target = copied();
    target[2].time = DAY + 20 * HOUR;
    let (pair, marks) = pair(&target);
    let pair = pair.with(|job| job.selection.rules.target_scan = replicator::TargetScan::All);
    marks.commit(&[(0, 8, JOINT)], LEVEL);
    let (findings, result) = pair.verify();
    result.unwrap_or_else(|e| panic!("{e} {findings:?}"));
    target[3].time = DAY + 21 * HOUR;
    produce(&pair.b, &target[3..4]);
    let (findings, result) = pair.verify();
    result.expect_err("there is a stamped copy too many");
    assert_eq!((findings.missing, findings.duplicated), (0, 1), "{findings:?}");
}

/// A fill by key would take these records for conflicts, so the command that is printed counts them.
#[test]
fn gaps_finds_the_same() {
    let mut target = copied();
    target.remove(5);
    let (pair, marks) = pair(&target);
    marks.commit(&[(0, 8, JOINT)], LEVEL);
    let output = replicator(&["gaps", "--source", &pair.a, "--target", &pair.b, "--output", "json"])
        .output()
        .expect("runs");
    let found = receipt(&output);
    assert_eq!(
        (&found["missing"], &found["conflicts"], &found["doubled"]),
        (&1.into(), &0.into(), &0.into()),
        "{found:?}"
    );
    let command = found["holes"][0]["command"].as_str().expect("a command");
    assert!(command.contains("--identity record"), "{command}");
}

#[test]
fn between_two_clusters() {
    let across = Across::new(1, 1);
    across.from.produce(&across.source, &source());
    let mut target = copied();
    target.remove(5);
    across.to.produce(&across.target, &target);
    let verify =
        || across.command(&["verify", "--window", "11:00-13:00", "--output", "json"]).output().expect("runs");
    assert_eq!(code(&verify()), 0, "{}", stderr(&verify()));
    let marks = Marks::across(&across);
    across.to.create(&marks.ledger, 1, &[]);
    marks.commit(&[(0, 8, JOINT)], LEVEL);
    let output = verify();
    assert_eq!((code(&output), &receipt(&output)["missing"]), (4, &1.into()), "{}", stderr(&output));
}
