//! Instances share the partitions. They join, leave, stop and die at any time.

use std::process::{Child, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rstest::rstest;

use replicator::partition;

use crate::kit::*;
use crate::shared_scan::{assert_each_once, misplaced_story};

pub(crate) const PARTITIONS: i32 = 6;

/// The records of [`day`], each in the partition of its key.
pub(crate) fn placed(count: usize) -> Vec<Record> {
    day(count, 1)
        .into_iter()
        .map(|record| Record {
            partition: partition::of_key(record.key.as_deref().unwrap_or_default(), 6),
            ..record
        })
        .collect()
}

/// A source of `count` records, and a target that has some of them.
fn story(count: usize) -> (Pair, Vec<Record>) {
    let pair = Pair::new(PARTITIONS, PARTITIONS);
    let records = placed(count);
    produce(&pair.a, &records);
    let some = |(n, record): (usize, &Record)| (!in_window(record) || n % 5 == 0).then(|| record.clone());
    let before: Vec<Record> = records.iter().enumerate().filter_map(some).collect();
    produce(&pair.b, &before);
    (pair, before)
}

/// Starts an instance that writes slowly, and that the group misses soon if it dies.
fn instance(pair: &Pair) -> Child {
    spawn(pair, &["-X", "session.timeout.ms=6000", "--max-rate", "1500/s"])
}

fn spawn(pair: &Pair, options: &[&str]) -> Child {
    let mut command = pair.command(20);
    command.arg("--scale-out").args(options);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
}

pub(crate) fn ended(children: Vec<Child>) -> Vec<Output> {
    children.into_iter().map(|child| child.wait_with_output().expect("ends")).collect()
}

fn written(outputs: &[Output]) -> u64 {
    outputs.iter().map(|output| receipt(output)["written"].as_u64().expect("a count")).sum()
}

pub(crate) fn size(topic: &str) -> i64 {
    watermarks(topic).iter().map(|(_, high)| high).sum()
}

#[rstest]
#[case::classic("classic")]
#[case::kip_848("consumer")]
fn instances_share_the_window(#[case] protocol: &str) {
    let (pair, before) = story(20_000);
    let protocol = format!("group.protocol={protocol}");
    // With KIP-848, partitions move with heartbeats, which are five seconds apart.
    let start = || spawn(&pair, &["-X", &protocol, "--max-rate", "300/s"]);
    let outputs = ended((0..3).map(|_| start()).collect());
    for output in &outputs {
        assert_eq!(code(output), 0, "{}", stderr(output));
        assert_eq!(receipt(output)["complete"], true);
    }
    let missing = placed(20_000).iter().filter(|record| !before.contains(record)).count();
    assert_eq!(written(&outputs), u64::try_from(missing).expect("fits"));
    let shares = outputs.iter().filter(|output| receipt(output)["written"] != 0).count();
    assert!(shares > 1, "one instance did it all");
    pair.assert_filled(&before);
    let again = ended(vec![start(), start()]);
    assert!(again.iter().all(|output| code(output) == 0 && receipt(output)["written"] == 0));
    pair.assert_holds(&before, &window_of(&consume(&pair.a)));
}

#[test]
fn another_instance_takes_over_from_one_that_died() {
    let (pair, before) = story(20_000);
    let begin = size(&pair.b);
    let mut children: Vec<Child> = (0..3).map(|_| instance(&pair)).collect();
    until(|| size(&pair.b) > begin + 600);
    let mut dead = children.remove(0);
    signal(&dead, "-KILL");
    dead.wait().expect("ends");
    for output in ended(children) {
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert_eq!(receipt(&output)["complete"], true);
    }
    pair.assert_filled(&before);
}

#[test]
fn a_single_run_does_not_write_beside_instances() {
    let (pair, before) = story(20_000);
    let begin = size(&pair.b);
    let child = instance(&pair);
    until(|| size(&pair.b) > begin + 300);
    let single = pair.command(20).output().expect("runs");
    assert_eq!(code(&single), 5, "{}", stderr(&single));
    assert!(stderr(&single).contains("--scale-out"), "{}", stderr(&single));
    assert_eq!(receipt(&single)["status"], "fenced");
    assert!(!receipt(&single).contains_key("written"), "it had read nothing");
    let plan = pair.plan();
    plan.1.expect("a plan disturbs nobody");
    let output = child.wait_with_output().expect("ends");
    // The single run fenced no instance, since each instance writes with the ids of its partitions.
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(receipt(&output)["restarts"], 0);
    pair.assert_filled(&before);
}

#[test]
fn an_instance_fences_a_single_run() {
    let (pair, before) = story(20_000);
    let begin = size(&pair.b);
    let mut command = pair.command(20);
    command.args(["--max-rate", "400/s"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let single = command.spawn().expect("starts");
    until(|| size(&pair.b) > begin + 300);
    let outputs = ended(vec![instance(&pair), single]);
    assert_eq!(outputs.iter().map(code).collect::<Vec<_>>(), [0, 5], "{}", stderr(&outputs[1]));
    pair.assert_filled(&before);
}

#[test]
fn keys_that_may_stand_in_two_partitions_are_refused() {
    let pair = Pair::new(2, 2);
    produce(&pair.a, &day(1000, 2));
    let output = instance(&pair).wait_with_output().expect("ends");
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    assert!(stderr(&output).contains("run without --scale-out"), "{}", stderr(&output));
    assert_eq!(size(&pair.b), 0);
    // One such record is behind those that a run checks first.
    let pair = Pair::new(PARTITIONS, PARTITIONS);
    let mut records = placed(6000);
    let late = records.iter().rposition(in_window).expect("one");
    records[late].partition = (records[late].partition + 1) % PARTITIONS;
    produce(&pair.a, &records);
    let output = instance(&pair).wait_with_output().expect("ends");
    assert!([1, 3].contains(&code(&output)), "{}", stderr(&output));
    assert!(stderr(&output).contains("its key belongs to partition"), "{}", stderr(&output));
    let (_, result) = pair.fill();
    result.expect("a single run fills");
    pair.assert_filled(&[]);
}

#[test]
#[ignore = "takes a minute"]
fn an_instance_of_another_job_does_not_wait_forever() {
    let (pair, before) = story(6000);
    let begin = size(&pair.b);
    let first = spawn(&pair, &["--max-rate", "60/s"]);
    until(|| size(&pair.b) > begin + 60);
    let arguments = ["--window", "10:00-11:00", "--source", &pair.a, "--target", &pair.b, "--scale-out"];
    let other = replicator(&arguments).output().expect("runs");
    assert_eq!(code(&other), 1, "it passes: {}", stderr(&other));
    assert!(stderr(&other).contains("instances of another job"), "{}", stderr(&other));
    let output = first.wait_with_output().expect("ends");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    pair.assert_filled(&before);
}

#[test]
fn a_single_run_that_sees_instances_end_writes_nothing_of_what_it_saw_before() {
    let (pair, before) = story(12_000);
    let begin = size(&pair.b);
    let instance = spawn(&pair, &["--max-rate", "700/s"]);
    until(|| size(&pair.b) > begin + 300);
    let mut command = pair.command(20);
    command.env("FAILPOINTS", "after-snapshot=sleep(8000)").stdout(Stdio::piped()).stderr(Stdio::piped());
    let outputs = ended(vec![instance, command.spawn().expect("starts")]);
    assert_eq!(outputs.iter().map(code).collect::<Vec<_>>(), [0, 5], "{}", stderr(&outputs[1]));
    pair.assert_filled(&before);
}

#[test]
fn records_without_a_key_are_refused() {
    let pair = Pair::new(2, 2);
    let keyless = |n: i64| Record { key: None, ..record(0, WINDOW.0 + n, "", &format!("same-{n}")) };
    let same: Vec<Record> = (0..500).map(keyless).collect();
    let also: Vec<Record> = same.iter().cloned().map(|r| Record { partition: 1, ..r }).collect();
    produce(&pair.a, &same);
    produce(&pair.a, &also);
    let options = ["--identity", "key+value"];
    for output in ended(vec![spawn(&pair, &options), spawn(&pair, &options)]) {
        assert_eq!(code(&output), 3, "{}", stderr(&output));
        assert!(stderr(&output).contains("it has no key"), "{}", stderr(&output));
    }
    assert_eq!(consume(&pair.b), []);
}

#[test]
#[ignore = "takes a minute"]
fn what_is_marked_by_an_earlier_window_is_no_other_job_at_work() {
    let (pair, before) = story(6000);
    let window = ["--window", "10:00-11:00", "--source", &pair.a, "--target", &pair.b];
    let earlier = replicator(&window).output().expect("runs");
    assert_eq!(code(&earlier), 0, "{}", stderr(&earlier));
    // This instance dies before it marks its partitions, and the group misses it late.
    let mut dead = pair.command(20);
    dead.args(["--scale-out", "-X", "session.timeout.ms=25000"]).env("FAILPOINTS", "after-init=return");
    assert_eq!(dead.output().expect("runs").status.code(), None);
    let output = instance(&pair).wait_with_output().expect("ends");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    pair.assert_filled(&before);
}

#[rstest]
#[case::for_good("group.remote.assignor=typo", 3, "assignor")]
#[case::for_now("partition.assignment.strategy=cooperative-sticky", 1, "no assignment in time")]
fn an_instance_that_the_group_does_not_take(#[case] property: &str, #[case] wanted: i32, #[case] says: &str) {
    let (pair, before) = story(6000);
    let begin = size(&pair.b);
    let other = spawn(&pair, &["--max-rate", "100/s"]);
    until(|| size(&pair.b) > begin + 60);
    let mut options = vec!["--patience", "2", "-X", property];
    if wanted == 3 {
        options.extend(["-X", "group.protocol=consumer"]);
    }
    let refused = spawn(&pair, &options).wait_with_output().expect("ends");
    assert_eq!(code(&refused), wanted, "{}", stderr(&refused));
    assert!(stderr(&refused).contains(says), "{}", stderr(&refused));
    let output = other.wait_with_output().expect("ends");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    pair.assert_filled(&before);
}

/// Instances join, leave, die and pause as the seed decides. Whatever they do, the target holds each record once and in
/// order.
fn schedule(seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // In half of the schedules, the target holds records in wrong partitions.
    let is_misplaced = seed.is_multiple_of(2);
    let (pair, before) = if is_misplaced { (misplaced_story(30_000), Vec::new()) } else { story(12_000) };
    let mut running: Vec<Child> = (0..3).map(|_| instance(&pair)).collect();
    let mut gone = Vec::new();
    for _ in 0..random.random_range(4..10) {
        sleep(Duration::from_millis(random.random_range(50..1500)));
        let at = (!running.is_empty()).then(|| random.random_range(0..running.len()));
        match (random.random_range(0..5), at) {
            (0, Some(at)) => {
                let mut child = running.remove(at);
                signal(&child, "-KILL");
                child.wait().expect("ends");
            }
            (1, Some(at)) => {
                let child = running.remove(at);
                signal(&child, "-TERM");
                gone.push(child);
            }
            (2, Some(at)) => {
                // The pause may be longer than the session. Then its partitions go to others before it wakes.
                signal(&running[at], "-STOP");
                sleep(Duration::from_millis(random.random_range(100..9000)));
                signal(&running[at], "-CONT");
            }
            _ if running.len() < 4 => running.push(instance(&pair)),
            _ => {}
        }
    }
    running.push(instance(&pair));
    for output in ended(running) {
        assert_eq!(code(&output), 0, "seed {seed}: {}", stderr(&output));
        assert_eq!(receipt(&output)["complete"], true);
    }
    for output in ended(gone) {
        assert!([0, 130].contains(&code(&output)), "seed {seed}: {} {}", code(&output), stderr(&output));
    }
    match is_misplaced {
        true => assert_each_once(&pair),
        false => pair.assert_filled(&before),
    }
}

/// `SCHEDULES=50` tries 50 schedules.
#[test]
fn any_schedule_of_joins_leaves_and_deaths() {
    let count: u64 = std::env::var("SCHEDULES").ok().and_then(|count| count.parse().ok()).unwrap_or(2);
    let first: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for seed in first..first + count {
        schedule(seed);
        println!("schedule {seed}: all is there once");
    }
}

#[test]
#[ignore = "takes a minute"]
fn a_live_target_whose_beginning_moves_costs_no_start_up() {
    let (pair, _) = story(20_000);
    let outputs = std::thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let retention = scope.spawn({
            let target = pair.b.clone();
            move || {
                // Delete some records from before the window at a time.
                for step in 1.. {
                    let is_over = stopped.recv_timeout(Duration::from_secs(1)).is_ok();
                    if is_over {
                        return step;
                    }
                    (0..PARTITIONS).for_each(|partition| trim(&target, partition, (step * 5).min(400)));
                }
                0
            }
        });
        // The fast instances wait for the slow one.
        let rates = ["1000/s", "1000/s", "40/s"];
        let outputs = ended(rates.map(|rate| spawn(&pair, &["-v", "--max-rate", rate])).into());
        stop.send(()).expect("it listens");
        assert!(retention.join().expect("ends") > 2, "the beginning moved");
        outputs
    });
    for output in &outputs {
        assert_eq!(code(output), 0, "{}", stderr(output));
        let start_ups = stderr(output).matches("this instance has the partitions").count();
        // On a slow machine the group moves partitions when each of the three joins, and when each of the others ends.
        assert!((1..=5).contains(&start_ups), "{start_ups} start-ups: {}", stderr(output));
        let is_asked_anew = stderr(output).contains("may lack records that this instance had finished");
        assert!(!is_asked_anew, "{}", stderr(output));
    }
    let sorted = |topic: &str| {
        let mut records = window_of(&consume(topic));
        records.sort();
        records
    };
    assert_same(&sorted(&pair.b), &sorted(&pair.a));
}
