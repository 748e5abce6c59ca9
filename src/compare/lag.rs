//! Says how far a job is behind its source.
//!
//! The tools of Kafka cannot: with two clusters, the positions are offsets of the ledger, which is empty (see
//! [`crate::job::ledger`]). `lag` writes nothing, joins no group, and disturbs no running job.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use chrono::Utc;
use serde::Serialize;

use super::positions::{Mark, Position, Positions};
use crate::base::error::{Error, Reason, Result};
use crate::base::interrupt::Interrupt;
use crate::base::range::{Range, id};
use crate::job::Selection;
use crate::job::ledger::Ledger;
use crate::job::names::Names;
use crate::job::resolve;
use crate::kafka::client::Isolation;
use crate::kafka::lag::{self, LAG};
use crate::kafka::reader::{Reader, Reading};
use crate::kafka::sides::{Clusters, Sides};
use crate::kafka::topic::Topic;
use crate::telemetry::standing::{PartitionStanding, Standing};

/// How far a job is behind its source.
#[derive(Debug, Serialize)]
pub struct Lag {
    #[serde(flatten)]
    pub names: Names,
    /// The group that commits the positions, and the topic for whose partitions it does.
    pub group: String,
    pub ledger: String,
    pub partitions: Vec<PartitionLag>,
    /// The sum over the partitions.
    pub lag: i64,
    /// The most of all partitions. `None` if it is unknown for one of them.
    pub behind_seconds: Option<f64>,
    pub warnings: Vec<String>,
}

/// How far a job is behind in one partition of the source.
#[derive(Debug, Serialize)]
pub struct PartitionLag {
    pub partition: i32,
    /// `None` if the job has committed none.
    pub position: Option<i64>,
    /// The source's low watermark.
    pub low: i64,
    /// The source's last stable offset.
    pub end: i64,
    /// How many offsets are left, from the position to the end; without a position, from the low watermark. Markers and
    /// aborted records count too.
    pub lag: i64,
    /// For how long something has been left to copy: at most since the follow found nothing left, and at most since the
    /// time of the first record that is left. `None` if something is left and no follow has committed the position.
    pub behind_seconds: Option<f64>,
    /// When the follow last found nothing left, in milliseconds since the epoch.
    #[serde(skip)]
    level: Option<i64>,
    #[serde(skip)]
    is_of_other_topics: bool,
    #[serde(skip)]
    high: i64,
}

/// How long to wait for the first records that are left.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many partitions a sentence names.
const NAMED: usize = 5;

/// Asks both clusters once. Of `selection`, only the topics and their clusters matter.
///
/// # Errors
/// [`Error::Failed`] if a position is outside of the source's log, so that records were lost. [`Error::Different`] if
/// more than `max_lag` offsets are left, of all partitions together. Both come with the findings. [`Error::Refused`] if
/// the job has committed no position; the other errors that the exit codes stand for.
pub fn lag(selection: &Selection, max_lag: Option<u64>, interrupt: &Interrupt) -> (Option<Lag>, Result<()>) {
    match found(selection, interrupt) {
        Ok(found) => {
            found.standing().show();
            let verdict = found.verdict(max_lag);
            (Some(found), verdict)
        }
        Err(err) => (None, Err(err)),
    }
}

fn found(selection: &Selection, interrupt: &Interrupt) -> Result<Lag> {
    let clusters = selection.properties.connect(&selection.name())?;
    let topics = resolve::topics(&clusters, selection)?;
    let ledger = Ledger::of(selection, &clusters, &topics.source)?;
    let mut names = Names::from(selection);
    names.found(&topics);
    let mut partitions = match has_ledger(&clusters, &ledger, interrupt)? {
        true => read(&clusters, &topics, &ledger, interrupt)?,
        false => Vec::new(),
    };
    if partitions.iter().all(|of| of.position.is_none()) {
        let is_of_others = partitions.iter().any(|of| of.is_of_other_topics);
        return Err(clusters.target.properties().says(no_position(&names, &ledger, is_of_others)));
    }
    since_when(&mut partitions, selection, &clusters, &topics.source, interrupt)?;
    let warnings = warnings(&partitions);
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let behind = partitions.iter().map(|of| of.behind_seconds);
    Ok(Lag {
        names,
        lag: partitions.iter().map(|of| of.lag).sum(),
        behind_seconds: behind.reduce(|most, one| Some(most?.max(one?))).flatten(),
        group: ledger.name,
        ledger: ledger.topic,
        partitions,
        warnings,
    })
}

fn has_ledger(clusters: &Clusters, ledger: &Ledger, interrupt: &Interrupt) -> Result<bool> {
    // A broker that has just started may not know the topic yet.
    let width = lag::until(LAG, || {
        interrupt.check()?;
        clusters.target.width(&ledger.topic)
    })?;
    Ok(width.is_some())
}

fn no_position(names: &Names, ledger: &Ledger, is_of_others: bool) -> Error {
    let (group, topic, source) = (&ledger.name, &ledger.topic, names.shown_source());
    let (why, reason) = if is_of_others {
        ("its offsets are of topics that had these names before", Reason::TopicChanged)
    } else {
        ("no run has started it yet, or the broker has deleted its offsets", Reason::NoPosition)
    };
    Error::refused(format!(
        "group {group} holds no position for {topic}, so nobody knows how far the copy of {source} to {} is: {why}. Give \
         the topics and the clusters as the run has them, or start it, with --follow",
        names.shown_target()
    ))
    .because(reason)
}

/// Asks until all positions are within the log. Right after a leader's death, a broker may still name an earlier end.
fn read(
    clusters: &Clusters,
    topics: &Sides<Topic>,
    ledger: &Ledger,
    interrupt: &Interrupt,
) -> Result<Vec<PartitionLag>> {
    let positions = Positions::of(clusters, ledger)?;
    let mut last = Vec::new();
    lag::until(LAG, || {
        interrupt.check()?;
        last = asked(clusters, topics, &positions, interrupt)?;
        Ok((!last.iter().any(PartitionLag::is_outside)).then_some(()))
    })?;
    Ok(last)
}

/// Asks for the low watermarks before the positions, and for the ends after them. So a job that is at work, and a log
/// that is trimmed behind it, never look as if the position were outside of the log.
fn asked(
    clusters: &Clusters,
    topics: &Sides<Topic>,
    positions: &Positions<'_>,
    interrupt: &Interrupt,
) -> Result<Vec<PartitionLag>> {
    let before = clusters.source.watermarks(&topics.source)?;
    let positions = positions.read(topics, interrupt)?;
    let after = clusters.source.watermarks(&topics.source)?;
    let stable = clusters.source.last_stable_offsets(&topics.source)?;
    let each = positions.into_iter().zip(before).zip(after).zip(stable).enumerate();
    Ok(each
        .map(|(partition, (((position, before), after), end))| {
            PartitionLag::new(id(partition), position, (before.low, after.high), end)
        })
        .collect())
}

impl PartitionLag {
    fn new(partition: i32, at: Option<Position>, (low, high): (i64, i64), end: i64) -> PartitionLag {
        let is_of_other_topics = matches!(&at, Some(Position { mark: Mark::OfOtherTopics, .. }));
        let at = at.filter(|_| !is_of_other_topics);
        let level = match &at {
            Some(Position { mark: Mark::Follow(mark), .. }) => Some(mark.level),
            _ => None,
        };
        let position = at.map(|at| at.offset);
        let lag = (end - position.unwrap_or(low).max(low)).max(0);
        PartitionLag {
            partition,
            position,
            low,
            end,
            lag,
            behind_seconds: None,
            level,
            is_of_other_topics,
            high,
        }
    }

    fn is_outside(&self) -> bool {
        self.position.is_some_and(|position| position < self.low || position > self.high)
    }

    /// Takes the time of the first record that is left, if it is known. All times are in milliseconds since the epoch.
    fn look_at(&mut self, now: i64, first_record: Option<i64>) {
        let behind = match (self.lag, self.level) {
            (0, _) => Some(0),
            // A record may bear any time, so its time never makes the answer larger.
            (_, Some(level)) => {
                let since =
                    first_record.filter(|time| *time >= 0 && *time <= now).unwrap_or(level).max(level);
                Some((now - since).max(0))
            }
            (_, None) => None,
        };
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        let seconds = behind.map(|millis| millis as f64 / 1000.0);
        self.behind_seconds = seconds;
    }
}

/// Finds out since when something is left.
fn since_when(
    partitions: &mut [PartitionLag],
    selection: &Selection,
    clusters: &Clusters,
    source: &Topic,
    interrupt: &Interrupt,
) -> Result<()> {
    let left = partitions.iter().filter(|of| of.lag > 0 && of.level.is_some());
    let ranges: Vec<Range> =
        left.map(|of| Range { partition: of.partition, start: of.end - of.lag, end: of.end }).collect();
    let reading = Reading {
        properties: clusters.source.properties(),
        group: &selection.name(),
        topic: &source.name,
        isolation: Isolation::ReadCommitted,
        patience: PATIENCE,
    };
    let first = first_times(&reading, &ranges, interrupt)?;
    let now = Utc::now().timestamp_millis();
    partitions.iter_mut().for_each(|of| of.look_at(now, first.get(&of.partition).copied()));
    Ok(())
}

/// The timestamp of the first committed record of each range that has one. A range may be long and hold none, so this
/// gives up after a while.
fn first_times(reading: &Reading<'_>, ranges: &[Range], interrupt: &Interrupt) -> Result<HashMap<i32, i64>> {
    let started = Instant::now();
    let mut first = HashMap::new();
    let mut reader = Reader::open(reading, ranges)?;
    while first.len() < ranges.len() && started.elapsed() < PATIENCE {
        let Some(batch) = reader.next(interrupt)? else { break };
        for (event, ()) in batch.events() {
            if let Some(message) = reader.accept(event)? {
                first.entry(message.partition()).or_insert(message.timestamp().0);
            }
        }
    }
    Ok(first)
}

fn warnings(partitions: &[PartitionLag]) -> Vec<String> {
    let sentence = |of: fn(&PartitionLag) -> bool, why: &str| {
        let numbers: Vec<&PartitionLag> = partitions.iter().filter(|partition| of(partition)).collect();
        (!numbers.is_empty())
            .then(|| format!("{}: {why}, so all offsets from its low watermark on count", named(&numbers)))
    };
    let without =
        sentence(|of| of.position.is_none() && !of.is_of_other_topics, "the job has committed no position");
    let of_others =
        sentence(|of| of.is_of_other_topics, "the position is of topics that had these names before");
    [without, of_others].into_iter().flatten().collect()
}

/// `partition 1` or `partitions 1, 2, 3`, of these.
fn named(partitions: &[&PartitionLag]) -> String {
    let numbers: Vec<String> = partitions.iter().take(NAMED).map(|of| of.partition.to_string()).collect();
    let more = partitions.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("partition{} {}{more}", if partitions.len() > 1 { "s" } else { "" }, numbers.join(", "))
}

impl Lag {
    /// The same for the metrics. A partition without a position is counted from its low watermark, as here.
    fn standing(&self) -> Standing {
        let of = |of: &PartitionLag| PartitionStanding {
            partition: of.partition,
            position: of.position.unwrap_or(of.low),
            end: of.end,
            low: of.low,
        };
        Standing {
            partitions: self.partitions.iter().map(of).collect(),
            behind: self.behind_seconds.unwrap_or(f64::NAN),
            ..Standing::default()
        }
    }

    fn verdict(&self, max_lag: Option<u64>) -> Result<()> {
        let (source, mut told, mut reason) = (self.names.shown_source(), Vec::new(), Reason::LogLost);
        for of in self.partitions.iter().filter(|of| of.is_outside()).take(NAMED) {
            let PartitionLag { partition, low, high, .. } = of;
            let position = of.position.unwrap_or_default();
            told.push(if position < *low {
                reason = Reason::RecordsDeleted;
                format!(
                    "partition {partition} of {source} begins at offset {low}, above the position {position}: {} offsets \
                     were deleted before they were copied",
                    low - position
                )
            } else {
                format!(
                    "partition {partition} of {source} ends at offset {high}, below the position {position}: its leader \
                     lost records that were copied, and what stands there now is not copied"
                )
            });
        }
        if !told.is_empty() {
            return Err(Error::failed(told.join("\n")).because(reason));
        }
        let left = u64::try_from(self.lag).unwrap_or(0);
        match max_lag.filter(|most| left > *most) {
            Some(most) => Err(Error::different(format!(
                "{left} offsets of {source} are left to copy, more than --max-lag {most}"
            ))
            .because(Reason::Lagging)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let behind = |seconds: Option<f64>| seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.1}"));
        let line = |cells: [&str; 5]| {
            let [partition, position, end, lag, seconds] = cells;
            format!("  {partition:<9}{position:>16}{end:>16}{lag:>16}{seconds:>16}")
        };
        writeln!(f, "{}", line(["partition", "position", "end", "lag", "seconds behind"]))?;
        for of in &self.partitions {
            let position = of.position.map_or("-".to_owned(), |position| position.to_string());
            let (partition, end, lag) = (of.partition.to_string(), of.end.to_string(), of.lag.to_string());
            writeln!(f, "{}", line([&partition, &position, &end, &lag, &behind(of.behind_seconds)]))?;
        }
        f.write_str(&line(["all", "", "", &self.lag.to_string(), &behind(self.behind_seconds)]))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::kafka::follow_mark::{Checkpoint, FollowMark};

    const NOW: i64 = 1_618_400_000_000;

    fn partition(offset: Option<i64>, level: Option<i64>, end: i64) -> PartitionLag {
        let mark = |level| {
            Mark::Follow(FollowMark {
                partitions: 1,
                job: FollowMark::job("a", "b"),
                to: None,
                joint: 0,
                level,
                source: Checkpoint { offset: 0, epoch: -1 },
                target: Vec::new(),
            })
        };
        let at = offset.map(|offset| Position { offset, mark: level.map_or(Mark::Other, mark) });
        PartitionLag::new(0, at, (10, 100), end)
    }

    #[rstest]
    #[case::level(Some(90), Some(NOW - 5000), None, Some(0.0))]
    #[case::level_by_a_fill(Some(90), None, None, Some(0.0))]
    #[case::by_the_clock(Some(80), Some(NOW - 5000), None, Some(5.0))]
    #[case::by_the_record(Some(80), Some(NOW - 5000), Some(NOW - 1500), Some(1.5))]
    #[case::an_old_record_does_not_count(Some(80), Some(NOW - 5000), Some(NOW - 900_000), Some(5.0))]
    #[case::a_record_without_time(Some(80), Some(NOW - 5000), Some(-1), Some(5.0))]
    #[case::a_record_of_the_future(Some(80), Some(NOW - 5000), Some(NOW + 1), Some(5.0))]
    #[case::another_clock(Some(80), Some(NOW + 5000), None, Some(0.0))]
    #[case::no_mark(Some(80), None, Some(NOW - 1500), None)]
    #[case::no_position(None, None, Some(NOW - 1500), None)]
    fn since_when_something_is_left(
        #[case] position: Option<i64>,
        #[case] level: Option<i64>,
        #[case] first_record: Option<i64>,
        #[case] wanted: Option<f64>,
    ) {
        let mut of = partition(position, level, 90);
        of.look_at(NOW, first_record);
        assert_eq!(of.behind_seconds, wanted);
    }

    #[rstest]
    #[case::within(Some(80), 10, false)]
    #[case::at_the_low_watermark(Some(10), 80, false)]
    #[case::deleted(Some(9), 80, true)]
    #[case::in_an_open_transaction(Some(100), 0, false)]
    #[case::beyond_the_end(Some(101), 0, true)]
    #[case::none(None, 80, false)]
    fn what_is_left(#[case] position: Option<i64>, #[case] lag: i64, #[case] is_outside: bool) {
        let of = partition(position, None, 90);
        assert_eq!((of.lag, of.is_outside()), (lag, is_outside));
    }
}
