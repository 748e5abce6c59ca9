//! Runs each situation of `docs/runbook.md`, and compares what the commands print.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use replicator::KAFKA_VERSION;
use tempfile::TempDir;

use crate::console::{answers, blocks, commands_of};
use crate::kit::*;

const RUNBOOK: &str = include_str!("../../docs/runbook.md");

/// One situation of the runbook, with its names in place of the real ones.
struct Situation<'p> {
    pair: &'p Pair,
    text: &'static str,
    path: String,
    _tools: Option<TempDir>,
}

impl<'p> Situation<'p> {
    /// The section under this number. `None` if it needs Kafka's tools, and they are not on this machine.
    fn new(number: u32, pair: &'p Pair) -> Option<Situation<'p>> {
        let section = RUNBOOK.split("\n## ").find(|section| section.starts_with(&format!("{number}. ")));
        let text = section.expect("a section");
        let tools = if text.contains("$ kafka-") { Some(tools()?) } else { None };
        let program = Path::new(env!("CARGO_BIN_EXE_replicator")).parent().expect("a directory");
        let own = tools.as_ref().map_or(String::new(), |tools| format!("{}:", tools.path().display()));
        let path = format!("{own}{}:{}", program.display(), std::env::var("PATH").unwrap_or_default());
        Some(Situation { pair, text, path, _tools: tools })
    }

    /// The real names, and what the runbook calls them.
    fn names(&self) -> [(&str, &str); 3] {
        [(broker(), "kafka:9092"), (&self.pair.a, "events"), (&self.pair.b, "mirror")]
    }

    fn shell(&self, command: &str) -> Command {
        let real =
            self.names().iter().fold(command.to_owned(), |text, (real, name)| text.replace(name, real));
        let mut shell = Command::new("sh");
        // A terminal shows what a command prints on stderr, too.
        shell.args(["-c", &format!("exec 2>&1; {real}")]);
        shell.env("PATH", &self.path).env("KAFKA_BOOTSTRAP_SERVERS", broker()).stdin(Stdio::null());
        shell
    }

    /// What a command prints but the log, and its exit code.
    fn says(&self, command: &str) -> (String, i32) {
        let output = self.shell(command).output().expect("a shell");
        let text = String::from_utf8_lossy(&output.stdout);
        let is_log = |line: &&str| ["Z  INFO ", "Z  WARN "].iter().any(|level| line.contains(level));
        let lines: Vec<&str> = text.lines().filter(|line| !is_log(line)).collect();
        let said = lines.join("\n");
        (self.names().iter().fold(said, |text, (real, name)| text.replace(real, name)), code(&output))
    }

    /// Runs each command, and compares its answer with the runbook's. A command ends with exit code 0, unless
    /// `echo $?` comes after it.
    fn run(&self) {
        let mut commands = commands_of(self.text).into_iter().peekable();
        assert!(commands.peek().is_some(), "the section has commands");
        let mut background = Vec::new();
        while let Some((command, answer)) = commands.next() {
            if let Some(follow) = command.strip_suffix(" &") {
                background.push(Ended(
                    self.shell(&format!("exec {follow}")).stdout(Stdio::null()).spawn().expect("starts"),
                ));
                until(|| self.says("replicator lag --source events --target mirror --max-lag 0").1 == 0);
                continue;
            }
            let wanted = match commands.next_if(|(next, _)| next == "echo $?") {
                Some((_, code)) => code.trim().parse().expect("an exit code"),
                None => 0,
            };
            let (said, code) = self.says(&command);
            assert_eq!(code, wanted, "{command} printed\n{said}");
            assert!(answers(&said, &answer), "{command} printed\n{said}\nwhere the runbook has\n{answer}");
        }
    }
}

/// A process that ends with its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Kafka's own tools, as its distribution calls them. `None` if no sandbox has fetched the jars to this machine.
fn tools() -> Option<TempDir> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let jars = cache.join(format!("replicator/kafka-{KAFKA_VERSION}/libs"));
    if !jars.is_dir() {
        tell("skipped: Kafka's tools are not on this machine");
        return None;
    }
    let tools = tempfile::tempdir().expect("a directory");
    for (name, class) in [
        ("kafka-configs.sh", "kafka.admin.ConfigCommand"),
        ("kafka-transactions.sh", "org.apache.kafka.tools.TransactionsCommand"),
    ] {
        let (file, jars) = (tools.path().join(name), jars.display());
        fs::write(&file, format!("#!/bin/sh\nexec java -cp '{jars}/*' {class} \"$@\"\n")).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("executable");
    }
    Some(tools)
}

/// The runbook's pair: 810 records of a day, and a target without those of the window.
fn broken(records: &[Record]) -> Pair {
    let pair = Pair::new(3, 3);
    produce(&pair.a, records);
    produce(&pair.b, &outside_of(records));
    pair
}

#[test]
fn a_gap() {
    let pair = broken(&day(810, 3));
    Situation::new(1, &pair).expect("no tools").run();
    pair.assert_filled(&outside_of(&day(810, 3)));
}

#[test]
fn a_run_that_died() {
    let pair = broken(&day(810, 3));
    let died =
        pair.command(100).env("FAILPOINTS", "before-send-offsets=1*off->return").output().expect("runs");
    assert_eq!(code(&died), -1, "it was killed: {}", stderr(&died));
    Situation::new(2, &pair).expect("no tools").run();
    pair.assert_filled(&outside_of(&day(810, 3)));
}

#[test]
fn a_target_that_would_delete() {
    let pair = broken(&day(810, 3));
    let Some(situation) = Situation::new(3, &pair) else { return };
    let week = "kafka-configs.sh --bootstrap-server kafka:9092 --alter --topic mirror --add-config retention.ms=604800000";
    assert_eq!(situation.says(week).1, 0);
    situation.run();
    // Meanwhile the broker may have deleted what was there before.
    let (mut found, mut wanted) = (window_of(&consume(&pair.b)), window_of(&day(810, 3)));
    found.sort();
    wanted.sort();
    assert_same(&found, &wanted);
}

#[test]
fn user_ids_as_keys() {
    let of_users =
        |record: Record| Record { key: Some(format!("user-{}", record.time / 30_000 % 7).into()), ..record };
    let records: Vec<Record> = day(810, 3).into_iter().map(of_users).collect();
    let pair = broken(&records);
    Situation::new(4, &pair).expect("no tools").run();
    pair.assert_holds(&outside_of(&records), &window_of(&records));
}

#[test]
fn two_runs_at_once() {
    let pair = broken(&day(810, 3));
    let situation = Situation::new(5, &pair).expect("no tools");
    let mut slow = pair.command(20);
    let slow = slow.args(["--max-rate", "20/s"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let slow = slow.spawn().expect("starts");
    until(|| consume(&pair.b).len() > 570);
    situation.run();
    let first = slow.wait_with_output().expect("ends");
    assert_eq!(code(&first), 5, "{}", stderr(&first));
    let [message] = blocks(situation.text, "text")[..] else { panic!("one message") };
    let message = message.replace("events", &pair.a).replace("mirror", &pair.b);
    assert!(stderr(&first).contains(&message), "{}", stderr(&first));
    pair.assert_filled(&outside_of(&day(810, 3)));
}

#[test]
fn a_transaction_that_stays_open() {
    let pair = broken(&day(810, 3));
    let Some(situation) = Situation::new(6, &pair) else { return };
    let of_another: Vec<Record> = day(10, 1);
    let _open = Foreign::begin().send(&pair.b, &of_another);
    situation.run();
    pair.assert_filled(&outside_of(&day(810, 3)));
}

#[test]
fn a_follow_that_ended() {
    // A follow refuses keys that may stand in two partitions.
    let pair = broken(&placed(day(810, 3), 3));
    let situation = Situation::new(7, &pair).expect("no tools");
    let follow = "exec replicator --source events --target mirror --window 2021-04-14T10:00Z/ --follow";
    let mut follow = Ended(situation.shell(follow).stdout(Stdio::null()).spawn().expect("starts"));
    until(|| situation.says("replicator lag --source events --target mirror --max-lag 0").1 == 0);
    signal(&follow.0, "-TERM");
    assert!(follow.0.wait().expect("ends").success());
    produce(&pair.a, &placed(day(30, 3), 3));
    situation.run();
    let found = consume(&pair.b);
    assert_eq!(found.len(), 840, "above the joint, each record is copied");
}
