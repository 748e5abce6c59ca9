//! Least privilege: with these entries all passes; with one less it is refused, by the name of what is missing.

use rstest::rstest;

use super::broker::SASL;
use super::ways::{scram, scram_user, trusting};
use super::*;

const READ_ONLY: [Grant; 4] =
    [(TOPIC, "a", READ), (TOPIC, "b", READ), (TOPIC, "a", DESCRIBE_CONFIGS), (TOPIC, "b", DESCRIBE_CONFIGS)];

const LOAD: [Grant; 6] = [
    (TOPIC, "a", CREATE),
    (TOPIC, "a", READ),
    (TOPIC, "a", WRITE),
    (TOPIC, "a", DESCRIBE_CONFIGS),
    (GROUP, "load", READ),
    (TRANSACTIONAL_ID, "load", WRITE),
];

/// What a follow needs beyond a fill.
const FOLLOW: [Grant; 2] = [(TRANSACTIONAL_ID, "name/", WRITE), (GROUP, "reversed", DESCRIBE)];

/// Runs a command by a new user that has these grants; its code and what it says.
pub(super) fn run(story: &Story, grants: &[Grant], arguments: &[&str]) -> (i32, String) {
    let user = scram_user("larry", "tiger");
    story.grant(&format!("User:{user}"), grants);
    let output = story.run(&trusting(story, &scram(&user, "tiger")), arguments);
    (code(&output), stderr(&output))
}

fn check(story: &Story, needed: &[Grant], arguments: &[&str], names: impl Fn(&Grant) -> String) {
    for missing in needed {
        let rest: Vec<Grant> = needed.iter().filter(|grant| *grant != missing).copied().collect();
        let (code, text) = run(story, &rest, arguments);
        let name = names(missing);
        if missing.2 == DESCRIBE_CONFIGS {
            assert_eq!(code, 0, "{missing:?}: {text}");
        } else {
            assert_eq!(code, 3, "{missing:?}: {text}");
        }
        assert!(text.contains(&name), "{missing:?} is not told as `{name}`: {text}");
    }
    let (code, text) = run(story, needed, arguments);
    assert_eq!(code, 0, "{text}");
    assert!(needed.iter().all(|grant| !text.contains(&names(grant))), "nothing is missing: {text}");
}

fn named(story: &Story, (resource, name, operation): &Grant) -> String {
    let operation = word(*operation);
    match (*resource, *name) {
        (TOPIC, _) if operation == "DescribeConfigs" => operation.to_owned(),
        (TOPIC, name) => {
            let topic = if name == "a" { &story.a } else { &story.b };
            format!("grant this principal {operation} on topic {topic}")
                .replace("this principal Create", "it Create")
        }
        (GROUP, "load") => format!("Read on the group replicator/load/{}/", story.a),
        (GROUP, "reversed") => "could not be seen".to_owned(),
        (GROUP, _) => format!("Read on the group replicator/{}/{}", story.a, story.b),
        (_, "load") => format!("Write on the transactional id replicator/load/{}/", story.a),
        (_, "name/") => format!("Write on the transactional id replicator/{}/{}/", story.a, story.b),
        _ => format!("Write on the transactional id replicator/{}/{}", story.a, story.b),
    }
}

#[rstest]
#[case::plan("plan")]
#[case::verify("verify")]
fn of_a_look(#[case] command: &str) {
    let story = Story::new(SASL).filled_but_for_the_window();
    if command == "verify" {
        let needed = &READ_ONLY[..2];
        let arguments = [&["verify"], &story.selection()[..]].concat();
        let (code, text) = run(&story, &FILL, &story.selection());
        assert_eq!(code, 0, "{text}");
        check(&story, needed, &arguments, |grant| named(&story, grant));
    } else {
        let arguments = [&["plan"], &story.selection()[..]].concat();
        check(&story, &READ_ONLY, &arguments, |grant| named(&story, grant));
    }
}

/// The sums of one topic need no right on the other.
#[test]
fn of_sums_in_a_file() {
    let story = Story::new(SASL).filled_but_for_the_window();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("sums.json").display().to_string();
    let summary = ["verify", "--summary", &file, "--source", &story.a, "--window", "11:00-13:00"];
    check(&story, &[(TOPIC, "a", READ)], &summary, |grant| named(&story, grant));
    let against = ["verify", "--against", &file, "--target", &story.b];
    let (code, text) = run(&story, &[(TOPIC, "b", READ)], &against);
    assert_eq!(code, 4, "the target lacks the window: {text}");
    let (code, text) = run(&story, &[], &against);
    assert!(code == 3 && text.contains(&named(&story, &(TOPIC, "b", READ))), "{text}");
}

#[test]
fn of_a_fill() {
    let story = Story::new(SASL).filled_but_for_the_window();
    // The compared configuration is not needed, only warned of: that run would write.
    let (needed, _) = FILL.split_at(5);
    for missing in needed {
        let rest: Vec<Grant> = FILL.iter().filter(|grant| *grant != missing).copied().collect();
        let (code, text) = run(&story, &rest, &story.selection());
        assert_eq!(code, 3, "{missing:?}: {text}");
        let name = named(&story, missing);
        assert!(text.contains(&name), "{missing:?} is not told as `{name}`: {text}");
        assert_eq!(
            Story::topics().consume(&story.b, 2).expect("reads").len(),
            outside_of(&day(600, 2)).len()
        );
    }
    let (code, text) = run(&story, &FILL, &story.selection());
    assert_eq!(code, 0, "{text}");
    assert!(!text.contains("grant"), "nothing is missing: {text}");
    let (code, text) = run(&story, needed, &story.selection());
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("DescribeConfigs"), "{text}");
}

#[test]
fn of_a_follow() {
    let story = Story::new(SASL).filled_but_for_the_window();
    let topics = ["--source", &story.a, "--target", &story.b];
    let arguments = [&["--window", "2021-04-14T11:00Z/", "--follow"], &topics[..]].concat();
    let needed = [&FILL[..5], &FOLLOW].concat();
    let before = Story::topics().consume(&story.b, 2).expect("reads").len();
    for missing in &needed {
        let rest: Vec<Grant> = needed.iter().filter(|grant| *grant != missing).copied().collect();
        let (code, text) = run(&story, &rest, &arguments);
        assert_eq!(code, 3, "{missing:?}: {text}");
        let name = named(&story, missing);
        assert!(text.contains(&name), "{missing:?} is not told as `{name}`: {text}");
        assert_eq!(Story::topics().consume(&story.b, 2).expect("reads").len(), before);
    }
    let user = scram_user("larry", "tiger");
    story.grant(&format!("User:{user}"), &needed);
    let mut command = story.command(&trusting(&story, &scram(&user, "tiger")), &arguments);
    let child = command.stderr(Stdio::piped()).spawn().expect("starts");
    let all = day(600, 2).len();
    until(|| Story::topics().consume(&story.b, 2).is_ok_and(|found| found.len() == all));
    signal(&child, "-TERM");
    let output = child.wait_with_output().expect("ends");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

#[test]
fn of_a_load() {
    for missing in LOAD {
        let story = Story::new(SASL);
        let file = story.file("events.jsonl", "{\"id\":\"e\",\"ts\":1618398000000}\n");
        let arguments = ["load", file.to_str().expect("a path"), "--topic", &story.a];
        let rest: Vec<Grant> = LOAD.into_iter().filter(|grant| *grant != missing).collect();
        let (code, text) = run(&story, &rest, &arguments);
        let name = named(&story, &missing);
        assert_eq!(code, if missing.2 == DESCRIBE_CONFIGS { 0 } else { 3 }, "{missing:?}: {text}");
        assert!(text.contains(&name), "{missing:?} is not told as `{name}`: {text}");
        let (code, text) = run(&story, &LOAD, &arguments);
        assert_eq!(code, 0, "{text}");
        assert_eq!(Story::topics().consume(&story.a, 1).expect("reads").len(), 1);
    }
}
