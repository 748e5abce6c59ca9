//! The source and the target are in two clusters.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Output, Stdio};

use rstest::rstest;

use crate::kit::*;
use crate::raw::topic_id;

/// How many transactions the copy of [`a_run_that_dies`] takes. The mark at its end takes one more.
const TRANSACTIONS: usize = 6;

/// The topic of the target's cluster for whose partitions the job commits its positions.
fn ledger(across: &Across) -> String {
    format!("replicator.{}.{}.internal", topic_id(&across.from, &across.source), across.source)
}

fn group(across: &Across) -> String {
    let Across { from, source, target, .. } = across;
    format!("replicator/{}/{source}/{target}", topic_id(from, source))
}

/// A source of 600 records, and a target that lacks some of them.
fn story(across: Across, partitions: i32) -> (Across, Vec<Record>) {
    let records = placed(day(600, 1), partitions);
    across.from.produce(&across.source, &records);
    (across, records)
}

fn spawned(across: &Across, options: &[&str]) -> Child {
    let mut command = across.job();
    command.args(["--transaction-records", "20"]).args(options);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
}

fn run(across: &Across, options: &[&str]) -> Output {
    across.job().args(options).output().expect("runs")
}

fn failed(output: &Output, wanted: i32, says: &[&str]) {
    let told = stderr(output);
    assert_eq!(code(output), wanted, "{told}");
    assert!(says.iter().all(|words| told.contains(words)), "wanted {says:?}, got {told}");
}

#[test]
fn topics_of_one_name() {
    let (across, records) = story(Across::same_name(3, 3), 3);
    let before = [&outside_of(&records)[..100], &window_of(&records)[..40]].concat();
    across.to.produce(&across.target, &before);
    let missing = window_of(&records).len() - 40;
    assert_eq!(across.filled(), u64::try_from(missing).expect("a count"));
    across.assert_filled(&before);
    assert!(!across.from.topics().contains(&ledger(&across)), "nothing is created in the source cluster");
    assert!(across.from.committed(&group(&across), &across.source).iter().all(|(at, _)| *at < 0));
    assert_eq!(across.to.consume(&ledger(&across)).len(), 0, "the ledger stays empty");
    assert_eq!(across.to.committed(&group(&across), &ledger(&across)).len(), 3);
}

#[rstest]
#[case(5, 2)]
#[case(1, 3)]
fn topics_of_other_widths(#[case] from: i32, #[case] to: i32) {
    let (across, records) = story(Across::new(from, to), from);
    across.filled();
    let found: Vec<Record> = across.consume_target();
    assert_eq!(found.len(), window_of(&records).len());
    assert_eq!(across.to.watermarks(&ledger(&across)).len(), usize::try_from(from).expect("a count"));
    assert_eq!(across.filled(), 0);
}

#[rstest]
#[case::after_init("after-init", 1)]
#[case::between_the_ends("between-the-ends", 1)]
#[case::after_the_scan("after-scan", 1)]
#[case::in_mid_transaction("after-send", 150)]
#[case::before_send_offsets("before-send-offsets", 1)]
#[case::after_send_offsets("after-send-offsets", 3)]
#[case::after_a_commit("after-commit", 3)]
#[case::after_the_mark("after-commit", TRANSACTIONS + 1)]
fn a_run_that_dies(#[case] instant: &str, #[case] pass: usize) {
    let across = Across::same_name(2, 2);
    let records = day(2000, 2);
    across.from.produce(&across.source, &records);
    let before: Vec<Record> = [&outside_of(&records)[..100], &window_of(&records)[..40]].concat();
    across.to.produce(&across.target, &before);

    let passes = if pass > 1 { format!("{}*off->", pass - 1) } else { String::new() };
    let die = || {
        let mut command = across.job();
        command.args(["--transaction-records", "100"]);
        command.env("FAILPOINTS", format!("{instant}={passes}return")).output().expect("runs")
    };
    let killed = |output: &Output| output.status.signal() == Some(9);
    let first = die();
    assert!(killed(&first), "it passes this instant: {}", stderr(&first));
    let second = die();
    assert!(killed(&second) || second.status.success(), "{}", stderr(&second));
    across.filled();
    across.assert_filled(&before);
}

#[test]
fn a_deleted_ledger_costs_a_scan_and_no_record() {
    let (across, _) = story(Across::same_name(2, 2), 2);
    across.filled();
    across.to.delete(&ledger(&across));
    assert_eq!(across.filled(), 0);
    assert!(across.to.topics().contains(&ledger(&across)), "it is created again");
    across.assert_filled(&[]);
}

#[test]
fn a_ledger_that_is_deleted_during_the_run() {
    let across = Across::same_name(2, 2);
    let records = day(2000, 2);
    across.from.produce(&across.source, &records);
    let child = spawned(&across, &["--max-rate", "200/s"]);
    until(|| across.to.watermarks(&across.target).iter().any(|(_, high)| *high > 20));
    across.to.delete(&ledger(&across));
    let output = child.wait_with_output().expect("ends");
    assert!([0, 1].contains(&code(&output)), "{}", stderr(&output));
    across.filled();
    across.assert_filled(&[]);
}

#[test]
fn the_ledger_grows_with_the_source() {
    let across = Across::same_name(3, 3);
    across.to.create(&ledger(&across), 1, &[]);
    let (across, _) = story(across, 3);
    across.filled();
    assert_eq!(across.to.watermarks(&ledger(&across)).len(), 3);
    across.assert_filled(&[]);
}

#[test]
fn a_ledger_that_is_wider_than_the_source() {
    let (across, _) = story(Across::same_name(2, 2), 2);
    across.to.create(&ledger(&across), 5, &[]);
    let told = format!("the target cluster ({}): the topic {}", across.to.0, ledger(&across));
    failed(&run(&across, &[]), 3, &[&told, "has 5 partitions", "delete"]);
}

#[test]
fn a_source_made_anew_between_two_runs() {
    let (across, _) = story(Across::same_name(2, 2), 2);
    across.filled();
    let old = ledger(&across);
    let copied = across.consume_target();
    across.from.delete(&across.source);
    across.from.create(&across.source, 2, &[]);
    // The new topic is longer than the old positions.
    let anew = |record: Record| Record { key: Some(format!("new {:?}", record.key).into_bytes()), ..record };
    let more: Vec<Record> = day(2400, 2).into_iter().map(anew).collect();
    across.from.produce(&across.source, &more);
    assert_ne!(ledger(&across), old);
    across.filled();
    assert_holds(&across.consume_target(), &copied, &window_of(&more));
    assert_eq!(across.filled(), 0);
}

/// The reader goes on to read a topic that was made anew and is longer than its position, without an error.
#[rstest]
#[case::the_source(true)]
#[case::the_target(false)]
fn a_topic_made_anew_during_the_run(#[case] is_source: bool) {
    let across = Across::same_name(2, 2);
    let records = day(4000, 2);
    across.from.produce(&across.source, &records);
    let child = spawned(&across, &["--max-rate", "200/s", "--patience", "20"]);
    until(|| across.to.watermarks(&across.target).iter().any(|(_, high)| *high > 20));
    let (side, topic) = if is_source { (&across.from, &across.source) } else { (&across.to, &across.target) };
    side.delete(topic);
    side.create(topic, 2, &[]);
    if is_source {
        side.produce(topic, &records);
    }
    let output = child.wait_with_output().expect("ends");
    let place = if is_source { "the source cluster" } else { "the target cluster" };
    failed(&output, 1, &[place]);
    across.filled();
    let target = across.consume_target();
    let (mut found, mut wanted) = (target.clone(), window_of(&records));
    found.sort();
    wanted.sort();
    assert_same(&found, &wanted);
}

#[test]
fn records_deleted_below_an_open_position() {
    let across = Across::same_name(1, 1);
    across.from.produce(&across.source, &day(2000, 1));
    let mut dying = across.job();
    dying.args(["--transaction-records", "100"]).env("FAILPOINTS", "after-commit=1*off->return");
    assert_eq!(dying.output().expect("runs").status.signal(), Some(9));
    let reached = across.to.committed(&group(&across), &ledger(&across))[0].0;
    across.from.trim(&across.source, 0, reached + 50);
    let output = run(&across, &[]);
    let first = format!("is below its first offset {}", reached + 50);
    failed(&output, 3, &["the source cluster (", &first, "--delete-offsets", &group(&across)]);
    let answer = receipt(&output);
    assert_eq!(answer["error"]["reason"], "log-lost");
}

/// Two addresses of one cluster: the job must be the same as with one address, so that both fence each other.
#[test]
fn two_addresses_of_one_cluster() {
    let pair = Pair::new(2, 2);
    let records = day(600, 2);
    produce(&pair.a, &records);
    let Side(address) = side_a();
    let same = Across { from: side_a(), to: Side(address), source: pair.a.clone(), target: pair.b.clone() };
    let written = same.filled();
    assert_eq!(written, u64::try_from(window_of(&records).len()).expect("a count"));
    assert!(!side_a().topics().contains(&ledger(&same)), "the source is the ledger");
    assert!(pair.filled().done_before.is_some(), "with one address, it is the same job");
    let twice = Across { target: pair.a.clone(), ..same };
    failed(&run(&twice, &[]), 3, &["are one topic", "name two topics"]);
}

#[test]
fn a_plan_writes_nothing_and_says_where_positions_would_be() {
    let (across, records) = story(Across::new(3, 2), 3);
    across.to.alter(&across.target, "max.message.bytes", "1500000");
    let plan =
        across.command(&["plan", "--window", "11:00-13:00", "--output", "json"]).output().expect("runs");
    assert_eq!(code(&plan), 0, "{}", stderr(&plan));
    let plan = receipt(&plan);
    assert_eq!(plan["to_write"], window_of(&records).len());
    assert_eq!(plan["consequences"]["ledger"], ledger(&across));
    assert_eq!(plan["source_bootstrap_server"], across.from.0);
    assert_eq!(plan["source_topic_id"], topic_id(&across.from, &across.source));
    let differences = plan["differences"].as_array().expect("a list");
    let properties: Vec<_> =
        differences.iter().map(|found| found["property"].as_str().expect("text")).collect();
    assert_eq!(properties, ["partitions", "max.message.bytes"]);
    let command = plan["command"].as_str().expect("a command");
    assert!(command.contains(&format!("--source-bootstrap-server {}", across.from.0)), "{command}");
    assert!(!across.to.topics().contains(&ledger(&across)));
    assert!(across.consume_target().is_empty());
}

#[test]
fn a_missing_target_gets_the_command_that_creates_it() {
    let (across, _) = story(Across::new(3, 1), 3);
    let name = unique("absent");
    let lacking = Across { target: name.clone(), ..across };
    let create = format!("--bootstrap-server {} --create --topic {name} --partitions 3", lacking.to.0);
    let place = format!("the target cluster ({}): there is no topic {name}", lacking.to.0);
    failed(&run(&lacking, &[]), 3, &[&place, &create, "retention.ms=-1"]);
}

#[test]
fn instances_share_the_partitions() {
    let across = Across::same_name(6, 6);
    let records = placed(day(3000, 1), 6);
    across.from.produce(&across.source, &records);
    let slow = ["--scale-out", "-X", "session.timeout.ms=6000", "--max-rate", "400/s"];
    let mut first = spawned(&across, &slow);
    let others = [spawned(&across, &slow), spawned(&across, &slow)];
    until(|| across.to.watermarks(&across.target).iter().any(|(_, high)| *high > 20));
    first.kill().expect("killed");
    first.wait().expect("ends");
    for child in others {
        let output = child.wait_with_output().expect("ends");
        assert_eq!(code(&output), 0, "{}", stderr(&output));
    }
    across.assert_filled(&[]);
}

#[test]
fn gaps_and_verify_between_two_clusters() {
    let (across, records) = story(Across::same_name(2, 2), 2);
    let held = outside_of(&records);
    across.to.produce(&across.target, &held);
    let gaps = across.command(&["gaps", "--output", "json"]).output().expect("runs");
    assert_eq!(code(&gaps), 0, "{}", stderr(&gaps));
    let gaps = receipt(&gaps);
    assert_eq!(gaps["missing"], window_of(&records).len());
    let command = gaps["holes"][0]["command"].as_str().expect("a command").to_owned();
    assert!(command.contains(&format!("--target-bootstrap-server {}", across.to.0)), "{command}");
    let verify = ["verify", "--window", "11:00-13:00", "--date", "2021-04-14", "--output", "json"];
    let different = across.command(&verify).output().expect("runs");
    assert_eq!(code(&different), 4, "{}", stderr(&different));
    // The command that gaps prints fills the hole.
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    let filled = replicator(&words).env_remove("KAFKA_BOOTSTRAP_SERVERS").output().expect("runs");
    assert_eq!(code(&filled), 0, "{}", stderr(&filled));
    let same = across.command(&verify).output().expect("runs");
    assert_eq!(code(&same), 0, "{}", stderr(&same));
}

/// Which cluster is named, and by what.
#[rstest]
#[case::one_beside_two(&["-b", "x:1", "--source-bootstrap-server", "x:1", "--target-bootstrap-server", "x:1"], &[], "leave out one or the other")]
#[case::source_alone(&["--source-bootstrap-server", "x:1"], &[], "--target-bootstrap-server")]
#[case::target_alone(&["--target-bootstrap-server", "x:1"], &[], "--source-bootstrap-server")]
#[case::alone_in_the_environment(&[], &[("KAFKA_SOURCE_BOOTSTRAP_SERVERS", "x:1")], "the source cluster is named in the environment, but not the target")]
#[case::both_in_the_environment(
    &[],
    &[("KAFKA_SOURCE_BOOTSTRAP_SERVERS", "x:1"), ("KAFKA_TARGET_BOOTSTRAP_SERVERS", "x:1"), ("KAFKA_BOOTSTRAP_SERVERS", "x:1")],
    "in the environment, one cluster is named for both topics"
)]
#[case::a_prefix_with_one_cluster(&["-b", "x:1", "-X", "source.client.id=me"], &[], "is for one of two clusters")]
#[case::a_secret(&["-X", "target.sasl.password=hunter2"], &[], "REPLICATOR_TARGET_SASL_PASSWORD")]
#[case::ours(&["--source-bootstrap-server", "x:1", "--target-bootstrap-server", "x:1", "-X", "target.acks=0"], &[], "the property acks of the target cluster cannot be set")]
fn wrong_words(#[case] flags: &[&str], #[case] environment: &[(&str, &str)], #[case] says: &str) {
    let mut command = replicator(&["--window", "11:00-13:00"]);
    command.env_remove("KAFKA_BOOTSTRAP_SERVERS");
    let output = command.args(flags).envs(environment.iter().copied()).output().expect("runs");
    failed(&output, 2, &[says]);
    assert!(!stderr(&output).contains("hunter2"));
}

#[test]
fn a_command_of_one_cluster_wants_its_name() {
    for command in
        [&["sink", "--topic", "t", "--store", "sqlite:x.db"][..], &["load", "x.json", "--topic", "t"]]
    {
        let mut command = replicator(command);
        command.env_remove("KAFKA_BOOTSTRAP_SERVERS");
        let sides = [("KAFKA_SOURCE_BOOTSTRAP_SERVERS", "x:1"), ("KAFKA_TARGET_BOOTSTRAP_SERVERS", "y:1")];
        failed(
            &command.envs(sides).output().expect("runs"),
            2,
            &["say which one to use, with --bootstrap-server"],
        );
    }
}

#[rstest]
#[case::the_source("source")]
#[case::the_target("target")]
fn a_cluster_that_does_not_answer(#[case] absent: &str) {
    let (across, _) = story(Across::same_name(1, 1), 1);
    let nowhere = Side("localhost:1".to_owned());
    let broken = match absent {
        "source" => Across { from: nowhere, ..across },
        _ => Across { to: nowhere, ..across },
    };
    let place = format!("the {absent} cluster (localhost:1): no broker answered");
    failed(&run(&broken, &[]), 1, &[&place, &format!("--{absent}-bootstrap-server")]);
}

/// The pair by flag beats the environment, where one cluster is named.
#[test]
fn flags_beat_the_environment() {
    let (across, _) = story(Across::same_name(1, 1), 1);
    let output = across.job().env("KAFKA_BOOTSTRAP_SERVERS", "localhost:1").output().expect("runs");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let mut by_environment = replicator(&["--window", "11:00-13:00", "--source", &across.source]);
    by_environment.args(["--target", &across.target]).env_remove("KAFKA_BOOTSTRAP_SERVERS");
    by_environment.env("KAFKA_SOURCE_BOOTSTRAP_SERVERS", &across.from.0);
    by_environment.env("KAFKA_TARGET_BOOTSTRAP_SERVERS", &across.to.0);
    let output = by_environment.output().expect("runs");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

/// Instances that copy the target back to the source.
#[test]
fn a_reversed_job_at_work() {
    let across = Across::same_name(2, 2);
    let back = Across {
        from: across.to.clone(),
        to: across.from.clone(),
        source: across.target.clone(),
        target: across.source.clone(),
    };
    across.to.produce(&across.target, &placed(day(4000, 1), 2));
    let mut reversed = spawned(&back, &["--scale-out", "--max-rate", "50/s"]);
    let before: usize = across.consume_source().len();
    until(|| {
        across.from.watermarks(&across.source).iter().map(|(_, high)| *high).sum::<i64>() > before as i64
    });
    let output = run(&across, &[]);
    signal(&reversed, "-TERM");
    reversed.wait().expect("ends");
    failed(&output, 3, &["the source cluster (", "the other way round"]);
    assert_eq!(receipt(&output)["error"]["reason"], "reversed-job");
}
