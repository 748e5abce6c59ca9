//! Instances divide the target between them: what they keep of it, and what they read of it.

use std::collections::BTreeMap;
use std::process::{Child, Output, Stdio};

use rstest::rstest;

use crate::kit::*;
use crate::scale_out::{PARTITIONS, ended, placed, size};

/// Instances that join at once see what the others vouch for.
const TOGETHER: &str = "after-vouch=sleep(2000)";

fn start(pair: &Pair, failpoints: &str, options: &[&str]) -> Child {
    let mut command = pair.command(20);
    command.args(["--scale-out", "-v", "--max-rate", "100/s", "-X", "heartbeat.interval.ms=300"]);
    command.args(options).env("FAILPOINTS", failpoints);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
}

/// How many identities an instance kept at last, how many offsets of the target it read for that, and of how many.
fn scanned(output: &Output) -> (u64, u64, u64) {
    let told = stderr(output);
    let line = told.lines().rfind(|line| line.contains("identities that count")).expect("it scanned");
    let line = line.split_once(" holds ").expect("holds").1;
    let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    (numbers[0], numbers[1], numbers[2])
}

/// Four fifths of the window are in the target, and everything else.
fn mostly_there(records: &[Record]) -> Vec<Record> {
    let some = |(n, record): (usize, &Record)| (!in_window(record) || n % 5 != 0).then(|| record.clone());
    records.iter().enumerate().filter_map(some).collect()
}

/// A target in which every tenth record of the window stands in a wrong partition.
pub(crate) fn misplaced_story(count: usize) -> Pair {
    let pair = Pair::new(PARTITIONS, PARTITIONS);
    let records = placed(count);
    produce(&pair.a, &records);
    let mut before = mostly_there(&records);
    for record in before.iter_mut().filter(|record| in_window(record)).step_by(10) {
        record.partition = (record.partition + 1) % PARTITIONS;
    }
    produce(&pair.b, &before);
    pair
}

/// Records of the window that the target does not hold once, with the number of their copies.
fn not_once(pair: &Pair) -> Vec<(Vec<u8>, i32)> {
    let mut copies: BTreeMap<Vec<u8>, i32> = BTreeMap::new();
    for record in window_of(&consume(&pair.a)) {
        copies.insert(record.key.expect("a key"), 0);
    }
    for record in window_of(&consume(&pair.b)) {
        *copies.entry(record.key.expect("a key")).or_default() += 1;
    }
    copies.into_iter().filter(|(_, copies)| *copies != 1).collect()
}

pub(crate) fn assert_each_once(pair: &Pair) {
    assert_eq!(not_once(pair), []);
    assert_eq!(pair.filled().counts.written, 0);
}

#[rstest]
#[case::by_key("key")]
#[case::by_record("record")]
fn what_instances_keep_and_read_divides(#[case] identity: &str) {
    let pair = Pair::new(PARTITIONS, PARTITIONS);
    let records = placed(6000);
    produce(&pair.a, &records);
    let before = mostly_there(&records);
    produce(&pair.b, &before);
    let outputs = ended((0..3).map(|_| start(&pair, TOGETHER, &["--identity", identity])).collect());
    for output in &outputs {
        assert_eq!(code(output), 0, "{}", stderr(output));
    }
    pair.assert_holds(&before, &window_of(&consume(&pair.a)));
    let scans: Vec<_> = outputs.iter().map(scanned).collect();
    // No two instances keep the same identity.
    let kept: u64 = scans.iter().map(|(kept, ..)| kept).sum();
    assert!(kept <= u64::try_from(window_of(&records).len()).expect("fits"), "{scans:?}");
    assert!(scans.iter().all(|(kept, ..)| *kept > 0), "{scans:?}");
    let read: u64 = scans.iter().map(|(_, read, _)| read).sum();
    let all = scans.iter().map(|(.., all)| *all).max().expect("some");
    assert!(read < all + all / 2, "they read most records once: {scans:?}");
}

/// If the numbers of partitions differ, nobody knows where to look for a key, so each instance reads everything.
#[test]
fn what_instances_keep_divides_also_if_partitions_differ() {
    let pair = Pair::new(PARTITIONS, 4);
    let records = placed(6000);
    produce(&pair.a, &records);
    produce(&pair.b, &crate::kit::placed(mostly_there(&records), 4));
    let outputs = ended((0..2).map(|_| start(&pair, "", &[])).collect());
    for output in &outputs {
        assert_eq!(code(output), 0, "{}", stderr(output));
    }
    assert_each_once(&pair);
    let scans: Vec<_> = outputs.iter().map(scanned).collect();
    let kept: u64 = scans.iter().map(|(kept, ..)| kept).sum();
    assert!(kept <= u64::try_from(window_of(&records).len()).expect("fits"), "{scans:?}");
    assert!(scans.iter().all(|(_, read, all)| read == all), "{scans:?}");
}

#[rstest]
#[case::are_found("", true)]
#[case::are_missed_by_one_who_trusts_a_false_word(";break-vouch-for-placed=return", false)]
fn copies_in_a_wrong_partition(#[case] failpoint: &str, #[case] is_right: bool) {
    let pair = misplaced_story(3000);
    let failpoints = format!("{TOGETHER}{failpoint}");
    let outputs = ended((0..2).map(|_| start(&pair, &failpoints, &[])).collect());
    for output in &outputs {
        assert_eq!(code(output), 0, "{}", stderr(output));
    }
    match is_right {
        true => assert_each_once(&pair),
        false => {
            assert!(not_once(&pair).iter().all(|(_, copies)| *copies == 2) && !not_once(&pair).is_empty())
        }
    }
}

/// An earlier repair stamped its own time, and put the copies where their keys belong, or into other partitions.
#[rstest]
#[case::in_their_place(0)]
#[case::in_a_wrong_place(1)]
fn copies_under_another_time(#[case] off: i32) {
    let pair = Pair::new(PARTITIONS, PARTITIONS);
    let records = placed(3000);
    produce(&pair.a, &records);
    let repaired = window_of(&records).into_iter().step_by(3).map(|record| Record {
        time: WINDOW.1 + HOUR,
        partition: (record.partition + off) % PARTITIONS,
        ..record
    });
    let before: Vec<Record> = outside_of(&records).into_iter().chain(repaired).collect();
    produce(&pair.b, &before);
    for output in ended((0..2).map(|_| start(&pair, TOGETHER, &[])).collect()) {
        // The first one's copies may be committed before the second one looks at its partitions.
        assert!([1, 3].contains(&code(&output)), "{}", stderr(&output));
        assert!(stderr(&output).contains("differ only in timestamp"), "{}", stderr(&output));
    }
    let copied = window_of(&consume(&pair.b));
    assert!(copied.iter().all(|record| before.iter().all(|there| there.key != record.key)));
}

#[test]
#[ignore = "takes a minute"]
fn whoever_takes_partitions_over_knows_what_is_there() {
    let pair = misplaced_story(6000);
    let begin = size(&pair.b);
    let options = ["-X", "session.timeout.ms=6000"];
    let mut children: Vec<Child> = (0..3).map(|_| start(&pair, "", &options)).collect();
    until(|| size(&pair.b) > begin + 60);
    let mut dead = children.remove(0);
    signal(&dead, "-KILL");
    dead.wait().expect("ends");
    // One more joins, vouches for its partitions, and dies.
    let output = start(&pair, "after-vouch=return", &options).wait_with_output().expect("ends");
    assert_eq!(code(&output), -1, "{}", stderr(&output));
    children.push(start(&pair, "", &options));
    for output in ended(children) {
        assert_eq!(code(&output), 0, "{}", stderr(&output));
    }
    assert_each_once(&pair);
}
