//! Topics that change under a run: made anew, given more partitions, or deleted.

use nix::sys::signal::Signal;

use super::ground::renamed;
use super::{Finish, Play, aborted, committed, write};
use crate::base::error::Result;
use crate::kafka::sides::Side;
use crate::lab::drill::anomalies::Anomalies;
use crate::lab::drill::data::{Batch, Data, Shape};
use crate::lab::drill::groups;
use crate::lab::drill::tail::Tail;
use crate::lab::drill::topics::Record;

impl Play<'_, '_> {
    /// Deletes the topic of one side, and creates it again. The runs must then fail, or start again. Their successors must
    /// find all that the new topic lacks.
    pub(super) fn make_anew(&mut self, side: Side, percent: usize) -> Result<()> {
        // Frozen, a run cannot end unseen while the reader of the target counts.
        self.signal_all(Signal::SIGSTOP);
        self.pause(300)?;
        let seen = self.tail.as_ref().map_or(0, Tail::seen);
        let is_unfinished = u64::try_from(seen).unwrap_or(u64::MAX) < self.expected(&self.source).total();
        for run in &mut self.runs {
            run.suffered.remade = true;
            run.known = None;
        }
        self.round.count(side, |suffered| suffered.topics += 1);
        let (topic, partitions) = (self.topic(side).to_owned(), self.partitions(side));
        let cluster = self.stage.of(side);
        let replicas = cluster.replicas();
        // The positions of the old topic say nothing about the new one.
        self.watch = None;
        if side == Side::Target {
            self.tail = None;
        }
        self.stage.topics(side).delete(&[&topic])?;
        // Some runs see the topic missing, some see it empty, and some wake when the new one is full.
        let wakes_late = percent.is_multiple_of(2);
        if !wakes_late {
            self.signal_all(Signal::SIGCONT);
        }
        self.create_again(side, &topic, partitions, replicas)?;
        let source = match side {
            Side::Source => self.refill_source(percent)?,
            Side::Target => {
                self.watch_new_target()?;
                self.source.clone()
            }
        };
        self.signal_all(Signal::SIGCONT);
        self.settle_remade(&source, is_unfinished)
    }

    /// The source has other records now. All that was copied before stays in the target. Returns the old records and the
    /// new ones.
    fn refill_source(&mut self, percent: usize) -> Result<Vec<Record>> {
        let shape = Shape { records: self.schedule.shape.records * percent / 100, ..self.shape };
        self.appended += 1;
        let rename = |batch: Batch| Batch {
            records: renamed(batch.records, self.appended, shape, shape.source_partitions),
            ..batch
        };
        let batches: Vec<Batch> = Data::new(shape, &mut self.rng).source().into_iter().map(rename).collect();
        self.aborted.extend(aborted(&batches));
        write(self.stage.topics(Side::Source), &self.job.source, &batches)?;
        let records = committed(batches);
        self.note(format!("the source is deleted and made anew, with {} records", records.len()));
        let before = std::mem::replace(&mut self.source, records);
        Ok([before, self.source.clone()].concat())
    }

    /// The target is empty now.
    fn watch_new_target(&mut self) -> Result<()> {
        let topics = self.stage.topics(Side::Target);
        self.tail = Some(Tail::start(topics, &self.job.target, self.shape.target_partitions)?);
        self.note("the target is deleted and made anew, empty".to_owned());
        self.others.clear();
        self.mirrored.clear();
        self.mirrored_places.clear();
        Ok(())
    }

    /// Waits for the end of the runs that worked when a topic was made anew, and compares. From then on, all that they
    /// wrote was there before.
    ///
    /// `source` holds all records that they may have copied.
    fn settle_remade(&mut self, source: &[Record], is_unfinished: bool) -> Result<()> {
        let has_runs = !self.runs.is_empty();
        let finish = if has_runs { self.finish()? } else { None };
        let topics = self.stage.topics(Side::Target);
        let target = topics.consume(&self.job.target, self.shape.target_partitions)?;
        let found = self.expected(source).compare(&target);
        if !(Anomalies { lost_write: 0, ..found }).is_none() {
            self.wrong(format!("after a topic was made anew: {found}"));
        }
        let says_done = finish.as_ref().is_some_and(Finish::is_done);
        let lost = self.expected(&self.source).compare(&target).lost_write;
        if is_unfinished && says_done && lost > 0 {
            self.wrong(format!(
                "a run ended with exit 0 after a topic was made anew, but {lost} records are lost"
            ));
        }
        self.others = target;
        self.mirrored.clear();
        self.mirrored_places.clear();
        Ok(())
    }

    /// Creates a topic that was just deleted. The brokers may still be deleting it.
    fn create_again(&mut self, side: Side, topic: &str, partitions: usize, replicas: usize) -> Result<()> {
        let mut result = Ok(());
        for _ in 0..100 {
            result = self.stage.topics(side).create(topic, partitions, replicas);
            if result.is_ok() {
                break;
            }
            self.pause(50)?;
        }
        result
    }

    /// Deletes the topic whose offsets hold the positions. The offsets go with it, so the next run must look at all of
    /// the target again.
    pub(super) fn delete_ledger(&mut self) -> Result<()> {
        if !self.stage.are_two() {
            return Ok(());
        }
        for run in &mut self.runs {
            run.suffered.unledgered = true;
        }
        let ledgers = self.ledgers()?;
        let names: Vec<&str> = ledgers.iter().map(String::as_str).collect();
        if !names.is_empty() {
            self.stage.topics(Side::Target).delete(&names)?;
            self.round.count(Side::Target, |suffered| suffered.topics += 1);
        }
        self.note(format!("the ledger is deleted ({} topics)", names.len()));
        Ok(())
    }

    /// The topics in the target's cluster that hold the positions of this round's job.
    pub(in crate::lab::drill) fn ledgers(&self) -> Result<Vec<String>> {
        groups::ledgers(self.stage.topics(Side::Target), &self.job.source)
    }

    /// Gives both topics a partition more, beginning with one side. While the counts differ, runs may refuse the topics.
    pub(super) fn grow(&mut self, first: Side, millis: u64) -> Result<()> {
        let second = if first == Side::Source { Side::Target } else { Side::Source };
        self.has_grown = true;
        for run in &mut self.runs {
            run.suffered.grown = true;
        }
        self.grow_one(first)?;
        self.pause(millis)?;
        self.look()?;
        self.ready()?;
        for run in &mut self.runs {
            run.suffered.grown = true;
        }
        self.pause(millis)?;
        self.grow_one(second)?;
        self.append(self.schedule.shape.records / 20)?;
        if let Some(watch) = &self.watch {
            watch.widen(self.shape.source_partitions, self.shape.target_partitions);
        }
        // A reader does not notice new partitions by itself.
        self.tail = None;
        let topics = self.stage.topics(Side::Target);
        self.tail = Some(Tail::start(topics, &self.job.target, self.shape.target_partitions)?);
        Ok(())
    }

    fn grow_one(&mut self, side: Side) -> Result<()> {
        let partitions = match side {
            Side::Source => &mut self.shape.source_partitions,
            Side::Target => &mut self.shape.target_partitions,
        };
        *partitions += 1;
        let (partitions, topic) = (*partitions, self.topic(side));
        self.stage.topics(side).grow(topic, partitions)?;
        self.round.count(side, |suffered| suffered.topics += 1);
        self.note(format!("the {} has {partitions} partitions now", side.word()));
        Ok(())
    }

    pub(super) fn signal_all(&self, signal: Signal) {
        self.runs.iter().for_each(|run| run.signal(signal));
    }
}
