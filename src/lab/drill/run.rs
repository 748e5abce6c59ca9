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

/// The job that all runs of a round do.
pub(super) struct Job {
    pub bootstrap: String,
    pub source: String,
    pub target: String,
    pub transaction_records: usize,
}

/// A run, killed when it is dropped.
pub(super) struct Run {
    pub number: usize,
    child: Child,
    stdout: File,
    stderr: File,
    /// What was done to it, and so how it may end.
    pub suffered: Suffered,
}

/// What may end a run otherwise than well.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Suffered {
    pub killed: bool,
    pub terminated: bool,
    pub rivalled: bool,
    /// A broker or the network failed it, or a transaction that it had to wait for.
    pub troubled: bool,
}

/// How a run ended.
pub(super) struct Ended {
    pub number: usize,
    pub status: ExitStatus,
    pub receipt: Option<Value>,
    pub stderr: String,
    suffered: Suffered,
}

impl Run {
    /// # Errors
    /// [`Error::Failed`] where the program cannot be started.
    pub(super) fn start(number: usize, job: &Job, suffered: Suffered) -> Result<Run> {
        let what = |e: std::io::Error| Error::io("a run of this program", e);
        let program = std::env::current_exe().map_err(what)?;
        let (stdout, stderr) = (tempfile::tempfile().map_err(what)?, tempfile::tempfile().map_err(what)?);
        let child = Command::new(program)
            .args(["--window", WINDOW_ARGUMENT, "--source", &job.source, "--target", &job.target])
            .args(["--transaction-records", &job.transaction_records.to_string(), "--patience", "60"])
            .args(["--output", "json", "--bootstrap-server", &job.bootstrap])
            .stdin(Stdio::null())
            .stdout(stdout.try_clone().map_err(what)?)
            .stderr(stderr.try_clone().map_err(what)?)
            .spawn()
            .map_err(what)?;
        Ok(Run { number, child, stdout, stderr, suffered })
    }

    pub(super) fn signal(&self, signal: Signal) {
        // Not reaped yet, so the number is still its own; one that has ended takes no harm.
        if let Ok(pid) = self.child.id().try_into() {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// How it ended, once it has.
    ///
    /// # Errors
    /// [`Error::Failed`] where its output cannot be read.
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
            suffered: self.suffered,
        }))
    }

    /// # Errors
    /// [`Error::Failed`] where it hangs: it did not end in time.
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
        // Also one that was stopped.
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

    /// Whether it may end so after what it suffered.
    pub(super) fn is_excused(&self) -> bool {
        let suffered = self.suffered;
        match (self.status.code(), self.status.signal()) {
            (Some(0), _) => true,
            (Some(1), _) => suffered.troubled || suffered.terminated,
            (Some(5), _) => suffered.rivalled,
            (Some(130), _) => suffered.terminated,
            (_, Some(9)) => suffered.killed,
            // Before it could say that it minds.
            (_, Some(15)) => suffered.terminated,
            _ => false,
        }
    }

    /// The last line that it said, or its receipt's count.
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
