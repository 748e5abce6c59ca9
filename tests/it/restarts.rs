//! Runs the real binary as a process, with kills, rivals and signals.

use std::rc::Rc;
use std::sync::Arc;

use rdkafka::consumer::Consumer;

use replicator::{Cluster, Interrupt, Origin, Outgoing, Pace, Position, Producer, TransactionLimits};

use crate::kit::*;

fn in_mid_copy(pair: &Pair, more_than: i64) {
    until(|| watermarks(&pair.b).iter().map(|w| w.1).sum::<i64>() > more_than);
}

#[test]
fn killed_in_mid_copy_again_and_again_then_completed() {
    let pair = Pair::new(3, 3);
    let records = day(20_000, 3);
    produce(&pair.a, &records);
    let before = outside_of(&records)[..2000].to_vec();
    produce(&pair.b, &before);
    for more in [2100, 2900, 3600] {
        let mut child = pair.spawn(20);
        in_mid_copy(&pair, more);
        signal(&child, "-KILL");
        assert!(!child.wait().expect("ends").success());
    }
    let output = pair.command(50_000).output().expect("runs");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let receipt = receipt(&output);
    assert_eq!(receipt["complete"], true);
    assert!(receipt["written"].as_u64().expect("a count") < 5925, "it resumed: {receipt:?}");
    pair.assert_filled(&before);
}

#[test]
fn interrupted_leaves_no_open_transaction() {
    for how in ["-INT", "-TERM"] {
        let pair = Pair::new(1, 1);
        produce(&pair.a, &day(20_000, 1));
        let child = pair.spawn(20);
        in_mid_copy(&pair, 500);
        signal(&child, how);
        let output = child.wait_with_output().expect("ends");
        assert_eq!(code(&output), 130, "{}", stderr(&output));
        assert_eq!(receipt(&output)["complete"], false);
        until(|| last_stable_offsets(&pair.b)[0] == watermarks(&pair.b)[0].1);
        pair.filled();
        pair.assert_filled(&[]);
    }
}

#[test]
fn two_runs_at_once_never_double() {
    let pair = Pair::new(2, 2);
    produce(&pair.a, &day(20_000, 2));
    let first = pair.spawn(20);
    in_mid_copy(&pair, 300);
    let second = pair.spawn(20);
    let outputs = [first, second].map(|child| child.wait_with_output().expect("ends"));
    let codes = outputs.each_ref().map(code);
    assert_eq!(codes, [5, 0], "{} {}", stderr(&outputs[0]), stderr(&outputs[1]));
    assert!(stderr(&outputs[0]).contains("another run"), "{}", stderr(&outputs[0]));
    pair.assert_filled(&[]);
}

#[test]
fn two_runs_started_together_never_double() {
    let pair = Pair::new(2, 2);
    produce(&pair.a, &day(6000, 2));
    let children = [pair.spawn(50), pair.spawn(50)];
    let outputs = children.map(|child| child.wait_with_output().expect("ends"));
    let codes = outputs.each_ref().map(code);
    assert!(
        codes.contains(&0) && codes.iter().all(|c| [0, 5].contains(c)),
        "{codes:?} {}",
        stderr(&outputs[0])
    );
    pair.assert_filled(&[]);
}

#[test]
fn a_plan_does_not_disturb_a_live_fill() {
    let pair = Pair::new(2, 2);
    produce(&pair.a, &day(20_000, 2));
    let fill = pair.spawn(20);
    in_mid_copy(&pair, 300);
    let (plan, result) = pair.plan();
    result.expect("plans");
    assert!(plan.to_write.is_some());
    let output = fill.wait_with_output().expect("ends");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    pair.assert_filled(&[]);
}

#[test]
fn killed_after_a_commit_that_another_transaction_hides() {
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(20_000, 1));
    let mut child = pair.spawn(20);
    in_mid_copy(&pair, 300);
    let open = Foreign::begin().send(&pair.b, &[record(0, WINDOW.1 + HOUR, "foreign", "open")]);
    in_mid_copy(&pair, 900);
    signal(&child, "-KILL");
    child.wait().expect("ends");
    // The records that were committed behind the open transaction are not readable. No run may pass over them.
    let impatient = pair.command(50_000).args(["--patience", "1"]).output().expect("runs");
    assert_eq!(code(&impatient), 1, "{}", stderr(&impatient));
    assert!(stderr(&impatient).contains("find-hanging"));
    open.abort();
    pair.filled();
    pair.assert_filled(&[]);
}

#[test]
fn a_run_that_is_fenced_while_it_sends_leaves_the_other_alone() {
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(100_000, 1));
    // All records are in one transaction, so the rival's init meets the first run while it produces.
    let mut first = pair.spawn(1_000_000);
    in_mid_copy(&pair, 0);
    let second = pair.command(1_000_000).output().expect("runs");
    let first_ended = first.wait().expect("ends");
    assert_eq!(code(&second), 0, "{}", stderr(&second));
    assert!([Some(0), Some(5)].contains(&first_ended.code()), "{first_ended:?}");
    assert_eq!(receipt(&second)["restarts"], 0);
    pair.assert_filled(&[]);
}

#[test]
fn offsets_with_metadata_that_is_no_text_are_not_ours() {
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(600, 1));
    commit_bytes(&pair.job.selection.name(), &pair.a, &[0xff, 0xfe, 0]);
    assert_eq!(pair.filled().counts.written, 178);
    pair.assert_filled(&[]);
}

#[test]
fn an_abort_right_after_a_commit_finds_nothing_to_abort() {
    // A drill found this. The coordinator still ends the last transaction when the next one is aborted. So it has not
    // added the next one's first partition, and says that there is no transaction.
    let pair = Pair::new(3, 3);
    produce(&pair.a, &day(30, 3));
    let name = pair.job.selection.name();
    let cluster = Cluster::connect(&properties(), &name).expect("connects");
    let group = Arc::new(cluster.committed.group_metadata().expect("a group"));
    let offsets = || Ok(vec![Position { partition: 0, position: 1, metadata: String::new() }]);
    let pace = Rc::new(Pace::new(TransactionLimits::default()));
    let record = |partition| Outgoing {
        partition,
        key: None,
        value: None,
        timestamp: 1,
        headers_of: None,
        origin: Origin::line(1),
    };
    let target = cluster.topic(&pair.b).expect("answers").expect("there");
    for _ in 0..10 {
        let producer = Producer::init(&properties(), &name, "a", &target.name, 1_000_000, TIMEOUT, &pace)
            .expect("initialised");
        let mut transaction = producer.begin().expect("begun");
        for partition in 0..3 {
            transaction.send(record(partition), &Interrupt::default()).expect("sent");
        }
        transaction.commit(&pair.a, offsets, &group).expect("committed");
        let mut transaction = producer.begin().expect("begun");
        transaction.send(record(0), &Interrupt::default()).expect("sent");
        transaction.poll();
        transaction.abort().expect("aborted");
    }
    until(|| last_stable_offsets(&pair.b) == watermarks(&pair.b).iter().map(|w| w.1).collect::<Vec<_>>());
}
