//! What a user types: the main job's name, windows, lengths of time, and exit codes.

use std::process::Output;

use rstest::rstest;
use serde_json::json;

use crate::kit::*;

fn run(arguments: &[&str]) -> Output {
    replicator(arguments).output().expect("runs")
}

/// A source with records, and the arguments that name the topics.
fn loaded() -> (Pair, Vec<Record>) {
    let pair = Pair::new(2, 2);
    let records = day(600, 2);
    produce(&pair.a, &records);
    produce(&pair.b, &outside_of(&records));
    (pair, records)
}

#[test]
fn the_main_job_has_a_name() {
    let (pair, records) = loaded();
    let folder = tempfile::tempdir().expect("a folder");
    let store = format!("sqlite:{}", folder.path().join("store.db").display());
    let topics = ["--source", &pair.a, "--target", &pair.b, "--output", "json"];
    let all =
        [&["fill", "--window", "11:00-13:00", "--max-rate", "100000/s", "--store", &store][..], &topics];
    let filled = receipt(&run(&all.concat()));
    assert_eq!(filled["written"], json!(window_of(&records).len()));
    let again = receipt(&run(&[&["--window", "11:00-13:00"][..], &topics].concat()));
    assert_eq!(
        (&again["written"], &again["complete"]),
        (&json!(0), &json!(true)),
        "it goes on where fill ended"
    );
    assert_same(&sorted(consume(&pair.b)), &sorted(records));
    let help = String::from_utf8(run(&["--help"]).stdout).expect("text");
    assert!(help.contains("\n  fill "), "{help}");
    for flag in ["--follow", "--store", "--scale-out", "--window"] {
        let help = String::from_utf8(run(&["fill", "--help"]).stdout).expect("text");
        assert!(help.contains(flag), "{flag}: {help}");
    }
}

/// Options of the main job go behind the name of another command. The message shows where.
#[rstest]
#[case(&["--window", "11:00-13:00", "plan"], "put --window after `plan`: replicator plan --window 11:00-13:00")]
#[case(&["--window=11-13", "--date", "2021-04-14", "verify", "--strict-order"], "replicator verify --window 11-13 --date 2021-04-14 …")]
#[case(&["--source", "my topic", "--window", "2h", "fill", "--follow"], "replicator fill --source 'my topic' --window 2h …")]
#[case(&["--skip-invalid", "--source", "a", "gaps"], "replicator gaps --source a --skip-invalid")]
#[case(&["--source", "a", "-b", "x:1", "lag", "-q"], "replicator lag --source a --bootstrap-server x:1 …")]
#[case(&["--time-field", "/at", "load", "events.json"], "replicator load --time-field /at …")]
#[case(&["--patience", "5m", "sink", "--topic", "a"], "replicator sink --patience 5m …")]
#[case(&["--window", "11-13", "gaps", "--date", "2021-04-14"], "replicator gaps --window 11-13 …")]
#[case(&["--follow", "plan"], "`plan` takes no --follow")]
#[case(&["--window", "11-13", "load", "events.json"], "`load` takes no --window")]
#[case(&["--window", "11-13", "dashboard"], "`dashboard` takes no --window")]
#[case(&["--store", "sqlite:x.db", "--window", "2h", "generate"], "`generate` takes no --window and no --store")]
fn an_option_before_the_name_of_a_command(#[case] typed: &[&str], #[case] says: &str) {
    let output = run(typed);
    assert!(code(&output) == 2 && stderr(&output).contains(says), "{}", stderr(&output));
    let output = run(&[&["-o", "json"], typed].concat());
    let answer = receipt(&output);
    assert!(answer["error"]["message"].as_str().is_some_and(|told| told.contains(says)), "{answer:?}");
}

/// What is wrong beside that is still told by clap.
#[test]
fn what_is_required_and_in_its_place() {
    for typed in [&["plan"][..], &["-b", "x:1", "verify"], &["load", "--topic", "a"], &["--source", "a"]] {
        let output = run(typed);
        let told = stderr(&output);
        assert!(code(&output) == 2 && told.contains("required arguments were not provided"), "{told}");
    }
    // No URL with a password is shown again.
    let secret = run(&["--store", "postgres://me:hunter2@host/db", "sink"]);
    assert!(code(&secret) == 2 && !stderr(&secret).contains("hunter2"), "{}", stderr(&secret));
}

fn sorted(mut records: Vec<Record>) -> Vec<Record> {
    records.sort();
    records
}

#[rstest]
#[case(&["--window", "11-13"], "2021-04-14T11:00:00Z", "2021-04-14T13:00:00Z")]
#[case(&["--window", "13-15", "--tz", "Europe/Berlin"], "2021-04-14T11:00:00Z", "2021-04-14T13:00:00Z")]
#[case(&["--window", "2021-04-14"], "2021-04-14T00:00:00Z", "2021-04-15T00:00:00Z")]
#[case(&["--window", "2021-04-14", "--tz", "Asia/Kolkata"], "2021-04-13T18:30:00Z", "2021-04-14T18:30:00Z")]
#[case(&["--window", "2021-04-14T13:00/2021-04-14T15:00", "--tz", "Europe/Berlin"], "2021-04-14T11:00:00Z", "2021-04-14T13:00:00Z")]
#[case(&["--window", "2021-04-14/2021-04-15"], "2021-04-14T00:00:00Z", "2021-04-15T00:00:00Z")]
#[case(&["--window", "2021-04-13..2021-04-15", "--tz", "Asia/Kolkata"], "2021-04-12T18:30:00Z", "2021-04-14T18:30:00Z")]
fn windows_of_every_day(#[case] window: &[&str], #[case] start: &str, #[case] end: &str) {
    let (pair, _) = loaded();
    let topics = ["plan", "--source", &pair.a, "--target", &pair.b, "--output", "json"];
    let output = run(&[&topics[..], window].concat());
    let plan = receipt(&output);
    assert_eq!((code(&output), &plan["window"]), (0, &json!({ "start": start, "end": end })));
    let told = stderr(&output);
    assert!(told.contains(&format!("window [{start}, {end})")), "{told}");
    assert_eq!(
        ["2021-04-14/2021-04-15", "2021-04-13..2021-04-15"].contains(&window[1]),
        told.contains("ends where 2021-04-15 begins"),
        "{told}"
    );
    assert_eq!(
        window.contains(&"Europe/Berlin"),
        told.contains("in Europe/Berlin [2021-04-14T13:00:00+02:00, "),
        "{told}"
    );
}

/// The day of the topic's records is the one in the zone of the window.
#[test]
fn the_day_is_inferred_in_the_zone() {
    let pair = Pair::new(1, 1);
    // 22:30 to 23:30 in UTC are of the next day in Berlin.
    let records = [record(0, DAY - 90 * MINUTE, "a", "1"), record(0, DAY + HOUR, "b", "2")];
    produce(&pair.a, &records);
    let topics = ["--source", &pair.a, "--target", &pair.b, "--output", "json"];
    let berlin = ["--window", "00:00-04:00", "--tz", "Europe/Berlin"];
    let filled = receipt(&run(&[&berlin[..], &topics].concat()));
    assert_eq!(filled["window"], json!({ "start": "2021-04-13T22:00:00Z", "end": "2021-04-14T02:00:00Z" }));
    assert_eq!(filled["written"], 2);
    let utc = run(&[&["--window", "00:00-04:00"][..], &topics].concat());
    assert_eq!(receipt(&utc)["error"]["reason"], "ambiguous-date");
}

#[rstest]
#[case(&["--window", "02:30-04:00", "--date", "2021-10-31"], &["2021-10-31T02:30:00+02:00", "2021-10-31T02:30:00+01:00"])]
#[case(&["--window", "02:30-04:00", "--date", "2021-03-28"], &["from 02:00:00 to 03:00:00", "2021-03-28T01:00:00Z"])]
fn times_that_the_clocks_show_twice_or_never(#[case] window: &[&str], #[case] says: &[&str]) {
    let output = run(&[window, &["--tz", "Europe/Berlin"]].concat());
    let told = stderr(&output);
    assert!(code(&output) == 2 && says.iter().all(|says| told.contains(says)), "{told}");
}

/// A window that moves with the present, and the command that repeats it as it was.
#[test]
fn the_last_hours() {
    let pair = Pair::new(1, 1);
    let now = chrono::Utc::now().timestamp_millis();
    let records: Vec<Record> =
        (0..3).map(|n| record(0, now - n * HOUR - HOUR / 2, &format!("k{n}"), "v")).collect();
    produce(&pair.a, &records);
    let topics = ["--source", &pair.a, "--target", &pair.b, "--output", "json"];
    let output = run(&[&["--window", "-3h..-1h"][..], &topics].concat());
    assert_eq!((code(&output), &receipt(&output)["written"]), (0, &json!(2)), "{}", stderr(&output));
    let log = stderr(&output);
    let command = log.lines().find_map(|line| line.trim().strip_prefix("replicator ")).expect("a command");
    let words: Vec<&str> = command.split(' ').collect();
    let again = run(&words);
    assert_eq!((code(&again), &receipt(&again)["written"]), (0, &json!(0)), "{}", stderr(&again));
    assert_eq!(receipt(&again)["window"], receipt(&output)["window"], "exactly this window");
    assert!(!stderr(&again).contains("moves"), "{}", stderr(&again));

    let last = receipt(&run(&[&["--window", "1h"][..], &topics].concat()));
    assert_eq!(last["written"], 1);
    let follow = run(&[&["--window", "-1h..", "--follow"][..], &topics].concat());
    assert_eq!((code(&follow), stderr(&follow).contains("must be an instant")), (2, true));
}

#[rstest]
#[case("90", 0)]
#[case("5m", 0)]
#[case("0", 2)]
#[case("200ms", 2)]
#[case("8d", 2)]
#[case("soon", 2)]
fn how_long_to_wait(#[case] patience: &str, #[case] wanted: i32) {
    let (pair, _) = loaded();
    let output =
        run(&["plan", "--window", "11-13", "--source", &pair.a, "--target", &pair.b, "--patience", patience]);
    assert_eq!(code(&output), wanted, "{}", stderr(&output));
}

#[test]
fn gaps_may_end_with_a_code_of_its_own() {
    let (pair, _) = loaded();
    let gaps = ["gaps", "--source", &pair.a, "--target", &pair.b, "--output", "json"];
    assert_eq!(code(&run(&gaps)), 0, "a hole is no error");
    let with_code = [&gaps[..], &["--exit-code"]].concat();
    let output = run(&with_code);
    let found = receipt(&output);
    assert_eq!((code(&output), &found["status"], &found["exit_code"]), (4, &json!("different"), &json!(4)));
    assert!(
        found["missing"].as_u64() > Some(0)
            && found["holes"].as_array().is_some_and(|holes| holes.len() == 1)
    );
    pair.filled();
    assert_eq!(code(&run(&with_code)), 0, "{}", stderr(&run(&with_code)));
}

/// On a terminal, no colour hides the speed, and its number is whole.
#[cfg(target_os = "linux")]
#[test]
fn progress_on_a_terminal() {
    let (pair, _) = loaded();
    let program = env!("CARGO_BIN_EXE_replicator");
    let run = format!(
        "{program} -b {} --window 11:00-13:00 --source {} --target {} --max-rate 60/s",
        broker(),
        pair.a,
        pair.b
    );
    // The program is on a terminal of `script`, from util-linux.
    let output =
        std::process::Command::new("script").args(["-qec", &run, "/dev/null"]).output().expect("script");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains(&format!("copying {}", pair.a)), "{shown}");
    assert!(!shown.contains("38;5;"), "{shown}");
    let speeds: Vec<&str> = shown.split("/s  ").filter_map(|part| part.rsplit(' ').next()).collect();
    let is_whole = |speed: &&str| !speed.is_empty() && speed.bytes().all(|b| b.is_ascii_digit() || b == b',');
    assert!(speeds.len() > 1 && speeds[..speeds.len() - 1].iter().all(is_whole), "{speeds:?}");
    assert!(shown.contains("late records of"), "behind the window, another part begins: {shown}");
}

#[test]
fn a_profile_names_the_cluster_and_the_topics() {
    let (pair, records) = loaded();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("replicator").join("config.toml");
    std::fs::create_dir(file.parent().expect("a folder")).expect("made");
    let write = |rest: &str| {
        let text = format!(
            "[prod]\nbootstrap-server = \"{}\"\nsource = \"{}\"\ntarget = \"{}\"\n[other]\n[prod.properties]\n{rest}",
            broker(),
            pair.a,
            pair.b
        );
        std::fs::write(&file, text).expect("written");
    };
    let run = |arguments: &[&str]| {
        let mut command = replicator(arguments);
        command.env_remove("KAFKA_BOOTSTRAP_SERVERS").env("XDG_CONFIG_HOME", folder.path());
        command.env("WHO", "the one on call").output().expect("runs")
    };
    write("client.id = { env = \"WHO\" }\nlinger.ms = { command = \"echo 5\" }\n");
    let fill = ["--profile", "prod", "--window", "11-13", "-o", "json"];
    let filled = run(&fill);
    assert_eq!(code(&filled), 0, "{}", stderr(&filled));
    assert_eq!(receipt(&filled)["written"], json!(window_of(&records).len()));
    let before = run(&["--profile", "prod", "gaps", "-o", "json"]);
    assert_eq!((code(&before), &receipt(&before)["missing"]), (0, &json!(0)), "{}", stderr(&before));
    let flags = run(&[&fill[..], &["--target", "no-such-topic"]].concat());
    assert_eq!(code(&flags), 3, "a flag beats the profile: {}", stderr(&flags));

    write("sasl.password = \"hunter2\"\n");
    let refused = run(&fill);
    let told = stderr(&refused);
    assert!(code(&refused) == 2 && told.contains("sasl.password") && !told.contains("hunter2"), "{told}");
    let unknown = run(&["--profile", "staging", "--window", "11-13"]);
    assert!(code(&unknown) == 2 && stderr(&unknown).contains("it has other, prod"), "{}", stderr(&unknown));
}

/// A cluster that a demo or a drill did not start holds nothing of theirs afterwards.
#[test]
fn what_the_demo_and_the_drills_make_they_remove() {
    let topics = replicator::topics::Topics::new(broker());
    let is_clean = |name: &str| {
        assert_eq!(topics.names("", name).expect("names"), Vec::<String>::new(), "topics");
        let groups = side_a().groups();
        assert!(!groups.iter().any(|group| group.contains(name)), "{groups:?}");
    };
    let demo = run(&["demo", "-q", "-b", broker()]);
    assert_eq!(code(&demo), 0, "{}", stderr(&demo));
    let story = String::from_utf8(demo.stdout).expect("text");
    let at = story.find("-demo-").expect("topics of its own");
    let name: String = story[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    is_clean(&name);

    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("store.db");
    let drill =
        replicator(&["drill", "-b", broker(), "--duration", "1s", "--faults", "kill", "--records", "500"])
            // This is for the jobs of its user.
            .env("REPLICATOR_STORE", format!("sqlite:{}", store.display()))
            .env("REPLICATOR_SECURITY_PROTOCOL", "SASL_SSL")
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("starts");
    let name = format!("-1-{}", drill.id());
    let drill = drill.wait_with_output().expect("ends");
    assert_eq!(code(&drill), 0, "{}", stderr(&drill));
    is_clean(&name);
    assert!(!store.exists(), "no receipt of a drill is kept");
}

/// What a command does not do with the cluster that the environment names, its help and its messages say.
#[rstest]
#[case("demo", &["--two-clusters"])]
#[case("drill", &["--clusters", "2"])]
fn brokers_of_their_own(#[case] name: &str, #[case] two: &[&str]) {
    let help = |arguments: &[&str]| {
        String::from_utf8(run(arguments).stdout).expect("text").replace("\n          ", " ")
    };
    let of_option = help(&[name, "--help"]);
    assert!(of_option.contains("KAFKA_BOOTSTRAP_SERVERS is ignored"), "{of_option}");
    assert!(!of_option.contains("By default, the environment variable"), "{of_option}");
    let page = help(&["man", name]);
    let (_, variables) = page.split_once(".SH ENVIRONMENT").expect("the section");
    assert!(!variables.contains("KAFKA_BOOTSTRAP_SERVERS"), "no variable that it heeds");
    let both = run(&[&[name, "-b", broker()], two].concat());
    assert!(code(&both) == 2 && stderr(&both).contains("leave out"), "{}", stderr(&both));
}

#[test]
fn a_profile_for_brokers_of_the_demo() {
    let output = run(&["demo", "--profile", "prod"]);
    assert!(code(&output) == 2 && stderr(&output).contains("or add -b"), "{}", stderr(&output));
}

/// What the demo prints can be pasted: each command carries its brokers, and needs no variable.
#[test]
fn what_the_demo_says_to_try() {
    let demo = run(&["demo", "-q", "--keep", "-b", broker()]);
    assert_eq!(code(&demo), 0, "{}", stderr(&demo));
    let story = String::from_utf8(demo.stdout).expect("text");
    let (_, told) = story.split_once("Try these:").expect("what to try");
    let tries: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    let tries: Vec<&str> = tries
        .into_iter()
        .filter(|line| line.starts_with("replicator ") || line.starts_with("export "))
        .collect();
    assert_eq!(tries.len(), 4, "{story}");
    assert!(!story.contains('…') && !story.contains("unset"), "{story}");
    let script = format!("set -e\n{}\n", tries.join("\n"));
    let mut shell = std::process::Command::new("sh");
    let pasted = shell.args(["-c", &script]).env_remove("KAFKA_BOOTSTRAP_SERVERS").output().expect("runs");
    assert_eq!(code(&pasted), 0, "{script}: {}", stderr(&pasted));
    let removal = story.lines().find(|line| line.contains("--delete")).expect("how to remove the topics");
    assert!(removal.contains(&format!("--bootstrap-server {}", broker())), "{removal}");
    let word = removal.rsplit(' ').next().expect("names").trim_matches('\'');
    word.split('|').for_each(delete);
}
