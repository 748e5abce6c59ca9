//! A reader that asks for a job's positions and for the target's ends, again and again while runs are at work. Afterwards,
//! each transaction's records and positions must have come together.
//!
//! A broker makes a commit readable partition by partition, so nobody sees it at one instant. What holds is:
//!
//! - Once a position is stable, its records are written. So they are below the high watermarks that are asked for after it.
//! - Once a record is readable, its position is written. So it is in the log of the positions, below the end that is asked
//!   for after the record's last stable offset.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};

use super::compare::{Content, content};
use super::groups::{self, LOG};
use super::topics::{Log, Record, Topics, coordinating_partition, of};
use crate::base::error::{Error, Result};
use crate::base::range::id;

/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(50);
/// How long to wait for the end of transactions, before the log of positions is read.
const WAIT: Duration = Duration::from_secs(20);
/// A broker may be away. Then this question is given up, and the next one gets new clients.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Finds the group that holds the job's positions, and the topic of whose partitions it holds them; `None` if it is not
/// there yet.
pub type Find = Box<dyn Fn(&Topics) -> Result<Option<(String, String)>> + Send>;

/// Asks until it is told to finish.
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Vec<Sample>>>,
}

struct Shared {
    topics: Topics,
    target: String,
    source_partitions: AtomicUsize,
    target_partitions: AtomicUsize,
    is_finished: AtomicBool,
    /// How many questions were answered, whatever the answers were.
    answered: AtomicUsize,
    blind_until: Mutex<Instant>,
    /// The end of each partition of the log of positions when the watch began.
    began: Vec<i64>,
}

/// The answers of one moment, in the order of the questions.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sample {
    group: String,
    /// The last stable offset of each of the target's partitions.
    stable: Vec<i64>,
    /// The stable position in each of the source's partitions.
    positions: Vec<Option<i64>>,
    /// The partition of the log that the positions are in, and its high watermark. `None` if nobody may read it.
    log: Option<(usize, i64)>,
    /// The high watermark of each of the target's partitions.
    high: Vec<i64>,
}

impl Watch {
    /// # Errors
    /// [`Error::Failed`] if no client can be created.
    pub fn start(topics: &Topics, target: &str, partitions: (usize, usize), find: Find) -> Result<Watch> {
        let width = topics.leaders(LOG).map_or(0, |leaders| leaders.len());
        let shared = Arc::new(Shared {
            topics: topics.clone(),
            target: target.to_owned(),
            source_partitions: AtomicUsize::new(partitions.0),
            target_partitions: AtomicUsize::new(partitions.1),
            is_finished: AtomicBool::new(false),
            answered: AtomicUsize::new(0),
            blind_until: Mutex::new(Instant::now()),
            // An older place is as good, it only takes longer to read on from there.
            began: topics.ends(LOG, width, "read_committed").unwrap_or_default(),
        });
        let asking = shared.clone();
        let thread = std::thread::spawn(move || asking.until_finished(&find));
        Ok(Watch { shared, thread: Some(thread) })
    }

    /// How many questions were answered so far.
    pub fn answered(&self) -> usize {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// From now on, the source and the target have so many partitions.
    pub fn widen(&self, source: usize, target: usize) {
        self.shared.source_partitions.store(source, Ordering::Relaxed);
        self.shared.target_partitions.store(target, Ordering::Relaxed);
    }

    /// Drops what brokers answer for so long from now on. A broker that was stopped may still take itself for a leader,
    /// and name an end that its successor has passed.
    pub fn be_blind_for(&self, time: Duration) {
        *self.shared.blind_until.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + time;
    }

    /// Ends the watch.
    ///
    /// # Errors
    /// [`Error::Failed`] if the log of positions cannot be read.
    pub fn finish(mut self) -> Result<Watched> {
        self.shared.is_finished.store(true, Ordering::Relaxed);
        let died = || Error::failed("the drill's reader of positions died".to_owned());
        let samples = self.thread.take().and_then(|thread| thread.join().ok()).ok_or_else(died)?;
        let one_group = samples.windows(2).all(|pair| pair[0].group == pair[1].group);
        let last = samples.iter().rev().find_map(|sample| Some((&sample.group, sample.log?)));
        let history = match last {
            Some((group, (partition, end))) if one_group => {
                self.shared.history(group, partition, end)?.unless_compacted(&samples)
            }
            _ => None,
        };
        Ok(Watched { samples, history })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.is_finished.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The clients of a watch. New ones cost more than the questions.
struct Clients {
    group: String,
    of_group: BaseConsumer<DefaultConsumerContext>,
    topic: String,
    stable: BaseConsumer<DefaultConsumerContext>,
    high: BaseConsumer<DefaultConsumerContext>,
    /// The partitions of the log of positions; 0 if nobody may read it.
    width: usize,
}

impl Shared {
    fn until_finished(&self, find: &Find) -> Vec<Sample> {
        let (mut samples, mut clients) = (Vec::new(), None);
        while !self.is_finished.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let answer = self.ask(&mut clients, find);
            self.answered.fetch_add(usize::from(matches!(answer, Ok(Some(_)))), Ordering::Relaxed);
            match answer {
                Ok(Some(sample)) if !self.was_blind(begun) && samples.last() != Some(&sample) => {
                    samples.push(sample);
                }
                Ok(_) => {}
                Err(_) => clients = None,
            }
            std::thread::sleep(PAUSE);
        }
        samples
    }

    fn was_blind(&self, begun: Instant) -> bool {
        *self.blind_until.lock().unwrap_or_else(PoisonError::into_inner) > begun
    }

    /// The order of these questions is what the checks rest on.
    fn ask(&self, clients: &mut Option<Clients>, find: &Find) -> Result<Option<Sample>> {
        let clients = match clients {
            Some(clients) => clients,
            none => match find(&self.topics)? {
                Some((group, topic)) => none.insert(self.clients(group, topic)?),
                None => return Ok(None),
            },
        };
        if clients.width == 0 {
            clients.width = self.topics.leaders(LOG)?.len();
        }
        let target_partitions = self.target_partitions.load(Ordering::Relaxed);
        let source_partitions = self.source_partitions.load(Ordering::Relaxed);
        let ends = |reader: &BaseConsumer<_>, topic: &str, partitions: std::ops::Range<usize>| {
            let end = |partition| reader.fetch_watermarks(topic, id(partition), TIMEOUT).map(|ends| ends.1);
            partitions.map(|partition| end(partition).map_err(of("look at ends"))).collect::<Result<Vec<_>>>()
        };
        let stable = ends(&clients.stable, &self.target, 0..target_partitions)?;
        let positions = groups::stable(&clients.of_group, &clients.topic, source_partitions, TIMEOUT)?;
        let log = match clients.width {
            0 => None,
            width => {
                let partition = coordinating_partition(&clients.group, width);
                Some((partition, ends(&clients.high, LOG, partition..partition + 1)?[0]))
            }
        };
        let high = ends(&clients.high, &self.target, 0..target_partitions)?;
        let positions = positions.into_iter().map(|position| position.map(|(at, _)| at)).collect();
        Ok(Some(Sample { group: clients.group.clone(), stable, positions, log, high }))
    }

    fn clients(&self, group: String, topic: String) -> Result<Clients> {
        let reader = |isolation| self.topics.reader(isolation);
        let of_group = self.topics.reader_of(&group)?;
        let (stable, high) = (reader("read_committed")?, reader("read_uncommitted")?);
        let width = self.topics.leaders(LOG)?.len();
        Ok(Clients { group, of_group, topic, stable, high, width })
    }

    /// All that the group committed since the watch began. It waits for transactions that are open below `end`, but not for
    /// one that hangs.
    fn history(&self, group: &str, partition: usize, end: i64) -> Result<History> {
        let stable = || Ok(self.topics.ends(LOG, partition + 1, "read_committed")?[partition]);
        let (mut known_to, begun) = (stable()?, Instant::now());
        while known_to < end && begun.elapsed() < WAIT {
            std::thread::sleep(PAUSE);
            known_to = stable()?;
        }
        let from = Offset::Offset(self.began.get(partition).copied().unwrap_or(0));
        let log = self.topics.read(LOG, &[(partition, from)], "read_committed")?;
        let mut highest: HashMap<usize, i64> = HashMap::new();
        let mut rises = Vec::new();
        for (at, record) in log.iter().flatten() {
            let Some((source_partition, position)) = groups::commit(record, group) else { continue };
            let before = highest.entry(source_partition).or_insert(-1);
            if position > *before {
                *before = position;
                rises.push((*at, source_partition, position));
            }
        }
        Ok(History { rises, known_to })
    }
}

/// The highest positions over time.
struct History {
    /// The offset in the log, the source's partition, and the position, whenever it is higher than all before.
    rises: Vec<(i64, usize, i64)>,
    /// The last stable offset of the log.
    known_to: i64,
}

impl History {
    /// The highest position of each of the source's partitions below this end of the log.
    fn highest(&self, end: i64) -> HashMap<usize, i64> {
        let below = self.rises.iter().take_while(|(at, ..)| *at < end);
        below.map(|(_, partition, position)| (*partition, *position)).collect()
    }

    /// `None` if it lacks a position that a broker named before: then Kafka has compacted the log.
    fn unless_compacted(self, samples: &[Sample]) -> Option<History> {
        let is_whole = samples.iter().all(|sample| {
            let Some((_, end)) = sample.log.filter(|(_, end)| *end <= self.known_to) else { return true };
            let highest = self.highest(end);
            let has =
                |partition, position| highest.get(&partition).is_some_and(|highest| *highest >= position);
            (0..).zip(&sample.positions).all(|(at, named)| named.is_none_or(|position| has(at, position)))
        });
        if !is_whole {
            tracing::warn!(
                "Kafka has compacted the log of positions meanwhile, so no record can be found that came before its position"
            );
        }
        is_whole.then_some(self)
    }
}

/// All that a watch learnt.
pub struct Watched {
    samples: Vec<Sample>,
    history: Option<History>,
}

/// Records and positions that a reader would have seen apart, in numbers of records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Torn {
    /// Records that were missing although a position behind them was committed.
    pub missing: u64,
    /// Records that were readable although no position behind them was committed.
    pub early: u64,
    /// The first of them.
    pub told: Option<String>,
}

/// Where records of one content are: partitions and offsets.
#[derive(Default)]
struct Places<'r> {
    record: Option<&'r Record>,
    source: Vec<(usize, i64)>,
    target: Vec<(usize, i64)>,
    /// How many of them in the target no run has written.
    others: u64,
}

impl Watched {
    /// How many different answers there were.
    pub fn asked(&self) -> usize {
        self.samples.len()
    }

    /// How many of them also tell about the log of positions.
    pub fn knows_log(&self) -> usize {
        let Some(history) = &self.history else { return 0 };
        self.samples
            .iter()
            .filter(|sample| sample.log.is_some_and(|(_, end)| end <= history.known_to))
            .count()
    }

    /// Judges the answers by what both topics hold in the end. `source` has the records that a run must copy, and `others`
    /// are the target's records that no run wrote.
    pub fn torn(&self, source: &[Log], target: &[Log], others: &[Record], by_count: bool) -> Torn {
        let mut all: HashMap<Content<'_>, Places<'_>> = HashMap::new();
        for (partition, (at, record)) in flat(source) {
            let places = all.entry(content(record)).or_default();
            places.record = Some(record);
            places.source.push((partition, *at));
        }
        for (partition, (at, record)) in flat(target) {
            if let Some(places) = all.get_mut(&content(record)) {
                places.target.push((partition, *at));
            }
        }
        for record in others {
            if let Some(places) = all.get_mut(&content(record)) {
                places.others += 1;
            }
        }
        let answers: Vec<_> = self.samples.iter().map(|sample| (sample, self.highest(sample))).collect();
        let mut torn = Torn::default();
        for places in all.values() {
            let (mut missing, mut early) = (0, 0);
            for (sample, highest) in &answers {
                let lacks = places.missing(sample, by_count);
                let is_early = highest.as_ref().map_or(0, |highest| places.early(sample, highest, by_count));
                if lacks + is_early > 0 && torn.told.is_none() {
                    torn.told = Some(format!(
                        "{:?}, at {:?} of the source and {:?} of the target: {sample:?}, highest positions {highest:?}",
                        places.record, places.source, places.target
                    ));
                }
                (missing, early) = (lacks.max(missing), is_early.max(early));
            }
            torn.missing += missing;
            torn.early += early;
        }
        torn
    }

    /// The positions that must have been committed when a sample was taken.
    fn highest(&self, sample: &Sample) -> Option<HashMap<usize, i64>> {
        let (history, (_, end)) = (self.history.as_ref()?, sample.log?);
        (end <= history.known_to).then(|| history.highest(end))
    }
}

fn flat(logs: &[Log]) -> impl Iterator<Item = (usize, &(i64, Record))> {
    logs.iter().enumerate().flat_map(|(partition, log)| log.iter().map(move |placed| (partition, placed)))
}

impl Places<'_> {
    /// How many copies were not written, although a position behind their originals was committed.
    fn missing(&self, sample: &Sample, by_count: bool) -> u64 {
        let position = |partition: usize| sample.positions.get(partition).copied().flatten().unwrap_or(0);
        let due = number(&self.source, |partition, at| at < position(partition));
        // A partition that was added since has no end here.
        let end = |partition: usize| sample.high.get(partition).copied().unwrap_or(i64::MAX);
        let found = number(&self.target, |partition, at| at < end(partition));
        let due = if by_count { due } else { due.min(1) };
        due.saturating_sub(found)
    }

    /// How many copies of runs were readable, although no position behind their originals was committed.
    fn early(&self, sample: &Sample, highest: &HashMap<usize, i64>, by_count: bool) -> u64 {
        let stable = |partition: usize| sample.stable.get(partition).copied().unwrap_or(0);
        let found = number(&self.target, |partition, at| at < stable(partition)).saturating_sub(self.others);
        let position = |partition: usize| highest.get(&partition).copied().unwrap_or(-1);
        let covered = number(&self.source, |partition, at| at < position(partition));
        let found = if by_count { found } else { found.min(1) };
        found.saturating_sub(covered)
    }
}

fn number(places: &[(usize, i64)], is_counted: impl Fn(usize, i64) -> bool) -> u64 {
    places.iter().filter(|(partition, at)| is_counted(*partition, *at)).map(|_| 1).sum()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::lab::drill::topics::log;

    /// One partition of each topic. The source holds `abcd` from offset 0 on, and the target these letters.
    fn torn(target: &str, sample: Sample, rises: &[(i64, usize, i64)], others: &str) -> (u64, u64) {
        let others: Vec<Record> = log(others).into_iter().map(|(_, record)| record).collect();
        let history = Some(History { rises: rises.to_vec(), known_to: 100 });
        let watched = Watched { samples: vec![sample], history };
        let torn = watched.torn(&[log("abcd")], &[log(target)], &others, false);
        (torn.missing, torn.early)
    }

    fn sample(stable: i64, position: i64, log: i64, high: i64) -> Sample {
        let positions = vec![(position >= 0).then_some(position)];
        Sample {
            group: String::new(),
            stable: vec![stable],
            positions,
            log: Some((0, log)),
            high: vec![high],
        }
    }

    /// The first transaction copies `ab` and commits position 2 at offset 10 of the log, the second one `cd` and 4 at 20.
    #[rstest]
    #[case::nothing_yet(sample(0, -1, 0, 0), (0, 0))]
    #[case::the_first_is_open(sample(0, -1, 11, 2), (0, 0))]
    #[case::only_its_records_are_readable(sample(3, -1, 11, 3), (0, 0))]
    #[case::only_its_position_is_stable(sample(0, 2, 11, 2), (0, 0))]
    #[case::both_are_there(sample(3, 2, 11, 3), (0, 0))]
    #[case::a_later_run_began_anew(sample(6, 0, 30, 6), (0, 0))]
    #[case::the_position_comes_first(sample(0, 2, 11, 1), (1, 0))]
    #[case::both_positions_come_first(sample(3, 4, 21, 3), (2, 0))]
    #[case::the_records_come_first(sample(3, -1, 10, 3), (0, 2))]
    #[case::the_second_records_come_first(sample(6, 2, 11, 6), (0, 2))]
    #[case::a_log_that_nobody_knows(sample(3, -1, 101, 3), (0, 0))]
    fn records_and_positions_come_together(#[case] sample: Sample, #[case] wanted: (u64, u64)) {
        assert_eq!(torn("ab.cd.", sample, &[(10, 0, 2), (20, 0, 4)], ""), wanted);
    }

    #[rstest]
    #[case::whole(&[(10, 0, 2)], true)]
    #[case::compacted(&[], false)]
    #[case::compacted_and_written_since(&[(50, 0, 4)], false)]
    fn a_compacted_log_shows_no_absence(#[case] rises: &[(i64, usize, i64)], #[case] is_whole: bool) {
        let history = || History { rises: rises.to_vec(), known_to: 100 };
        let samples = [sample(0, -1, 5, 0), sample(3, 2, 11, 3)];
        assert_eq!(history().unless_compacted(&samples).is_some(), is_whole);
        assert!(history().unless_compacted(&[sample(3, 2, 101, 3)]).is_some(), "what is behind is unknown");
    }

    #[test]
    fn records_of_others_need_no_position() {
        assert_eq!(torn("ab.", sample(3, -1, 0, 3), &[], "ab"), (0, 0));
        assert_eq!(torn("ab.", sample(3, -1, 0, 3), &[], "a"), (0, 1));
    }
}
