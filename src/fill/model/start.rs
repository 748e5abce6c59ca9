//! The steps of a run in which nothing can be chosen: its start-up, in the order of `attempt`, and its close.

use super::cluster::{Answer, LEDGER, PARTITIONS, Record, id_of};
use super::run::{Phase, order};
use super::{Mutant, State, World};
use crate::base::range::Range;
use crate::fill::begin::{are_committed, resumed};
use crate::fill::close::is_counted;
use crate::judge::{Judge, Sighting, Signature, Tally};
use crate::kafka::mark::{Fingerprint, Trusted};
use crate::kafka::watermarks::Watermarks;

pub(super) fn wide(offsets: &[u8]) -> Vec<i64> {
    offsets.iter().map(|offset| i64::from(*offset)).collect()
}

pub(super) fn watermarks(ends: &[u8]) -> Vec<Watermarks> {
    ends.iter().map(|end| Watermarks { low: 0, high: i64::from(*end), epoch: 0 }).collect()
}

/// With `--identity record`, equal records of two partitions are two records.
pub(super) fn signature(world: &World, partition: u8, key: u8) -> Signature {
    // Spread as hashes are.
    let spread = |n: u64| {
        (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xd6e8_feb8_6659_fd93)
    };
    let partition = if world.is_by_count() { u64::from(partition) } else { 0 };
    let of = u64::from(key) * 1009 + partition;
    Signature { identity: [spread(of), spread(of + 77)], exact: spread(of), loose: spread(of) }
}

/// Room for the few records of the model.
pub(super) const MEMORY: usize = 1 << 16;

impl State {
    fn ends(&self, of_source: bool) -> Vec<u8> {
        let logs = if of_source { &self.source } else { &self.target.logs };
        logs.iter().take(PARTITIONS).map(|log| log.end()).collect()
    }

    fn stable(&self, of_source: bool) -> Vec<u8> {
        let logs = if of_source { &self.source } else { &self.target.logs };
        logs.iter().take(PARTITIONS).map(|log| log.stable()).collect()
    }

    fn is_stable(&self, of_source: bool, ends: &[u8]) -> bool {
        self.stable(of_source).iter().zip(ends).all(|(stable, end)| stable >= end)
    }
}

impl World {
    pub(super) fn fingerprint(&self, run: usize) -> &Fingerprint {
        &self.jobs[if self.windows[0] == self.windows[1] { 0 } else { run }]
    }

    pub(super) fn is_in_window(&self, run: usize, key: u8) -> bool {
        self.windows[run] & 1 << key != 0
    }

    pub(super) fn breaks(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// The next step of a run in which nothing can be chosen, and nothing goes wrong. `None` if it must wait.
    pub(super) fn step(&self, state: &mut State, r: usize) -> Option<()> {
        let order = order(self.mutant);
        let phase = match state.runs[r].phase {
            Phase::Begin => order[0],
            phase => phase,
        };
        let read_committed = |mutant| !self.breaks(mutant);
        match phase {
            Phase::Init => {
                let before = state.target.coordinators.clone();
                let (answer, epoch) = state.target.init(id_of(r, self.mutant));
                if answer != Answer::Done {
                    // The fence of the former producer is a step of its own. Then it waits for the markers.
                    return (before != state.target.coordinators).then_some(());
                }
                state.runs[r].epoch = epoch;
            }
            Phase::Positions => {
                let ledger = &state.target.logs[LEDGER];
                if ledger.stable() < ledger.end() && !self.breaks(Mutant::UnstablePositions) {
                    return None;
                }
                let mut committed = match self.breaks(Mutant::PositionsInSource) {
                    true => state.aside.committed(),
                    false => ledger.committed(),
                };
                let run = &mut state.runs[r];
                if let Some(doubt) = run.process.in_doubt.take() {
                    if self.breaks(Mutant::ResumeFromDoubt) {
                        committed = doubt.iter().map(|position| Some(position.into())).collect();
                    }
                    match are_committed(&doubt, &committed) {
                        true => run.process.transactions = true,
                        false => run.process.aborted = true,
                    }
                }
                run.committed = committed;
            }
            Phase::TargetEnds => {
                state.runs[r].target_ends = match self.breaks(Mutant::TargetEndsStable) {
                    true => state.stable(false),
                    false => state.ends(false),
                }
            }
            Phase::SourceEnds => {
                state.runs[r].promised = state.ends(true);
                state.runs[r].source_ends = match self.breaks(Mutant::SourceEndsStable) {
                    true => state.stable(true),
                    false => state.ends(true),
                }
            }
            Phase::TargetStable if !state.is_stable(false, &state.runs[r].target_ends) => return None,
            Phase::SourceStable if !state.is_stable(true, &state.runs[r].source_ends) => return None,
            Phase::TargetStable | Phase::SourceStable => {}
            Phase::Scan => {
                if self.scan(state, r, read_committed(Mutant::ReadUncommittedTarget)) {
                    return Some(());
                }
            }
            Phase::Grown => {
                state.runs[r].now = state.ends(false);
                state.runs[r].phase =
                    if self.breaks(Mutant::NotReadable) { Phase::Check } else { Phase::Readable };
                return Some(());
            }
            Phase::Readable => {
                if !state.is_stable(false, &state.runs[r].now) {
                    return None;
                }
                state.runs[r].now = state.ends(false);
                state.runs[r].phase = Phase::Check;
                return Some(());
            }
            Phase::Check => {
                if !state.is_stable(false, &state.runs[r].now) && !self.breaks(Mutant::NotReadable) {
                    return None;
                }
                let is_alone = self.breaks(Mutant::NoLookForOthers) || self.is_alone(state, r);
                let run = &mut state.runs[r];
                match (is_alone, run.closes) {
                    (false, _) => run.finish(Phase::Failed),
                    (true, false) => run.finish(Phase::Done),
                    (true, true) => run.phase = Phase::Close,
                }
                return Some(());
            }
            _ => return None,
        }
        let at = order.iter().position(|step| *step == phase)?;
        state.runs[r].phase = order.get(at + 1).copied().unwrap_or(Phase::Copy);
        Some(())
    }

    /// Steps 4, 6 and the scan. Returns whether nothing is left to do.
    fn scan(&self, state: &mut State, r: usize, read_committed: bool) -> bool {
        let (source, target) = (&state.source, &state.target.logs);
        let run = &mut state.runs[r];
        let (of_source, of_target) = (watermarks(&run.source_ends), watermarks(&run.target_ends));
        let mut fingerprint = self.fingerprint(r).clone();
        if self.breaks(Mutant::TrustOtherJobs) {
            let mut marks = run.committed.iter().flatten();
            let other = marks.find_map(|committed| Some(Fingerprint::split(&committed.metadata)?.0));
            fingerprint = other.unwrap_or(fingerprint);
        }
        let trusted = Trusted::of(&fingerprint, &run.committed, &of_source, &of_target);
        let start = |partition| {
            let start = resumed(&trusted, partition, &self.rules, false).unwrap_or(0);
            u8::try_from(start).expect("short")
        };
        run.starts = (0..PARTITIONS).map(start).collect();
        run.at.clone_from(&run.starts);
        run.saved = Vec::new();
        let ranges = Range::all(&wide(&run.starts), &wide(&run.source_ends));
        let is_at_the_end = |range: &Range| {
            let position = trusted.position(usize::try_from(range.partition).expect("small"));
            position.map_or(range.is_empty(), |position| position >= range.end)
        };
        let is_closed = ranges.iter().all(|range| trusted.is_done(range));
        if is_closed || (self.breaks(Mutant::TrustOpenMarks) && ranges.iter().all(is_at_the_end)) {
            run.closes = false;
            // Who closed the marks has looked for what others added. This run does not look again.
            run.now = if is_closed { vec![0; PARTITIONS] } else { run.target_ends.clone() };
            match run.process.transactions {
                true => run.phase = Phase::Grown,
                false => run.finish(Phase::Done),
            }
            return true;
        }
        run.closes = true;
        run.firsts = wide(&run.target_ends);
        run.held = Vec::new();
        let mut judge = Judge::new(&self.rules, MEMORY);
        for (p, log) in (0_u8..).zip(target.iter().take(PARTITIONS)) {
            let end = run.target_ends[usize::from(p)];
            let end = if self.breaks(Mutant::TargetNotStable) { end.min(log.stable()) } else { end };
            let end = if self.breaks(Mutant::NoScanWithoutMark) { 0 } else { end };
            let compared = log.readable(end, read_committed);
            for (offset, record) in compared.filter(|(_, record)| self.is_in_window(r, record.key)) {
                run.firsts[usize::from(p)] = run.firsts[usize::from(p)].min(i64::from(offset));
                run.held.push((p, record.key));
                judge.target(signature(self, p, record.key)).expect("room");
            }
        }
        run.held.sort_unstable();
        trusted.lower(&mut run.firsts, &of_target);
        // What it will say of the target, if it comes to its end.
        for (p, log) in (0_u8..).zip(source) {
            for (_, record) in log.readable(run.source_ends[usize::from(p)], true) {
                if self.is_in_window(r, record.key) {
                    judge.source(signature(self, p, record.key)).expect("room");
                }
            }
        }
        run.tells_doubles = !self.live.is_empty() && judge.duplicates_in_target(true) > 0;
        let ends = run.target_ends.clone();
        run.process.first.get_or_insert(ends);
        run.committed = Vec::new();
        false
    }

    /// Whether nobody else doubled a record, as `close` decides it.
    fn is_alone(&self, state: &State, r: usize) -> bool {
        let run = &state.runs[r];
        let Some(first) = run.process.first.as_ref() else { return true };
        let mut is_ours = is_counted(run.process.restarts.into(), run.process.aborted.into());
        for ((now, first), written) in run.now.iter().zip(first).zip(&run.process.written) {
            is_ours &= written.explains(i64::from(*now) - i64::from(*first));
        }
        if is_ours {
            return true;
        }
        let mut tally = Tally::new(&self.rules, MEMORY, 0);
        let logs = || (0_u8..).zip(state.target.logs.iter().take(PARTITIONS));
        let counts = |record: &Record| self.is_in_window(r, record.key);
        for (p, log) in logs() {
            let since = log
                .readable(run.now[usize::from(p)], true)
                .filter(|(offset, _)| *offset >= first[usize::from(p)]);
            for (_, record) in since.filter(|(_, record)| counts(record)) {
                tally.add(signature(self, p, record.key)).expect("room");
            }
        }
        for (p, log) in logs() {
            for (_, record) in log.readable(first[usize::from(p)], true).filter(|(_, record)| counts(record))
            {
                tally.was_there(signature(self, p, record.key));
            }
        }
        if self.is_by_count() {
            for (p, log) in (0_u8..).zip(&state.source) {
                for (_, record) in log.readable(log.stable(), true) {
                    let signature = signature(self, p, record.key);
                    tally.source(&Sighting {
                        signature,
                        is_in_window: counts(&record),
                        has_identity: true,
                        ..Sighting::default()
                    });
                }
            }
        }
        tally.left_over() == 0
    }
}
