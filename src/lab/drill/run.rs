//! One run of the real program, as a child process.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::data::WINDOW_ARGUMENT;
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
}

impl RunArguments {
    fn command(&self) -> std::io::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["--window", WINDOW_ARGUMENT, "--source", &self.source, "--target", &self.target])
            .args(["--transaction-records", &self.transaction_records.to_string(), "--patience", "60"])
            .args(["--output", "json"]);
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
    /// A topic was made anew, or the ledger was deleted.
    pub remade: bool,
    /// A topic got more partitions. While the counts differ, a run may refuse the topics.
    pub grown: bool,
    /// A mirror copied records of the window.
    pub mirrored: bool,
}

/// How a run ended.
pub(super) struct Ended {
    pub number: usize,
    pub status: ExitStatus,
    pub receipt: Option<Value>,
    pub stderr: String,
    /// As in [`Run`].
    pub known: Option<usize>,
    suffered: Suffered,
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

    /// Whether the run may end like this after what happened to it.
    pub(super) fn is_excused(&self) -> bool {
        let suffered = self.suffered;
        match (self.status.code(), self.status.signal()) {
            (Some(0), _) => true,
            (Some(1), _) => {
                let Suffered { troubled, terminated, remade, grown, mirrored, .. } = suffered;
                troubled || terminated || remade || grown || mirrored
            }
            (Some(3), _) => suffered.grown,
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
