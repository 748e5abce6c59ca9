//! What ends the brokers when this process ends, however it ends.
//!
//! Neither `Drop` nor a signal handler is enough: tests keep a sandbox in a `static`, which is never
//! dropped, and SIGKILL runs no handler. A pipe's end is closed by the system in every case, so the
//! guard is a small shell that reads from a pipe of which we hold the other end.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result};

/// Ends the brokers when dropped, and waits for it; dismissed, it leaves them alone.
pub(super) struct Guard {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Guard {
    /// A guard that will run `script`, with `args` as its positional parameters.
    pub(super) fn new(script: &str, args: &[String]) -> Result<Guard> {
        // A line on the pipe dismisses it; the mere end of the pipe does not.
        let script = format!("trap '' HUP INT TERM\nif read -r line; then exit; fi\n{script}");
        let mut shell = Command::new("sh")
            .args(["-c", &script, "guard"])
            .args(args)
            .current_dir("/")
            // Ctrl-C goes to the terminal's whole process group: the guard is to outlive us.
            .process_group(0)
            .stdin(Stdio::piped())
            // Held open, our own output would not end for who reads it.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("the guard of the brokers needs a POSIX shell named `sh`")?;
        let pipe = shell.stdin.take();
        Ok(Guard { shell, pipe })
    }

    /// Lets the brokers live.
    pub(super) fn dismiss(mut self) {
        if let Some(pipe) = self.pipe.as_mut() {
            // Fails when somebody ended the guard: then it is dismissed already.
            let _ = pipe.write_all(b"keep\n");
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.shell.wait();
    }
}
