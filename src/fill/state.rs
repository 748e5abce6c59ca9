//! The state of a run, from one start-up to the next.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use super::follow::Live;
use super::share::Joined;
use super::tell::Told;
use crate::base::error::{Error, Result};
use crate::base::interrupt::Interrupt;
use crate::base::progress::Progress;
use crate::base::range::Range;
use crate::fill::consequences::Foresight;
use crate::fill::receipt::{Counts, Receipt};
use crate::job::identity::Fingers;
use crate::job::names::Names;
use crate::job::{Job, Mode};
use crate::judge::elsewhen::SecondLook;
use crate::kafka::member::Member;
use crate::kafka::pace::Pace;
use crate::kafka::position::Position;
use crate::kafka::producer::Transaction;
use crate::kafka::restart::Restarts;
use crate::kafka::watermarks::Watermarks;

/// What steers a run. [`Told`] holds what the receipt will say; the run also reads its counts.
pub(super) struct Run<'a> {
    pub(super) job: &'a Job,
    pub(super) mode: Mode,
    pub(super) progress: Progress,
    pub(super) interrupt: &'a Interrupt,
    pub(super) fingers: Fingers,
    pub(super) restarts: Restarts,
    pub(super) pace: Rc<Pace>,
    /// The transaction whose commit got no answer. The next start-up finds out whether it was committed.
    pub(super) in_doubt: Option<InDoubt>,
    /// The target as the first scan found it. At the end, the run checks what was added since then.
    pub(super) first: Option<FirstScan>,
    /// The target may hold a record of the window with another timestamp. The next start-up decides this before it writes.
    pub(super) is_suspicious: bool,
    pub(super) second: Option<SecondLook>,
    /// Only in a plan.
    pub(super) foresight: Option<Foresight<'a>>,
    /// The number of records and markers that this run added to each partition of the target.
    pub(super) written: Vec<Added>,
    /// The partitions for which this run committed positions.
    pub(super) advanced: BTreeSet<i32>,
    /// `--limit` ended the run before the window's end.
    pub(super) is_stopped: bool,
    /// Used only with `--scale-out` or `--follow`, like `joined`.
    pub(super) member: Option<Member>,
    pub(super) joined: Joined,
    /// Used only with `--follow`.
    pub(super) live: Live,
    pub(super) told: Told,
    /// Who hears on the way what the receipt would say.
    pub(super) tell: Option<&'a dyn Fn(Receipt)>,
}

/// A transaction whose commit got no answer.
pub(super) struct InDoubt {
    pub(super) positions: Vec<Position>,
    pub(super) counts: Counts,
}

/// The topics as the first scan found them.
pub(super) struct FirstScan {
    /// Where the scan began, and where the target ended.
    pub(super) ranges: Vec<Range>,
    /// The offset of the first record that was compared, in each partition.
    pub(super) firsts: Vec<i64>,
    /// Where the window began in the source. If timestamps are not compared, where the source began.
    pub(super) source_starts: Vec<i64>,
}

/// The watermarks of both topics, as the start-up found them.
pub(super) struct Snapshot {
    pub(super) source: Vec<Watermarks>,
    pub(super) target: Vec<Watermarks>,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        job: &'a Job,
        mode: Mode,
        progress: Progress,
        interrupt: &'a Interrupt,
        fingers: Fingers,
    ) -> Run<'a> {
        Run {
            job,
            mode,
            progress,
            interrupt,
            fingers,
            restarts: Restarts::new(match job.follow {
                // A cluster that is away never ends a follow.
                Some(_) => Duration::MAX,
                None => job.selection.patience,
            }),
            pace: Rc::new(Pace::new(job.limits)),
            in_doubt: None,
            first: None,
            is_suspicious: false,
            second: None,
            foresight: None,
            written: Vec::new(),
            advanced: BTreeSet::new(),
            is_stopped: false,
            member: None,
            joined: Joined::default(),
            live: Live::default(),
            told: Told { names: Names::from(&job.selection), ..Told::default() },
            tell: None,
        }
    }
}

impl Run<'_> {
    /// Takes note of a commit that failed. `sent` are the positions of its transaction, if it got that far.
    pub(super) fn failed_commit(&mut self, err: &Error, sent: Option<Vec<Position>>, counts: Counts) {
        // A transaction that has no marks yet was not committed.
        match sent.filter(|_| matches!(err, Error::Restart { .. })) {
            Some(positions) => self.in_doubt = Some(InDoubt { positions, counts }),
            None => self.told.aborted_transactions += 1,
        }
    }

    /// Ends the transaction that is still open when the work ends with the error `result`, and returns that error.
    ///
    /// # Errors
    /// As [`Transaction::abort_after`].
    pub(super) fn abandon(&mut self, transaction: Transaction<'_>, result: Result<()>) -> Result<()> {
        self.told.aborted_transactions += 1;
        match result {
            // The transaction's state is unknown, so the next `init_transactions` aborts it.
            Err(Error::Restart { .. } | Error::Fenced(_)) => result,
            // If another run has fenced this one, the abort fails and says so. A new start-up would fence that other run
            // in turn.
            Err(Error::LookAgain) => {
                transaction.abort()?;
                result
            }
            result => transaction.abort_after(result),
        }
    }
}

/// The number of records and markers that this run added to a partition of the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Added {
    pub(super) records: i64,
    /// A committed transaction leaves one marker in each partition that it wrote to.
    markers: i64,
    in_transaction: bool,
}

impl Added {
    /// A record of the open transaction.
    pub(super) fn send(&mut self) {
        self.records += 1;
        self.in_transaction = true;
    }

    /// The open transaction is committed.
    pub(super) fn commit(&mut self) {
        self.markers += i64::from(std::mem::take(&mut self.in_transaction));
    }

    pub(super) fn offsets(self) -> i64 {
        self.records + self.markers
    }

    /// Whether the partition `grew` by no more offsets than this run added.
    pub(super) fn explains(self, grew: i64) -> bool {
        grew <= self.offsets()
    }
}
