//! The steps of a run while it copies and commits.

use std::sync::Arc;

use super::cluster::{Answer, Fate, LEDGER, PARTITIONS, PLAIN, Record, Request, What, id_of};
use super::run::{How, Phase, Run};
use super::start::{MEMORY, signature, watermarks, wide};
use super::{Mutant, State, World};
use crate::base::invariant;
use crate::base::range::{Range, id};
use crate::fill::joints;
use crate::fill::marks::Marks;
use crate::fill::state::{Added, Snapshot};
use crate::judge::{Judge, Signature, Verdict};
use crate::kafka::mark::{Done, Trusted};
use crate::kafka::watermarks::Watermarks;

impl World {
    /// Reads on in a partition of the source, up to the next record that is committed, and writes it if the target lacks
    /// it. `None` if it must wait.
    pub(super) fn read(&self, state: &mut State, r: usize, partition: usize, is_late: bool) -> Option<()> {
        let p = u8::try_from(partition).expect("small");
        let log = &state.source[partition];
        let run = &state.runs[r];
        let end = run.source_ends[partition];
        let mut at = run.at[partition];
        let is_seen = |at: u8| match log.fate(usize::from(at)) {
            Fate::Committed => true,
            Fate::Aborted | Fate::Open => self.breaks(Mutant::ReadUncommittedSource),
        };
        let end = match log.stable() < end && !self.breaks(Mutant::ReadUncommittedSource) {
            // Who did not wait would take the last stable offset for the end of the partition.
            true if self.breaks(Mutant::SourceNotStable) => log.stable().max(at),
            true => return None,
            false => end,
        };
        let mut found = None;
        while found.is_none() && at < end {
            found = log.record(at).filter(|_| is_seen(at)).map(|record| (at, record));
            at += 1;
        }
        if found.is_none() && self.breaks(Mutant::SourceNotStable) {
            at = run.source_ends[partition];
        }
        let found = found.filter(|(_, record)| self.is_in_window(r, record.key));
        let is_new = found.is_some_and(|(_, record)| self.is_new(state, r, signature(self, p, record.key)));
        let Some((origin, record)) = found.filter(|_| is_new) else {
            if is_late {
                return None;
            }
            state.runs[r].at[partition] = at;
            return Some(());
        };
        if !self.begin(state, r) {
            return (!is_late).then_some(());
        }
        let (run, id) = (&mut state.runs[r], id_of(r, self.mutant));
        if run.added & 1 << partition == 0 {
            match state.target.add(id, run.epoch, partition) {
                Answer::Later => return None,
                Answer::Done => run.added |= 1 << partition,
                _ => {
                    run.finish(Phase::Fenced);
                    return (!is_late).then_some(());
                }
            }
        }
        run.at[partition] = at;
        if !run.process.restarts {
            run.process.written[partition].send();
        }
        let request = Request::Produce { partition, record: Record { origin, ..record } };
        if is_late {
            state.late.push((id, run.epoch, request));
            run.restart(None, true);
            return Some(());
        }
        match state.target.take(id, run.epoch, &request, self.has_kip_890) {
            Answer::Done | Answer::Later => {}
            Answer::Fenced => run.finish(Phase::Fenced),
            Answer::Unfit => run.restart(None, true),
        }
        Some(())
    }

    /// Asks a judge that has seen what this start-up has seen. The order in which it saw that does not matter to it.
    fn is_new(&self, state: &State, r: usize, signature_of: Signature) -> bool {
        if self.breaks(Mutant::NoDedup) {
            return true;
        }
        let run = &state.runs[r];
        let mut judge = Judge::new(&self.rules, MEMORY);
        for (p, key) in &run.held {
            judge.target(signature(self, *p, *key)).expect("room");
        }
        for (p, log) in (0_u8..).zip(&state.source) {
            let (start, at) = (run.starts[usize::from(p)], run.at[usize::from(p)]);
            let seen =
                log.readable(at, !self.breaks(Mutant::ReadUncommittedSource)).filter(|(o, _)| *o >= start);
            for (_, record) in seen.filter(|(_, record)| self.is_in_window(r, record.key)) {
                judge.source(signature(self, p, record.key)).expect("room");
            }
        }
        match judge.source(signature_of).expect("room") {
            Verdict::New => true,
            Verdict::AlreadyInTarget | Verdict::DuplicateInSource => false,
            other => unreachable!("{other:?}"),
        }
    }

    /// Begins a transaction, if none is begun. Returns whether it did; otherwise the run has started up again.
    fn begin(&self, state: &mut State, r: usize) -> bool {
        let run = &mut state.runs[r];
        if !run.is_begun && run.is_spent && !self.breaks(Mutant::KeepProducer) {
            run.restart(None, false);
            return false;
        }
        run.is_begun = true;
        true
    }

    pub(super) fn may_commit(&self, run: &Run) -> bool {
        match run.phase {
            Phase::Copy => run.is_begun || run.at == run.source_ends,
            Phase::Close => true,
            _ => false,
        }
    }

    /// Sends the positions, with open marks or with closed ones.
    pub(super) fn send_offsets(&self, state: &mut State, r: usize, is_late: bool) -> Option<()> {
        let is_closing = state.runs[r].phase == Phase::Close;
        if !self.begin(state, r) {
            return (!is_late).then_some(());
        }
        let id_of_run = id_of(r, self.mutant);
        let now: Vec<Watermarks> =
            state.target.logs.iter().take(PARTITIONS).map(|log| log.watermarks()).collect();
        let run = &mut state.runs[r];
        match state.target.add(id_of_run, run.epoch, LEDGER) {
            Answer::Later => return None,
            Answer::Done => {}
            _ => {
                run.finish(Phase::Fenced);
                return (!is_late).then_some(());
            }
        }
        let ranges = Range::all(&wide(&run.starts), &wide(&run.source_ends));
        let pairs = |offsets: &[u8]| -> Vec<(i32, i64)> {
            (0..).zip(offsets).map(|(partition, offset)| (id(partition), i64::from(*offset))).collect()
        };
        let positions = if is_closing { joints(&ranges) } else { pairs(&run.at) };
        if run.at == run.source_ends {
            invariant::done_is_at_the_ends(&positions, &ranges);
        }
        invariant::ends_never_move(&ranges, &wide(&run.source_ends));
        invariant::positions_only_rise(&pairs(&run.saved), &positions);
        let snapshot =
            Snapshot { source: watermarks(&run.source_ends), target: watermarks(&run.target_ends) };
        let mut marks = Marks::new(self.fingerprint(r), &snapshot, &wide(&run.source_ends), None);
        marks.scanned(run.firsts.clone(), &Trusted::default());
        let closed = is_closing.then_some(Done { at: 0, in_window: 0, written: 0 });
        let positions = Arc::new(marks.of(&positions, closed, &now));
        let job = u8::try_from(r).expect("few");
        let outside = What::Positions(positions.clone(), job);
        if self.breaks(Mutant::OffsetsOutside) {
            state.target.logs[LEDGER].append(PLAIN, 0, outside);
        } else if self.breaks(Mutant::PositionsInSource) {
            state.aside.append(PLAIN, 0, outside);
        }
        run.sent = (!is_closing).then(|| positions.clone());
        let request = Request::Offsets { positions, job };
        if is_late {
            state.late.push((id_of_run, run.epoch, request));
            let sent = run.sent.take();
            run.restart(sent, false);
            return Some(());
        }
        match state.target.take(id_of_run, run.epoch, &request, self.has_kip_890) {
            Answer::Done | Answer::Later => {
                run.phase = if is_closing { Phase::CloseEnd } else { Phase::End };
            }
            Answer::Fenced => run.finish(Phase::Fenced),
            Answer::Unfit => {
                let sent = run.sent.take();
                run.restart(sent, false);
            }
        }
        Some(())
    }

    /// Commits the transaction.
    pub(super) fn end(&self, state: &mut State, r: usize, how: How) -> Option<()> {
        let id = id_of(r, self.mutant);
        let run = &mut state.runs[r];
        let request = Request::End { commit: true };
        let epoch = run.epoch;
        if matches!(how, How::Delayed | How::Twice) {
            state.late.push((id, epoch, request.clone()));
        }
        let answer = match how {
            How::Delayed => Answer::Unfit,
            _ => state.target.take(id, epoch, &request, self.has_kip_890),
        };
        let sent = run.sent.take();
        match (answer, how) {
            (Answer::Fenced, _) => run.finish(Phase::Fenced),
            (Answer::Later, _) => return None,
            (Answer::Unfit, _) | (_, How::Lost) => run.restart(sent, false),
            (Answer::Done, _) if run.phase == Phase::CloseEnd => run.finish(Phase::Done),
            (Answer::Done, _) => {
                run.epoch = state.target.coordinators[usize::from(id)].epoch;
                run.saved.clone_from(&run.at);
                run.process.transactions = true;
                run.process.written.iter_mut().for_each(Added::commit);
                (run.is_begun, run.added) = (false, 0);
                run.is_spent |= how == How::Twice;
                run.phase = if run.at == run.source_ends { Phase::Grown } else { Phase::Copy };
            }
        }
        Some(())
    }
}
