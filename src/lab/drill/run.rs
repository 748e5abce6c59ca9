//! One run of the real program, as a child process.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::data::{OPEN_WINDOW_ARGUMENT, WINDOW_ARGUMENT};
use crate::base::error::{Error, Result};

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
    /// The options of runs that follow the source; `None` if they only fill the window.
    pub follow: Option<Vec<String>>,
}

impl RunArguments {
    fn command(&self) -> std::io::Result<Command> {
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
        match &self.follow {
            Some(options) => command.args(["--window", OPEN_WINDOW_ARGUMENT, "--follow"]).args(options),
            None => command.args(["--window", WINDOW_ARGUMENT, "--patience", "60"]),
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

/// A run. Dropping it kills the process.
pub(super) struct Run {
    pub number: usize,
    child: Child,
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
        let what = |e: std::io::Error| Error::io("a run of this program", e);
        let (stdout, stderr) = (tempfile::tempfile().map_err(what)?, tempfile::tempfile().map_err(what)?);
        let child = job
            .command()
            .map_err(what)?
            .stdin(Stdio::null())
            .stdout(stdout.try_clone().map_err(what)?)
            .stderr(stderr.try_clone().map_err(what)?)
            .spawn()
            .map_err(what)?;
        Ok(Run { number, child, stdout, stderr, suffered, known: Some(known) })
    }

    pub(super) fn signal(&self, signal: Signal) {
        // The process is not reaped yet, so its id is still its own. A signal does no harm to a process that has ended.
        if let Ok(pid) = self.child.id().try_into() {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// How the run ended, if it has ended.
    ///
    /// # Errors
    /// [`Error::Failed`] if its output cannot be read.
    pub(super) fn ended(&mut self) -> Result<Option<Ended>> {
        let what = |e: std::io::Error| Error::io("the output of a run", e);
        let Some(status) = self.child.try_wait().map_err(what)? else { return Ok(None) };
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
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    pub(super) fn is_done(&self) -> bool {
        self.status.code() == Some(0)
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
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::base::error::Reason;

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
