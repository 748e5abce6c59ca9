//! What must hold in each state, and what must be possible.

use stateright::Property;

use super::cluster::{Fate, LEDGER, PARTITIONS, PLAIN, Record, Transaction, What};
use super::run::Phase;
use super::{State, World};
use crate::base::range::index;

pub(super) const NOTHING_TWICE: &str = "nothing is twice in the target";
pub(super) const NOTHING_EXTRA: &str = "each copy has a committed original";
pub(super) const IN_ORDER: &str = "copies are in the source's order";
pub(super) const POSITIONS: &str = "what lies below a committed position is in the target";
pub(super) const DONE: &str = "a run that is done leaves nothing out, and all of it is readable";
pub(super) const TOLD: &str = "a run that is done has told what is twice";
pub(super) const INVARIANTS: &str = "the program's invariants hold";
pub(super) const NO_WAIT: &str = "nobody waits for ever";

pub(super) fn all() -> Vec<Property<World>> {
    vec![
        Property::always(NOTHING_TWICE, |world: &World, state| {
            !world.live.is_empty() || nothing_is_twice(world, state)
        }),
        Property::always(NOTHING_EXTRA, |_, state| nothing_is_extra(state)),
        Property::always(IN_ORDER, |world, state| world.windows[0] != world.windows[1] || is_in_order(state)),
        Property::always(POSITIONS, positions_hold),
        Property::always(DONE, done_is_done),
        Property::always(TOLD, doubles_are_told),
        Property::always(INVARIANTS, |_, state: &State| !state.is_broken),
        Property::always(NO_WAIT, nobody_waits_for_ever),
        Property::sometimes("a run is done", |_, state| has(state, Phase::Done)),
        Property::sometimes("a run is done after all that can go wrong", |_, state: &State| {
            let is_over = state.crashes == 0 && state.faults == 0 && state.forgets == 0;
            is_over && has(state, Phase::Done)
        }),
        Property::sometimes("all runs are done, or one is fenced", |_, state: &State| {
            state.runs.iter().all(|run| run.phase == Phase::Done) || has(state, Phase::Fenced)
        }),
    ]
}

fn has(state: &State, phase: Phase) -> bool {
    state.runs.iter().any(|run| run.phase == phase)
}

/// The copies of a key that are committed in the target, or will be: partition, offset, record. By count, only those of
/// the partition `of` are copies of its records.
fn copies<'s>(
    world: &World,
    state: &'s State,
    of: usize,
    key: u8,
) -> impl Iterator<Item = (usize, u8, Record)> + 's {
    let by_count = world.is_by_count();
    let logs = state.target.logs.iter().enumerate().take(PARTITIONS);
    logs.filter(move |(partition, _)| !by_count || *partition == of).flat_map(move |(partition, log)| {
        let records = (0..log.end()).filter_map(move |offset| Some((partition, offset, log.record(offset)?)));
        records.filter(move |(partition, offset, record)| {
            record.key == key && state.target.will_be_committed(*partition, *offset)
        })
    })
}

/// How many records of the key the source's partition has below an offset.
fn originals(state: &State, partition: usize, key: u8, below: u8) -> usize {
    state.source[partition].readable(below, true).filter(|(_, record)| record.key == key).count()
}

fn keys(state: &State) -> Vec<(usize, u8)> {
    let records = state.source.iter().enumerate().flat_map(|(partition, log)| {
        (0..log.end()).filter_map(move |offset| Some((partition, log.record(offset)?.key)))
    });
    let mut keys: Vec<(usize, u8)> = records.collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn nothing_is_twice(world: &World, state: &State) -> bool {
    keys(state).into_iter().all(|(partition, key)| {
        let end = state.source[partition].end();
        let most = if world.is_by_count() { originals(state, partition, key, end).max(1) } else { 1 };
        copies(world, state, partition, key).count() <= most
    })
}

/// The copies that runs made in a partition, and that are committed or will be.
fn ours(state: &State, partition: usize) -> impl Iterator<Item = Record> + '_ {
    let log = &state.target.logs[partition];
    let is_ours = move |offset: &u8| {
        log.entries[usize::from(*offset)].by < PLAIN && state.target.will_be_committed(partition, *offset)
    };
    (0..log.end()).filter(is_ours).filter_map(|offset| log.record(offset))
}

fn nothing_is_extra(state: &State) -> bool {
    (0..PARTITIONS).all(|partition| {
        let source = &state.source[partition];
        let has_original = |copy: Record| {
            source.record(copy.origin).is_some_and(|original| original.key == copy.key)
                && source.fate(usize::from(copy.origin)) == Fate::Committed
        };
        ours(state, partition).all(has_original)
    })
}

fn is_in_order(state: &State) -> bool {
    (0..PARTITIONS).all(|partition| {
        let origins: Vec<u8> = ours(state, partition).map(|record| record.origin).collect();
        origins.is_sorted_by(|before, after| before < after)
    })
}

/// Whether the target has the records of the run's window that the source's partition has below `end`. If the run
/// `is_done`, copies that somebody else made of later records do not count, and readers must see the others now.
fn is_complete(
    world: &World,
    state: &State,
    run: usize,
    (partition, end): (usize, u8),
    is_done: bool,
) -> bool {
    let wanted =
        keys(state).into_iter().filter(|(of, key)| *of == partition && world.windows[run] & 1 << key != 0);
    wanted.into_iter().all(|(partition, key)| {
        let wanted = originals(state, partition, key, end);
        let wanted = if world.is_by_count() { wanted } else { wanted.min(1) };
        let counts = |(at, offset, record): &(usize, u8, Record)| {
            let log = &state.target.logs[*at];
            let is_later = log.entries[usize::from(*offset)].by == PLAIN && record.origin >= end;
            !is_done || (!is_later && *offset < log.stable())
        };
        copies(world, state, partition, key).filter(counts).count() >= wanted
    })
}

fn positions_hold(world: &World, state: &State) -> bool {
    // What the mutants commit elsewhere is a position too.
    let logs = [&state.target.logs[LEDGER], &state.aside];
    logs.into_iter().all(|log| {
        log.entries.iter().enumerate().all(|(offset, entry)| match &entry.what {
            What::Positions(positions, run) if log.fate(offset) == Fate::Committed => {
                positions.iter().all(|position| {
                    let end = u8::try_from(position.position).expect("short");
                    is_complete(world, state, usize::from(*run), (index(position.partition), end), false)
                })
            }
            _ => true,
        })
    })
}

fn done_is_done(world: &World, state: &State) -> bool {
    let done = state.runs.iter().enumerate().filter(|(_, run)| run.phase == Phase::Done);
    done.into_iter().all(|(r, run)| {
        let mut ends = run.promised.iter().copied().enumerate();
        ends.all(|end| is_complete(world, state, r, end, true))
    })
}

fn doubles_are_told(world: &World, state: &State) -> bool {
    let done = state.runs.iter().filter(|run| run.phase == Phase::Done && !run.tells_doubles);
    done.into_iter().all(|run| {
        keys(state).into_iter().all(|(partition, key)| {
            let end = state.source[partition].end();
            let most = if world.is_by_count() { originals(state, partition, key, end).max(1) } else { 1 };
            let seen = |(at, offset, _): &(usize, u8, Record)| *offset < run.now[*at];
            copies(world, state, partition, key).filter(seen).count() <= most
        })
    })
}

/// Whether each run has come to its end if nothing can happen any more.
fn nobody_waits_for_ever(world: &World, state: &State) -> bool {
    use stateright::Model;
    let mut actions = Vec::new();
    world.actions(state, &mut actions);
    let is_over = |transaction| transaction == Transaction::None;
    let is_at_rest = state.runs.iter().all(|run| run.phase.is_end())
        && state.target.coordinators.iter().all(|coordinator| is_over(coordinator.transaction));
    is_at_rest
        || state.is_broken
        || actions.into_iter().any(|action| world.next_state(state, action).is_some())
}
