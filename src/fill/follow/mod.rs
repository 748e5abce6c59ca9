//! Copies what the source commits after the joint, for good (`--follow`).
//!
//! A fill has brought the target up to the joint: an end of the source for which it knows that the target holds no copy of
//! a later record. So from there on nothing is compared, and memory stays flat: each committed record is copied once,
//! equal ones too, in transactions that commit the source's positions with them. The positions bear [`FollowMark`]s, so a
//! later start-up goes on behind them without a scan.

mod begin;
mod grow;
mod watch;

pub(super) use self::begin::{marks, way_out};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use rdkafka::consumer::ConsumerGroupMetadata;

use self::watch::{Growth, Watch};
use super::Run;
use super::close::is_of_logs;
use super::copy::copy_of;
use super::state::Added;
use crate::base::error::{Error, Reason, Result};
use crate::base::failpoint::{self, Rule};
use crate::base::interrupt::Interrupt;
use crate::base::invariant;
use crate::base::range::{id, index};
use crate::fill::preflight::Preflight;
use crate::fill::receipt::Counts;
use crate::job::Follow;
use crate::job::rate::Throttle;
use crate::kafka::follow_mark::{Checkpoint, FollowMark};
use crate::kafka::lag::LAG;
use crate::kafka::mark::Fingerprint;
use crate::kafka::member::Share;
use crate::kafka::partition::Placement;
use crate::kafka::position::Position;
use crate::kafka::producer::{Producer, Transaction};
use crate::kafka::reader::Reader;
use crate::kafka::record::describe;
use crate::kafka::sides::{Clusters, Side};
use crate::kafka::sys::Message;
use crate::kafka::watermarks::Watermarks;
use crate::telemetry;

/// What a run keeps from one start-up to the next.
#[derive(Default)]
pub(super) struct Live {
    /// The joints of all partitions of this instance are committed, by this run or an earlier one.
    pub(super) is_joined: bool,
    /// This instance got a partition that needs the window, but the preflight did not look for it.
    pub(super) needs_window: bool,
    /// The target refused a record. Until all before it is committed, a transaction has at most so many records.
    careful: Option<u64>,
    /// How many offsets of the target others have taken.
    foreign: u64,
    /// The positions at which a partition stood still, and how long it may the next time.
    stalls: BTreeMap<i32, (i64, Duration)>,
    /// The target refused a batch, so its configuration may have changed.
    pub(super) is_stale: bool,
    /// The kinds of trouble that were logged.
    logged: BTreeSet<String>,
}

/// The partitions of one instance.
pub(super) struct Followed {
    /// Those whose joint is committed, or is to be committed first.
    pub(super) own: BTreeMap<i32, Own>,
    /// Those that a fill must bring up to a joint.
    pub(super) unfilled: BTreeSet<i32>,
    /// Whether no other instance has a copy that this one's fill could take for that of its own record.
    pub(super) fills_alone: bool,
    /// How copies are placed, if a joint has decided it.
    pub(super) to: Option<Option<Placement>>,
    /// Those for which the target has no partition.
    left_out: Vec<i32>,
    /// The first partition of the source that no follow has begun to copy, as far as this instance knows.
    known: usize,
}

/// A partition of the source that this instance follows.
pub(super) struct Own {
    mark: FollowMark,
    position: i64,
    /// `None` until this instance has committed the joint.
    committed: Option<i64>,
    /// When this start-up committed it last.
    renewed: Option<Instant>,
    /// The source had more at the look before the last one.
    is_behind: bool,
    /// The position at an earlier look, and when it was reached.
    seen: (i64, Instant),
}

impl Own {
    /// Begins at a joint that is not committed yet. `place` is the end of what the fill has decided.
    pub(super) fn new(checked: &Preflight, to: Option<Placement>, place: Checkpoint) -> Own {
        let mark = FollowMark {
            job: checked.follow_job(),
            to,
            partitions: checked.source.partitions,
            joint: place.offset,
            level: Utc::now().timestamp_millis(),
            source: place,
            target: Vec::new(),
        };
        Own { committed: None, ..Own::of((place.offset, mark)) }
    }

    /// Goes on behind a mark.
    fn of((position, mark): (i64, FollowMark)) -> Own {
        Own {
            mark,
            position,
            committed: Some(position),
            renewed: None,
            is_behind: false,
            seen: (position, Instant::now()),
        }
    }

    /// Whether the position moved since its last commit, or the group would soon forget it. The first commit of a start-up
    /// renews all.
    fn needs_commit(&self, renews_after: Duration) -> bool {
        self.committed != Some(self.position)
            || self.renewed.is_none_or(|renewed| renewed.elapsed() >= renews_after)
    }
}

impl Preflight {
    /// The job of the marks that a follow of these topics commits.
    pub(super) fn follow_job(&self) -> Fingerprint {
        FollowMark::job(&self.source.id, &self.target.id)
    }
}

/// How long a position may wait for its commit if only markers and aborted records moved it.
const MARKERS: Duration = Duration::from_secs(1);
/// How long a transaction may be open if the run is behind. As for a fill, longer ones gain little.
const BEHIND: Duration = Duration::from_secs(1);

/// The state of one start-up's follow.
struct Following<'r, 'a> {
    run: &'r mut Run<'a>,
    follow: &'r Follow,
    clusters: &'r Clusters,
    checked: &'r Preflight,
    producer: Option<&'r Producer>,
    transaction: Option<Transaction<'r>>,
    group: Arc<ConsumerGroupMetadata>,
    followed: Followed,
    /// What this instance added to the partitions of the target.
    growth: Growth,
    watch: Watch,
    /// The records of the open transaction.
    pending: Counts,
    last_commit: Instant,
    throttle: Option<Throttle>,
}

impl Run<'_> {
    /// Follows until this run is interrupted. Then it has committed what it read.
    ///
    /// # Errors
    /// [`Error::Reassigned`] after a last commit; [`Error::Grown`] if a topic got more partitions; [`Error::Failed`] if a
    /// topic was made anew, a log was cut, or the target refuses a record; [`Error::Restart`] in all cases in which another
    /// start-up may help.
    pub(super) fn follow(
        &mut self,
        clusters: &Clusters,
        checked: &Preflight,
        producer: Option<&Producer>,
        share: &Share,
        followed: Followed,
    ) -> Result<()> {
        let Some(follow) = &self.job.follow else { return Ok(()) };
        telemetry::phase(telemetry::Phase::Follow);
        // What the fill kept for its last check is of no use any more.
        (self.first, self.second) = (None, None);
        self.written = vec![Added::default(); checked.target.partitions];
        let throttle = self.job.max_rate.map(|rate| Throttle::new(rate, Instant::now()));
        let growth = Growth::new(checked, &followed, share);
        let watch = Watch::new(clusters, checked, self.progress);
        let following = Following {
            run: self,
            follow,
            clusters,
            checked,
            producer,
            transaction: None,
            group: share.group.clone(),
            followed,
            growth,
            watch,
            pending: Counts::default(),
            last_commit: Instant::now(),
            throttle,
        };
        following.until_interrupted()
    }
}

impl Following<'_, '_> {
    fn until_interrupted(mut self) -> Result<()> {
        let result = match self.checked.not_of_another_topic(self.clusters, self.go_on()) {
            // A leader that was replaced and does not know it yet may say so. The next start-up decides.
            Err(Error::Failed(why)) if is_of_logs(&why) => Err(Error::restart(why)),
            result => result,
        };
        self.watch.clear();
        match self.transaction.take() {
            Some(transaction) if result.is_err() => self.run.abandon(transaction, result),
            _ => result,
        }
    }

    fn go_on(&mut self) -> Result<()> {
        // The joints of a fill, and of new partitions.
        self.commit()?;
        self.run.live.is_joined = true;
        let places: Vec<(i32, Checkpoint)> =
            self.followed.own.iter().map(|(partition, own)| (*partition, own.mark.source)).collect();
        let name = self.checked.ledger.name.clone();
        let mut reader: Reader =
            Reader::following(&self.run.reading(Side::Source, &name), &places, |_| Ok(()))?;
        tracing::info!("following {} in the partitions {:?}", self.run.told.names.shown_source(), self.own());
        loop {
            // Take all that waits, before a commit lets more of it wait.
            let ready = if self.run.interrupt.check().is_ok() { reader.ready()? } else { None };
            let has_more = ready.is_some();
            let next = match ready {
                Some(batch) => Ok(Some(batch)),
                None => reader.next(self.run.interrupt),
            };
            match next {
                Ok(Some(batch)) => {
                    for (event, ()) in batch.events() {
                        if self.throttle.is_some() && self.run.interrupt.check().is_err() {
                            break;
                        }
                        if let Some(message) = reader.accept(event)? {
                            self.take(message)?;
                        }
                    }
                    for (partition, position) in reader.positions() {
                        if let Some(own) = self.followed.own.get_mut(&partition) {
                            own.position = own.position.max(position);
                        }
                    }
                }
                // This instance has no partitions now.
                Ok(None) => std::thread::sleep(Duration::from_millis(20)),
                Err(Error::Interrupted) => return self.commit(),
                Err(Error::Reassigned) => {
                    self.commit()?;
                    return Err(Error::Reassigned);
                }
                Err(err) => return Err(err),
            }
            if let Some(transaction) = &self.transaction {
                transaction.poll();
            }
            if (!has_more || self.last_commit.elapsed() >= BEHIND) && self.is_due() {
                self.commit()?;
            }
            if self.transaction.is_none() {
                self.watch()?;
            }
        }
    }

    fn own(&self) -> Vec<i32> {
        self.followed.own.keys().copied().collect()
    }

    fn is_due(&self) -> bool {
        let waited = self.last_commit.elapsed();
        let interval = self.follow.commit_interval;
        match &self.transaction {
            Some(_) if self.watch.is_behind(&self.followed) => waited >= BEHIND.max(interval),
            Some(_) => waited >= interval,
            None => {
                let renews_after = self.watch.renews_after();
                let mut own = self.followed.own.values();
                waited >= MARKERS.max(interval) && own.any(|own| own.needs_commit(renews_after))
            }
        }
    }

    /// Copies one record.
    fn take(&mut self, message: &Message) -> Result<()> {
        let partition = message.partition();
        let Some(own) = self.followed.own.get(&partition) else { return Ok(()) };
        let (to, last, epoch) = (own.mark.to, own.mark.source.epoch, message.leader_epoch());
        // As in a fill: a topic that was made anew begins with epoch 0.
        if (0..last).contains(&epoch) {
            std::thread::sleep(LAG);
            self.checked.are_the_same(self.clusters)?;
        }
        // librdkafka would replace it with the time of the copy.
        if message.timestamp().0 == 0 && self.run.job.selection.rules.skip_invalid {
            self.pending += Counts { read: 1, invalid: 1, ..Counts::default() };
            self.run.told.example("timestamp 0", message);
        } else if message.timestamp().0 == 0 {
            self.commit()?;
            return Err(Error::failed(format!(
                "{}: its timestamp is 0, which no copy can have, and all before it is committed; leave out such records with \
                 --skip-invalid",
                describe(message)
            ))
            .because(Reason::InvalidRecords));
        } else {
            self.slow_down()?;
            self.write(message, to)?;
        }
        if let Some(own) = self.followed.own.get_mut(&partition) {
            own.position = message.next_position();
            own.mark.source = Checkpoint { offset: message.next_position(), epoch };
        }
        let is_full = self.transaction.as_ref().is_some_and(Transaction::is_full);
        if is_full || self.run.live.careful.is_some_and(|most| self.pending.written >= most) {
            self.commit()?;
        }
        Ok(())
    }

    fn write(&mut self, message: &Message, to: Option<Placement>) -> Result<()> {
        // A share without partitions has no producer, and reads nothing.
        let Some(producer) = self.producer else { return Ok(()) };
        let targets = self.checked.target.partitions;
        let partition = match (to, message.key()) {
            (Some(placement), Some(key)) => placement.partition(key, targets),
            // Without a key, the order within a partition of the source is all there is to keep.
            (Some(_), None) => id(index(message.partition()) % targets),
            (None, _) => message.partition(),
        };
        let transaction = match &mut self.transaction {
            Some(transaction) => transaction,
            none => none.insert(producer.begin()?),
        };
        let written_bytes = message.bytes() as u64;
        self.pending += Counts { read: 1, written: 1, written_bytes, followed: 1, ..Counts::default() };
        if let Err(err) = transaction.send(copy_of(message, partition), self.run.interrupt) {
            return Err(self.narrow(err, self.pending.written));
        }
        self.growth.sent(partition);
        if let Some(throttle) = &mut self.throttle {
            throttle.take(message.bytes(), Instant::now());
        }
        Ok(())
    }

    /// Waits as long as --max-rate demands. Meanwhile, commits the transaction when it is due.
    fn slow_down(&mut self) -> Result<()> {
        while let Some(pause) = self.throttle.as_ref().and_then(|throttle| throttle.wait(Instant::now())) {
            if self.run.interrupt.check().is_err() {
                return Ok(());
            }
            std::thread::sleep(pause);
            if self.is_due() {
                self.commit()?;
            }
            if self.transaction.is_none() {
                self.watch()?;
            }
        }
        Ok(())
    }

    /// Commits what was copied, with the positions that moved or whose last commit the group would soon forget.
    fn commit(&mut self) -> Result<()> {
        let renews_after = self.watch.renews_after();
        let needs_commit = |(_, own): &(&i32, &Own)| own.needs_commit(renews_after);
        let moved: BTreeSet<i32> = self.followed.own.iter().filter(needs_commit).map(|(p, _)| *p).collect();
        self.last_commit = Instant::now();
        let Some(producer) = self.producer.filter(|_| !moved.is_empty() || self.transaction.is_some()) else {
            return Ok(());
        };
        let transaction = match self.transaction.take() {
            Some(transaction) => transaction,
            None => producer.begin()?,
        };
        let counts = std::mem::take(&mut self.pending);
        let (checked, clusters) = (self.checked, self.clusters);
        let mut sent = None;
        let Followed { own, known, .. } = &mut self.followed;
        let mark = || {
            let marked = marked(own, *known, &moved, checked, clusters)?;
            sent = Some(marked.clone());
            Ok(marked)
        };
        match transaction.commit(&checked.ledger.topic, mark, &self.group) {
            Ok(()) => {
                let now = Instant::now();
                for (partition, own) in &mut self.followed.own {
                    if moved.contains(partition) {
                        (own.committed, own.renewed) = (Some(own.position), Some(now));
                    }
                    // While a slow target takes a commit, nothing can arrive.
                    own.seen.1 += self.last_commit.elapsed();
                }
                self.run.told.counts += counts;
                self.run.told.transactions += 1;
                if counts.written > 0 {
                    let most = self.run.live.careful.and_then(|most| most.checked_mul(2));
                    self.run.live.careful = most.filter(|most| *most < CARELESS);
                }
                self.growth.committed();
                self.watch.committed();
                Ok(())
            }
            Err(err) => {
                self.growth.forget();
                self.run.failed_commit(&err, sent, counts);
                Err(self.narrow(err, counts.written))
            }
        }
    }

    /// If the target refuses a record, nothing before it in its transaction is committed either. So the next start-up
    /// makes smaller transactions, until the record is alone in its own.
    fn narrow(&mut self, err: Error, records: u64) -> Error {
        match err {
            Error::Failed(why) if why.reason() == Some(Reason::RefusedRecords) && records > 1 => {
                self.run.live.careful = Some(records / 2);
                self.run.live.is_stale = true;
                Error::restart(format!("{why}; the run makes smaller transactions, to commit all before it"))
            }
            err => err,
        }
    }
}

/// From this size on, transactions are not made smaller any more.
const CARELESS: u64 = 1 << 20;

/// The positions of the partitions that `moved`, for a transaction whose records are in the log.
///
/// # Errors
/// [`Error::Failed`] if a topic was made anew, or a log of the target was cut since the last mark.
fn marked(
    own: &mut BTreeMap<i32, Own>,
    known: usize,
    moved: &BTreeSet<i32>,
    checked: &Preflight,
    clusters: &Clusters,
) -> Result<Vec<Position>> {
    // An interrupt must not end a commit on its way. The questions below are bounded.
    let interrupt = &Interrupt::default();
    checked.are_the_same(clusters)?;
    let (source, target) = (&checked.source, &checked.target);
    let now = clusters.target.watermarks(target)?;
    let mut positions = Vec::with_capacity(moved.len());
    for partition in moved {
        let Some(own) = own.get_mut(partition) else { continue };
        let mark = &mut own.mark;
        begin::check_target(mark, &now, clusters, target, interrupt)?;
        // Together, the marks of all partitions of the source name each partition of the target that takes copies.
        let (first, last) = match mark.to {
            None => (index(*partition), index(*partition) + 1),
            Some(_) => (index(*partition), target.partitions),
        };
        let ends = now.iter().enumerate().take(last).skip(first).step_by(source.partitions);
        let end =
            |(fed, now): (usize, &Watermarks)| (id(fed), Checkpoint { offset: now.high, epoch: now.epoch });
        mark.target = ends.map(end).collect();
        mark.partitions = known;
        mark.shorten();
        if failpoint::breaks(Rule::FollowPosition) {
            mark.source.offset = (mark.source.offset - 5).max(mark.joint);
        }
        let metadata = mark.to_string();
        invariant::a_mark_reads_back(mark, || FollowMark::parse(&metadata));
        positions.push(Position { partition: *partition, position: own.position, metadata });
    }
    Ok(positions)
}
