//! Tests that the Grafana board asks for metrics that exist, and that Prometheus takes them.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusRecorder;
use serde_json::Value;

use super::*;
use crate::fill::standing::{PartitionStanding, Standing};

/// Everything that a run publishes, all of it with a value.
fn recorder() -> PrometheusRecorder {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        describe();
        phase(Phase::Follow);
        totals(Counts::default(), 1, 1, 1);
        positions([(0, 5), (1, 7)].into_iter());
        ends([(0, 9), (1, 9)].into_iter());
        standing(&[0, 1]).publish();
        standing::up(Side::Source, true);
        standing::up(Side::Target, true);
    });
    recorder
}

fn standing(partitions: &[i32]) -> Standing {
    let of = |partition: &i32| PartitionStanding { partition: *partition, position: 5, end: 9, low: 2 };
    let partitions = partitions.iter().map(of).collect();
    Standing {
        partitions,
        behind: 1.5,
        last_commit: Some(1_618_400_000_001),
        foreign: 1,
        troubles: Vec::new(),
    }
}

/// The queries of the board, each with the labels that its legend names.
fn queries() -> Vec<(String, Vec<String>)> {
    let board: Value = serde_json::from_str(include_str!("../../../deploy/grafana.json")).expect("JSON");
    let panels = board["panels"].as_array().expect("panels").iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let text = |target: &Value, key: &str| target[key].as_str().expect("text").to_owned();
    let labels = |legend: &str| {
        legend.split("{{").skip(1).map(|rest| rest.split("}}").next().expect("a label").to_owned()).collect()
    };
    targets.map(|target| (text(target, "expr"), labels(&text(target, "legendFormat")))).collect()
}

/// The metrics that a text of Prometheus names at `replicator_`.
fn names(text: &str) -> BTreeSet<&str> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = text.match_indices("replicator_").map(|(at, _)| &text[at..]);
    starts.map(|rest| &rest[..rest.find(|c| !is_of_name(c)).unwrap_or(rest.len())]).collect()
}

#[test]
fn the_board_shows_each_metric_and_no_other() {
    let handle = recorder().handle();
    let (served, queries) = (rendered(&handle), queries());
    let samples: Vec<&str> = served.lines().filter(|line| !line.starts_with('#')).collect();
    let samples = samples.join("\n");
    let asked = queries.iter().flat_map(|(query, _)| names(query)).collect::<BTreeSet<_>>();
    assert!(asked.len() > 15, "{asked:?}");
    assert_eq!(asked, names(&samples));
    for (query, labels) in &queries {
        for label in labels.iter().filter(|label| *label != "instance") {
            for name in names(query) {
                assert!(samples.contains(&format!("{name}{{{label}=")), "{name} has no {label}: {query}");
            }
        }
    }
}

#[test]
fn a_partition_that_another_instance_copies_now_is_left_out() {
    let recorder = recorder();
    let handle = recorder.handle();
    for name in ["lag", "headroom"] {
        for partition in 0..2 {
            let sample = format!("replicator_follow_{name}{{partition=\"{partition}\"}} ");
            assert!(rendered(&handle).contains(&sample), "{sample}");
        }
    }
    metrics::with_local_recorder(&recorder, || standing(&[1]).publish());
    let served = rendered(&handle);
    assert!(served.contains("replicator_follow_lag{partition=\"1\"} 4\n"), "{served}");
    assert!(served.contains("replicator_follow_headroom{partition=\"1\"} 3\n"), "{served}");
    assert!(
        !served.contains("_lag{partition=\"0\"}") && !served.contains("_headroom{partition=\"0\"}"),
        "{served}"
    );
    assert!(served.contains("replicator_source_end{partition=\"0\"} 9\n"), "{served}");
    // It may come back.
    metrics::with_local_recorder(&recorder, || standing(&[0, 1]).publish());
    assert!(rendered(&handle).contains("replicator_follow_lag{partition=\"0\"} 4\n"));
}

/// Ends the process.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A free address of this machine.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("an address")
}

fn serve_metrics(handle: PrometheusHandle) -> SocketAddr {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = runtime.block_on(async { serve::listen(any) }).expect("listens");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || runtime.block_on(serve::serve(listener, router(handle))));
    address
}

/// The result of an instant query; `None` if nobody answers yet.
fn ask(prometheus: SocketAddr, query: &str) -> Option<Value> {
    let request = ureq::get(format!("http://{prometheus}/api/v1/query")).query("query", query);
    let answer = request.config().http_status_as_error(false).build().call();
    let text = answer.ok()?.body_mut().read_to_string().expect("text");
    // It is not JSON until Prometheus has started.
    let answer: Value = serde_json::from_str(&text).ok()?;
    assert_eq!(answer["status"], "success", "{query}: {answer}");
    Some(answer["data"]["result"].clone())
}

#[test]
fn prometheus_answers_each_query_of_the_board() {
    let Ok(version) = Command::new("prometheus").arg("--version").output() else {
        eprintln!("skipped: Prometheus is not installed (apt-get install prometheus)");
        return;
    };
    assert!(version.status.success());
    let handle = recorder().handle();
    // Prometheus' own check of names, types and help.
    let mut check =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).spawn().expect("starts");
    check.stdin.take().expect("a pipe").write_all(rendered(&handle).as_bytes()).expect("written");
    assert!(check.wait().expect("ends").success());

    let (served, prometheus) = (serve_metrics(handle), free_address());
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("prometheus.yml");
    let text = format!(
        "scrape_configs:\n- job_name: replicator\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\n  \
         static_configs:\n  - targets: ['{served}']\n"
    );
    std::fs::write(&config, text).expect("written");
    let _running = Running(
        Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .args([&format!("--web.listen-address={prometheus}"), "--log.level=error"])
            .spawn()
            .expect("starts"),
    );
    let begun = Instant::now();
    for (query, labels) in queries() {
        let query = query.replace("$job", "replicator").replace("$__rate_interval", "1m");
        let series = loop {
            if let Some(Value::Array(series)) = ask(prometheus, &query)
                && !series.is_empty()
            {
                break series;
            }
            assert!(begun.elapsed() < Duration::from_secs(120), "no data: {query}");
            std::thread::sleep(Duration::from_millis(100));
        };
        for (label, one) in labels.iter().flat_map(|label| series.iter().map(move |one| (label, one))) {
            assert!(one["metric"][label].is_string(), "{query} has no {label}: {one}");
        }
    }
}
