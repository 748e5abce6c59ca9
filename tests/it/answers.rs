//! With `--output json`, each command prints one object that says how it ended. It has no counts if nothing was read.

use std::process::{Output, Stdio};

use rstest::rstest;
use serde_json::{Map, Value, json};

use crate::kit::*;

/// The one object on stdout, after checking that the command ended with this status.
fn answer(output: &Output, status: &str, exit_code: i32) -> Map<String, Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    let about = format!("stdout: {text}\nstderr: {}", stderr(output));
    assert_eq!(code(output), exit_code, "{about}");
    let found: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("one object: {e}; {about}"));
    assert_eq!((&found["status"], &found["exit_code"]), (&json!(status), &json!(exit_code)), "{about}");
    assert_eq!(found.get("error").is_some(), exit_code != 0, "{about}");
    found.as_object().expect("an object").clone()
}

/// The error's stable reason, after checking that its message is on stderr too, and that the object has no counts.
fn reason_alone(output: &Output, status: &str, exit_code: i32) -> String {
    let found = answer(output, status, exit_code);
    for (key, value) in &found {
        assert!(key == "exit_code" || !(value.is_number() || value.is_boolean()), "{key} of {found:?}");
    }
    let message = found["error"]["message"].as_str().expect("a message");
    assert!(
        !message.is_empty() && stderr(output).contains(message),
        "{message} is on stderr: {}",
        stderr(output)
    );
    found["error"]["reason"].as_str().expect("a reason").to_owned()
}

fn run(arguments: &[&str]) -> Output {
    replicator(arguments).output().expect("runs")
}

const WINDOWED: [&[&str]; 4] = [&[], &["plan"], &["gaps"], &["verify"]];

/// Runs fill, plan, gaps and verify on a window.
fn windowed(source: &str, target: &str, more: &[&str]) -> Vec<Output> {
    let of = ["--window", "11:00-13:00", "--source", source, "--target", target];
    WINDOWED.iter().map(|command| run(&[*command, &of, more].concat())).collect()
}

#[rstest]
#[case("--window noon")]
#[case("--window 11:00-13:00 --scale-out --limit 5")]
#[case("--window 11:00-13:00 --source same --target same")]
#[case("--source x plan --window 11:00-13:00")]
#[case("plan")]
#[case("gaps --nonsense")]
#[case("gaps --source same --target same")]
#[case("verify --window 13:00-13:00")]
#[case("verify --window 11:00-13:00 --date yesterday")]
#[case("lag --max-lag much")]
#[case("lag --source same --target same")]
#[case("lag --window 11:00-13:00")]
#[case("load")]
#[case("load /no/such/file --topic t")]
#[case("generate --records many --out x")]
#[case("sink --topic t --topic t --store sqlite::memory:")]
#[case("sink --topic t --store paper:")]
#[case("dashboard --listen here")]
#[case("dashboard --store paper:")]
#[case("demo --window noon")]
#[case("drill --brokers 2")]
#[case("drill -X linger.ms=5")]
#[case("man women")]
#[case("filll")]
fn of_a_wrong_command_line(#[case] line: &str) {
    let arguments: Vec<&str> = line.split(' ').collect();
    for json in [&["--output", "json"][..], &["--output=json"], &["-o", "json"], &["-ojson"]] {
        for arguments in [[&arguments, json].concat(), [json, &arguments].concat()] {
            assert_eq!(reason_alone(&run(&arguments), "usage", 2), "usage", "{arguments:?}");
        }
    }
    let text = run(&arguments);
    assert_eq!((code(&text), text.stdout.len()), (2, 0), "nothing on stdout: {text:?}");
}

#[test]
fn what_is_asked_for_is_no_error() {
    for arguments in [&["--help"][..], &["gaps", "--help", "-o", "json"], &["--version", "--output", "json"]]
    {
        let output = run(arguments);
        assert_eq!((code(&output), output.stdout.starts_with(b"{")), (0, false), "{output:?}");
    }
    let script = run(&["completions", "bash", "-o", "json"]);
    assert!(code(&script) == 0 && script.stdout.starts_with(b"_replicator()"), "its own thing");
}

#[test]
fn of_a_refusal() {
    let pair = Pair::new(1, 1);
    let outputs = windowed(&pair.a, "no-such-topic", &["-o", "json"]);
    for output in &outputs {
        assert_eq!(reason_alone(output, "refused", 3), "missing-topic");
        assert_eq!(answer(output, "refused", 3)["target"], "no-such-topic");
        assert!(!answer(output, "refused", 3).contains_key("window"), "it was not resolved");
    }
    let sink = ["sink", "--topic", "no-such-topic", "--store", "sqlite::memory:"];
    assert_eq!(reason_alone(&run(&[&sink[..], &["-o", "json"]].concat()), "refused", 3), "missing-topic");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "{\"id\":1,\n").expect("written");
    let load = ["load", file.path().to_str().expect("a path"), "--topic", &pair.a];
    assert_eq!(reason_alone(&run(&[&load[..], &["-o", "json"]].concat()), "refused", 3), "invalid-records");

    let mut texts = windowed(&pair.a, "no-such-topic", &[]);
    texts.extend([run(&sink), run(&load)]);
    for text in texts {
        assert_eq!((code(&text), text.stdout.len()), (3, 0), "a sentence, and no receipt: {text:?}");
        assert!(stderr(&text).contains("no-such-topic") || stderr(&text).contains("line 1"), "{text:?}");
    }
}

#[test]
fn the_reasons_of_refusals() {
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(60, 1));
    let short = format!("{}-short", pair.b);
    create(&short, 1, &[("retention.ms", "3600000")]);
    let output = run(&["--window", "11:00-13:00", "--source", &pair.a, "--target", &short, "-o", "json"]);
    assert_eq!(reason_alone(&output, "refused", 3), "topic-configuration");
    let window = json!({ "start": "2021-04-14T11:00:00Z", "end": "2021-04-14T13:00:00Z" });
    assert_eq!(answer(&output, "refused", 3)["window"], window, "it was resolved");

    let later: Vec<Record> =
        day(60, 1).into_iter().map(|r| Record { time: r.time + 72 * HOUR, ..r }).collect();
    produce(&pair.a, &later);
    for output in windowed(&pair.a, &pair.b, &["-o", "json"]) {
        assert_eq!(reason_alone(&output, "refused", 3), "ambiguous-date");
    }
}

#[test]
fn of_a_failure_before_anything_was_read() {
    let unreachable = ["-b", "127.0.0.1:1", "-o", "json"];
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "{\"id\":1,\"ts\":\"2021-04-14T11:00:00Z\"}\n").expect("written");
    let load = ["load", file.path().to_str().expect("a path"), "--topic", "t"];
    let sink = ["sink", "--topic", "t", "--store", "sqlite::memory:", "--patience", "1"];
    let of = ["--window", "11:00-13:00"];
    let mut commands: Vec<Vec<&str>> = WINDOWED.iter().map(|c| [*c, &of].concat()).collect();
    commands.extend([load.to_vec(), sink.to_vec()]);
    std::thread::scope(|scope| {
        let ending =
            commands.iter().map(|command| scope.spawn(|| run(&[command, &unreachable[..]].concat())));
        for output in ending.collect::<Vec<_>>() {
            assert_eq!(reason_alone(&output.join().expect("runs"), "failed", 1), "unreachable");
        }
    });
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = listener.local_addr().expect("an address").to_string();
    for command in [
        &["generate", "--out", "/no/such/folder/x.json"][..],
        &["dashboard", "--store", "sqlite::memory:", "--listen", &taken],
    ] {
        assert_eq!(reason_alone(&run(&[command, &["-o", "json"]].concat()), "failed", 1), "failed");
    }
}

#[test]
fn of_what_was_read_the_counts_stand_beside() {
    let pair = Pair::new(1, 1);
    let records = day(600, 1);
    produce(&pair.a, &records);
    produce(&pair.b, &outside_of(&records));
    let of = ["--window", "11:00-13:00", "--source", &pair.a, "--target", &pair.b, "-o", "json"];
    let of = |command: &[&str]| run(&[command, &of].concat());
    let gaps = answer(&of(&["gaps"]), "done", 0);
    assert_eq!((&gaps["missing"], &gaps["in_source"]), (&json!(178), &json!(178)));
    assert_eq!(answer(&of(&["plan"]), "done", 0)["to_write"], 178);
    let verify = answer(&of(&["verify"]), "different", 4);
    assert_eq!((&verify["missing"], &verify["error"]["reason"]), (&json!(178), &json!("different")));
    let fill = answer(&of(&[]), "done", 0);
    for key in
        ["window", "source", "target", "read", "in_window", "already_in_target", "duplicates_in_source"]
    {
        assert!(fill.contains_key(key), "{key}: {fill:?}");
    }
    for key in ["duplicates_in_target", "conflicts", "transactions", "aborted_transactions", "elapsed_ms"] {
        assert!(fill[key].is_number(), "{key}: {fill:?}");
    }
    assert_eq!((&fill["written"], &fill["complete"]), (&json!(178), &json!(true)));
    assert_eq!(answer(&of(&["verify"]), "done", 0)["missing"], 0);

    let text = run(&["verify", "--window", "11:00-13:00", "--source", &pair.a, "--target", &pair.b]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("the same records"), "{text:?}");
}

#[test]
fn of_a_failure_on_the_way_the_counts_stand_beside() {
    let pair = Pair::new(1, 1);
    produce(&pair.a, &[record(0, WINDOW.0, "user", "x"), record(0, WINDOW.0 + 1, "user", "y")]);
    let output = pair.command(1000).output().expect("runs");
    let found = answer(&output, "failed", 1);
    assert_eq!((&found["error"]["reason"], &found["conflicts"]), (&json!("conflicts"), &json!(1)));
    assert_eq!((&found["read"], &found["complete"]), (&json!(2), &json!(false)));
    let null = Record { key: None, ..record(0, WINDOW.0, "", "x") };
    let other = Pair::new(1, 1);
    produce(&other.a, &[null]);
    let found = answer(&other.command(1000).output().expect("runs"), "failed", 1);
    assert_eq!((&found["error"]["reason"], &found["invalid"]), (&json!("invalid-records"), &json!(1)));
}

#[test]
fn of_a_transaction_that_stays_open() {
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(60, 1));
    let open = Foreign::begin().send(&pair.b, &[record(0, WINDOW.0, "open", "x")]);
    for output in windowed(&pair.a, &pair.b, &["--patience", "1", "-o", "json"]) {
        assert_eq!(reason_alone(&output, "failed", 1), "hanging-transaction");
    }
    // The commands wait for the transaction, so they can be interrupted before they read.
    let of = ["--window", "11:00-13:00", "--source", &pair.a, "--target", &pair.b, "-o", "json"];
    for command in [&["plan"][..], &["gaps"], &["verify"]] {
        let output = interrupted(&[command, &of].concat(), "waiting for an open transaction");
        assert_eq!(reason_alone(&output, "interrupted", 130), "interrupted");
    }
    open.abort();
}

/// Runs the command, and sends it SIGTERM once it has said `when` on stderr.
fn interrupted(arguments: &[&str], when: &str) -> Output {
    use std::io::{BufRead, BufReader};
    let mut child =
        replicator(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut said = BufReader::new(child.stderr.take().expect("piped"));
    let mut heard = String::new();
    while !heard.contains(when) {
        assert!(said.read_line(&mut heard).expect("reads") > 0, "it did not say {when}: {heard}");
    }
    signal(&child, "-TERM");
    let mut output = child.wait_with_output().expect("ends");
    std::io::Read::read_to_string(&mut said, &mut heard).expect("reads");
    output.stderr = heard.into_bytes();
    output
}

#[test]
fn of_interrupted_runs() {
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(6000, 1));
    let mut slow = pair.command(10);
    let child = slow.args(["--max-rate", "50/s"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = child.spawn().expect("starts");
    until(|| watermarks(&pair.b)[0].1 > 30);
    signal(&child, "-TERM");
    let found = answer(&child.wait_with_output().expect("ends"), "interrupted", 130);
    assert_eq!(found["error"]["reason"], "interrupted");
    assert_eq!(found["written"], consume(&pair.b).len(), "what it committed");

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("events.json");
    let mut generate = replicator(&["generate", "--records", "3000000", "-o", "json", "--out"]);
    let child = generate.arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    // The command writes a temporary file, and renames it at the end.
    until(|| std::fs::read_dir(folder.path()).expect("there").count() > 0);
    signal(&child, "-TERM");
    let output = child.wait_with_output().expect("ends");
    assert_eq!(reason_alone(&output, "interrupted", 130), "interrupted");
}

#[test]
fn of_what_goes_on_until_it_is_told_to_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = format!("sqlite:{}", folder.path().join("store.db").display());
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(60, 1));
    let sink = ["sink", "--topic", &pair.a, "--store", &store, "-o", "json"];
    let found = answer(&run(&sink), "done", 0);
    assert_eq!((&found["written"], &found["complete"]), (&json!(60), &json!(true)));
    let page = ["dashboard", "--store", &store, "--listen", "127.0.0.1:0", "-o", "json"];
    answer(&interrupted(&page, "the page is at"), "done", 0);
}

/// The environment may name production's cluster, so the demo uses only a cluster that a flag names, or its own.
#[test]
fn of_the_demo() {
    let demo = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = replicator(&[&["demo", "-o", "json"], arguments].concat());
        let output = command.envs(variables.iter().copied()).output().expect("runs");
        answer(&output, "done", 0);
        stderr(&output)
    };
    let elsewhere = ("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1");
    let story = demo(&["-q", "-b", broker()], &[elsewhere]);
    assert!(story.contains("the second run wrote 0"), "the story is on stderr: {story}");
    // What the environment says is for another cluster than the demo's own.
    let secure = ("REPLICATOR_SECURITY_PROTOCOL", "SASL_SSL");
    let story = demo(&[], &[elsewhere, secure]);
    assert!(story.contains("the environment's KAFKA_BOOTSTRAP_SERVERS is ignored"), "{story}");
    let told = story.lines().find(|line| line.contains("on Kafka at")).expect("which cluster it is on");
    assert!(!told.contains(broker()) && !told.contains("127.0.0.1:1 "), "one of its own: {told}");
}

#[test]
fn of_a_load() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("events.json").display().to_string();
    let made = answer(&run(&["generate", "--records", "30000", "--out", &file, "-o", "json"]), "done", 0);
    assert_eq!((&made["records"], &made["file"]), (&json!(30_000), &json!(file)));
    let topic = Pair::new(1, 1).a;
    let load = ["load", &file, "--topic", &topic, "-o", "json"];
    let slow = replicator(&load)
        .env("FAILPOINTS", "load-transaction-records=return(50)")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    until(|| watermarks(&topic)[0].1 > 500);
    signal(&slow, "-TERM");
    let part = answer(&slow.wait_with_output().expect("ends"), "interrupted", 130);
    assert_eq!(part["loaded"], consume(&topic).len(), "what it committed");
    assert_eq!((&part["lines"], &part["complete"]), (&json!(30_000), &json!(false)));
    let rest = answer(&run(&load), "done", 0);
    assert_eq!((&rest["already_loaded"], &rest["complete"]), (&part["loaded"], &json!(true)));
}
