//! Tests that the Grafana board and the alert rules ask for metrics that exist, and that Prometheus takes them.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusRecorder;
use serde_json::Value;

use super::standing::{PartitionStanding, Standing};
use super::*;

/// Everything that a run publishes, all of it with a value.
fn recorder() -> PrometheusRecorder {
    let about = About { command: "follow", source: "topicA".to_owned(), target: "topicB".to_owned() };
    let recorder = builder(&about).build_recorder();
    metrics::with_local_recorder(&recorder, || {
        describe();
        begin();
        phase(Phase::Follow);
        totals(Totals { transactions: 1, ..Totals::default() });
        positions([(0, 5), (1, 7)].into_iter());
        ends([(0, 9), (1, 9)].into_iter());
        ended(0, &serde_json::json!({ "read": 9, "written": 5, "elapsed_ms": 70 }));
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
        topic: None,
        partitions,
        behind: 1.5,
        last_commit: Some(1_618_400_000_001),
        foreign: Some(1),
        troubles: Vec::new(),
    }
}

/// The queries of the board, each with the labels that its legend names.
fn queries() -> Vec<(String, Vec<String>)> {
    let board: Value = serde_json::from_str(include_str!("../../deploy/grafana.json")).expect("JSON");
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
                let mut of_name = samples.lines().filter(|line| line.starts_with(&format!("{name}{{")));
                assert!(of_name.any(|line| line.contains(&format!("{label}=\""))), "{name} has no {label}");
            }
        }
    }
}

/// A partition's sample, up to its value.
fn sample(name: &str, partition: i32) -> String {
    format!("{name}{{command=\"follow\",source=\"topicA\",target=\"topicB\",partition=\"{partition}\"}}")
}

#[test]
fn a_partition_that_another_instance_copies_now_is_left_out() {
    let recorder = recorder();
    let handle = recorder.handle();
    for name in [standing::LAG, standing::HEADROOM] {
        for partition in 0..2 {
            assert!(rendered(&handle).contains(&sample(name, partition)), "{name} {partition}");
        }
    }
    metrics::with_local_recorder(&recorder, || standing(&[1]).publish());
    let served = rendered(&handle);
    assert!(served.contains(&format!("{} 4\n", sample(standing::LAG, 1))), "{served}");
    assert!(served.contains(&format!("{} 3\n", sample(standing::HEADROOM, 1))), "{served}");
    for gone in [standing::LAG, standing::HEADROOM] {
        assert!(!served.contains(&sample(gone, 0)), "{served}");
    }
    assert!(served.contains(&format!("{} 9\n", sample(END, 0))), "{served}");
    // It may come back.
    metrics::with_local_recorder(&recorder, || standing(&[0, 1]).publish());
    assert!(rendered(&handle).contains(&format!("{} 4\n", sample(standing::LAG, 0))));
}

/// A number in an answer that counts no records is no number of records.
#[test]
fn the_answer_of_a_run_gives_its_numbers_of_records() {
    let served = rendered(&recorder().handle());
    let of_run: Vec<&str> =
        served.lines().filter(|line| line.starts_with("replicator_run_records{")).collect();
    assert_eq!(of_run.len(), 2, "{of_run:?}");
    assert!(
        of_run.iter().any(|line| line.contains("count=\"written\"") && line.ends_with(" 5")),
        "{of_run:?}"
    );
}

#[test]
fn each_alert_asks_for_metrics_that_exist_and_fires_when_it_should() {
    let rules = include_str!("../../deploy/alerts.yaml");
    let served = rendered(&recorder().handle());
    let expressions: Vec<&str> =
        rules.split("expr:").skip(1).map(|rest| rest.split("labels:").next().expect("text")).collect();
    assert!(expressions.len() > 5);
    for name in expressions.iter().flat_map(|expression| names(expression)) {
        assert!(served.contains(&format!("\n{name}{{")), "there is no {name}");
    }
    // Each rule has a test in which it fires.
    let tests = include_str!("../../tests/alerts.yaml");
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tests.lines().any(|line| line.trim() == format!("- alertname: {alert}")), "{alert}");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for arguments in [["check", "rules", "deploy/alerts.yaml"], ["test", "rules", "tests/alerts.yaml"]] {
        match Command::new("promtool").args(arguments).current_dir(root).output() {
            Ok(output) => {
                let told = [output.stdout, output.stderr].concat();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&told));
            }
            Err(_) => eprintln!("skipped: promtool is not installed (apt-get install prometheus)"),
        }
    }
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
