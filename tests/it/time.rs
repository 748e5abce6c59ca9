//! Event times at the edges, out of order or in a field, with open and aborted transactions around them.

use std::collections::HashMap;
use std::time::Duration;

use replicator::{EventTime, Interrupt, Isolation, Range, Reader, Reading, rfc3339};

use crate::kit::*;

#[test]
fn at_the_edges_and_out_of_order() {
    let pair = Pair::new(1, 1);
    let times = [
        WINDOW.1 + HOUR,
        WINDOW.0,
        WINDOW.1,
        WINDOW.0 - 1,
        WINDOW.1 - 1,
        DAY + 10 * HOUR,
        WINDOW.0 + 1,
        WINDOW.1 + 1,
        WINDOW.0,
    ];
    let records: Vec<Record> =
        times.iter().enumerate().map(|(n, time)| record(0, *time, &format!("event-{n}"), "x")).collect();
    produce(&pair.a, &records);
    assert_eq!(pair.filled().counts.written, 4);
    pair.assert_filled(&[]);
}

#[test]
fn the_time_of_a_field() {
    let pair = Pair::new(2, 2);
    let now = chrono::Utc::now().timestamp_millis();
    let records: Vec<Record> = day(600, 2)
        .into_iter()
        .map(|r| Record {
            value: Some(format!("{{\"e\":{{\"at\":{}}}}}", r.time).into_bytes()),
            time: now,
            ..r
        })
        .collect();
    produce(&pair.a, &records);
    produce(&pair.b, &records[100..120]);
    let pair =
        pair.with(|job| job.selection.event_time = EventTime::Field("/e/at".parse().expect("a pointer")));
    let receipt = pair.filled();
    assert_eq!((receipt.counts.written, receipt.counts.already_in_target), (158, 20));
    let (findings, result) = pair.verify();
    result.unwrap_or_else(|e| panic!("{e} {findings:?}"));
    assert_eq!(pair.filled().counts.written, 0);
}

#[test]
fn a_record_without_the_field_is_counted_and_refused() {
    let pair = Pair::new(1, 1)
        .with(|job| job.selection.event_time = EventTime::Field("/at".parse().expect("a pointer")));
    let good = record(0, WINDOW.0, "good", &format!("{{\"at\":{}}}", WINDOW.0));
    produce(
        &pair.a,
        &[good.clone(), record(0, WINDOW.0, "bad", "not JSON"), record(0, WINDOW.0, "worse", "{}")],
    );
    let (receipt, result) = pair.fill();
    let error = result.expect_err("refused");
    assert!(error.to_string().contains("--skip-invalid"), "{error}");
    assert_eq!(receipt.counts.invalid, 2);
    let pair = pair.with(|job| job.selection.rules.skip_invalid = true);
    assert_eq!(pair.filled().counts.written, 1);
    assert_same(&consume(&pair.b), &[good]);
}

#[test]
fn aborted_transactions_anywhere_also_at_the_very_end() {
    let pair = Pair::new(2, 2);
    let records = day(600, 2);
    for (n, chunk) in records.chunks(60).enumerate() {
        let ghosts: Vec<Record> = chunk
            .iter()
            .map(|r| Record { key: Some(b"ghost".to_vec()), value: Some(b"aborted".to_vec()), ..r.clone() })
            .collect();
        Foreign::begin().send(&pair.a, &ghosts).abort();
        if n % 2 == 0 {
            Foreign::begin().send(&pair.a, chunk).commit();
        } else {
            produce(&pair.a, chunk);
        }
    }
    Foreign::begin().send(&pair.a, &window_of(&records)).abort();
    assert_eq!(pair.filled().counts.written, 178);
    pair.assert_filled(&[]);
}

#[test]
fn aborted_transactions_in_the_target_are_not_there() {
    let pair = Pair::new(1, 1);
    let records = day(600, 1);
    produce(&pair.a, &records);
    Foreign::begin().send(&pair.b, &window_of(&records)).abort();
    produce(&pair.b, &records[100..110]);
    Foreign::begin().send(&pair.b, &window_of(&records)).abort();
    assert_eq!(pair.filled().counts.written, 168);
    pair.assert_filled(&records[100..110]);
}

#[test]
fn an_open_transaction_in_the_target_is_waited_for_and_then_named() {
    let pair = Pair::new(1, 1).with(|job| job.selection.patience = Duration::from_secs(2));
    let records = day(600, 1);
    produce(&pair.a, &records);
    let open = Foreign::begin().send(&pair.b, &records[100..110]);
    let error = pair.fill().1.expect_err("does not go on");
    assert_eq!(error.exit_code(), 1);
    let text = error.to_string();
    assert!(text.contains(&format!("{}-0", pair.b)) && text.contains("find-hanging"), "{text}");
    assert!(text.contains("last stable offset 0, high watermark 10"), "{text}");
    assert!(text.contains("2021-04-14T11:"), "the time of its first record: {text}");
    let pair = pair.with(|job| job.selection.patience = TIMEOUT);
    std::thread::scope(|scope| {
        let fill = scope.spawn(|| pair.filled());
        open.commit();
        assert_eq!(fill.join().expect("ends").counts.written, 168, "what it committed is not written again");
    });
    pair.assert_filled(&records[100..110]);
}

#[test]
fn an_open_transaction_in_the_source_at_the_windows_start() {
    let pair = Pair::new(1, 1);
    let records = day(600, 1);
    produce(&pair.a, &records[..80]);
    let open = Foreign::begin().send(&pair.a, &records[80..100]);
    produce(&pair.a, &records[100..]);
    std::thread::scope(|scope| {
        let fill = scope.spawn(|| pair.filled());
        std::thread::yield_now();
        open.commit();
        fill.join().expect("ends");
    });
    pair.assert_filled(&[]);
}

#[test]
fn live_traffic_elsewhere_is_no_progress_on_an_open_transaction() {
    let pair = Pair::new(2, 2).with(|job| job.selection.patience = Duration::from_secs(2));
    let records = day(600, 2);
    produce(&pair.a, &records);
    let open = Foreign::begin().send(&pair.b, &[record(0, WINDOW.0, "open", "x")]);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                produce(&pair.b, &[record(1, WINDOW.1 + HOUR, "live", "x")]);
            }
        });
        let error = pair.fill().1.expect_err("does not wait forever");
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(error.to_string().contains("find-hanging"), "{error}");
    });
    open.abort();
}

#[test]
fn a_reader_gives_up_on_a_partition_that_makes_no_progress() {
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(60, 1));
    let reading = Reading {
        properties: &pair.job.selection.properties.source,
        group: "replicator/kit",
        topic: &pair.a,
        isolation: Isolation::ReadCommitted,
        patience: Duration::from_secs(1),
    };
    let interrupt = Interrupt::default();
    let mut reader = Reader::open(&reading, &[Range { partition: 0, start: 0, end: 61 }]).expect("opens");
    let error = loop {
        match reader.next(&interrupt) {
            Ok(Some(batch)) => {
                for (event, ()) in batch.events() {
                    reader.accept(event).expect("accepted");
                }
            }
            Ok(None) => panic!("an end that never came was passed over"),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("position 60 of 61"), "{error}");
}

#[test]
fn the_date_of_a_topic_that_was_written_in_transactions() {
    let pair = Pair::new(2, 2).with(|job| job.selection.date = None);
    Foreign::begin().send(&pair.a, &day(600, 2)).commit();
    assert_eq!(pair.filled().counts.written, 178, "a marker's time is no record's day");
    pair.assert_filled(&[]);
}

/// The output of fill, plan, gaps and verify for a window, as JSON and as text.
struct Told {
    json: Vec<HashMap<String, serde_json::Value>>,
    text: Vec<String>,
}

impl Told {
    /// Runs all four, which must succeed. Plan and gaps come before the fill, since a fill changes what they find.
    fn of(pair: &Pair, window: &[&str]) -> Told {
        let of = ["--source", &pair.a, "--target", &pair.b];
        let commands: [&[&str]; 4] = [&["plan"], &["gaps"], &[], &["verify"]];
        let (mut json, mut text) = (Vec::new(), Vec::new());
        for command in commands {
            let arguments = [command, &["--window"], window, &of].concat();
            let output = replicator(&arguments).args(["-o", "json"]).output().expect("runs");
            assert_eq!(code(&output), 0, "{command:?}: {}", stderr(&output));
            json.push(receipt(&output));
            let output = replicator(&arguments).output().expect("runs");
            text.push(String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output));
        }
        Told { json, text }
    }

    /// Checks that each command warns so, in JSON and in text. The text leaves out the fill: that is the second one,
    /// which has nothing to do, and does not look again.
    fn assert_warned(&self, warning: &str) {
        for (n, (json, text)) in self.json.iter().zip(&self.text).enumerate() {
            let warnings: Vec<&str> =
                json["warnings"].as_array().expect("warnings").iter().filter_map(|w| w.as_str()).collect();
            assert!(warnings.iter().any(|told| told.contains(warning)), "command {n}: {warnings:?}");
            assert!(n == 2 || text.contains(warning), "command {n}: {text}");
        }
    }
}

#[test]
fn a_window_without_a_record_is_told_with_the_span_that_there_is() {
    let pair = Pair::new(2, 2);
    let records = day(600, 2);
    produce(&pair.a, &records);
    produce(&pair.b, &outside_of(&records));
    let told = Told::of(&pair, &["03:00-04:00"]);
    let (first, last) = (rfc3339(records[0].time), rfc3339(records[599].time));
    told.assert_warned(&format!("{} holds no record in the window [2021-04-14T03:00:00Z", pair.a));
    told.assert_warned(&format!("its first and last records are from {first} to {last}"));
    for text in &told.text {
        assert!(!text.contains("lacks none") && !text.contains("the same records"), "{text}");
    }
    assert!(told.text[1].contains("neither"), "{}", told.text[1]);
    assert!(told.text[3].contains("neither"), "{}", told.text[3]);
    // A further run has nothing to read, and still says that the window holds no record.
    let again = Told::of(&pair, &["03:00-04:00"]);
    again.assert_warned(&format!("{} holds no record in the window [2021-04-14T03:00:00Z", pair.a));

    let told = Told::of(&pair, &["11:00-13:00"]);
    assert!(told.json.iter().all(|json| json["warnings"] == serde_json::json!([])), "{:?}", told.json);
}

#[test]
fn an_empty_source_is_told_too() {
    let pair = Pair::new(1, 1);
    let told = Told::of(&pair, &["11:00-13:00", "--date", "2021-04-14"]);
    told.assert_warned("it has no record with an event time at either end");
    let everywhere = replicator(&["gaps", "--source", &pair.a, "--target", &pair.b]).output().expect("runs");
    assert!(
        stderr(&everywhere).contains(&format!("{} holds no record; it has no record", pair.a)),
        "{everywhere:?}"
    );
}

#[test]
fn a_window_that_crosses_midnight_is_told() {
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(600, 1));
    let told = Told::of(&pair, &["13:00-11:00"]);
    told.assert_warned("the window 13:00-11:00 crosses midnight: it is 22h long, up to 2021-04-15T11:00:00Z");
    told.assert_warned("swap its times if you meant 11:00-13:00");
    assert!(told.text[2].contains("crosses midnight"), "a run that has nothing to do says it too");
}

/// A day's records in the middle of the next day's. At either end there are more of these than a run looks at.
fn amid_another_day() -> (Pair, usize) {
    let pair = Pair::new(1, 1);
    let records = day(300, 1);
    let around: Vec<Record> =
        records.iter().map(|r| Record { time: r.time + 24 * HOUR, ..r.clone() }).collect();
    let name = |side: &str, records: &[Record]| -> Vec<Record> {
        let key = |r: &Record| Some([side.as_bytes(), r.key.as_deref().expect("a key")].concat());
        records.iter().map(|r| Record { key: key(r), ..r.clone() }).collect()
    };
    produce(&pair.a, &name("before", &around));
    produce(&pair.a, &records);
    produce(&pair.a, &name("after", &around));
    (pair, window_of(&records).len())
}

#[test]
fn a_date_that_is_given_is_trusted_wherever_its_records_stand() {
    let (pair, count) = amid_another_day();
    let told = Told::of(&pair, &["11:00-13:00", "--date", "2021-04-14"]);
    assert_eq!((&told.json[0]["to_write"], &told.json[2]["written"]), (&count.into(), &count.into()));
    assert_eq!((&told.json[1]["missing"], &told.json[3]["missing"]), (&count.into(), &0.into()));
    assert!(told.json.iter().all(|json| json["warnings"] == serde_json::json!([])), "{:?}", told.json);
    assert_eq!(consume(&pair.b).len(), count);
}

#[test]
fn where_the_date_was_inferred_a_record_of_another_day_is_told() {
    let told = Told::of(&amid_another_day().0, &["11:00-13:00"]);
    told.assert_warned("the window was put on 2021-04-15");
    told.assert_warned("records of 2021-04-14 too; choose the day, for example with --date 2021-04-14");
}
