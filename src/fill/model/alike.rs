//! Which states the checker takes for one, so that it comes to its end: it knows each state by this hash.
//!
//! Left out is only what no later step and no property can see. Aborted records and markers of the target count in no
//! way but for the offsets that they take, and these matter only by their order and for what a run counts as its own. Of
//! epochs, only the order matters. A request that the broker will refuse whenever it arrives is not there. Of the group's
//! offsets, the last committed ones matter, and those of open transactions. What a mark says of the target matters when a
//! log is cut or loses its leader, which happens in no world.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use rstest::rstest;
use stateright::Model;

use super::cluster::{Fate, LEDGER, Log, PARTITIONS, Request, What};
use super::run::Run;
use super::{State, World};
use crate::job::identity::Identity;
use crate::kafka::position::Position;

/// What the hash needs of the rest of the state.
pub(super) struct Alike<'s> {
    state: &'s State,
    /// All epochs, in order.
    epochs: Vec<u8>,
    /// For each of the target's partitions and each offset, how many records below it count.
    kept: Vec<Vec<u8>>,
}

impl<'s> Alike<'s> {
    fn of(state: &'s State) -> Alike<'s> {
        let mut epochs: Vec<u8> =
            state.target.coordinators.iter().map(|coordinator| coordinator.epoch).collect();
        epochs.extend(state.runs.iter().map(|run| run.epoch));
        epochs.extend(state.target.logs.iter().flat_map(|log| log.newest));
        epochs.extend(state.late.iter().filter(|late| may_act(state, late)).map(|(_, epoch, _)| *epoch));
        epochs.sort_unstable();
        epochs.dedup();
        let kept = |log: &Log| {
            let mut kept = Vec::with_capacity(log.entries.len() + 1);
            let mut count = 0;
            for offset in 0..log.entries.len() {
                kept.push(count);
                count += u8::from(is_kept(log, offset));
            }
            kept.push(count);
            kept
        };
        let kept = state.target.logs.iter().take(PARTITIONS).map(kept).collect();
        Alike { state, epochs, kept }
    }

    pub(super) fn epoch(&self, epoch: u8) -> usize {
        self.epochs.iter().position(|one| *one == epoch).unwrap_or(0)
    }

    /// How many records that count lie below an offset of the target.
    pub(super) fn place(&self, partition: usize, offset: u8) -> u8 {
        self.kept[partition][usize::from(offset)]
    }

    /// By how many offsets a partition has grown since `first`.
    pub(super) fn grown(&self, partition: usize, first: u8) -> i64 {
        i64::from(self.state.target.logs[partition].end()) - i64::from(first)
    }
}

/// Whether a late request can still do something.
fn may_act(state: &State, (id, epoch, request): &(u8, u8, Request)) -> bool {
    let log = match request {
        Request::End { .. } => return state.target.coordinators[usize::from(*id)].epoch == *epoch,
        Request::Produce { partition, .. } => *partition,
        Request::Offsets { .. } => LEDGER,
    };
    state.target.logs[log].newest[usize::from(*id)] <= *epoch
}

fn is_kept(log: &Log, offset: usize) -> bool {
    matches!(log.entries[offset].what, What::Record(_)) && log.fate(offset) != Fate::Aborted
}

/// What a run can learn from the offsets of one commit.
pub(super) fn hash_positions<H: Hasher>(positions: &Arc<Vec<Position>>, into: &mut H) {
    for Position { partition, position, metadata } in positions.iter() {
        (partition, position, of_job(metadata)).hash(into);
    }
}

/// The part of a mark that says whose it is, and whether it is closed.
pub(super) fn of_job(metadata: &str) -> &str {
    metadata.split_once(" a=").map_or(metadata, |(of_job, _)| of_job)
}

impl Hash for State {
    fn hash<H: Hasher>(&self, into: &mut H) {
        let alike = Alike::of(self);
        self.source.hash(into);
        for (partition, log) in self.target.logs.iter().enumerate() {
            log.newest.map(|epoch| alike.epoch(epoch)).hash(into);
            if partition == LEDGER {
                hash_ledger(log, into);
                continue;
            }
            for offset in (0..log.entries.len()).filter(|offset| is_kept(log, *offset)) {
                (log.entries[offset].by, &log.entries[offset].what, log.fate(offset) == Fate::Open)
                    .hash(into);
            }
        }
        hash_ledger(&self.aside, into);
        for coordinator in &self.target.coordinators {
            (alike.epoch(coordinator.epoch), coordinator.transaction).hash(into);
        }
        let mut runs: Vec<u128> = self.runs.iter().map(|run| hash_of(run, &alike)).collect();
        if self.are_equal {
            runs.sort_unstable();
        }
        runs.hash(into);
        for late in self.late.iter().filter(|late| may_act(self, late)) {
            let (id, epoch, request) = late;
            (id, alike.epoch(*epoch)).hash(into);
            match request {
                Request::Offsets { positions, .. } => hash_positions(positions, into),
                request => request.hash(into),
            }
        }
        (self.crashes, self.faults, self.forgets, self.live, self.mirrored).hash(into);
        (self.strangers, self.is_broken).hash(into);
    }
}

fn hash_ledger<H: Hasher>(log: &Log, into: &mut H) {
    for committed in log.committed() {
        committed.map(|committed| (committed.position, of_job(&committed.metadata).to_owned())).hash(into);
    }
    for (offset, entry) in log.entries.iter().enumerate() {
        if let What::Positions(positions, _) = &entry.what
            && log.fate(offset) == Fate::Open
        {
            entry.by.hash(into);
            hash_positions(positions, into);
        }
    }
    (log.end() == 0).hash(into);
}

/// Two hashes of 64 bits, so that runs can be sorted.
fn hash_of(run: &Run, alike: &Alike<'_>) -> u128 {
    let half = |seed: u64| {
        let mut hasher = ahash::RandomState::with_seeds(seed, 2, 3, 4).build_hasher();
        run.hash_alike(alike, &mut hasher);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(5)
}

/// Goes through all states that differ in anything, and expects of those that count as one that they go on as one and
/// that the properties say the same of them.
#[rstest]
#[case::a_crash(World { crashes: 1, ..World::two_records() })]
#[case::a_fault(World { faults: 1, ..World::two_records() })]
#[case::a_fault_by_count(World { faults: 1, ..World::by_count() })]
#[case::two_runs(World::rivals())]
#[case::mirrored(World { crashes: 1, ..World::mirrored(Identity::Key) })]
fn states_that_count_as_one_go_on_as_one(#[case] world: World) {
    let hashes = ahash::RandomState::with_seeds(1, 2, 3, 4);
    let exact = |state: &State| hashes.hash_one(format!("{state:?}"));
    let properties = world.properties();
    let (mut seen, mut known) = (HashSet::new(), HashMap::new());
    let mut todo = world.init_states();
    while let Some(state) = todo.pop() {
        let hash = hashes.hash_one(&state);
        let next = world.next_states(&state);
        let after: BTreeSet<u64> = next.iter().map(|next| hashes.hash_one(next)).collect();
        let says: Vec<bool> =
            properties.iter().map(|property| (property.condition)(&world, &state)).collect();
        // A request that does nothing leads to a state that counts as the same.
        let found = (after.into_iter().filter(|after| *after != hash).collect::<Vec<u64>>(), says);
        let first = known.entry(hash).or_insert_with(|| found.clone());
        assert_eq!(*first, found, "{state:#?}");
        todo.extend(next.into_iter().filter(|next| seen.insert(exact(next))));
    }
    println!("{} states count as {}", seen.len(), known.len());
}
