//! A producer's queue that is full, or too small for a record.

use std::rc::Rc;

use rstest::rstest;

use replicator::{Error, Interrupt, Origin, Outgoing, Pace, Producer, TransactionLimits};

use crate::kit::*;

fn with(pair: &Pair, properties: &[&str]) -> std::process::Output {
    let properties = properties.iter().flat_map(|property| ["-X", property]);
    pair.command(50_000).args(properties).output().expect("runs")
}

/// The first queue holds no full batch when it is full, and its linger time is longer than a run waits. The last
/// property comes from files for other programs that send large records.
#[rstest]
#[case::no_batch_fills(&["queue.buffering.max.messages=50", "linger.ms=40000"])]
#[case::of_one(&["queue.buffering.max.messages=1"])]
#[case::large_messages(&["message.max.bytes=20000000"])]
fn any_size_will_do(#[case] properties: &[&str]) {
    let pair = Pair::new(3, 3);
    produce(&pair.a, &day(300, 3));
    let output = with(&pair, properties);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(receipt(&output)["restarts"], 0);
    pair.assert_filled(&[]);
}

#[test]
fn a_record_larger_than_it_is_told_from_a_busy_one() {
    let pair = Pair::new(1, 1);
    let mut records = day(30, 1);
    records.push(record(0, WINDOW.0 + MINUTE, "large", &"x".repeat(100_000)));
    produce(&pair.a, &records);
    let output = with(&pair, &["queue.buffering.max.kbytes=50"]);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    let fix = "queue.buffering.max.kbytes=98";
    assert!(stderr(&output).contains(fix), "{}", stderr(&output));
    assert_eq!(consume(&pair.b), []);
    let output = with(&pair, &[fix]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    pair.assert_filled(&[]);
}

#[test]
fn who_waits_for_room_hears_of_an_interrupt() {
    let pair = Pair::new(1, 1);
    let full = ["queue.buffering.max.messages=1".to_owned(), "linger.ms=40000".to_owned()];
    let properties = replicator::Properties::new(Some(broker()), None, std::iter::empty(), &full);
    let pace = Rc::new(Pace::new(TransactionLimits::default()));
    let id = pair.job.selection.name();
    let producer =
        Producer::init(&properties.expect("valid"), &id, &pair.a, &pair.b, 1_000_000, TIMEOUT, &pace);
    let producer = producer.expect("initialised");
    let mut transaction = producer.begin().expect("begun");
    let record = Outgoing {
        partition: 0,
        key: None,
        value: None,
        timestamp: 1,
        headers_of: None,
        origin: Origin::line(1),
    };
    let interrupt = Interrupt::default();
    interrupt.set();
    transaction.send(record, &interrupt).expect("there is room");
    assert!(matches!(transaction.send(record, &interrupt), Err(Error::Interrupted)));
    transaction.abort().expect("aborted");
    assert_eq!(consume(&pair.b), []);
}
