//! Security of each of two clusters: the ways to give it, credentials that do not fit, and secrets.

use std::io::Read;

use rstest::rstest;

use super::broker::{EXPIRED, PLAIN_PASSWORD, SASL};
use super::crossing::*;
use super::*;

const WINDOW: [&str; 6] = ["--window", "11:00-13:00", "--date", "2021-04-14", "--output", "json"];

/// All that a fill needs.
fn all() -> impl Iterator<Item = (On, i8)> {
    super::two_acls::RIGHTS.iter().map(|(on, operation, _)| (*on, *operation))
}

#[rstest]
#[case::by_one_file(Way::OneFile)]
#[case::by_environment(Way::Environment)]
#[case::by_two_files(Way::TwoFiles)]
#[case::by_one_file_and_environment(Way::SecretsInEnvironment)]
fn a_job_of_two_secured_clusters(#[case] way: Way) {
    let crossing = if way == Way::OneFile { Crossing::new() } else { Crossing::same_name() };
    let person = crossing.person();
    crossing.grant(&person, all());
    let sides = (&crossing.to_source(&person), &crossing.to_target(&person));
    let run = |arguments: &[&str], wanted: i32| {
        let output = crossing.command(sides, way, arguments).output().expect("runs");
        assert_eq!(code(&output), wanted, "{arguments:?}: {}", stderr(&output));
        receipt(&output)
    };
    let with = |command: &'static str| [&[command], &WINDOW[..]].concat();
    let missing = window_of(&from().consume(&crossing.source)).len();
    assert!(missing > 0);
    assert_eq!(run(&with("plan"), 0)["to_write"], missing);
    assert_eq!(run(&["gaps", "--output", "json"], 0)["missing"], missing);
    assert_eq!(run(&with("verify"), 4)["missing"], missing);
    assert_eq!(run(&WINDOW, 0)["written"], missing);
    assert_eq!(run(&with("verify"), 0)["missing"], 0);
    assert_eq!(run(&WINDOW, 0)["written"], 0);
    assert_eq!(run(&["gaps", "--output", "json"], 0)["missing"], 0);
    let sorted = |side: &Side, topic: &str| {
        let mut records = side.consume(topic);
        records.sort();
        records
    };
    assert_same(&sorted(&to(), &crossing.target), &sorted(&from(), &crossing.source));
}

/// One user of both clusters, whose authorities differ: what has no prefix is for both.
#[test]
fn one_password_for_both_clusters() {
    let crossing = Crossing::same_name();
    let paul = crossing.paul();
    crossing.grant(&paul, all());
    let (source, target) = (crossing.to_source(&paul), crossing.to_target(&paul));
    let own = |client: &Client, address: &str| {
        format!("bootstrap.servers={address}\n{}={}\n", client[2].0, client[2].1)
    };
    let shared = "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.username=paul\n";
    let mut command = crossing.command((&Client::new(), &Client::new()), Way::TwoFiles, &WINDOW);
    command.arg("-F").arg(crossing.file("shared.properties", shared));
    let (at_source, at_target) = (Broker::get().door(SASL), Broker::second().door(SASL));
    command.arg("--source-command-config").arg(crossing.file("a.properties", &own(&source, at_source)));
    command.arg("--target-command-config").arg(crossing.file("b.properties", &own(&target, at_target)));
    let output = command.env("REPLICATOR_SASL_PASSWORD", PLAIN_PASSWORD).output().expect("runs");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(receipt(&output)["written"], window_of(&records()).len());
}

/// Runs the job, which is refused. Only the `guilty` clusters are named.
fn refused(crossing: &Crossing, sides: (&Client, &Client), guilty: &[&str], says: &[&str]) {
    let ends = crossing.target_ends();
    let output = crossing.command(sides, Way::OneFile, &WINDOW).output().expect("runs");
    let text = stderr(&output);
    assert_eq!(code(&output), 3, "{text}");
    assert_eq!(receipt(&output)["error"]["reason"], "no-permission", "{text}");
    for (word, client) in [("source", sides.0), ("target", sides.1)] {
        let is_told = text.contains(&place(word, client));
        assert_eq!(is_told, guilty.contains(&word), "the {word} cluster: {text}");
    }
    assert!(says.iter().all(|says| text.contains(says)), "{says:?}: {text}");
    assert!(!text.contains("hunter2"), "a secret: {text}");
    assert_eq!(crossing.target_ends(), ends, "nothing is written");
}

fn moved(client: &Client, to: &Client) -> Client {
    with(client, "bootstrap.servers", &to[0].1)
}

#[test]
fn credentials_of_the_other_cluster() {
    let crossing = Crossing::new();
    let person = crossing.person();
    crossing.grant(&person, all());
    let (source, target) = (crossing.to_source(&person), crossing.to_target(&person));
    let (at_source, at_target) = (moved(&target, &source), moved(&source, &target));
    refused(&crossing, (&at_source, &at_target), &["source", "target"], &["certificate verify failed"]);
    refused(&crossing, (&at_source, &target), &["source"], &["certificate verify failed"]);
    refused(&crossing, (&source, &at_target), &["target"], &["certificate verify failed"]);
}

/// Both clusters ask for a password, but for another one.
#[test]
fn passwords_of_the_other_cluster() {
    let crossing = Crossing::new();
    let person = crossing.person();
    crossing.grant(&person, all());
    let source = crossing.to_source(&person);
    let authority = crossing.to_target(&person)[2].1.clone();
    let target = client(&[
        ("bootstrap.servers", Broker::second().door(SASL)),
        ("security.protocol", "SASL_SSL"),
        ("ssl.ca.location", &authority),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "paul"),
        ("sasl.password", PLAIN_PASSWORD),
    ]);
    let at_source = with(&source, "sasl.password", PLAIN_PASSWORD);
    let at_target = with(&target, "sasl.password", PASSWORD);
    let password = ["invalid credentials", "REPLICATOR_SOURCE_SASL_PASSWORD"];
    refused(&crossing, (&at_source, &crossing.to_target(&person)), &["source"], &password);
    let password = ["Invalid username or password", "REPLICATOR_TARGET_SASL_PASSWORD"];
    refused(&crossing, (&source, &at_target), &["target"], &password);
    let both = ["REPLICATOR_SOURCE_SASL_PASSWORD", "REPLICATOR_TARGET_SASL_PASSWORD"];
    refused(&crossing, (&at_source, &at_target), &["source", "target"], &both);
}

#[test]
fn a_certificate_that_has_expired() {
    let crossing = Crossing::new();
    let person = crossing.person();
    crossing.grant(&person, all());
    let (source, target) = (crossing.to_source(&person), crossing.to_target(&person));
    let says = ["certificate verify failed", "has not expired"];
    let expired = with(&source, "bootstrap.servers", Broker::get().door(EXPIRED));
    refused(&crossing, (&expired, &target), &["source"], &says);
    let expired = with(&target, "bootstrap.servers", Broker::second().door(EXPIRED));
    refused(&crossing, (&source, &expired), &["target"], &says);
    let late = crossing.person_signed(|name| Broker::second().authority.sign_expired(name, &[]));
    let expired = crossing.to_target(&late);
    refused(&crossing, (&source, &expired), &["target"], &["ssl.certificate.location", "has not expired"]);
}

/// In no receipt, plan, log however chatty, or argument, from files and from the environment.
#[rstest]
#[case::in_one_file(Way::OneFile)]
#[case::in_the_environment(Way::Environment)]
#[case::in_two_files(Way::TwoFiles)]
fn no_secret_of_either_cluster_is_told(#[case] way: Way) {
    let crossing = Crossing::same_name();
    let person = crossing.person();
    crossing.grant(&person, all());
    let (source, mut target) = (crossing.to_source(&person), crossing.to_target(&person));
    target.push(("ssl.key.password".to_owned(), "key-hunter2".to_owned()));
    let chatty = ["-vv", "-X", "debug=all"];
    // The lines of the key, without its first and last one, which all keys have.
    let key: Vec<&str> = person.key.lines().filter(|line| !line.starts_with("--")).collect();
    assert!(!key.is_empty() && key.iter().all(|line| line.len() > 20), "{key:?}");
    let plan = [&["plan"], &WINDOW[..], &chatty].concat();
    let fill = [&WINDOW[..], &chatty, &["--max-rate", "100/s"]].concat();
    for arguments in [plan, [&["gaps", "--output", "json"], &chatty[..]].concat(), fill] {
        let is_fill = arguments.contains(&"--max-rate");
        let mut command = crossing.command((&source, &target), way, &arguments);
        let before = crossing.target_ends();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        let mut log = child.stderr.take().expect("a pipe");
        let reading = std::thread::spawn(move || {
            let mut said = Vec::new();
            log.read_to_end(&mut said).expect("read");
            said
        });
        if is_fill {
            // It runs while its arguments are looked at.
            until(|| crossing.target_ends() != before);
        }
        let shown = std::fs::read(format!("/proc/{}/cmdline", child.id())).unwrap_or_default();
        let output = child.wait_with_output().expect("ends");
        let log = reading.join().expect("read");
        assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&log));
        assert!(!is_fill || shown.windows(8).any(|window| window == b"--source"), "its own arguments");
        let redacted = b"[redacted]";
        assert!(
            log.windows(redacted.len()).any(|window| window == redacted),
            "librdkafka tells all properties"
        );
        let said = [&output.stdout[..], &log, &shown].concat();
        for hidden in key.iter().map(|line| line.as_bytes()).chain([&b"hunter2"[..]]) {
            let at = said.windows(hidden.len()).position(|window| window == hidden);
            let around = |at: usize| String::from_utf8_lossy(&said[at.saturating_sub(200)..at]).into_owned();
            assert_eq!(at.map(around), None, "{arguments:?}");
        }
    }
}
