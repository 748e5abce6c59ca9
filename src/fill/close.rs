//! Checks, after the last commit, that the promise of exit code 0 holds.

use super::Run;
use super::tell::EXAMPLES;
use crate::base::error::{Error, Reason, Result, Why};
use crate::base::failpoint::{self, Rule};
use crate::base::range::{Range, index};
use crate::fill::preflight::Preflight;
use crate::job::TargetScan;
use crate::job::identity::Identity;
use crate::job::window::Window;
use crate::judge::{Look, Sighting, Tally};
use crate::kafka::cluster::Cluster;
use crate::kafka::lag::{self, LAG};
use crate::kafka::record::describe;
use crate::kafka::sides::{Clusters, Side};
use crate::kafka::sys::Message;
use crate::kafka::watermarks::{Watermarks, ends};

impl Run<'_> {
    /// Checks after the last commit that all copies are readable, that no record was lost or deleted, and that nobody
    /// else doubled one. `found` is the target as this start-up saw it before the scan.
    pub(super) fn close(
        &mut self,
        clusters: &Clusters,
        checked: &Preflight,
        window: Window,
        found: &[Watermarks],
    ) -> Result<()> {
        let (patience, target) = (self.job.selection.patience, &checked.target);
        let readable = || -> Result<Vec<Watermarks>> {
            let now = clusters.target.watermarks(target)?;
            clusters.target.wait_until_stable(target, &ends(&now), patience, self.interrupt)?;
            Ok(now)
        };
        checked.are_unchanged(clusters)?;
        let Some(first) = self.first.as_ref().filter(|_| self.told.transactions > 0) else { return Ok(()) };
        // The coordinator answers a commit before it writes the markers. Once all records are stable, the markers are
        // there too, and the end is final.
        readable()?;
        let now = readable()?;
        let is_cut =
            |(found, now): (&Watermarks, &Watermarks)| found.epoch != now.epoch || now.high < found.high;
        if let Some(partition) = found.iter().zip(&now).position(is_cut) {
            let changed = Error::restart(format!(
                "the leader of {}-{partition} changed after the scan, and the new leader's log may lack records",
                target.name
            ));
            return Err(clusters.target.properties().says(changed));
        }
        let mut is_ours_alone = is_counted(self.restarts.count, self.told.aborted_transactions);
        // Each of several instances checks only the partitions that it wrote to, because no key is in two partitions.
        let is_shared = self.member.is_some() && checked.source.partitions == target.partitions;
        let mut since = Vec::new();
        for ((scanned, now), written) in first.ranges.iter().zip(&now).zip(&self.written) {
            if now.low > first.firsts[index(scanned.partition)] {
                let lost = Error::failed(format!(
                    "{}-{} lost its records below offset {} during the run, perhaps records of the window; raise its \
                     retention.ms, and run again",
                    target.name, scanned.partition, now.low
                ))
                .because(Reason::RecordsDeleted);
                return Err(clusters.target.properties().says(lost));
            }
            if is_shared && written.records == 0 {
                continue;
            }
            is_ours_alone &= written.explains(now.high - scanned.end);
            since.push(Range { start: scanned.end, end: now.high, ..*scanned });
        }
        if is_ours_alone || failpoint::breaks(Rule::LookForOthers) {
            Ok(())
        } else {
            self.look_for_strangers(clusters, checked, window, &since)
        }
    }

    /// Reads the records that were added to the target since the first scan. No identity of the window may be in the
    /// target twice. If equal records are counted, the target may not hold more of them than the source.
    fn look_for_strangers(
        &mut self,
        clusters: &Clusters,
        checked: &Preflight,
        window: Window,
        since: &[Range],
    ) -> Result<()> {
        let selection = &self.job.selection;
        let keeps_partitions = checked.source.partitions == checked.target.partitions;
        let look = Look::new(self.fingers.clone(), selection, window, keeps_partitions);
        let at = || {
            let look = look.clone();
            move |message: &Message| look.at(message)
        };
        let is_by_count = selection.rules.identity == Identity::Record;
        let is_at_any_time = selection.rules.target_scan == TargetScan::All;
        // The records that this run wrote are among the added ones, so make room for them.
        let ours = self.written.iter().map(|written| written.records).sum::<i64>();
        let mut added =
            Tally::new(&selection.rules, selection.index_memory, usize::try_from(ours).unwrap_or(0));
        let counts = |seen: &Sighting| look.is_compared(seen) && seen.has_identity;
        let name = &checked.ledger.name;
        let mut count = 0;
        self.read_looking(Side::Target, name, since, at(), |_, seen| {
            if counts(seen) {
                count += 1;
                added.add(seen.signature)?;
            }
            Ok(())
        })?;
        // The run committed as many, and all of those are there.
        if count == self.told.counts.written {
            return Ok(());
        }
        if is_by_count && !self.holds_what_was_read(&clusters.source, checked)? {
            self.told.warn(format!(
                "{} deleted records of the window during the run, so nobody can tell whether somebody else added some \
                 of them to {}; check with `{}`",
                self.job.selection.shown_source(),
                self.job.selection.shown_target(),
                self.verification()
            ));
            return Ok(());
        }
        // What was added may double a record that was there already.
        let lows = clusters.target.watermarks(&checked.target)?;
        let scanned = self.first.iter().flat_map(|first| &first.ranges).zip(&lows);
        // Equal records of two partitions are two records if copies keep their partition.
        let matters = |(range, _): &(&Range, _)| {
            !keeps_partitions || since.iter().any(|since| since.partition == range.partition)
        };
        // Records that were deleted meanwhile were not in the window.
        let before: Vec<Range> = scanned
            .filter(matters)
            .map(|(range, now)| Range { start: range.start.max(now.low), ..*range })
            .collect();
        self.read_looking(Side::Target, name, &before, at(), |_, seen| {
            if counts(seen) {
                added.was_there(seen.signature);
            }
            Ok(())
        })?;
        if is_by_count || is_at_any_time {
            self.read_source(&clusters.source, checked, &look, |seen| {
                added.source(seen);
                Ok(())
            })?;
        }
        let count = added.left_over();
        if count == 0 {
            return Ok(());
        }
        // Read the records again for examples, because keeping all of them would take unbounded memory.
        let mut examples = Vec::new();
        self.read_looking(Side::Target, name, since, at(), |message, seen| {
            if examples.len() < EXAMPLES && counts(seen) && added.take_left_over(seen.signature) {
                examples.push(describe(message));
            }
            Ok(())
        })?;
        Err(Error::failed(format!(
            "somebody else added {count} of the window's records to {} during the run, so they are there twice: {}; \
             stop the other writer, and check with `{}`",
            self.job.selection.shown_target(),
            examples.join("; "),
            self.verification()
        ))
        .because(Reason::DoubledByOthers))
    }
}

impl Run<'_> {
    /// Whether the source still holds all records of the window that it held at the first start-up.
    fn holds_what_was_read(&self, cluster: &Cluster, checked: &Preflight) -> Result<bool> {
        let now = cluster.watermarks(&checked.source)?;
        let starts = self.first.iter().flat_map(|first| &first.source_starts);
        Ok(now.iter().zip(starts).all(|(now, start)| now.low <= *start))
    }
}

impl Preflight {
    /// Checks that both topics are still the same.
    ///
    /// # Errors
    /// [`Error::Failed`] if a topic was deleted or made anew since the preflight; [`Error::Grown`].
    fn are_unchanged(&self, clusters: &Clusters) -> Result<()> {
        if failpoint::breaks(Rule::SameTopics) {
            return Ok(());
        }
        for (topic, cluster) in [(&self.source, &clusters.source), (&self.target, &clusters.target)] {
            // A broker that has just started may not know the topic yet.
            let found = lag::until(LAG, || cluster.topic(&topic.name))?;
            let changed = |how: &str| format!("{} was {how} during the run; run again", topic.name);
            let changed = match found.filter(|found| found.id == topic.id) {
                Some(found) if found.partitions == topic.partitions => continue,
                Some(_) => Error::Grown(changed("given more partitions").into()),
                None => Error::failed(changed("deleted or made anew")),
            };
            return Err(cluster.properties().says(changed.because(Reason::TopicChanged)));
        }
        Ok(())
    }

    /// The result; if it says that records are gone, but they were those of a topic that was made anew since, it says that.
    pub(super) fn not_of_another_topic(&self, clusters: &Clusters, result: Result<()>) -> Result<()> {
        match &result {
            Err(Error::Failed(why)) if is_of_logs(why) => {
                self.are_the_same(clusters)?;
                result
            }
            _ => result,
        }
    }

    /// Checks that both topics are still those that the preflight found. A transaction may be committed only if both
    /// were asked after its last record. Otherwise it could commit positions of another topic, since librdkafka goes on
    /// to read a topic that was made anew (`rd_kafka_topic_metadata_update`). Brokers may lag behind, so this narrows the
    /// race; the copy asks again if leader epochs fall.
    ///
    /// # Errors
    /// [`Error::Failed`] if a topic was deleted or made anew; [`Error::Restart`] if a cluster does not answer.
    pub(super) fn are_the_same(&self, clusters: &Clusters) -> Result<()> {
        if failpoint::breaks(Rule::SameTopics) {
            return Ok(());
        }
        for (topic, cluster) in [(&self.source, &clusters.source), (&self.target, &clusters.target)] {
            let why = match cluster.topic_id(&topic.name)? {
                Some(id) if id == topic.id => continue,
                Some(_) => Error::failed(format!(
                    "{} was deleted and made anew during the run; run again",
                    topic.name
                )),
                // A broker that has just started may not know the topic yet.
                None => Error::restart(format!("there is no topic {} now", topic.name)),
            };
            return Err(cluster.properties().says(why.because(Reason::TopicChanged)));
        }
        self.ledger.check(&clusters.target)
    }
}

impl Run<'_> {
    /// The command line that compares the window.
    fn verification(&self) -> String {
        let selection = &self.job.selection;
        let window =
            self.told.window.map_or_else(|| selection.window.to_string(), |window| window.to_string());
        selection.line(&["verify", "--window", &window], &selection.rules.identity)
    }
}

/// Whether the run knows how many records it added. Nobody knows how many of a failed transaction reached the log. Pure.
pub(super) fn is_counted(restarts: u64, aborted_transactions: u64) -> bool {
    restarts == 0 && aborted_transactions == 0
}

/// Whether a log lacks records that were there.
pub(super) fn is_of_logs(why: &Why) -> bool {
    matches!(why.reason(), Some(Reason::RecordsDeleted | Reason::LogLost))
}
