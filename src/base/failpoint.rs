//! Faults from within, for tests: instants at which a process dies, and rules that it is made to break.
//!
//! `FAILPOINTS` in the environment sets them off, in the syntax of the crate `fail`, and only where its
//! feature `failpoints` is on, as in `cargo test`. Elsewhere nothing is left of them.

use crate::base::error::{Error, Result};

/// A rule of the protocol, for a test to break: a drill that does not find that out is worth nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    /// What the target holds is not written again.
    Dedup,
    /// Only committed records are read.
    ReadCommitted,
    /// After a commit of unknown outcome, the committed offsets tell where to go on.
    ResumeFromCommitted,
    /// Offsets are committed in the records' transaction.
    OffsetsInTransaction,
    /// A producer that lost a connection in a transaction begins no other one.
    ReplaceProducer,
}

/// Whether a test has the process break `rule`.
pub(crate) fn breaks(rule: Rule) -> bool {
    armed(match rule {
        Rule::Dedup => "break-dedup",
        Rule::ReadCommitted => "break-read-committed",
        Rule::ResumeFromCommitted => "break-resume-from-committed",
        Rule::OffsetsInTransaction => "break-offsets-in-transaction",
        Rule::ReplaceProducer => "break-replace-producer",
    })
    .is_some()
}

/// An instant at which a test may have the process die: nothing is flushed, aborted or dropped.
pub(crate) fn instant(name: &str) {
    if armed(name).is_some() {
        die();
    }
}

/// A number that a test may have smaller than it is.
pub(crate) fn number(name: &str, number: usize) -> usize {
    armed(name).and_then(|smaller| smaller.parse().ok()).unwrap_or(number)
}

/// An instant at which a test may have a transaction fail, to be aborted by the next start-up.
///
/// # Errors
/// [`Error::Restart`], if a test wants it.
pub(crate) fn outcome() -> Result<()> {
    armed("abort").map_or(Ok(()), |_| Err(Error::restart("a test aborts the transaction")))
}

/// What a test gives the failpoint `name`; `None` where it is not set off.
#[cfg(feature = "lab")]
fn armed(name: &str) -> Option<String> {
    use std::sync::LazyLock;
    // To ask for each of them by name would take as long as a record does.
    static ARE_ARMED: LazyLock<bool> = LazyLock::new(|| std::env::var_os("FAILPOINTS").is_some());
    if !fail::has_failpoints() || !*ARE_ARMED {
        // Without that feature, `fail_point!` leaves nothing of its arguments.
        let _ = name;
        return None;
    }
    fail::fail_point!(name, |given: Option<String>| Some(given.unwrap_or_default()));
    None
}

#[cfg(not(feature = "lab"))]
fn armed(_: &str) -> Option<String> {
    None
}

#[cfg(feature = "lab")]
fn die() {
    use nix::sys::signal::{Signal, kill};
    let _ = kill(nix::unistd::Pid::this(), Signal::SIGKILL);
    std::process::abort()
}

#[cfg(not(feature = "lab"))]
fn die() {}
