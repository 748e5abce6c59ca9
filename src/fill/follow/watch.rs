//! Looks at both clusters once a second: how far the source is ahead, whether a topic grew, and whether somebody else
//! writes to the target.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use chrono::Utc;
use indicatif::ProgressBar;

use super::{Followed, Following, Own};
use crate::base::error::{Error, Result};
use crate::base::progress::Progress;
use crate::base::range::{Range, id, index};
use crate::fill::preflight::Preflight;
use crate::fill::state::Added;
use crate::kafka::cluster::Cluster;
use crate::kafka::member::Share;
use crate::kafka::offsets;
use crate::kafka::sides::{Clusters, Side};
use crate::kafka::topic::Topic;
use crate::telemetry::standing::{self, PartitionStanding, Standing};

const PAUSE: Duration = Duration::from_secs(1);
/// How often a run without a terminal logs where it stands.
const LOG: Duration = Duration::from_secs(60);
/// When to look once more for a reversed job, which may have started at the same time, and how often to look at the marks
/// of other instances.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// After this time without a record of a partition, though its leader says that there are more, the run makes new clients.
/// A client whose last broker answered that there are no brokers, as one does when it stops, waits for good
/// (librdkafka#5301). So does a partition whose question about a leader's epoch got no answer (librdkafka#4492).
const STALLED: Duration = Duration::from_secs(15);
/// How often an idle partition's position is committed again at least. Brokers forget positions after a week by default
/// (`offsets.retention.minutes`).
const RENEW: Duration = Duration::from_secs(3600);

/// The looks of one start-up.
pub(super) struct Watch {
    looked: Option<Instant>,
    logged: Instant,
    began: Instant,
    has_looked_for_reversed: bool,
    /// When the other instances' marks were last looked at.
    heard: Instant,
    renews_after: Duration,
    /// The ends of the source's partitions at the last look, and its time in milliseconds since the epoch.
    last: Option<(Vec<Range>, i64)>,
    last_commit: Option<i64>,
    line: ProgressBar,
}

impl Watch {
    pub(super) fn new(clusters: &Clusters, checked: &Preflight, progress: Progress) -> Watch {
        let retention = clusters.target.offsets_retention(&checked.target.name);
        Watch {
            looked: None,
            logged: Instant::now(),
            began: Instant::now(),
            has_looked_for_reversed: false,
            heard: Instant::now(),
            renews_after: retention.map_or(RENEW, |retention| RENEW.min(retention / 4)),
            last: None,
            last_commit: None,
            line: progress.line(),
        }
    }

    /// Whether something is left to copy of what was readable at the last look. Under a steady load, there is always
    /// something newer.
    pub(super) fn is_behind(&self, followed: &Followed) -> bool {
        let is_left = |ends: &[Range]| {
            followed.own.iter().any(|(partition, own)| own.position < ends[index(*partition)].end)
        };
        self.last.as_ref().is_some_and(|(ends, _)| is_left(ends))
    }

    /// The age at which a committed position is committed again, though it did not move.
    pub(super) fn renews_after(&self) -> Duration {
        self.renews_after
    }

    pub(super) fn committed(&mut self) {
        self.last_commit = Some(Utc::now().timestamp_millis());
    }

    pub(super) fn clear(&self) {
        self.line.finish_and_clear();
    }
}

impl Following<'_, '_> {
    /// Looks if the last look was a second ago. No transaction is open.
    ///
    /// # Errors
    /// [`Error::Restart`] if a cluster does not answer; [`Error::Grown`]; [`Error::Failed`] if a topic was deleted or made
    /// anew.
    pub(super) fn watch(&mut self) -> Result<()> {
        if self.watch.looked.is_some_and(|looked| looked.elapsed() < PAUSE) {
            return Ok(());
        }
        self.watch.looked = Some(Instant::now());
        let (clusters, checked) = (self.clusters, self.checked);
        let readable = answered(Side::Source, || {
            grown(&clusters.source, &checked.source)?;
            clusters.source.readable(&checked.source)
        })?;
        answered(Side::Target, || {
            grown(&clusters.target, &checked.target)?;
            checked.are_the_same(clusters)?;
            let foreign = self.growth.look(&clusters.target, &checked.target)?;
            self.run.live.foreign += foreign;
            Ok(())
        })?;
        if self.watch.heard.elapsed() > LOOK_AGAIN {
            self.watch.heard = Instant::now();
            let committed = answered(Side::Target, || {
                offsets::now(&clusters.target, checked.ledger.extent(), self.run.interrupt)
            })?;
            self.followed.hear(&checked.follow_job(), &committed);
        }
        if !self.watch.has_looked_for_reversed && self.watch.began.elapsed() > LOOK_AGAIN {
            self.watch.has_looked_for_reversed = true;
            checked.check_reversed(self.run.job, clusters, self.run.interrupt)?;
        }
        let (now, now_millis) = (Instant::now(), Utc::now().timestamp_millis());
        let mut behind = 0;
        let last = self.watch.last.take();
        let mut standing = Standing { foreign: Some(self.run.live.foreign), ..Standing::default() };
        for (partition, own) in &mut self.followed.own {
            let log = readable[index(*partition)];
            own.is_behind = false;
            let before = last.as_ref().map(|(ends, millis)| (ends[index(*partition)].end, *millis));
            if own.position >= log.end {
                own.mark.level = now_millis;
            } else if let Some((_, millis)) = before.filter(|(end, _)| own.position >= *end) {
                own.mark.level = millis;
            } else {
                own.is_behind = true;
            }
            if own.position < log.end {
                behind = behind.max(now_millis - own.mark.level);
            }
            standing.partitions.push(PartitionStanding {
                partition: *partition,
                position: own.committed.unwrap_or(own.position),
                end: log.end,
                low: log.start,
            });
        }
        self.watch.last = Some((readable, now_millis));
        self.check_stalled(now)?;
        standing.behind = Duration::from_millis(u64::try_from(behind).unwrap_or(0)).as_secs_f64();
        standing.last_commit = self.watch.last_commit;
        standing.troubles = self.troubles();
        self.tell(&standing);
        standing.publish();
        self.run.publish(self.run.told.counts);
        self.run.tell();
        Ok(())
    }

    /// # Errors
    /// [`Error::Restart`] if a leader has more records, but nothing arrived for [`STALLED`].
    fn check_stalled(&mut self, now: Instant) -> Result<()> {
        // With --max-rate, a partition may rightly wait while others are copied.
        let is_throttled = self.throttle.is_some();
        let moves = |own: &Own| !own.is_behind || own.position != own.seen.0;
        let is_moving = self.followed.own.values().any(moves);
        for (partition, own) in &mut self.followed.own {
            if moves(own) || (is_throttled && is_moving) {
                own.seen = (own.position, now);
                continue;
            }
            // The client may be right: it may be busy with a large aborted transaction, of which it tells nothing.
            let stalled =
                self.run.live.stalls.get(partition).filter(|(position, _)| *position == own.position);
            let limit = stalled.map_or(STALLED, |(_, limit)| *limit);
            if now.saturating_duration_since(own.seen.1) > limit {
                self.run.live.stalls.insert(*partition, (own.position, limit.saturating_mul(2)));
                return Err(self.clusters.source.properties().says(Error::restart(format!(
                    "{}-{partition} has more records, but none arrived for {} s",
                    self.checked.source.name,
                    limit.as_secs()
                ))));
            }
        }
        Ok(())
    }

    /// Troubles that need a person.
    fn troubles(&mut self) -> Vec<String> {
        let mut troubles = Vec::new();
        let (source, target) = (&self.checked.source, &self.checked.target);
        if !self.followed.left_out.is_empty() {
            troubles.push(format!(
                "the partitions {:?} of {} are not copied, because {} has only {} partitions; give it as many as the source \
                 has, or run with --create-partitions",
                self.followed.left_out,
                self.run.told.names.shown_source(),
                self.run.told.names.shown_target(),
                target.partitions
            ));
        }
        if self.run.live.foreign > 0 {
            troubles.push(format!(
                "somebody else has written to {} since this run started, or a dead run's transaction was aborted there: it grew by \
                 {} offsets more than the run wrote; copies of records of {} among them are there twice",
                self.run.told.names.shown_target(),
                self.run.live.foreign,
                source.name
            ));
        }
        if let Some((partition, stable)) = self.growth.held(self.run.job.selection.patience) {
            troubles.push(format!(
                "a transaction of another producer has long been open in {}-{partition}: readers with read_committed see nothing \
                 from offset {stable} on",
                self.run.told.names.shown_target()
            ));
        }
        for trouble in &troubles {
            // The number of offsets changes from look to look, so its sentence is logged once.
            let kind = trouble.split(':').next().unwrap_or_default().to_owned();
            if self.run.live.logged.insert(kind) {
                self.run.told.warn(trouble.clone());
            }
        }
        troubles
    }

    fn tell(&mut self, standing: &Standing) {
        let lag: i64 = standing.partitions.iter().map(|partition| partition.lag()).sum();
        let copied = self.run.told.counts.followed;
        let line = format!(
            "following {} in {} partitions: {copied} records copied, {lag} offsets behind ({:.0} s)",
            self.run.told.names.shown_source(),
            standing.partitions.len(),
            standing.behind
        );
        if self.watch.logged.elapsed() >= LOG {
            self.watch.logged = Instant::now();
            if self.watch.line.is_hidden() || !std::io::stderr().is_terminal() {
                tracing::info!(copied, lag, behind_seconds = standing.behind.round(), "{line}");
            }
        }
        self.watch.line.set_message(line);
    }
}

/// Says whether the cluster of this side answered.
pub(super) fn answered<T>(side: Side, ask: impl FnOnce() -> Result<T>) -> Result<T> {
    let answer = ask();
    standing::up(side, !matches!(answer, Err(Error::Restart { .. })));
    answer
}

fn grown(cluster: &Cluster, topic: &Topic) -> Result<()> {
    match cluster.width(&topic.name)? {
        Some(width) if width > topic.partitions => {
            Err(Error::Grown(format!("{} was given more partitions", topic.name).into()))
        }
        _ => Ok(()),
    }
}

/// By how much the target's partitions grew, and how much of it this run wrote. The rest is somebody else's.
pub(super) struct Growth {
    /// Whether only this instance of the job writes to the partition.
    is_alone: Vec<bool>,
    written: Vec<Written>,
    /// The last stable offsets that lie below the ends, and since when.
    held: Vec<Option<(i64, Instant)>>,
}

/// What this run wrote to a partition since it ended at `base`.
#[derive(Clone, Copy, Default)]
struct Written {
    /// `None` while it is not known.
    base: Option<i64>,
    added: Added,
}

impl Growth {
    pub(super) fn new(checked: &Preflight, followed: &Followed, share: &Share) -> Growth {
        let (source, target) = (&checked.source, &checked.target);
        let has_all = share.partitions.len() == source.partitions;
        let kept =
            |partition: usize| followed.own.get(&id(partition)).is_some_and(|own| own.mark.to.is_none());
        Growth {
            is_alone: (0..target.partitions).map(|partition| has_all || kept(partition)).collect(),
            written: vec![Written::default(); target.partitions],
            held: vec![None; target.partitions],
        }
    }

    pub(super) fn sent(&mut self, partition: i32) {
        if let Some(written) = self.written.get_mut(index(partition)) {
            written.added.send();
        }
    }

    pub(super) fn committed(&mut self) {
        self.written.iter_mut().for_each(|written| written.added.commit());
    }

    /// Nobody knows how much of a failed transaction reached the log.
    pub(super) fn forget(&mut self) {
        self.written.fill(Written::default());
    }

    /// A partition in which a transaction has been open for longer than `patience`, and its last stable offset.
    fn held(&self, patience: Duration) -> Option<(usize, i64)> {
        let held = |of: &Option<(i64, Instant)>| of.filter(|(_, since)| since.elapsed() > patience);
        self.held.iter().enumerate().find_map(|(partition, of)| Some((partition, held(of)?.0)))
    }

    /// How many offsets others took since the last look. This compares only where no transaction is open: there all
    /// markers are written.
    fn look(&mut self, cluster: &Cluster, target: &Topic) -> Result<u64> {
        let mut foreign = 0;
        let stable = cluster.last_stable_offsets(target)?;
        // Ask for the ends after that. If both are equal, no transaction was open meanwhile.
        let ends = cluster.watermarks(target)?;
        for (partition, written) in self.written.iter_mut().enumerate() {
            let (Some(stable), Some(end)) = (stable.get(partition), ends.get(partition)) else { continue };
            if *stable != end.high {
                if self.held[partition].is_none_or(|(held, _)| held != *stable) {
                    self.held[partition] = Some((*stable, Instant::now()));
                }
                continue;
            }
            self.held[partition] = None;
            if !self.is_alone[partition] {
                continue;
            }
            let others = written.base.map_or(0, |base| end.high - base - written.added.offsets());
            // A log that seems to be shorter is that of a leader that was replaced.
            let Ok(others) = u64::try_from(others) else { continue };
            foreign += others;
            *written = Written { base: Some(end.high), ..Written::default() };
        }
        Ok(foreign)
    }
}
