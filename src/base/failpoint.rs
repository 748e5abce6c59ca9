//! Faults that tests inject: points where the process dies, and rules that it breaks.
//!
//! The environment variable `FAILPOINTS` activates them, in the syntax of the crate `fail`. They work only if that
//! crate's feature `failpoints` is on, as in `cargo test`. Other builds contain nothing of them.

use crate::base::error::{Error, Result};

/// A rule of the protocol. A test breaks it to prove that the drill notices.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    /// A run does not write what the target already holds.
    Dedup,
    /// A run reads committed records only.
    ReadCommitted,
    /// After a commit with unknown outcome, a run continues from the committed offsets.
    ResumeFromCommitted,
    /// A run commits offsets in the same transaction as the records.
    OffsetsInTransaction,
    /// A producer that lost a connection in a transaction begins no further transaction.
    ReplaceProducer,
    /// With two clusters, a run keeps its positions in the target's.
    PositionsInTarget,
    /// Instances subscribe to the topic whose offsets they commit.
    SubscribedLedger,
    /// A run takes the target's ends before the source's.
    TargetEndsFirst,
    /// A run commits nothing, and is not done, if a topic was made anew.
    SameTopics,
    /// A run without a mark scans the target.
    ScanWithoutMark,
    /// A follow commits the place behind the last record that it copied.
    FollowPosition,
    /// An instance vouches only for keys that stand where they belong.
    VouchForPlaced,
    /// A run takes over its transactional id before it looks at anything.
    TakeOverFirst,
    /// All runs of a job have one transactional id.
    OneId,
    /// The ends are high watermarks.
    HighWatermarks,
    /// A run trusts only marks of its own job.
    OwnMarks,
    /// A run is not done before it has looked for what others added.
    LookForOthers,
}

/// Whether a test makes the process break `rule`.
pub(crate) fn breaks(rule: Rule) -> bool {
    armed(match rule {
        Rule::Dedup => "break-dedup",
        Rule::ReadCommitted => "break-read-committed",
        Rule::ResumeFromCommitted => "break-resume-from-committed",
        Rule::OffsetsInTransaction => "break-offsets-in-transaction",
        Rule::ReplaceProducer => "break-replace-producer",
        Rule::PositionsInTarget => "break-positions-in-target",
        Rule::SubscribedLedger => "break-subscribed-ledger",
        Rule::TargetEndsFirst => "break-target-ends-first",
        Rule::SameTopics => "break-same-topics",
        Rule::ScanWithoutMark => "break-scan-without-mark",
        Rule::FollowPosition => "break-follow-position",
        Rule::VouchForPlaced => "break-vouch-for-placed",
        Rule::TakeOverFirst => "break-take-over-first",
        Rule::OneId => "break-one-id",
        Rule::HighWatermarks => "break-high-watermarks",
        Rule::OwnMarks => "break-own-marks",
        Rule::LookForOthers => "break-look-for-others",
    })
    .is_some()
}

/// Kills the process here if a test wants it. Nothing is flushed, aborted or dropped.
pub(crate) fn instant(name: &str) {
    if armed(name).is_some() {
        die();
    }
}

/// `number`, or the smaller number that a test sets instead.
pub(crate) fn number(name: &str, number: usize) -> usize {
    armed(name).and_then(|smaller| smaller.parse().ok()).unwrap_or(number)
}

/// Makes a transaction fail here if a test wants it. The next start-up aborts the transaction.
///
/// # Errors
/// [`Error::Restart`], if a test wants it.
pub(crate) fn outcome() -> Result<()> {
    armed("abort").map_or(Ok(()), |_| Err(Error::restart("a test aborts the transaction")))
}

/// The value that a test gives the failpoint `name`; `None` if the failpoint is not active.
#[cfg(feature = "lab")]
fn armed(name: &str) -> Option<String> {
    use std::sync::LazyLock;
    // Asking for each failpoint by name would take as long as copying a record.
    static ARE_ARMED: LazyLock<bool> = LazyLock::new(|| std::env::var_os("FAILPOINTS").is_some());
    if !fail::has_failpoints() || !*ARE_ARMED {
        // Without the feature `failpoints`, `fail_point!` does not use its arguments.
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
