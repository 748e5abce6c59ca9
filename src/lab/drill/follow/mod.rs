//! One round of `--follow`. Writers commit and abort transactions in the source all the time, instances copy them, and a
//! schedule of faults happens to the instances and to their clusters. Then both topics are compared.

mod copier;
mod plan;
mod verdict;
mod writers;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

pub(super) use self::plan::{Plan, scenarios, unfit};
pub(super) use self::verdict::may_end;

use self::copier::STANDS_STILL;
use self::plan::{PATIENCE, SESSION};
use self::writers::{Writers, Wrote};
use super::groups;
use super::report::{Following, Round};
use super::round::{Play, set_up};
use super::run::{Kind, Run};
use super::schedule::{Act, Moment, Sides};
use super::stage::Stage;
use super::tail::Tail;
use crate::base::error::Result;
use crate::kafka::sides::Side;

/// How long the instances may take to reach a joint, or to copy everything after the last fault. A round writes at most a
/// few hundred records per second, so this is long.
const DEADLINE: Duration = Duration::from_secs(120);
/// How often to look at positions and partitions.
const LOOK: Duration = Duration::from_millis(500);
/// How long after its end a copier is started again, in milliseconds. One that fails at once would use all time up.
const RESTART: u64 = 500;

/// A round in play.
struct Live<'s, 'a> {
    play: Play<'s, 'a>,
    plan: &'s Plan,
    writers: Option<Writers>,
    wrote: Wrote,
    /// Frozen instances that others replace, and when they wake.
    frozen: Vec<(Instant, Run)>,
    /// The readers of the target. Each reads as many partitions as the target had when it started.
    tails: Vec<Tail>,
    looked: Instant,
    /// After the last fault, one instance is enough.
    is_calm: bool,
}

/// Plays `plan` in new topics, and deletes them if everything went well. The instances are those of this program, or of
/// somebody else's copier: its program and arguments.
///
/// # Errors
/// [`Error::Failed`](crate::base::error::Error::Failed) if the drill itself fails. The round tells what the program did
/// wrong.
pub(super) fn play(stage: &mut Stage<'_>, plan: &Plan, copier: &[String]) -> Result<Round> {
    let mut play = set_up(stage, &plan.schedule)?;
    play.job.kind = match copier {
        [] => Kind::Follow(options(plan)),
        words => {
            // Nobody here knows where it keeps its positions.
            play.watch = None;
            Kind::Copier(words.to_vec())
        }
    };
    play.round.follow = Some(Following { instances: plan.schedule.instances, ..Following::default() });
    let tails = play.tail.take();
    let mut live = Live {
        plan,
        writers: None,
        wrote: Wrote::default(),
        frozen: Vec::new(),
        tails: tails.into_iter().collect(),
        looked: Instant::now(),
        is_calm: false,
        play,
    };
    live.all()?;
    live.verdict()
}

/// The options of each instance.
fn options(plan: &Plan) -> Vec<String> {
    let protocol = match plan.is_kip_848 {
        true => "group.protocol=consumer".to_owned(),
        false => format!("session.timeout.ms={SESSION}"),
    };
    let mut options =
        ["-v", "--patience", &PATIENCE.to_string(), "-X", &protocol].map(str::to_owned).to_vec();
    if plan.schedule.by_count {
        options.push("--create-partitions".to_owned());
    }
    options
}

impl Live<'_, '_> {
    fn all(&mut self) -> Result<()> {
        let schedule = &self.plan.schedule;
        let what = match self.is_copier() {
            true => String::new(),
            false => format!(
                ", {}, {} protocol",
                if schedule.by_count { "--identity record" } else { "--identity key" },
                if self.plan.is_kip_848 { "consumer" } else { "classic" }
            ),
        };
        self.play.note(format!("instances: {}, writers: {}{what}", schedule.instances, self.plan.writers));
        if !schedule.by_count {
            self.play.ready()?;
            self.until_joined()?;
        }
        self.writers = Some(Writers::start(
            self.plan.writers,
            self.play.stage.topics(Side::Source),
            &self.play.job.source,
            schedule.shape,
            schedule.seed,
        ));
        if schedule.by_count && self.plan.begins_level && !self.is_copier() {
            self.play.ready()?;
            self.until_joined()?;
        }
        for step in &schedule.steps {
            self.play.ready()?;
            self.wait_for(step.moment)?;
            self.play.ready()?;
            self.play.round.faults += 1;
            self.act(&step.act, step.sides)?;
            self.look()?;
            self.play.audit_members()?;
        }
        self.calm_down()
    }

    fn act(&mut self, act: &Act, sides: Sides) -> Result<()> {
        match act {
            Act::Freeze { millis } => {
                self.follow(|follow| follow.freezes += 1);
                let is_replaced = *millis > SESSION && self.play.round.faults.is_multiple_of(2);
                if !is_replaced {
                    return self.play.act(act, sides);
                }
                let Some(run) = self.play.victim() else { return Ok(()) };
                run.signal(Signal::SIGSTOP);
                self.play.note(format!(
                    "SIGSTOP of run {} for {millis} ms, while another replaces it",
                    run.number
                ));
                self.frozen.push((Instant::now() + Duration::from_millis(*millis), run));
                Ok(())
            }
            Act::Grow { .. } => self.grow(),
            act => self.play.act(act, sides),
        }
    }

    fn follow(&mut self, count: impl Fn(&mut Following)) {
        self.play.round.follow.iter_mut().for_each(count);
    }

    /// Gives the source a partition more. The instances then widen the target.
    fn grow(&mut self) -> Result<()> {
        // Before the joint, a fill would refuse different numbers of partitions.
        self.until_joined()?;
        let play = &mut self.play;
        play.shape.source_partitions += 1;
        play.shape.target_partitions += 1;
        let partitions = play.shape.source_partitions;
        if let Some(watch) = &play.watch {
            watch.widen(partitions, play.shape.target_partitions);
        }
        play.stage.topics(Side::Source).grow(&play.job.source, partitions)?;
        play.round.count(Side::Source, |suffered| suffered.topics += 1);
        play.note(format!("the source has {partitions} partitions now"));
        self.follow(|follow| follow.grown += 1);
        if let Some(writers) = &self.writers {
            writers.widen(partitions);
        }
        Ok(())
    }

    /// Notices instances that have ended by themselves, wakes frozen ones, and watches new partitions of the target.
    fn look(&mut self) -> Result<()> {
        self.play.stage.interrupt.check()?;
        for (until, run) in std::mem::take(&mut self.frozen) {
            if Instant::now() < until {
                self.frozen.push((until, run));
                continue;
            }
            self.wake(run);
        }
        self.play.look()?;
        if self.looked.elapsed() < LOOK {
            return Ok(());
        }
        self.looked = Instant::now();
        let (play, wanted) = (&self.play, self.play.shape.target_partitions);
        if self.tails.iter().all(|tail| tail.partitions() < wanted) {
            let (topics, target) = (play.stage.topics(Side::Target), &play.job.target);
            // A broker may be away.
            if topics.leaders(target).is_ok_and(|leaders| leaders.len() == wanted) {
                self.tails.push(Tail::start(topics, target, wanted)?);
                self.play.note(format!("the target has {wanted} partitions now"));
            }
        }
        Ok(())
    }

    fn wake(&mut self, run: Run) {
        run.signal(Signal::SIGCONT);
        self.play.note(format!("SIGCONT of run {}", run.number));
        self.play.runs.push(run);
    }

    /// Waits until `condition` holds. Returns whether it came in time.
    fn until(&mut self, condition: impl FnMut(&mut Self) -> bool) -> Result<bool> {
        self.until_within(DEADLINE, condition)
    }

    fn until_within(
        &mut self,
        limit: Duration,
        mut condition: impl FnMut(&mut Self) -> bool,
    ) -> Result<bool> {
        let begun = Instant::now();
        while !condition(self) {
            if begun.elapsed() > limit {
                return Ok(false);
            }
            self.look()?;
            if !self.is_calm || self.play.runs.is_empty() {
                if self.is_copier() && self.play.runs.is_empty() {
                    self.play.pause(RESTART)?;
                }
                self.play.ready()?;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(true)
    }

    fn wait_for(&mut self, moment: Moment) -> Result<()> {
        let seen = |live: &Self| live.tails.first().map_or(0, Tail::seen);
        let (begun, before) = (Instant::now(), seen(self));
        let limit = if self.is_copier() { STANDS_STILL } else { DEADLINE };
        let came = self.until_within(limit, |live| match moment {
            Moment::Millis(millis) => begun.elapsed() >= Duration::from_millis(millis),
            Moment::Records(records) => seen(live).saturating_sub(before) >= records,
        })?;
        match (came, self.is_copier()) {
            (true, _) => {}
            (false, true) => self.revive()?,
            (false, false) => {
                self.play.wrong(format!("no record became readable in {} s", limit.as_secs()));
            }
        }
        Ok(())
    }

    /// Waits until each partition of the source has a mark of a follow.
    fn until_joined(&mut self) -> Result<()> {
        let partitions = self.plan.schedule.shape.source_partitions;
        let is_joined = |position: &Option<(i64, String)>| {
            position.as_ref().is_some_and(|(_, metadata)| metadata.contains(" follow "))
        };
        let came = self.until_looked(|live| {
            // A coordinator may be away.
            live.positions().is_ok_and(|found| found.iter().take(partitions).all(is_joined))
        })?;
        if !came {
            self.play.wrong(format!("no joint in {} s", DEADLINE.as_secs()));
        }
        Ok(())
    }

    /// As [`Live::until`], for a condition that asks brokers.
    fn until_looked(&mut self, mut condition: impl FnMut(&mut Self) -> bool) -> Result<bool> {
        let mut asked: Option<Instant> = None;
        self.until(|live| {
            if asked.is_some_and(|asked| asked.elapsed() < LOOK) {
                return false;
            }
            let holds = condition(live);
            asked = Some(Instant::now());
            holds
        })
    }

    /// The positions of the job, with their metadata, for each partition of the source.
    fn positions(&self) -> Result<Vec<Option<(i64, String)>>> {
        let play = &self.play;
        let (source, target, partitions) = (&play.job.source, &play.job.target, play.shape.source_partitions);
        let topics = play.stage.topics(Side::Target);
        match groups::place(topics, source, target, play.stage.are_two())? {
            Some((group, topic)) => groups::positions(topics, &group, &topic, partitions),
            None => Ok(vec![None; partitions]),
        }
    }

    /// Stops the writers, gives one instance the time to copy everything, and stops it.
    fn calm_down(&mut self) -> Result<()> {
        if let Some(writers) = &mut self.writers {
            match writers.stop() {
                Ok(wrote) => self.wrote = wrote,
                Err(err) => self.play.wrong(err.to_string()),
            }
        }
        self.play.note(format!("the writers stop: {:?}", self.wrote));
        for (_, run) in std::mem::take(&mut self.frozen) {
            self.wake(run);
        }
        self.is_calm = true;
        while self.play.runs.len() > 1 {
            self.stop_one()?;
        }
        let came = match self.is_copier() {
            true => self.until_copied()?,
            false => self.until_level()?,
        };
        if came {
            self.play.note("all is copied".to_owned());
        } else if self.is_copier() {
            self.play.note("not everything is copied, and nothing comes any more".to_owned());
        } else {
            let (seconds, stands) = (DEADLINE.as_secs(), (self.positions(), self.source_ends()));
            self.play.wrong(format!("not everything is copied in {seconds} s: {stands:?}"));
        }
        while !self.play.runs.is_empty() {
            let stderr = self.stop_one()?;
            if !came && !self.is_copier() {
                self.play.wrong(format!("the instance that did not copy everything said\n{stderr}"));
            }
        }
        Ok(())
    }

    /// Waits until the positions are at the source's ends, and nothing comes any more.
    fn until_level(&mut self) -> Result<bool> {
        let mut ends_before = Vec::new();
        self.until_looked(|live| match live.ends() {
            Ok(ends) => {
                let is_level = ends.is_level && ends.target == ends_before;
                ends_before = ends.target;
                is_level
            }
            Err(_) => false,
        })
    }

    /// Ends an instance as an operator does. Returns its log.
    fn stop_one(&mut self) -> Result<String> {
        let Some(mut run) = self.play.runs.pop() else { return Ok(String::new()) };
        run.suffered.terminated = true;
        run.signal(Signal::SIGTERM);
        self.play.note(format!("SIGTERM to run {}", run.number));
        Ok(self.play.end_of(run)?.map_or(String::new(), |ended| ended.stderr))
    }

    fn source_ends(&self) -> Result<Vec<i64>> {
        let Play { stage, job, shape, .. } = &self.play;
        stage.topics(Side::Source).ends(&job.source, shape.source_partitions, "read_uncommitted")
    }

    fn ends(&self) -> Result<Ends> {
        let Play { stage, job, shape, .. } = &self.play;
        let (source, positions) = (self.source_ends()?, self.positions()?);
        let ends =
            |isolation| stage.topics(Side::Target).ends(&job.target, shape.target_partitions, isolation);
        let (stable, target) = (ends("read_committed")?, ends("read_uncommitted")?);
        let has_reached = |(end, position): (&i64, &Option<(i64, String)>)| {
            position.as_ref().is_some_and(|(position, _)| position >= end)
        };
        let is_level = stable == target && source.iter().zip(&positions).all(has_reached);
        Ok(Ends { target, is_level })
    }
}

/// How far the job is.
struct Ends {
    /// The ends of the target's partitions.
    target: Vec<i64>,
    /// Whether the positions are at the source's ends, and no transaction is open in the target.
    is_level: bool,
}
