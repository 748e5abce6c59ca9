//! One round. Runs fill the target while a schedule of faults happens to them; then both topics are compared.

mod faults;
mod ground;
mod remade;
mod trimmed;
mod unclean;
mod verdict;

use std::ops::Range;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rdkafka::producer::Producer;

pub(super) use self::verdict::flat;

use super::data::{Batch, Data, Shape};
use super::follow::may_end;
use super::groups;
use super::report::Round;
use super::run::{Ended, Kind, Run, RunArguments, Suffered};
use super::schedule::{Moment, Schedule};
use super::stage::Stage;
use super::tail::Tail;
use super::topics::{Record, Topics, delivered, of, send};
use super::topics_of;
use super::watch::Watch;
use crate::base::error::Result;
use crate::kafka::sides::Side;

/// A run that takes longer than this hangs. On a healthy cluster, a run takes a second or two.
const HANGS: Duration = Duration::from_secs(150);
/// How long after a fault it may still disturb a run.
const AFTERMATH: Duration = Duration::from_secs(30);
/// How many runs in a row may fail after the last fault.
const TRIES: usize = 5;

/// A round in play.
pub(super) struct Play<'s, 'a> {
    pub(super) stage: &'s mut Stage<'a>,
    pub(super) schedule: &'s Schedule,
    /// The present size of the topics. The schedule has the size at the beginning.
    pub(super) shape: Shape,
    pub(super) job: RunArguments,
    pub(super) rng: ChaCha8Rng,
    /// Nobody watches while the target is deleted.
    pub(super) tail: Option<Tail>,
    /// Nobody can judge positions once a topic was made anew.
    pub(super) watch: Option<Watch>,
    /// The committed records of the source.
    pub(super) source: Vec<Record>,
    /// The committed records of the target that the fill did not write.
    pub(super) others: Vec<Record>,
    /// The records of aborted transactions in both topics.
    pub(super) aborted: Vec<Record>,
    /// The records that a mirror copied from the source.
    pub(super) mirrored: Vec<Record>,
    /// Their places in the list of the source.
    pub(super) mirrored_places: Vec<Range<usize>>,
    /// How often records were added. It makes the keys of each addition new.
    pub(super) appended: usize,
    /// Whether the topics have more partitions than at the beginning.
    pub(super) has_grown: bool,
    /// Whether the copies are in the order of their originals.
    pub(super) keeps_order: bool,
    /// One run, or the instances that share the work.
    pub(super) runs: Vec<Run>,
    /// Until this time, a run may fail because of a fault of the cluster.
    pub(super) trouble_until: Instant,
    pub(super) begun: Instant,
    pub(super) round: Round,
}

/// How all runs ended that were at work together.
struct Finish(Vec<Ended>);

impl Finish {
    fn is_done(&self) -> bool {
        self.0.iter().all(Ended::is_done)
    }

    fn wrote_nothing(&self) -> bool {
        self.0.iter().all(|ended| ended.written() == Some(0))
    }
}

/// Plays `schedule` in new topics, and deletes them if everything went well.
///
/// # Errors
/// [`Error::Failed`](crate::base::error::Error::Failed) if the drill itself fails. The round tells what the program did
/// wrong.
pub(super) fn play(stage: &mut Stage<'_>, schedule: &Schedule) -> Result<Round> {
    let mut play = set_up(stage, schedule)?;
    play.all()?;
    play.verdict()
}

/// Makes the topics of a round and their first records.
///
/// # Errors
/// As [`play`].
pub(super) fn set_up<'s, 'a>(stage: &'s mut Stage<'a>, schedule: &'s Schedule) -> Result<Play<'s, 'a>> {
    let (source, target) = topics_of(schedule.seed);
    let shape = schedule.shape;
    let (of_source, of_target) = (stage.of(Side::Source), stage.of(Side::Target));
    of_source.topics.create(&source, shape.source_partitions, of_source.replicas())?;
    of_target.topics.create(&target, shape.target_partitions, of_target.replicas())?;

    let mut rng = ChaCha8Rng::seed_from_u64(schedule.seed);
    let mut data = Data::new(shape, &mut rng);
    let in_source = data.source();
    let in_target = data.target(&in_source);
    write(&of_source.topics, &source, &in_source)?;
    write(&of_target.topics, &target, &in_target)?;

    let mut bootstrap = vec![of_source.bootstrap()];
    if stage.are_two() {
        bootstrap.push(of_target.bootstrap());
    }
    let tail = Tail::start(&of_target.topics, &target, shape.target_partitions)?;
    let find = {
        let (source, target, are_two) = (source.clone(), target.clone(), stage.are_two());
        move |topics: &Topics| groups::place(topics, &source, &target, are_two)
    };
    let partitions = (shape.source_partitions, shape.target_partitions);
    let watch = Watch::start(&of_target.topics, &target, partitions, Box::new(find))?;
    Ok(Play {
        job: RunArguments {
            bootstrap,
            source,
            target,
            transaction_records: schedule.transaction_records,
            by_count: schedule.by_count,
            shared: schedule.instances > 1,
            kind: Kind::Fill,
        },
        shape,
        rng,
        tail: Some(tail),
        watch: Some(watch),
        aborted: aborted(&in_source).chain(aborted(&in_target)).collect(),
        source: committed(in_source),
        others: committed(in_target),
        mirrored: Vec::new(),
        mirrored_places: Vec::new(),
        appended: 0,
        has_grown: false,
        keeps_order: true,
        runs: Vec::new(),
        trouble_until: Instant::now(),
        begun: Instant::now(),
        round: Round::new(schedule, stage.are_two()),
        stage,
        schedule,
    })
}

fn committed(batches: Vec<Batch>) -> Vec<Record> {
    batches.into_iter().filter(|batch| batch.committed).flat_map(|batch| batch.records).collect()
}

fn aborted(batches: &[Batch]) -> impl Iterator<Item = Record> {
    batches.iter().filter(|batch| !batch.committed).flat_map(|batch| batch.records.clone())
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
        for step in &self.schedule.steps {
            self.stage.interrupt.check()?;
            if self.runs.is_empty() {
                // Without new records, the next run would find nothing to do and end too soon.
                self.append(self.schedule.shape.records / 20)?;
            }
            self.ready()?;
            self.wait_for(step.moment)?;
            self.ready()?;
            self.round.faults += 1;
            self.act(&step.act, step.sides)?;
            self.look()?;
            self.audit_members()?;
        }
        // There are no more faults. The present runs may have begun before the last records came, so they do not count.
        if !self.runs.is_empty() {
            self.finish()?;
        }
        for _ in 0..TRIES {
            if self.finish()?.is_some_and(|finish| finish.is_done()) {
                break;
            }
        }
        match self.finish()? {
            Some(finish) if finish.is_done() && finish.wrote_nothing() => {}
            Some(Finish(ended)) => {
                let told: Vec<String> = ended.iter().map(Ended::told).collect();
                self.wrong(format!("a run after a complete one: {}", told.join("; ")));
            }
            None => {}
        }
        Ok(())
    }

    /// Starts the runs that are missing.
    pub(super) fn ready(&mut self) -> Result<()> {
        while self.runs.len() < self.schedule.instances {
            self.round.runs += 1;
            let suffered = Suffered { troubled: Instant::now() < self.trouble_until, ..Suffered::default() };
            self.runs.push(Run::start(self.round.runs, &self.job, suffered, self.source.len())?);
            self.note(format!("run {}", self.round.runs));
        }
        Ok(())
    }

    fn wait_for(&mut self, moment: Moment) -> Result<()> {
        let seen = |play: &Self| play.tail.as_ref().map_or(0, Tail::seen);
        let (begun, before) = (Instant::now(), seen(self));
        loop {
            let is_there = match moment {
                Moment::Millis(millis) => begun.elapsed() >= Duration::from_millis(millis),
                Moment::Records(records) => seen(self).saturating_sub(before) >= records,
            };
            if is_there || begun.elapsed() > HANGS {
                return Ok(());
            }
            self.stage.interrupt.check()?;
            self.look()?;
            if self.runs.is_empty() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Notices runs that have ended by themselves.
    pub(super) fn look(&mut self) -> Result<()> {
        let is_troubled = Instant::now() < self.trouble_until;
        for mut run in std::mem::take(&mut self.runs) {
            run.suffered.troubled |= is_troubled;
            match run.ended()? {
                Some(ended) => self.settle(&ended),
                None => self.runs.push(run),
            }
        }
        Ok(())
    }

    fn settle(&mut self, ended: &Ended) {
        self.note(format!("run {} ended: {}", ended.number, ended.told()));
        tracing::debug!("run {} said\n{}", ended.number, ended.stderr);
        self.round.count_follow(ended);
        let is_excused = match self.job.kind {
            Kind::Fill => ended.is_excused(),
            Kind::Follow(_) => may_end(ended),
            // Its exit code promises nothing that is known here. The records tell.
            Kind::Copier(_) => true,
        };
        self.round.gave_up += usize::from(ended.has_given_up(&self.job.kind));
        if !is_excused {
            self.wrong(format!("run {} ended with {}\n{}", ended.number, ended.told(), ended.stderr));
        }
        if self.job.kind == Kind::Fill {
            self.check_promise(ended);
        }
    }

    /// Waits for the end of the runs, or of new ones. `None` means that one hangs.
    fn finish(&mut self) -> Result<Option<Finish>> {
        self.ready()?;
        let mut all = Vec::new();
        for run in std::mem::take(&mut self.runs) {
            match self.end_of(run)? {
                Some(ended) => all.push(ended),
                None => return Ok(None),
            }
        }
        Ok(Some(Finish(all)))
    }

    /// Waits for the end of a run. `None` means that it hangs.
    pub(super) fn end_of(&mut self, mut run: Run) -> Result<Option<Ended>> {
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

    fn topic(&self, side: Side) -> &str {
        match side {
            Side::Source => &self.job.source,
            Side::Target => &self.job.target,
        }
    }

    fn partitions(&self, side: Side) -> usize {
        match side {
            Side::Source => self.shape.source_partitions,
            Side::Target => self.shape.target_partitions,
        }
    }

    /// Names the cluster of a side in a note, if the sides have clusters of their own.
    fn of_cluster(&self, side: Side) -> &'static str {
        match (self.stage.are_two(), side) {
            (false, _) => "",
            (true, Side::Source) => " of the source cluster",
            (true, Side::Target) => " of the target cluster",
        }
    }

    pub(super) fn pause(&mut self, millis: u64) -> Result<()> {
        let end = Instant::now() + Duration::from_millis(millis);
        while Instant::now() < end {
            self.stage.interrupt.check()?;
            std::thread::sleep(Duration::from_millis(20).min(end - Instant::now().min(end)));
        }
        Ok(())
    }

    fn trouble(&mut self) {
        self.trouble_until = Instant::now() + AFTERMATH;
        for run in &mut self.runs {
            run.suffered.troubled = true;
        }
    }

    pub(super) fn wrong(&mut self, what: String) {
        self.note(format!("WRONG: {what}"));
        self.round.failures.push(what);
    }

    pub(super) fn note(&mut self, what: String) {
        tracing::info!("{what}");
        self.round.note(self.begun.elapsed(), what);
    }
}
