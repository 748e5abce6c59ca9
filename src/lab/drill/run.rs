//! One run of the real program, as a child process.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::data::{OPEN_WINDOW_ARGUMENT, WINDOW_ARGUMENT};
use crate::base::error::{Error, Result};
use crate::lab::sandbox::Guard;

/// Ends a process group.
const END_GROUP: &str = r#"kill -s KILL -- "-$1""#;

/// How long the other processes of a copier may go on once its first one has ended.
const GRACE: Duration = Duration::from_secs(5);

/// The job of all runs of a round.
pub(super) struct RunArguments {
    /// The brokers of the one cluster, or of the source's and the target's.
    pub bootstrap: Vec<String>,
    pub source: String,
    pub target: String,
    pub transaction_records: usize,
    /// Whether equal records count, each for itself.
    pub by_count: bool,
    /// Whether runs share the work.
    pub shared: bool,
    pub kind: Kind,
}

/// What the runs of a round are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// They fill the window.
    Fill,
    /// They follow the source, with these options.
    Follow(Vec<String>),
    /// They are somebody else's program: its name and arguments, with placeholders.
    Copier(Vec<String>),
}

impl RunArguments {
    fn command(&self) -> std::io::Result<Command> {
        match &self.kind {
            Kind::Copier(words) => Ok(self.copier(words)),
            kind => self.own(kind),
        }
    }

    fn copier(&self, words: &[String]) -> Command {
        let mut words = words.iter().map(|word| self.filled_in(word));
        let mut command = Command::new(words.next().unwrap_or_default());
        // It may start other processes, and a signal is for all of them.
        command.args(words).process_group(0);
        command
    }

    /// A word of a command, with the round's topics and brokers in the place of their placeholders.
    fn filled_in(&self, word: &str) -> String {
        let [of_source, of_target] = match self.bootstrap.as_slice() {
            [source, target] => [source.clone(), target.clone()],
            one => [one.concat(), one.concat()],
        };
        let values = [self.source.clone(), self.target.clone(), of_target.clone(), of_source, of_target];
        PLACEHOLDERS
            .iter()
            .zip(values)
            .fold(word.to_owned(), |word, (name, value)| word.replace(name, &value))
    }

    fn own(&self, kind: &Kind) -> std::io::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        // These are for the jobs of whoever drills: properties of another cluster, and a store for receipts.
        let of_user = std::env::vars_os().map(|(name, _)| name);
        for name in of_user.filter(|name| name.to_string_lossy().starts_with("REPLICATOR_")) {
            command.env_remove(name);
        }
        command
            .args(["--source", &self.source, "--target", &self.target])
            .args(["--transaction-records", &self.transaction_records.to_string()])
            .args(["--output", "json"]);
        match kind {
            Kind::Follow(options) => {
                command.args(["--window", OPEN_WINDOW_ARGUMENT, "--follow"]).args(options)
            }
            _ => command.args(["--window", WINDOW_ARGUMENT, "--patience", "60"]),
        };
        match self.bootstrap.as_slice() {
            [source, target] => command
                .args(["--source-bootstrap-server", source])
                .args(["--target-bootstrap-server", target]),
            one => command.args(["--bootstrap-server", &one.concat()]),
        };
        if self.by_count {
            command.args(["--identity", "record"]);
        }
        if self.shared {
            command.arg("--scale-out");
        }
        Ok(command)
    }
}

/// What a command may name: the topics, the brokers of the one cluster, and those of two clusters.
const PLACEHOLDERS: [&str; 5] =
    ["{source}", "{target}", "{bootstrap}", "{source-bootstrap}", "{target-bootstrap}"];

/// A run. Dropping it kills the process, and what it started.
pub(super) struct Run {
    pub number: usize,
    child: Child,
    /// Ends all processes of somebody else's copier, at the latest with this process.
    guard: Option<Guard>,
    /// When the first process of a copier was seen to have ended.
    ended: Option<Instant>,
    stdout: File,
    stderr: File,
    /// The faults that the run has suffered. They decide how it may end.
    pub suffered: Suffered,
    /// How many records the source held when the run began; `None` if a topic was made anew since.
    pub known: Option<usize>,
}

/// The faults that excuse a run if it does not end well.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Suffered {
    pub killed: bool,
    pub terminated: bool,
    pub rivalled: bool,
    /// A broker or the network failed, or the run had to wait for another transaction.
    pub troubled: bool,
    /// A topic was made anew. Until it is there again, a run may refuse to work without it.
    pub remade: bool,
    /// The ledger was deleted. A run creates it again, so it may fail, but it may not refuse.
    pub unledgered: bool,
    /// A topic got more partitions. While the counts differ, a run may refuse the topics.
    pub grown: bool,
    /// A mirror copied records of the window.
    pub mirrored: bool,
    /// The source lost its oldest records. A run that had not copied them may fail or refuse, for that reason.
    pub trimmed: bool,
}

/// How a run ended.
pub(super) struct Ended {
    pub number: usize,
    pub status: ExitStatus,
    pub receipt: Option<Value>,
    pub stderr: String,
    /// As in [`Run`].
    pub known: Option<usize>,
    pub suffered: Suffered,
}

impl Run {
    /// # Errors
    /// [`Error::Failed`] if the program cannot be started.
    pub(super) fn start(number: usize, job: &RunArguments, suffered: Suffered, known: usize) -> Result<Run> {
        let name = match &job.kind {
            Kind::Copier(words) => words.first().map_or("", String::as_str),
            _ => "a run of this program",
        };
        let what = |e: std::io::Error| Error::io(name, e);
        let (stdout, stderr) = (tempfile::tempfile().map_err(what)?, tempfile::tempfile().map_err(what)?);
        let child = job
            .command()
            .map_err(what)?
            .stdin(Stdio::null())
            .stdout(stdout.try_clone().map_err(what)?)
            .stderr(stderr.try_clone().map_err(what)?)
            .spawn()
            .map_err(what)?;
        let guard = match &job.kind {
            Kind::Copier(_) => Some(
                Guard::new(END_GROUP, &[child.id().to_string()])
                    .map_err(|e| Error::failed(format!("{e:#}")))?,
            ),
            _ => None,
        };
        Ok(Run { number, child, guard, ended: None, stdout, stderr, suffered, known: Some(known) })
    }

    /// Whether processes of a copier live that the first one has started.
    fn has_others(&self) -> bool {
        i32::try_from(self.child.id()).is_ok_and(|pid| kill(Pid::from_raw(-pid), None).is_ok())
    }

    pub(super) fn signal(&self, signal: Signal) {
        // The process is not reaped yet, so its id is still its own. A signal does no harm to a process that has ended.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let whom = if self.guard.is_some() { -pid } else { pid };
            let _ = kill(Pid::from_raw(whom), signal);
        }
    }

    /// How the run ended, if it has ended.
    ///
    /// # Errors
    /// [`Error::Failed`] if its output cannot be read.
    pub(super) fn ended(&mut self) -> Result<Option<Ended>> {
        let what = |e: std::io::Error| Error::io("the output of a run", e);
        let Some(status) = self.child.try_wait().map_err(what)? else { return Ok(None) };
        if self.guard.is_some() {
            // What a command started has a moment to end by itself, and must not go on beside the next run.
            let ended = *self.ended.get_or_insert_with(Instant::now);
            if ended.elapsed() < GRACE && self.has_others() {
                return Ok(None);
            }
            drop(self.guard.take());
        }
        let read = |file: &mut File| {
            let mut bytes = Vec::new();
            file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(what)?;
            Ok::<_, Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        let (stdout, stderr) = (read(&mut self.stdout)?, read(&mut self.stderr)?);
        Ok(Some(Ended {
            number: self.number,
            status,
            receipt: serde_json::from_str(&stdout).ok(),
            stderr,
            known: self.known,
            suffered: self.suffered,
        }))
    }

    /// Waits for the end of the run. `None` means that it did not end in time.
    ///
    /// # Errors
    /// As [`Run::ended`].
    pub(super) fn wait(&mut self, timeout: Duration) -> Result<Option<Ended>> {
        let begun = Instant::now();
        while begun.elapsed() < timeout {
            if let Some(ended) = self.ended()? {
                return Ok(Some(ended));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(None)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // SIGKILL also ends a process that SIGSTOP has stopped.
        drop(self.guard.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    pub(super) fn is_done(&self) -> bool {
        self.status.code() == Some(0)
    }

    /// Whether it ended by itself before it was done: this program says so by exit code 1, others by any code.
    pub(super) fn has_given_up(&self, kind: &Kind) -> bool {
        match (kind, self.status.code()) {
            (Kind::Copier(_), Some(code)) => code != 0 && !self.suffered.terminated,
            (_, code) => code == Some(1),
        }
    }

    pub(super) fn written(&self) -> Option<u64> {
        self.receipt.as_ref()?["written"].as_u64()
    }

    /// The `error.reason` of the receipt.
    pub(super) fn reason(&self) -> Option<&str> {
        self.receipt.as_ref()?["error"]["reason"].as_str()
    }

    /// Whether the run may end like this after what happened to it.
    pub(super) fn is_excused(&self) -> bool {
        let suffered = self.suffered;
        let is_for_records = matches!(self.reason(), Some("records-deleted" | "log-lost"));
        match (self.status.code(), self.status.signal()) {
            (Some(0), _) => true,
            (Some(1 | 3), _) if suffered.trimmed && is_for_records => true,
            (Some(1), _) => {
                let Suffered { troubled, terminated, remade, unledgered, grown, mirrored, .. } = suffered;
                troubled || terminated || remade || unledgered || grown || mirrored
            }
            (Some(3), _) => suffered.grown || (suffered.remade && self.reason() == Some("missing-topic")),
            (Some(5), _) => suffered.rivalled,
            (Some(130), _) => suffered.terminated,
            (_, Some(9)) => suffered.killed,
            // SIGTERM came before the run could install its handler.
            (_, Some(15)) => suffered.terminated,
            _ => false,
        }
    }

    /// One line about the end: the count of the receipt, or the last line on stderr.
    pub(super) fn told(&self) -> String {
        let how = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit {code}"),
            (_, Some(9)) => return "killed".to_owned(),
            (_, signal) => format!("signal {signal:?}"),
        };
        match self.written() {
            Some(written) if self.is_done() => format!("{how}, wrote {written}"),
            _ => format!("{how}: {}", self.stderr.lines().last().unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::base::error::Reason;

    fn job_of_copier(bootstrap: &[&str], words: &[&str]) -> RunArguments {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        RunArguments {
            bootstrap: owned(bootstrap),
            source: "x".to_owned(),
            target: "y".to_owned(),
            transaction_records: 0,
            by_count: true,
            shared: false,
            kind: Kind::Copier(owned(words)),
        }
    }

    /// Only the `sleep` holds the pipe, so the pipe's end shows that it is gone.
    #[test]
    fn what_a_copier_started_ends_with_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let pipe = dir.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("runs").success());
        let script = format!("sleep 600 > '{}' & wait", pipe.display());
        let job = job_of_copier(&["b:1"], &["sh", "-c", &script]);
        let run = Run::start(1, &job, Suffered::default(), 0).expect("starts");
        let (told, ended) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut file = File::open(pipe).expect("a pipe");
            told.send("open").expect("listened to");
            file.read_to_end(&mut Vec::new()).expect("reads");
            told.send("ended").expect("listened to");
        });
        assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok("open"));
        assert!(ended.recv_timeout(Duration::from_millis(300)).is_err(), "it runs");
        drop(run);
        assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok("ended"));
        reader.join().expect("ends");
    }

    #[test]
    fn a_command_gets_the_topics_and_the_brokers() {
        let words =
            ["copy", "{source}>{target}", "--from={source-bootstrap}", "{target-bootstrap}", "{other}"];
        let arguments = |job: &RunArguments| -> Vec<String> {
            let command = job.command().expect("a command");
            command.get_args().map(|word| word.to_string_lossy().into_owned()).collect()
        };
        assert_eq!(
            arguments(&job_of_copier(&["a:1", "b:1,b:2"], &words)),
            ["x>y", "--from=a:1", "b:1,b:2", "{other}"]
        );
        assert_eq!(arguments(&job_of_copier(&["c:1"], &["copy", "{bootstrap}"])), ["c:1"]);
    }

    const REMADE: Suffered = Suffered { remade: true, ..NOTHING };
    const UNLEDGERED: Suffered = Suffered { unledgered: true, ..NOTHING };
    const NOTHING: Suffered = Suffered {
        killed: false,
        terminated: false,
        rivalled: false,
        troubled: false,
        remade: false,
        unledgered: false,
        grown: false,
        mirrored: false,
        trimmed: false,
    };
    const TRIMMED: Suffered = Suffered { trimmed: true, ..NOTHING };

    #[rstest]
    #[case::missing(REMADE, 3, Some(Reason::MissingTopic), true)]
    #[case::another_refusal(REMADE, 3, Some(Reason::TopicConfiguration), false)]
    #[case::no_closer_reason(REMADE, 3, Some(Reason::Refused), false)]
    #[case::no_answer(REMADE, 3, None, false)]
    #[case::another_exit_code(REMADE, 2, Some(Reason::MissingTopic), false)]
    #[case::only_the_ledger(UNLEDGERED, 3, Some(Reason::MissingTopic), false)]
    #[case::nothing_happened(NOTHING, 3, Some(Reason::MissingTopic), false)]
    #[case::records_deleted(TRIMMED, 1, Some(Reason::RecordsDeleted), true)]
    #[case::position_deleted(TRIMMED, 3, Some(Reason::LogLost), true)]
    #[case::another_reason(TRIMMED, 1, Some(Reason::Failed), false)]
    #[case::nothing_deleted(NOTHING, 3, Some(Reason::LogLost), false)]
    #[case::failed(REMADE, 1, Some(Reason::TopicChanged), true)]
    #[case::failed_without_a_ledger(UNLEDGERED, 1, Some(Reason::Failed), true)]
    #[case::failed_alone(NOTHING, 1, Some(Reason::TopicChanged), false)]
    fn a_run_refuses_only_a_topic_that_is_missing(
        #[case] suffered: Suffered,
        #[case] code: i32,
        #[case] reason: Option<Reason>,
        #[case] wanted: bool,
    ) {
        let ended = Ended {
            number: 1,
            status: ExitStatus::from_raw(code << 8),
            receipt: reason.map(|reason| json!({ "error": { "reason": reason, "message": "" } })),
            stderr: String::new(),
            known: None,
            suffered,
        };
        assert_eq!(ended.is_excused(), wanted);
    }
}
