//! A checked model of the protocol: what runs, their coordinator and other producers may do, in any order, with a crash
//! before each step. `docs/model.md` says what it holds and what not.

mod alike;
mod cluster;
mod copy;
mod mutants;
mod properties;
mod run;
mod start;
mod worlds;

use stateright::{Model, Property};

use self::cluster::{
    Coordinator, Fate, LEDGER, Log, PARTITIONS, PLAIN, Record, Request, Target, Transaction, What, id_of,
};
use self::mutants::Mutant;
use self::run::{How, Phase, Run};
use crate::job::Rules;
use crate::job::identity::Identity;
use crate::kafka::mark::Fingerprint;

/// What there is at the beginning, and how often things may go wrong.
#[derive(Clone)]
struct World {
    rules: Rules,
    /// The records of the source's partitions.
    source: [&'static [Seed]; PARTITIONS],
    /// The target's records at the beginning.
    target: [&'static [Seed]; PARTITIONS],
    /// The runs that may be alive together, and the keys in the window of each.
    windows: [u8; 2],
    runs: usize,
    crashes: u8,
    /// Requests that come late or twice, and answers that are lost.
    faults: u8,
    /// How often somebody deletes the group's offsets.
    forgets: u8,
    /// Records that come to the source later, and that somebody else mirrors: partition and key.
    live: &'static [(u8, u8)],
    /// How often somebody else opens a transaction in the target, with a record that is none of ours.
    strangers: u8,
    has_kip_890: bool,
    mutant: Option<Mutant>,
    /// The jobs of the windows.
    jobs: [Fingerprint; 2],
}

/// A record that is there at the beginning.
#[derive(Clone, Copy, Debug)]
enum Seed {
    Of(u8),
    /// Of a transaction of somebody else that is open.
    Open(u8),
    /// A copy of the original with that offset.
    Copy(u8, u8),
    OpenCopy(u8, u8),
}

/// States that differ only in what can never matter any more count as one: see `alike.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    source: Vec<Log>,
    target: Target,
    /// Offsets that a mutant commits in the source's cluster.
    aside: Log,
    runs: Vec<Run>,
    /// Requests on their way: transactional id, epoch.
    late: Vec<(u8, u8, Request)>,
    crashes: u8,
    faults: u8,
    forgets: u8,
    /// How many of the world's live records are in the source, and how many of them are mirrored.
    live: usize,
    mirrored: usize,
    strangers: u8,
    /// An invariant of the program does not hold.
    is_broken: bool,
    /// All runs have one window and one transactional id, so it does not matter which is which.
    are_equal: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Step(usize),
    Read(usize, usize),
    ReadLate(usize, usize),
    SendOffsets(usize),
    SendOffsetsLate(usize),
    End(usize, How),
    Crash(usize),
    /// The coordinator writes a marker.
    Mark(u8, usize),
    /// A late request arrives.
    Arrive(usize),
    /// Somebody else ends a transaction: in the source or in the target, the partition.
    Settle(bool, usize, bool),
    Live,
    Mirror,
    Forget,
    /// Somebody else opens a transaction in a partition of the target.
    Open(usize),
}

impl World {
    fn is_by_count(&self) -> bool {
        self.rules.identity == Identity::Record
    }

    fn of_run(&self, state: &State, r: usize, actions: &mut Vec<Action>) {
        let run = &state.runs[r];
        // Of processes that have not begun, the first begins first.
        let is_next = |r: usize| state.runs[r] == Run::default();
        if run.phase.is_end() || (r > 0 && is_next(r) && is_next(r - 1)) {
            return;
        }
        if state.crashes > 0 && run.is_alive() {
            actions.push(Action::Crash(r));
        }
        let can_fail = state.faults > 0;
        for partition in run.partitions_to_read() {
            actions.push(Action::Read(r, partition));
            if can_fail {
                actions.push(Action::ReadLate(r, partition));
            }
        }
        if self.may_commit(run) {
            actions.push(Action::SendOffsets(r));
            if can_fail {
                actions.push(Action::SendOffsetsLate(r));
            }
        }
        match run.phase {
            Phase::End | Phase::CloseEnd => {
                actions.push(Action::End(r, How::Answered));
                if can_fail {
                    actions.extend([How::Lost, How::Delayed, How::Twice].map(|how| Action::End(r, how)));
                }
            }
            Phase::Copy | Phase::Close => {}
            _ => actions.push(Action::Step(r)),
        }
    }

    fn of_others(&self, state: &State, actions: &mut Vec<Action>) {
        for (id, coordinator) in (0..).zip(&state.target.coordinators) {
            if let Transaction::Ending { left, .. } = coordinator.transaction {
                let left = (0..=LEDGER).filter(|log| left & 1 << log != 0);
                actions.extend(left.map(|log| Action::Mark(id, log)));
            }
        }
        actions.extend((0..state.late.len()).map(Action::Arrive));
        let sides: [(bool, &[Log]); 2] = [(true, &state.source), (false, &state.target.logs)];
        for (of_source, logs) in sides {
            for (partition, log) in logs.iter().enumerate().take(PARTITIONS) {
                let is_open = |offset: usize| {
                    log.entries[offset].by == cluster::FOREIGN && log.fate(offset) == Fate::Open
                };
                if (0..log.entries.len()).any(is_open) {
                    actions.extend([true, false].map(|commit| Action::Settle(of_source, partition, commit)));
                }
            }
        }
        if state.live < self.live.len() {
            actions.push(Action::Live);
        }
        if state.mirrored < state.live {
            actions.push(Action::Mirror);
        }
        if state.forgets > 0 && state.target.logs[LEDGER].end() > 0 {
            actions.push(Action::Forget);
        }
        if state.strangers > 0 {
            actions.extend((0..PARTITIONS).map(Action::Open));
        }
    }

    fn apply(&self, state: &mut State, action: &Action) -> Option<()> {
        let is_late = matches!(action, Action::ReadLate(..) | Action::SendOffsetsLate(_)) || is_fault(action);
        state.faults -= u8::from(is_late);
        match *action {
            Action::Step(r) => self.step(state, r)?,
            Action::Read(r, partition) => self.read(state, r, partition, false)?,
            Action::ReadLate(r, partition) => self.read(state, r, partition, true)?,
            Action::SendOffsets(r) => self.send_offsets(state, r, false)?,
            Action::SendOffsetsLate(r) => self.send_offsets(state, r, true)?,
            Action::End(r, how) => self.end(state, r, how)?,
            Action::Crash(r) => {
                state.crashes -= 1;
                state.runs[r] = Run::default();
            }
            Action::Mark(id, log) => state.target.mark(id, log),
            Action::Arrive(at) => {
                let (id, epoch, request) = state.late.remove(at);
                state.target.take(id, epoch, &request, self.has_kip_890);
            }
            Action::Settle(of_source, partition, commit) => {
                let logs = if of_source { &mut state.source } else { &mut state.target.logs };
                logs[partition].append(cluster::FOREIGN, 0, What::Marker { commit });
            }
            Action::Live => {
                let (partition, key) = self.live[state.live];
                let log = &mut state.source[usize::from(partition)];
                let origin = log.end();
                log.append(PLAIN, 0, What::Record(Record { key, origin }));
                state.live += 1;
            }
            Action::Mirror => {
                let (partition, key) = self.live[state.mirrored];
                let p = usize::from(partition);
                let before = self.live[..state.mirrored].iter().filter(|(of, _)| *of == partition).count();
                let later = state.source[p]
                    .readable(u8::MAX, true)
                    .filter(|(_, record)| usize::from(record.origin) >= self.source[p].len());
                let origin = later.map(|(offset, _)| offset).nth(before)?;
                let copy = What::Record(Record { key, origin });
                state.target.logs[p].append(PLAIN, 0, copy);
                state.mirrored += 1;
            }
            Action::Forget => {
                state.forgets -= 1;
                state.target.logs[LEDGER].append(PLAIN, 0, What::Forgotten);
            }
            Action::Open(partition) => {
                state.strangers -= 1;
                let record = Record { key: STRANGE, origin: 0 };
                state.target.logs[partition].append(cluster::FOREIGN, 0, What::Record(record));
            }
        }
        Some(())
    }
}

/// A key that the source does not have.
const STRANGE: u8 = 7;

fn is_fault(action: &Action) -> bool {
    matches!(action, Action::End(_, How::Lost | How::Delayed | How::Twice))
}

fn log_of(seeds: &[Seed]) -> Log {
    let mut log = Log::default();
    for seed in seeds {
        let origin = log.end();
        let (by, record) = match *seed {
            Seed::Of(key) => (PLAIN, Record { key, origin }),
            Seed::Open(key) => (cluster::FOREIGN, Record { key, origin }),
            Seed::Copy(key, origin) => (PLAIN, Record { key, origin }),
            Seed::OpenCopy(key, origin) => (cluster::FOREIGN, Record { key, origin }),
        };
        log.append(by, 0, What::Record(record));
    }
    log
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut logs: Vec<Log> = self.target.iter().map(|seeds| log_of(seeds)).collect();
        logs.push(Log::default());
        let ids = usize::from(id_of(self.runs - 1, self.mutant)) + 1;
        vec![State {
            source: self.source.iter().map(|seeds| log_of(seeds)).collect(),
            target: Target { logs, coordinators: vec![Coordinator::default(); ids] },
            aside: Log::default(),
            runs: vec![Run::default(); self.runs],
            late: Vec::new(),
            crashes: self.crashes,
            faults: self.faults,
            forgets: self.forgets,
            live: 0,
            mirrored: 0,
            strangers: self.strangers,
            is_broken: false,
            are_equal: self.windows[0] == self.windows[1] && ids == 1,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.is_broken {
            return;
        }
        for r in 0..state.runs.len() {
            self.of_run(state, r, actions);
        }
        self.of_others(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        // The program's invariants panic.
        let applied =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.apply(&mut state, &action)));
        match applied {
            Ok(applied) => applied.map(|()| state),
            Err(_) => Some(State { is_broken: true, ..last.clone() }),
        }
    }

    fn properties(&self) -> Vec<Property<World>> {
        properties::all()
    }
}
