//! What a profile and the environment say about clusters, and secrets that come from a command.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use rstest::rstest;
use serde_json::json;
use tempfile::TempDir;

use crate::kit::*;

/// A folder of configurations with one profile, `prod`.
struct Profiles(TempDir);

impl Profiles {
    fn of(brokers: &str, rest: &str) -> Profiles {
        let folder = tempfile::tempdir().expect("a folder");
        let text = format!("[prod]\n{brokers}\n[prod.properties]\n{rest}\n");
        std::fs::create_dir(folder.path().join("replicator")).expect("made");
        std::fs::write(folder.path().join("replicator").join("config.toml"), text).expect("written");
        Profiles(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The program with this profile, and with nothing in the environment but `variables`.
    fn command(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = replicator(arguments);
        command.env_remove("KAFKA_BOOTSTRAP_SERVERS").env("XDG_CONFIG_HOME", self.0.path());
        command.envs(variables.iter().copied());
        command
    }

    fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        self.command(arguments, variables).output().expect("runs")
    }
}

/// The arguments of a plan with the profile.
fn plan<'a>(pair: &'a Pair, more: &[&'a str]) -> Vec<&'a str> {
    let plan = ["plan", "--profile", "prod", "--window", "11:00-13:00", "--date", "2021-04-14", "-o", "json"];
    [&plan[..], &["--source", &pair.a, "--target", &pair.b], more].concat()
}

/// A vault that does not answer is no typing error.
#[rstest]
#[case::it_fails("echo one >&2; echo 'vault is sealed' >&2; exit 7", "vault is sealed")]
#[case::it_is_missing("/no/such/program show kafka", "/no/such/program")]
#[case::it_prints_nothing("true", "nothing")]
fn a_secret_that_does_not_come(#[case] command: &str, #[case] says: &str) {
    let profiles = Profiles::of("", &format!("sasl.password = {{ command = \"{command}\" }}"));
    let pair = Pair::new(1, 1);
    let output = profiles.run(&plan(&pair, &["-b", broker()]), &[]);
    let (told, answer) = (stderr(&output), receipt(&output));
    assert_eq!((code(&output), &answer["error"]["reason"]), (1, &json!("no-secret")), "{told}");
    for says in [says, "--profile prod", "sasl.password"] {
        assert!(
            answer["error"]["message"].as_str().is_some_and(|text| text.contains(says)),
            "{says}: {answer:?}"
        );
    }
}

/// Ctrl-C ends the run and the command that it waits for, and what that has started.
#[rstest]
#[case("-INT")]
#[case("-TERM")]
fn a_secret_that_one_does_not_wait_for(#[case] with: &str) {
    let profiles = Profiles::of("", "");
    let pids = profiles.path("pids");
    let hangs = format!("sleep 300 & echo $! > '{0}.new'; mv '{0}.new' '{0}'; wait; echo x", pids.display());
    let profiles = Profiles::of("", &format!("sasl.password = {{ command = \"{hangs}\" }}"));
    let pids = move || std::fs::read_to_string(&pids).ok();
    let pair = Pair::new(1, 1);
    let mut command = profiles.command(&plan(&pair, &["-b", broker()]), &[]);
    let mut run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    until(|| pids().is_some());
    signal(&run, with);
    // It ends at once, so this cannot wait for the command.
    let mut ended = None;
    until(|| {
        ended = run.try_wait().expect("asked");
        ended.is_some()
    });
    let mut told = String::new();
    run.stderr.take().expect("a pipe").read_to_string(&mut told).expect("text");
    assert_eq!(ended.and_then(|ended| ended.code()), Some(130), "{told}");
    let pid = pids().expect("a process");
    // A process that nobody has waited for yet is a zombie, which has ended.
    let state = || {
        let asked = Command::new("ps").args(["-o", "stat=", "-p", pid.trim()]).output().expect("ps");
        String::from_utf8(asked.stdout).expect("text")
    };
    let lives = || !["", "Z"].iter().any(|ended| state().trim().get(..1).unwrap_or_default() == *ended);
    until(|| !lives());
}

/// A command that Ctrl-C ended is no command that failed, even if it hears of the signal first.
#[rstest]
#[case::by_the_signal("kill -INT $$")]
#[case::by_its_code("exit 130")]
fn a_secret_whose_command_was_interrupted(#[case] command: &str) {
    let profiles = Profiles::of("", &format!("sasl.password = {{ command = \"{command}\" }}"));
    let pair = Pair::new(1, 1);
    let output = profiles.run(&plan(&pair, &["-b", broker()]), &[]);
    assert_eq!(code(&output), 130, "{}", stderr(&output));
}

/// The profile was typed, the variable was set some day: neither wins silently.
#[rstest]
#[case::one("bootstrap-server = \"prod:1\"", &[("KAFKA_BOOTSTRAP_SERVERS", "staging:2")], &["prod:1", "staging:2", "KAFKA_BOOTSTRAP_SERVERS", "-b"])]
#[case::two(
    "source-bootstrap-server = \"prod:1\"\ntarget-bootstrap-server = \"eu:1\"",
    &[("KAFKA_SOURCE_BOOTSTRAP_SERVERS", "prod:1"), ("KAFKA_TARGET_BOOTSTRAP_SERVERS", "staging:2")],
    &["eu:1", "staging:2", "KAFKA_TARGET_BOOTSTRAP_SERVERS", "--source-bootstrap-server"]
)]
#[case::one_and_two(
    "bootstrap-server = \"prod:1\"",
    &[("KAFKA_SOURCE_BOOTSTRAP_SERVERS", "prod:1"), ("KAFKA_TARGET_BOOTSTRAP_SERVERS", "staging:2")],
    &["prod:1", "staging:2", "KAFKA_TARGET_BOOTSTRAP_SERVERS"]
)]
#[case::two_and_one(
    "source-bootstrap-server = \"prod:1\"\ntarget-bootstrap-server = \"eu:1\"",
    &[("KAFKA_BOOTSTRAP_SERVERS", "prod:1")],
    &["eu:1", "prod:1", "KAFKA_BOOTSTRAP_SERVERS"]
)]
fn another_cluster_in_the_environment(
    #[case] brokers: &str,
    #[case] variables: &[(&str, &str)],
    #[case] says: &[&str],
) {
    let profiles = Profiles::of(brokers, "");
    let pair = Pair::new(1, 1);
    let output = profiles.run(&plan(&pair, &[]), variables);
    let told = stderr(&output);
    assert!(code(&output) == 2 && told.contains("--profile prod"), "{told}");
    assert!(says.iter().all(|says| told.contains(says)), "{told}");
    // What is typed decides.
    let typed = profiles.run(&plan(&pair, &["-b", broker()]), variables);
    assert_eq!(code(&typed), 0, "{}", stderr(&typed));
}

#[test]
fn the_same_cluster_in_the_environment() {
    let profiles = Profiles::of(&format!("bootstrap-server = \"{}\"", broker()), "linger.ms = 7");
    let pair = Pair::new(1, 1);
    let variables = [("KAFKA_BOOTSTRAP_SERVERS", broker()), ("REPLICATOR_LINGER_MS", "7")];
    let output = profiles.run(&plan(&pair, &[]), &variables);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let several = Profiles::of(&format!("bootstrap-server = \"{}, localhost:1\"", broker()), "");
    let turned = format!("localhost:1,{}", broker());
    let output = several.run(&plan(&pair, &[]), &[("KAFKA_BOOTSTRAP_SERVERS", &turned)]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let none = Profiles::of("", "").run(&plan(&pair, &[]), &variables);
    assert_eq!(code(&none), 0, "the profile names no cluster: {}", stderr(&none));
}

/// Another user, or none of the encryption, is as bad as another cluster. No value is shown, since it may be a secret.
#[rstest]
#[case::of_both("sasl.username = \"me\"", ("REPLICATOR_SASL_USERNAME", "hunter2"), Some("sasl.username=x"))]
#[case::of_a_side("source.sasl.username = \"me\"", ("REPLICATOR_SOURCE_SASL_USERNAME", "hunter2"), Some("source.sasl.username=x"))]
#[case::a_secret("sasl.password = { command = \"echo hunter1\" }", ("REPLICATOR_SASL_PASSWORD", "hunter2"), None)]
fn another_property_in_the_environment(
    #[case] of_profile: &str,
    #[case] variable: (&str, &str),
    #[case] typed: Option<&str>,
) {
    let profiles = Profiles::of("", of_profile);
    let pair = Pair::new(1, 1);
    let sides = ["--source-bootstrap-server", broker(), "--target-bootstrap-server", broker()];
    let output = profiles.run(&plan(&pair, &sides), &[variable]);
    let told = stderr(&output);
    assert!(code(&output) == 2 && told.contains(variable.0) && told.contains("--profile prod"), "{told}");
    assert!(!told.contains("hunter"), "{told}");
    if let Some(typed) = typed {
        let typed = profiles.run(&plan(&pair, &[&sides[..], &["-X", typed]].concat()), &[variable]);
        assert_eq!(code(&typed), 0, "{}", stderr(&typed));
    }
}

/// The file of -F is beaten by the environment, as that of Kafka's own tools is by none. So it is told.
#[test]
fn another_cluster_in_the_file() {
    let profiles = Profiles::of("", "");
    let file = profiles.path("client.properties");
    std::fs::write(&file, "bootstrap.servers=prod:1\n").expect("written");
    let pair = Pair::new(1, 1);
    let of_file = ["-F", file.to_str().expect("a path")];
    let output = profiles.run(&plan(&pair, &of_file), &[("KAFKA_BOOTSTRAP_SERVERS", broker())]);
    let told = stderr(&output);
    assert!(
        code(&output) == 0 && told.contains("prod:1") && told.contains("KAFKA_BOOTSTRAP_SERVERS"),
        "{told}"
    );
    let typed = profiles.run(&plan(&pair, &[&of_file[..], &["-b", broker()]].concat()), &[]);
    assert!(code(&typed) == 0 && !stderr(&typed).contains("prod:1"), "{}", stderr(&typed));
}
