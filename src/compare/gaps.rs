//! Finds the holes: the times for which the target lacks records that the source has.
//!
//! `gaps` reads the committed records of both topics. Comparing offsets would not be enough, since transaction markers
//! and aborted records take offsets too. The time index would not be enough either: a marker has the time at which it
//! was written, so if the records are old, the index points at a marker for every later time. `gaps` writes nothing,
//! and disturbs no running fill.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::base::error::{Error, Result};
use crate::base::interrupt::Interrupt;
use crate::base::progress::Progress;
use crate::base::time::{millis, rfc3339};
use crate::compare::chart::Histogram;
use crate::compare::timeline::{Stretch, Timeline};
use crate::compare::{Judged, Notes, Wish, compare};
use crate::job::identity::Identity;
use crate::job::names::Names;
use crate::job::window::Window;
use crate::job::{OnConflict, Selection};
use crate::judge::{Sighting, Verdict};
use crate::kafka::sides::Side;
use crate::kafka::sys::Message;

/// The records that the target lacks, and their times. All counts are of records.
#[derive(Debug, Default, Serialize)]
pub struct Gaps {
    #[serde(flatten)]
    pub names: Names,
    pub in_source: u64,
    pub in_target: u64,
    /// Records of the source that the target lacks. Each is in a hole, or has no event time.
    pub missing: u64,
    /// Those of `missing` whose identity also has another content. A fill with this identity stops at them.
    pub conflicts: u64,
    /// Records of the source that `--on-conflict skip` or `--skip-invalid` leaves out.
    pub left_out: u64,
    /// Records of the source that equal an earlier one there, and have no copy of their own. One copy in the target is
    /// enough. Records above the joint of a follow, and all records with `--identity record`, need a copy each and are
    /// not among these.
    pub duplicates_in_source: u64,
    /// Copies in the target beyond the number that the source holds.
    pub doubled: u64,
    /// Records of the target that are not in the source: other writers wrote them, or they were changed.
    pub only_in_target: u64,
    /// Records without event time, which no hole counts.
    pub without_time: WithoutTime,
    /// Records of the target outside of the window that differ only in timestamp from a record of the source's window.
    pub under_another_time: u64,
    /// In order of time.
    pub holes: Vec<Hole>,
    pub elapsed_ms: u64,
    pub warnings: Vec<String>,
    #[serde(skip)]
    charts: Option<(Histogram, Histogram)>,
}

/// Records without event time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WithoutTime {
    pub in_source: u64,
    pub in_target: u64,
    /// Those of the source that the target lacks.
    pub missing: u64,
}

/// A stretch of time in which the target lacks records. Missing records that are closer together than a bucket are in
/// one hole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hole {
    /// The event times of the first and the last missing record, in RFC 3339.
    pub first_missing: String,
    pub last_missing: String,
    pub missing: u64,
    /// How many records the source has from the first to the last missing one. More than `missing` if the target has
    /// some of them. If the source has records at more than some 100,000 different times, it counts them in steps of some
    /// milliseconds.
    pub of: u64,
    /// The missing records of each partition of the source.
    pub per_partition: Vec<u64>,
    /// The command that fills the hole.
    pub command: String,
}

/// Reads both topics' windows up to the present ends. Missing records less than `bucket` apart are in one hole.
///
/// # Errors
/// The errors that the exit codes stand for. A hole is no error.
pub fn gaps(
    selection: &Selection,
    bucket: Duration,
    list: Option<&Path>,
    progress: Progress,
    interrupt: &Interrupt,
) -> Result<Gaps> {
    let started = Instant::now();
    let mut counted = Counted {
        skips_conflicts: selection.rules.on_conflict == OnConflict::Skip,
        found: Gaps::default(),
        times: Timeline::default(),
    };
    let wish = Wish { list, ..Wish::default() };
    let mut compared = compare(selection, wish, progress, interrupt, &mut counted)?;
    let findings = std::mem::take(&mut compared.findings);
    let Counted { mut found, times, .. } = counted;
    (found.in_source, found.in_target) = (findings.in_source, findings.in_target);
    found.duplicates_in_source = findings.duplicates_in_source;
    found.doubled = findings.duplicated;
    found.only_in_target = findings.extra + findings.changed;
    let matters = found.missing + found.duplicates_in_source + found.doubled + found.only_in_target > 0;
    compared.warn_of_unread_joints(selection, matters);
    if let Some(why) = compared.refusal.take().filter(|_| found.missing > 0) {
        compared.warn(format!("a fill would be refused: {why}"));
    }
    // If the whole record is the identity, these records do not conflict, and each gets a copy of its own.
    let identity = if found.conflicts > 0 || compared.lacks_above_joint {
        &Identity::Record
    } else {
        &selection.rules.identity
    };
    found.names = Names::from(selection);
    found.names.found(&compared.topics);
    let bucket = i64::try_from(bucket.as_millis()).unwrap_or(i64::MAX).max(1);
    let stretches = times.stretches(bucket, compared.topics.source.partitions);
    if times.step() > bucket && !stretches.is_empty() {
        compared.warn(format!(
            "the records are at so many different times that --bucket counts as {}",
            humantime::format_duration(Duration::from_millis(times.step().unsigned_abs()))
        ));
    }
    found.holes = stretches.into_iter().map(|stretch| Hole::new(stretch, selection, identity)).collect();
    found.charts = times.span().map(|span| {
        let (source, target) = (found.names.shown_source(), found.names.shown_target());
        let chart = |topic: &str, side| Histogram::new(topic, times.times(side), span, selection.zone);
        let (source, target) = (chart(&source, Side::Source), chart(&target, Side::Target));
        let target = target.scaled_as(&source);
        (source, target)
    });
    found.under_another_time = findings.stamped.copies;
    found.warnings = compared.warnings;
    found.elapsed_ms = millis(started.elapsed());
    Ok(found)
}

/// The notes that `gaps` takes.
struct Counted {
    skips_conflicts: bool,
    found: Gaps,
    times: Timeline,
}

impl Notes for Counted {
    fn window(&mut self, _: Window) {}

    fn read(&mut self, side: Side, seen: &Sighting) {
        let none = &mut self.found.without_time;
        match (seen.time, side) {
            (Some(time), side) => self.times.count(side, time),
            (None, Side::Source) => none.in_source += 1,
            (None, Side::Target) => none.in_target += 1,
        }
    }

    fn judged(&mut self, message: &Message, seen: &Sighting, judged: &Judged) {
        let is_conflict = *judged == Judged::By(Verdict::Conflict);
        let is_left_out = matches!(judged, Judged::LeftOut(_)) || (is_conflict && self.skips_conflicts);
        let is_missing = (is_conflict && !is_left_out) || *judged == Judged::By(Verdict::New);
        self.found.left_out += u64::from(is_left_out);
        self.found.missing += u64::from(is_missing);
        self.found.conflicts += u64::from(is_missing && is_conflict);
        match seen.time.filter(|_| is_missing) {
            Some(time) => self.times.miss(time, message.partition()),
            None => self.found.without_time.missing += u64::from(is_missing),
        }
    }
}

impl Hole {
    fn new(stretch: Stretch, selection: &Selection, identity: &Identity) -> Hole {
        let Stretch { first, last, missing, of } = stretch;
        Hole {
            first_missing: rfc3339(first),
            last_missing: rfc3339(last),
            missing: missing.iter().sum(),
            of,
            per_partition: missing,
            command: selection
                .command(Window { start: Some(first), end: Some(last.saturating_add(1)) }, identity),
        }
    }
}

impl fmt::Display for Gaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((source, target)) = &self.charts {
            writeln!(f, "{source}\n{target}\n")?;
        }
        for hole in &self.holes {
            let partial = if hole.missing < hole.of { format!(" of {}", hole.of) } else { String::new() };
            writeln!(
                f,
                "{} to {}: {}{partial} missing, by partition {:?}",
                hole.first_missing, hole.last_missing, hole.missing, hole.per_partition
            )?;
            writeln!(f, "  {}", hole.command)?;
        }
        for sentence in self.sentences() {
            writeln!(f, "{sentence}")?;
        }
        let (source, target, all) = (self.names.shown_source(), self.names.shown_target(), self.in_source);
        match (self.missing, self.holes.len()) {
            (0, _) if all + self.in_target == 0 => {
                write!(f, "neither {source} nor {target} holds a record in the window")
            }
            (0, _) if all == 0 => {
                write!(f, "{source} holds no record in the window, but {target} holds {}", self.in_target)
            }
            (0, _) => write!(f, "{target} lacks none of the {all} records of {source}"),
            (missing, 0) => write!(f, "{target} lacks {missing} of the {all} records of {source}"),
            (missing, 1) => write!(f, "{target} lacks {missing} of the {all} records of {source}, in 1 hole"),
            (missing, count) => {
                write!(f, "{target} lacks {missing} of the {all} records of {source}, in {count} holes")
            }
        }
    }
}

impl Gaps {
    /// # Errors
    /// [`Error::Different`] if the target lacks records.
    pub fn lacks_nothing(&self) -> Result<()> {
        match self.missing {
            0 => Ok(()),
            missing => {
                Err(Error::different(format!("{} lacks {missing} records", self.names.shown_target())))
            }
        }
    }

    /// The sentences that account for all records that were read and are in no hole.
    fn sentences(&self) -> Vec<String> {
        let (source, target) = (self.names.shown_source(), self.names.shown_target());
        let mut told = Vec::new();
        let mut tell = |count: u64, what: String| {
            if count > 0 {
                told.push(format!("{count} {what}"));
            }
        };
        tell(
            self.conflicts,
            "of the missing records share their identity with a record of another content, so the identity does not \
             tell records apart; the commands name one that does"
                .to_owned(),
        );
        let none = &self.without_time;
        tell(
            none.in_source,
            format!("records of {source} have no event time: {} of them are missing", none.missing),
        );
        tell(none.in_target, format!("records of {target} have no event time"));
        tell(
            self.left_out,
            format!("records of {source} were left out, because of --on-conflict or --skip-invalid"),
        );
        tell(
            self.duplicates_in_source,
            format!("records of {source} equal an earlier one there; {target} needs only one copy"),
        );
        tell(self.doubled, format!("records of {target} are further copies; see replicator verify"));
        tell(self.only_in_target, format!("records of {target} are not in {source}; see replicator verify"));
        told
    }
}
