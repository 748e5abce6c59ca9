//! What a round must have left behind.

use rdkafka::Offset;

use super::Play;
use crate::base::error::Result;
use crate::kafka::sides::Side;
use crate::lab::drill::compare::Expected;
use crate::lab::drill::data::{Shape, WINDOW, in_window};
use crate::lab::drill::groups;
use crate::lab::drill::readings;
use crate::lab::drill::report::Round;
use crate::lab::drill::run::Ended;
use crate::lab::drill::tail::{Seen, Tail};
use crate::lab::drill::topics::{Log, Record};

impl Play<'_, '_> {
    /// What the target must hold if the source holds `source`.
    pub(super) fn expected<'r>(&'r self, source: &'r [Record]) -> Expected<'r> {
        let shape = self.shape;
        Expected {
            source,
            window: WINDOW,
            others: &self.others,
            mirrored: &self.mirrored,
            aborted: &self.aborted,
            same_partitions: shape.source_partitions == shape.target_partitions && !self.has_grown,
            by_count: self.schedule.by_count,
        }
    }

    /// After exit 0, the target must hold all records that the source held when the run began, beside those that a mirror
    /// has copied since. A later run could mend what this one lost, so this looks at once.
    pub(super) fn check_promise(&mut self, ended: &Ended) {
        let Some(known) = ended.known.filter(|_| ended.is_done()) else { return };
        let topics = self.stage.topics(Side::Target);
        // A broker may be away. The verdict looks again.
        let Ok(target) = topics.consume(&self.job.target, self.shape.target_partitions) else { return };
        let since = self.mirrored_places.iter().filter(|places| places.start >= known);
        let since = since.flat_map(|places| &self.source[places.clone()]);
        let promised: Vec<Record> = self.source[..known].iter().chain(since).cloned().collect();
        let lost = self.expected(&promised).compare(&target).lost_write;
        if lost > 0 {
            self.wrong(format!("run {} ended with exit 0, but {lost} records are lost", ended.number));
        }
    }

    pub(super) fn verdict(mut self) -> Result<Round> {
        let shape = self.shape;
        // This waits until all transactions have ended. A transaction that hangs is a failure of the program or of a broker:
        // a broker can complete a commit without writing its markers.
        let found = self.logs(shape);
        let (source, target) = match found {
            Ok(found) => found,
            Err(err) => {
                self.wrong(err.to_string());
                return Ok(self.round);
            }
        };
        let records = flat(&target);
        self.round.anomalies = self.expected(&self.source).compare(&records);
        if !self.keeps_order {
            self.round.anomalies.nonmonotonic_send = 0;
        }
        self.round.records = self.source.iter().filter(|record| in_window(record)).count();
        self.check_positions(source, &target)?;
        if let Some(tail) = self.tail.take() {
            self.check_tail(tail, &target)?;
        }
        self.audit()?;
        if self.round.is_right() {
            self.clean_up()?;
        }
        Ok(self.round)
    }

    /// Judges what the watch learnt, and ends it.
    fn check_positions(&mut self, source: Vec<Log>, target: &[Log]) -> Result<()> {
        let due = source.into_iter().map(|log| log.into_iter().filter(|(_, r)| in_window(r)).collect());
        let due: Vec<Log> = due.collect();
        self.check_watch(&due, target, self.schedule.by_count)
    }

    /// Judges the positions so far. From now on, nobody can.
    pub(super) fn end_watch(&mut self) -> Result<()> {
        if self.watch.is_some() {
            let (source, target) = self.logs(self.shape)?;
            self.check_positions(source, &target)?;
        }
        Ok(())
    }

    /// All records of both topics.
    fn logs(&mut self, shape: Shape) -> Result<(Vec<Log>, Vec<Log>)> {
        let source = self.stage.topics(Side::Source).logs(&self.job.source, shape.source_partitions)?;
        let target = self.stage.topics(Side::Target).logs(&self.job.target, shape.target_partitions)?;
        Ok((source, target))
    }

    /// A reader that watched must have seen what is there, in its order, and nothing else.
    pub(in crate::lab::drill) fn check_tail(&mut self, tail: Tail, target: &[Log]) -> Result<()> {
        let watched = tail.partitions().min(target.len());
        let target = &target[..watched];
        let Seen { logs, renewals, short } = tail.finish(target.iter().map(Vec::len).sum())?;
        for renewal in &renewals {
            self.note(format!("the target's reader read on with a new client: {renewal}"));
        }
        let from: Vec<_> = (0..watched).map(|partition| (partition, Offset::Beginning)).collect();
        let all = self.stage.topics(Side::Target).read(&self.job.target, &from, "read_uncommitted")?;
        let found = readings::compare(&logs, target, &all);
        self.round.anomalies.add(&found);
        if !found.is_none() {
            self.wrong(format!(
                "a reader that watched {watched} partitions of the target saw {} records, and they hold {}: {found}{}",
                logs.iter().map(Vec::len).sum::<usize>(),
                target.iter().map(Vec::len).sum::<usize>(),
                short.map(|short| format!("; the reader: {short}")).unwrap_or_default()
            ));
        }
        Ok(())
    }

    /// Records and positions of a transaction must have come together. `due` are the source's records that the target must
    /// hold.
    pub(in crate::lab::drill) fn check_watch(
        &mut self,
        due: &[Log],
        target: &[Log],
        by_count: bool,
    ) -> Result<()> {
        let Some(watch) = self.watch.take() else { return Ok(()) };
        let watched = watch.finish()?;
        let others = [&self.others[..], &self.mirrored].concat();
        let torn = watched.torn(due, target, &others, by_count);
        self.round.asked_for_both = watched.asked();
        self.round.anomalies.torn_transaction += torn.missing + torn.early;
        if let Some(told) = torn.told {
            let (missing, early) = (torn.missing, torn.early);
            self.wrong(format!("{missing} records came after their position, {early} before it: {told}"));
        }
        Ok(())
    }

    /// With two clusters, a run writes nothing to the source's, and its positions are where its members are.
    pub(in crate::lab::drill) fn audit(&mut self) -> Result<()> {
        let (source, target) = (&self.job.source, &self.job.target);
        if !self.stage.are_two() {
            return Ok(());
        }
        let (a, b) = (self.stage.topics(Side::Source), self.stage.topics(Side::Target));
        let mut wrong = Vec::new();
        let groups_in_a = groups::of_job(a, source, target)?;
        if !groups_in_a.is_empty() {
            wrong.push(format!(
                "the source cluster has the groups {groups_in_a:?}, where nothing may be written"
            ));
        }
        let topics_in_a = a.names("replicator.", ".internal")?;
        if !topics_in_a.is_empty() {
            wrong.push(format!(
                "the source cluster has the topics {topics_in_a:?}, where nothing may be written"
            ));
        }
        let in_source = a.consume(source, self.shape.source_partitions)?;
        if in_source.len() != self.source.len() {
            let (now, written) = (in_source.len(), self.source.len());
            wrong.push(format!("the source holds {now} records, but the drill wrote {written}"));
        }
        let (groups, ledgers) = (groups::of_job(b, source, target)?, self.ledgers()?);
        let mut have_positions = false;
        for (group, ledger) in
            groups.iter().flat_map(|group| ledgers.iter().map(move |ledger| (group, ledger)))
        {
            have_positions |= groups::has_positions(b, group, ledger, self.shape.source_partitions)?;
        }
        if !have_positions {
            wrong.push(format!(
                "no group of {groups:?} has a position for each partition of a ledger of {ledgers:?}"
            ));
        }
        for ledger in &ledgers {
            let partitions = b.leaders(ledger)?.len();
            let ends = b.ends(ledger, partitions, "read_uncommitted")?;
            if ends.iter().any(|end| *end > 0) {
                wrong.push(format!("{ledger} has records"));
            }
        }
        wrong.into_iter().for_each(|wrong| self.wrong(wrong));
        Ok(())
    }

    /// Instances must have partitions of the topic whose offsets they commit: only then the group fences the positions.
    pub(in crate::lab::drill) fn audit_members(&mut self) -> Result<()> {
        if self.schedule.instances == 1 || !self.stage.are_two() {
            return Ok(());
        }
        let topics = self.stage.topics(Side::Target);
        let Ok(groups) = groups::of_job(topics, &self.job.source, &self.job.target) else { return Ok(()) };
        for group in groups {
            // A coordinator may be away.
            let Ok(assigned) = groups::assigned_topics(topics, &group) else { continue };
            let ledgers = self.ledgers()?;
            if let Some(other) = assigned.iter().find(|topic| !ledgers.contains(topic)) {
                let other =
                    format!("instances share the partitions of {other}, but commit offsets of {ledgers:?}");
                self.wrong(other);
                return Ok(());
            }
        }
        Ok(())
    }

    pub(in crate::lab::drill) fn clean_up(&self) -> Result<()> {
        self.stage.topics(Side::Source).delete(&[&self.job.source])?;
        let target = self.stage.topics(Side::Target);
        target.delete(&[&self.job.target])?;
        if self.stage.are_two() {
            let ledgers = self.ledgers()?;
            let names: Vec<&str> = ledgers.iter().map(String::as_str).collect();
            if !names.is_empty() {
                target.delete(&names)?;
            }
        }
        Ok(())
    }
}

/// The records without their offsets.
pub(in crate::lab::drill) fn flat(logs: &[Log]) -> Vec<Record> {
    logs.iter().flatten().map(|(_, record)| record.clone()).collect()
}
