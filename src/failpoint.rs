//! Faults from within, for tests: instants at which a process dies, and rules that it is made to break.
//!
//! `FAILPOINTS` in the environment sets them off, in the syntax of the crate `fail`, and only where its
//! feature `failpoints` is on, as in `cargo test`. Elsewhere nothing is left of them.

#![allow(unused, reason = "without its feature, `fail_point!` leaves nothing of its arguments")]

use std::sync::LazyLock;

use fail::fail_point;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{CommitMode, Consumer};

use crate::client::Isolation;
use crate::error::{Error, Result};
use crate::job::Selection;

/// Whether any is set off: to ask for each of them by name would take as long as a record does.
fn are_armed() -> bool {
    static ARE_ARMED: LazyLock<bool> = LazyLock::new(|| std::env::var_os("FAILPOINTS").is_some());
    fail::has_failpoints() && *ARE_ARMED
}

/// A rule of the protocol, for a test to break: a drill that does not find that out is worth nothing.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
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
pub fn breaks(rule: Rule) -> bool {
    if !are_armed() {
        return false;
    }
    let name = match rule {
        Rule::Dedup => "break-dedup",
        Rule::ReadCommitted => "break-read-committed",
        Rule::ResumeFromCommitted => "break-resume-from-committed",
        Rule::OffsetsInTransaction => "break-offsets-in-transaction",
        Rule::ReplaceProducer => "break-replace-producer",
    };
    fail_point!(name, |_| true);
    false
}

/// An instant at which a test may have the process die: nothing is flushed, aborted or dropped.
pub fn instant(name: &str) {
    if !are_armed() {
        return;
    }
    fail_point!(name, |_| {
        let _ = kill(Pid::this(), Signal::SIGKILL);
        std::process::abort()
    });
}

/// A number that a test may have smaller than it is.
pub fn number(name: &str, number: usize) -> usize {
    if are_armed() {
        fail_point!(name, |smaller| smaller.and_then(|text| text.parse().ok()).unwrap_or(number));
    }
    number
}

/// An instant at which a test may have a transaction fail, to be aborted by the next start-up.
///
/// # Errors
/// [`Error::Restart`], if a test wants it.
pub fn outcome() -> Result<()> {
    fail_point!("abort", |_| Err(Error::restart("a test aborts the transaction")));
    Ok(())
}

/// Commits offsets as an ordinary consumer does, for [`Rule::OffsetsInTransaction`].
pub fn commit_outside(selection: &Selection, offsets: &TopicPartitionList) {
    if let Ok(consumer) = selection.properties.consumer(&selection.name(), Isolation::ReadCommitted) {
        let _ = consumer.commit(offsets, CommitMode::Sync);
    }
}
