//! What the target holds already, and whether it can be told from its timestamps.

use std::collections::HashMap;

use super::{Run, Snapshot, content};
use crate::cluster::{Cluster, Watermarks, ends};
use crate::dedup::{Content, Index};
use crate::error::{Error, Result};
use crate::identity::{Fingers, IdentityHash};
use crate::job::{Job, TargetScan};
use crate::preflight::{self, Preflight};
use crate::range::Range;
use crate::source::Reader;
use crate::sys::Message;
use crate::window::Window;

/// The index holds records this far outside of the window as well, in milliseconds.
const MARGIN: i64 = 60_000;
/// Records of the source looked for in the target under other timestamps.
const SAMPLE: i64 = 1000;
/// Entries put into the index in one go, after a look at all their places.
const TOGETHER: usize = 256;

impl Run<'_> {
    /// Reads the target from the window's start to the snapshot into the index; the ranges that it read.
    pub(super) fn scan_target(
        &mut self,
        cluster: &Cluster,
        checked: &Preflight,
        window: Window,
        snapshot: &Snapshot,
        fingers: &Fingers,
        index: &mut Index,
    ) -> Result<Vec<Range>> {
        let job = self.job;
        let (scan_all, wide) = (job.selection.rules.target_scan == TargetScan::All, window.widened(MARGIN));
        let start = wide.start.filter(|_| job.selection.event_time.is_indexed() && !scan_all);
        let starts = cluster.positions_from(&checked.target, start, &snapshot.target)?;
        let ranges = Range::all(&starts, &ends(&snapshot.target));
        index.reserve(self.expected(cluster, checked, window, snapshot)?);
        if ranges.iter().all(Range::is_empty) {
            return Ok(ranges);
        }
        let mut sample = if scan_all || !job.selection.event_time.is_indexed() {
            Sample::default()
        } else {
            self.sample_source(cluster, checked, window, snapshot, fingers)?
        };
        let bar = self
            .progress
            .bar(&format!("scanning {}", job.selection.target), ranges.iter().map(Range::len).sum());
        let look = {
            let (event_time, identity) =
                (job.selection.event_time.clone(), job.selection.rules.identity.clone());
            let (fingers, scan) = (fingers.clone(), job.selection.rules.target_scan);
            move |message: &Message| {
                let identity = fingers.identity(&identity, message)?;
                let time = event_time.of(message);
                let is_near = scan_all || time.is_none_or(|time| wide.contains(time));
                Some(Sighting {
                    identity,
                    content: is_near.then(|| content(&fingers, message, scan)),
                    is_of_window: time.is_none_or(|time| window.contains(time)),
                })
            }
        };
        let name = job.selection.name();
        let reader = Reader::looking(&self.reading(&job.selection.target, &name), &ranges, look)?;
        let mut found = Vec::with_capacity(TOGETHER);
        self.duplicates_in_target = 0;
        reader.for_each(self.interrupt, &bar, |message, sighting| {
            let (timestamp, stamped) = message.timestamp();
            if stamped && !scan_all {
                return Err(Error::refused(preflight::log_append_time(&job.selection.target)));
            }
            if let Some(foresight) = &mut self.foresight {
                foresight.look_at(message);
            }
            let Some(sighting) = *sighting else { return Ok(()) };
            sample.look_at(sighting.identity, timestamp, || fingers.content(message, false));
            if let Some(content) = sighting.content {
                found.push((sighting.identity, content, sighting.is_of_window));
                if found.len() == TOGETHER {
                    self.duplicates_in_target += take_in(index, &mut found)?;
                }
            }
            Ok(())
        })?;
        self.duplicates_in_target += take_in(index, &mut found)?;
        sample.verdict(job)?;
        tracing::debug!("{} identities in the window of {}", index.len(), job.selection.target);
        Ok(ranges)
    }

    /// How many identities there may be, by the time index; 0 where that does not tell.
    fn expected(
        &self,
        cluster: &Cluster,
        checked: &Preflight,
        window: Window,
        snapshot: &Snapshot,
    ) -> Result<usize> {
        if !self.job.selection.event_time.is_indexed() {
            return Ok(0);
        }
        let within = |topic, watermarks: &[Watermarks]| -> Result<i64> {
            let from = cluster.positions_from(topic, window.start, watermarks)?;
            let to = match window.end {
                Some(end) => cluster.positions_from(topic, Some(end), watermarks)?,
                None => ends(watermarks),
            };
            Ok(from.iter().zip(&to).map(|(from, to)| (to - from).max(0)).sum())
        };
        let source = within(&checked.source, &snapshot.source)?;
        let target = within(&checked.target, &snapshot.target)?;
        Ok(usize::try_from(source.max(target)).unwrap_or(0))
    }

    /// Some records of the source around the window's start, and its last ones.
    fn sample_source(
        &mut self,
        cluster: &Cluster,
        checked: &Preflight,
        window: Window,
        snapshot: &Snapshot,
        fingers: &Fingers,
    ) -> Result<Sample> {
        let job = self.job;
        let ends = ends(&snapshot.source);
        let each = (SAMPLE / i64::try_from(ends.len()).unwrap_or(SAMPLE)).max(1);
        let around = cluster.positions_from(&checked.source, window.start, &snapshot.source)?;
        let mut sample = Sample::default();
        // By position: the time index also finds transaction markers, which bear the time of their writing.
        for middles in [&around, &ends] {
            let ranges: Vec<Range> = Range::all(middles, &ends)
                .into_iter()
                .zip(&snapshot.source)
                .map(|(at, w)| Range {
                    start: (at.start - each).max(w.low),
                    end: (at.start + each).min(w.high),
                    ..at
                })
                .collect();
            self.read(&job.selection.source, &ranges, &indicatif::ProgressBar::hidden(), |_, message| {
                if let Some(identity) = fingers.identity(&job.selection.rules.identity, message) {
                    sample.take(identity, message.timestamp().0, fingers.content(message, false));
                }
                Ok(())
            })?;
        }
        Ok(sample)
    }
}

/// What a record of the target says of itself.
#[derive(Clone, Copy)]
struct Sighting {
    identity: IdentityHash,
    /// Where the index is to hold it.
    content: Option<Content>,
    is_of_window: bool,
}

/// Empties `found` into the index: how many of the window doubled another one.
fn take_in(index: &mut Index, found: &mut Vec<(IdentityHash, Content, bool)>) -> Result<u64> {
    let mut doubles = 0;
    index.warm(found.iter().map(|(identity, ..)| *identity));
    for (identity, content, is_of_window) in found.drain(..) {
        doubles += u64::from(index.insert_target(identity, content)? && is_of_window);
    }
    Ok(doubles)
}

/// Records of the source, looked for in the target under another timestamp: a copier that stamps its own
/// time leaves nothing of the window where the index looks for it.
#[derive(Default)]
struct Sample(HashMap<IdentityHash, Sampled>);

struct Sampled {
    timestamp: i64,
    content: u64,
    found: bool,
    found_elsewhen: bool,
}

impl Sample {
    fn take(&mut self, identity: IdentityHash, timestamp: i64, content: u64) {
        self.0.entry(identity).or_insert(Sampled { timestamp, content, found: false, found_elsewhen: false });
    }

    fn look_at(&mut self, identity: IdentityHash, timestamp: i64, content: impl Fn() -> u64) {
        if let Some(sampled) = self.0.get_mut(&identity) {
            let is_same = timestamp == sampled.timestamp;
            sampled.found |= is_same;
            sampled.found_elsewhen |= !is_same && content() == sampled.content;
        }
    }

    fn verdict(&self, job: &Job) -> Result<()> {
        let moved = self.0.values().filter(|s| s.found_elsewhen && !s.found).count();
        if moved == 0 {
            return Ok(());
        }
        Err(Error::refused(format!(
            "{moved} of {} records of {} that were looked for stand in {} with another timestamp: its copies were \
             stamped anew, so the window alone does not show which are there; compare the whole topic with \
             --target-scan all",
            self.0.len(),
            job.selection.source,
            job.selection.target
        )))
    }
}
