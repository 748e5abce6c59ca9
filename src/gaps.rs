//! Finds the holes: when does the target lack records that the source has?
//!
//! Both topics are read in full, committed records only: counts by offsets cannot tell, since transaction
//! markers and aborted records hold offsets too, and a marker bears the time of its writing, so that the time index
//! leads to it for every later time where records are old. Nothing is written, and no running fill is disturbed.

use std::collections::HashSet;
use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::chart::Histogram;
use crate::cluster::Cluster;
use crate::error::Result;
use crate::event_time::EventTime;
use crate::identity::{Fingers, Identity, IdentityHash};
use crate::interrupt::Interrupt;
use crate::job::Selection;
use crate::progress::Progress;
use crate::range::index;
use crate::side::Side;
use crate::window::rfc3339;
use crate::{preflight, resolve};

/// What the target lacks, and when. Counts are of records.
#[derive(Debug, Default, Serialize)]
pub struct Gaps {
    pub source: String,
    pub target: String,
    pub in_source: u64,
    pub in_target: u64,
    pub missing: u64,
    /// In order of time.
    pub holes: Vec<Hole>,
    pub elapsed_ms: u64,
    #[serde(skip)]
    charts: Option<(Histogram, Histogram)>,
}

/// A stretch of time in which the target lacks records: all that are closer together than a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hole {
    /// The event times of the first and the last missing record, in RFC 3339.
    pub first_missing: String,
    pub last_missing: String,
    pub missing: u64,
    /// How many the source has from the first to the last missing one: more where the hole is partial.
    pub of: u64,
    /// Missing in each partition of the source.
    pub per_partition: Vec<u64>,
    /// What fills it.
    pub command: String,
}

/// A record of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    time: i64,
    partition: i32,
    is_missing: bool,
}

/// Reads both topics' windows up to their ends now. Holes that lie closer together than `bucket` are one.
///
/// # Errors
/// As the exit codes; a hole is none.
pub fn gaps(
    selection: &Selection,
    bucket: Duration,
    progress: Progress,
    interrupt: &Interrupt,
) -> Result<Gaps> {
    let started = Instant::now();
    let cluster = Cluster::connect(&selection.properties, &selection.name())?;
    let (source, target) = preflight::topics(&cluster, &selection.source, &selection.target)?;
    let window = resolve::window(&cluster, selection, &source, interrupt)?;
    let fingers = Fingers::new()?;
    let identity_of = |message: &_| -> IdentityHash {
        // A record without identity is known by its content.
        let identity = fingers.identity(&selection.rules.identity, message);
        identity.unwrap_or_else(|| [fingers.content(message, true), 0])
    };
    let side = Side { selection, cluster: &cluster, window, progress, interrupt };

    // The target first: what comes to both meanwhile is then missing in neither.
    let source_ends = cluster.watermarks(&source)?;
    let mut in_target = HashSet::new();
    let mut target_times = Vec::new();
    side.read(&target, |message| {
        in_target.insert(identity_of(message));
        target_times.extend(selection.event_time.of(message));
    })?;
    let mut seen = Vec::new();
    side.read(&source, |message| {
        let is_before = source_ends
            .get(index(message.partition()))
            .is_some_and(|watermarks| message.offset() < watermarks.high);
        if let Some(time) = selection.event_time.of(message).filter(|_| is_before) {
            let is_missing = !in_target.contains(&identity_of(message));
            seen.push(Seen { time, partition: message.partition(), is_missing });
        }
    })?;

    seen.sort_unstable();
    let bucket = i64::try_from(bucket.as_millis()).unwrap_or(i64::MAX).max(1);
    let times: Vec<i64> = seen.iter().map(|record| record.time).collect();
    let span = (times.first().copied().unwrap_or(0), times.last().map_or(0, |last| last.saturating_add(1)));
    let chart = Histogram::new(&source.name, &times, span);
    let lacking = Histogram::new(&target.name, &target_times, span).scaled_as(&chart);
    Ok(Gaps {
        source: source.name,
        target: target.name,
        in_source: seen.len() as u64,
        in_target: target_times.len() as u64,
        missing: seen.iter().filter(|record| record.is_missing).count() as u64,
        holes: holes(&seen, bucket)
            .into_iter()
            .map(|records| Hole::new(records, source.partitions, selection))
            .collect(),
        elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        charts: (!times.is_empty()).then_some((chart, lacking)),
    })
}

/// Each hole's records, from its first missing one to its last, of records in order of time.
fn holes(seen: &[Seen], bucket: i64) -> Vec<&[Seen]> {
    let mut holes: Vec<(usize, usize)> = Vec::new();
    for (place, record) in seen.iter().enumerate().filter(|(_, record)| record.is_missing) {
        let is_near = |last: usize| {
            // Where the source itself has nothing in between, time does not part them.
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
    fn new(records: &[Seen], partitions: usize, selection: &Selection) -> Hole {
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
            command: command(selection, first, last),
        }
    }
}

fn command(selection: &Selection, first: i64, last: i64) -> String {
    let mut command = format!(
        "replicator --window {}/{} --source {} --target {}",
        rfc3339(first),
        rfc3339(last.saturating_add(1)),
        selection.source,
        selection.target
    );
    if let EventTime::Field(pointer) = &selection.event_time {
        command += &format!(" --time-field '{}'", pointer.as_str());
    }
    if selection.rules.identity != Identity::Key {
        command += &format!(" --identity '{}'", selection.rules.identity);
    }
    command
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
        match self.holes.len() {
            0 => write!(f, "{} lacks none of the {} records of {}", self.target, self.in_source, self.source),
            count => write!(
                f,
                "{} lacks {} of the {} records of {}, in {count} {}",
                self.target,
                self.missing,
                self.in_source,
                self.source,
                if count == 1 { "hole" } else { "holes" }
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// One record a second; `x` is missing, `.` is there, a blank is none.
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
