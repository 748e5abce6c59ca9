//! `verify` and `gaps` of topics that do not fit the memory find the same as of topics that do.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rstest::rstest;
use serde_json::Value;

use crate::kit::*;

/// With this memory, in MiB, the records below are judged in several rounds.
const LITTLE: &str = "1";
const MUCH: &str = "1024";

/// Records of all day in which every kind of difference was planted, in and outside of the window.
struct Planted {
    source: Vec<Record>,
    target: Vec<Record>,
    /// The lines that a list must have: what, side and key.
    lines: Vec<(&'static str, &'static str, String)>,
}

fn key(record: &Record) -> String {
    String::from_utf8(record.key.clone().expect("a key")).expect("text")
}

fn planted(count: usize) -> Planted {
    let source = day(count, 3);
    let mut lines = Vec::new();
    let mut target = Vec::new();
    for (n, record) in source.iter().enumerate() {
        let mut copy = record.clone();
        let is_in_hole = (count / 3..count / 3 + 100).contains(&n);
        match n % 97 {
            _ if is_in_hole => lines.push(("missing", "source", key(record))),
            5 => lines.push(("missing", "source", key(record))),
            17 => {
                target.extend([copy.clone(), copy]);
                lines.push(("duplicated", "target", key(record)));
            }
            29 => {
                copy.value = Some(b"changed".to_vec());
                target.push(copy);
                lines.push(("other_content", "source", key(record)));
                lines.push(("changed", "target", key(record)));
            }
            41 => {
                target.push(copy.clone());
                copy.key = Some(format!("extra-{n}").into_bytes());
                lines.push(("extra", "target", key(&copy)));
                target.push(copy);
            }
            _ => target.push(copy),
        }
    }
    lines.sort();
    Planted { source, target, lines }
}

/// What a command prints, and the lines that it lists.
fn told(pair: &Pair, command: &str, memory: &str, more: &[&str]) -> (Value, Vec<Value>) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().to_str().expect("text");
    let own = ["--index-memory", memory, "--differences", path, "--output", "json"];
    let arguments = [&[command, "--source", &pair.a, "--target", &pair.b][..], &own, more].concat();
    let output = replicator(&arguments).output().expect("runs");
    assert!([0, 4].contains(&code(&output)), "{}", stderr(&output));
    let mut found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let object = found.as_object_mut().expect("an object");
    // The order is judged only if everything fits, and then it is among the examples and in the message.
    for name in ["elapsed_ms", "examples", "warnings", "reordered", "moved", "error"] {
        object.remove(name);
    }
    let list = std::fs::read_to_string(path).expect("a list");
    let mut lines: Vec<Value> = list.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    lines.retain(|line| line["what"] != "reordered" && line["what"] != "moved");
    // Of the copies of a record, any may be the one that is in order.
    for line in lines.iter_mut().filter(|line| line["what"] == "duplicated") {
        line["offset"] = Value::Null;
    }
    lines.sort_by_key(Value::to_string);
    (found, lines)
}

#[test]
fn each_of_a_thousand_differences_is_listed() {
    let pair = Pair::new(3, 3);
    let planted = planted(20_000);
    assert!(planted.lines.len() > 1000);
    produce(&pair.a, &planted.source);
    produce(&pair.b, &planted.target);
    let everywhere = ["--window", "2021-04-14"];
    for (command, more) in [("verify", &everywhere[..]), ("gaps", &[])] {
        for memory in [LITTLE, MUCH] {
            let (found, listed) = told(&pair, command, memory, more);
            let mut lines: Vec<(String, String, String)> = listed
                .iter()
                .map(|line| {
                    let text = |name: &str| line[name].as_str().expect("text").to_owned();
                    (text("what"), text("side"), text("key"))
                })
                .collect();
            lines.sort();
            let wanted: Vec<(String, String, String)> =
                planted.lines.iter().map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), c.clone())).collect();
            assert!(
                lines == wanted,
                "{command} with {memory} MiB lists {} lines, not {}",
                lines.len(),
                wanted.len()
            );
            let places: BTreeSet<String> = listed.iter().map(Value::to_string).collect();
            assert!(places.len() == listed.len() || memory == LITTLE, "each place once");
            let count = |what: &[&str]| planted.lines.iter().filter(|line| what.contains(&line.0)).count();
            // A record with another content is one difference for verify, and one that is missing for gaps.
            let wanted =
                if command == "gaps" { count(&["missing", "other_content"]) } else { count(&["missing"]) };
            assert_eq!(found["missing"], wanted);
        }
    }
}

#[rstest]
#[case::all_by_key(&[])]
#[case::window(&["--window", "11:00-13:00"])]
#[case::by_record(&["--identity", "record"])]
#[case::window_by_value(&["--window", "11:00-13:00", "--identity", "value"])]
#[case::skipped(&["--window", "11:00-13:00", "--on-conflict", "skip", "--skip-invalid"])]
#[case::at_any_time(&["--window", "11:00-13:00", "--target-scan", "all"])]
#[case::at_any_time_late(&["--window", "16:30-", "--target-scan", "all"])]
#[case::at_any_time_by_record(&["--window", "11:00-13:00", "--target-scan", "all", "--identity", "record"])]
fn little_memory_finds_the_same(#[case] more: &[&str]) {
    let pair = Pair::new(3, 3);
    // Few enough to be judged one by one, without sums, if there is memory.
    let mut planted = planted(4_000);
    // Repeats in the source, with and without copies, users as keys, and records that only look like copies.
    let mut repeated: Vec<Record> = planted.source.iter().skip(7).step_by(50).cloned().collect();
    planted.target.extend(repeated.iter().step_by(2).cloned());
    planted.source.append(&mut repeated);
    let of_users = day(600, 3).into_iter().enumerate();
    let of_users = of_users.map(|(n, r)| Record { key: Some(format!("user-{}", n % 7).into_bytes()), ..r });
    let of_users: Vec<Record> = of_users.collect();
    planted.target.extend(of_users.iter().skip(100).cloned());
    planted.source.extend(of_users);
    let stamped = window_of(&planted.source).into_iter().step_by(40);
    planted.target.extend(stamped.map(|r| Record { time: DAY + 20 * HOUR, ..r }));
    let keyless = planted.source.iter().skip(3).step_by(400).cloned();
    let keyless: Vec<Record> = keyless.map(|r| Record { key: None, ..r }).collect();
    planted.target.extend(keyless.iter().step_by(2).cloned());
    planted.source.extend(keyless);
    produce(&pair.a, &planted.source);
    produce(&pair.b, &planted.target);
    for command in ["verify", "gaps"] {
        let window: &[&str] = if command == "verify" && !more.contains(&"--window") {
            &["--window", "2021-04-14"]
        } else {
            &[]
        };
        let more = [more, window].concat();
        let (little, listed) = told(&pair, command, LITTLE, &more);
        let (much, wanted) = told(&pair, command, MUCH, &more);
        assert_eq!(little, much, "{command}");
        let unequal = listed.iter().zip(&wanted).find(|(a, b)| a != b);
        assert!(listed == wanted, "{command}: {} lines and {}: {unequal:?}", listed.len(), wanted.len());
    }
}

/// A list takes the place of an older one only when it is whole.
#[test]
fn a_comparison_that_fails_leaves_the_older_list() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "older").expect("written");
    let path = file.path().to_str().expect("text");
    let arguments = ["verify", "--window", "11:00-13:00", "--source", "no-such", "--differences", path];
    let output = replicator(&arguments).output().expect("runs");
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    assert_eq!(std::fs::read_to_string(path).expect("read"), "older");
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(600, 1));
    let names = ["verify", "--window", "11:00-13:00", "--source", &pair.a, "--target", &pair.b, "-o", "json"];
    let output =
        replicator(&[&names[..], &["--differences", "/dev/stderr"]].concat()).output().expect("runs");
    assert_eq!((code(&output), stderr(&output).matches("\"what\":\"missing\"").count()), (4, 178));
}

#[test]
fn copies_under_another_time_are_listed() {
    let pair = Pair::new(1, 1);
    let records = day(600, 1);
    produce(&pair.a, &records);
    let stamped = records[120..123].iter().map(|r| Record { time: DAY + 20 * HOUR, ..r.clone() });
    produce(&pair.b, &[records.clone(), stamped.collect()].concat());
    for memory in [LITTLE, MUCH] {
        let (found, listed) = told(&pair, "verify", memory, &["--window", "11:00-13:00"]);
        assert_eq!((&found["under_another_time"], &found["same"]), (&3.into(), &false.into()), "{found}");
        let what: Vec<(&Value, &Value)> =
            listed.iter().map(|line| (&line["what"], &line["offset"])).collect();
        let kind = Value::from("under_another_time");
        assert_eq!(what, [(&kind, &600.into()), (&kind, &601.into()), (&kind, &602.into())]);
    }
}

#[test]
fn equal_topics_are_read_once_and_their_order_is_known() {
    let pair = Pair::new(3, 3);
    let records = day(6_000, 3);
    produce(&pair.a, &records);
    produce(&pair.b, &records);
    let arguments = [
        "verify",
        "--window",
        "2021-04-14",
        "--source",
        &pair.a,
        "--target",
        &pair.b,
        "--strict-order",
        "-vv",
    ];
    let run = |more: &[&str]| replicator(&[&arguments[..], more].concat()).output().expect("runs");
    let output = run(&["--index-memory", LITTLE]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).contains("in 0 rounds"), "{}", stderr(&output));
    // Two records change places: all are there, and the order cannot be judged with so little memory.
    let mut swapped = records.clone();
    swapped.swap(600, 603);
    let pair = Pair::new(3, 3);
    produce(&pair.a, &records);
    produce(&pair.b, &swapped);
    let arguments =
        ["verify", "--window", "2021-04-14", "--source", &pair.a, "--target", &pair.b, "-o", "json"];
    let run = |more: &[&str]| {
        let output = replicator(&[&arguments[..], more].concat()).output().expect("runs");
        (code(&output), serde_json::from_slice::<Value>(&output.stdout).expect("JSON"))
    };
    let (code, found) = run(&["--index-memory", LITTLE]);
    assert_eq!((code, &found["missing"], &found["reordered"]), (0, &0.into(), &Value::Null));
    let (code, found) = run(&["--index-memory", LITTLE, "--strict-order"]);
    assert_eq!((code, &found["error"]["reason"]), (1, &"index-memory".into()));
    let (code, found) = run(&["--index-memory", MUCH, "--strict-order"]);
    assert_eq!((code, &found["reordered"]), (4, &1.into()));
}

/// A broker names another place for a time once the records there are gone, so a later reading would begin behind them.
#[rstest]
#[case::at_once(MUCH)]
#[case::in_rounds(LITTLE)]
fn records_deleted_between_two_readings_are_not_taken_for_absent(#[case] memory: &str) {
    let pair = Pair::new(1, 1);
    let source = day(12_000, 1);
    produce(&pair.a, &source);
    produce(&pair.b, &source[100..]);
    let mut command = replicator(&["verify", "-v", "--source", &pair.a, "--target", &pair.b]);
    command.args(["--window", "10:00-16:00", "--index-memory", memory, "--output", "json"]);
    command.env("FAILPOINTS", "compare-source=sleep(5000)");
    let mut running = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
    let mut log = BufReader::new(running.stderr.take().expect("stderr")).lines();
    log.find(|line| line.as_ref().is_ok_and(|line| line.contains("the target is read")))
        .expect("a line")
        .expect("text");
    let rest = std::thread::spawn(move || log.count());
    trim(&pair.a, 0, 3000);
    let output = running.wait_with_output().expect("ends");
    rest.join().expect("no panic");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((code(&output), &answer["error"]["reason"]), (1, &"records-deleted".into()), "{answer}");
}
