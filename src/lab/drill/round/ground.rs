//! Changes of what the topics hold while runs are at work.

use rdkafka::producer::Producer;

use super::{HANGS, Play, write};
use crate::base::error::Result;
use crate::kafka::sides::Side;
use crate::lab::drill::data::{Batch, Data, Shape, in_window};
use crate::lab::drill::groups;
use crate::lab::drill::topics::{Record, delivered, of, send};

impl Play<'_, '_> {
    /// Opens a transaction of another producer in one topic, and ends it later.
    pub(super) fn foreign(&mut self, side: Side, records: usize, millis: u64, commits: bool) -> Result<()> {
        let topic = self.topic(side).to_owned();
        let producer = self.stage.topics(side).producer(Some(&format!("foreign/{topic}")))?;
        let shape = self.shape;
        let records: Vec<Record> = match side {
            Side::Source => {
                Data::new(Shape { whole: true, ..shape }, &mut self.rng).batch(records, commits).records
            }
            Side::Target => (0..records)
                .map(|n| Data::new(shape, &mut self.rng).foreign(n % shape.target_partitions))
                .collect(),
        };
        self.appended += 1;
        let records = renamed(records, self.appended, shape, self.partitions(side));
        producer.begin_transaction().map_err(of("foreign transaction"))?;
        send(&producer, &topic, &records)?;
        delivered(&producer)?;
        self.note(format!("a foreign transaction of {} records opens in the {}", records.len(), side.word()));
        self.pause(millis)?;
        if commits {
            producer.commit_transaction(HANGS).map_err(of("foreign commit"))?;
            // Nobody else writes meanwhile, so the place of these records in the log is after all others.
            if side == Side::Source { &mut self.source } else { &mut self.others }.extend(records);
        } else {
            producer.abort_transaction(HANGS).map_err(of("foreign abort"))?;
            self.aborted.extend(records);
        }
        self.note(format!("the foreign transaction is {}", if commits { "committed" } else { "aborted" }));
        Ok(())
    }

    pub(super) fn append(&mut self, records: usize) -> Result<()> {
        self.appended += 1;
        let shape = Shape { whole: true, ..self.shape };
        let batch = Data::new(shape, &mut self.rng).batch(records, true);
        let batch =
            Batch { records: renamed(batch.records, self.appended, shape, shape.source_partitions), ..batch };
        write(self.stage.topics(Side::Source), &self.job.source, std::slice::from_ref(&batch))?;
        self.note(format!("{records} records more in the source"));
        self.source.extend(batch.records);
        Ok(())
    }

    /// Deletes the committed offsets. A group with members cannot be deleted.
    pub(super) fn forget(&mut self) -> Result<()> {
        while !self.runs.is_empty() {
            self.kill()?;
        }
        let topics = self.stage.topics(Side::Target);
        for group in groups::of_job(topics, &self.job.source, &self.job.target)? {
            topics.delete_group(&group)?;
        }
        self.note("the committed offsets are deleted".to_owned());
        Ok(())
    }

    /// Writes records to the source that equal earlier ones, and copies them to the target as a mirror does: without
    /// positions, and without a look at what the target holds.
    pub(super) fn mirror(&mut self, records: usize) -> Result<()> {
        let of_window = self.source.iter().filter(|record| in_window(record));
        let copies: Vec<Record> = of_window.rev().take(records).cloned().collect();
        for run in &mut self.runs {
            run.suffered.mirrored = true;
        }
        let batch = Batch { records: copies, committed: true };
        write(self.stage.topics(Side::Source), &self.job.source, std::slice::from_ref(&batch))?;
        let mut copies = batch.records.clone();
        copies.iter_mut().for_each(|copy| self.shape.place(copy, self.shape.target_partitions));
        let producer = self.stage.topics(Side::Target).producer(None)?;
        send(&producer, &self.job.target, &copies)?;
        delivered(&producer)?;
        self.note(format!("a mirror copies {} records that equal earlier ones", copies.len()));
        let before = self.source.len();
        self.source.extend(batch.records);
        self.mirrored.extend(copies);
        self.mirrored_places.push(before..self.source.len());
        Ok(())
    }
}

/// Gives records new keys, because a new generator makes the same keys again.
pub(super) fn renamed(records: Vec<Record>, number: usize, shape: Shape, partitions: usize) -> Vec<Record> {
    let rename = |mut record: Record| {
        record.key = record.key.map(|key| [&key[..], format!("-{number}").as_bytes()].concat());
        shape.place(&mut record, partitions);
        record
    };
    records.into_iter().map(rename).collect()
}
