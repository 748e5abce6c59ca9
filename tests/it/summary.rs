//! `verify --summary` writes the sums of one topic's window, and `verify --against` compares another topic with them.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use rstest::rstest;
use serde_json::{Value, json};
use siphasher::sip128::{Hasher128, SipHasher13};
use tempfile::TempDir;

use crate::kit::*;

/// A folder for the file.
struct Sums {
    folder: TempDir,
}

impl Sums {
    fn new() -> Sums {
        Sums { folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("sums.json")
    }

    fn written(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.path()).expect("a file")).expect("JSON")
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.folder.path()).expect("a folder").count()
    }

    /// Writes the sums of the tests' window.
    fn summarize(&self, source: &str, more: &[&str]) -> Output {
        self.run("--summary", &[&["--source", source, "--window", "11:00-13:00"], more].concat())
    }

    fn compare(&self, target: &str, more: &[&str]) -> Output {
        self.run("--against", &[&["--target", target], more].concat())
    }

    /// The exit code and the text of a comparison.
    fn told(&self, target: &str) -> (i32, String) {
        let mut command = replicator(&["verify", "--target", target, "--against"]);
        let output = command.arg(self.path()).output().expect("runs");
        (code(&output), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn run(&self, option: &str, more: &[&str]) -> Output {
        let path = self.path();
        let own = ["verify", option, path.to_str().expect("text"), "--output", "json"];
        replicator(&[&own[..], more].concat()).output().expect("runs")
    }

    /// Writes the sums of `source`, and compares `target` with them.
    fn judged(source: &str, target: &str) -> Value {
        let sums = Sums::new();
        answer(&sums.summarize(source, &[]), 0);
        let output = sums.compare(target, &[]);
        answer(&output, code(&output))
    }
}

/// The object on stdout, after checking how the command ended.
fn answer(output: &Output, exit_code: i32) -> Value {
    assert_eq!(code(output), exit_code, "{}", stderr(output));
    let found: Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(found["exit_code"], exit_code);
    found
}

/// Checks that the command line or the file is refused, with these words and no counts.
fn assert_refused(output: &Output, words: &str) {
    let found = answer(output, 2);
    let told = found["error"]["message"].as_str().expect("a message");
    assert!(told.contains(words), "wanted {words}, got {told}");
    assert!(found.get("in_source").is_none() && found.get("same").is_none(), "{found}");
}

#[test]
fn equal_topics_although_the_source_is_gone() {
    let (pair, sums) = (Pair::new(3, 2), Sums::new());
    let records = day(600, 3);
    produce(&pair.a, &records);
    // In another order and in other partitions, with ghosts, and with other records at the very edges of the window.
    let mut copies: Vec<Record> = window_of(&records).into_iter().rev().collect();
    copies.iter_mut().enumerate().for_each(|(n, copy)| copy.partition = i32::from(n % 3 == 0));
    Foreign::begin().send(&pair.b, &copies).abort();
    produce(&pair.b, &copies);
    produce(&pair.b, &[record(0, WINDOW.0 - 1, "before", "x"), record(1, WINDOW.1, "after", "x")]);
    let found = answer(&sums.summarize(&pair.a, &[]), 0);
    assert_eq!(
        (&found["in_source"], &found["source"], &found["warnings"]),
        (&json!(178), &json!(pair.a), &json!([]))
    );
    assert!(found.get("target").is_none() && found.get("in_target").is_none(), "{found}");
    let mode = sums.path().metadata().expect("a file").permissions().mode();
    assert_eq!((mode & 0o777, sums.files()), (0o600, 1));
    delete(&pair.a);
    let found = answer(&sums.compare(&pair.b, &[]), 0);
    assert_eq!(
        (&found["in_source"], &found["in_target"], &found["same"]),
        (&json!(178), &json!(178), &json!(true))
    );
    assert_eq!((&found["source"], &found["target"]), (&json!(pair.a), &json!(pair.b)));
    assert_eq!(found["window"], json!({ "start": "2021-04-14T11:00:00Z", "end": "2021-04-14T13:00:00Z" }));
    assert_eq!(found["differing"], json!([]));
    let (exit_code, told) = sums.told(&pair.b);
    assert!(exit_code == 0 && told.ends_with("the same records\n"), "{told}");
}

#[rstest]
#[case::missing(|records: &mut Vec<Record>| drop(records.remove(50)), 177)]
#[case::doubled(|records: &mut Vec<Record>| records.push(records[50].clone()), 179)]
#[case::value(|records: &mut Vec<Record>| records[50].value = Some(b"changed".to_vec()), 178)]
#[case::no_value(|records: &mut Vec<Record>| records[50].value = None, 178)]
#[case::key(|records: &mut Vec<Record>| records[50].key = None, 178)]
#[case::header(|records: &mut Vec<Record>| records[50].headers.push(("name".to_owned(), None)), 178)]
#[case::timestamp(|records: &mut Vec<Record>| records[50].time += 1, 178)]
#[case::swapped_values(|records: &mut Vec<Record>| {
    let value = records[50].value.take();
    records[50].value = std::mem::replace(&mut records[51].value, value);
}, 178)]
fn each_kind_of_difference(#[case] change: fn(&mut Vec<Record>), #[case] in_target: u64) {
    let pair = Pair::new(1, 1);
    let records = window_of(&day(600, 1));
    produce(&pair.a, &records);
    let mut copies = records.clone();
    change(&mut copies);
    produce(&pair.b, &copies);
    let found = Sums::judged(&pair.a, &pair.b);
    assert_eq!((&found["status"], &found["same"]), (&json!("different"), &json!(false)), "{found}");
    assert_eq!((&found["in_source"], &found["in_target"]), (&json!(178), &json!(in_target)));
    let differing = found["differing"].as_array().expect("stretches");
    assert_eq!(differing.len(), 1, "{found}");
    let instant = |name: &str| {
        let text = differing[0][name].as_str().expect("an instant");
        chrono::DateTime::parse_from_rfc3339(text).expect("an instant").timestamp_millis()
    };
    assert!((instant("start")..instant("end")).contains(&records[50].time), "{found}");
    assert_eq!(found["error"]["reason"], "different");
}

#[test]
fn a_hole_is_one_stretch_and_the_text_names_few() {
    let (pair, sums) = (Pair::new(1, 1), Sums::new());
    let records = day(600, 1);
    produce(&pair.a, &records);
    let window = window_of(&records);
    produce(&pair.b, &[&window[..60], &window[90..]].concat());
    answer(&sums.summarize(&pair.a, &[]), 0);
    let found = answer(&sums.compare(&pair.b, &[]), 4);
    let differing = found["differing"].as_array().expect("stretches");
    assert_eq!(differing.len(), 1, "{found}");
    assert_eq!((&differing[0]["in_source"], &differing[0]["in_target"]), (&json!(30), &json!(0)));
    // Every second record is missing.
    let scattered = unique("b");
    create(&scattered, 1, &[]);
    produce(&scattered, &window.iter().step_by(2).cloned().collect::<Vec<_>>());
    assert_eq!(
        answer(&sums.compare(&scattered, &[]), 4)["differing"].as_array().expect("stretches").len(),
        89
    );
    let (_, told) = sums.told(&scattered);
    assert_eq!(told.lines().filter(|line| line.starts_with("  [")).count(), 10, "{told}");
    assert!(told.contains("and 79 more stretches") && told.ends_with("DIFFERENT\n"), "{told}");
}

/// More different times than a file has steps: those of the target become longer than those of the file.
#[test]
fn a_target_of_many_more_times() {
    let pair = Pair::new(1, 1);
    let source: Vec<Record> = (0..10).map(|n| record(0, WINDOW.0 + n * 1000, &format!("{n}"), "x")).collect();
    produce(&pair.a, &source);
    produce(&pair.b, &source);
    let more: Vec<Record> = (0..5000).map(|n| record(0, WINDOW.0 + HOUR + n, "more", "x")).collect();
    produce(&pair.b, &more);
    let found = Sums::judged(&pair.a, &pair.b);
    assert!(found["step_ms"].as_u64().expect("a length") > 1, "{found}");
    let differing = found["differing"].as_array().expect("stretches");
    assert_eq!(
        (differing.len(), &differing[0]["in_source"], &differing[0]["in_target"]),
        (1, &json!(0), &json!(5000))
    );
    let back = Sums::judged(&pair.b, &pair.a);
    assert_eq!(back["differing"][0]["start"], found["differing"][0]["start"]);
}

/// The format is a promise to other machines and later versions, so this reads it with code of its own.
#[test]
fn what_the_file_holds() {
    let (pair, sums) = (Pair::new(1, 1), Sums::new());
    let mut records = window_of(&day(600, 1));
    records[0].headers = vec![("a".to_owned(), Some(b"b".to_vec())), ("c".to_owned(), None)];
    records[1].key = None;
    produce(&pair.a, &records);
    answer(&sums.summarize(&pair.a, &[]), 0);
    let file = sums.written();
    let number = |text: &Value| u128::from_str_radix(text.as_str().expect("text"), 16).expect("hexadecimal");
    let key = number(&file["key"]).to_be_bytes();
    let step = file["step_ms"].as_i64().expect("a length");
    let mut wanted: BTreeMap<i64, (u64, u128)> = BTreeMap::new();
    for record in &records {
        let mut hasher = SipHasher13::new_with_key(&key);
        let mut part = |bytes: Option<&[u8]>| {
            hasher.write(&bytes.map_or(u64::MAX, |bytes| bytes.len() as u64).to_le_bytes());
            hasher.write(bytes.unwrap_or_default());
        };
        part(record.key.as_deref());
        part(record.value.as_deref());
        for (name, value) in &record.headers {
            part(Some(name.as_bytes()));
            part(value.as_deref());
        }
        hasher.write(&record.time.to_le_bytes());
        let hash = hasher.finish128();
        let sum = wanted.entry(record.time.div_euclid(step) * step).or_default();
        *sum = (sum.0 + 1, sum.1.wrapping_add(u128::from(hash.h1) << 64 | u128::from(hash.h2)));
    }
    let steps = file["steps"].as_array().expect("steps").iter();
    let found: BTreeMap<i64, (u64, u128)> = steps
        .map(|step| {
            let records = step["records"].as_u64().expect("a count");
            (step["start_ms"].as_i64().expect("a time"), (records, number(&step["sum"])))
        })
        .collect();
    assert_eq!(found, wanted);
    let told = (&file["format"], &file["version"], &file["source"], &file["records"], &file["time_field"]);
    assert_eq!(told, (&json!("replicator summary"), &json!(1), &json!(pair.a), &json!(178), &Value::Null));
    assert_eq!(file["window"]["start_ms"], WINDOW.0);
    // Another file of the same topic has another key.
    let other = Sums::new();
    answer(&other.summarize(&pair.a, &[]), 0);
    assert_ne!(other.written()["key"], file["key"]);
}

#[test]
fn the_time_of_a_field_is_that_of_the_file() {
    let (pair, sums) = (Pair::new(1, 1), Sums::new());
    let mut records = day(600, 1);
    for record in &mut records {
        record.value = Some(format!("{{\"at\":{}}}", record.time).into_bytes());
        record.time = DAY;
    }
    records.push(record(0, DAY, "no time", "{}"));
    produce(&pair.a, &records);
    produce(&pair.b, &records);
    answer(&sums.summarize(&pair.a, &["--time-field", "/at", "--date", "2021-04-14"]), 0);
    assert_eq!(sums.written()["time_field"], "/at");
    let found = answer(&sums.compare(&pair.b, &[]), 0);
    assert_eq!((&found["in_source"], &found["in_target"]), (&json!(179), &json!(179)));
    produce(&pair.b, &records[600..]);
    let found = answer(&sums.compare(&pair.b, &[]), 4);
    assert_eq!(found["differing"], json!([{ "start": null, "end": null, "in_source": 1, "in_target": 2 }]));
}

#[test]
fn a_window_without_records() {
    let (pair, sums) = (Pair::new(1, 1), Sums::new());
    produce(&pair.a, &[record(0, DAY, "outside", "x")]);
    let found = answer(&sums.summarize(&pair.a, &[]), 0);
    let warning = found["warnings"][0].as_str().expect("a warning");
    assert!(found["in_source"] == 0 && warning.contains("holds no record in the window"), "{found}");
    let found = answer(&sums.compare(&pair.b, &[]), 0);
    assert!(
        found["warnings"][0].as_str().expect("a warning").contains("held no record in the window"),
        "{found}"
    );
    let (_, told) = sums.told(&pair.b);
    assert!(told.contains("neither holds a record in the window"), "{told}");
    produce(&pair.b, &[record(0, WINDOW.0, "extra", "x")]);
    assert_eq!(answer(&sums.compare(&pair.b, &[]), 4)["in_target"], 1);
}

#[test]
fn a_window_that_is_not_over() {
    let (pair, sums) = (Pair::new(1, 1), Sums::new());
    produce(&pair.a, &day(10, 1));
    let found = answer(&sums.run("--summary", &["--source", &pair.a, "--window", "2021-04-14T11:00Z/"]), 0);
    assert!(found["warnings"][0].as_str().expect("a warning").contains("was not over"), "{found}");
}

/// Each side is alone on its machine: nothing names the other cluster, or what names it leads nowhere.
#[test]
fn only_one_cluster_is_needed() {
    let (pair, sums) = (Pair::new(1, 1), Sums::new());
    let records = day(60, 1);
    produce(&pair.a, &records);
    produce(&pair.b, &records);
    let path = sums.path();
    let run = |option: &str, more: &[&str], nowhere: Option<&str>| {
        let mut command = replicator(&["verify", option, path.to_str().expect("text"), "-o", "json"]);
        command.args(more).env_remove("KAFKA_BOOTSTRAP_SERVERS");
        if let Some(variable) = nowhere {
            command.env(variable, "127.0.0.1:1");
        }
        command.output().expect("runs")
    };
    let source = ["--source", &pair.a, "--window", "11:00-13:00", "--source-bootstrap-server", broker()];
    answer(&run("--summary", &source, None), 0);
    std::fs::remove_file(&path).expect("removed");
    answer(&run("--summary", &source, Some("KAFKA_TARGET_BOOTSTRAP_SERVERS")), 0);
    let target = ["--target", &pair.b, "--target-bootstrap-server", broker()];
    answer(&run("--against", &target, None), 0);
    answer(&run("--against", &target, Some("KAFKA_SOURCE_BOOTSTRAP_SERVERS")), 0);
    // The other part of the command line still needs both.
    let both = ["verify", "--window", "11:00-13:00", "--source-bootstrap-server", broker()];
    let both = replicator(&both).env_remove("KAFKA_BOOTSTRAP_SERVERS").output().expect("runs");
    assert!(code(&both) == 2 && stderr(&both).contains("name both"), "{}", stderr(&both));
}

#[test]
fn a_file_that_is_no_summary() {
    let (pair, sums) = (Pair::new(1, 1), Sums::new());
    produce(&pair.a, &day(60, 1));
    let against = |bytes: &[u8], words: &str| {
        std::fs::write(sums.path(), bytes).expect("written");
        assert_refused(&sums.compare(&pair.a, &[]), words);
    };
    assert_refused(&sums.compare(&pair.a, &[]), "cannot be read");
    answer(&sums.summarize(&pair.a, &[]), 0);
    let text = std::fs::read_to_string(sums.path()).expect("text");
    against(&text.as_bytes()[..text.len() / 2], "cut or damaged");
    against(b"", "is no file of verify --summary");
    against(b"{\"what\":\"missing\"}\n", "is no file of verify --summary");
    against(&[0xff; 100], "is no file of verify --summary");
    against(text.replacen("\"records\": 1", "\"records\": 2", 1).as_bytes(), "is damaged");
    against(
        text.replacen("\"version\": 1", "\"version\": 2", 1).as_bytes(),
        "use the same version of replicator",
    );
    std::fs::write(sums.path(), &text).expect("written");
    answer(&sums.compare(&pair.a, &[]), 0);
    let folder =
        replicator(&["verify", "-o", "json", "--against"]).arg(sums.folder.path()).output().expect("runs");
    assert_refused(&folder, "cannot be read");
}

/// A topic that is gone cannot be read again, so no run replaces its sums, and a run that fails leaves nothing.
#[test]
fn no_file_is_overwritten_or_half_written() {
    let (pair, sums) = (Pair::new(1, 1), Sums::new());
    produce(&pair.a, &day(60, 1));
    let found = answer(&sums.summarize("no-such-topic", &[]), 3);
    assert_eq!((&found["error"]["reason"], sums.files()), (&json!("missing-topic"), 0));
    let open = Foreign::begin().send(&pair.a, &day(1, 1));
    answer(&sums.summarize(&pair.a, &["--patience", "1s"]), 1);
    open.abort();
    assert_eq!(sums.files(), 0);
    answer(&sums.summarize(&pair.a, &[]), 0);
    let before = sums.written();
    assert_refused(&sums.summarize(&pair.a, &[]), "is there already");
    assert_eq!((sums.written(), sums.files()), (before, 1));
    let nowhere = Path::new("/no/such/folder/sums.json").to_str().expect("text");
    let output =
        replicator(&["verify", "-o", "json", "--window", "11-13", "--source", &pair.a, "--summary", nowhere]);
    assert_refused(&{ output }.output().expect("runs"), "cannot be written");
    let found = answer(&sums.compare("no-such-topic", &[]), 3);
    assert_eq!(found["error"]["reason"], "missing-topic");
    assert!(found.get("in_source").is_none(), "{found}");
}

#[rstest]
#[case(
    "--against f --window 11-13",
    "takes no --window: the window and the event time are those of the file"
)]
#[case("--against f --tz UTC --time-field /at", "takes no --tz and no --time-field: the window")]
#[case("--against f --source a", "takes no --source: the file stands for the source")]
#[case(
    "--against f --strict-order --identity key",
    "takes no --identity and no --strict-order: the sums count equal"
)]
#[case("--against f --differences d --index-memory 5", "takes no --index-memory")]
#[case("--summary f --window 11-13 --target b", "takes no --target: it reads only the source")]
#[case("--summary f --window 11-13 --on-conflict skip", "takes no --on-conflict")]
#[case(
    "--summary f --window 11-13 --target-scan all --skip-invalid",
    "takes no --target-scan and no --skip-invalid"
)]
#[case("--summary f --against f", "give one of them")]
#[case("--summary f", "--window <WINDOW>")]
#[case("--source a", "--window <WINDOW>")]
fn options_that_would_be_ignored(#[case] line: &str, #[case] words: &str) {
    let arguments: Vec<&str> = ["verify", "-o", "json"].into_iter().chain(line.split(' ')).collect();
    assert_refused(&replicator(&arguments).output().expect("runs"), words);
}
