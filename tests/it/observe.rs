//! Metrics, logs for machines, and help with the command line.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::kit::*;

pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}

/// The head and the body of an answer; `None` if nobody answers.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.to_lowercase(), body.to_owned()))
}

/// The samples by name and labels; `None` if nobody answers.
fn scrape(address: SocketAddr) -> Option<HashMap<String, f64>> {
    let (head, body) = get(address, "/metrics")?;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.lines().any(|line| line == "content-type: text/plain"), "{head}");
    Some(samples(&body))
}

/// The samples of a text in Prometheus' format, by name and labels.
pub(crate) fn samples(text: &str) -> HashMap<String, f64> {
    let samples = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

/// A fill that goes on for a minute, and where it serves its metrics.
fn slow_fill(pair: &Pair, records: &[Record]) -> (SocketAddr, Child) {
    produce(&pair.a, records);
    produce(&pair.b, &outside_of(records));
    let address = free_address();
    let mut command = pair.command(50_000);
    command.args(["--max-rate", "20/s", "--metrics-listen", &address.to_string()]);
    (address, command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts"))
}

fn interrupt(mut child: Child) {
    signal(&child, "-INT");
    assert_eq!(child.wait().expect("ends").code(), Some(130));
}

#[test]
fn metrics_of_a_fill_on_its_way() {
    let pair = Pair::new(2, 2);
    let records = day(2000, 2);
    let (address, child) = slow_fill(&pair, &records);
    let mut last = HashMap::new();
    let start = std::time::Instant::now();
    while start.elapsed() < TIMEOUT {
        if let Some(samples) = scrape(address) {
            let is_committed =
                |(name, n): (&String, &f64)| name.starts_with("replicator_transactions_total{") && *n >= 2.0;
            let is_far_enough = samples.iter().any(is_committed);
            last = samples;
            if is_far_enough {
                break;
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    interrupt(child);
    let (a, b) = (&pair.a, &pair.b);
    // The first three labels are of all metrics.
    let get = |name: &str, more: &str| {
        let sample = format!("{name}{{command=\"fill\",source=\"{a}\",target=\"{b}\"{more}}}");
        *last.get(&sample).unwrap_or_else(|| panic!("{sample} of {last:?}"))
    };
    let total = |name: &str| get(&format!("replicator_{name}_records_total"), "");
    let written = total("written");
    assert!(written > 0.0 && written < window_of(&records).len() as f64, "{last:?}");
    assert!(total("read") >= total("in_window") && total("in_window") >= written);
    for name in ["already_in_target", "conflicting", "invalid"] {
        assert_eq!(total(name), 0.0, "{last:?}");
    }
    for name in ["aborted_transactions", "restarts"] {
        assert_eq!(get(&format!("replicator_{name}_total"), ""), 0.0, "{last:?}");
    }
    assert!(get("replicator_written_bytes_total", "") > written, "{last:?}");
    assert_eq!(get("replicator_phase", ",phase=\"copy\""), 1.0);
    assert_eq!(get("replicator_phase", ",phase=\"scan\""), 0.0);
    let sum = |what: &str| -> f64 {
        (0..2).map(|p| get(&format!("replicator_{what}_offset"), &format!(",partition=\"{p}\""))).sum()
    };
    assert_eq!(sum("end"), 2000.0);
    assert!(0.0 < sum("position") && sum("position") < 2000.0, "{last:?}");
    // The target holds at least the records that the metrics counted as written.
    assert!(consume(&pair.b).len() as f64 >= outside_of(&records).len() as f64 + written);
    assert_eq!(pair.filled().counts.duplicates_in_source, 0);
}

#[test]
fn probes_of_a_fill_on_its_way() {
    let pair = Pair::new(2, 2);
    let (address, child) = slow_fill(&pair, &day(2000, 2));
    let start = std::time::Instant::now();
    let copying = json!({ "status": "ok", "phase": "copy" });
    let mut last = Value::Null;
    while last != copying {
        assert!(start.elapsed() < TIMEOUT, "{last}");
        if let Some((head, body)) = get(address, "/healthz") {
            assert!(head.starts_with("http/1.1 200"), "{head}");
            last = serde_json::from_str(&body).expect("JSON");
            assert_eq!(last["status"], "ok", "{last}");
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    for (path, status) in
        [("/livez", 200), ("/metrics", 200), ("/", 404), ("/health", 404), ("/metrics/x", 404)]
    {
        let (head, body) = get(address, path).expect("answers");
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{path}: {head}");
        if path == "/livez" {
            assert_eq!(serde_json::from_str::<Value>(&body).expect("JSON"), copying);
        }
    }
    interrupt(child);
}

#[test]
fn metrics_at_an_address_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let output =
        replicator(&["--window", "11:00-13:00", "--metrics-listen", &address]).output().expect("runs");
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    assert!(stderr(&output).contains(&address), "{}", stderr(&output));
}

#[test]
fn logs_of_one_json_object_a_line() {
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(60, 1));
    for (arguments, wanted) in [("-vv", 0), ("-v", 3)] {
        if wanted > 0 {
            let later = day(60, 1).into_iter().map(|r| Record { time: r.time + 72 * HOUR, ..r });
            produce(&pair.a, &later.collect::<Vec<_>>());
        }
        let mut command = pair.command(50_000);
        let output = command.args(["--log-format", "json", arguments]).output().expect("runs");
        assert_eq!(code(&output), wanted, "{}", stderr(&output));
        let text = stderr(&output);
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect();
        assert!(
            lines.iter().all(|line| line["timestamp"].is_string() && line["level"].is_string()),
            "{text}"
        );
        let last = lines.last().expect("a line");
        if wanted == 0 {
            assert!(
                lines.iter().any(|line| line["message"].as_str().is_some_and(|m| m.starts_with("window ")))
            );
        } else {
            assert_eq!((&last["level"], &last["exit_code"]), (&"ERROR".into(), &wanted.into()), "{text}");
            assert!(last["message"].as_str().is_some_and(|m| m.contains("2021-04-14")), "{text}");
        }
    }
}

#[test]
fn completions_and_manual() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = replicator(&["completions", shell]).output().expect("runs");
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let script = String::from_utf8_lossy(&output.stdout);
        assert!(script.contains("max-rate") && script.contains("verify"), "{shell}");
    }
    let bash = replicator(&["completions", "bash"]).output().expect("runs").stdout;
    let mut check = std::process::Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().expect("bash");
    check.stdin.take().expect("a pipe").write_all(&bash).expect("written");
    assert!(check.wait().expect("ends").success());
    for (arguments, says) in [(&["man"][..], ".TH replicator"), (&["man", "load"], ".TH replicator-load")] {
        let output = replicator(arguments).output().expect("runs");
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert!(String::from_utf8_lossy(&output.stdout).contains(says), "{arguments:?}");
    }
    let none = replicator(&["man", "women"]).output().expect("runs");
    let told = stderr(&none);
    assert!(
        code(&none) == 2 && told.contains("no command `women`") && told.contains("fill, plan, gaps"),
        "{told}"
    );
    let help = replicator(&["--help"]).output().expect("runs").stdout;
    assert!(String::from_utf8_lossy(&help).contains("\n  completions "), "listed");
}
