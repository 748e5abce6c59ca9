//! Judges the records of two topics, in as many readings as the memory asks for.

use std::ops::Range as Classes;

use super::differences::{Kind, List, Unnamed};
use super::joints::Joints;
use super::order::Sequences;
use super::pairing::{Bounds, Pairing, SLOT_BYTES};
use super::side::{OpenSide, Start};
use super::sums::{CLASSES, Sums, Total, class, rounds};
use super::verify::Findings;
use super::{Census, Judged, Notes};
use crate::base::error::{Error, Reason, Result};
use crate::base::failpoint;
use crate::base::range::{Range, index};
use crate::job::identity::Identity;
use crate::job::order::Order;
use crate::job::window::Window;
use crate::job::{OnConflict, Selection, TargetScan};
use crate::judge::elsewhen::{Outside, SecondLook};
use crate::judge::joint::AboveJoint;
use crate::judge::marked::Marked;
use crate::judge::{Judge, Look, Sighting, Verdict};
use crate::kafka::sides::Side;
use crate::kafka::sys::Message;

pub(super) struct Pair<'a> {
    pub selection: &'a Selection,
    pub source: OpenSide<'a>,
    pub target: OpenSide<'a>,
    pub window: Window,
    pub keeps_partitions: bool,
    pub expects_equal: bool,
    pub look: Look,
    pub joints: Joints,
    /// With `--latest-only`, the source's ends before the target's end was asked for.
    pub settled: Vec<i64>,
}

/// About how many bytes a record of both topics takes if all are judged at once, and if timestamps are not compared.
const RECORD_BYTES: (usize, usize) = (256, 512);

/// So few records of both topics are judged at once. More are summed first, where that usually finds the topics equal: sums take a
/// third of the processor time.
const FEW: u64 = 10_000;

/// About how many bytes a record of the source takes in a round, and one of the target.
const ROUND_BYTES: [u64; 2] = [64, 352];

/// The records that one set of readings judges.
struct Round<'s> {
    classes: Classes<usize>,
    /// If there are sums, only records in cells that differ are judged. Both topics hold the others.
    sums: Option<&'s Sums>,
    /// Whether it is the only round: then it counts all records, and judges the order.
    is_whole: bool,
}

impl Round<'_> {
    fn is_of_class(&self, seen: &Sighting) -> bool {
        self.classes.contains(&class(seen.signature.identity))
    }

    fn judges(&self, seen: &Sighting) -> bool {
        self.is_of_class(seen) && self.sums.is_none_or(|sums| sums.differ_at(seen))
    }
}

/// What must be known before the source's records are judged.
struct Prepared {
    judge: Judge,
    /// What the source's records that are to be judged add up to; `None` if there is only one reading of them.
    candidates: Option<Total>,
    above: Option<AboveJoint>,
    outside: Option<Outside>,
    pairing: Pairing,
}

impl Pair<'_> {
    /// Returns what was found, and whether the target lacks records above a joint.
    pub(super) fn judge(
        &self,
        census: &mut Census<'_, impl Notes>,
        list: &mut List,
    ) -> Result<(Findings, bool)> {
        let is_at_any_time = self.selection.rules.target_scan == TargetScan::All;
        let bytes = if is_at_any_time { RECORD_BYTES.1 } else { RECORD_BYTES.0 };
        // If timestamps are not compared, the judge sees all of both topics.
        let from = self.scanned_from();
        let records: u64 = [&self.source, &self.target]
            .iter()
            .flat_map(|side| side.ranges(from))
            .map(|range| range.len())
            .sum();
        let size = usize::try_from(records).unwrap_or(usize::MAX).saturating_mul(bytes);
        let fits = size <= self.selection.index_memory;
        let (mut found, mut lacks_above) = (Findings::default(), false);
        if fits && (records <= FEW || !self.gains_by_sums()) {
            found.relies_on_promise = self.order(true).is_promised();
            self.judge_at_once(census, list, &mut found, &mut lacks_above)?;
        } else {
            found.relies_on_promise = self.order(false).is_promised();
            let (sums, sequences) = self.survey(census)?;
            let sums = (!is_at_any_time).then_some(sums);
            let is_equal = sums.as_ref().is_some_and(Sums::are_equal) && sequences.are_equal();
            if fits && !is_equal {
                (census.in_source, census.in_target) = (0, 0);
                self.judge_at_once(census, list, &mut found, &mut lacks_above)?;
            } else {
                let order = (self.keeps_partitions && is_equal).then_some(0);
                (found.reordered, found.moved) = (order, order);
                self.judge_in_rounds(sums.as_ref(), size, census, list, &mut found, &mut lacks_above)?;
            }
        }
        if !is_at_any_time {
            found.in_target = census.in_target;
        }
        Ok((found, lacks_above))
    }

    /// Whether sums alone usually show all: that the topics are equal, in order too, by a reading that is no longer than another.
    /// Where the topics differ, both are read once more, so `gaps` does without.
    fn gains_by_sums(&self) -> bool {
        self.expects_equal
            && self.keeps_partitions
            && self.selection.rules.target_scan == TargetScan::Window
            && self.selection.max_out_of_orderness.is_none()
    }

    fn judge_at_once(
        &self,
        census: &mut Census<'_, impl Notes>,
        list: &mut List,
        found: &mut Findings,
        lacks_above: &mut bool,
    ) -> Result<()> {
        let round = Round { classes: 0..CLASSES, sums: None, is_whole: true };
        let prepared = self.prepare(&round, census, list.is_wanted())?;
        self.finish(&round, prepared, census, list, found, lacks_above)
    }

    /// Judges the records of a few classes at a time, as the memory allows. `size` is about how many bytes all records take.
    fn judge_in_rounds(
        &self,
        sums: Option<&Sums>,
        size: usize,
        census: &mut Census<'_, impl Notes>,
        list: &mut List,
        found: &mut Findings,
        lacks_above: &mut bool,
    ) -> Result<()> {
        let loads = match sums {
            Some(sums) => sums.differing().map(|[source, target]| {
                let source = source.saturating_mul(ROUND_BYTES[0]);
                source.saturating_add(target.saturating_mul(ROUND_BYTES[1]))
            }),
            None => [(size / CLASSES) as u64 + 1; CLASSES],
        };
        let mut rounds = rounds(&loads, (self.selection.index_memory / 2) as u64);
        tracing::debug!("judging the records that may differ in {} rounds", rounds.len());
        rounds.reverse();
        while let Some(classes) = rounds.pop() {
            let round = Round { classes, sums, is_whole: false };
            match self.prepare(&round, census, list.is_wanted()) {
                Err(err) if err.reason() == Reason::IndexMemory && round.classes.len() > 1 => {
                    let Classes { start, end } = round.classes;
                    let middle = usize::midpoint(start, end);
                    rounds.extend([middle..end, start..middle]);
                }
                prepared => self.finish(&round, prepared?, census, list, found, lacks_above)?,
            }
        }
        Ok(())
    }

    /// From where on the target is compared.
    fn scanned_from(&self) -> Start {
        match self.selection.rules.target_scan {
            TargetScan::Window => Start::Window,
            TargetScan::All => Start::Beginning,
        }
    }

    /// Whether records outside of the window count too: they may be copies of the window's records.
    fn counts_outside(&self) -> bool {
        self.look.has_outside() || self.selection.rules.target_scan == TargetScan::All
    }

    /// Looks at all of a record if it counts, and otherwise only at its time.
    fn look(&self) -> impl Fn(&Message) -> Result<Sighting> + Send + 'static {
        let (look, counts_outside) = (self.look.clone(), self.counts_outside());
        move |message| if counts_outside { look.at(message) } else { look.within(message) }
    }

    /// The order that may end a reading of the source behind the window. Sums need the records outside of the window too
    /// if these count, so then there is none.
    fn order(&self, is_whole: bool) -> Order {
        if is_whole || !self.counts_outside() {
            Order::of(self.selection, self.window, self.source.topic.partitions)
        } else {
            Order::unknown()
        }
    }

    /// Reads both topics once, and adds up their records.
    fn survey(&self, census: &mut Census<'_, impl Notes>) -> Result<(Sums, Sequences)> {
        let mut sums = Sums::new(self.selection.index_memory / 4);
        let mut sequences = Sequences::default();
        let counts_outside = self.counts_outside();
        let mut add = |side, message: &Message, seen: &Sighting| {
            if seen.is_in_window {
                sequences.add(side, message.partition(), seen.signature);
            }
            if seen.is_in_window || counts_outside {
                sums.add(side, seen);
            }
        };
        self.source.read_window(Start::Window, self.order(false), self.look(), |message, seen| {
            census.source(seen);
            add(Side::Source, message, seen);
            Ok(())
        })?;
        self.target.read(Start::Window, self.look(), |message, seen| {
            if self.look.is_compared(seen) {
                census.target(seen);
            }
            add(Side::Target, message, seen);
            Ok(())
        })?;
        Ok((sums, sequences))
    }

    /// Takes in the target's records.
    ///
    /// # Errors
    /// [`Error::Failed`] with [`Reason::IndexMemory`] if the memory does not suffice: then fewer classes may fit.
    fn prepare(
        &self,
        round: &Round<'_>,
        census: &mut Census<'_, impl Notes>,
        lists: bool,
    ) -> Result<Prepared> {
        let (rules, memory) = (&self.selection.rules, self.selection.index_memory);
        let share = |part: usize| if round.is_whole { memory } else { memory / part };
        let (marked, wanted, mut total) = match round.sums {
            Some(sums) => self.mark(round, sums)?,
            None => Default::default(),
        };
        let candidates = usize::try_from(wanted.records()).unwrap_or(0);
        let slots = if round.is_whole { usize::MAX } else { share(2) / SLOT_BYTES };
        let mut pairing = Pairing::new(rules, Bounds { slots, keeps_order: round.is_whole, lists });
        let mut judge = Judge::new(rules, share(2));
        judge.reserve(candidates);
        let mut above = self.above_joint(round, marked.as_ref(), share(8))?;
        let from = self.scanned_from();
        let counts_outside = self.counts_outside();
        let mut outside = self.look.has_outside().then(|| {
            let expected = match round.sums {
                Some(sums) => sums.differing()[round.classes.clone()].iter().map(|[_, target]| target).sum(),
                None => self.target.ranges(from).iter().map(Range::len).sum(),
            };
            Outside::new(expected, share(2))
        });
        self.target.read(from, self.look(), |message, seen| {
            let is_compared = self.look.is_compared(seen);
            if is_compared && round.is_whole {
                census.target(seen);
            }
            if !(is_compared || counts_outside) || !round.is_of_class(seen) {
                return Ok(());
            }
            let judges = round.judges(seen);
            if judges {
                total.add(Side::Target, seen.signature);
            }
            if !is_compared {
                if let Some(outside) = outside.as_mut().filter(|_| judges) {
                    outside.insert(seen.signature);
                }
                return Ok(());
            }
            let identity = seen.signature.identity;
            if above.as_mut().is_some_and(|above| above.take(seen.signature)) {
                // It is a copy of a record that the judge does not see.
            } else if judges
                // No copy of a record that is judged, but it tells that the target has the identity.
                || (marked.as_ref().is_some_and(|marked| marked.holds(identity)) && !judge.knows(identity))
            {
                judge.target(seen.signature)?;
            }
            if judges { pairing.target(message, seen) } else { Ok(()) }
        })?;
        if let Some(sums) = round.sums {
            if total != sums.total(&round.classes) {
                return Err(changed_meanwhile());
            }
            judge.make_room(candidates)?;
        }
        if judge.wants_explanations() {
            self.read_source(|message, seen| {
                if !round.is_of_class(seen) {
                    return Ok(());
                }
                pairing.explained(seen);
                // The judge has not seen the copies of a record above the joint.
                if seen.is_in_window && self.joints.are_below(message) { Ok(()) } else { judge.explain(seen) }
            })?;
        }
        Ok(Prepared { judge, candidates: round.sums.map(|_| wanted), above, outside, pairing })
    }

    /// Reads the source's records of cells that differ. Returns the identities of those in the window, what those add up
    /// to, and what all add up to.
    fn mark(&self, round: &Round<'_>, sums: &Sums) -> Result<(Option<Marked>, Total, Total)> {
        let expected: u64 = sums.differing()[round.classes.clone()].iter().map(|[source, _]| source).sum();
        let expected = usize::try_from(expected).unwrap_or(usize::MAX);
        // If the whole record is the identity, another content is another identity.
        let mut marked = (self.selection.rules.identity != Identity::Record)
            .then(|| Marked::new(self.selection.index_memory / 4, expected));
        let (mut candidates, mut total) = <(Total, Total)>::default();
        let counts_outside = self.counts_outside();
        self.source.read_window(Start::Window, self.order(false), self.look(), |_, seen| {
            if !(seen.is_in_window || counts_outside) || !round.judges(seen) {
                return Ok(());
            }
            total.add(Side::Source, seen.signature);
            if !seen.is_in_window {
                return Ok(());
            }
            candidates.add(Side::Source, seen.signature);
            marked.as_mut().map_or(Ok(()), |marked| marked.insert(seen.signature.identity))
        })?;
        Ok((marked, candidates, total))
    }

    /// Judges the source's records, and counts what the target holds beside their copies.
    fn finish(
        &self,
        round: &Round<'_>,
        prepared: Prepared,
        census: &mut Census<'_, impl Notes>,
        list: &mut List,
        found: &mut Findings,
        lacks_above: &mut bool,
    ) -> Result<()> {
        let Prepared { mut judge, candidates, mut above, outside, mut pairing } = prepared;
        let mut total = Total::default();
        let rules = &self.selection.rules;
        let skips_conflicts = rules.on_conflict == OnConflict::Skip;
        let mut second = SecondLook::new(self.selection.index_memory);
        tracing::debug!("the target is read");
        failpoint::instant("compare-source");
        let within = self.look.clone();
        self.source.read_window(
            Start::Window,
            self.order(round.is_whole),
            move |message| within.within(message),
            |message, seen| {
                if round.is_whole {
                    census.source(seen);
                }
                if !seen.is_in_window || !round.is_of_class(seen) {
                    return Ok(());
                }
                let judges = round.judges(seen);
                let of_joint = above.as_mut().filter(|_| self.joints.are_below(message));
                if of_joint.is_none()
                    && outside.as_ref().is_some_and(|outside| outside.may_hold(seen.signature))
                {
                    second.suspect(seen.signature, !judges || judge.holds(seen.signature))?;
                }
                if !judges {
                    return Ok(());
                }
                total.add(Side::Source, seen.signature);
                let judged = match of_joint {
                    Some(above) => {
                        let verdict = above.judge(seen.signature);
                        *lacks_above |= verdict == Verdict::New;
                        Judged::By(verdict)
                    }
                    None => self.judged(&mut judge, message, seen)?,
                };
                pairing.source(message, seen, &judged);
                census.notes.judged(message, seen, &judged);
                list.source(message, seen, &judged, skips_conflicts)
            },
        )?;
        if candidates.is_some_and(|candidates| candidates != total) {
            return Err(changed_meanwhile());
        }
        let at = self.look.clone();
        let stamped = second.decide(
            |each| self.target.read(Start::Window, move |message| at.at(message), |_, seen| each(seen)),
            |each| self.read_source(|_, seen| each(seen)),
        )?;
        let (mut findings, mut unnamed) = pairing.settle(self.keeps_partitions);
        findings.stamped = stamped;
        if list.is_wanted() {
            second
                .copies()
                .for_each(|(record, copies)| unnamed.last(record, 0, Kind::UnderAnotherTime, copies));
        }
        let from = self.scanned_from();
        self.name(Side::Target, from, unnamed, list)?;
        found.take_in(findings);
        Ok(())
    }

    fn judged(&self, judge: &mut Judge, message: &Message, seen: &Sighting) -> Result<Judged> {
        let may_be_left_out = self.selection.rules.skip_invalid && !judge.holds(seen.signature);
        if may_be_left_out && let Some(why) = self.look.why_invalid(message, seen, self.keeps_partitions)? {
            return Ok(Judged::LeftOut(why));
        }
        judge.source(seen.signature).map(Judged::By)
    }

    /// Lists the noted records of a side. Their keys are not kept, so this reads the topic again.
    pub(super) fn name(&self, side: Side, from: Start, mut unnamed: Unnamed, list: &mut List) -> Result<()> {
        if unnamed.is_done() {
            return Ok(());
        }
        let topic = if side == Side::Source { &self.source } else { &self.target };
        topic.read(from, self.look(), |message, seen| {
            let kinds = unnamed.take(message, seen);
            kinds.into_iter().flatten().try_for_each(|kind| list.take(kind, side, message, seen))
        })?;
        if unnamed.is_done() { Ok(()) } else { Err(changed_meanwhile()) }
    }

    /// Reads the source's records of the window above the joints, if there are joints. Their copies must be known before
    /// the job's judge sees the target, because they count for no record below.
    fn above_joint(
        &self,
        round: &Round<'_>,
        marked: Option<&Marked>,
        memory: usize,
    ) -> Result<Option<AboveJoint>> {
        if !self.joints.are_there() {
            return Ok(None);
        }
        let mut above = AboveJoint::new(memory);
        let of_joint = |range: &Range| {
            let joint = self.joints.of_partition(index(range.partition)).unwrap_or(range.end);
            Range { start: range.start.max(joint.min(range.end)), ..*range }
        };
        let ranges: Vec<Range> = self.source.ranges(Start::Window).iter().map(of_joint).collect();
        let within = self.look.clone();
        self.source.read_ranges(
            &ranges,
            move |message| within.within(message),
            |_, seen| {
                let is_wanted = seen.is_in_window
                    && round.is_of_class(seen)
                    && marked.is_none_or(|marked| marked.holds(seen.signature.identity));
                if is_wanted { above.want(seen.signature) } else { Ok(()) }
            },
        )?;
        Ok(Some(above))
    }

    /// Reads all that the source holds now, whatever the window. Each record of the target was in the source before, so
    /// no original is left out.
    fn read_source(&self, each: impl FnMut(&Message, &Sighting) -> Result<()>) -> Result<()> {
        let at = self.look.clone();
        let OpenSide { cluster, topic, .. } = &self.source;
        let ranges = cluster.readable(topic)?;
        self.source.read_ranges(&ranges, move |message| at.at(message), each)
    }
}

fn changed_meanwhile() -> Error {
    Error::failed(
        "a topic changed while it was compared: a later reading did not find the records of the first one, so retention \
         or compaction has deleted some; run again, with a --window that retention does not reach",
    )
    .because(Reason::RecordsDeleted)
}
