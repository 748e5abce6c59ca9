//! The main job, as one loop: the start-up order is the proof that a run is exactly once.

pub(crate) mod consequences;
pub mod metrics;
pub(crate) mod preflight;
pub(crate) mod receipt;

mod begin;
mod close;
mod copy;
mod marks;
mod placement;
mod reading;
mod refuse;
mod scan;
mod share;
mod tell;

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rdkafka::consumer::Consumer;

use self::begin::fingerprint;
use self::copy::Copying;
use self::marks::Marking;
use self::share::Joined;
use self::tell::Told;
use crate::base::error::{Error, Result};
use crate::base::failpoint;
use crate::base::interrupt::Interrupt;
use crate::base::invariant;
use crate::base::progress::Progress;
use crate::base::range::Range;
use crate::fill::consequences::Foresight;
use crate::fill::metrics::Phase;
use crate::fill::preflight::Preflight;
use crate::fill::receipt::{Counts, Receipt};
use crate::job::identity::{Fingers, Identity};
use crate::job::rate::Throttle;
use crate::job::resolve;
use crate::job::window::{Edges, Window};
use crate::job::{Job, Mode, TargetScan};
use crate::judge::Look;
use crate::judge::elsewhen::SecondLook;
use crate::kafka::cluster::Cluster;
use crate::kafka::mark::Trusted;
use crate::kafka::member::{Member, Share};
use crate::kafka::offsets;
use crate::kafka::pace::Pace;
use crate::kafka::producer::{Position, Producer};
use crate::kafka::restart::{self, Restarts, StartUp};
use crate::kafka::topic::Topic;
use crate::kafka::watermarks::{Watermarks, ends};

/// Fills the window. The receipt tells what was done also where the run failed.
///
/// # Errors
/// As the exit codes of the README; never [`Error::Restart`].
pub fn fill(job: &Job, mode: Mode, progress: Progress, interrupt: &Interrupt) -> (Receipt, Result<()>) {
    let started = Instant::now();
    let fingers = match Fingers::new() {
        Ok(fingers) => fingers,
        Err(err) => return (Receipt::default(), Err(err)),
    };
    let mut run = Run::new(job, mode, progress, interrupt, fingers);
    let result = match run.until_done() {
        Err(Error::Restart { why, .. }) => Err(Error::failed(why)),
        result => result,
    };
    if let Some(warning) = run.told.other_days.warning() {
        run.told.warn(warning);
    }
    let mut receipt = run.receipt();
    run.publish(run.told.counts);
    receipt.complete = result.is_ok() && !run.is_stopped;
    receipt.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    (receipt, result)
}

/// What steers a run, from one start-up to the next.
struct Run<'a> {
    job: &'a Job,
    mode: Mode,
    progress: Progress,
    interrupt: &'a Interrupt,
    fingers: Fingers,
    restarts: Restarts,
    pace: Rc<Pace>,
    /// The transaction whose commit got no answer. The next start-up finds out whether it was committed.
    in_doubt: Option<InDoubt>,
    /// The target as the first scan found it. Any other record must be ours in the end.
    first: Option<FirstScan>,
    /// A record of the window may stand in the target under another time. The run decides that before it writes.
    is_suspicious: bool,
    second: Option<SecondLook>,
    /// Only in a plan.
    foresight: Option<Foresight<'a>>,
    /// What we added to each partition of the target.
    written: Vec<Written>,
    /// The partitions for which this run committed positions.
    advanced: BTreeSet<i32>,
    /// `--limit` ended the run before the window's end.
    is_stopped: bool,
    /// Only with `--scale-out`, as `joined`.
    member: Option<Member>,
    joined: Joined,
    told: Told,
}

/// The start-ups of a run, all for the same two topics.
struct StartUps<'r, 'a> {
    run: &'r mut Run<'a>,
    topics: (Topic, Topic),
    /// The first start-up that gets so far prepares the run for all.
    prepared: Option<(Preflight, Window)>,
}

struct InDoubt {
    positions: Vec<Position>,
    counts: Counts,
}

struct FirstScan {
    /// Where the scan began, and where the target ended.
    ranges: Vec<Range>,
    /// The offset of the first record that was compared, in each partition.
    firsts: Vec<i64>,
    /// Where the window began in the source.
    source_starts: Vec<i64>,
}

/// Where the start-up found both topics.
struct Snapshot {
    source: Vec<Watermarks>,
    target: Vec<Watermarks>,
}

impl<'a> Run<'a> {
    fn new(
        job: &'a Job,
        mode: Mode,
        progress: Progress,
        interrupt: &'a Interrupt,
        fingers: Fingers,
    ) -> Run<'a> {
        Run {
            job,
            mode,
            progress,
            interrupt,
            fingers,
            restarts: Restarts::new(job.selection.patience),
            pace: Rc::new(Pace::new(job.limits)),
            in_doubt: None,
            first: None,
            is_suspicious: false,
            second: None,
            foresight: None,
            written: Vec::new(),
            advanced: BTreeSet::new(),
            is_stopped: false,
            member: None,
            joined: Joined::default(),
            told: Told::default(),
        }
    }

    fn connect(&self) -> Result<Cluster> {
        let selection = &self.job.selection;
        Cluster::connect(&selection.properties, &selection.name())
    }

    fn until_done(&mut self) -> Result<()> {
        let cluster = self.connect()?;
        let selection = &self.job.selection;
        // Not in a start-up: that would try for minutes to reach a cluster that never answered.
        let topics = resolve::topics(&cluster, &selection.source, &selection.target)?;
        let interrupt = self.interrupt;
        restart::until_done(&mut StartUps { run: self, topics, prepared: None }, cluster, interrupt)
    }

    fn prepare(
        &mut self,
        cluster: &Cluster,
        (source, target): &(Topic, Topic),
    ) -> Result<(Preflight, Window)> {
        let window = resolve::window(cluster, &self.job.selection, source, self.interrupt);
        let window = window.map(|resolved| {
            self.told.window = Some(resolved.window);
            tracing::info!("window {} of {}", Edges::from(resolved.window), source.name);
            self.told.other_days = resolved.other_days;
            resolved.warning.into_iter().for_each(|warning| self.told.warn(warning));
            resolved.window
        });
        let (source, target) = (source.clone(), target.clone());
        let (checked, window) = preflight::check(cluster, self.job, source, target, self.mode, window)?;
        for warning in &checked.warnings {
            self.told.warn(warning.clone());
        }
        self.written = vec![Written::default(); checked.target.partitions];
        self.foresee_deletion(&checked, window)?;
        Ok((checked, window))
    }

    /// One start-up and all that follows. Its order is the proof; each step says why it stands there.
    fn attempt(
        &mut self,
        cluster: &Cluster,
        checked: &Preflight,
        window: Window,
        share: Option<&Share>,
    ) -> Result<()> {
        let (job, name) = (self.job, self.job.selection.name());
        let (source, target) = (&checked.source, &checked.target);

        invariant::nothing_is_left(Rc::strong_count(&self.pace));
        failpoint::instant("before-init");
        metrics::phase(Phase::Init);
        // 1. Nobody else with this job's transactional id can commit from here on, and nothing of a dead
        //    run is left open: what follows sees all that any earlier run did.
        let mut producer = None;
        if self.mode == Mode::Fill {
            let properties = &job.selection.properties;
            let patience = job.selection.patience;
            let batch_bytes = checked.batch_bytes;
            for id in share::transactional_ids(&name, share) {
                self.interrupt.check()?;
                producer = Some(Producer::init(
                    properties,
                    &id,
                    &source.name,
                    &target.name,
                    batch_bytes,
                    patience,
                    &self.pace,
                )?);
            }
        }
        // Before anything is looked up: members that are gone by now can have nothing accepted any more, and one
        // that comes fences us.
        if share.is_none() && self.mode == Mode::Fill {
            // Who may not have the group, or has no coordinator yet, is told by this; a commit would only wait.
            offsets::committed(cluster, source, self.interrupt)?;
            if cluster.has_members(target)? {
                return Err(share::members_at_work());
            }
        }
        failpoint::instant("after-init");
        tracing::debug!("initialised");

        // 2. Where the last committed transaction of this job left off.
        let mut committed = match self.mode {
            Mode::Fill => offsets::committed(cluster, source, self.interrupt)?,
            Mode::Plan => vec![None; source.partitions],
        };
        failpoint::instant("after-committed");
        tracing::debug!("asked for the committed offsets");

        // 3. The ends, before anything is read: what the promise covers.
        //    The target's first: a copy comes after its original, so no copy below the target's end is of a record above
        //    the source's, which an equal one that is missing below would be taken for.
        let target_watermarks = cluster.watermarks(target)?;
        tracing::debug!("took the target's ends");
        failpoint::instant("between-the-ends");
        let mut snapshot = Snapshot { source: cluster.watermarks(source)?, target: target_watermarks };
        let source_ends = match share {
            Some(share) => self.ends_of(share, &snapshot.source),
            None => ends(&snapshot.source),
        };
        let target_ends = ends(&snapshot.target);
        failpoint::instant("after-snapshot");
        tracing::debug!("took the ends");

        // 4. Where to begin.
        let fingerprint = fingerprint(job, checked, window);
        self.settle_doubt(&mut committed);
        let mut trusted = Trusted::of(&fingerprint, &committed, &snapshot.source, &snapshot.target);
        self.check_ends(&snapshot.source, &committed, &fingerprint)?;
        let starts = self.starts(cluster, checked, window, &trusted, &snapshot)?;
        let mut marking =
            Marking::new(cluster, target, &fingerprint, &snapshot, share.map(|share| &share.partitions));
        // Else, or of a share, the window may hold what is not looked at again.
        let is_anew = share.is_none() && !committed.iter().flatten().any(|c| fingerprint.is_of(&c.metadata));
        let mut ranges = Range::all(&starts, &source_ends);
        let all = ranges.clone();
        // What came since is not read by anybody.
        for (watermarks, end) in snapshot.source.iter_mut().zip(&source_ends) {
            watermarks.high = *end;
        }
        if let Some(share) = share {
            ranges.retain(|range| share.partitions.contains(&range.partition));
            self.claim(producer.as_ref(), &ranges, &mut trusted, &marking, &share.group)?;
        }

        metrics::phase(Phase::Wait);
        // 5. Below the ends all is decided: no record can still appear behind our back.
        cluster.wait_until_stable(target, &target_ends, job.selection.patience, self.interrupt)?;
        cluster.wait_until_stable(source, &source_ends, job.selection.patience, self.interrupt)?;
        failpoint::instant("after-wait");
        tracing::debug!("all below the ends is decided");

        if self.mode == Mode::Plan {
            self.foresight = Some(Foresight::new(job, window, target.partitions)?);
        }

        // 6. If nothing is left to read, what was committed is readable, and this is the end.
        if ranges.iter().all(|range| trusted.is_done(range)) {
            if is_anew || trusted.done().is_some_and(|done| done.in_window == 0) {
                self.warn_of_nothing(cluster, source, window);
            }
            self.foresee(cluster, checked, &snapshot)?;
            self.close(cluster, checked, window, &snapshot.target)?;
            self.wait_for_others(cluster, checked, &fingerprint, &ranges, &all)?;
            self.told.done_before = trusted.done().filter(|_| self.told.transactions == 0);
            return Ok(());
        }

        // 7. What the target holds already, then the copy.
        metrics::phase(Phase::Scan);
        metrics::ends(ranges.iter().map(|range| (range.partition, range.end)));
        let keeps_partitions = source.partitions == target.partitions;
        let look = Look::new(self.fingers.clone(), &job.selection, window, keeps_partitions);
        let mut scanned = self.scan_target(cluster, checked, window, &snapshot, &look)?;
        marking.scanned(scanned.firsts.clone(), &trusted);
        invariant::ends_never_move(&all, &source_ends);
        invariant::ends_never_move(&scanned.ranges, &target_ends);
        let (ranges_read, firsts) = (scanned.ranges.clone(), scanned.firsts.clone());
        let source_starts = if job.selection.rules.target_scan == TargetScan::All {
            snapshot.source.iter().map(|watermarks| watermarks.low).collect()
        } else {
            all.iter().map(|range| range.start).collect()
        };
        self.first.get_or_insert(FirstScan { ranges: ranges_read, firsts, source_starts });
        self.look_again(cluster, checked, &look, &scanned, &ranges)?;
        failpoint::instant("after-scan");
        tracing::debug!("scanned the target");
        let group = match share {
            Some(share) => share.group.clone(),
            None => cluster
                .committed
                .group_metadata()
                .map(Arc::new)
                .ok_or_else(|| Error::failed("the client has no group metadata".to_owned()))?,
        };
        let placement = match share {
            // By record, equal ones of two partitions are two, wherever they belong.
            Some(_) if job.selection.rules.identity == Identity::Record && keeps_partitions => None,
            Some(_) if job.selection.rules.identity == Identity::Record => {
                return Err(share::equal_in_two_places());
            }
            Some(_) => Some(self.source_placement(cluster, source, window, &snapshot.source)?),
            None => None,
        };
        let target_placement = self.target_placement(cluster, checked, &snapshot)?;
        metrics::phase(Phase::Copy);
        self.told.unfit.clear();
        // Not before the ends were taken: no record below them is later than this clock by the time that passed.
        let limits = checked.limits.at(chrono::Utc::now().timestamp_millis());
        let mut copy = Copying {
            run: self,
            look: &look,
            source_partitions: source.partitions,
            target_partitions: target.partitions,
            target_placement,
            judge: &mut scanned.judge,
            outside: scanned.outside.as_ref(),
            limits: &limits,
            producer: producer.as_ref(),
            transaction: None,
            marking: &marking,
            group: group.clone(),
            committed: Vec::new(),
            pending: Counts::default(),
            blocked: false,
            throttle: job.max_rate.map(|rate| Throttle::new(rate, Instant::now())),
            source_placement: placement,
        };
        let result = copy.all(&ranges);
        let is_blocked = copy.blocked;
        let is_judged = result.is_ok() && !self.is_stopped;
        let doubles = scanned.judge.duplicates_in_target(is_judged);
        self.told.duplicates_in_target = doubles + self.told.copies_at_other_times;
        result?;
        if is_blocked {
            return Err(self.blocked(&limits));
        }
        if is_anew {
            self.warn_of_nothing(cluster, source, window);
        }
        if self.is_stopped {
            let limit = job.limit.unwrap_or_default();
            self.told.warn(format!(
                "stopped after {limit} records, as --limit says; the same command without it goes on"
            ));
        }
        if self.mode == Mode::Plan {
            return self.foresee(cluster, checked, &snapshot);
        }

        // What is looked at from here on has a table of its own.
        drop(scanned);
        // 8. Readable, and by nobody's doing doubled or deleted.
        failpoint::instant("after-copy");
        metrics::phase(Phase::Close);
        tracing::debug!("copied");
        self.close(cluster, checked, window, &snapshot.target)?;
        failpoint::instant("after-close");
        tracing::debug!("looked at the end");

        if self.is_stopped {
            return Ok(());
        }
        // 9. Later runs skip what this run has looked at; one after a run that died before this looks first.
        let closed: Vec<(i32, i64)> =
            ranges.iter().map(|range| (range.partition, range.end.max(range.start))).collect();
        if let Some(producer) = &producer {
            let counts = self.told.counts;
            copy::commit_positions(producer, job, || marking.closed(&closed, counts), &group)?;
        }
        // Done by now, by this run or by other instances.
        self.wait_for_others(cluster, checked, &fingerprint, &ranges, &all)
    }
}

impl StartUp for StartUps<'_, '_> {
    fn connect(&self) -> Result<Cluster> {
        self.run.connect()
    }

    fn attempt(&mut self, cluster: &Cluster) -> Result<()> {
        loop {
            let run = &mut *self.run;
            let (checked, window) = match &self.prepared {
                Some(prepared) => prepared,
                None => self.prepared.insert(run.prepare(cluster, &self.topics)?),
            };
            let result = if run.job.scale_out {
                run.attempt_share(cluster, checked, *window)
            } else {
                run.attempt(cluster, checked, *window, None)
            };
            match result {
                Err(Error::Reassigned) => {}
                Err(Error::LookAgain) => {
                    run.is_suspicious = true;
                    if run.told.transactions == 0 {
                        (run.told.counts, run.told.examples) = (Counts::default(), Vec::new());
                    }
                }
                result => return result,
            }
        }
    }

    fn progress(&self) -> u64 {
        self.run.told.transactions
    }

    fn has_written(&self) -> bool {
        let run = &self.run;
        run.mode == Mode::Fill && (run.told.counts.written > 0 || run.in_doubt.is_some())
    }

    fn restarts(&mut self) -> &mut Restarts {
        &mut self.run.restarts
    }
}

/// What we added to a partition of the target.
#[derive(Clone, Copy, Default)]
struct Written {
    records: i64,
    /// Each committed transaction leaves one marker where it wrote.
    markers: i64,
    in_transaction: bool,
}

impl Written {
    fn offsets(self) -> i64 {
        self.records + self.markers
    }
}
