//! Drills that must succeed, drills that must fail, and commits that the network delays.

use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::Value;

use replicator::{
    Sandbox, proxy::END_TXN, proxy::Proxy, proxy::Weather, topics::Record, topics::Topics, topics::delivered,
    topics::send,
};

fn drill(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_replicator"));
    command.args(["drill", "--duration", "1s", "--output", "json"]).args(arguments);
    // The environment may name production's cluster, so a drill uses only a cluster that a flag names.
    command.env("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1");
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The report's only round.
fn round(output: &Output) -> Value {
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("a report: {e}; stderr: {}", stderr(output)));
    report["rounds"][0].clone()
}

/// The names of the anomalies that it found.
fn anomalies(round: &Value) -> Vec<&str> {
    let all = round["anomalies"].as_object().expect("counts");
    assert!(all.len() > 10, "{all:?}");
    all.iter().filter(|(_, count)| **count != 0).map(|(name, _)| name.as_str()).collect()
}

#[rstest]
#[case::runs_on_one_broker("1", "kill,terminate,freeze,rival,foreign,append,forget")]
#[case::three_brokers("3", "broker,kill,rolling,broker")]
fn all_is_there_once(#[case] brokers: &str, #[case] faults: &str) {
    is_there_once(brokers, faults);
}

#[rstest]
#[case::network("3", "cut,silent,late-commit,slow,kill")]
#[case::outlived("1", "outlive")]
#[case::brokers("3", "stall,reassign,kill,apart,reassign,kill")]
#[case::records_deleted("1", "trim,kill,append,trim,kill,trim")]
#[case::unclean("3", "unclean,kill,unclean")]
#[case::clocks("3", "clock,kill,clock,append,clock,kill,clock")]
#[ignore = "takes minutes"]
fn all_is_there_once_after_more(#[case] brokers: &str, #[case] faults: &str) {
    is_there_once(brokers, faults);
}

fn is_there_once(brokers: &str, faults: &str) {
    let output =
        drill(&["--brokers", brokers, "--faults", faults, "--records", "4000"]).output().expect("runs");
    assert!(output.status.success(), "{}\n{:#}", stderr(&output), round(&output));
    let round = round(&output);
    assert!(round["faults"].as_u64() >= Some(8), "{round:#}");
    assert_eq!(round["gave_up"], 0, "{round:#}");
    assert!(anomalies(&round).is_empty(), "{round:#}");
    assert!(round["asked_for_both"].as_u64() > Some(0), "{round:#}");
}

/// The source is in one cluster, and the target in another.
#[rstest]
#[case::both_sides("broker,kill,cut,silent,late-commit,foreign,broker,terminate")]
fn all_is_there_once_in_another_cluster(#[case] faults: &str) {
    is_there_once_in_another_cluster(faults);
}

#[rstest]
#[case::instances("scale-out,kill,broker,scale-out,kill,freeze")]
#[case::topics("anew,kill,ledger,anew,append,grow,kill,anew")]
#[case::mirror("mirror,kill,mirror,broker")]
#[ignore = "takes minutes"]
fn all_is_there_once_in_another_cluster_after_more(#[case] faults: &str) {
    is_there_once_in_another_cluster(faults);
}

fn is_there_once_in_another_cluster(faults: &str) {
    let output = drill(&["--clusters", "2", "--brokers", "1", "--faults", faults, "--records", "4000"])
        .output()
        .expect("runs");
    assert!(output.status.success(), "{}\n{:#}", stderr(&output), round(&output));
    let round = round(&output);
    assert!(round["faults"].as_u64() >= Some(8), "{round:#}");
    let hit = |side: &str| {
        let counts = round[side].as_object().expect("counts");
        counts.values().filter_map(Value::as_u64).sum::<u64>()
    };
    assert!(hit("source_cluster") + hit("target_cluster") > 0, "{round:#}");
}

/// A drill finds a program that breaks a rule of the protocol.
#[rstest]
#[case::dedup("break-dedup=return", &["duplicate"])]
#[case::read_uncommitted("break-read-committed=return", &["G1a"])]
#[case::resume_from_memory("abort=20%return;break-resume-from-committed=return", &["lost-write"])]
#[case::offsets_outside(
    "abort=20%return;break-offsets-in-transaction=return",
    &["lost-write", "torn-transaction"]
)]
fn a_drill_can_fail(#[case] failpoints: &str, #[case] finds: &[&str]) {
    let output = drill(&["--brokers", "1", "--faults", "kill", "--records", "4000"])
        .env("FAILPOINTS", failpoints)
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    let round = round(&output);
    let found = anomalies(&round);
    assert!(finds.iter().all(|name| found.contains(name)), "{round:#}");
}

/// The rules that only two clusters need. The model breaks them too (`docs/model.md`), in each test run.
#[rstest]
#[case::positions_in_source("break-positions-in-target=return", "kill", "where nothing may be written")]
#[case::ends_of_source_first(
    "between-the-ends=sleep(5000);break-target-ends-first=return",
    "mirror,mirror,mirror",
    "records are lost"
)]
#[case::no_scan_without_a_mark("break-scan-without-mark=return", "ledger,kill", "duplicate")]
#[ignore = "takes a minute"]
fn a_drill_on_two_clusters_can_fail(#[case] failpoints: &str, #[case] faults: &str, #[case] finds: &str) {
    finds_on_two_clusters(failpoints, faults, finds);
}

#[rstest]
#[case::no_topic_ids("break-same-topics=return", "anew,anew,anew", "exit 0 after a topic was made anew")]
#[case::not_subscribed("break-subscribed-ledger=return", "scale-out,kill", "but commit offsets of")]
#[ignore = "takes minutes"]
fn a_drill_on_two_clusters_can_fail_too(#[case] failpoints: &str, #[case] faults: &str, #[case] finds: &str) {
    finds_on_two_clusters(failpoints, faults, finds);
}

/// The rules of [`a_drill_can_fail`], with the source in one cluster and the target in another. It is the same code.
#[rstest]
#[case::dedup("break-dedup=return", "duplicate")]
#[case::read_uncommitted("break-read-committed=return", "G1a")]
#[case::resume_from_memory("abort=20%return;break-resume-from-committed=return", "lost-write")]
#[case::offsets_outside("abort=20%return;break-offsets-in-transaction=return", "lost-write")]
#[case::offsets_first("abort=20%return;break-offsets-in-transaction=return", "torn-transaction")]
#[ignore = "takes a minute"]
fn a_drill_on_two_clusters_can_fail_as_on_one(#[case] failpoints: &str, #[case] finds: &str) {
    finds_on_two_clusters(failpoints, "kill", finds);
}

/// Expects that a drill finds `finds`: an anomaly, or a failure that says these words. Some rules show only if a
/// fault comes at the right moment, so up to three schedules try.
fn finds_on_two_clusters(failpoints: &str, faults: &str, finds: &str) {
    let mut told = Vec::new();
    for seed in ["1", "2", "3"] {
        let output = drill(&["--clusters", "2", "--brokers", "1", "--faults", faults, "--records", "4000"])
            .args(["--seed", seed])
            .env("FAILPOINTS", failpoints)
            .output()
            .expect("runs");
        if output.status.code() == Some(4) {
            let round = round(&output);
            if anomalies(&round).contains(&finds) || round["failures"].to_string().contains(finds) {
                return;
            }
            told.push(format!("{round:#}"));
        }
        told.push(stderr(&output));
    }
    panic!("no schedule found {finds}: {}", told.join("\n"));
}

/// Runs follow a source in which transactions are committed and aborted all the time.
#[rstest]
#[case::one_cluster("1", "kill,outlive,broker,grow")]
#[case::two_clusters("2", "broker,kill,cut,terminate")]
fn all_that_comes_is_there_once(#[case] clusters: &str, #[case] faults: &str) {
    let output = follow(&["--clusters", clusters, "--faults", faults]).output().expect("runs");
    assert!(output.status.success(), "{}\n{:#}", stderr(&output), round(&output));
    let round = round(&output);
    for count in ["faults", "kills", "bounces"] {
        assert!(round[count].as_u64() > Some(0), "{count}: {round:#}");
    }
    for count in ["committed", "aborted", "followed"] {
        assert!(round["follow"][count].as_u64() > Some(0), "{count}: {round:#}");
    }
}

/// The command is this program, because each machine has it. The drill treats it as it treats any other.
#[rstest]
#[case::right("", &[])]
#[case::that_adds_a_record("\"$1\" load -q --topic {target} --bootstrap-server {bootstrap} \"$0\";", &["extra"])]
fn any_command_can_be_drilled(#[case] first: &str, #[case] finds: &[&str]) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("events.jsonl");
    std::fs::write(&file, "{\"id\":\"foreign\",\"time\":\"2021-04-14T11:00:00Z\"}\n").expect("written");
    let copy = "\"$@\" --source {source} --target {target} --bootstrap-server {bootstrap}; exit $?";
    let output =
        drill(&["--brokers", "1", "--records", "300", "--faults", "terminate,kill,terminate,kill", "--"])
            .args(["sh", "-c", &format!("{first} {copy}")])
            .arg(&file)
            .arg(env!("CARGO_BIN_EXE_replicator"))
            .args(["--identity", "record", "--window", "2021-04-14/", "--follow"])
            .args(["-X", "session.timeout.ms=6000"])
            .output()
            .expect("runs");
    assert_eq!(output.status.success(), finds.is_empty(), "{}", stderr(&output));
    let round = round(&output);
    assert!(round["records"].as_u64() > Some(300), "{round:#}");
    assert_eq!(anomalies(&round), finds, "{round:#}");
}

#[test]
fn a_drill_of_a_follow_can_fail() {
    let output = follow(&["--faults", "terminate,kill,terminate,kill"])
        .env("FAILPOINTS", "break-follow-position=return")
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    let round = round(&output);
    assert!(anomalies(&round).contains(&"duplicate"), "{round:#}");
}

#[test]
fn a_follow_does_not_suffer_each_fault() {
    let refused = follow(&["--faults", "kill,rival"]).output().expect("runs");
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("--faults rival: a drill with --follow"), "{}", stderr(&refused));
}

#[rstest]
#[case::no_source(&[], "copy {target} {bootstrap}", "has no {source}")]
#[case::no_brokers(&[], "copy {source} {target}", "has no {bootstrap}")]
#[case::which_brokers(&["--clusters", "2"], "copy {source} {target} {bootstrap}", "has no {source-bootstrap}")]
#[case::partitions(
    &["--faults", "kill,grow"],
    "copy {source} {target} {bootstrap}",
    "--faults grow: a drill of a command"
)]
fn a_command_that_cannot_be_drilled_is_refused(
    #[case] options: &[&str],
    #[case] command: &str,
    #[case] says: &str,
) {
    let refused = drill(options).arg("--").args(command.split(' ')).output().expect("runs");
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stderr(&refused).contains(says), "{}", stderr(&refused));
}

fn follow(arguments: &[&str]) -> Command {
    let mut command = drill(&["--follow", "--brokers", "1", "--records", "2000"]);
    command.args(arguments);
    command
}

/// Transactions that fail at random do no harm if no rule is broken. So the drills above found the broken rule.
#[test]
#[ignore = "takes a minute"]
fn random_aborts_do_no_harm() {
    let output = drill(&["--brokers", "1", "--faults", "kill", "--records", "4000"])
        .env("FAILPOINTS", "abort=20%return")
        .output()
        .expect("runs");
    assert!(output.status.success(), "{}\n{:#}", stderr(&output), round(&output));
}

#[test]
fn a_given_cluster_is_not_broken() {
    let (bootstrap, _network) = network();
    let refused =
        drill(&["--bootstrap-server", bootstrap, "--faults", "kill,broker"]).output().expect("runs");
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("does not break the brokers"), "{}", stderr(&refused));
    let output =
        drill(&["--bootstrap-server", bootstrap, "--seed", "4", "--records", "2000"]).output().expect("runs");
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn both_clusters_are_its_own() {
    let refused = drill(&["--bootstrap-server", "127.0.0.1:1", "--clusters", "2"]).output().expect("runs");
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("--clusters 2 starts both clusters"), "{}", stderr(&refused));
}

/// A broker behind a proxy, for one test at a time.
fn network() -> (&'static str, MutexGuard<'static, Proxy>) {
    static NETWORK: OnceLock<(Sandbox, Mutex<Proxy>)> = OnceLock::new();
    let (sandbox, proxy) = NETWORK.get_or_init(|| {
        let sandbox = Sandbox::start_own(1).expect("a broker");
        let proxy = Proxy::start(&sandbox.back_doors()[0]).expect("a proxy");
        (sandbox, Mutex::new(proxy))
    });
    let proxy = proxy.lock().unwrap_or_else(PoisonError::into_inner);
    proxy.set(Weather::default());
    (sandbox.bootstrap(), proxy)
}

/// A source with records of the window, an empty target, and runs that reach them through the proxy.
struct Fill {
    topics: Topics,
    bootstrap: String,
    source: String,
    target: String,
    records: Vec<Record>,
}

impl Fill {
    fn new(name: &str, bootstrap: &str, proxy: &Proxy) -> Fill {
        let topics = Topics::new(bootstrap);
        let (source, target) = (format!("{name}-a"), format!("{name}-b"));
        topics.create(&source, 1, 1).expect("made");
        topics.create(&target, 1, 1).expect("made");
        let records: Vec<Record> = (0..4000)
            .map(|n| Record {
                partition: 0,
                time: 1_618_398_000_000 + n, // 2021-04-14T11:00Z
                key: Some(format!("event-{n}").into_bytes()),
                value: Some(vec![b'x'; 50]),
                headers: Vec::new(),
            })
            .collect();
        let producer = topics.producer(None).expect("a producer");
        send(&producer, &source, &records).expect("sent");
        delivered(&producer).expect("delivered");
        Fill { topics, bootstrap: proxy.address(), source, target, records }
    }

    fn start(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_replicator"))
            .args(["--window", "11:00-13:00", "--transaction-records", "50", "--output", "json"])
            .args(["--source", &self.source, "--target", &self.target, "--bootstrap-server", &self.bootstrap])
            .args(arguments)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts")
    }

    fn until_written(&self, records: i64) {
        let end = || self.topics.ends(&self.target, 1, "read_uncommitted").expect("an end")[0];
        until(|| end() > records);
    }

    fn assert_filled(&self) {
        let target = self.topics.consume(&self.target, 1).expect("reads");
        assert!(target == self.records, "{} records of {}", target.len(), self.records.len());
    }
}

fn until(condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn restarts(output: &Output) -> u64 {
    let receipt: Value = serde_json::from_slice(&output.stdout).expect("a receipt");
    receipt["restarts"].as_u64().expect("a count")
}

const HOLD_A_COMMIT: Weather =
    Weather { delay: Duration::ZERO, requests_held: false, responses_held: false, hold_one: Some(END_TXN) };

/// librdkafka#5423: librdkafka itself sends the commit again, and the first one arrives in the middle of a later
/// transaction.
#[test]
fn a_commit_that_arrives_twice_ends_no_later_transaction() {
    let (bootstrap, proxy) = network();
    let fill = Fill::new("twice", bootstrap, &proxy);
    let run = fill.start(&[], &[]);
    fill.until_written(500);
    proxy.set(HOLD_A_COMMIT);
    until(|| proxy.held() == 1);
    proxy.cut();
    fill.until_written(1000);
    proxy.release();
    let output = run.wait_with_output().expect("ends");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("it lost a connection"), "{}", stderr(&output));
    fill.assert_filled();
}

/// librdkafka was seen to ignore its own timeout. The run's own deadline then ends the wait.
#[test]
fn a_call_that_never_returns_is_given_up_on() {
    let (bootstrap, proxy) = network();
    let fill = Fill::new("hangs", bootstrap, &proxy);
    // The 20th call is in the middle of the copy. It sleeps for longer than the run takes.
    let run = fill.start(&["--patience", "5"], &[("FAILPOINTS", "in-call=19*off->1*sleep(60000)->off")]);
    let output = run.wait_with_output().expect("ends");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("did not answer in time"), "{}", stderr(&output));
    assert_eq!(restarts(&output), 1, "{}", stderr(&output));
    fill.assert_filled();
}

/// The run abandons the call, another producer goes on, and the abandoned commit arrives later.
#[test]
fn a_commit_that_arrives_after_its_deadline_ends_no_later_transaction() {
    let (bootstrap, proxy) = network();
    let fill = Fill::new("late", bootstrap, &proxy);
    let run = fill.start(&["--patience", "5"], &[]);
    fill.until_written(500);
    proxy.set(HOLD_A_COMMIT);
    until(|| proxy.held() == 1);
    // The next start-up aborts the abandoned transaction, and then writes its records again.
    fill.until_written(1500);
    proxy.release();
    let output = run.wait_with_output().expect("ends");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(restarts(&output), 1, "{}", stderr(&output));
    fill.assert_filled();
}

/// If no commit ever arrives in time, the run gives up and says what it waited for. It loses nothing.
#[test]
fn commits_that_never_arrive_in_time_end_the_run() {
    let (bootstrap, proxy) = network();
    let fill = Fill::new("never", bootstrap, &proxy);
    let mut run = fill.start(&["--patience", "5"], &[]);
    let begun = Instant::now();
    while run.try_wait().expect("asked").is_none() {
        proxy.set(HOLD_A_COMMIT);
        std::thread::sleep(Duration::from_millis(5));
        assert!(begun.elapsed() < Duration::from_secs(240), "it is bounded");
    }
    let output = run.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("no transaction could be committed"), "{}", stderr(&output));
    assert!(stderr(&output).contains("commit_transaction: "), "{}", stderr(&output));
    assert_eq!(restarts(&output), 2);
    proxy.set(Weather::default());
    let next = fill.start(&[], &[]);
    fill.until_written(0);
    proxy.release();
    let output = next.wait_with_output().expect("ends");
    assert!(output.status.success(), "{}", stderr(&output));
    fill.assert_filled();
}
