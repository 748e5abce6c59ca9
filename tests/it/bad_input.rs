//! Wrong arguments, and topics that cannot be filled, give a clear error and its exit code. Nothing is written.

use rstest::rstest;

use crate::kit::*;

fn run(arguments: &[&str]) -> (i32, String) {
    let output = replicator(arguments).output().expect("runs");
    (code(&output), stderr(&output))
}

#[rstest]
#[case(&["--window", "13:00-13:00"], "empty")]
#[case(&["--window", "noon"], "not a window")]
#[case(&["--window", "2021-04-14T13:00Z/2021-04-14T11:00Z"], "reversed")]
#[case(&["--window", "11:00-13:00", "--date", "2021-02-30"], "2021-04-14")]
#[case(&["--window", "2021-04-14T11:00Z/", "--date", "2021-04-14"], "--date")]
#[case(&["--window", "11:00-13:00", "--identity", "colour"], "identity")]
#[case(&["--window", "11:00-13:00", "-X", "isolation.level=read_uncommitted"], "isolation.level")]
#[case(&["--window", "11:00-13:00", "-X", "transactional.id=mine"], "transactional.id")]
#[case(&["--window", "11:00-13:00", "-X", "nonsense=1"], "nonsense")]
#[case(&["--window", "11:00-13:00", "-F", "no-such-file.properties"], "no-such-file.properties")]
#[case(&["--window", "11:00-13:00", "--transaction-records", "0"], "transaction-records")]
#[case(&["--window", "11:00-13:00", "--patience", "0"], "a week (7d) at most")]
#[case(&["plan", "--window", "11:00-13:00", "--patience", "0"], "a week (7d) at most")]
#[case(&["gaps", "--patience", "0"], "a week (7d) at most")]
#[case(&["verify", "--window", "11:00-13:00", "--patience", "0"], "a week (7d) at most")]
#[case(&["sink", "--topic", "x", "--store", "sqlite:x", "--patience", "0"], "a week (7d) at most")]
#[case(&["gaps", "--patience", "18446744073709551615"], "a week (7d) at most")]
#[case(&["--window", "11:00-13:00", "-X", "bootstrap.servers=127.0.0.1:1"], "bootstrap.servers")]
#[case(&["--window", "11:00-13:00", "--source", "same", "--target", "same"], "two topics")]
#[case(&["--source", "x", "plan", "--window", "11:00-13:00"], "after `plan`")]
#[case(&["--window", "11:00-13:00", "plan"], "--window")]
#[case(&["--window", "11:00-13:00", "--source", "a/b"], "cannot be a topic's name")]
#[case(&[], "--window")]
fn usage(#[case] arguments: &[&str], #[case] says: &str) {
    let (code, text) = run(arguments);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains(says), "{text}");
}

/// A flag names the brokers; without it the environment does, and else the file.
#[rstest]
#[case::file(&[], None, Some("broker"), 0)]
#[case::flag_beats_file(&["-b", "broker"], None, Some("127.0.0.1:1"), 0)]
#[case::environment_beats_file(&[], Some("broker"), Some("127.0.0.1:1"), 0)]
#[case::flag_beats_environment(&["-b", "broker"], Some("127.0.0.1:1"), None, 0)]
#[case::not_the_file(&[], Some("127.0.0.1:1"), Some("broker"), 1)]
#[case::not_by_property(&["-X", "bootstrap.servers=127.0.0.1:1"], None, Some("broker"), 2)]
fn where_the_brokers_are(
    #[case] flags: &[&str],
    #[case] variable: Option<&str>,
    #[case] file: Option<&str>,
    #[case] wanted: i32,
) {
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(60, 1));
    let address = |name: &str| if name == "broker" { broker().to_owned() } else { name.to_owned() };
    let folder = tempfile::tempdir().expect("a folder");
    let mut command =
        replicator(&["plan", "--window", "11:00-13:00", "--source", &pair.a, "--target", &pair.b]);
    command.args(flags.iter().map(|flag| address(flag))).env_remove("KAFKA_BOOTSTRAP_SERVERS");
    if let Some(variable) = variable {
        command.env("KAFKA_BOOTSTRAP_SERVERS", address(variable));
    }
    if let Some(file) = file {
        let path = folder.path().join("client.properties");
        std::fs::write(&path, format!("bootstrap.servers={}\n", address(file))).expect("written");
        command.arg("-F").arg(path);
    }
    let output = command.output().expect("runs");
    assert_eq!(code(&output), wanted, "{}", stderr(&output));
}

/// Kubernetes gives each pod such variables if there is a service named `replicator-metrics`.
#[test]
fn links_to_services_do_not_break_a_run_and_a_misspelt_property_is_told() {
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(60, 1));
    let output = replicator(&["plan", "--window", "11:00-13:00", "--source", &pair.a, "--target", &pair.b])
        .env("REPLICATOR_METRICS_SERVICE_HOST", "10.0.0.1")
        .env("REPLICATOR_METRICS_PORT_9090_TCP_ADDR", "10.0.0.1")
        .env("REPLICATOR_SASL_PASWORD", "hunter2")
        .output()
        .expect("runs");
    let text = stderr(&output);
    assert_eq!(code(&output), 0, "{text}");
    assert!(text.contains("REPLICATOR_SASL_PASWORD is ignored"), "{text}");
    assert!(!text.contains("METRICS") && !text.contains("hunter2"), "{text}");
}

#[test]
fn an_unknown_topic_is_refused_both_at_once() {
    let (code, text) = run(&["--window", "11:00-13:00", "--source", "no-a", "--target", "no-b"]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("no-a") && text.contains("no-b"), "{text}");
}

#[test]
fn an_unreachable_broker_is_told_soon() {
    let (code, text) = run(&["--window", "11:00-13:00", "-b", "127.0.0.1:1"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("127.0.0.1:1"), "{text}");
}

#[test]
fn the_date_is_inferred_or_asked_for() {
    let pair = Pair::new(2, 2);
    let records = day(60, 2);
    produce(&pair.a, &records);
    let arguments = ["-v", "plan", "--window", "11:00-13:00", "--source", &pair.a, "--target", &pair.b];
    let (code, text) = run(&arguments);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("2021-04-14T11:00:00Z"), "the resolved instants are echoed: {text}");
    let later: Vec<Record> =
        records.iter().map(|r| Record { time: r.time + 72 * HOUR, ..r.clone() }).collect();
    produce(&pair.a, &later);
    let (code, text) = run(&arguments);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("2021-04-14, 2021-04-17"), "the days are listed: {text}");
}

#[test]
fn an_empty_source() {
    let pair = Pair::new(1, 1);
    let (code, text) = run(&["--window", "11:00-13:00", "--source", &pair.a, "--target", &pair.b]);
    assert_eq!(code, 3, "{text}");
}

#[rstest]
#[case(&[("retention.ms", "604800000")], "retention.ms=-1")]
#[case(&[("message.timestamp.before.max.ms", "3600000")], "message.timestamp.before.max.ms")]
#[case(&[("cleanup.policy", "compact")], "--allow-compacted-target")]
#[case(&[("min.insync.replicas", "2")], "min.insync.replicas")]
fn a_target_that_would_lose_records(#[case] config: &[(&str, &str)], #[case] says: &str) {
    let pair = Pair::new(1, 1);
    let target = format!("{}-wrong", pair.b);
    create(&target, 1, config);
    produce(&pair.a, &day(60, 1));
    let arguments = ["--window", "11:00-13:00", "--source", &pair.a, "--target", &target];
    let (code, text) = run(&arguments);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains(says), "{text}");
    assert_eq!(watermarks(&target)[0].1, 0, "nothing was written");
    let (code, _) = run(&[&["plan"], &arguments[..]].concat());
    assert_eq!(code, 3, "a plan says so too");
}

#[test]
fn a_topic_name_of_any_length_and_an_environment_of_any_bytes() {
    let (code, text) = run(&["--window", "11:00-13:00", "--source", &"x".repeat(600)]);
    assert_eq!(code, 2, "{text}");
    use std::os::unix::ffi::OsStrExt;
    let odd = std::ffi::OsStr::from_bytes(&[b'h', 0xff]);
    let output =
        replicator(&["--window", "noon"]).env("ODD", odd).env("REPLICATOR_SASL_PASSWORD", odd).output();
    let output = output.expect("runs");
    assert_eq!(super::kit::code(&output), 2, "{}", stderr(&output));
}

const TOPIC: i8 = 2;
const GROUP: i8 = 3;
const TRANSACTIONAL_ID: i8 = 5;
const READ: i8 = 3;
const WRITE: i8 = 4;
const DESCRIBE: i8 = 8;

#[rstest]
#[case::source_unseen(TOPIC, "a", DESCRIBE, "on topic a-")]
#[case::source_unread(TOPIC, "a", READ, "on topic a-")]
#[case::target_unread(TOPIC, "b", READ, "on topic b-")]
#[case::target_unwritten(TOPIC, "b", WRITE, "on topic b-")]
#[case::group(GROUP, "name", READ, "on the group")]
#[case::transactional_id(TRANSACTIONAL_ID, "name", WRITE, "on the transactional id")]
fn no_permission(#[case] resource: i8, #[case] on: &str, #[case] operation: i8, #[case] says: &str) {
    if !can_deny() {
        return;
    }
    let pair = Pair::new(1, 1);
    let records = day(600, 1);
    produce(&pair.a, &records);
    produce(&pair.b, &records[..150]);
    let name = pair.job.selection.name();
    super::raw::deny(
        resource,
        [("a", &pair.a), ("b", &pair.b), ("name", &name)].iter().find(|(k, _)| *k == on).expect("one").1,
        operation,
    );
    let output = pair.command(50_000).output().expect("runs");
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    assert!(
        stderr(&output).contains(says) && stderr(&output).contains("no permission"),
        "{}",
        stderr(&output)
    );
}
