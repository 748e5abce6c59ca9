//! A right that somebody takes away while a run is at work. The run ends, and says which right it was.

use rstest::rstest;

use super::acls::run;
use super::broker::SASL;
use super::crossing::*;
use super::follow_acls::{Following, assert_all_there};
use super::two_acls::{FOLLOW, arguments, needed, place_of};
use super::ways::{scram, scram_user, trusting};
use super::*;

/// Ten records a transaction, so that most of the window is left when the right is lost.
const SLOW: [&str; 4] = ["--max-rate", "20/s", "--transaction-records", "10"];

/// The run waits after its first commit. Meanwhile it loses the right, so it is between two transactions.
const PAUSE: &str = "after-commit=1*sleep(2000)";

fn started(
    crossing: &Crossing,
    person: &Person,
    arguments: &[&str],
    failpoints: &str,
) -> std::process::Child {
    let sides = (&crossing.to_source(person), &crossing.to_target(person));
    let mut command = crossing.command(sides, Way::OneFile, arguments);
    if !failpoints.is_empty() {
        command.env("FAILPOINTS", failpoints);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
}

/// Takes the right away. Asserts that the run ends with a sentence that names it; returns the answer.
fn loses(
    crossing: &Crossing,
    person: &Person,
    child: std::process::Child,
    lost: (On, i8),
    lacking: &str,
) -> std::collections::HashMap<String, serde_json::Value> {
    crossing.deny(person, lost);
    let output = child.wait_with_output().expect("ends");
    let text = stderr(&output);
    assert_eq!(code(&output), 1, "{text}");
    let answer = receipt(&output);
    assert_eq!(answer["error"]["reason"], "no-permission", "{text}");
    let place = place_of(crossing, person, lost.0);
    let mut wanted = format!("grant this principal {lacking}");
    if lost.0 != On::Group {
        wanted = format!("{wanted} {}", crossing.named(lost.0));
    }
    let is_told = text.lines().any(|line| line.contains(&place) && line.contains(&wanted));
    assert!(is_told, "{place}{wanted}: {text}");
    assert!(!text.contains("starting up again"), "a start-up gives no right back: {text}");
    answer
}

#[rstest]
#[case::of_the_source((On::Source, ANY), "Read on topic", PAUSE)]
#[case::of_the_target((On::Target, WRITE), "Write on topic", PAUSE)]
#[case::of_the_target_at_any_instant((On::Target, WRITE), "Write on topic", "")]
#[case::of_the_ledger((On::Ledger, READ), "Read on topic", PAUSE)]
#[case::of_the_group((On::Group, READ), "Read on the group", PAUSE)]
#[case::of_the_transactional_id((On::TransactionalId, WRITE), "Write on the transactional id", PAUSE)]
fn of_a_fill(#[case] lost: (On, i8), #[case] lacking: &str, #[case] failpoints: &str) {
    let crossing = Crossing::new();
    let person = crossing.person();
    crossing.grant(&person, needed("fill"));
    let child = started(&crossing, &person, &[&arguments("fill")[..], &SLOW].concat(), failpoints);
    let (job, ledger) = (crossing.job(), crossing.ledger());
    until(|| to().topics().contains(&ledger));
    until(|| to().committed(&job, &ledger).iter().any(|(at, _)| *at >= 0));
    let answer = loses(&crossing, &person, child, lost, lacking);
    let written = answer["written"].as_u64().expect("a count");
    assert!(written > 0 && written < window_of(&records()).len() as u64, "{answer:?}");
    // Another principal goes on.
    let next = crossing.person();
    crossing.grant(&next, needed("fill"));
    let output = crossing.run_for(&next, &arguments("fill"));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_all_there(&crossing, &[]);
}

/// A follow waits for a cluster that is away, but not for a right.
#[rstest]
#[case::of_the_source((On::Source, ANY), "Read on topic")]
#[case::of_the_target((On::Target, WRITE), "Write on topic")]
#[case::of_the_ledger((On::Ledger, READ), "Read on topic")]
#[case::of_the_group((On::Group, READ), "Read on the group")]
#[case::of_the_transactional_ids((On::LongerIds, WRITE), "Write on the transactional id")]
fn of_a_follow(#[case] lost: (On, i8), #[case] lacking: &str) {
    let crossing = Crossing::new();
    let person = crossing.person();
    crossing.grant(&person, needed(FOLLOW));
    Following::start(&crossing, &person, &arguments(FOLLOW)).until_joined(2).stopped();
    let slow = [&arguments(FOLLOW)[..], &SLOW, &["--commit-interval", "10s"]].concat();
    let child = started(&crossing, &person, &slow, PAUSE);
    let more: Vec<Record> = records()
        .iter()
        .take(100)
        .map(|record| Record {
            key: record.key.as_ref().map(|key| [b"more ", &key[..]].concat()),
            ..record.clone()
        })
        .collect();
    let before = to().committed(&crossing.job(), &crossing.ledger());
    from().produce(&crossing.source, &more);
    until(|| to().committed(&crossing.job(), &crossing.ledger()) != before);
    loses(&crossing, &person, child, lost, lacking);
    let next = crossing.person();
    crossing.grant(&next, needed(FOLLOW));
    let following = Following::start(&crossing, &next, &arguments(FOLLOW));
    until(|| to().consume(&crossing.target).len() == records().len() + more.len());
    following.stopped();
    assert_all_there(&crossing, &more);
}

/// In one cluster, the source is the ledger.
#[rstest]
#[case::of_the_target((TOPIC, "b", WRITE), "Write on topic")]
#[case::of_the_source((TOPIC, "a", READ), "Read on topic")]
#[case::of_the_group((GROUP, "name", READ), "Read on the group")]
#[case::of_the_transactional_id((TRANSACTIONAL_ID, "name", WRITE), "Write on the transactional id")]
fn in_one_cluster(#[case] lost: Grant, #[case] lacking: &str) {
    let story = Story::new(SASL).filled_but_for_the_window();
    let user = scram_user("larry", "tiger");
    let principal = format!("User:{user}");
    story.grant(&principal, &FILL);
    let arguments = [&story.selection()[..], &SLOW, &["--output", "json", "--patience", "20"]].concat();
    let mut command = story.command(&trusting(&story, &scram(&user, "tiger")), &arguments);
    command.env("FAILPOINTS", PAUSE).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("starts");
    let job = format!("replicator/{}/{}", story.a, story.b);
    until(|| from().committed(&job, &story.a).iter().any(|(at, _)| *at >= 0));
    story.deny(&principal, &[lost]);
    let output = child.wait_with_output().expect("ends");
    let text = stderr(&output);
    assert_eq!(code(&output), 1, "{text}");
    assert_eq!(receipt(&output)["error"]["reason"], "no-permission", "{text}");
    assert!(text.contains(&format!("grant this principal {lacking}")), "{text}");
    assert!(!text.contains("starting up again"), "a start-up gives no right back: {text}");
    let (code, text) = run(&story, &FILL, &story.selection());
    assert_eq!(code, 0, "{text}");
    assert_eq!(Story::topics().consume(&story.b, 2).expect("reads").len(), day(600, 2).len());
}
