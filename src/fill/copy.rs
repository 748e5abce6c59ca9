//! Copies the source's ranges. Every branch that a record can take begins in this file.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use rdkafka::consumer::ConsumerGroupMetadata;

use super::bar::CopyBar;
use super::marks::Marking;
use super::state::Added;
use super::{Mode, Run};
use crate::base::error::{Error, Reason, Result};
use crate::base::failpoint::{self, Rule};
use crate::base::invariant;
use crate::base::range::{Range, index};
use crate::fill::receipt::Counts;
use crate::job::identity::Identity;
use crate::job::ledger::Ledger;
use crate::job::limits::Limits;
use crate::job::order::Order;
use crate::job::rate::Throttle;
use crate::job::{OnConflict, TargetScan};
use crate::judge::elsewhen::Outside;
use crate::judge::{Judge, Look, Sighting, Verdict};
use crate::kafka::lag::LAG;
use crate::kafka::origin::Origin;
use crate::kafka::partition::Placement;
use crate::kafka::position::{self, Position};
use crate::kafka::producer::{Producer, Transaction};
use crate::kafka::reader::Reader;
use crate::kafka::sides::Side;
use crate::kafka::sys::{Message, Outgoing};
use crate::telemetry;

/// The state of one start-up's copy.
pub(super) struct Copying<'r, 'a> {
    pub(super) run: &'r mut Run<'a>,
    pub(super) look: &'r Look,
    pub(super) source_partitions: usize,
    pub(super) target_partitions: usize,
    pub(super) limits: &'r Limits,
    /// How the target's keys are placed; `None` if records keep their partition.
    pub(super) target_placement: Option<Placement>,
    pub(super) judge: &'r mut Judge,
    /// The target's records outside of the window.
    pub(super) outside: Option<&'r Outside>,
    /// `None` in a plan.
    pub(super) producer: Option<&'r Producer>,
    pub(super) transaction: Option<Transaction<'r>>,
    pub(super) marking: &'r Marking<'r>,
    pub(super) ledger: &'r Ledger,
    pub(super) group: Arc<ConsumerGroupMetadata>,
    /// The positions that this start-up committed last.
    pub(super) committed: Vec<(i32, i64)>,
    /// The counts of the open transaction.
    pub(super) pending: Counts,
    /// The run found a record that it must not pass over. It counts the rest, and writes nothing more.
    pub(super) blocked: bool,
    pub(super) throttle: Option<Throttle>,
    /// The leader epoch of the last record of each of the source's partitions.
    pub(super) epochs: Vec<i32>,
    /// With --scale-out, how the source's keys are placed.
    pub(super) source_placement: Option<Placement>,
    /// About where the window ends in each partition, for the progress bar.
    pub(super) window_ends: Vec<i64>,
    /// Says when a partition can be left.
    pub(super) order: Order,
}

enum Fate {
    Passed,
    Write,
    Conflict,
    Invalid(Cow<'static, str>),
}

impl Copying<'_, '_> {
    pub(super) fn all(&mut self, ranges: &[Range]) -> Result<()> {
        let result = self.marking.not_of_another_topic(self.copy(ranges));
        match self.transaction.take() {
            Some(transaction) if result.is_err() => self.run.abandon(transaction, result),
            _ => result,
        }
    }

    fn copy(&mut self, ranges: &[Range]) -> Result<()> {
        let (job, interrupt) = (self.run.job, self.run.interrupt);
        let look = self.look.clone();
        let reading = self.run.reading(Side::Source, &self.ledger.name);
        let mut reader = Reader::looking(&reading, ranges, move |message| look.within(message))?;
        let mut bar =
            CopyBar::new(self.run.progress, &job.selection.source, ranges, self.window_ends.clone());
        'batches: while !self.is_enough()
            && let Some(batch) = reader.next(interrupt)?
        {
            let marks = || batch.seen().iter().filter(|seen| seen.has_identity).map(|seen| seen.signature);
            self.judge.warm(marks());
            self.outside.iter().for_each(|outside| outside.warm(marks()));
            for (event, sighting) in batch.events() {
                if let Some(message) = reader.accept(event)? {
                    // A record that breaks the promise of an order is not copied: no run may take that promise for kept.
                    let is_past = self.order.see(message, sighting.time)?;
                    self.take(message, *sighting)?;
                    if is_past {
                        reader.leave(message.partition());
                    }
                    if self.transaction.as_ref().is_some_and(Transaction::is_full) {
                        self.commit(&reader)?;
                    }
                    if self.is_enough() {
                        break 'batches;
                    }
                    self.slow_down(&reader)?;
                }
            }
            bar.move_to(&reader);
            self.publish(&reader);
            if let Some(transaction) = &self.transaction {
                transaction.poll();
                if transaction.is_due() {
                    self.commit(&reader)?;
                }
            }
        }
        self.run.is_stopped = self.is_enough() && !reader.is_done();
        if !self.run.is_stopped {
            let positions: Vec<(i32, i64)> = reader.positions().collect();
            invariant::done_is_at_the_ends(&positions, ranges);
        }
        self.commit(&reader)?;
        self.publish(&reader);
        bar.end();
        Ok(())
    }

    /// Whether the run has written as many records as --limit allows.
    fn is_enough(&self) -> bool {
        let written = || self.run.told.counts.written + self.pending.written;
        self.run.job.limit.is_some_and(|limit| !self.blocked && written() >= limit)
    }

    /// Waits as long as --max-rate demands. Meanwhile, commits the transaction when it is due.
    fn slow_down(&mut self, reader: &Reader<Sighting>) -> Result<()> {
        while let Some(pause) = self.throttle.as_ref().and_then(|throttle| throttle.wait(Instant::now())) {
            self.run.interrupt.check()?;
            std::thread::sleep(pause);
            if let Some(transaction) = &self.transaction {
                transaction.poll();
                if transaction.is_due() {
                    self.commit(reader)?;
                    self.publish(reader);
                }
            }
        }
        Ok(())
    }

    fn publish(&self, reader: &Reader<Sighting>) {
        if !telemetry::is_kept() {
            return;
        }
        let mut counts = self.run.told.counts;
        counts += Counts { written: 0, written_bytes: 0, ..self.pending };
        telemetry::positions(reader.positions());
        self.run.publish(counts);
    }

    fn keeps_partition(&self) -> bool {
        self.target_placement.is_none()
    }

    fn take(&mut self, message: &Message, sighting: Sighting) -> Result<()> {
        let job = self.run.job;
        self.watch_epoch(message)?;
        self.pending.read += 1;
        self.run.told.other_days.see(sighting.time);
        match self.judge(message, sighting)? {
            Fate::Passed => Ok(()),
            Fate::Write => match self.limits.of_record(message) {
                Some(unfit) => self.refuse(message, unfit),
                None => self.write(message, sighting.time),
            },
            Fate::Conflict => {
                self.pending.conflicts += 1;
                self.run.told.example("conflict", message);
                self.block_if(job.selection.rules.on_conflict == OnConflict::Fail)
            }
            Fate::Invalid(why) => {
                self.pending.invalid += 1;
                self.run.told.example(&why, message);
                self.block_if(!job.selection.rules.skip_invalid)
            }
        }
    }

    /// Within one log, leader epochs rise (KIP-101), and a topic that was made anew begins with epoch 0. So if one falls,
    /// this looks whether the topics are still the same, after a pause in which all brokers hear of a new topic. A log
    /// that was rebuilt may hold such a fall too.
    fn watch_epoch(&mut self, message: &Message) -> Result<()> {
        let (last, epoch) = (&mut self.epochs[index(message.partition())], message.leader_epoch());
        let has_fallen = (0..*last).contains(&epoch);
        *last = epoch;
        if has_fallen {
            std::thread::sleep(LAG);
            self.marking.check_topics()?;
        }
        Ok(())
    }

    fn judge(&mut self, message: &Message, seen: Sighting) -> Result<Fate> {
        if !seen.is_in_window {
            return Ok(Fate::Passed);
        }
        self.pending.in_window += u64::from(seen.time.is_some());
        if let Some(why) = self.look.why_invalid(message, &seen, self.keeps_partition())? {
            return Ok(Fate::Invalid(why));
        }
        if let Some(placement) = self.source_placement {
            placement.check(message, self.source_partitions, self.run.job)?;
        }
        if self.outside.is_some_and(|outside| outside.may_hold(seen.signature))
            && !self.run.second.as_ref().is_some_and(|second| second.knows(seen.signature))
        {
            return Err(Error::LookAgain);
        }
        if failpoint::breaks(Rule::Dedup) {
            return Ok(Fate::Write);
        }
        Ok(match self.judge.source(seen.signature)? {
            Verdict::New => Fate::Write,
            Verdict::Conflict => Fate::Conflict,
            Verdict::AlreadyInTarget | Verdict::UnderAnotherTime => {
                self.pending.already_in_target += 1;
                Fate::Passed
            }
            Verdict::DuplicateInSource => {
                self.pending.duplicates_in_source += 1;
                Fate::Passed
            }
        })
    }

    fn write(&mut self, message: &Message, time: Option<i64>) -> Result<()> {
        self.pending.written += 1;
        self.pending.written_bytes += message.bytes() as u64;
        let Some(producer) = self.producer.filter(|_| !self.blocked) else {
            if let Some(foresight) = &mut self.run.foresight {
                foresight.write(message, time);
            }
            return Ok(());
        };
        let partition = match (self.target_placement, message.key()) {
            (Some(placement), Some(key)) => placement.partition(key, self.target_partitions),
            _ => message.partition(),
        };
        let transaction = match &mut self.transaction {
            Some(transaction) => transaction,
            none => none.insert(producer.begin()?),
        };
        transaction.send(copy_of(message, partition), self.run.interrupt)?;
        if let Some(throttle) = &mut self.throttle {
            throttle.take(message.bytes(), Instant::now());
        }
        self.run.written[index(partition)].send();
        Ok(())
    }

    /// If it `blocks`, this ends writing for good, and aborts the open transaction. Earlier commits stay.
    pub(super) fn block_if(&mut self, blocks: bool) -> Result<()> {
        if !blocks || self.blocked {
            return Ok(());
        }
        self.blocked = true;
        if let Some(transaction) = self.transaction.take() {
            transaction.abort()?;
            self.run.told.aborted_transactions += 1;
        }
        Ok(())
    }

    /// Commits the positions together with the records that were written below them. If there are no such records, this
    /// commits only the positions.
    fn commit(&mut self, reader: &Reader<Sighting>) -> Result<()> {
        let counts = std::mem::take(&mut self.pending);
        invariant::each_record_has_one_fate(counts.in_window, counts.judged(), counts.invalid);
        let Some(producer) = self.producer.filter(|_| !self.blocked) else {
            let written = if self.run.mode == Mode::Plan { counts.written } else { 0 };
            self.run.told.counts += Counts { written, written_bytes: 0, ..counts };
            return Ok(());
        };
        let transaction = match self.transaction.take() {
            Some(transaction) => transaction,
            None => producer.begin()?,
        };
        let positions: Vec<(i32, i64)> = reader.positions().collect();
        invariant::positions_only_rise(&self.committed, &positions);
        let Ledger { topic, name, .. } = self.ledger;
        if failpoint::breaks(Rule::OffsetsInTransaction) {
            let marked = self.marking.open(&positions)?;
            let properties = &self.run.job.selection.properties.target;
            position::commit_outside(properties, name, topic, &marked)?;
        }
        if failpoint::breaks(Rule::PositionsInTarget) {
            let marked = self.marking.open(&positions)?;
            let selection = &self.run.job.selection;
            position::commit_outside(
                &selection.properties.source,
                &selection.name(),
                &selection.source,
                &marked,
            )?;
        }
        let mut sent = None;
        let mark = || self.marking.open(&positions).inspect(|marked| sent = Some(marked.clone()));
        match transaction.commit(topic, mark, &self.group) {
            Ok(()) => {
                self.run.told.counts += counts;
                self.run.told.transactions += 1;
                self.committed.clone_from(&positions);
                self.run.advanced.extend(positions.iter().map(|(partition, _)| partition));
                self.run.written.iter_mut().for_each(Added::commit);
                self.run.tell();
                Ok(())
            }
            Err(err) => {
                self.run.failed_commit(&err, sent, counts);
                Err(err)
            }
        }
    }
}

/// A copy of the record, for this partition of the target.
pub(super) fn copy_of(message: &Message, partition: i32) -> Outgoing<'_> {
    Outgoing {
        partition,
        key: message.key(),
        value: message.value(),
        timestamp: message.timestamp().0,
        headers_of: Some(message),
        origin: Origin::record(message.partition(), message.offset()),
    }
}

impl Run<'_> {
    /// The error that says why nothing more was written, and what to do about it.
    pub(super) fn blocked(&self, limits: &Limits) -> Error {
        let job = self.job;
        let mut sentences = self.unfit(limits);
        let mut reason = Reason::InvalidRecords;
        if self.told.counts.conflicts > 0 && job.selection.rules.on_conflict == OnConflict::Fail {
            reason = Reason::Conflicts;
            sentences.push(format!(
                "{} records have the same identity ({}) as a record with other content, so this identity does not tell \
                 records apart. Count all records, equal ones too, with --identity record; or use an identity that \
                 tells them apart ({}); or keep the first record of each identity with --on-conflict skip",
                self.told.counts.conflicts,
                job.selection.rules.identity,
                other_identities(&job.selection.rules.identity)
            ));
        }
        if self.told.counts.conflicts > 0 && job.selection.rules.target_scan == TargetScan::All {
            sentences.push(format!(
                "With --target-scan all, records that differ only in timestamp conflict too, if some are outside of \
                 the window and {} holds fewer copies than {} has such records: nobody can tell whose copies they are",
                job.selection.shown_target(),
                job.selection.shown_source()
            ));
        }
        if self.told.counts.invalid > 0 && !job.selection.rules.skip_invalid {
            sentences.push(format!(
                "{} records have no identity ({}; a null key has none), no event time, a timestamp of 0, or no \
                 partition to go to. Use another identity (--identity record) or event time (--time-field), or leave \
                 these records out with --skip-invalid",
                self.told.counts.invalid, job.selection.rules.identity
            ));
        }
        let kept = match self.told.transactions {
            0 => "nothing was written".to_owned(),
            n => format!("everything committed before the first of them ({n} transactions) is right"),
        };
        let text = format!("{}; {kept}", sentences.join("\n"));
        if self.told.counts.refused > 0 { self.refusal(text) } else { Error::failed(text).because(reason) }
    }
}

/// The identities other than `record` and the one in use.
fn other_identities(in_use: &Identity) -> String {
    let others = [("key+value", Identity::KeyAndValue), ("value", Identity::Value)];
    let mut ways: Vec<String> = others
        .iter()
        .filter(|(_, other)| other != in_use)
        .map(|(name, _)| format!("--identity {name}"))
        .collect();
    ways.push("--identity field:/another_id".to_owned());
    ways.join(", ")
}

/// Commits positions without records, in a transaction of their own.
///
/// # Errors
/// As [`Transaction::commit`].
pub(super) fn commit_positions(
    producer: &Producer,
    ledger: &Ledger,
    positions: impl FnOnce() -> Result<Vec<Position>>,
    group: &Arc<ConsumerGroupMetadata>,
) -> Result<()> {
    producer.begin()?.commit(&ledger.topic, positions, group)
}
