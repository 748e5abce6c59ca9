//! After the last commit: what exit 0 promises is looked at, not believed.

use std::collections::HashSet;

use super::{EXAMPLES, Run};
use crate::cluster::{Cluster, Watermarks, ends};
use crate::error::{Error, Result};
use crate::identity::Fingers;
use crate::job::TargetScan;
use crate::preflight::Preflight;
use crate::range::Range;
use crate::record::describe;
use crate::window::Window;

impl Run<'_> {
    /// After the last commit: readable by all, nothing deleted, nothing doubled by somebody else.
    pub(super) fn close(&mut self, cluster: &Cluster, checked: &Preflight, window: Window) -> Result<()> {
        let (patience, target) = (self.job.selection.patience, &checked.target);
        let readable = || -> Result<Vec<Watermarks>> {
            let now = cluster.watermarks(target)?;
            cluster.wait_until_stable(target, &ends(&now), patience, self.interrupt)?;
            Ok(now)
        };
        same_topics(cluster, checked)?;
        let Some(first) = self.first.as_ref().filter(|_| self.transactions > 0) else { return Ok(()) };
        // A commit is answered before its markers are written: the end is final when all below it is stable.
        readable()?;
        let now = readable()?;
        // Of a transaction that died, nobody knows how much of it reached the log.
        let mut is_ours_alone = self.restarts.count == 0 && self.aborted_transactions == 0;
        // Each of several instances looks where it wrote, and no key has two places.
        let is_shared = self.member.is_some() && checked.source.partitions == target.partitions;
        let mut since = Vec::new();
        for ((scanned, now), written) in first.ranges.iter().zip(&now).zip(&self.written) {
            if now.low > scanned.start {
                return Err(Error::failed(format!(
                    "{}-{} lost its records below offset {} during the run, of the window perhaps; raise its \
                     retention.ms, and run again",
                    target.name, scanned.partition, now.low
                )));
            }
            if is_shared && written.records == 0 {
                continue;
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
            let in_window = job.selection.rules.target_scan == TargetScan::All
                || job.selection.event_time.of(message).is_none_or(|time| window.contains(time));
            let identity = fingers.identity(&job.selection.rules.identity, message).filter(|_| in_window);
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
        Err(Error::failed(format!(
            "somebody else added {doubled} of the window's records to {} during the run, so they stand there twice: \
             {}; stop the other writer, and look with `replicator verify`",
            job.selection.target,
            examples.join("; ")
        )))
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
            )));
        }
    }
    Ok(())
}
