//! A secret that a command of the user's prints, such as `pass show kafka`.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::base::error::{Error, Reason, Result};
use crate::base::interrupt::Interrupt;

/// How often to look whether the command has ended, or whether a signal came.
const STEP: Duration = Duration::from_millis(10);
/// How long the command may take to end when it is told to, and its stderr to close after its end.
const GRACE: Duration = Duration::from_secs(1);
/// 128 + SIGINT: a shell's exit code if Ctrl-C ended what it ran.
const INTERRUPTED: i32 = 130;

/// What the command for `key` prints, without the line feed at its end.
///
/// # Errors
/// [`Error::Failed`] if it fails or prints nothing; [`Error::Interrupted`] if a signal came. The command is ended then.
pub(super) fn printed_by(key: &str, command: &str, interrupt: &Interrupt) -> Result<String> {
    let failed = |told: &str| {
        let told = format!("{}, which gives {key}, {told}", shown(command));
        Error::failed(told).because(Reason::NoSecret)
    };
    // With a terminal, the command may ask its user there, so it must stay in the terminal's foreground. Without one, a
    // group of its own makes it possible to end all that it starts.
    let has_terminal = std::fs::File::open("/dev/tty").is_ok();
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdout(Stdio::piped()).stderr(Stdio::piped());
    if !has_terminal {
        shell.process_group(0);
    }
    let mut child = shell.spawn().map_err(|err| failed(&format!("could not be run: {err}")))?;
    let stdout = read(child.stdout.take(), false);
    let stderr = read(child.stderr.take(), true);
    let mut printed = None;
    let status = loop {
        if interrupt.is_set() {
            end(&mut child, has_terminal);
            return Err(Error::Interrupted);
        }
        printed = printed.or_else(|| stdout.try_recv().ok());
        match child.try_wait().map_err(|err| failed(&err.to_string()))? {
            Some(status) if printed.is_some() || !status.success() => break status,
            _ => std::thread::sleep(STEP),
        }
    };
    // Ctrl-C reaches both, and the command may hear of it first.
    if status.signal() == Some(libc::SIGINT) || status.code() == Some(INTERRUPTED) {
        return Err(Error::Interrupted);
    }
    if !status.success() {
        // What the command has started may live on and hold its stderr.
        let told = stderr.recv_timeout(GRACE).unwrap_or_default();
        let told = String::from_utf8_lossy(&told);
        let last = told.lines().map(str::trim).rfind(|line| !line.is_empty());
        return Err(failed(&format!(
            "failed ({status}){}",
            last.map_or_else(String::new, |line| format!(": {line}"))
        )));
    }
    let text = String::from_utf8(printed.unwrap_or_default()).map_err(|_| failed("printed no UTF-8"))?;
    let value = text.strip_suffix('\n').unwrap_or(&text);
    if value.is_empty() { Err(failed("printed nothing")) } else { Ok(value.to_owned()) }
}

/// The program that the command runs. The rest of it may hold a secret.
fn shown(command: &str) -> String {
    let first = command.split_whitespace().next().unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    match first.bytes().all(is_plain) {
        true => format!("the command `{first} …`"),
        false => "the command".to_owned(),
    }
}

/// Reads up to the end, and passes on what comes to our own stderr if wanted.
fn read(pipe: Option<impl Read + Send + 'static>, passes_on: bool) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let (mut all, mut part) = (Vec::new(), [0; 4096]);
        if let Some(mut pipe) = pipe {
            loop {
                let count = match pipe.read(&mut part) {
                    Err(err) if err.kind() == ErrorKind::Interrupted => continue,
                    Ok(0) | Err(_) => break,
                    Ok(count) => count,
                };
                all.extend(&part[..count]);
                if passes_on {
                    // If our own stderr is closed, nobody reads it.
                    let _ = std::io::stderr().write_all(&part[..count]);
                }
            }
        }
        // Nobody may wait for it any more.
        let _ = sender.send(all);
    });
    receiver
}

/// Ends the command, and without a terminal also what it has started. With a terminal, Ctrl-C has reached them already.
fn end(child: &mut Child, has_terminal: bool) {
    let of_group = if has_terminal { child.id().to_string() } else { format!("-{}", child.id()) };
    let signal = |name: &str| {
        let kill = format!("kill -s {name} -- {of_group}");
        // It fails if the command has ended by itself.
        let _ = Command::new("sh").args(["-c", &kill]).stderr(Stdio::null()).status();
    };
    signal("TERM");
    let told = Instant::now();
    while told.elapsed() < GRACE {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(STEP);
    }
    signal("KILL");
}
