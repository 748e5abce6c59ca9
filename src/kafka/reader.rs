//! Reads ranges of a topic's partitions to their very end.
//!
//! A thread polls, looks at each record by itself, and hands over batches in order. It does nothing else. A position
//! advances only over events that the reading loop has accepted, so it can be committed as it is.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::base::error::{Error, Reason, Result, denied};
use crate::base::interrupt::Interrupt;
use crate::base::patience::Patience;
use crate::base::range::{Range, id, index};
use crate::kafka::client::{Isolation, Listener, close};
use crate::kafka::follow_mark::Checkpoint;
use crate::kafka::properties::Properties;
use crate::kafka::sys::{self, Batch, ConsumerQueue, Event, Message};
use crate::kafka::truncation;

/// The topic that a [`Reader`] reads, and how it reads.
pub struct Reading<'a> {
    pub properties: &'a Properties,
    pub group: &'a str,
    pub topic: &'a str,
    pub isolation: Isolation,
    /// How long to wait without progress before giving up.
    pub patience: Duration,
}

/// Messages of one poll, and what was seen in each.
pub struct Looked<T> {
    batch: Batch,
    seen: Vec<T>,
}

impl<T> Looked<T> {
    pub fn events(&self) -> impl Iterator<Item = (Event<'_>, &T)> {
        self.batch.events().zip(&self.seen)
    }

    pub fn seen(&self) -> &[T] {
        &self.seen
    }
}

/// What the polling thread hands over. After an error it ends.
type Batches<T> = Receiver<Result<Looked<T>>>;

/// Reads each range once, in order within a partition.
pub struct Reader<T = ()> {
    properties: Properties,
    topic: String,
    batches: Option<Batches<T>>,
    partitions: Vec<Option<PartitionProgress>>,
    open: usize,
    /// Time that the loop spends elsewhere does not count.
    patience: Patience,
    poll: Option<JoinHandle<()>>,
    /// `None` if there was nothing to read.
    consumer: Option<Arc<BaseConsumer<Listener>>>,
}

struct PartitionProgress {
    start: i64,
    position: i64,
    end: i64,
}

const POLL: Duration = Duration::from_millis(10);
/// How many batches may wait between the polling thread and the reading loop. Together with the consumer's own queue,
/// this bounds the memory. The number is small, because a record that waits for long has left the processor's caches.
const BATCHES: usize = 4;
const BATCH_RECORDS: usize = 512;
const BATCH_BYTES: usize = 1 << 20;

impl Reader {
    /// # Errors
    /// As [`Reader::looking`].
    pub fn open(reading: &Reading<'_>, ranges: &[Range]) -> Result<Reader> {
        Reader::looking(reading, ranges, |_| Ok(()))
    }
}

impl<T: Default + Send + 'static> Reader<T> {
    /// A reader that calls `look` with each record on the thread that polls, in parallel to the reading loop. `look`
    /// may see records outside of the ranges. If it fails, so does the reading.
    ///
    /// # Errors
    /// [`Error::Failed`] if the consumer cannot be assigned; as [`Properties::consumer`].
    pub fn looking(
        reading: &Reading<'_>,
        ranges: &[Range],
        look: impl Fn(&Message) -> Result<T> + Send + 'static,
    ) -> Result<Reader<T>> {
        Reader::at(reading, ranges, &[], look)
    }

    /// A reader without an end: it gives records until it is dropped, and never runs out of patience. It begins at each
    /// place of a partition. If a leader's log was cut below that place and has grown again, the reading fails (KIP-320).
    ///
    /// # Errors
    /// As [`Reader::looking`].
    pub(crate) fn following(
        reading: &Reading<'_>,
        places: &[(i32, Checkpoint)],
        look: impl Fn(&Message) -> Result<T> + Send + 'static,
    ) -> Result<Reader<T>> {
        let (ranges, epochs): (Vec<Range>, Vec<i32>) = places
            .iter()
            .map(|(partition, place)| {
                (Range { partition: *partition, start: place.offset, end: i64::MAX }, place.epoch)
            })
            .unzip();
        Reader::at(&Reading { patience: Duration::MAX, ..*reading }, &ranges, &epochs, look)
    }

    fn at(
        reading: &Reading<'_>,
        ranges: &[Range],
        epochs: &[i32],
        look: impl Fn(&Message) -> Result<T> + Send + 'static,
    ) -> Result<Reader<T>> {
        let slots = ranges.iter().map(|range| index(range.partition) + 1).max().unwrap_or(0);
        let says = |err| reading.properties.says(err);
        let mut reader = Reader {
            properties: reading.properties.clone(),
            topic: reading.topic.to_owned(),
            batches: None,
            partitions: (0..slots).map(|_| None).collect(),
            open: 0,
            patience: Patience::new(reading.patience),
            poll: None,
            consumer: None,
        };
        let what = || format!("the assignment of {}", reading.topic);
        let mut assignment = TopicPartitionList::new();
        for range in ranges {
            reader.partitions[index(range.partition)] =
                Some(PartitionProgress { start: range.start, position: range.start, end: range.end });
            if !range.is_empty() {
                reader.open += 1;
                assignment
                    .add_partition_offset(reading.topic, range.partition, Offset::Offset(range.start))
                    .map_err(|e| says(Error::kafka(what(), e)))?;
            }
        }
        sys::set_leader_epochs(&mut assignment, epochs);
        if reader.open > 0 {
            let consumer = reading.properties.consumer(reading.group, reading.isolation)?;
            consumer.assign(&assignment).map_err(|e| says(Error::kafka(what(), e)))?;
            let consumer = Arc::new(consumer);
            let (batches, poll) = poll_in_background(consumer.clone(), look)?;
            (reader.batches, reader.poll, reader.consumer) = (Some(batches), Some(poll), Some(consumer));
        }
        Ok(reader)
    }

    /// Reads all ranges to their end. Calls `each` with every record and what was seen in it, and moves `bar`.
    ///
    /// # Errors
    /// As [`Reader::next`], [`Reader::accept`] and `each`.
    pub fn for_each(
        self,
        interrupt: &Interrupt,
        bar: &ProgressBar,
        mut each: impl FnMut(&Message, &T) -> Result<()>,
    ) -> Result<()> {
        self.for_each_until(interrupt, bar, |message, seen| each(message, seen).map(|()| false))
    }

    /// [`Reader::for_each`], which leaves a partition when `each` says so.
    ///
    /// # Errors
    /// As [`Reader::for_each`].
    pub(crate) fn for_each_until(
        mut self,
        interrupt: &Interrupt,
        bar: &ProgressBar,
        mut each: impl FnMut(&Message, &T) -> Result<bool>,
    ) -> Result<()> {
        while let Some(batch) = self.next(interrupt)? {
            for (event, seen) in batch.events() {
                if let Some(message) = self.accept(event)?
                    && each(message, seen)?
                {
                    self.leave(message.partition());
                }
            }
            bar.set_position(self.passed());
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// How many offsets of the ranges are read. Markers and aborted records take offsets too, so a count of records
    /// would not reach the ranges' length.
    pub(crate) fn passed(&self) -> u64 {
        self.passed_below(&[])
    }

    /// How many offsets of the ranges are read that lie below the partitions' `ends`. A partition without an end counts
    /// as a whole.
    pub(crate) fn passed_below(&self, ends: &[i64]) -> u64 {
        let passed = |(partition, progress): (usize, &Option<PartitionProgress>)| {
            let Some(progress) = progress else { return 0 };
            let end = ends.get(partition).copied().unwrap_or(i64::MAX);
            u64::try_from(progress.position.min(end) - progress.start).unwrap_or(0)
        };
        self.partitions.iter().enumerate().map(passed).sum()
    }

    /// Waits for the next batch; `None` once each range was read to its end.
    ///
    /// # Errors
    /// [`Error::Failed`] names the partition that makes no progress; as [`Interrupt::check`] and `look`.
    pub fn next(&mut self, interrupt: &Interrupt) -> Result<Option<Looked<T>>> {
        interrupt.check()?;
        let Some(batches) = self.batches.as_ref().filter(|_| self.open > 0) else { return Ok(None) };
        if self.patience.is_over() {
            return Err(self.stuck());
        }
        let waiting = Instant::now();
        let batch = batches.recv();
        // Count this as waiting until the batch turns out to bring progress.
        self.patience.wait(waiting.elapsed());
        batch.map_err(|_| self.stuck())?.map(Some)
    }

    /// The next batch, if it is there already.
    ///
    /// # Errors
    /// As `look`.
    pub(crate) fn ready(&self) -> Result<Option<Looked<T>>> {
        let Some(batches) = self.batches.as_ref().filter(|_| self.open > 0) else { return Ok(None) };
        batches.try_recv().ok().transpose()
    }

    /// Advances the position over `event`, and returns its record if that lies in a range.
    ///
    /// # Errors
    /// [`Error::Failed`] if records were deleted before they were read, [`Error::Refused`] if this principal may not
    /// read them.
    pub fn accept<'b>(&mut self, event: Event<'b>) -> Result<Option<&'b Message>> {
        let (partition, position, record) = match event {
            Event::Record(message) => (message.partition(), message.next_position(), Some(message)),
            Event::EndOfPartition { partition, position } => (partition, position, None),
            Event::Error(code, reason) => {
                return self.check_error(code, &reason).map_err(|e| self.properties.says(e)).map(|()| None);
            }
        };
        let Some(progress) = self.partitions.get_mut(index(partition)).and_then(Option::as_mut) else {
            return Ok(None);
        };
        if progress.position >= progress.end || position <= progress.position {
            return Ok(None);
        }
        self.patience.progress();
        let within = position <= progress.end;
        progress.position = position.min(progress.end);
        if progress.position == progress.end {
            self.open -= 1;
        }
        Ok(record.filter(|_| within))
    }

    /// Counts the rest of a partition's range as read, and fetches no more of it.
    pub(crate) fn leave(&mut self, partition: i32) {
        let progress = self.partitions.get_mut(index(partition)).and_then(Option::as_mut);
        let Some(progress) = progress.filter(|progress| progress.position < progress.end) else { return };
        tracing::debug!(
            "{} offsets of {}-{partition} are not read, from {} on",
            progress.end - progress.position,
            self.topic,
            progress.position
        );
        progress.position = progress.end;
        self.open -= 1;
        let mut paused = TopicPartitionList::new();
        paused.add_partition(&self.topic, partition);
        if let Some(Err(err)) = self.consumer.as_ref().map(|consumer| consumer.pause(&paused)) {
            tracing::debug!("{}-{partition} could not be paused: {err}", self.topic);
        }
    }

    /// The position in each partition that has a range. The next run would continue from there.
    pub fn positions(&self) -> impl Iterator<Item = (i32, i64)> {
        let positions = self.partitions.iter().enumerate();
        positions.filter_map(|(partition, p)| Some((id(partition), p.as_ref()?.position)))
    }

    /// Whether each range was read to its end.
    pub fn is_done(&self) -> bool {
        self.open == 0
    }

    fn check_error(&self, code: RDKafkaErrorCode, reason: &str) -> Result<()> {
        if truncation::is_truncation(code, reason) {
            return Err(truncation::lost(&self.topic, reason));
        }
        if code == RDKafkaErrorCode::AutoOffsetReset {
            return Err(Error::failed(format!(
                "records of {} were deleted before they were read ({reason}); raise the topic's retention, and run \
                 again for the records that are left",
                self.topic
            ))
            .because(Reason::RecordsDeleted));
        }
        // The client reports this when it looks for its group, which a reader does not need.
        let is_group = code == RDKafkaErrorCode::GroupAuthorizationFailed;
        let is_unreadable = matches!(
            code,
            RDKafkaErrorCode::BadMessage
                | RDKafkaErrorCode::BadCompression
                | RDKafkaErrorCode::NotImplemented
        );
        if (denied(code).is_some() && !is_group) || is_unreadable {
            return Err(Error::topic(format!("reading {}", self.topic), "Read", &self.topic, code));
        }
        // After all other errors the client itself tries again, until our patience is over.
        tracing::debug!("reading {}: {code} ({reason})", self.topic);
        Ok(())
    }

    fn stuck(&self) -> Error {
        let waiting = self.partitions.iter().enumerate().find_map(|(partition, progress)| {
            progress.as_ref().filter(|p| p.position < p.end).map(|p| (partition, p.position, p.end))
        });
        let (partition, position, end) = waiting.unwrap_or_default();
        let stuck = Error::failed(format!(
            "no progress for {} s while reading {}-{partition}, at position {position} of {end}; check whether its \
             leader is up, and run again, with a longer --patience if it is",
            self.patience.limit.as_secs(),
            self.topic
        ))
        .because(Reason::NoProgress);
        self.properties.says(stuck)
    }
}

impl<T> Drop for Reader<T> {
    /// Ends the poll and then the consumer: none of its threads may still run when the process ends.
    fn drop(&mut self) {
        drop(self.batches.take());
        if let Some(poll) = self.poll.take() {
            let _ = poll.join();
        }
    }
}

fn poll_in_background<T: Default + Send + 'static>(
    consumer: Arc<BaseConsumer<Listener>>,
    look: impl Fn(&Message) -> Result<T> + Send + 'static,
) -> Result<(Batches<T>, JoinHandle<()>)> {
    let queue = ConsumerQueue::new(consumer.clone())
        .ok_or_else(|| Error::failed("the consumer has no queue".to_owned()))?;
    let (sender, receiver) = sync_channel(BATCHES);
    let poll = std::thread::Builder::new()
        .name("poll".into())
        .spawn(move || {
            poll_until_dropped(&queue, &sender, look);
            close(&consumer);
        })
        .map_err(|e| Error::io("the polling thread", e))?;
    Ok((receiver, poll))
}

fn poll_until_dropped<T: Default>(
    queue: &ConsumerQueue<Listener>,
    sender: &SyncSender<Result<Looked<T>>>,
    look: impl Fn(&Message) -> Result<T>,
) {
    let mut max = 64; // until the size of a record is known
    loop {
        let batch = queue.poll(POLL, max);
        if !batch.is_empty() {
            max = (BATCH_BYTES * batch.len() / batch.bytes().max(1)).clamp(1, BATCH_RECORDS);
        }
        let look = |event| match event {
            Event::Record(message) => look(message),
            _ => Ok(T::default()),
        };
        let mut seen = Vec::with_capacity(batch.len());
        let looked = batch.events().try_for_each(|event| {
            seen.push(look(event)?);
            Ok(())
        });
        let has_failed = looked.is_err();
        // Send an empty batch too: this thread sees only from a failed send that the receiver is gone.
        if sender.send(looked.map(|()| Looked { batch, seen })).is_err() || has_failed {
            return;
        }
    }
}

/// The timestamp of the first record in `range`, committed or not; `None` if the range holds none.
///
/// # Errors
/// As [`Reader::open`] and [`Reader::accept`]; [`Error::Failed`] if no record comes within two seconds.
pub(crate) fn first_timestamp(
    properties: &Properties,
    topic: &str,
    range: Range,
    interrupt: &Interrupt,
) -> Result<Option<i64>> {
    let reading = Reading {
        properties,
        group: "replicator",
        topic,
        isolation: Isolation::ReadUncommitted,
        patience: Duration::from_secs(2),
    };
    let mut reader = Reader::open(&reading, &[range])?;
    while let Some(batch) = reader.next(interrupt)? {
        for (event, ()) in batch.events() {
            if let Some(message) = reader.accept(event)? {
                return Ok(Some(message.timestamp().0));
            }
        }
    }
    Ok(None)
}
