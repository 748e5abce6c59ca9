//! A cluster dies with a tail that was never mirrored, and comes back: the runbook `docs/failback.md`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use replicator::Sandbox;

use crate::console::{answers, commands_of};
use crate::kit::*;
use crate::mirror::{MirrorMaker, await_records};

const PARTITIONS: i32 = 3;

/// Six records as a mirror may spoil them: headers, repeated and without a value; no value; no key; equal records.
fn awkward(at: i64) -> Vec<Record> {
    let header = |name: &str, value: Option<&str>| (name.to_owned(), value.map(|v| v.as_bytes().to_vec()));
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

/// The mirror of the story.
#[derive(Clone, Copy, PartialEq)]
enum Mirror {
    MirrorMaker,
    /// A fill of everything.
    Fill,
}

/// Writes the story of the runbook: the old cluster dies with a tail that was never mirrored, writers go on in the new
/// cluster, and the old cluster comes back. Returns the tail, and the writers' records.
fn story(sandbox: &mut Sandbox, across: &Across, by: Mirror) -> Option<(Vec<Record>, Vec<Record>)> {
    let (source, target) = (&across.source, &across.target);
    let mirrored: Vec<Record> = awkward(DAY + 10 * HOUR).into_iter().chain(events(0..594)).collect();
    across.from.begin().send(source, &events(0..30)).abort();
    across.from.produce(source, &mirrored);
    let mirror = match by {
        Mirror::MirrorMaker => Some(MirrorMaker::start(&across.from, &across.to, source)?),
        Mirror::Fill => {
            let window = ["--window", "2021-04-14T00:00Z/2021-04-15T00:00Z", "--identity", "record"];
            let output = across.command(&window).output().expect("runs");
            assert_eq!(code(&output), 0, "{}", stderr(&output));
            None
        }
    };
    assert_same(&await_records(&across.to, target, mirrored.len()), &across.consume_source());

    // The mirror stands still, and then the old cluster and the mirror are gone.
    if let Some(mirror) = &mirror {
        mirror.freeze();
    }
    let tail: Vec<Record> = awkward(DAY + 11 * HOUR).into_iter().chain(events(600..630)).collect();
    across.from.produce(source, &tail);
    sandbox.kill(0).expect("killed");
    drop(mirror);

    let theirs: Vec<Record> = events(640..700)
        .into_iter()
        .map(|r| Record { value: Some(b"in the new cluster".to_vec()), ..r })
        .collect();
    across.to.produce(target, &theirs);
    sandbox.restart(0).expect("started");
    let held: Vec<Record> = mirrored.into_iter().chain(tail.clone()).collect();
    assert_eq!(by_partition(&await_records(&across.from, source, held.len())), by_partition(&held));
    Some((tail, theirs))
}

/// One event every six seconds from 10:00 on, of seven devices.
fn events(numbers: std::ops::Range<i64>) -> Vec<Record> {
    numbers
        .map(|n| {
            let partition = i32::try_from(n).expect("small") % PARTITIONS;
            record(
                partition,
                DAY + 10 * HOUR + 6000 * n,
                &format!("device-{}", n % 7),
                &format!("{{\"n\":{n}}}"),
            )
        })
        .collect()
}

/// The records of `first`, and behind them those of `then`, in each partition.
fn appended(first: &[Record], then: &[Record]) -> BTreeMap<i32, Vec<Record>> {
    by_partition(&[first, then].concat())
}

#[test]
fn the_runbook_saves_the_tail_of_our_own_fill() {
    the_runbook_saves_the_tail_of(Mirror::Fill);
}

#[test]
#[ignore = "takes a minute"]
fn the_runbook_saves_the_tail_of_mirror_maker() {
    the_runbook_saves_the_tail_of(Mirror::MirrorMaker);
}

fn the_runbook_saves_the_tail_of(mirror: Mirror) {
    let mut sandbox = Sandbox::start_own(1).expect("a broker");
    let across = Across::between(Side(sandbox.bootstrap().to_owned()), side_b(), PARTITIONS, PARTITIONS);
    let Some((tail, theirs)) = story(&mut sandbox, &across, mirror) else { return };
    let (old, new) = (across.consume_source(), across.consume_target());

    let gaps = across.command(&["gaps", "--identity", "record", "--output", "json"]).output().expect("runs");
    assert_eq!(code(&gaps), 0, "{}", stderr(&gaps));
    let found = receipt(&gaps);
    assert_eq!(found["missing"], tail.len(), "{found:?}");
    assert_eq!(found["holes"].as_array().map(Vec::len), Some(1), "{found:?}");

    run_document(&across);

    assert_eq!(by_partition(&across.consume_target()), appended(&new, &tail), "only the tail came, once");
    assert_eq!(
        by_partition(&across.consume_source()),
        appended(&old, &theirs),
        "and back what was written since"
    );
}

/// Runs each command of the runbook, in order, and compares its answer with the one in the document.
fn run_document(across: &Across) {
    let document = include_str!("../../docs/failback.md");
    let names = [("old:9092", &across.from.0), ("new:9092", &across.to.0), ("events", &across.source)];
    let here = |text: &str| names.iter().fold(text.to_owned(), |text, (name, real)| text.replace(name, real));
    let there =
        |text: &str| names.iter().fold(text.to_owned(), |text, (name, real)| text.replace(*real, name));
    let program =
        Path::new(env!("CARGO_BIN_EXE_replicator")).parent().expect("a directory").display().to_string();
    let path = format!("{program}:{}", std::env::var("PATH").unwrap_or_default());
    let (mut exports, mut commands) = (String::new(), 0);
    for (command, answer) in commands_of(document) {
        if command.starts_with("export ") {
            exports.push_str(&format!("{}\n", here(&command)));
            continue;
        }
        let script = format!("{exports}{}", here(&command));
        let output = Command::new("sh").args(["-c", &script]).env("PATH", &path).output().expect("a shell");
        assert_eq!(code(&output), 0, "{command}: {}", stderr(&output));
        let said = there(&String::from_utf8_lossy(&output.stdout));
        assert!(answers(&said, &answer), "{command} printed\n{said}where the document has\n{answer}");
        commands += 1;
    }
    assert!(commands >= 5, "the document has commands");
}

#[test]
#[ignore = "takes a minute"]
fn mirror_maker_keeps_every_byte() {
    let across = Across::same_name(PARTITIONS, PARTITIONS);
    let Some(mirror) = MirrorMaker::start(&across.from, &across.to, &across.source) else { return };
    let records: Vec<Record> = awkward(DAY + 10 * HOUR).into_iter().chain(day(300, PARTITIONS)).collect();
    across.from.begin().send(&across.source, &day(30, PARTITIONS)).abort();
    across.from.produce(&across.source, &records);
    let mirrored = await_records(&across.to, &across.target, records.len());
    assert_same(&mirrored, &across.consume_source());
    // Each transaction ends with a marker, which takes an offset.
    let offsets: i64 = across.to.watermarks(&across.target).iter().map(|(_, end)| end).sum();
    assert!(usize::try_from(offsets).expect("a count") > records.len(), "it writes in transactions");
    mirror.stop();
}
