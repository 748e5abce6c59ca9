//! Starting up again, the one way out of an unknown outcome: bounded, and ever slower.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::interrupt::Interrupt;

/// Start-ups without a committed transaction between them, before a run gives up.
const IN_VAIN: u32 = 8;
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Counts the start-ups of one run.
#[derive(Debug)]
pub struct Restarts {
    pub count: u64,
    in_vain: u32,
    /// Transactions that were committed when the last start-up ended.
    committed: u64,
    /// Calls that were given up on: each may reach the coordinator after a new init, and fence its producer.
    abandoned: u32,
    /// Doubled with each start-up in vain.
    pause: Duration,
}

impl Default for Restarts {
    fn default() -> Restarts {
        Restarts { count: 0, in_vain: 0, committed: 0, abandoned: 0, pause: Duration::from_millis(200) }
    }
}

impl Restarts {
    /// Takes how a start-up and all after it ended, with the run's `committed` transactions so far: the
    /// run's result, or `None` where it is to start up again, after a pause.
    pub fn take(&mut self, result: Result<()>, committed: u64, interrupt: &Interrupt) -> Option<Result<()>> {
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
        self.in_vain = if committed > self.committed { 0 } else { self.in_vain + 1 };
        self.committed = committed;
        if self.in_vain >= IN_VAIN {
            return Some(Err(Error::Failed(format!(
                "{IN_VAIN} start-ups in a row ended without a committed transaction, the last one with: {why}; see \
                 whether the brokers are up, and run again"
            ))));
        }
        if interrupt.is_set() {
            return Some(Err(Error::Failed(format!(
                "interrupted while a transaction's outcome was unknown ({why}): if it is open, the broker aborts it \
                 soon, or the next run at once"
            ))));
        }
        self.count += 1;
        tracing::warn!("starting up again, since the outcome is unknown: {why}");
        std::thread::sleep((self.pause * (1 << self.in_vain)).min(LONGEST_PAUSE));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(abandoned: bool) -> Result<()> {
        Err(Error::Restart { why: "a test".into(), abandoned })
    }

    fn at_once() -> Restarts {
        Restarts { pause: Duration::ZERO, ..Restarts::default() }
    }

    #[test]
    fn gives_up_after_start_ups_in_vain_only() {
        let (mut restarts, interrupt) = (at_once(), Interrupt::default());
        for committed in 1..10 {
            assert!(restarts.take(unknown(false), committed, &interrupt).is_none());
        }
        let ended = (0..IN_VAIN).find_map(|_| restarts.take(unknown(false), 9, &interrupt));
        assert!(matches!(ended, Some(Err(Error::Failed(_)))));
        assert_eq!(restarts.count, 9 + u64::from(IN_VAIN) - 1);
    }

    #[test]
    fn one_fence_after_an_abandoned_call_is_our_own() {
        let (mut restarts, interrupt) = (at_once(), Interrupt::default());
        let fenced = || Err(Error::Fenced("a test".into()));
        assert!(matches!(restarts.take(fenced(), 0, &interrupt), Some(Err(Error::Fenced(_)))));
        assert!(restarts.take(unknown(true), 0, &interrupt).is_none());
        assert!(restarts.take(fenced(), 1, &interrupt).is_none());
        assert!(matches!(restarts.take(fenced(), 1, &interrupt), Some(Err(Error::Fenced(_)))));
    }

    #[test]
    fn an_interrupt_ends_it() {
        let (mut restarts, interrupt) = (at_once(), Interrupt::default());
        interrupt.set();
        assert!(matches!(restarts.take(unknown(false), 0, &interrupt), Some(Err(Error::Failed(_)))));
    }
}
