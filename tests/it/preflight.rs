//! The checks before a run report all findings at once. A run is refused if records would be lost, and otherwise warns.

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use replicator::{Extras, Sandbox};
use serde_json::Value;

use crate::kit::*;
use crate::raw::{allow_only, deny};

const TOPIC: i8 = 2;
const READ: i8 = 3;
const WRITE: i8 = 4;
const DESCRIBE: i8 = 8;
const DESCRIBE_CONFIGS: i8 = 10;

/// A pair of new topics with these properties.
fn pair(source: &[(&str, &str)], target: &[(&str, &str)]) -> Pair {
    let plain = Pair::new(1, 1);
    let (a, b) = (format!("{}-set", plain.a), format!("{}-set", plain.b));
    create(&a, 1, source);
    create(&b, 1, target);
    Pair { job: job(&a, &b), a, b }
}

/// Checks that a plan and a run warn so, and go on.
fn assert_warned(pair: &Pair, says: &str) {
    for (receipt, result) in [pair.plan(), pair.fill()] {
        result.expect("goes on");
        assert!(receipt.warnings.iter().any(|warning| warning.contains(says)), "{:?}", receipt.warnings);
    }
}

#[test]
fn all_findings_at_once() {
    let pair = pair(
        &[],
        &[
            ("retention.ms", "604800000"),
            ("message.timestamp.before.max.ms", "3600000"),
            ("cleanup.policy", "compact,delete"),
            ("min.insync.replicas", "2"),
            ("retention.bytes", "2000000"),
        ],
    );
    produce(&pair.a, &day(60, 1));
    let mut findings = vec![
        "--add-config retention.ms=-1`, and change it back when it may delete them with `kafka-configs.sh",
        "message.timestamp.before.max.ms=3600000",
        "--add-config retention.bytes=2000000`",
        "--allow-compacted-target",
        "has 1 replicas and min.insync.replicas=2: it never takes a write",
    ];
    if can_deny() {
        allow_only(TOPIC, &pair.b, &[READ, DESCRIBE_CONFIGS]);
        findings.push("grant this principal Write on topic");
    }
    let error = pair.fill().1.expect_err("refused");
    assert_eq!(error.exit_code(), 3);
    let text = error.to_string();
    assert_eq!(text.lines().count(), findings.len(), "a sentence each: {text}");
    assert!(findings.iter().all(|finding| text.contains(finding)), "{text}");
    assert_eq!(watermarks(&pair.b)[0].1, 0, "nothing was written");
}

#[test]
fn a_window_without_a_date_is_one_finding_among_others() {
    let pair = pair(&[], &[("cleanup.policy", "compact")]).with(|job| job.selection.date = None);
    let records = day(60, 1);
    produce(&pair.a, &records);
    let later: Vec<Record> = records.into_iter().map(|r| Record { time: r.time + 72 * HOUR, ..r }).collect();
    produce(&pair.a, &later);
    for (_, result) in [pair.plan(), pair.fill()] {
        let error = result.expect_err("refused");
        assert_eq!(error.exit_code(), 3);
        let text = error.to_string();
        assert!(
            text.contains("2021-04-14, 2021-04-17") && text.contains("--allow-compacted-target"),
            "{text}"
        );
    }
}

#[test]
fn both_topics_are_told_where_one_is_missing_and_the_other_must_not_be_seen() {
    if !can_deny() {
        return;
    }
    let pair = Pair::new(1, 1).with(|job| job.selection.target = "no-such-target".into());
    deny(TOPIC, &pair.a, DESCRIBE);
    let text = pair.plan().1.expect_err("refused").to_string();
    assert!(text.contains("no-such-target") && text.contains(&pair.a), "{text}");
}

#[test]
fn a_plan_needs_no_permission_to_write_and_says_that_a_run_does() {
    if !can_deny() {
        return;
    }
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(600, 1));
    allow_only(TOPIC, &pair.b, &[READ, DESCRIBE_CONFIGS]);
    let (receipt, result) = pair.plan();
    result.expect("plans");
    assert_eq!(receipt.to_write, Some(178));
    let told = format!("a run would be refused: writing {}: no permission", pair.b);
    assert!(receipt.warnings.iter().any(|warning| warning.starts_with(&told)), "{:?}", receipt.warnings);
    assert_eq!(pair.fill().1.expect_err("refused").exit_code(), 3);
}

#[test]
fn a_configuration_that_must_not_be_seen() {
    if !can_deny() {
        return;
    }
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(60, 1));
    allow_only(TOPIC, &pair.b, &[READ, WRITE]);
    assert_eq!(pair.plan().0.consequences.expect("consequences").target_is_compacted, None);
    assert_warned(&pair, "grant it DescribeConfigs on the topic");
}

#[test]
fn a_compacted_source() {
    let pair = pair(&[("cleanup.policy", "compact")], &[]);
    produce(&pair.a, &day(60, 1));
    assert_warned(&pair, "records that it no longer holds cannot be copied");
}

#[test]
fn a_compacted_target_that_is_allowed() {
    let pair = pair(&[], &[("cleanup.policy", "compact")]).with(|job| job.allow_compacted_target = true);
    produce(&pair.a, &day(60, 1));
    assert_warned(&pair, "becomes its key's latest one");
}

#[test]
fn a_source_and_a_target_that_stamp_their_records() {
    let stamps = [("message.timestamp.type", "LogAppendTime")];
    let pair = pair(&stamps, &stamps).with(|job| {
        job.selection.rules.target_scan = replicator::TargetScan::All;
        job.selection.window = "2021-04-14T11:00Z/".parse().expect("a window");
        job.selection.date = None;
    });
    produce(&pair.a, &day(60, 1));
    assert_warned(&pair, "the broker gives the copies its own time");
    assert_warned(&pair, "the window applies to the time when the broker received a record");
}

#[test]
fn a_target_that_stamps_its_records_keeps_old_ones() {
    let pair = pair(
        &[],
        &[
            ("retention.ms", "604800000"),
            ("message.timestamp.before.max.ms", "3600000"),
            ("message.timestamp.type", "LogAppendTime"),
        ],
    );
    produce(&pair.a, &day(60, 1));
    let text = pair.fill().1.expect_err("refused").to_string();
    assert!(text.lines().count() == 1 && text.contains("message.timestamp.type=LogAppendTime"), "{text}");
    let pair = pair.with(|job| job.selection.rules.target_scan = replicator::TargetScan::All);
    assert_eq!(pair.filled().counts.written, 18);
}

#[test]
fn unequal_partition_counts_and_a_target_of_smaller_messages() {
    let plain = Pair::new(2, 1);
    let small = format!("{}-small", plain.b);
    create(&small, 3, &[("max.message.bytes", "100000")]);
    produce(&plain.a, &placed(day(60, 2), 2));
    let pair = Pair { job: job(&plain.a, &small), b: small, ..plain };
    assert_warned(&pair, "as Java's producer chooses it");
    assert_warned(&pair, "accepts records up to 100000 bytes");
}

#[test]
fn a_source_that_lost_records_of_the_window() {
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(600, 1));
    trim(&pair.a, 0, 150);
    assert_warned(&pair, "begins at offset 150");
}

#[test]
fn brokers_that_allow_no_transaction_as_long_as_ours() {
    let properties = vec![("transaction.max.timeout.ms", "30000".to_owned())];
    let extras = Extras { properties, ..Extras::default() };
    let sandbox = Sandbox::start_own_with(1, &extras).expect("a broker");
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", sandbox.bootstrap()).create().expect("an admin client");
    let compacted = NewTopic::new("target", 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
    let topics = [&NewTopic::new("source", 1, TopicReplication::Fixed(1)), &compacted];
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    let made = futures_executor::block_on(admin.create_topics(topics, &options)).expect("an answer");
    assert!(made.iter().all(std::result::Result::is_ok), "{made:?}");
    let output = replicator(&["--window", "2021-04-14T11:00Z/2021-04-14T13:00Z"])
        .args(["-b", sandbox.bootstrap(), "--source", "source", "--target", "target"])
        .output()
        .expect("runs");
    let text = stderr(&output);
    assert_eq!(code(&output), 3, "{text}");
    assert!(text.contains("transaction.max.timeout.ms=30000 is below the 60000"), "{text}");
    assert!(text.contains("--allow-compacted-target"), "beside what else is found: {text}");
}

/// Too few replicas in sync is a passing state, so a Kubernetes Job must try again: exit 1 and not 3. Beside a problem
/// that stays, it is one finding among others.
#[test]
fn a_broker_that_is_down_for_a_while() {
    let mut sandbox = Sandbox::start_own(3).expect("brokers");
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", sandbox.bootstrap()).create().expect("an admin client");
    let topic = |name: &'static str| {
        let topic = NewTopic::new(name, 1, TopicReplication::Fixed(3)).set("retention.ms", "-1");
        topic.set("min.insync.replicas", "3")
    };
    let topics = [&topic("source"), &topic("target"), &topic("compacted").set("cleanup.policy", "compact")];
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    let made = futures_executor::block_on(admin.create_topics(topics, &options)).expect("an answer");
    assert!(made.iter().all(std::result::Result::is_ok), "{made:?}");
    let bootstrap = sandbox.bootstrap().to_owned();
    let reason =
        |output: &_| receipt(output).get("error").map_or(Value::Null, |error| error["reason"].clone());
    let run = |target: &str| {
        let output = replicator(&["--window", "2021-04-14T11:00Z/2021-04-14T13:00Z", "--output", "json"])
            .args(["-b", &bootstrap, "--source", "source", "--target", target])
            .output()
            .expect("runs");
        (code(&output), reason(&output), stderr(&output))
    };
    sandbox.stop(2).expect("stopped");
    until(|| run("target").0 != 0);
    let (code, reason, text) = run("target");
    assert_eq!((code, reason), (1, "not-enough-replicas".into()), "{text}");
    assert!(text.contains("has 2 replicas in sync and min.insync.replicas=3"), "{text}");
    let (code, reason, text) = run("compacted");
    assert_eq!((code, reason), (3, "topic-configuration".into()), "{text}");
    assert!(text.contains("2 replicas in sync") && text.contains("--allow-compacted-target"), "{text}");
    sandbox.restart(2).expect("restarted");
    until(|| run("target").0 == 0);
}
