//! The part of Kafka on which the proof rests: logs with markers, last stable offsets, and the coordinator of transactions
//! with its epochs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Mutant;
use crate::base::range::index;
use crate::kafka::mark::Committed;
use crate::kafka::position::Position;
use crate::kafka::watermarks::Watermarks;

/// The partitions of both topics.
pub(super) const PARTITIONS: usize = 2;
/// The log of the group's offsets, which stands behind those of the target's partitions.
pub(super) const LEDGER: usize = PARTITIONS;

/// Writes without transactions.
pub(super) const PLAIN: u8 = 8;
/// A transactional producer of somebody else.
pub(super) const FOREIGN: u8 = 9;

/// A record. In the target, it says whose copy it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Record {
    pub(super) key: u8,
    /// The offset of the original, in the partition of the same number.
    pub(super) origin: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum What {
    Record(Record),
    /// Offsets of the group, and which of the runs' jobs committed them.
    Positions(Arc<Vec<Position>>, u8),
    Marker {
        commit: bool,
    },
    /// Somebody deleted the group's offsets, or its ledger.
    Forgotten,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub(super) by: u8,
    pub(super) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Committed,
    Aborted,
    Open,
}

/// Entries by their offsets, and the newest epoch of each of the runs' producers that the leader has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Log {
    pub(super) entries: Vec<Entry>,
    pub(super) newest: [u8; 2],
}

impl Log {
    pub(super) fn end(&self) -> u8 {
        u8::try_from(self.entries.len()).expect("short")
    }

    /// A producer's next marker ends all that it wrote before.
    pub(super) fn fate(&self, offset: usize) -> Fate {
        let by = self.entries[offset].by;
        if by == PLAIN {
            return Fate::Committed;
        }
        let marker =
            self.entries[offset..].iter().filter(|entry| entry.by == by).find_map(|entry| match entry.what {
                What::Marker { commit } => Some(commit),
                _ => None,
            });
        match marker {
            Some(true) => Fate::Committed,
            Some(false) => Fate::Aborted,
            None => Fate::Open,
        }
    }

    /// The last stable offset.
    pub(super) fn stable(&self) -> u8 {
        let open = (0..self.entries.len()).find(|offset| self.fate(*offset) == Fate::Open);
        open.map_or(self.end(), |offset| u8::try_from(offset).expect("short"))
    }

    pub(super) fn watermarks(&self) -> Watermarks {
        Watermarks { low: 0, high: i64::from(self.end()), epoch: 0 }
    }

    pub(super) fn record(&self, offset: u8) -> Option<Record> {
        match self.entries.get(usize::from(offset))?.what {
            What::Record(record) => Some(record),
            _ => None,
        }
    }

    /// The records below `end` that a reader sees, with their offsets.
    pub(super) fn readable(&self, end: u8, read_committed: bool) -> impl Iterator<Item = (u8, Record)> + '_ {
        let sees = move |offset: &u8| !read_committed || self.fate(usize::from(*offset)) == Fate::Committed;
        (0..end.min(self.end())).filter(sees).filter_map(|offset| Some((offset, self.record(offset)?)))
    }

    /// A leader refuses what comes from an epoch older than the newest that it has seen of this producer.
    fn accepts(&self, by: u8, epoch: u8) -> bool {
        self.newest[usize::from(by)] <= epoch
    }

    pub(super) fn append(&mut self, by: u8, epoch: u8, what: What) {
        if let Some(newest) = self.newest.get_mut(usize::from(by)) {
            *newest = epoch;
        }
        self.entries.push(Entry { by, what });
    }

    /// The offsets that the group answers with. It does not count those of open transactions.
    pub(super) fn committed(&self) -> Vec<Option<Committed>> {
        let mut found = BTreeMap::new();
        for (offset, entry) in self.entries.iter().enumerate() {
            match &entry.what {
                What::Positions(positions, _) if self.fate(offset) == Fate::Committed => {
                    found.extend(
                        positions.iter().map(|position| (index(position.partition), position.into())),
                    );
                }
                What::Forgotten => found.clear(),
                _ => {}
            }
        }
        (0..PARTITIONS).map(|partition| found.remove(&partition)).collect()
    }
}

/// The state of a transactional id. Sets of logs are bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Transaction {
    #[default]
    None,
    Open(u8),
    /// The outcome is decided, and markers are still to be written to these logs.
    Ending {
        commit: bool,
        left: u8,
    },
}

/// What the coordinator knows of a transactional id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Coordinator {
    pub(super) epoch: u8,
    pub(super) transaction: Transaction,
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    /// `CONCURRENT_TRANSACTIONS`: the client asks again.
    Later,
    Fenced,
    /// The transaction is not what the client takes it for.
    Unfit,
}

/// A request that the network delays, or delivers once more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Request {
    Produce { partition: usize, record: Record },
    Offsets { positions: Arc<Vec<Position>>, job: u8 },
    End { commit: bool },
}

/// The cluster of the target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Target {
    /// Of the partitions, and behind them the group's.
    pub(super) logs: Vec<Log>,
    /// By transactional id. There is more than one only in a mutant.
    pub(super) coordinators: Vec<Coordinator>,
}

impl Target {
    /// `InitProducerId`. Ends the open transaction first, with an epoch that fences its producer.
    pub(super) fn init(&mut self, id: u8) -> (Answer, u8) {
        let coordinator = &mut self.coordinators[usize::from(id)];
        match coordinator.transaction {
            Transaction::Ending { .. } => return (Answer::Later, 0),
            Transaction::Open(left) => {
                coordinator.epoch += 1;
                coordinator.transaction = Transaction::Ending { commit: false, left };
                return (Answer::Later, 0);
            }
            Transaction::None => coordinator.epoch += 1,
        }
        (Answer::Done, coordinator.epoch)
    }

    /// `AddPartitionsToTxn`, `AddOffsetsToTxn`.
    pub(super) fn add(&mut self, id: u8, epoch: u8, log: usize) -> Answer {
        let coordinator = &mut self.coordinators[usize::from(id)];
        if coordinator.epoch != epoch {
            return Answer::Fenced;
        }
        coordinator.transaction = match coordinator.transaction {
            Transaction::Ending { .. } => return Answer::Later,
            Transaction::Open(logs) => Transaction::Open(logs | 1 << log),
            Transaction::None => Transaction::Open(1 << log),
        };
        Answer::Done
    }

    /// A request as it arrives, now or late. With KIP-890, a leader asks the coordinator whether the transaction is open,
    /// and the end of a transaction raises the epoch.
    pub(super) fn take(&mut self, id: u8, epoch: u8, request: &Request, has_kip_890: bool) -> Answer {
        let coordinator = self.coordinators[usize::from(id)];
        let (log, what) = match request {
            Request::End { commit } => return self.end(id, epoch, *commit, has_kip_890),
            Request::Produce { partition, record } => (*partition, What::Record(*record)),
            Request::Offsets { positions, job } => (LEDGER, What::Positions(positions.clone(), *job)),
        };
        if !self.logs[log].accepts(id, epoch) {
            return Answer::Fenced;
        }
        let is_open = matches!(coordinator.transaction, Transaction::Open(logs) if logs & 1 << log != 0);
        if has_kip_890 && !(is_open && coordinator.epoch == epoch) {
            return Answer::Unfit;
        }
        self.logs[log].append(id, epoch, what);
        Answer::Done
    }

    fn end(&mut self, id: u8, epoch: u8, commit: bool, has_kip_890: bool) -> Answer {
        let coordinator = &mut self.coordinators[usize::from(id)];
        if coordinator.epoch != epoch {
            return Answer::Fenced;
        }
        match coordinator.transaction {
            Transaction::Ending { commit: decided, .. } if decided != commit => Answer::Unfit,
            Transaction::Ending { .. } => Answer::Later,
            // The coordinator takes it for the same request once more, whose transaction has ended.
            Transaction::None => Answer::Done,
            Transaction::Open(left) => {
                coordinator.epoch += u8::from(has_kip_890);
                coordinator.transaction = Transaction::Ending { commit, left };
                Answer::Done
            }
        }
    }

    /// Writes a marker.
    pub(super) fn mark(&mut self, id: u8, log: usize) {
        let coordinator = &mut self.coordinators[usize::from(id)];
        let Transaction::Ending { commit, left } = coordinator.transaction else { return };
        self.logs[log].append(id, coordinator.epoch, What::Marker { commit });
        let left = left & !(1 << log);
        coordinator.transaction =
            if left == 0 { Transaction::None } else { Transaction::Ending { commit, left } };
    }

    /// Whether a record of this log is committed, or certainly will be.
    pub(super) fn will_be_committed(&self, log: usize, offset: u8) -> bool {
        let is_ending = |by: u8| {
            let coordinator = self.coordinators.get(usize::from(by));
            let transaction = coordinator.map(|coordinator| coordinator.transaction);
            matches!(transaction, Some(Transaction::Ending { commit: true, left }) if left & 1 << log != 0)
        };
        let offset = usize::from(offset);
        match self.logs[log].fate(offset) {
            Fate::Committed => true,
            Fate::Aborted => false,
            Fate::Open => is_ending(self.logs[log].entries[offset].by),
        }
    }
}

/// The transactional id of a run.
pub(super) fn id_of(run: usize, mutant: Option<Mutant>) -> u8 {
    if mutant == Some(Mutant::OwnIds) { u8::try_from(run).expect("few") } else { 0 }
}
