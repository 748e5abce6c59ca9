//! Finds the records that the target holds already, and the copies with another timestamp.

use std::collections::BTreeMap;

use super::portion::Portion;
use super::{Run, Snapshot};
use crate::base::error::{Error, Reason, Result};
use crate::base::failpoint::{self, Rule};
use crate::base::range::{Range, id, index};
use crate::fill::preflight::{self, Preflight};
use crate::job::TargetScan;
use crate::job::order::Order;
use crate::job::window::Window;
use crate::judge::elsewhen::{Outside, SecondLook, StampedCopies};
use crate::judge::{Judge, Look, Sighting};
use crate::kafka::cluster::Cluster;
use crate::kafka::reader::Reader;
use crate::kafka::sides::{Clusters, Side};
use crate::kafka::watermarks::ends;

/// How many records are taken in at once, so that the processor fetches their places together.
const TOGETHER: usize = 256;

/// The result of the scan of the target.
pub(super) struct Scanned {
    /// From the window's start to the snapshot's ends.
    pub(super) ranges: Vec<Range>,
    /// The parts of them that were read.
    pub(super) read: Vec<Range>,
    pub(super) judge: Judge,
    pub(super) outside: Option<Outside>,
    /// The offset of the first record that is compared, in each partition; the end if there is none.
    pub(super) firsts: Vec<i64>,
    /// The first offset in each partition that holds a record which belongs to another one, if there is one.
    pub(super) misplaced: BTreeMap<i32, i64>,
}

impl Run<'_> {
    /// Reads the target from the window's start to the snapshot's ends. With a `portion`, reads what comes first of it.
    /// The copy will read the ranges `of_source`, which have this order.
    pub(super) fn scan_target(
        &mut self,
        clusters: &Clusters,
        checked: &Preflight,
        snapshot: &Snapshot,
        look: &Look,
        portion: Option<&Portion>,
        (of_source, order): (&[Range], Order),
    ) -> Result<Scanned> {
        let (selection, window) = (&self.job.selection, look.window());
        let mut judge = Judge::new(&selection.rules, selection.index_memory);
        let start = window.start.filter(|_| self.is_by_time());
        let starts = clusters.target.positions_from(&checked.target, start, &snapshot.target)?;
        let starts = if failpoint::breaks(Rule::ScanWithoutMark) { ends(&snapshot.target) } else { starts };
        let ranges = Range::all(&starts, &ends(&snapshot.target));
        let first = portion.map_or_else(|| ranges.clone(), |portion| portion.first(&ranges));
        let (in_source, in_target) = self.expected(clusters, checked, window, snapshot, portion)?;
        judge.reserve(usize::try_from(in_source.max(in_target)).unwrap_or(0));
        let about = length(&first).saturating_sub(in_target);
        let mut scanned = Scanned {
            outside: self.outside(checked, look, (&first, about), of_source, order)?,
            ranges,
            read: Vec::new(),
            judge,
            firsts: ends(&snapshot.target),
            misplaced: BTreeMap::new(),
        };
        self.scan(checked, look, portion, &mut scanned, &first)?;
        if scanned.judge.wants_explanations() {
            self.warn_of_unexplained(snapshot);
            let judge = &mut scanned.judge;
            self.read_source(&clusters.source, checked, look, |seen| judge.explain(seen))?;
        }
        Ok(scanned)
    }

    fn is_by_time(&self) -> bool {
        let selection = &self.job.selection;
        selection.event_time.is_indexed() && selection.rules.target_scan == TargetScan::Window
    }

    /// Reads these ranges of the target, and keeps what counts for the `portion`.
    pub(super) fn scan(
        &mut self,
        checked: &Preflight,
        look: &Look,
        portion: Option<&Portion>,
        scanned: &mut Scanned,
        ranges: &[Range],
    ) -> Result<()> {
        let selection = &self.job.selection;
        let is_by_time = self.is_by_time();
        let bar = self.progress.over(&format!("scanning {}", selection.target), ranges);
        let (at, part) = (look.clone(), portion.cloned());
        let reading = self.reading(Side::Target, &checked.ledger.name);
        // Where each record belongs, and what is seen in it if that counts.
        let reader = Reader::looking(&reading, ranges, move |message| {
            let belongs = part.as_ref().map_or(message.partition(), |part| part.of(message));
            let counts = part.as_ref().is_none_or(|part| part.has(belongs));
            Ok((belongs, if counts { at.at(message)? } else { Sighting::default() }))
        })?;
        let Scanned { judge, outside, firsts, misplaced, .. } = &mut *scanned;
        let (mut found, mut beside) = (Vec::with_capacity(TOGETHER), Vec::with_capacity(TOGETHER));
        reader.for_each(self.interrupt, &bar, |message, (belongs, seen)| {
            if message.timestamp().1 && is_by_time {
                let stamped = Error::refused(preflight::log_append_time(&selection.target));
                return Err(selection.properties.target.says(stamped.because(Reason::OtherTimestamps)));
            }
            if *belongs != message.partition() {
                misplaced.entry(message.partition()).or_insert(message.offset());
            }
            if let Some(foresight) = &mut self.foresight {
                foresight.look_at(message, seen.time);
            }
            if !seen.has_identity {
                return Ok(());
            }
            if look.is_compared(seen) {
                let first = &mut firsts[index(message.partition())];
                *first = message.offset().min(*first);
                found.push(seen.signature);
                if found.len() == TOGETHER {
                    judge.take_in(&mut found)?;
                }
            } else if let Some(outside) = outside {
                beside.push(seen.signature);
                if beside.len() == TOGETHER {
                    outside.take_in(&mut beside);
                }
            }
            Ok(())
        })?;
        judge.take_in(&mut found)?;
        outside.iter_mut().for_each(|outside| outside.take_in(&mut beside));
        scanned.read.extend(ranges);
        Ok(())
    }

    /// Where the scan notes the target's records outside of the window, which are `about` so many in its ranges. Reads the
    /// source's window if these are too many to be told apart, or if an earlier scan noted records that look like copies.
    fn outside(
        &self,
        checked: &Preflight,
        look: &Look,
        (ranges, about): (&[Range], u64),
        of_source: &[Range],
        order: Order,
    ) -> Result<Option<Outside>> {
        let memory = self.job.selection.index_memory;
        let mut outside = look.has_outside().then(|| Outside::new(length(ranges), memory));
        if let Some(outside) =
            outside.as_mut().filter(|_| self.is_suspicious || !Outside::has_room(about, memory))
        {
            outside.only_wanted(length(of_source), memory);
            self.read_window(&checked.ledger.name, look, of_source, order, |seen| {
                outside.want(seen.signature);
                Ok(())
            })?;
        }
        Ok(outside)
    }

    /// If the source has deleted its first records, it does not explain the target's copies of them.
    fn warn_of_unexplained(&mut self, snapshot: &Snapshot) {
        if snapshot.source.iter().any(|watermarks| watermarks.low > 0) {
            self.told.warn(format!(
                "{} has deleted its first records: if {} holds copies of them, the run takes these for copies of later \
                 records that differ only in timestamp",
                self.job.selection.shown_source(),
                self.job.selection.shown_target()
            ));
        }
    }

    /// Reads all records that the source holds now, whatever the window: each copy in the target was in the source
    /// before. Open transactions do not matter, because no mirror has read them either.
    pub(super) fn read_source(
        &self,
        cluster: &Cluster,
        checked: &Preflight,
        look: &Look,
        mut each: impl FnMut(&Sighting) -> Result<()>,
    ) -> Result<()> {
        let ranges = cluster.readable(&checked.source)?;
        let (look, name) = (look.clone(), &checked.ledger.name);
        self.read_looking(Side::Source, name, &ranges, move |message| look.at(message), |_, seen| each(seen))
    }

    /// How many records of the window each topic may hold for the portion, according to the time index; 0 if the index
    /// does not tell. Another number of partitions in the target does not tell how many of its records count for it.
    fn expected(
        &self,
        clusters: &Clusters,
        checked: &Preflight,
        window: Window,
        snapshot: &Snapshot,
        portion: Option<&Portion>,
    ) -> Result<(u64, u64)> {
        if !self.job.selection.event_time.is_indexed() {
            return Ok((0, 0));
        }
        let edges = (window.start, window.end);
        let source = clusters.source.about_how_many(&checked.source, edges, &snapshot.source)?;
        let target = clusters.target.about_how_many(&checked.target, edges, &snapshot.target)?;
        let is_aligned = source.len() == target.len();
        let own = |each: Vec<i64>| -> u64 {
            let each = each.into_iter().enumerate();
            let own = each.filter(|(p, _)| portion.is_none_or(|portion| portion.has(id(*p))));
            own.map(|(_, count)| u64::try_from(count).unwrap_or(0)).sum()
        };
        let of_target = if portion.is_none() || is_aligned { own(target) } else { 0 };
        Ok((own(source), of_target))
    }

    /// Decides exactly which records of the target are copies of the window's records with another timestamp, before
    /// anything is written. It takes the window's records from the source's `ranges`.
    pub(super) fn look_again(
        &mut self,
        clusters: &Clusters,
        checked: &Preflight,
        look: &Look,
        scanned: &Scanned,
        ranges: &[Range],
        order: Order,
    ) -> Result<()> {
        let Some(outside) = scanned.outside.as_ref().filter(|outside| outside.is_suspicious()) else {
            return Ok(());
        };
        let memory = self.job.selection.index_memory;
        let mut second = self.second.take().unwrap_or_else(|| SecondLook::new(memory));
        let target = self.job.selection.shown_target();
        tracing::info!("checking whether {target} holds records of the window with another timestamp");
        let at = look.clone();
        let name = &checked.ledger.name;
        self.read_window(name, look, ranges, order, |seen| match outside.may_hold(seen.signature) {
            true => second.suspect(seen.signature, scanned.judge.holds(seen.signature)),
            false => Ok(()),
        })?;
        let found = second.decide(
            |each| {
                self.read_looking(
                    Side::Target,
                    name,
                    &scanned.read,
                    move |message| at.at(message),
                    |_, seen| each(seen),
                )
            },
            |each| self.read_source(&clusters.source, checked, look, each),
        )?;
        self.second = Some(second);
        self.report(found)
    }

    fn report(&mut self, found: StampedCopies) -> Result<()> {
        let (source, target) = (self.job.selection.shown_source(), self.job.selection.shown_target());
        let Some(told) = found.sentence(&source, &target) else { return Ok(()) };
        let StampedCopies { copies, lacking } = found;
        if lacking == 0 {
            self.told.copies_at_other_times += copies;
            self.told.warn(format!("{told}, so {target} holds these records twice"));
            return Ok(());
        }
        Err(Error::refused(format!(
            "{told}. They look like copies of {lacking} records that {target} lacks otherwise, but with another \
             timestamp. If they are copies, compare the whole topic with --target-scan all; if they are records of \
             their own, use --identity record"
        ))
        .because(Reason::OtherTimestamps))
    }
}

fn length(ranges: &[Range]) -> u64 {
    ranges.iter().map(Range::len).sum()
}
