//! Starting up again, the one way out of an unknown outcome: bounded, and ever slower.

use std::time::{Duration, Instant};

use crate::base::error::{Error, Reason, Result};
use crate::base::interrupt::Interrupt;

/// Start-ups that are tried in any case, however long each takes.
const AT_LEAST: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Counts the start-ups of one run.
#[derive(Debug)]
pub(crate) struct Restarts {
    pub count: u64,
    /// How long to go on without a committed transaction.
    patience: Duration,
    in_vain: u32,
    /// When the first start-up in vain failed.
    since: Instant,
    /// Transactions that were committed when the last start-up ended.
    committed: u64,
    /// Calls that were given up on: each may reach the coordinator after a new init, and fence its producer.
    abandoned: u32,
}

impl Restarts {
    pub(crate) fn new(patience: Duration) -> Restarts {
        Restarts { count: 0, patience, in_vain: 0, since: Instant::now(), committed: 0, abandoned: 0 }
    }

    /// What failed before was not in vain.
    pub(crate) fn settle(&mut self) {
        self.in_vain = 0;
    }

    /// Takes how a start-up and all after it ended, with the run's `committed` transactions so far: the
    /// run's result, or `None` where it is to start up again, after a pause.
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
        if committed > self.committed || self.in_vain == 0 {
            (self.in_vain, self.since) = (0, Instant::now());
        }
        self.in_vain += 1;
        self.committed = committed;
        if self.in_vain >= AT_LEAST && self.since.elapsed() >= self.patience {
            return Some(Err(Error::failed(format!(
                "no transaction could be committed for {} s, in {} start-ups, the last one of which ended with: {why}; \
                 see whether the brokers are up, and run again",
                self.since.elapsed().as_secs(),
                self.in_vain
            ))
            .because(why.reason().unwrap_or(Reason::NoProgress))));
        }
        if interrupt.is_set() {
            return Some(Err(Error::failed(format!(
                "interrupted while a transaction's outcome was unknown ({why}): if it is open, the broker aborts it \
                 soon, or the next run at once"
            ))));
        }
        self.count += 1;
        tracing::warn!("starting up again: {why}");
        std::thread::sleep(FIRST_PAUSE.saturating_mul(1 << (self.in_vain - 1).min(10)).min(LONGEST_PAUSE));
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
    fn gives_up_after_start_ups_in_vain_only() {
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
