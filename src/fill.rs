//! The main job, as one loop: the start-up order is the proof that a run is exactly once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use rdkafka::consumer::{Consumer, ConsumerGroupMetadata};

use crate::client::Isolation;
use crate::cluster::{Cluster, Watermarks, index};
use crate::dedup::{Content, Index, Verdict};
use crate::error::{Error, Result};
use crate::event_time::EventTime;
use crate::identity::{Fingers, IdentityHash};
use crate::interrupt::Interrupt;
use crate::job::{Job, OnConflict, TargetScan};
use crate::offsets::{self, Committed, Fingerprint};
use crate::preflight::{self, Preflight};
use crate::progress::Progress;
use crate::receipt::{Counts, Edges, Receipt};
use crate::record::describe;
use crate::restart::Restarts;
use crate::source::{Range, Reader, Reading};
use crate::sys::{Message, Outgoing};
use crate::txn::{CommittedOffsets, Producer, Transaction};
use crate::window::Window;
use crate::{partition, resolve};

/// Whether a run writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Fill,
    /// The same way up to the producer, which it never makes: a plan must not fence a live fill.
    Plan,
}

/// The index holds records this far outside of the window as well, in milliseconds.
const MARGIN: i64 = 60_000;
/// Records of the source looked for in the target under other timestamps.
const SAMPLE: i64 = 1000;
const EXAMPLES: usize = 5;

/// Fills the window. The receipt tells what was done also where the run failed.
///
/// # Errors
/// As the exit codes of the README; never [`Error::Restart`].
pub fn fill(job: &Job, mode: Mode, progress: Progress, interrupt: &Interrupt) -> (Receipt, Result<()>) {
    let started = Instant::now();
    let mut run = Run::new(job, mode, progress, interrupt);
    let result = match run.until_done() {
        // What a later start-up refuses was not before anything was written.
        Err(Error::Refused(why)) if run.counts.written > 0 || run.in_doubt.is_some() => {
            Err(Error::Failed(why))
        }
        result => result,
    };
    let mut receipt = run.receipt();
    receipt.complete = result.is_ok();
    receipt.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    (receipt, result)
}

struct Run<'a> {
    job: &'a Job,
    mode: Mode,
    progress: Progress,
    interrupt: &'a Interrupt,
    window: Option<Window>,
    warnings: Vec<String>,
    examples: Vec<String>,
    /// Settled with a committed transaction.
    counts: Counts,
    duplicates_in_target: u64,
    transactions: u64,
    aborted_transactions: u64,
    restarts: Restarts,
    /// The transaction whose commit was not answered: the next start-up finds out what became of it.
    in_doubt: Option<InDoubt>,
    /// How the first scan found the target: what is there more in the end must be ours.
    first: Option<FirstScan>,
    /// What we added to each partition of the target.
    written: Vec<Written>,
}

struct InDoubt {
    positions: Vec<(i32, i64)>,
    metadata: String,
    counts: Counts,
}

struct FirstScan {
    /// Where the scan began, and where the target ended.
    ranges: Vec<Range>,
}

/// Where the start-up found both topics.
struct Snapshot {
    source: Vec<Watermarks>,
    target: Vec<Watermarks>,
}

impl<'a> Run<'a> {
    fn new(job: &'a Job, mode: Mode, progress: Progress, interrupt: &'a Interrupt) -> Run<'a> {
        Run {
            job,
            mode,
            progress,
            interrupt,
            window: None,
            warnings: Vec::new(),
            examples: Vec::new(),
            counts: Counts::default(),
            duplicates_in_target: 0,
            transactions: 0,
            aborted_transactions: 0,
            restarts: Restarts::default(),
            in_doubt: None,
            first: None,
            written: Vec::new(),
        }
    }

    fn until_done(&mut self) -> Result<()> {
        let cluster = Cluster::connect(&self.job.selection.properties, &self.job.selection.name())?;
        let (source, target) =
            preflight::topics(&cluster, &self.job.selection.source, &self.job.selection.target)?;
        let window = resolve::window(&cluster, &self.job.selection, &source, self.interrupt)?;
        self.window = Some(window);
        tracing::info!("window {} of {}", Edges::from(window), source.name);
        let checked = preflight::check(&cluster, self.job, source, target, window)?;
        for warning in &checked.warnings {
            self.warn(warning.clone());
        }
        self.written = vec![Written::default(); checked.target.partitions];
        loop {
            let result = self.attempt(&cluster, &checked, window);
            if let Some(result) = self.restarts.take(result, self.transactions, self.interrupt) {
                return result;
            }
        }
    }

    /// One start-up and all that follows. Its order is the proof; each step says why it stands there.
    fn attempt(&mut self, cluster: &Cluster, checked: &Preflight, window: Window) -> Result<()> {
        let (job, name) = (self.job, self.job.selection.name());
        let (source, target) = (&checked.source, &checked.target);

        // 1. Nobody else with this job's transactional id can commit from here on, and nothing of a dead
        //    run is left open: what follows sees all that any earlier run did.
        let producer = match self.mode {
            Mode::Fill => {
                Some(Producer::init(&job.selection.properties, &name, &target.name, checked.batch_bytes)?)
            }
            Mode::Plan => None,
        };

        // 2. Where the last committed transaction of this job left off.
        let committed = match self.mode {
            Mode::Fill => offsets::committed(cluster, source)?,
            Mode::Plan => vec![None; source.partitions],
        };

        // 3. The ends, before anything is read: what the promise covers.
        let snapshot = Snapshot { source: cluster.watermarks(source)?, target: cluster.watermarks(target)? };
        let ends = |watermarks: &[Watermarks]| watermarks.iter().map(|w| w.high).collect::<Vec<_>>();
        let (source_ends, target_ends) = (ends(&snapshot.source), ends(&snapshot.target));

        // 4. Below them all is decided: no record can still appear behind our back.
        cluster.wait_until_stable(target, &target_ends, job.selection.patience, self.interrupt)?;
        cluster.wait_until_stable(source, &source_ends, job.selection.patience, self.interrupt)?;

        // 5. What is left to read; if nothing, what was committed is readable, and this is the end.
        let fingerprint = fingerprint(job, checked, window, &snapshot.target);
        self.settle_doubt(&committed);
        let starts = self.starts(cluster, checked, window, &committed, &fingerprint, &snapshot)?;
        let ranges = Range::all(&starts, &source_ends);
        if ranges.iter().all(Range::is_empty) {
            return self.close(cluster, checked, window);
        }

        // 6. What the target holds already, then the copy.
        let fingers = Fingers::new()?;
        let mut index = Index::new(job.index_memory, job.target_scan == TargetScan::All);
        let scanned = self.scan_target(cluster, checked, window, &snapshot, &fingers, &mut index)?;
        self.first.get_or_insert(FirstScan { ranges: scanned });
        let group = cluster
            .committed
            .group_metadata()
            .ok_or_else(|| Error::Failed("the client has no group metadata".to_owned()))?;
        let mut copy = Copy {
            run: self,
            window,
            target_partitions: target.partitions,
            keep_partition: source.partitions == target.partitions,
            fingers: &fingers,
            index: &mut index,
            producer: producer.as_ref(),
            transaction: None,
            fingerprint: &fingerprint,
            group: Arc::new(group),
            pending: Counts::default(),
            blocked: false,
        };
        copy.all(&ranges)?;
        if copy.blocked {
            return Err(self.blocked());
        }
        if self.mode == Mode::Plan {
            return Ok(());
        }

        // 7. Readable, and by nobody's doing doubled or deleted.
        self.close(cluster, checked, window)
    }

    /// Whether the transaction that was not answered had been committed: its offsets tell.
    fn settle_doubt(&mut self, committed: &[Option<Committed>]) {
        let Some(doubt) = self.in_doubt.take() else { return };
        let is_committed = doubt.positions.iter().all(|(partition, position)| {
            committed[index(*partition)]
                .as_ref()
                .is_some_and(|c| c.position == *position && c.metadata == doubt.metadata)
        });
        if is_committed {
            self.counts += doubt.counts;
            self.transactions += 1;
        } else {
            self.aborted_transactions += 1;
        }
    }

    /// Where to begin in each partition: the committed offset if it is this very job's, else by time.
    fn starts(
        &mut self,
        cluster: &Cluster,
        checked: &Preflight,
        window: Window,
        committed: &[Option<Committed>],
        fingerprint: &Fingerprint,
        snapshot: &Snapshot,
    ) -> Result<Vec<i64>> {
        let source = &checked.source;
        let ends: Vec<i64> = snapshot.source.iter().map(|w| w.high).collect();
        let by_time = match window.start.filter(|_| self.job.selection.event_time.is_indexed()) {
            Some(start) => cluster.positions_at(source, start, &ends)?,
            None => snapshot.source.iter().map(|w| w.low).collect(),
        };
        let mut starts = Vec::with_capacity(ends.len());
        let mut is_resumed = true;
        for (partition, watermarks) in snapshot.source.iter().enumerate() {
            // Where the target's timestamps are not compared, a record's counterpart there can stand for
            // only one record of the source, which a run that begins in the middle could not know.
            let resumed = committed[partition]
                .as_ref()
                .filter(|c| c.metadata == fingerprint.as_str() && self.job.target_scan == TargetScan::Window);
            is_resumed &= resumed.is_some();
            let start = resumed.map_or(by_time[partition], |c| c.position);
            if start > watermarks.high {
                return Err(Error::Refused(format!(
                    "the committed offset {start} of {}-{partition} is past its end {}: the topic lost records; delete \
                     the offsets of group {} with kafka-consumer-groups.sh --delete-offsets, and run again",
                    source.name,
                    watermarks.high,
                    self.job.selection.name()
                )));
            }
            if watermarks.low > 0 && start <= watermarks.low {
                self.warn(format!(
                    "{}-{partition} begins at offset {}: if records before it were of the window, they are gone",
                    source.name, watermarks.low
                ));
            }
            starts.push(start.max(watermarks.low));
        }
        if !is_resumed {
            // All is read anew, so what an earlier start-up of this run counted would be counted twice.
            self.counts = Counts { written: self.counts.written, ..Counts::default() };
        }
        Ok(starts)
    }

    /// Reads the target from the window's start to the snapshot into the index; the ranges that it read.
    fn scan_target(
        &mut self,
        cluster: &Cluster,
        checked: &Preflight,
        window: Window,
        snapshot: &Snapshot,
        fingers: &Fingers,
        index: &mut Index,
    ) -> Result<Vec<Range>> {
        let job = self.job;
        let (scan_all, wide) = (job.target_scan == TargetScan::All, window.widened(MARGIN));
        let ends: Vec<i64> = snapshot.target.iter().map(|w| w.high).collect();
        let by_time = wide.start.filter(|_| job.selection.event_time.is_indexed() && !scan_all);
        let starts = match by_time {
            Some(start) => cluster.positions_at(&checked.target, start, &ends)?,
            None => snapshot.target.iter().map(|w| w.low).collect(),
        };
        let ranges = Range::all(&starts, &ends);
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
        self.duplicates_in_target = 0;
        self.read(&job.selection.target, &ranges, &bar, |run, message| {
            let (timestamp, stamped) = message.timestamp();
            if stamped && !scan_all {
                return Err(Error::Refused(preflight::log_append_time(&job.selection.target)));
            }
            let Some(identity) = fingers.identity(&job.selection.identity, message) else { return Ok(()) };
            sample.look_at(identity, timestamp, || fingers.content(message, false));
            let time = job.selection.event_time.of(message);
            if scan_all || time.is_none_or(|time| wide.contains(time)) {
                let doubles = index.insert_target(identity, content(fingers, message, job.target_scan))?;
                run.duplicates_in_target +=
                    u64::from(doubles && time.is_none_or(|time| window.contains(time)));
            }
            Ok(())
        })?;
        sample.verdict(job)?;
        tracing::debug!("{} identities in the window of {}", index.len(), job.selection.target);
        Ok(ranges)
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
        let ends: Vec<i64> = snapshot.source.iter().map(|w| w.high).collect();
        let each = (SAMPLE / i64::try_from(ends.len()).unwrap_or(SAMPLE)).max(1);
        let around = match window.start {
            Some(start) => cluster.positions_at(&checked.source, start, &ends)?,
            None => snapshot.source.iter().map(|w| w.low).collect(),
        };
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
                if let Some(identity) = fingers.identity(&job.selection.identity, message) {
                    sample.take(identity, message.timestamp().0, fingers.content(message, false));
                }
                Ok(())
            })?;
        }
        Ok(sample)
    }

    /// Reads `ranges` of a topic, committed records only, to their end.
    fn read(
        &mut self,
        topic: &str,
        ranges: &[Range],
        bar: &indicatif::ProgressBar,
        mut each: impl FnMut(&mut Self, &Message) -> Result<()>,
    ) -> Result<()> {
        let name = self.job.selection.name();
        let mut reader = Reader::open(&self.reading(topic, &name), ranges)?;
        while let Some(batch) = reader.next(self.interrupt)? {
            for event in batch.events() {
                if let Some(message) = reader.accept(event)? {
                    each(self, message)?;
                }
            }
            bar.inc(batch.len() as u64);
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn reading<'r>(&'r self, topic: &'r str, group: &'r str) -> Reading<'r> {
        Reading {
            properties: &self.job.selection.properties,
            group,
            topic,
            isolation: Isolation::ReadCommitted,
            patience: self.job.selection.patience,
        }
    }

    /// After the last commit: readable by all, nothing deleted, nothing doubled by somebody else.
    fn close(&mut self, cluster: &Cluster, checked: &Preflight, window: Window) -> Result<()> {
        let (patience, target) = (self.job.selection.patience, &checked.target);
        let readable = || -> Result<Vec<Watermarks>> {
            let now = cluster.watermarks(target)?;
            let ends: Vec<i64> = now.iter().map(|w| w.high).collect();
            cluster.wait_until_stable(target, &ends, patience, self.interrupt)?;
            Ok(now)
        };
        same_topics(cluster, checked)?;
        let Some(first) = self.first.as_ref().filter(|_| self.transactions > 0) else { return Ok(()) };
        // A commit is answered before its markers are written: the end is final when all below it is stable.
        readable()?;
        let now = readable()?;
        let mut is_ours_alone = true;
        let mut since = Vec::new();
        for ((scanned, now), written) in first.ranges.iter().zip(&now).zip(&self.written) {
            if now.low > scanned.start {
                return Err(Error::Failed(format!(
                    "{}-{} lost its records below offset {} during the run, of the window perhaps; raise its \
                     retention.ms, and run again",
                    target.name, scanned.partition, now.low
                )));
            }
            is_ours_alone &= now.high - scanned.end <= written.offsets();
            since.push(Range { start: scanned.end, end: now.high, ..*scanned });
        }
        if is_ours_alone { Ok(()) } else { self.look_for_strangers(window, &since) }
    }

    /// Reads what was added to the target since the first scan: no identity of the window may be there twice.
    fn look_for_strangers(&mut self, window: Window, since: &[Range]) -> Result<()> {
        let (job, fingers) = (self.job, Fingers::new()?);
        let mut seen = HashSet::new();
        let mut doubled = 0;
        let mut examples = Vec::new();
        self.read(&job.selection.target, since, &indicatif::ProgressBar::hidden(), |_, message| {
            let in_window = job.target_scan == TargetScan::All
                || job.selection.event_time.of(message).is_none_or(|time| window.contains(time));
            let identity = fingers.identity(&job.selection.identity, message).filter(|_| in_window);
            if identity.is_some_and(|identity| !seen.insert(identity)) {
                doubled += 1;
                if examples.len() < EXAMPLES {
                    examples.push(describe(message));
                }
            }
            Ok(())
        })?;
        if doubled == 0 {
            return Ok(());
        }
        Err(Error::Failed(format!(
            "somebody else added {doubled} of the window's records to {} during the run, so they stand there twice: \
             {}; stop the other writer, and look with `replicator verify`",
            job.selection.target,
            examples.join("; ")
        )))
    }

    fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            tracing::warn!("{warning}");
            self.warnings.push(warning);
        }
    }

    fn example(&mut self, what: &str, message: &Message) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("{what}: {}", describe(message)));
        }
    }

    /// Why nothing more was written, and the ways out.
    fn blocked(&self) -> Error {
        let job = self.job;
        let mut sentences = Vec::new();
        if self.counts.conflicts > 0 && job.on_conflict == OnConflict::Fail {
            sentences.push(format!(
                "{} records share their identity ({}) with a record of another content: the identity does not tell \
                 records apart. Name one that does (--identity key+value, or --identity field:/event_id), or keep the \
                 first of each with --on-conflict skip",
                self.counts.conflicts, job.selection.identity
            ));
        }
        if self.counts.invalid > 0 && !job.skip_invalid {
            sentences.push(format!(
                "{} records have no identity ({}; a null key has none), no event time, a timestamp of 0, or no \
                 partition to go to. Name another identity (--identity value) or time (--time-field), or leave them \
                 out with --skip-invalid",
                self.counts.invalid, job.selection.identity
            ));
        }
        let kept = match self.transactions {
            0 => "nothing was written".to_owned(),
            n => format!("what was committed before the first of them ({n} transactions) is right"),
        };
        Error::Failed(format!("{}; {kept}", sentences.join("\n")))
    }

    fn receipt(&self) -> Receipt {
        let mut counts = self.counts;
        let to_write = (self.mode == Mode::Plan).then_some(counts.written);
        if to_write.is_some() {
            counts.written = 0;
        }
        Receipt {
            window: self.window.map(Edges::from).unwrap_or_default(),
            source: self.job.selection.source.clone(),
            target: self.job.selection.target.clone(),
            counts,
            to_write,
            duplicates_in_target: self.duplicates_in_target,
            transactions: self.transactions,
            aborted_transactions: self.aborted_transactions,
            restarts: self.restarts.count,
            elapsed_ms: 0,
            complete: false,
            warnings: self.warnings.clone(),
            examples: self.examples.clone(),
        }
    }
}

/// # Errors
/// [`Error::Failed`] where a topic was deleted or made anew since the preflight.
fn same_topics(cluster: &Cluster, checked: &Preflight) -> Result<()> {
    for topic in [&checked.source, &checked.target] {
        let is_same = cluster
            .topic(&topic.name)?
            .is_some_and(|found| (&found.id, found.partitions) == (&topic.id, topic.partitions));
        if !is_same {
            return Err(Error::Failed(format!(
                "{} was deleted, made anew or given partitions during the run; run again",
                topic.name
            )));
        }
    }
    Ok(())
}

/// What we added to a partition of the target.
#[derive(Clone, Copy, Default)]
struct Written {
    records: i64,
    /// Each committed transaction leaves one marker where it wrote.
    markers: i64,
    in_transaction: bool,
}

impl Written {
    fn offsets(self) -> i64 {
        self.records + self.markers
    }
}

/// The copy of the source's ranges: every branch that a record can take.
struct Copy<'r, 'a> {
    run: &'r mut Run<'a>,
    window: Window,
    target_partitions: usize,
    keep_partition: bool,
    fingers: &'r Fingers,
    index: &'r mut Index,
    /// `None` in a plan.
    producer: Option<&'r Producer>,
    transaction: Option<Transaction<'r>>,
    fingerprint: &'r Fingerprint,
    group: Arc<ConsumerGroupMetadata>,
    /// Of the open transaction.
    pending: Counts,
    /// A record was found that must not be passed over: the rest is counted, and not written.
    blocked: bool,
}

enum Fate {
    Passed,
    Write,
    Conflict,
    Invalid(&'static str),
}

impl Copy<'_, '_> {
    fn all(&mut self, ranges: &[Range]) -> Result<()> {
        let result = self.copy(ranges);
        if let (Err(err), Some(transaction)) = (&result, self.transaction.take()) {
            self.run.aborted_transactions += 1;
            // Of an unknown state, it is the next init's to abort.
            if !matches!(err, Error::Restart { .. } | Error::Fenced(_))
                && let Err(err) = transaction.abort()
            {
                tracing::warn!("the open transaction was not aborted, and will be by the next run: {err}");
            }
        }
        result
    }

    fn copy(&mut self, ranges: &[Range]) -> Result<()> {
        let (job, interrupt) = (self.run.job, self.run.interrupt);
        let name = job.selection.name();
        let mut reader = Reader::open(&self.run.reading(&job.selection.source, &name), ranges)?;
        let bar = self
            .run
            .progress
            .bar(&format!("copying {}", job.selection.source), ranges.iter().map(Range::len).sum());
        while let Some(batch) = reader.next(interrupt)? {
            for event in batch.events() {
                if let Some(message) = reader.accept(event)? {
                    self.take(message)?;
                    if self.is_full() {
                        self.commit(&reader)?;
                    }
                }
            }
            bar.inc(batch.len() as u64);
            if let Some(transaction) = &self.transaction {
                transaction.poll();
                if transaction.age() >= job.limits.time {
                    self.commit(&reader)?;
                }
            }
        }
        self.commit(&reader)?;
        bar.finish_and_clear();
        Ok(())
    }

    fn is_full(&self) -> bool {
        let limits = self.run.job.limits;
        self.transaction.as_ref().is_some_and(|t| t.records >= limits.records || t.bytes >= limits.bytes)
    }

    fn take(&mut self, message: &Message) -> Result<()> {
        let job = self.run.job;
        self.pending.read += 1;
        match self.judge(message)? {
            Fate::Passed => Ok(()),
            Fate::Write => self.write(message),
            Fate::Conflict => {
                self.pending.conflicts += 1;
                self.run.example("conflict", message);
                self.block_if(job.on_conflict == OnConflict::Fail)
            }
            Fate::Invalid(why) => {
                self.pending.invalid += 1;
                self.run.example(why, message);
                self.block_if(!job.skip_invalid)
            }
        }
    }

    fn judge(&mut self, message: &Message) -> Result<Fate> {
        let job = self.run.job;
        let Some(time) = job.selection.event_time.of(message) else {
            return Ok(Fate::Invalid("no event time"));
        };
        if !self.window.contains(time) {
            return Ok(Fate::Passed);
        }
        self.pending.in_window += 1;
        if message.timestamp().0 == 0 {
            // librdkafka would write the time of the copy in its place.
            return Ok(Fate::Invalid("timestamp 0"));
        }
        if !self.keep_partition && message.key().is_none() {
            return Ok(Fate::Invalid("null key, and the partition counts differ"));
        }
        let Some(identity) = self.fingers.identity(&job.selection.identity, message) else {
            return Ok(Fate::Invalid("no identity"));
        };
        Ok(match self.index.judge(identity, content(self.fingers, message, job.target_scan))? {
            Verdict::New => Fate::Write,
            Verdict::Conflict => Fate::Conflict,
            Verdict::AlreadyInTarget => {
                self.pending.already_in_target += 1;
                Fate::Passed
            }
            Verdict::DuplicateInSource => {
                self.pending.duplicates_in_source += 1;
                Fate::Passed
            }
        })
    }

    fn write(&mut self, message: &Message) -> Result<()> {
        self.pending.written += 1;
        let Some(producer) = self.producer.filter(|_| !self.blocked) else { return Ok(()) };
        let partition = match message.key().filter(|_| !self.keep_partition) {
            Some(key) => partition::of_key(key, self.target_partitions),
            None => message.partition(),
        };
        let transaction = match &mut self.transaction {
            Some(transaction) => transaction,
            none => none.insert(producer.begin()?),
        };
        transaction.send(Outgoing {
            partition,
            key: message.key(),
            value: message.value(),
            timestamp: message.timestamp().0,
            headers_of: Some(message),
        })?;
        let written = &mut self.run.written[index(partition)];
        written.records += 1;
        written.in_transaction = true;
        Ok(())
    }

    /// Ends writing for good: the open transaction is aborted, what was committed before stays.
    fn block_if(&mut self, blocks: bool) -> Result<()> {
        if !blocks || self.blocked {
            return Ok(());
        }
        self.blocked = true;
        if let Some(transaction) = self.transaction.take() {
            transaction.abort()?;
            self.run.aborted_transactions += 1;
        }
        Ok(())
    }

    /// Commits the position with what was written below it; a position alone where nothing was.
    fn commit(&mut self, reader: &Reader) -> Result<()> {
        let counts = std::mem::take(&mut self.pending);
        let Some(producer) = self.producer.filter(|_| !self.blocked) else {
            let written = if self.run.mode == Mode::Plan { counts.written } else { 0 };
            self.run.counts += Counts { written, ..counts };
            return Ok(());
        };
        let transaction = match self.transaction.take() {
            Some(transaction) => transaction,
            None => producer.begin()?,
        };
        let positions: Vec<(i32, i64)> = reader.positions().collect();
        let offsets = CommittedOffsets {
            topic: &self.run.job.selection.source,
            positions: &positions,
            metadata: self.fingerprint.as_str(),
        };
        match transaction.commit(&offsets, &self.group) {
            Ok(()) => {
                self.run.counts += counts;
                self.run.transactions += 1;
                for written in &mut self.run.written {
                    written.markers += i64::from(std::mem::take(&mut written.in_transaction));
                }
                Ok(())
            }
            Err(err) => {
                if matches!(err, Error::Restart { .. }) {
                    let metadata = self.fingerprint.as_str().to_owned();
                    self.run.in_doubt = Some(InDoubt { positions, metadata, counts });
                } else {
                    self.run.aborted_transactions += 1;
                }
                Err(err)
            }
        }
    }
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
        Err(Error::Refused(format!(
            "{moved} of {} records of {} that were looked for stand in {} with another timestamp: its copies were \
             stamped anew, so the window alone does not show which are there; compare the whole topic with \
             --target-scan all",
            self.0.len(),
            job.selection.source,
            job.selection.target
        )))
    }
}

fn content(fingers: &Fingers, message: &Message, scan: TargetScan) -> Content {
    let exact = fingers.content(message, true);
    let loose = if scan == TargetScan::All { fingers.content(message, false) } else { exact };
    Content { exact, loose }
}

/// All that decides what a committed offset means. A change in any of it makes the offset void, and the
/// run begins by time again; the scan then finds what is already there.
fn fingerprint(job: &Job, checked: &Preflight, window: Window, target: &[Watermarks]) -> Fingerprint {
    let event_time = match &job.selection.event_time {
        EventTime::Timestamp => "timestamp".to_owned(),
        EventTime::Field(pointer) => format!("field {}", pointer.as_str()),
    };
    let mut parts = vec![
        window.to_string(),
        event_time,
        job.selection.identity.to_string(),
        format!("{:?} {:?} {}", job.on_conflict, job.target_scan, job.skip_invalid),
        checked.source.id.clone(),
        checked.target.id.clone(),
        format!("{} {}", checked.source.partitions, checked.target.partitions),
    ];
    parts.extend(target.iter().map(|watermarks| watermarks.low.to_string()));
    Fingerprint::of(&parts)
}
