//! What is different if the instances are somebody else's copier. Nobody here knows its positions, and its exit code promises
//! nothing that is known here, so only the records tell.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::Live;
use crate::base::error::Result;
use crate::kafka::sides::Side;
use crate::lab::drill::anomalies::Anomalies;
use crate::lab::drill::compare::{Expected, content, count};
use crate::lab::drill::run::Kind;
use crate::lab::drill::tail::Tail;
use crate::lab::drill::topics::Record;

/// How long nothing must come before a copier that has copied enough is stopped.
const QUIET: Duration = Duration::from_secs(5);
/// A copier that lacks records and copies none for this long stands still. Some need a while after a fault, until a transaction or
/// a session of a dead instance ends.
pub(super) const STANDS_STILL: Duration = Duration::from_secs(60);

impl Live<'_, '_> {
    pub(super) fn is_copier(&self) -> bool {
        matches!(self.play.job.kind, Kind::Copier(_))
    }

    /// Waits until the target holds as many records as the source, and nothing comes any more. A copier that lacks records is
    /// started once more, as an operator would. Returns whether the target holds as many.
    pub(super) fn until_copied(&mut self) -> Result<bool> {
        let (topics, partitions) = (self.play.stage.topics(Side::Source), self.play.shape.source_partitions);
        let due = topics.consume(&self.play.job.source, partitions)?.len();
        let before = self.until_quiet(due)?;
        if before >= due {
            return Ok(true);
        }
        self.play.note(format!("{before} of {due} records are there, and no more come"));
        self.stop_all()?;
        let after = self.until_quiet(due)?;
        if after > before {
            self.play
                .wrong(format!("it stood still until it was started again; then came {}", after - before));
        }
        Ok(after >= due)
    }

    /// Stops a copier that does nothing, although there is something to copy. Another one is started then.
    pub(super) fn revive(&mut self) -> Result<()> {
        let (run, seconds) = (self.play.round.runs, STANDS_STILL.as_secs());
        self.play.wrong(format!("run {run} stood still for {seconds} s until it was started again"));
        self.stop_all()
    }

    fn stop_all(&mut self) -> Result<()> {
        while !self.play.runs.is_empty() {
            self.stop_one()?;
        }
        Ok(())
    }

    /// Returns how many records came until none came any more.
    fn until_quiet(&mut self, due: usize) -> Result<usize> {
        let (mut seen, mut changed) = (0, Instant::now());
        self.until(|live| {
            let now = live.tails.first().map_or(0, Tail::seen);
            if now > seen {
                (seen, changed) = (now, Instant::now());
            }
            changed.elapsed() > if seen < due { STANDS_STILL } else { QUIET }
        })?;
        Ok(seen)
    }
}

/// Not every copier can keep timestamps and headers. So this compares keys and values, and counts what has them beside another
/// timestamp or other headers as changed.
pub(super) fn compare(expected: &Expected<'_>, target: &[Record]) -> Anomalies {
    let (source, others, aborted) = (bare(expected.source), bare(expected.others), bare(expected.aborted));
    let bare_expected =
        Expected { source: &source, others: &others, aborted: &aborted, mirrored: &[], ..*expected };
    let bare_target = bare(target);
    let found = bare_expected.compare(&bare_target);
    let all = expected.compare(target);
    let changed = found.changed + all.lost_write.saturating_sub(found.lost_write);
    Anomalies { changed, nonmonotonic_send: out_of_order(&bare_expected, &bare_target), ..found }
}

/// A copy that came twice would take the place of an equal record that comes later, and everything between the two would look
/// late. So this looks at the first copies of those records that equal no other one.
fn out_of_order(expected: &Expected<'_>, target: &[Record]) -> u64 {
    let often = count(expected.source);
    let is_alone = |record: &Record| often.get(&content(record)) == Some(&1);
    let source: Vec<Record> = expected.source.iter().filter(|record| is_alone(record)).cloned().collect();
    let mut seen = HashSet::new();
    let mut firsts = Vec::new();
    for record in target {
        if is_alone(record) && seen.insert(content(record)) {
            firsts.push(record.clone());
        }
    }
    Expected { source: &source, others: &[], ..*expected }.compare(&firsts).nonmonotonic_send
}

fn bare(records: &[Record]) -> Vec<Record> {
    records.iter().map(|record| Record { time: 0, headers: Vec::new(), ..record.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn record(key: &str) -> Record {
        let (key, value) = (Some(key.into()), Some(b"value".to_vec()));
        Record { partition: 0, time: 1, key, value, headers: vec![("trace".to_owned(), None)] }
    }

    #[rstest]
    #[case::right(|_: &mut Vec<Record>| {}, Anomalies::default())]
    #[case::lost(|t: &mut Vec<Record>| { t.pop(); }, Anomalies { lost_write: 1, ..Anomalies::default() })]
    #[case::doubled(|t: &mut Vec<Record>| t.push(record("c")), Anomalies { duplicate: 1, ..Anomalies::default() })]
    #[case::another_time(|t: &mut Vec<Record>| t[0].time = 7, Anomalies { changed: 1, ..Anomalies::default() })]
    #[case::no_headers(
        |t: &mut Vec<Record>| t.iter_mut().for_each(|record| record.headers.clear()),
        Anomalies { changed: 5, ..Anomalies::default() }
    )]
    #[case::no_headers_and_doubled(
        |t: &mut Vec<Record>| {
            t.push(record("c"));
            t.iter_mut().for_each(|record| record.headers.clear());
        },
        Anomalies { changed: 5, duplicate: 1, ..Anomalies::default() }
    )]
    #[case::repeated_from_the_first_on(
        |t: &mut Vec<Record>| t.extend(["a", "b", "c", "same", "same"].map(record)),
        Anomalies { duplicate: 5, ..Anomalies::default() }
    )]
    #[case::another_order(|t: &mut Vec<Record>| t.swap(0, 2), Anomalies { nonmonotonic_send: 1, ..Anomalies::default() })]
    #[case::aborted(|t: &mut Vec<Record>| t.push(record("x")), Anomalies { aborted_read: 1, ..Anomalies::default() })]
    fn keys_and_values_are_compared_apart_from_the_rest(
        #[case] damage: fn(&mut Vec<Record>),
        #[case] wanted: Anomalies,
    ) {
        let source = ["a", "same", "b", "c", "same"].map(record);
        let mut target = source.to_vec();
        damage(&mut target);
        let expected = Expected {
            source: &source,
            window: (i64::MIN, i64::MAX),
            others: &[],
            mirrored: &[],
            aborted: &[record("x")],
            same_partitions: true,
            by_count: true,
        };
        assert_eq!(compare(&expected, &target), wanted);
    }
}
