//! Metrics that outlive a run, and those of commands other than the fill.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::follow_marks::Marks;
use crate::kit::*;
use crate::observe::{free_address, get, samples};

/// A metrics file in a folder of its own.
struct MetricsFile(tempfile::TempDir);

impl MetricsFile {
    fn new() -> MetricsFile {
        MetricsFile(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("replicator.prom")
    }

    /// Runs the command with this file, and expects the exit code.
    fn of(&self, command: &mut Command, wanted: i32) -> Output {
        let output = command.arg("--metrics-file").arg(self.path()).output().expect("runs");
        assert_eq!(code(&output), wanted, "{}", stderr(&output));
        // No other file is left, and the node exporter, which is another user, may read this one.
        let names = std::fs::read_dir(self.0.path()).expect("read");
        assert_eq!(names.count(), 1, "{:?}", self.0.path());
        output
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.path()).expect("a metrics file")
    }

    fn samples(&self) -> HashMap<String, f64> {
        samples(&self.text())
    }
}

/// The value of the one sample that has this name and these labels.
fn value(samples: &HashMap<String, f64>, name: &str, labels: &[(&str, &str)]) -> f64 {
    let has = |sample: &str| {
        let labels = labels.iter().map(|(label, value)| format!("{label}=\"{value}\""));
        sample.starts_with(&format!("{name}{{")) && labels.into_iter().all(|label| sample.contains(&label))
    };
    let mut found = samples.iter().filter(|(sample, _)| has(sample));
    let Some((_, value)) = found.next() else { panic!("no {name} with {labels:?} in {samples:?}") };
    assert!(found.next().is_none(), "several {name} with {labels:?} in {samples:?}");
    *value
}

fn has(samples: &HashMap<String, f64>, name: &str) -> bool {
    samples.keys().any(|sample| sample.starts_with(&format!("{name}{{")))
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn bytes(records: &[Record]) -> f64 {
    let of = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
    records.iter().map(|record| of(&record.key) + of(&record.value)).sum::<usize>() as f64
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn count(records: &[Record]) -> f64 {
    records.len() as f64
}

const SUCCESS: &str = "replicator_last_success_timestamp_seconds";

#[test]
fn the_last_values_of_a_fill_stay_in_a_file_also_if_it_fails() {
    let pair = Pair::new(2, 2);
    let records = day(405, 2);
    let window = window_of(&records);
    produce(&pair.a, &records);
    produce(&pair.b, &outside_of(&records));
    let file = MetricsFile::new();

    // A plan writes nothing, and says what a fill would write.
    let mut plan = replicator(&["plan", "--window", "11:00-13:00", "--source", &pair.a, "--target", &pair.b]);
    file.of(&mut plan, 0);
    let planned = file.samples();
    assert_eq!(value(&planned, "replicator_written_records_total", &[("command", "plan")]), 0.0);
    assert_eq!(value(&planned, "replicator_run_records", &[("count", "to_write")]), count(&window));

    file.of(&mut pair.command(50_000), 0);
    let (text, filled) = (file.text(), file.samples());
    let of = [("command", "fill"), ("source", pair.a.as_str()), ("target", pair.b.as_str())];
    for (name, wanted) in [
        ("replicator_build_info", 1.0),
        ("replicator_run_exit_code", 0.0),
        ("replicator_written_records_total", count(&window)),
        ("replicator_written_bytes_total", bytes(&window)),
        ("replicator_in_window_records_total", count(&window)),
        ("replicator_restarts_total", 0.0),
    ] {
        assert_eq!(value(&filled, name, &of), wanted, "{name}");
    }
    let written = [of[0], of[1], of[2], ("count", "written")];
    assert_eq!(value(&filled, "replicator_run_records", &written), count(&window));
    let at = |samples: &HashMap<String, f64>, name: &str| value(samples, name, &of);
    let (start, end) = ("replicator_run_start_timestamp_seconds", "replicator_run_end_timestamp_seconds");
    assert!(at(&filled, start) <= at(&filled, end) && at(&filled, SUCCESS) >= at(&filled, start), "{text}");
    assert!(text.contains(&format!("version=\"{}\"", env!("CARGO_PKG_VERSION"))), "{text}");
    assert!(!has(&filled, "replicator_behind_seconds") && !text.contains("NaN"), "{text}");
    check_by_promtool(&text);

    // The same job again, which now finds another content of a record.
    let conflicting = Record { value: Some(b"{\"n\":-1}".to_vec()), ..window[0].clone() };
    produce(&pair.a, &[conflicting]);
    file.of(&mut pair.command(50_000), 1);
    let failed = file.samples();
    assert_eq!(value(&failed, "replicator_run_exit_code", &of), 1.0);
    assert_eq!(value(&failed, "replicator_conflicting_records_total", &of), 1.0);
    assert_eq!(at(&failed, SUCCESS), at(&filled, SUCCESS), "the last success was that of the run before");
    assert!(at(&failed, end) > at(&filled, end));
}

fn check_by_promtool(text: &str) {
    let check = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).spawn();
    let Ok(mut check) = check else {
        return eprintln!("skipped: promtool is not installed (apt-get install prometheus)");
    };
    std::io::Write::write_all(&mut check.stdin.take().expect("a pipe"), text.as_bytes()).expect("written");
    assert!(check.wait().expect("ends").success(), "{text}");
}

#[test]
fn comparisons_and_loads_keep_what_they_found() {
    let pair = Pair::new(1, 1);
    let records = day(405, 1);
    produce(&pair.a, &records);
    produce(&pair.b, &outside_of(&records));
    let missing = count(&window_of(&records));
    let file = MetricsFile::new();
    for (arguments, wanted) in [(&["verify", "--window", "11:00-13:00"][..], 4), (&["gaps"], 0)] {
        let mut command = replicator(arguments);
        file.of(command.args(["--source", &pair.a, "--target", &pair.b]), wanted);
        let found = file.samples();
        let labels = [("command", arguments[0]), ("source", pair.a.as_str()), ("count", "missing")];
        assert_eq!(value(&found, "replicator_run_records", &labels), missing);
        assert_eq!(value(&found, "replicator_run_exit_code", &[]), f64::from(wanted));
        // A comparison that found a difference is no success, and none was there before.
        assert_eq!(has(&found, SUCCESS), wanted == 0);
    }
    let events = file.0.path().with_extension("json");
    std::fs::write(&events, "{\"id\":\"a\",\"time\":1618400000}\n{\"id\":\"b\",\"time\":1618400001}\n")
        .expect("written");
    let topic = unique("loaded");
    let source = events.to_str().expect("a path");
    file.of(&mut replicator(&["load", source, "--topic", &topic]), 0);
    std::fs::remove_file(&events).expect("removed");
    let loaded = file.samples();
    let labels = [("command", "load"), ("source", source), ("target", &topic), ("count", "loaded")];
    assert_eq!(value(&loaded, "replicator_run_records", &labels), 2.0);
}

/// The lag as somebody sees it who does not belong to the job: also if no follow is there any more to tell it.
#[test]
fn a_lag_is_kept_also_if_the_follow_is_gone() {
    let pair = Pair::new(3, 3);
    let records = (0..3).flat_map(|partition| (0..10).map(move |n| record(partition, DAY + n, "k", "v")));
    produce(&pair.a, &records.collect::<Vec<_>>());
    trim(&pair.a, 0, 4);
    let marks = Marks::of_pair(&pair);
    let level = replicator::rfc3339(chrono::Utc::now().timestamp_millis() - HOUR);
    marks.commit(&[(0, 10, 0), (1, 7, 0), (2, 10, 0)], &level);
    let file = MetricsFile::new();
    let lag = |more: &[&str]| {
        let mut lag = replicator(&["lag", "--source", &pair.a, "--target", &pair.b]);
        lag.args(more);
        lag
    };
    file.of(&mut lag(&[]), 0);
    let text = file.text();
    let found = samples(&text);
    let of = |name: &str, partition: &str| {
        let labels = [("command", "lag"), ("source", &pair.a), ("target", &pair.b), ("partition", partition)];
        value(&found, name, &labels)
    };
    for (name, wanted) in [
        ("replicator_lag_offsets", [0.0, 3.0, 0.0]),
        ("replicator_position_offset", [10.0, 7.0, 10.0]),
        ("replicator_end_offset", [10.0; 3]),
        ("replicator_headroom_offsets", [6.0, 7.0, 10.0]),
    ] {
        assert_eq!(["0", "1", "2"].map(|partition| of(name, partition)), wanted, "{name}");
    }
    let behind = value(&found, "replicator_behind_seconds", &[("command", "lag")]);
    assert!((3600.0..30_000.0).contains(&behind), "{behind}");
    let success = value(&found, SUCCESS, &[]);
    assert!(!text.contains("NaN") && !has(&found, "replicator_troubles"), "{text}");
    check_by_promtool(&text);

    // More than that is too much, and no success.
    file.of(&mut lag(&["--max-lag", "2"]), 4);
    let found = file.samples();
    assert_eq!((value(&found, "replicator_run_exit_code", &[]), value(&found, SUCCESS, &[])), (4.0, success));
    // Without a position, nobody knows how far the job is. A number of before would say that somebody does.
    delete_group(&marks.group);
    file.of(&mut lag(&[]), 3);
    let found = file.samples();
    assert!(!has(&found, "replicator_lag_offsets") && !has(&found, "replicator_behind_seconds"), "{found:?}");
    assert_eq!(value(&found, "replicator_run_exit_code", &[]), 3.0);
}

#[test]
fn a_metrics_file_that_would_not_be_read_or_written_is_refused_at_once() {
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(60, 1));
    let folder = tempfile::tempdir().expect("a directory");
    let store = format!("sqlite:{}", folder.path().join("store.db").display());
    let pairs = ["--source", &pair.a, "--target", &pair.b];
    let events = folder.path().join("events.json");
    std::fs::write(&events, "{\"id\":\"a\",\"time\":1618400000}\n").expect("written");
    let topic = unique("loaded");
    let commands: [&[&str]; 7] = [
        &["lag"],
        &["--window", "11:00-13:00"],
        &["plan", "--window", "11:00-13:00"],
        &["verify", "--window", "11:00-13:00"],
        &["gaps"],
        &["sink", "--topic", &pair.a, "--store", &store],
        &["load", events.to_str().expect("a path"), "--topic", &topic],
    ];
    for arguments in commands {
        for bad in ["metrics.txt", "none/metrics.prom", "folder.prom"] {
            let path = folder.path().join(bad);
            if bad == "folder.prom" {
                let _ = std::fs::create_dir(&path);
            }
            let mut command = replicator(arguments);
            if !matches!(arguments[0], "sink" | "load") {
                command.args(pairs);
            }
            let output = command.arg("--metrics-file").arg(&path).output().expect("runs");
            assert_eq!(code(&output), 3, "{arguments:?} {bad}: {}", stderr(&output));
            assert!(stderr(&output).contains("--metrics-file"), "{}", stderr(&output));
        }
    }
    assert_eq!(consume(&pair.b), []);
    assert!(!folder.path().join("store.db").exists());
}

/// The samples at an address; none if nobody answers yet.
fn scraped(address: SocketAddr) -> HashMap<String, f64> {
    get(address, "/metrics").map(|(_, body)| samples(&body)).unwrap_or_default()
}

#[test]
fn a_sink_that_follows_says_where_it_stands() {
    let (one, two) = (unique("one"), unique("two"));
    create(&one, 2, &[]);
    create(&two, 1, &[]);
    let records = day(405, 2);
    produce(&one, &records);
    let folder = tempfile::tempdir().expect("a directory");
    let store = format!("sqlite:{}", folder.path().join("store.db").display());
    let address = free_address();
    let mut command = replicator(&["sink", "--follow", "--topic", &one, "--topic", &two, "--store", &store]);
    command.args(["--metrics-listen", &address.to_string()]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");

    let stands = |samples: &HashMap<String, f64>, topic: &str, name: &str| {
        let wanted = format!("source=\"{topic}\"");
        let of_topic =
            |sample: &&String| sample.starts_with(&format!("{name}{{")) && sample.contains(&wanted);
        let found: Vec<f64> = samples.keys().filter(of_topic).map(|sample| samples[sample]).collect();
        (!found.is_empty()).then(|| found.iter().sum::<f64>())
    };
    let written = |samples: &HashMap<String, f64>| stands(samples, &one, "replicator_written_records_total");
    until(|| written(&scraped(address)) == Some(count(&records)));
    until(|| stands(&scraped(address), &two, "replicator_lag_offsets").is_some());
    let now = scraped(address);
    for (name, wanted) in [
        ("replicator_written_bytes_total", bytes(&records)),
        ("replicator_lag_offsets", 0.0),
        ("replicator_behind_seconds", 0.0),
        ("replicator_position_offset", count(&records)),
        ("replicator_end_offset", count(&records)),
        ("replicator_headroom_offsets", count(&records)),
    ] {
        assert_eq!(stands(&now, &one, name), Some(wanted), "{name} of {now:?}");
    }
    assert_eq!(stands(&now, &two, "replicator_position_offset"), Some(0.0));
    let all = format!("{one},{two}");
    let labels = [("command", "sink"), ("source", all.as_str()), ("target", store.as_str())];
    assert_eq!(value(&now, "replicator_build_info", &labels), 1.0);
    assert_eq!(value(&now, "replicator_cluster_up", &[("cluster", "source")]), 1.0);
    assert!(value(&now, SUCCESS, &labels) >= value(&now, "replicator_run_start_timestamp_seconds", &labels));
    for path in ["/healthz", "/livez"] {
        let (head, body) = get(address, path).expect("answers");
        assert!(head.starts_with("http/1.1 200") && body.contains("\"follow\""), "{path}: {head} {body}");
    }

    // Records that an open transaction holds back are left to copy, as long as it is open.
    let held = Foreign::begin().send(&two, &[record(0, DAY, "held", "{}")]);
    until(|| {
        let now = scraped(address);
        stands(&now, &two, "replicator_lag_offsets") == Some(1.0)
            && stands(&now, &two, "replicator_behind_seconds").is_some_and(|behind| behind > 0.0)
    });
    held.abort();
    let before = value(&scraped(address), SUCCESS, &labels);
    produce(&one, &later(&records));
    until(|| written(&scraped(address)) == Some(2.0 * count(&records)));
    assert_eq!(stands(&scraped(address), &one, "replicator_lag_offsets"), Some(0.0));
    until(|| value(&scraped(address), SUCCESS, &labels) > before);
    signal(&child, "-INT");
    assert!(child.wait_with_output().expect("ends").status.success());
}

/// The same records three days later, under other keys.
fn later(records: &[Record]) -> Vec<Record> {
    let key = |record: &Record| [record.key.as_deref().unwrap_or_default(), b"-later"].concat();
    let later =
        |record: &Record| Record { time: record.time + 72 * HOUR, key: Some(key(record)), ..record.clone() };
    records.iter().map(later).collect()
}

/// A metrics file is for what outlives a run: also for the last values of one that was killed.
#[test]
fn a_sink_keeps_its_file_up_to_date() {
    let topic = unique("topic");
    create(&topic, 1, &[]);
    let records = day(60, 1);
    produce(&topic, &records);
    let (folder, file) = (tempfile::tempdir().expect("a directory"), MetricsFile::new());
    let store = format!("sqlite:{}", folder.path().join("store.db").display());
    let mut command = replicator(&["sink", "--follow", "--topic", &topic, "--store", &store]);
    command.arg("--metrics-file").arg(file.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("starts");
    // It is written every 15 s, and the machine may be slow.
    let is_written = || {
        std::fs::read_to_string(file.path()).is_ok_and(|text| {
            samples(&text).iter().any(|(sample, value)| {
                sample.starts_with("replicator_written_records_total{") && *value == count(&records)
            })
        })
    };
    let begun = std::time::Instant::now();
    while !is_written() {
        assert!(begun.elapsed() < 6 * TIMEOUT, "no file");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert!(is_written());
    // Nobody can say how it ended.
    assert!(!has(&file.samples(), "replicator_run_exit_code"));
}
