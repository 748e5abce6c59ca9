//! Faults of the runs, of the brokers, and of the network between them.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{HANGS, Play};
use crate::base::error::{Error, Result};
use crate::base::range::id;
use crate::kafka::sides::Side;
use crate::lab::drill::groups;
use crate::lab::drill::proxy::{END_TXN, Proxy, Weather};
use crate::lab::drill::run::Run;
use crate::lab::drill::schedule::{Act, Sides, Which};
use crate::lab::drill::topics::coordinating_partition;
use crate::lab::drill::wire;

/// The topic in which the coordinators keep all transactions.
const TRANSACTIONS: &str = "__transaction_state";
/// How long a broker may take to end once its disk is full.
const GIVES_UP: Duration = Duration::from_secs(30);
/// How long a run that has records to copy may take to write some.
const WRITES: Duration = Duration::from_secs(2);
/// How long a broker that was stalled may not have heard of its successors.
const AWAKENING: Duration = Duration::from_secs(5);

impl Play<'_, '_> {
    pub(in crate::lab::drill) fn act(&mut self, act: &Act, sides: Sides) -> Result<()> {
        match act {
            Act::Kill => self.kill(),
            Act::Terminate | Act::Leave => self.terminate(),
            Act::Freeze { millis } => self.freeze(*millis),
            Act::Broker { which, hard, millis, run_too } => {
                self.bounce(sides.each(), *which, *hard, *millis, *run_too)
            }
            Act::Rolling => {
                for side in sides.each() {
                    for broker in 0..self.stage.of(*side).sandbox.brokers() {
                        self.bounce(&[*side], Which::Number(broker), false, 0, false)?;
                    }
                }
                Ok(())
            }
            Act::Stall { which, millis } => self.stall(sides.each(), *which, *millis),
            Act::Apart { which, millis } => self.part(sides.each(), *which, *millis),
            Act::Disk { which, bytes, millis } => self.fill_disk(sides.each(), *which, *bytes, *millis),
            Act::Clock { which, seconds, millis } => self.set_clock(sides.each(), *which, *seconds, *millis),
            Act::Unclean { turn } => self.elect_unclean(*turn),
            Act::Version { which } => self.change_version(sides.first(), *which),
            Act::Reassign { turn, replicas } => self.reassign(sides.first(), *turn, *replicas),
            Act::Cut => {
                self.trouble();
                for side in sides.each() {
                    self.round.count(*side, |suffered| suffered.network += 1);
                    self.note(format!("all connections{} cut", self.of_cluster(*side)));
                }
                self.stage.proxies(sides.each()).for_each(Proxy::cut);
                Ok(())
            }
            Act::Slow { delay_millis, millis } => {
                let delay = Duration::from_millis(*delay_millis);
                let what = format!("{delay_millis} ms each way");
                self.weather(sides, Weather { delay, ..Weather::default() }, &what, *millis)
            }
            Act::Silent { requests, responses, millis, then_cut } => {
                let what = match (requests, responses) {
                    (true, true) => "nothing passes",
                    (true, false) => "no request arrives",
                    _ => "no response arrives",
                };
                let (requests_held, responses_held) = (*requests, *responses);
                let weather = Weather { requests_held, responses_held, ..Weather::default() };
                self.weather(sides, weather, what, *millis)?;
                if *then_cut {
                    self.stage.proxies(sides.each()).for_each(Proxy::cut);
                    self.note("then all these connections are cut".to_owned());
                }
                Ok(())
            }
            Act::LateCommit { millis } => self.late_commit(*millis),
            Act::Rival => self.rival(),
            Act::Foreign { records, millis, commits } => {
                self.foreign(sides.first(), *records, *millis, *commits)
            }
            Act::Append { records } => self.append(*records),
            Act::Forget => self.forget(),
            Act::Anew { percent } => self.make_anew(sides.first(), *percent),
            Act::Ledger => self.delete_ledger(),
            Act::Trim { percent } => self.trim(*percent),
            Act::Grow { millis } => self.grow(sides.first(), *millis),
            Act::Mirror { records } => self.mirror(*records),
        }
    }

    /// The run that a fault hits, if there is one: the instances take turns.
    pub(in crate::lab::drill) fn victim(&mut self) -> Option<Run> {
        let turn = self.round.faults.checked_rem(self.runs.len())?;
        Some(self.runs.swap_remove(turn))
    }

    /// Kills one run; sometimes all instances.
    pub(super) fn kill(&mut self) -> Result<()> {
        let is_all = self.runs.len() > 1 && self.round.faults.is_multiple_of(4);
        let victims =
            if is_all { std::mem::take(&mut self.runs) } else { self.victim().into_iter().collect() };
        for mut run in victims {
            run.suffered.killed = true;
            run.signal(Signal::SIGKILL);
            self.round.kills += 1;
            self.note("kill -9".to_owned());
            self.end_of(run)?;
        }
        Ok(())
    }

    fn terminate(&mut self) -> Result<()> {
        let Some(mut run) = self.victim() else { return Ok(()) };
        run.suffered.terminated = true;
        run.signal(Signal::SIGTERM);
        self.note("SIGTERM".to_owned());
        self.end_of(run).map(drop)
    }

    fn freeze(&mut self, millis: u64) -> Result<()> {
        let Some(run) = self.victim() else { return Ok(()) };
        run.signal(Signal::SIGSTOP);
        self.note(format!("SIGSTOP for {millis} ms"));
        let paused = self.pause(millis);
        run.signal(Signal::SIGCONT);
        self.runs.push(run);
        paused
    }

    /// Ends a broker of each side, and starts it again.
    fn bounce(&mut self, sides: &[Side], which: Which, hard: bool, millis: u64, run_too: bool) -> Result<()> {
        let mut down = Vec::new();
        for side in sides {
            let (broker, role) = self.broker(*side, which)?;
            self.trouble();
            self.round.bounces += 1;
            self.round.count(*side, |suffered| match hard {
                true => suffered.brokers_killed += 1,
                false => suffered.brokers_stopped += 1,
            });
            let how = if hard { "killed" } else { "stopped" };
            self.note(format!("broker {broker}{role}{} {how}", self.of_cluster(*side)));
            let sandbox = &mut self.stage.of_mut(*side).sandbox;
            if hard { sandbox.kill(broker) } else { sandbox.stop(broker) }.map_err(broken)?;
            down.push((*side, broker));
        }
        if run_too {
            self.kill()?;
            self.ready()?;
        }
        self.pause(millis)?;
        for (side, broker) in down {
            self.stage.of_mut(side).sandbox.restart(broker).map_err(broken)?;
            self.note(format!("broker {broker}{} is back", self.of_cluster(side)));
        }
        self.trouble();
        Ok(())
    }

    /// Fills the disk of a broker of each side. A write that fails, perhaps in the middle of a batch, makes Kafka give up the disk,
    /// and end because it has no other. It is started again, with room on the disk.
    fn fill_disk(&mut self, sides: &[Side], which: Which, bytes: u64, millis: u64) -> Result<()> {
        let mut full = Vec::new();
        for side in sides {
            let (broker, role) = self.broker(*side, which)?;
            let topic = self.topic(*side).to_owned();
            let sandbox = &mut self.stage.of_mut(*side).sandbox;
            if !sandbox.fill_disk(broker, Some((&topic, bytes))).map_err(broken)? {
                self.note("no disk is full: only those of brokers that Java runs on Linux can be".to_owned());
                continue;
            }
            self.trouble();
            self.round.bounces += 1;
            self.round.count(*side, |suffered| suffered.brokers_killed += 1);
            self.note(format!("the disk of broker {broker}{role}{} is full", self.of_cluster(*side)));
            full.push((*side, broker));
        }
        for (side, broker) in &full {
            let begun = Instant::now();
            while self.stage.of_mut(*side).sandbox.is_running(*broker).map_err(broken)? {
                self.pause(20)?;
                let sandbox = &mut self.stage.of_mut(*side).sandbox;
                if begun.elapsed() > GIVES_UP {
                    sandbox.kill(*broker).map_err(broken)?;
                    self.note(format!("broker {broker} goes on, and is killed"));
                    break;
                } else if begun.elapsed() > WRITES {
                    // Nothing is left to copy. Brokers also write to a log of their own, all the time.
                    sandbox.fill_disk(*broker, None).map_err(broken)?;
                }
            }
            self.note(format!("broker {broker}{} has ended", self.of_cluster(*side)));
        }
        self.pause(millis)?;
        for (side, broker) in full {
            self.stage.of_mut(side).sandbox.restart(broker).map_err(broken)?;
            self.note(format!("broker {broker}{} is back", self.of_cluster(side)));
        }
        self.trouble();
        Ok(())
    }

    /// Sets the clock of a broker of each side wrong, and right again.
    fn set_clock(&mut self, sides: &[Side], which: Which, seconds: i64, millis: u64) -> Result<()> {
        let mut wrong = Vec::new();
        for side in sides {
            let (broker, role) = self.broker(*side, which)?;
            self.trouble();
            self.stage.of_mut(*side).sandbox.set_clock(broker, seconds).map_err(broken)?;
            self.round.count(*side, |suffered| suffered.clocks += 1);
            let of = self.of_cluster(*side);
            self.note(format!(
                "the clock of broker {broker}{role}{of} is wrong by {seconds} s for {millis} ms"
            ));
            wrong.push((*side, broker));
        }
        let result = self.pause(millis);
        for (side, broker) in wrong {
            self.stage.of_mut(side).sandbox.set_clock(broker, 0).map_err(broken)?;
        }
        self.trouble();
        result
    }

    /// Stops a broker of each side with SIGSTOP, and lets it go on. Its connections stay open, and a successor takes over
    /// once its session is over.
    fn stall(&mut self, sides: &[Side], which: Which, millis: u64) -> Result<()> {
        let mut stalled = Vec::new();
        for side in sides {
            let (broker, role) = self.broker(*side, which)?;
            self.trouble();
            self.watch.iter().for_each(|watch| watch.be_blind_for(HANGS));
            self.round.count(*side, |suffered| suffered.brokers_stalled += 1);
            self.note(format!("broker {broker}{role}{} stalls for {millis} ms", self.of_cluster(*side)));
            self.stage.of_mut(*side).sandbox.pause(broker).map_err(broken)?;
            stalled.push((*side, broker));
        }
        let paused = self.pause(millis);
        for (side, broker) in stalled {
            self.stage.of_mut(side).sandbox.resume(broker).map_err(broken)?;
        }
        self.watch.iter().for_each(|watch| watch.be_blind_for(AWAKENING));
        self.trouble();
        paused
    }

    /// Holds back all that the other brokers ask of a broker of each side: followers fetch nothing from it, and the markers of
    /// transactions do not reach it. It reaches the others, and all reach the controllers.
    fn part(&mut self, sides: &[Side], which: Which, millis: u64) -> Result<()> {
        let mut parted = Vec::new();
        for side in sides {
            let (broker, role) = self.broker(*side, which)?;
            if self.stage.of(*side).between.is_empty() {
                self.note("the brokers are not parted: only those that Java runs can be".to_owned());
                continue;
            }
            self.trouble();
            self.round.count(*side, |suffered| suffered.network += 1);
            let of = self.of_cluster(*side);
            self.note(format!(
                "nothing from other brokers reaches broker {broker}{role}{of} for {millis} ms"
            ));
            parted.push((*side, broker));
        }
        let set = |play: &Self, weather| {
            let proxies = parted.iter().map(|(side, broker)| &play.stage.of(*side).between[*broker]);
            proxies.for_each(|proxy| proxy.set(weather));
        };
        set(self, Weather { requests_held: true, ..Weather::default() });
        let paused = self.pause(millis);
        set(self, Weather::default());
        if !parted.is_empty() {
            self.trouble();
        }
        paused
    }

    /// Stops a broker, and starts it by the other version of Kafka.
    fn change_version(&mut self, side: Side, which: Which) -> Result<()> {
        let (broker, role) = self.broker(side, which)?;
        self.trouble();
        let of = self.of_cluster(side);
        let sandbox = &mut self.stage.of_mut(side).sandbox;
        let Some(version) = sandbox.change_version(broker).map_err(broken)? else {
            return Err(Error::failed("the drill's own brokers have one version".to_owned()));
        };
        sandbox.stop(broker).and_then(|()| sandbox.restart(broker)).map_err(broken)?;
        self.round.bounces += 1;
        self.round.count(side, |suffered| suffered.brokers_stopped += 1);
        self.note(format!("broker {broker}{role}{of} is started by Kafka {version}"));
        self.trouble();
        Ok(())
    }

    /// Moves the replicas of one side's topic. On the target's side, also leaders of the topics that coordinators keep.
    fn reassign(&mut self, side: Side, turn: usize, replicas: usize) -> Result<()> {
        let (cluster, topic) = (self.stage.of(side), self.topic(side).to_owned());
        let brokers = cluster.sandbox.brokers();
        let on = |partitions: usize, replicas: usize| -> Vec<_> {
            let of = |partition| (0..replicas).map(move |n| id((partition + turn + n) % brokers)).collect();
            (0..partitions).map(|partition| (id(partition), of(partition))).collect()
        };
        let replicas = replicas.min(brokers);
        let mut moves = vec![(topic.clone(), on(self.partitions(side), replicas))];
        if !self.stage.are_two() || side == Side::Target {
            for own in [groups::LOG, TRANSACTIONS] {
                moves.push((own.to_owned(), on(cluster.topics.leaders(own)?.len(), cluster.replicas())));
            }
        }
        let address = cluster.topics.first_address().to_owned();
        for (topic, on) in moves.iter().filter(|(_, on)| !on.is_empty()) {
            wire::reassign(&address, topic, on)?;
        }
        self.round.count(side, |suffered| suffered.topics += 1);
        self.note(format!(
            "{topic} gets {replicas} replicas, from broker {} on; leaders move",
            turn % brokers
        ));
        Ok(())
    }

    /// The broker to break, and its role. All that a job commits is on the target's side; with one cluster, that is also
    /// the source's.
    fn broker(&self, side: Side, which: Which) -> Result<(usize, &'static str)> {
        let is_at_source = self.stage.are_two() && side == Side::Source;
        let which = match which {
            Which::Number(_) => which,
            _ if is_at_source => Which::SourceLeader,
            Which::SourceLeader if self.stage.are_two() => Which::TargetLeader,
            _ => which,
        };
        let (topic, role) = match which {
            Which::Number(number) => return Ok((number % self.stage.of(side).sandbox.brokers(), "")),
            Which::TransactionCoordinator => (TRANSACTIONS, ", the transaction's coordinator,"),
            Which::GroupCoordinator => (groups::LOG, ", the group's coordinator,"),
            Which::SourceLeader => (self.job.source.as_str(), ", a leader of the source,"),
            Which::TargetLeader => (self.job.target.as_str(), ", a leader of the target,"),
        };
        let leaders = self.stage.topics(side).leaders(topic)?;
        let partition = match which {
            Which::SourceLeader | Which::TargetLeader => self.round.faults % leaders.len().max(1),
            _ => coordinating_partition(&self.job_name()?, leaders.len()),
        };
        Ok((leaders.get(partition).copied().flatten().unwrap_or(0), role))
    }

    /// The name of the job's group. Before a job's first commit, it has no group.
    fn job_name(&self) -> Result<String> {
        let one = format!("replicator/{}/{}", self.job.source, self.job.target);
        if !self.stage.are_two() {
            return Ok(one);
        }
        let groups = groups::of_job(self.stage.topics(Side::Target), &self.job.source, &self.job.target)?;
        Ok(groups.into_iter().next().unwrap_or(one))
    }

    fn weather(&mut self, sides: Sides, weather: Weather, what: &str, millis: u64) -> Result<()> {
        self.trouble();
        for side in sides.each() {
            self.round.count(*side, |suffered| suffered.network += 1);
            self.note(format!("{what} on the network{} for {millis} ms", self.of_cluster(*side)));
        }
        self.stage.proxies(sides.each()).for_each(|proxy| proxy.set(weather));
        let result = self.pause(millis);
        self.stage.proxies(sides.each()).for_each(|proxy| proxy.set(Weather::default()));
        self.trouble();
        result
    }

    /// Holds back the next commit and cuts its connection, so that the run sends the commit again. Then the held commit
    /// arrives after all.
    fn late_commit(&mut self, millis: u64) -> Result<()> {
        self.trouble();
        self.round.count(Side::Target, |suffered| suffered.network += 1);
        let proxies = || self.stage.proxies(&[Side::Target]);
        proxies().for_each(|proxy| proxy.set(Weather { hold_one: Some(END_TXN), ..Weather::default() }));
        let begun = Instant::now();
        while proxies().all(|proxy| proxy.held() == 0) && begun.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let held: usize = proxies().map(Proxy::held).sum();
        proxies().for_each(|proxy| {
            proxy.set(Weather::default());
            proxy.cut();
        });
        self.note(format!("{held} EndTxn held back for {millis} ms, connections cut"));
        let result = self.pause(millis);
        self.stage.proxies(&[Side::Target]).for_each(Proxy::release);
        result
    }

    /// Starts a second run of the job, which ends the first one. Instances are no rivals.
    fn rival(&mut self) -> Result<()> {
        if self.schedule.instances > 1 {
            return Ok(());
        }
        let Some(mut old) = self.runs.pop() else { return Ok(()) };
        old.suffered.rivalled = true;
        self.ready()?;
        match old.wait(HANGS)? {
            Some(ended) => self.settle(&ended),
            None => self.wrong(format!("run {} hangs after its rival came", old.number)),
        }
        // The old run may have started again, and then it was the rival of the new run.
        for run in &mut self.runs {
            run.suffered.rivalled = true;
        }
        Ok(())
    }
}

pub(super) fn broken(err: anyhow::Error) -> Error {
    Error::failed(format!("the drill's own broker: {err:#}"))
}
