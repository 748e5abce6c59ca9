//! Decides how large transactions get: small at first, and larger while the broker is fast enough.
//!
//! A commit costs some milliseconds, so large transactions are cheaper. But if the broker cannot take a transaction
//! within its timeout, the whole transaction is lost.

use std::cell::Cell;
use std::time::Duration;

/// A transaction is committed when it reaches any of these limits. [`Pace`] lowers the one in bytes at first.
#[derive(Clone, Copy, Debug)]
pub struct TransactionLimits {
    pub records: usize,
    pub bytes: usize,
    pub time: Duration,
}

impl Default for TransactionLimits {
    /// Measured: a commit waits some 40 ms for the records that are still queued, so one commit a second costs little.
    fn default() -> TransactionLimits {
        TransactionLimits { records: 1_000_000, bytes: 256 << 20, time: Duration::from_secs(1) }
    }
}

/// Bytes of the first transaction. A broker that takes 180 kB a second needs 45 s for them.
const FIRST: usize = 8 << 20;
const LEAST: usize = 64 << 10;
/// The most bytes that a producer queues, so the most that a transaction may still have to send when it ends.
const QUEUED: usize = 64 << 20;
/// Transactions grow only if a commit takes less than this. That includes sending the records that were still queued.
const QUICK: Duration = Duration::from_millis(500);
const SLOW: Duration = Duration::from_secs(5);

/// The bounds of the next transaction, kept from one producer to the next.
#[derive(Debug)]
pub struct Pace {
    limits: TransactionLimits,
    /// The present limit in bytes, at most that of `limits`.
    bytes: Cell<usize>,
}

impl Pace {
    pub fn new(limits: TransactionLimits) -> Pace {
        Pace { limits, bytes: Cell::new(limits.bytes.min(FIRST)) }
    }

    pub fn is_full(&self, records: usize, bytes: usize) -> bool {
        records >= self.limits.records || bytes >= self.bytes.get()
    }

    pub fn is_due(&self, age: Duration) -> bool {
        age >= self.limits.time
    }

    /// Learns from a committed transaction of `bytes`. `took` is the time from its last record to its commit.
    pub fn committed(&self, bytes: usize, took: Duration) {
        let full = self.bytes.get();
        if took >= SLOW {
            self.bytes.set((full / 2).max(LEAST));
        } else if took < QUICK && bytes >= full {
            self.bytes.set((full * 4).min(self.limits.bytes));
        }
    }

    /// Learns that a transaction of `bytes` failed. The bytes that it had queued may have been too many.
    pub fn failed(&self, bytes: usize) {
        self.bytes.set((bytes.min(QUEUED) / 4).clamp(LEAST, self.bytes.get()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        Pace::new(TransactionLimits::default())
    }

    #[test]
    fn grows_to_its_limit_while_commits_are_quick() {
        let pace = pace();
        assert!(pace.is_full(1, FIRST) && !pace.is_full(1, FIRST - 1));
        for _ in 0..10 {
            pace.committed(pace.bytes.get(), Duration::from_millis(5));
        }
        assert_eq!(pace.bytes.get(), TransactionLimits::default().bytes);
    }

    #[test]
    fn stays_where_the_clock_ended_the_transaction() {
        let pace = pace();
        pace.committed(FIRST / 2, Duration::from_millis(5));
        pace.committed(FIRST, Duration::from_secs(1));
        assert_eq!(pace.bytes.get(), FIRST);
    }

    #[test]
    fn shrinks_when_slow_and_when_lost_but_not_to_nothing() {
        let pace = pace();
        pace.committed(FIRST, SLOW);
        assert_eq!(pace.bytes.get(), FIRST / 2);
        pace.failed(FIRST / 2);
        assert_eq!(pace.bytes.get(), FIRST / 8);
        for _ in 0..20 {
            pace.failed(0);
        }
        assert_eq!(pace.bytes.get(), LEAST);
        pace.failed(FIRST);
        assert_eq!(pace.bytes.get(), LEAST, "a failure lets nothing grow");
    }
}
