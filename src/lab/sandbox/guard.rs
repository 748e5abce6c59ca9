//! Ends the brokers, and the copiers that a drill runs, when this process ends, however it ends.
//!
//! Neither `Drop` nor a signal handler is enough: tests keep a sandbox in a `static`, which is never
//! dropped, and SIGKILL runs no handler. But in every case, the system closes our end of a pipe. So the guard is a
//! small shell that reads from a pipe whose other end we hold.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result};

/// If it is dropped, it ends the brokers and waits until they have ended. If it is dismissed, it leaves them alone.
pub(crate) struct Guard {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Guard {
    /// A guard that will run `script`, with `args` as its positional parameters.
    pub(crate) fn new(script: &str, args: &[String]) -> Result<Guard> {
        // A line on the pipe dismisses the guard. The end of the pipe without a line does not.
        let script = format!("trap '' HUP INT TERM\nif read -r line; then exit; fi\n{script}");
        let mut shell = Command::new("sh")
            .args(["-c", &script, "guard"])
            .args(args)
            .current_dir("/")
            // Ctrl-C goes to the terminal's whole process group, but the guard must outlive this process.
            .process_group(0)
            .stdin(Stdio::piped())
            // If the shell held our own output open, its reader would never see the end.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("the guard of what this process starts needs a POSIX shell named `sh`")?;
        let pipe = shell.stdin.take();
        Ok(Guard { shell, pipe })
    }

    /// Lets the brokers live.
    pub(super) fn dismiss(mut self) {
        if let Some(pipe) = self.pipe.as_mut() {
            // This fails if somebody has ended the guard. Then it is dismissed already.
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
