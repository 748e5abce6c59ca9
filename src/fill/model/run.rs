//! A run of the program: what it does next, and what it knows. What the program decides, its own functions decide here too
//! (`start.rs`, `copy.rs`).

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::Mutant;
use super::alike::{Alike, hash_positions, of_job};
use super::cluster::PARTITIONS;
use crate::fill::close::is_counted;
use crate::fill::state::Added;
use crate::kafka::mark::Committed;
use crate::kafka::position::Position;

/// What a run does next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// There is no process, or it has done nothing.
    #[default]
    Begin,
    Init,
    Positions,
    TargetEnds,
    SourceEnds,
    TargetStable,
    SourceStable,
    Scan,
    Copy,
    /// Ends the transaction.
    End,
    /// Takes the target's ends.
    Grown,
    /// Waits until it is readable up to these, and takes the ends again.
    Readable,
    /// Waits once more, and looks for records of others.
    Check,
    /// Sends closed marks.
    Close,
    CloseEnd,
    Done,
    Fenced,
    Failed,
}

impl Phase {
    pub(super) fn is_end(self) -> bool {
        matches!(self, Phase::Done | Phase::Fenced | Phase::Failed)
    }
}

/// The start-up, as in `attempt`.
const ORDER: &[Phase] = &[
    Phase::Init,
    Phase::Positions,
    Phase::TargetEnds,
    Phase::SourceEnds,
    Phase::TargetStable,
    Phase::SourceStable,
    Phase::Scan,
];

/// The start-up of this program, or of a mutant.
pub(super) fn order(mutant: Option<Mutant>) -> Vec<Phase> {
    use Phase::{Init, Positions, Scan, SourceEnds, SourceStable, TargetEnds, TargetStable};
    match mutant {
        Some(Mutant::InitAfterScan) => {
            vec![Positions, TargetEnds, SourceEnds, TargetStable, SourceStable, Scan, Init]
        }
        Some(Mutant::PositionsBeforeInit) => {
            vec![Positions, Init, TargetEnds, SourceEnds, TargetStable, SourceStable, Scan]
        }
        Some(Mutant::TargetEndsBeforeInit) => {
            vec![TargetEnds, Init, Positions, SourceEnds, TargetStable, SourceStable, Scan]
        }
        Some(Mutant::SourceEndsFirst) => {
            vec![Init, Positions, SourceEnds, TargetEnds, TargetStable, SourceStable, Scan]
        }
        Some(Mutant::TargetNotStable) => vec![Init, Positions, TargetEnds, SourceEnds, SourceStable, Scan],
        Some(Mutant::SourceNotStable) => vec![Init, Positions, TargetEnds, SourceEnds, TargetStable, Scan],
        _ => ORDER.to_vec(),
    }
}

/// A process, or no process yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) phase: Phase,
    pub(super) epoch: u8,
    pub(super) committed: Vec<Option<Committed>>,
    pub(super) target_ends: Vec<u8>,
    pub(super) source_ends: Vec<u8>,
    /// The source's high watermarks at that time. They bound what is promised.
    pub(super) promised: Vec<u8>,
    pub(super) starts: Vec<u8>,
    pub(super) firsts: Vec<i64>,
    /// What the scan found: partitions and keys.
    pub(super) held: Vec<(u8, u8)>,
    /// The reader's positions in the source.
    pub(super) at: Vec<u8>,
    /// The positions that this start-up committed last.
    pub(super) saved: Vec<u8>,
    /// The client's view of its transaction: whether it is open, and which partitions it added.
    pub(super) is_begun: bool,
    pub(super) added: u8,
    pub(super) sent: Option<Arc<Vec<Position>>>,
    pub(super) is_spent: bool,
    /// The target's ends at the close.
    pub(super) now: Vec<u8>,
    /// Whether the scan found copies that the target holds twice.
    pub(super) tells_doubles: bool,
    /// Whether the close commits closed marks.
    pub(super) closes: bool,
    pub(super) process: Process,
}

/// What outlives a start-up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) first: Option<Vec<u8>>,
    pub(super) written: [Added; PARTITIONS],
    pub(super) in_doubt: Option<Arc<Vec<Position>>>,
    /// Whether some were. How many does not matter.
    pub(super) transactions: bool,
    pub(super) aborted: bool,
    pub(super) restarts: bool,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum How {
    Answered,
    /// It arrives, but its answer does not.
    Lost,
    /// It arrives at any later time, or never. The run gives up.
    Delayed,
    /// The connection breaks, and the client sends it again by itself. The first one arrives at any later time, or never.
    Twice,
}

impl Run {
    /// Starts up again. `in_doubt` are the positions whose commit got no answer.
    pub(super) fn restart(&mut self, in_doubt: Option<Arc<Vec<Position>>>, is_aborted: bool) {
        let mut process = std::mem::take(&mut self.process);
        process.restarts = true;
        process.aborted |= is_aborted;
        process.in_doubt = in_doubt.or(process.in_doubt);
        // From now on the run does not count what it adds.
        process.written = Default::default();
        *self = Run { process, ..Run::default() };
    }

    pub(super) fn finish(&mut self, phase: Phase) {
        let (promised, now) = match phase {
            Phase::Done => (std::mem::take(&mut self.promised), std::mem::take(&mut self.now)),
            _ => (Vec::new(), Vec::new()),
        };
        let tells_doubles = self.tells_doubles && phase == Phase::Done;
        *self = Run { phase, promised, now, tells_doubles, ..Run::default() };
    }

    /// As `alike.rs` says.
    pub(super) fn hash_alike<H: Hasher>(&self, alike: &Alike<'_>, into: &mut H) {
        let places = |offsets: &[u8]| -> Vec<u8> {
            offsets.iter().enumerate().map(|(partition, offset)| alike.place(partition, *offset)).collect()
        };
        (self.phase, alike.epoch(self.epoch)).hash(into);
        for committed in &self.committed {
            let committed = committed.as_ref();
            committed.map(|committed| (committed.position, of_job(&committed.metadata))).hash(into);
        }
        (places(&self.target_ends), &self.source_ends, &self.promised, &self.starts, &self.at).hash(into);
        (&self.held, &self.saved, self.is_begun, self.added, self.is_spent).hash(into);
        (places(&self.now), self.tells_doubles, self.closes).hash(into);
        let Process { first, written, in_doubt, transactions, aborted, restarts } = &self.process;
        (first.as_deref().map(places), transactions, aborted, restarts).hash(into);
        if is_counted((*restarts).into(), (*aborted).into()) {
            written.hash(into);
            for ends in [first.as_ref().unwrap_or(&self.target_ends), &self.now] {
                let grown = ends.iter().enumerate().map(|(partition, end)| alike.grown(partition, *end));
                grown.for_each(|grown| grown.hash(into));
            }
        }
        [&self.sent, in_doubt].into_iter().flatten().for_each(|positions| hash_positions(positions, into));
        (self.sent.is_some(), in_doubt.is_some()).hash(into);
    }

    /// Whether the process has done anything that dies with it.
    pub(super) fn is_alive(&self) -> bool {
        !self.phase.is_end() && *self != Run::default()
    }

    pub(super) fn partitions_to_read(&self) -> BTreeSet<usize> {
        match self.phase {
            Phase::Copy => (0..PARTITIONS).filter(|p| self.at[*p] < self.source_ends[*p]).collect(),
            _ => BTreeSet::new(),
        }
    }
}
