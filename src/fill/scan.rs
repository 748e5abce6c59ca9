//! Finds the records that the target holds already, and the copies with another timestamp.

use super::{Run, Snapshot};
use crate::base::error::{Error, Reason, Result};
use crate::base::failpoint::{self, Rule};
use crate::base::range::{Range, index};
use crate::fill::preflight::{self, Preflight};
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
    pub(super) ranges: Vec<Range>,
    pub(super) judge: Judge,
    pub(super) outside: Option<Outside>,
    /// The offset of the first record that is compared, in each partition; the end if there is none.
    pub(super) firsts: Vec<i64>,
}

impl Run<'_> {
    /// Reads the target from the window's start to the snapshot's ends. The copy will read the ranges `of_source`.
    pub(super) fn scan_target(
        &mut self,
        clusters: &Clusters,
        checked: &Preflight,
        window: Window,
        snapshot: &Snapshot,
        look: &Look,
        of_source: &[Range],
        order: Order,
    ) -> Result<Scanned> {
        let selection = &self.job.selection;
        let mut judge = Judge::new(&selection.rules, selection.index_memory);
        let is_by_time = selection.event_time.is_indexed() && !judge.wants_explanations();
        let start = window.start.filter(|_| is_by_time);
        let starts = clusters.target.positions_from(&checked.target, start, &snapshot.target)?;
        let starts = if failpoint::breaks(Rule::ScanWithoutMark) { ends(&snapshot.target) } else { starts };
        let ranges = Range::all(&starts, &ends(&snapshot.target));
        let (in_source, in_target) = self.expected(clusters, checked, window, snapshot)?;
        judge.reserve(usize::try_from(in_source.max(in_target)).unwrap_or(0));
        let outside = length(&ranges).saturating_sub(in_target);
        let mut outside = self.outside(checked, look, (&ranges, outside), of_source, order)?;
        let bar = self.progress.over(&format!("scanning {}", selection.target), &ranges);
        let at = look.clone();
        let reading = self.reading(Side::Target, &checked.ledger.name);
        let reader = Reader::looking(&reading, &ranges, move |message| at.at(message))?;
        let mut firsts = ends(&snapshot.target);
        let (mut found, mut beside) = (Vec::with_capacity(TOGETHER), Vec::with_capacity(TOGETHER));
        reader.for_each(self.interrupt, &bar, |message, seen| {
            if message.timestamp().1 && is_by_time {
                let stamped = Error::refused(preflight::log_append_time(&selection.target));
                return Err(selection.properties.target.says(stamped.because(Reason::OtherTimestamps)));
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
            } else if let Some(outside) = &mut outside {
                beside.push(seen.signature);
                if beside.len() == TOGETHER {
                    outside.take_in(&mut beside);
                }
            }
            Ok(())
        })?;
        judge.take_in(&mut found)?;
        if let Some(outside) = &mut outside {
            outside.take_in(&mut beside);
            outside.end();
        }
        if judge.wants_explanations() {
            self.warn_of_unexplained(snapshot);
            self.read_source(&clusters.source, checked, look, |seen| judge.explain(seen))?;
        }
        tracing::debug!("{} holds {} identities that count for the window", selection.target, judge.len());
        Ok(Scanned { ranges, judge, outside, firsts })
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

    /// How many records of the window each topic may hold, according to the time index; 0 if the index does not tell.
    fn expected(
        &self,
        clusters: &Clusters,
        checked: &Preflight,
        window: Window,
        snapshot: &Snapshot,
    ) -> Result<(u64, u64)> {
        if !self.job.selection.event_time.is_indexed() {
            return Ok((0, 0));
        }
        let edges = (window.start, window.end);
        let source = clusters.source.about_how_many(&checked.source, edges, &snapshot.source)?;
        let target = clusters.target.about_how_many(&checked.target, edges, &snapshot.target)?;
        Ok((u64::try_from(source).unwrap_or(0), u64::try_from(target).unwrap_or(0)))
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
                    &scanned.ranges,
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
