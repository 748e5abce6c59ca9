//! Decides whether a run starts up again after an unknown outcome. The run gives up after a while without a commit, and
//! pauses longer before each start-up.

use std::time::{Duration, Instant};

use crate::base::error::{Error, Reason, Result};
use crate::base::interrupt::Interrupt;

/// A run tries at least this many start-ups, however long each takes.
const AT_LEAST: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A job that starts up again after a failure of unknown outcome: a fill, a load, a sink.
pub(crate) trait StartUp {
    /// The connections that one start-up works with.
    type Connection;

    fn connect(&self) -> Result<Self::Connection>;

    /// One start-up, and all the work that follows it.
    fn attempt(&mut self, connection: &Self::Connection) -> Result<()>;

    /// Takes the result of an attempt. Returns the result of the whole job; or `None`, after a pause, if the job must
    /// start up again.
    fn take(&mut self, result: Result<()>) -> Option<Result<()>>;

    /// Whether the job has written something, or may have.
    fn has_written(&self) -> bool;
}

/// Starts `job` up until it is done, or until there is no hope.
///
/// # Errors
/// As [`StartUp::attempt`], but never [`Error::Restart`]. A refusal becomes [`Error::Failed`] once the job has written,
/// because [`Error::Refused`] promises that nothing was.
pub(crate) fn until_done<J: StartUp>(job: &mut J, mut connection: J::Connection) -> Result<()> {
    let result = loop {
        let result = job.attempt(&connection);
        if let Some(result) = job.take(result) {
            break result;
        }
        // A client that saw a partition without a leader may say so for minutes.
        match job.connect() {
            Ok(connected) => connection = connected,
            Err(err) => break Err(err),
        }
    };
    match result {
        Err(Error::Refused(why)) if job.has_written() => Err(Error::Failed(why)),
        Err(Error::Restart { why, .. }) => Err(Error::failed(why)),
        result => result,
    }
}

/// Counts the start-ups of a run that writes in transactions, and decides when to give up.
#[derive(Debug)]
pub(crate) struct Restarts {
    pub count: u64,
    /// How long to continue without a committed transaction.
    patience: Duration,
    /// Start-ups in a row that committed no transaction.
    failed: u32,
    /// When the first of these failed.
    since: Instant,
    /// How many transactions were committed when the last start-up ended.
    committed: u64,
    /// Calls that the run stopped waiting for. Each may reach the coordinator after a new init, and fence its producer.
    abandoned: u32,
}

impl Restarts {
    pub(crate) fn new(patience: Duration) -> Restarts {
        Restarts { count: 0, patience, failed: 0, since: Instant::now(), committed: 0, abandoned: 0 }
    }

    /// Sets the count of failed start-ups back to zero.
    pub(crate) fn settle(&mut self) {
        self.failed = 0;
    }

    /// As [`StartUp::take`], with the number of transactions that the run has `committed` so far.
    pub(crate) fn take(
        &mut self,
        result: Result<()>,
        committed: u64,
        interrupt: &Interrupt,
    ) -> Option<Result<()>> {
        let why = match result {
            Err(Error::Restart { why, abandoned }) => {
                self.abandoned += u32::from(abandoned);
                why
            }
            Err(Error::Fenced(why)) if self.abandoned > 0 => {
                self.abandoned -= 1;
                why
            }
            result => return Some(result),
        };
        if committed > self.committed || self.failed == 0 {
            (self.failed, self.since) = (0, Instant::now());
        }
        self.failed += 1;
        self.committed = committed;
        if self.failed >= AT_LEAST && self.since.elapsed() >= self.patience {
            let check = match why.reason() {
                Some(Reason::SchemaRegistry) => "",
                _ => "; check whether the brokers are up, and run again",
            };
            return Some(Err(Error::failed(format!(
                "no transaction could be committed for {} s in {} start-ups; the last one ended with: {why}{check}",
                self.since.elapsed().as_secs(),
                self.failed
            ))
            .because(why.reason().unwrap_or(Reason::NoProgress))));
        }
        if interrupt.is_set() {
            return Some(Err(Error::failed(format!(
                "interrupted while a transaction's outcome was unknown ({why}): if it is open, the broker aborts it \
                 soon, and a next run aborts it at once"
            ))));
        }
        self.count += 1;
        tracing::warn!("starting up again: {why}");
        std::thread::sleep(FIRST_PAUSE.saturating_mul(1 << (self.failed - 1).min(10)).min(LONGEST_PAUSE));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(abandoned: bool) -> Result<()> {
        Err(Error::Restart { why: "a test".into(), abandoned })
    }

    #[test]
    fn gives_up_after_start_ups_failed_only() {
        let (mut restarts, interrupt) = (Restarts::new(Duration::ZERO), Interrupt::default());
        for committed in 1..5 {
            assert!(restarts.take(unknown(false), committed, &interrupt).is_none());
        }
        let ended = (0..AT_LEAST).find_map(|_| restarts.take(unknown(false), 4, &interrupt));
        assert!(matches!(ended, Some(Err(Error::Failed(_)))));
        assert_eq!(restarts.count, 4 + u64::from(AT_LEAST) - 2);
    }

    #[test]
    fn does_not_give_up_before_its_patience_is_over() {
        let (mut restarts, interrupt) = (Restarts::new(Duration::from_secs(3600)), Interrupt::default());
        assert!((0..AT_LEAST).all(|_| restarts.take(unknown(false), 0, &interrupt).is_none()));
    }

    #[test]
    fn one_fence_after_an_abandoned_call_is_our_own() {
        let (mut restarts, interrupt) = (Restarts::new(Duration::from_secs(3600)), Interrupt::default());
        let fenced = || Err(Error::fenced("a test"));
        assert!(matches!(restarts.take(fenced(), 0, &interrupt), Some(Err(Error::Fenced(_)))));
        assert!(restarts.take(unknown(true), 0, &interrupt).is_none());
        assert!(restarts.take(fenced(), 1, &interrupt).is_none());
        assert!(matches!(restarts.take(fenced(), 1, &interrupt), Some(Err(Error::Fenced(_)))));
    }

    #[test]
    fn an_interrupt_ends_it() {
        let (mut restarts, interrupt) = (Restarts::new(Duration::from_secs(3600)), Interrupt::default());
        interrupt.set();
        assert!(matches!(restarts.take(unknown(false), 0, &interrupt), Some(Err(Error::Failed(_)))));
    }
}
