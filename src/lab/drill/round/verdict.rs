//! What a round must have left behind.

use super::Play;
use crate::base::error::Result;
use crate::kafka::sides::Side;
use crate::lab::drill::compare::Expected;
use crate::lab::drill::data::{WINDOW, in_window};
use crate::lab::drill::groups;
use crate::lab::drill::report::Round;
use crate::lab::drill::run::Ended;
use crate::lab::drill::tail::Seen;
use crate::lab::drill::topics::Record;

impl Play<'_, '_> {
    /// What the target must hold if the source holds `source`.
    pub(super) fn expected<'r>(&'r self, source: &'r [Record]) -> Expected<'r> {
        let shape = self.shape;
        Expected {
            source,
            window: WINDOW,
            others: &self.others,
            mirrored: &self.mirrored,
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
        let lost = self.expected(&promised).compare(&target).lost;
        if lost > 0 {
            self.wrong(format!("run {} ended with exit 0, but {lost} records are lost", ended.number));
        }
    }

    pub(super) fn verdict(mut self) -> Result<Round> {
        let shape = self.shape;
        // This waits until all transactions have ended. A transaction that hangs is a failure of the program or of a broker:
        // a broker can complete a commit without writing its markers.
        let target = match self.stage.topics(Side::Target).consume(&self.job.target, shape.target_partitions)
        {
            Ok(target) => target,
            Err(err) => {
                self.wrong(err.to_string());
                return Ok(self.round);
            }
        };
        let seen = match self.tail.take() {
            Some(tail) => tail.finish(target.len())?,
            None => Seen::default(),
        };
        for renewal in &seen.renewals {
            self.note(format!("the target's reader read on with a new client: {renewal}"));
        }
        self.round.differences = self.expected(&self.source).compare(&target);
        self.round.records = self.source.iter().filter(|record| in_window(record)).count();
        if seen.records != target {
            self.wrong(format!(
                "a reader that watched the target saw {} records, but it holds {}{}",
                seen.records.len(),
                target.len(),
                seen.short.map(|short| format!("; the reader: {short}")).unwrap_or_default()
            ));
        }
        self.audit()?;
        if self.round.is_right() {
            self.clean_up()?;
        }
        Ok(self.round)
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
