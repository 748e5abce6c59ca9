//! After the last commit: what exit 0 promises is looked at, not believed.

use super::Run;
use super::tell::EXAMPLES;
use crate::base::error::{Error, Reason, Result};
use crate::base::range::{Range, index};
use crate::fill::preflight::Preflight;
use crate::job::TargetScan;
use crate::job::identity::Identity;
use crate::job::window::Window;
use crate::judge::{Look, Sighting, Tally};
use crate::kafka::cluster::Cluster;
use crate::kafka::record::describe;
use crate::kafka::sys::Message;
use crate::kafka::watermarks::{Watermarks, ends};

impl Run<'_> {
    /// After the last commit: readable by all, nothing lost or deleted, nothing doubled by somebody else. The target
    /// was `found` by this start-up before it was scanned.
    pub(super) fn close(
        &mut self,
        cluster: &Cluster,
        checked: &Preflight,
        window: Window,
        found: &[Watermarks],
    ) -> Result<()> {
        let (patience, target) = (self.job.selection.patience, &checked.target);
        let readable = || -> Result<Vec<Watermarks>> {
            let now = cluster.watermarks(target)?;
            cluster.wait_until_stable(target, &ends(&now), patience, self.interrupt)?;
            Ok(now)
        };
        same_topics(cluster, checked)?;
        let Some(first) = self.first.as_ref().filter(|_| self.told.transactions > 0) else { return Ok(()) };
        // A commit is answered before its markers are written: the end is final when all below it is stable.
        readable()?;
        let now = readable()?;
        let is_cut =
            |(found, now): (&Watermarks, &Watermarks)| found.epoch != now.epoch || now.high < found.high;
        if let Some(partition) = found.iter().zip(&now).position(is_cut) {
            return Err(Error::restart(format!(
                "{}-{partition} has another leader than when it was scanned, whose log may lack what was there",
                target.name
            )));
        }
        // Of a transaction that died, nobody knows how much of it reached the log.
        let mut is_ours_alone = self.restarts.count == 0 && self.told.aborted_transactions == 0;
        // Each of several instances looks where it wrote, and no key has two places.
        let is_shared = self.member.is_some() && checked.source.partitions == target.partitions;
        let mut since = Vec::new();
        for ((scanned, now), written) in first.ranges.iter().zip(&now).zip(&self.written) {
            if now.low > first.firsts[index(scanned.partition)] {
                return Err(Error::failed(format!(
                    "{}-{} lost its records below offset {} during the run, of the window perhaps; raise its \
                     retention.ms, and run again",
                    target.name, scanned.partition, now.low
                ))
                .because(Reason::RecordsDeleted));
            }
            if is_shared && written.records == 0 {
                continue;
            }
            is_ours_alone &= now.high - scanned.end <= written.offsets();
            since.push(Range { start: scanned.end, end: now.high, ..*scanned });
        }
        if is_ours_alone { Ok(()) } else { self.look_for_strangers(cluster, checked, window, &since) }
    }

    /// Reads what was added to the target since the first scan: no identity of the window may be there twice; where
    /// equal records are counted, not more often than in the source.
    fn look_for_strangers(
        &mut self,
        cluster: &Cluster,
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
        // All that we wrote is among it.
        let ours = self.written.iter().map(|written| written.records).sum::<i64>();
        let mut added =
            Tally::new(&selection.rules, selection.index_memory, usize::try_from(ours).unwrap_or(0));
        let counts = |seen: &Sighting| look.is_compared(seen) && seen.has_identity;
        self.read_looking(&selection.target, since, at(), |_, seen| {
            if counts(seen) { added.add(seen.mark) } else { Ok(()) }
        })?;
        if is_by_count && !self.holds_what_was_read(cluster, checked)? {
            self.told.warn(format!(
                "{} deleted records of the window during the run, so it cannot be told whether somebody else added some \
                 of them to {}; look with `replicator verify`",
                self.job.selection.source, self.job.selection.target
            ));
            return Ok(());
        }
        if is_by_count {
            let lows = cluster.watermarks(&checked.target)?;
            let scanned = self.first.iter().flat_map(|first| &first.ranges).zip(&lows);
            // What was deleted meanwhile was not of the window.
            let before: Vec<Range> =
                scanned.map(|(range, now)| Range { start: range.start.max(now.low), ..*range }).collect();
            self.read_looking(&selection.target, &before, at(), |_, seen| {
                if look.is_compared(seen) {
                    added.was_there(seen.mark);
                }
                Ok(())
            })?;
        }
        if is_by_count || is_at_any_time {
            self.read_source(cluster, checked, &look, |seen| {
                added.source(seen);
                Ok(())
            })?;
        }
        let count = added.left_over();
        if count == 0 {
            return Ok(());
        }
        // Read again, since to keep them all would have no bound.
        let mut examples = Vec::new();
        self.read_looking(&selection.target, since, at(), |message, seen| {
            if examples.len() < EXAMPLES && counts(seen) && added.take_left_over(seen.mark) {
                examples.push(describe(message));
            }
            Ok(())
        })?;
        Err(Error::failed(format!(
            "somebody else added {count} of the window's records to {} during the run, so they stand there twice: {}; \
             stop the other writer, and look with `replicator verify`",
            self.job.selection.target,
            examples.join("; ")
        ))
        .because(Reason::DoubledByOthers))
    }
}

impl Run<'_> {
    /// Whether the source still holds all of the window that it held at the first start-up.
    fn holds_what_was_read(&self, cluster: &Cluster, checked: &Preflight) -> Result<bool> {
        let now = cluster.watermarks(&checked.source)?;
        let starts = self.first.iter().flat_map(|first| &first.source_starts);
        Ok(now.iter().zip(starts).all(|(now, start)| now.low <= *start))
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
            return Err(Error::failed(format!(
                "{} was deleted, made anew or given partitions during the run; run again",
                topic.name
            ))
            .because(Reason::TopicChanged));
        }
    }
    Ok(())
}
