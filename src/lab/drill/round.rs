//! One round. Runs fill the target while a schedule of faults happens to them; then both topics are compared.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rdkafka::producer::Producer;

use super::compare::compare;
use super::data::{Batch, Data, Shape, in_window};
use super::proxy::{END_TXN, Proxy, Weather};
use super::report::Round;
use super::run::{Ended, Run, RunArguments, Suffered};
use super::schedule::{Act, Moment, Schedule, Which};
use super::tail::Tail;
use super::topics::{Record, Topics, coordinating_partition, delivered, of, send};
use crate::base::error::{Error, Result};
use crate::base::interrupt::Interrupt;
use crate::lab::sandbox::Sandbox;

/// The cluster, which all rounds share.
pub(super) struct Stage<'a> {
    pub sandbox: Sandbox,
    /// One in front of each broker; none for a named cluster.
    pub proxies: Vec<Proxy>,
    pub topics: Topics,
    pub interrupt: &'a Interrupt,
}

/// A run that takes longer than this hangs. On a healthy cluster, a run takes a second or two.
const HANGS: Duration = Duration::from_secs(150);
/// How long after a fault it may still disturb a run.
const AFTERMATH: Duration = Duration::from_secs(30);
/// How many runs in a row may fail after the last fault.
const TRIES: usize = 5;

/// A round in play.
struct Play<'s, 'a> {
    stage: &'s mut Stage<'a>,
    schedule: &'s Schedule,
    job: RunArguments,
    rng: ChaCha8Rng,
    tail: Tail,
    /// The committed records of the source.
    source: Vec<Record>,
    /// The committed records of the target that the fill did not write.
    others: Vec<Record>,
    /// How often records were added. It makes the keys of each addition new.
    appended: usize,
    run: Option<Run>,
    /// Until this time, a run may fail because of a fault of the cluster.
    trouble_until: Instant,
    begun: Instant,
    round: Round,
}

/// Plays `schedule` in new topics, and deletes them if everything went well.
///
/// # Errors
/// [`Error::Failed`] if the drill itself fails. The round tells what the program did wrong.
pub(super) fn play(stage: &mut Stage<'_>, schedule: &Schedule) -> Result<Round> {
    let suffix = format!("{}-{}", schedule.seed, std::process::id());
    let (source, target) = (format!("drill-a-{suffix}"), format!("drill-b-{suffix}"));
    let shape = schedule.shape;
    let replicas = stage.sandbox.brokers().min(3);
    stage.topics.create(&source, shape.source_partitions, replicas)?;
    stage.topics.create(&target, shape.target_partitions, replicas)?;

    let mut rng = ChaCha8Rng::seed_from_u64(schedule.seed);
    let mut data = Data::new(shape, &mut rng);
    let in_source = data.source();
    let in_target = data.target(&in_source);
    write(&stage.topics, &source, &in_source)?;
    write(&stage.topics, &target, &in_target)?;

    let bootstrap = match stage.proxies.as_slice() {
        [] => stage.sandbox.bootstrap().to_owned(),
        proxies => proxies.iter().map(Proxy::address).collect::<Vec<_>>().join(","),
    };
    let tail = Tail::start(&stage.topics, &target, shape.target_partitions)?;
    let mut play = Play {
        job: RunArguments { bootstrap, source, target, transaction_records: schedule.transaction_records },
        rng,
        tail,
        source: committed(in_source),
        others: committed(in_target),
        appended: 0,
        run: None,
        trouble_until: Instant::now(),
        begun: Instant::now(),
        round: Round::new(schedule),
        stage,
        schedule,
    };
    play.all()?;
    play.verdict()
}

fn committed(batches: Vec<Batch>) -> Vec<Record> {
    batches.into_iter().filter(|batch| batch.committed).flat_map(|batch| batch.records).collect()
}

/// Writes each batch in a transaction of its own.
fn write(topics: &Topics, topic: &str, batches: &[Batch]) -> Result<()> {
    let producer = topics.producer(Some(&format!("drill/{topic}")))?;
    for batch in batches {
        producer.begin_transaction().map_err(of("transaction"))?;
        send(&producer, topic, &batch.records)?;
        delivered(&producer)?;
        if batch.committed {
            producer.commit_transaction(HANGS).map_err(of("commit"))?;
        } else {
            producer.abort_transaction(HANGS).map_err(of("abort"))?;
        }
    }
    Ok(())
}

impl Play<'_, '_> {
    fn all(&mut self) -> Result<()> {
        for (moment, act) in &self.schedule.acts {
            self.stage.interrupt.check()?;
            if self.run.is_none() {
                // Without new records, the next run would find nothing to do and end too soon.
                self.append(self.schedule.shape.records / 20)?;
            }
            self.ready()?;
            self.wait_for(*moment)?;
            self.ready()?;
            self.act(act)?;
            self.look()?;
        }
        // There are no more faults. The present run may have begun before the last records came, so it does not count.
        if self.run.is_some() {
            self.finish()?;
        }
        for _ in 0..TRIES {
            if self.finish()?.is_some_and(|ended| ended.is_done()) {
                break;
            }
        }
        match self.finish()? {
            Some(ended) if ended.is_done() && ended.written() == Some(0) => {}
            Some(ended) => self.wrong(format!("a run after a complete one: {}", ended.told())),
            None => {}
        }
        Ok(())
    }

    /// Starts a run, unless one is there.
    fn ready(&mut self) -> Result<()> {
        if self.run.is_none() {
            self.round.runs += 1;
            let suffered = Suffered { troubled: Instant::now() < self.trouble_until, ..Suffered::default() };
            self.run = Some(Run::start(self.round.runs, &self.job, suffered)?);
            self.note(format!("run {}", self.round.runs));
        }
        Ok(())
    }

    fn wait_for(&mut self, moment: Moment) -> Result<()> {
        let (begun, seen) = (Instant::now(), self.tail.seen());
        loop {
            let is_there = match moment {
                Moment::Millis(millis) => begun.elapsed() >= Duration::from_millis(millis),
                Moment::Records(records) => self.tail.seen() - seen >= records,
            };
            if is_there || begun.elapsed() > HANGS {
                return Ok(());
            }
            self.look()?;
            if self.run.is_none() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Notices a run that has ended by itself.
    fn look(&mut self) -> Result<()> {
        let Some(run) = &mut self.run else { return Ok(()) };
        run.suffered.troubled |= Instant::now() < self.trouble_until;
        if let Some(ended) = run.ended()? {
            self.run = None;
            self.settle(&ended);
        }
        Ok(())
    }

    fn settle(&mut self, ended: &Ended) {
        self.note(format!("run {} ended: {}", ended.number, ended.told()));
        tracing::debug!("run {} said\n{}", ended.number, ended.stderr);
        self.round.gave_up += usize::from(ended.status.code() == Some(1));
        if !ended.is_excused() {
            self.wrong(format!("run {} ended with {}\n{}", ended.number, ended.told(), ended.stderr));
        }
    }

    /// Waits for the end of the run, or of a new one. `None` means that it hangs.
    fn finish(&mut self) -> Result<Option<Ended>> {
        self.ready()?;
        let Some(mut run) = self.run.take() else { return Ok(None) };
        run.suffered.troubled |= Instant::now() < self.trouble_until;
        let begun = Instant::now();
        while begun.elapsed() < HANGS {
            self.stage.interrupt.check()?;
            if let Some(ended) = run.wait(Duration::from_millis(100))? {
                self.settle(&ended);
                return Ok(Some(ended));
            }
        }
        self.wrong(format!("run {} hangs", run.number));
        Ok(None)
    }

    fn act(&mut self, act: &Act) -> Result<()> {
        self.round.faults += 1;
        match act {
            Act::Kill => self.kill(),
            Act::Terminate => {
                if let Some(run) = &mut self.run {
                    run.suffered.terminated = true;
                    run.signal(Signal::SIGTERM);
                    self.note("SIGTERM".to_owned());
                }
                self.ends()
            }
            Act::Freeze { millis } => {
                let Some(run) = &self.run else { return Ok(()) };
                run.signal(Signal::SIGSTOP);
                self.note(format!("SIGSTOP for {millis} ms"));
                self.pause(*millis)?;
                if let Some(run) = &self.run {
                    run.signal(Signal::SIGCONT);
                }
                Ok(())
            }
            Act::Broker { which, hard, millis, run_too } => self.bounce(*which, *hard, *millis, *run_too),
            Act::Rolling => {
                for broker in 0..self.stage.sandbox.brokers() {
                    self.bounce(Which::Number(broker), false, 0, false)?;
                }
                Ok(())
            }
            Act::Cut => {
                self.trouble();
                self.note("all connections cut".to_owned());
                self.stage.proxies.iter().for_each(Proxy::cut);
                Ok(())
            }
            Act::Slow { delay_millis, millis } => {
                self.note(format!("{delay_millis} ms each way, for {millis} ms"));
                let delay = Duration::from_millis(*delay_millis);
                self.weather(Weather { delay, ..Weather::default() }, *millis)
            }
            Act::Silent { requests, responses, millis, then_cut } => {
                let what = match (requests, responses) {
                    (true, true) => "nothing passes",
                    (true, false) => "no request arrives",
                    _ => "no response arrives",
                };
                self.note(format!(
                    "{what} for {millis} ms{}",
                    if *then_cut { ", then all connections are cut" } else { "" }
                ));
                let (requests_held, responses_held) = (*requests, *responses);
                self.weather(Weather { requests_held, responses_held, ..Weather::default() }, *millis)?;
                if *then_cut {
                    self.stage.proxies.iter().for_each(Proxy::cut);
                }
                Ok(())
            }
            Act::LateCommit { millis } => self.late_commit(*millis),
            Act::Rival => self.rival(),
            Act::Foreign { records, millis, commits } => self.foreign(*records, *millis, *commits),
            Act::Append { records } => self.append(*records),
            Act::Forget => {
                self.kill()?;
                self.stage
                    .topics
                    .delete_group(&format!("replicator/{}/{}", self.job.source, self.job.target))?;
                self.note("the committed offsets are deleted".to_owned());
                Ok(())
            }
        }
    }

    fn kill(&mut self) -> Result<()> {
        if let Some(run) = &mut self.run {
            run.suffered.killed = true;
            run.signal(Signal::SIGKILL);
            self.round.kills += 1;
            self.note("kill -9".to_owned());
        }
        self.ends()
    }

    /// Waits for the end of a run that got a signal to end.
    fn ends(&mut self) -> Result<()> {
        let Some(mut run) = self.run.take() else { return Ok(()) };
        match run.wait(HANGS)? {
            Some(ended) => self.settle(&ended),
            None => self.wrong(format!("run {} hangs", run.number)),
        }
        Ok(())
    }

    fn bounce(&mut self, which: Which, hard: bool, millis: u64, run_too: bool) -> Result<()> {
        let (broker, role) = self.broker(which)?;
        self.trouble();
        self.round.bounces += 1;
        self.note(format!("broker {broker}{role} {}", if hard { "killed" } else { "stopped" }));
        let sandbox = &mut self.stage.sandbox;
        if hard { sandbox.kill(broker) } else { sandbox.stop(broker) }.map_err(broken)?;
        if run_too {
            self.kill()?;
            self.ready()?;
        }
        self.pause(millis)?;
        self.stage.sandbox.restart(broker).map_err(broken)?;
        self.note(format!("broker {broker} is back"));
        self.trouble();
        Ok(())
    }

    fn broker(&self, which: Which) -> Result<(usize, &'static str)> {
        let (topics, job) = (&self.stage.topics, &self.job);
        let name = format!("replicator/{}/{}", job.source, job.target);
        let (topic, role) = match which {
            Which::Number(number) => return Ok((number, "")),
            Which::TransactionCoordinator => ("__transaction_state", ", the transaction's coordinator,"),
            Which::GroupCoordinator => ("__consumer_offsets", ", the group's coordinator,"),
            Which::SourceLeader => (job.source.as_str(), ", a leader of the source,"),
            Which::TargetLeader => (job.target.as_str(), ", a leader of the target,"),
        };
        let leaders = topics.leaders(topic)?;
        let partition = match which {
            Which::SourceLeader | Which::TargetLeader => self.round.faults % leaders.len().max(1),
            _ => coordinating_partition(&name, leaders.len()),
        };
        Ok((leaders.get(partition).copied().flatten().unwrap_or(0), role))
    }

    fn weather(&mut self, weather: Weather, millis: u64) -> Result<()> {
        self.trouble();
        self.stage.proxies.iter().for_each(|proxy| proxy.set(weather));
        let result = self.pause(millis);
        self.stage.proxies.iter().for_each(|proxy| proxy.set(Weather::default()));
        self.trouble();
        result
    }

    /// Holds back the next commit and cuts its connection, so that the run sends the commit again. Then the held commit
    /// arrives after all.
    fn late_commit(&mut self, millis: u64) -> Result<()> {
        self.trouble();
        let proxies = &self.stage.proxies;
        proxies.iter().for_each(|proxy| {
            proxy.set(Weather { hold_one: Some(END_TXN), ..Weather::default() });
        });
        let begun = Instant::now();
        while proxies.iter().all(|proxy| proxy.held() == 0) && begun.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let held: usize = proxies.iter().map(Proxy::held).sum();
        proxies.iter().for_each(|proxy| {
            proxy.set(Weather::default());
            proxy.cut();
        });
        self.note(format!("{held} EndTxn held back for {millis} ms, connections cut"));
        let result = self.pause(millis);
        self.stage.proxies.iter().for_each(Proxy::release);
        result
    }

    fn rival(&mut self) -> Result<()> {
        let Some(mut old) = self.run.take() else { return Ok(()) };
        old.suffered.rivalled = true;
        self.ready()?;
        match old.wait(HANGS)? {
            Some(ended) => self.settle(&ended),
            None => self.wrong(format!("run {} hangs after its rival came", old.number)),
        }
        // The old run may have started again, and then it was the rival of the new run.
        if let Some(run) = &mut self.run {
            run.suffered.rivalled = true;
        }
        Ok(())
    }

    fn foreign(&mut self, records: usize, millis: u64, commits: bool) -> Result<()> {
        let producer = self.stage.topics.producer(Some(&format!("foreign/{}", self.job.target)))?;
        let shape = self.schedule.shape;
        let records: Vec<Record> = (0..records)
            .map(|n| Data::new(shape, &mut self.rng).foreign(n % shape.target_partitions))
            .collect();
        self.appended += 1;
        let records = renamed(records, self.appended, shape, shape.target_partitions);
        producer.begin_transaction().map_err(of("foreign transaction"))?;
        send(&producer, &self.job.target, &records)?;
        delivered(&producer)?;
        self.note(format!("a foreign transaction of {} records opens in the target", records.len()));
        self.pause(millis)?;
        if commits {
            producer.commit_transaction(HANGS).map_err(of("foreign commit"))?;
            self.others.extend(records);
        } else {
            producer.abort_transaction(HANGS).map_err(of("foreign abort"))?;
        }
        self.note(format!("the foreign transaction is {}", if commits { "committed" } else { "aborted" }));
        Ok(())
    }

    fn append(&mut self, records: usize) -> Result<()> {
        self.appended += 1;
        let shape = Shape { whole: true, ..self.schedule.shape };
        let batch = Data::new(shape, &mut self.rng).batch(records, true);
        let batch =
            Batch { records: renamed(batch.records, self.appended, shape, shape.source_partitions), ..batch };
        write(&self.stage.topics, &self.job.source, std::slice::from_ref(&batch))?;
        self.note(format!("{records} records more in the source"));
        self.source.extend(batch.records);
        Ok(())
    }

    fn pause(&mut self, millis: u64) -> Result<()> {
        let end = Instant::now() + Duration::from_millis(millis);
        while Instant::now() < end {
            self.stage.interrupt.check()?;
            std::thread::sleep(Duration::from_millis(20).min(end - Instant::now().min(end)));
        }
        Ok(())
    }

    fn trouble(&mut self) {
        self.trouble_until = Instant::now() + AFTERMATH;
        if let Some(run) = &mut self.run {
            run.suffered.troubled = true;
        }
    }

    fn verdict(mut self) -> Result<Round> {
        let (topics, shape) = (self.stage.topics.clone(), self.schedule.shape);
        // This waits until all transactions have ended. A hanging transaction is an error of the program.
        let target = match topics.consume(&self.job.target, shape.target_partitions) {
            Ok(target) => target,
            Err(err) => {
                self.wrong(err.to_string());
                return Ok(self.round);
            }
        };
        let seen = self.tail.finish(target.len())?;
        let is_same = shape.source_partitions == shape.target_partitions;
        self.round.differences = compare(&self.source, &self.others, &target, is_same);
        self.round.records = self.source.iter().filter(|record| in_window(record)).count();
        if seen != target {
            self.round.failures.push(format!(
                "a reader that watched the target saw {} records, but it holds {}",
                seen.len(),
                target.len()
            ));
        }
        if self.round.is_right() {
            topics.delete(&[&self.job.source, &self.job.target])?;
        }
        Ok(self.round)
    }

    fn wrong(&mut self, what: String) {
        self.note(format!("WRONG: {what}"));
        self.round.failures.push(what);
    }

    fn note(&mut self, what: String) {
        tracing::info!("{what}");
        self.round.note(self.begun.elapsed(), what);
    }
}

/// Gives records new keys, because a new generator makes the same keys again.
fn renamed(records: Vec<Record>, number: usize, shape: Shape, partitions: usize) -> Vec<Record> {
    let rename = |mut record: Record| {
        record.key = record.key.map(|key| [&key[..], format!("-{number}").as_bytes()].concat());
        shape.place(&mut record, partitions);
        record
    };
    records.into_iter().map(rename).collect()
}

fn broken(err: anyhow::Error) -> Error {
    Error::failed(format!("the drill's own broker: {err:#}"))
}
