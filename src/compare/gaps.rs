//! Finds the holes: the times for which the target lacks records that the source has.
//!
//! `gaps` reads the committed records of both topics. Comparing offsets would not be enough, since transaction markers
//! and aborted records take offsets too. The time index would not be enough either: a marker has the time at which it
//! was written, so if the records are old, the index points at a marker for every later time. `gaps` writes nothing,
//! and disturbs no running fill.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::base::error::{Error, Result};
use crate::base::interrupt::Interrupt;
use crate::base::progress::Progress;
use crate::base::range::index;
use crate::base::time::{millis, rfc3339};
use crate::compare::chart::Histogram;
use crate::compare::{Judged, Notes, Pairing, compare};
use crate::job::identity::Identity;
use crate::job::names::Names;
use crate::job::window::Window;
use crate::job::{OnConflict, Selection};
use crate::judge::{Sighting, Verdict};
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
    /// Records of the source that equal an earlier one there. One copy in the target is enough. Records above the joint
    /// of a follow, and all records with `--identity record`, need a copy each and are not among these.
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
    /// some of them.
    pub of: u64,
    /// The missing records of each partition of the source.
    pub per_partition: Vec<u64>,
    /// The command that fills the hole.
    pub command: String,
}

/// A record of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    time: i64,
    partition: i32,
    is_missing: bool,
}

/// Reads both topics' windows up to the present ends. Missing records less than `bucket` apart are in one hole.
///
/// # Errors
/// The errors that the exit codes stand for. A hole is no error.
pub fn gaps(
    selection: &Selection,
    bucket: Duration,
    progress: Progress,
    interrupt: &Interrupt,
) -> Result<Gaps> {
    let started = Instant::now();
    let mut counted = Counted {
        pairing: Pairing::new(selection),
        skips_conflicts: selection.rules.on_conflict == OnConflict::Skip,
        found: Gaps::default(),
        seen: Vec::new(),
        target_times: Vec::new(),
    };
    let mut compared = compare(selection, progress, interrupt, &mut counted)?;
    let Counted { pairing, mut found, mut seen, target_times, .. } = counted;
    let findings = pairing.settle(compared.keeps_partitions());
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
    seen.sort_unstable();
    let bucket = i64::try_from(bucket.as_millis()).unwrap_or(i64::MAX).max(1);
    let times: Vec<i64> = seen.iter().map(|record| record.time).collect();
    let span = (times.first().copied().unwrap_or(0), times.last().map_or(0, |last| last.saturating_add(1)));
    found.names = findings.names;
    found.names.found(&compared.topics);
    let (source, target) = (found.names.shown_source(), found.names.shown_target());
    let chart = Histogram::new(&source, &times, span, selection.zone);
    let lacking = Histogram::new(&target, &target_times, span, selection.zone).scaled_as(&chart);
    found.holes = holes(&seen, bucket)
        .into_iter()
        .map(|records| Hole::new(records, compared.topics.source.partitions, selection, identity))
        .collect();
    found.under_another_time = compared.elsewhen.copies;
    found.warnings = compared.warnings;
    found.charts = (!times.is_empty()).then_some((chart, lacking));
    found.elapsed_ms = millis(started.elapsed());
    Ok(found)
}

/// The notes that `gaps` takes.
struct Counted {
    pairing: Pairing,
    skips_conflicts: bool,
    found: Gaps,
    seen: Vec<Seen>,
    target_times: Vec<i64>,
}

impl Notes for Counted {
    fn window(&mut self, window: Window) {
        self.pairing.window(window);
    }

    fn target(&mut self, message: &Message, seen: &Sighting) {
        self.pairing.target(message, seen);
        if seen.is_in_window {
            self.target_times.extend(seen.time);
            self.found.without_time.in_target += u64::from(seen.time.is_none());
        }
    }

    fn explained(&mut self, seen: &Sighting) {
        self.pairing.explained(seen);
    }

    fn source(&mut self, message: &Message, seen: &Sighting, judged: &Judged) {
        let is_conflict = *judged == Judged::By(Verdict::Conflict);
        let is_left_out = matches!(judged, Judged::LeftOut(_)) || (is_conflict && self.skips_conflicts);
        self.pairing.source(message, seen, judged);
        let is_missing = (is_conflict && !is_left_out) || *judged == Judged::By(Verdict::New);
        self.found.left_out += u64::from(is_left_out);
        self.found.missing += u64::from(is_missing);
        self.found.conflicts += u64::from(is_missing && is_conflict);
        match seen.time {
            Some(time) => self.seen.push(Seen { time, partition: message.partition(), is_missing }),
            None => {
                self.found.without_time.in_source += 1;
                self.found.without_time.missing += u64::from(is_missing);
            }
        }
    }
}

/// The source's records of each hole, from the first missing one to the last. `seen` is in order of time.
fn holes(seen: &[Seen], bucket: i64) -> Vec<&[Seen]> {
    let mut holes: Vec<(usize, usize)> = Vec::new();
    for (place, record) in seen.iter().enumerate().filter(|(_, record)| record.is_missing) {
        let is_near = |last: usize| {
            // If the source has no record in between, both are in one hole, however far apart.
            last + 1 == place || record.time.saturating_sub(seen[last].time) < bucket
        };
        match holes.last_mut().filter(|(_, last)| is_near(*last)) {
            Some((_, last)) => *last = place,
            None => holes.push((place, place)),
        }
    }
    holes.into_iter().map(|(first, last)| &seen[first..=last]).collect()
}

impl Hole {
    fn new(records: &[Seen], partitions: usize, selection: &Selection, identity: &Identity) -> Hole {
        let (first, last) = match records {
            [first, .., last] => (first.time, last.time),
            [only] => (only.time, only.time),
            [] => (0, 0),
        };
        let mut per_partition = vec![0; partitions];
        for record in records.iter().filter(|record| record.is_missing) {
            if let Some(count) = per_partition.get_mut(index(record.partition)) {
                *count += 1;
            }
        }
        Hole {
            first_missing: rfc3339(first),
            last_missing: rfc3339(last),
            missing: per_partition.iter().sum(),
            of: records.len() as u64,
            per_partition,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// One record a second: `x` is missing in the target, `.` is there, and a blank is no record.
    fn line(text: &str) -> Vec<Seen> {
        let records = text.chars().zip(0..).filter(|(c, _)| *c != ' ');
        records.map(|(c, second)| Seen { time: second * 1000, partition: 0, is_missing: c == 'x' }).collect()
    }

    #[rstest]
    #[case("", &[])]
    #[case("....", &[])]
    #[case("..xx..", &[(2, 3)])]
    #[case("xx....", &[(0, 1)])]
    #[case("....xx", &[(4, 5)])]
    #[case("xxxxxx", &[(0, 5)])]
    #[case("x......x", &[(0, 0), (7, 7)])]
    #[case("x.x.x......xx", &[(0, 4), (11, 12)])]
    #[case("x         x", &[(0, 10)])]
    fn found(#[case] text: &str, #[case] wanted: &[(i64, i64)]) {
        let seen = line(text);
        let found: Vec<(i64, i64)> = holes(&seen, 5000)
            .iter()
            .map(|hole| (hole[0].time / 1000, hole[hole.len() - 1].time / 1000))
            .collect();
        assert_eq!(found, wanted);
    }

    proptest! {
        #[test]
        fn every_missing_record_is_in_one_hole(text in "[x. ]{0,80}", bucket in 1i64..20_000) {
            let seen = line(&text);
            let found = holes(&seen, bucket);
            let missing = |records: &[Seen]| records.iter().filter(|record| record.is_missing).count();
            prop_assert_eq!(found.iter().map(|hole| missing(hole)).sum::<usize>(), missing(&seen));
            prop_assert!(found.iter().all(|hole| hole[0].is_missing && hole[hole.len() - 1].is_missing));
            for pair in found.windows(2) {
                prop_assert!(pair[1][0].time - pair[0][pair[0].len() - 1].time >= bucket);
            }
        }
    }
}
