//! Reads topics into a store, each committed record once.
//!
//! A round asks for each topic's end, reads from the position in the store up to that end, and gives the store rows and
//! positions together. A sink keeps no other state: the next run continues from what a dead run stored. With
//! `--follow`, a run does one round after the other.

mod receipt;
pub mod store;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::base::error::{Error, Reason, Result};
use crate::base::failpoint;
use crate::base::interrupt::Interrupt;
use crate::base::patience::Patience;
use crate::base::progress::Progress;
use crate::base::range::{Range, id, index};
use crate::base::time::millis;
use crate::job::schema::Schemas;
use crate::kafka::brokers::in_order;
use crate::kafka::client::Isolation;
use crate::kafka::cluster::Cluster;
use crate::kafka::properties::Properties;
use crate::kafka::reader::{Reader, Reading};
use crate::kafka::record::describe;
use crate::kafka::restart::{self, StartUp};
use crate::kafka::sides::Side;
use crate::kafka::sys::Message;
use crate::kafka::topic::Topic;
use crate::kafka::watermarks::{Watermarks, ends};
use crate::sink::receipt::{SinkReceipt, Sunk};
use crate::sink::store::{Advance, Move, Row, Store, TopicOf, now_ms};
use crate::telemetry::standing::{self, PartitionStanding, Standing};
use crate::telemetry::{self, Phase};

/// The topics to sink, and the store to sink them into.
pub struct Sinking {
    pub properties: Properties,
    pub topics: Vec<String>,
    /// The URL of the store, as [`store::open`] takes it.
    pub store: String,
    /// Values that name a schema are kept as JSON.
    pub schemas: Schemas,
    /// Continue with new records until the run is interrupted.
    pub follow: bool,
    /// How long to wait without progress before giving up.
    pub patience: Duration,
}

const GROUP: &str = "replicator/sink";

/// The limits of one write to the store. If the process dies, the next run reads at most this much again.
const WRITE_RECORDS: usize = 20_000;
const WRITE_BYTES: usize = 8 << 20;
const WRITE_TIME: Duration = Duration::from_secs(1);

/// The shortest time between two reports of a topic's ends to the store.
const TELL: Duration = Duration::from_secs(1);

/// The pause after a round that found nothing new.
const PAUSE: Duration = Duration::from_millis(300);

/// Sinks the topics. The receipt tells what was done, even if the run failed.
///
/// # Errors
/// [`Error::Fenced`] if another run sinks one of the topics into the same store; the other errors that the exit codes
/// stand for.
pub fn sink(job: &Sinking, progress: Progress, interrupt: &Interrupt) -> (SinkReceipt, Result<()>) {
    let started = Instant::now();
    telemetry::phase(if job.follow { Phase::Follow } else { Phase::Copy });
    let mut receipt = SinkReceipt { store: store::shown(&job.store), ..SinkReceipt::default() };
    let result = check(job).and_then(|()| store::open(&job.store)).and_then(|store| {
        let mut run = Run {
            job,
            bootstrap: in_order(job.properties.bootstrap()),
            store,
            progress,
            interrupt,
            topics: HashMap::new(),
            begun: Instant::now(),
            patience: Patience::new(job.patience),
            has_told_of_bytes: false,
        };
        let result = run.connect().and_then(|cluster| restart::until_done(&mut run, cluster));
        receipt.topics = run.sunk();
        result
    });
    receipt.written = receipt.topics.iter().map(|sunk| sunk.written).sum();
    receipt.elapsed_ms = millis(started.elapsed());
    receipt.complete = result.is_ok() && receipt.topics.iter().all(|sunk| sunk.behind_offsets == Some(0));
    (receipt, result)
}

fn check(job: &Sinking) -> Result<()> {
    let mut names = job.topics.clone();
    names.sort();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::usage(format!("--topic {} is given twice", pair[0]))),
        None => Ok(()),
    }
}

struct Run<'a> {
    job: &'a Sinking,
    /// The brokers, as the store keeps them.
    bootstrap: String,
    store: Box<dyn Store>,
    progress: Progress,
    interrupt: &'a Interrupt,
    topics: HashMap<String, State>,
    /// When the newest round began.
    begun: Instant,
    /// The time that has passed since a round last succeeded or wrote something.
    patience: Patience,
    /// Whether the log names a value that could not be read by its schema.
    has_told_of_bytes: bool,
}

/// The state of a topic after the last round.
#[derive(Default)]
struct State {
    id: String,
    /// The next offset of each partition, as the store has it.
    stored: Vec<i64>,
    /// Where the topic ended, and when the sink asked.
    seen: Option<(Vec<Watermarks>, i64)>,
    /// When the sink last reported the ends to the store, for this topic id.
    told: Option<Instant>,
    written: u64,
    /// Bytes of the keys and values among `written`.
    bytes: u64,
    /// When the store last had all that the topic had, or when this run began to sink it; and its last write. Both in
    /// milliseconds since the epoch.
    level: Option<i64>,
    last_write: Option<i64>,
}

impl State {
    fn behind(&self) -> Option<u64> {
        let (watermarks, _) = self.seen.as_ref()?;
        let behind = |(at, w): (&i64, &Watermarks)| u64::try_from(w.high.saturating_sub(*at)).unwrap_or(0);
        Some(self.stored.iter().zip(watermarks).map(behind).sum())
    }
}

/// One topic's part of a round: the topic, and the offsets to read up to.
struct Part {
    topic: Topic,
    watermarks: Vec<Watermarks>,
    ends: Vec<i64>,
    /// The time just before the sink asked for the ends.
    as_of_ms: i64,
}

impl StartUp for Run<'_> {
    type Connection = Cluster;

    fn connect(&self) -> Result<Cluster> {
        Cluster::connect(&self.job.properties, GROUP)
    }

    /// Does one round, or round after round if the job follows.
    fn attempt(&mut self, cluster: &Cluster) -> Result<()> {
        loop {
            self.begun = Instant::now();
            let before = self.written();
            let result = self.round(cluster);
            if result.is_ok() || self.written() > before {
                self.patience.progress();
            }
            if result.is_ok() {
                telemetry::succeeded();
            }
            match result {
                Ok(()) if !self.job.follow => return Ok(()),
                Ok(()) if self.written() > before => {}
                Ok(()) => self.pause(),
                Err(Error::Interrupted) if self.job.follow => return Ok(()),
                Err(err) => return Err(err),
            }
        }
    }

    fn take(&mut self, result: Result<()>) -> Option<Result<()>> {
        let Err(Error::Restart { why, .. }) = result else { return Some(result) };
        self.pause();
        self.patience.wait(self.begun.elapsed());
        if self.patience.is_over() {
            return Some(Err(Error::failed(why)));
        }
        if let Err(err) = self.interrupt.check() {
            return Some(Err(err));
        }
        tracing::warn!("trying again: {why}");
        telemetry::failed(&why.text);
        telemetry::restarted();
        None
    }

    fn has_written(&self) -> bool {
        self.written() > 0
    }
}

impl Run<'_> {
    fn pause(&self) {
        let until = Instant::now() + PAUSE;
        while Instant::now() < until && !self.interrupt.is_set() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn written(&self) -> u64 {
        self.topics.values().map(|state| state.written).sum()
    }

    /// Asks for the ends of all topics first. Then reads each topic from the store's position up to its end.
    fn round(&mut self, cluster: &Cluster) -> Result<()> {
        self.interrupt.check()?;
        let job = self.job;
        let mut parts = Vec::with_capacity(job.topics.len());
        for name in &job.topics {
            match cluster.topic(name)? {
                Some(topic) => parts.push(self.part(cluster, topic)?),
                None if job.follow => tracing::debug!("there is no topic {name} yet"),
                None => {
                    return Err(Error::refused(format!(
                        "there is no topic {name}; see `{}`, or --follow to wait for it",
                        cluster.properties().tool("kafka-topics.sh", &["--list"])
                    ))
                    .because(Reason::MissingTopic));
                }
            }
        }
        for part in &parts {
            if !job.follow {
                cluster.wait_until_stable(&part.topic, &part.ends, job.patience, self.interrupt)?;
            }
            self.take_over(cluster, &part.topic, &part.watermarks)?;
            self.tell(part)?;
            self.read(cluster, part)?;
            self.publish(&part.topic.name);
        }
        Ok(())
    }

    /// Tells Prometheus where the store stands with a topic.
    fn publish(&mut self, name: &str) {
        let Some(state) = self.topics.get_mut(name) else { return };
        let Some((watermarks, as_of_ms)) = &state.seen else { return };
        let partitions = state.stored.iter().zip(watermarks).enumerate();
        let partitions: Vec<PartitionStanding> = partitions
            .map(|(at, (position, w))| PartitionStanding {
                partition: id(at),
                position: *position,
                end: w.high,
                low: w.low,
            })
            .collect();
        let is_level = partitions.iter().all(|of| of.lag() == 0);
        let level = if is_level { *as_of_ms } else { state.level.unwrap_or(*as_of_ms) };
        state.level = Some(level);
        telemetry::sunk(name, state.written, state.bytes);
        Standing {
            topic: Some(name.to_owned()),
            partitions,
            behind: Duration::from_millis(u64::try_from(as_of_ms - level).unwrap_or(0)).as_secs_f64(),
            last_commit: state.last_write,
            foreign: None,
            troubles: Vec::new(),
        }
        .publish();
    }

    /// Asks for a topic's ends. A run that follows does not wait for open transactions: their records come in a later
    /// round.
    fn part(&self, cluster: &Cluster, topic: Topic) -> Result<Part> {
        let as_of_ms = now_ms();
        let watermarks = cluster.watermarks(&topic);
        standing::up(Side::Source, !matches!(watermarks, Err(Error::Restart { .. })));
        let watermarks = watermarks?;
        let ends = if self.job.follow { cluster.last_stable_offsets(&topic)? } else { ends(&watermarks) };
        is_still(cluster, &topic)?;
        Ok(Part { topic, watermarks, ends, as_of_ms })
    }

    /// Asks the store for its positions, if the topic or one of its partitions is new to this run.
    fn take_over(&mut self, cluster: &Cluster, topic: &Topic, watermarks: &[Watermarks]) -> Result<()> {
        let state = self.topics.entry(topic.name.clone()).or_default();
        if state.id != topic.id || state.stored.len() < topic.partitions {
            let starts: Vec<i64> = watermarks.iter().map(|w| w.low).collect();
            let of = TopicOf { name: &topic.name, id: &topic.id, bootstrap: &self.bootstrap };
            let stored = self.store.resume(of, &starts)?;
            let State { written, bytes, .. } = *state;
            *state = State { id: topic.id.clone(), stored, written, bytes, ..State::default() };
        }
        for (partition, (position, watermarks)) in state.stored.iter().zip(watermarks).enumerate() {
            let (name, Watermarks { low, high, .. }) = (&topic.name, watermarks);
            if position < low {
                return Err(Error::failed(format!(
                    "records {position} to {} of {name}-{partition} were deleted before they were in the store; raise \
                     the topic's retention; to sink the other records without these, set the next_offset of this \
                     partition (topic_id {}) in the store's positions to {low}, and run again",
                    low - 1,
                    topic.id
                ))
                .because(Reason::RecordsDeleted));
            }
            // This run took over from another one, which may have read further after this run asked for the ends.
            if position > high
                && cluster.watermarks(topic)?.get(partition).is_some_and(|w| *position > w.high)
            {
                return Err(Error::failed(format!(
                    "the store has {name}-{partition} up to offset {position}, past the partition's end {high}: the \
                     topic lost records; sink it into a new store"
                ))
                .because(Reason::LogLost));
            }
        }
        Ok(())
    }

    /// Reports the topic's ends to the store. The ends are the high watermarks, so records that an open transaction
    /// holds back also count as behind. This reports the ends even if nothing is new, because the time of the report
    /// changes.
    fn tell(&mut self, part: &Part) -> Result<()> {
        let Some(state) = self.topics.get_mut(&part.topic.name) else { return Ok(()) };
        state.seen = Some((part.watermarks.clone(), part.as_of_ms));
        if state.told.is_none_or(|told| told.elapsed() >= TELL) {
            let Topic { name, id, .. } = &part.topic;
            let topic = TopicOf { name, id, bootstrap: &self.bootstrap };
            self.store.keep_watermarks(topic, &part.watermarks, part.as_of_ms)?;
            state.told = Some(Instant::now());
        }
        Ok(())
    }

    fn read(&mut self, cluster: &Cluster, part: &Part) -> Result<()> {
        let name = &part.topic.name;
        let stored = &self.topics[name].stored;
        let ranges = Range::all(stored, &part.ends);
        if ranges.iter().all(Range::is_empty) {
            return Ok(());
        }
        let reading = Reading {
            properties: &self.job.properties,
            group: GROUP,
            topic: name,
            isolation: Isolation::ReadCommitted,
            patience: self.job.patience,
        };
        let bar = if self.job.follow { Progress { quiet: true } } else { self.progress };
        let bar = bar.over(&format!("sinking {name}"), &ranges);
        let mut reader = Reader::open(&reading, &ranges)?;
        let most = failpoint::number("sink-write-records", WRITE_RECORDS);
        let (mut rows, mut bytes, mut content, mut since) = (Vec::new(), 0, 0, Instant::now());
        while let Some(batch) = reader.next(self.interrupt)? {
            for (event, ()) in batch.events() {
                if let Some(message) = reader.accept(event)? {
                    content += message.bytes() as u64;
                    let row = self.row(message)?;
                    bytes += row.size();
                    rows.push(row);
                }
                if rows.len() >= most || bytes >= WRITE_BYTES || since.elapsed() >= WRITE_TIME {
                    self.write(cluster, &part.topic, &rows, content, reader.positions())?;
                    rows.clear();
                    (bytes, content, since) = (0, 0, Instant::now());
                }
            }
            bar.set_position(reader.passed());
        }
        self.write(cluster, &part.topic, &rows, content, reader.positions())?;
        bar.finish_and_clear();
        Ok(())
    }

    /// The record as the store keeps it. A value that does not fit its schema stays bytes.
    fn row(&mut self, message: &Message) -> Result<Row> {
        let Some(value) = message.value() else { return Ok(Row::of(message, None)) };
        Ok(match self.job.schemas.json(value)? {
            Ok(json) if json.len() == value.len() => Row::of(message, None),
            Ok(json) => Row::of(message, Some(&json)),
            Err(why) => {
                if !std::mem::replace(&mut self.has_told_of_bytes, true) {
                    tracing::warn!("kept as bytes, as others may be after it: {why}: {}", describe(message));
                }
                Row::of(message, None)
            }
        })
    }

    /// Writes rows whose keys and values are `content` bytes, and the positions behind them.
    fn write(
        &mut self,
        cluster: &Cluster,
        topic: &Topic,
        rows: &[Row],
        content: u64,
        positions: impl Iterator<Item = (i32, i64)>,
    ) -> Result<()> {
        let Some(state) = self.topics.get_mut(&topic.name) else { return Ok(()) };
        let moves: Vec<Move> = positions
            .map(|(partition, to)| Move { partition, from: state.stored[index(partition)], to })
            .filter(|moved| moved.from != moved.to)
            .collect();
        if moves.is_empty() {
            return Ok(());
        }
        is_still(cluster, topic)?;
        self.store.write(Advance {
            topic: TopicOf { name: &topic.name, id: &topic.id, bootstrap: &self.bootstrap },
            rows,
            moves: &moves,
        })?;
        moves.iter().for_each(|moved| state.stored[index(moved.partition)] = moved.to);
        state.written += rows.len() as u64;
        state.bytes += content;
        state.last_write = Some(now_ms());
        self.publish(&topic.name);
        Ok(())
    }

    fn sunk(&mut self) -> Vec<Sunk> {
        let summaries = self.store.topics().ok();
        let in_store = |topic: &str, state: Option<&State>| {
            let id = state.map(|state| &state.id).filter(|id| !id.is_empty());
            let mut of_name = summaries.as_ref()?.iter().filter(|summary| summary.topic == topic).peekable();
            match (id, of_name.peek()) {
                (_, None) => Some(0),
                (Some(id), _) => Some(of_name.find(|of| of.topic_id == *id).map_or(0, |of| of.records)),
                (None, Some(_)) => None,
            }
        };
        let sunk = |topic: &String| {
            let state = self.topics.get(topic);
            Sunk {
                topic: topic.clone(),
                written: state.map_or(0, |state| state.written),
                in_store: in_store(topic, state),
                behind_offsets: state.and_then(State::behind),
                as_of_ms: state.and_then(|state| Some(state.seen.as_ref()?.1)),
            }
        };
        self.job.topics.iter().map(sunk).collect()
    }
}

/// Checks that the topic still has its id. The sink reads the topic and asks for its ends by name, so the answers are
/// about this topic only if the id is still the same.
fn is_still(cluster: &Cluster, topic: &Topic) -> Result<()> {
    match cluster.topic(&topic.name)? {
        Some(now) if now.id == topic.id => Ok(()),
        _ => Err(Error::restart(format!("{} was deleted while the sink read it", topic.name))
            .because(Reason::TopicChanged)),
    }
}
