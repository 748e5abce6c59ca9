//! Records of the source that are deleted while runs are at work, as retention deletes them.

use std::collections::HashMap;

use nix::sys::signal::Signal;

use super::{Finish, Play, flat};
use crate::base::error::Result;
use crate::kafka::sides::Side;
use crate::lab::drill::anomalies::Anomalies;
use crate::lab::drill::run::Ended;
use crate::lab::drill::topics::Record;

impl Play<'_, '_> {
    /// Deletes the oldest records of the source's partitions. The runs at work must have copied them, or say that they are
    /// gone. So must the next run, if an earlier one had not finished there. Then an operator deletes its positions.
    pub(super) fn trim(&mut self, percent: usize) -> Result<()> {
        if self.schedule.by_count {
            // Among equal records, nobody can tell which ones are gone.
            self.note("no records are deleted, because equal ones count".to_owned());
            return Ok(());
        }
        // Frozen, a run cannot end unseen.
        self.signal_all(Signal::SIGSTOP);
        self.pause(300)?;
        let mut known = HashMap::new();
        for run in &mut self.runs {
            run.suffered.trimmed = true;
            known.insert(run.number, run.known.take().unwrap_or(0));
        }
        self.round.count(Side::Source, |suffered| suffered.topics += 1);
        let (topics, partitions) = (self.stage.topics(Side::Source), self.shape.source_partitions);
        let ends = topics.ends(&self.job.source, partitions, "read_committed")?;
        let share = i64::try_from(percent).unwrap_or(0);
        let below: Vec<i64> = ends.iter().map(|end| end * share / 100).collect();
        topics.delete_records(&self.job.source, &below)?;
        let left = flat(&topics.logs(&self.job.source, partitions)?);
        self.note(format!("the source's records below {below:?} are deleted"));
        let before = std::mem::replace(&mut self.source, left);
        // A run may have read ahead, and not notice. The next one looks at the positions of one that was killed.
        while percent.is_multiple_of(2) && !self.runs.is_empty() {
            self.kill()?;
        }
        self.signal_all(Signal::SIGCONT);
        let finish = if self.runs.is_empty() { None } else { self.finish()? };
        let has_ended = finish.is_some();
        if has_ended {
            self.settle_trimmed(&before, &known, finish)?;
        }
        // An open mark below the new beginning ends the next run.
        self.ready()?;
        self.runs.iter_mut().for_each(|run| run.suffered.trimmed = true);
        let Some(Finish(ended)) = self.finish()? else { return Ok(()) };
        if !has_ended {
            // Now the transaction of the killed run is aborted.
            self.settle_trimmed(&before, &known, None)?;
        }
        if ended.iter().any(|ended| ended.status.code() == Some(3)) {
            self.forget()?;
        }
        Ok(())
    }

    /// Compares with all that the source held before, and with so much of it as the source held when a run began. From then
    /// on, all that was written was there before.
    fn settle_trimmed(
        &mut self,
        before: &[Record],
        known: &HashMap<usize, usize>,
        finish: Option<Finish>,
    ) -> Result<()> {
        let topics = self.stage.topics(Side::Target);
        let target = topics.consume(&self.job.target, self.shape.target_partitions)?;
        let found = self.expected(before).compare(&target);
        // The copy of an equal record that is left may come later than the copy of the first one, which is gone, would have.
        if !(Anomalies { lost_write: 0, nonmonotonic_send: 0, ..found }).is_none() {
            self.wrong(format!("after records were deleted: {found}"));
        }
        let says_so =
            |ended: &Ended| ended.stderr.contains("if earlier records were in the window, they are gone");
        for ended in finish.iter().flat_map(|Finish(ended)| ended) {
            let known = known.get(&ended.number).copied().unwrap_or(0);
            let lost = self.expected(&before[..known]).compare(&target).lost_write;
            if ended.is_done() && !says_so(ended) && lost > 0 {
                let number = ended.number;
                self.wrong(format!("run {number} ended with exit 0, but {lost} records are lost"));
            }
        }
        self.others = target;
        self.mirrored.clear();
        self.mirrored_places.clear();
        Ok(())
    }
}
