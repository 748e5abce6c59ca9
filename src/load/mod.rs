//! A file of JSON events into a topic, each line exactly once.
//!
//! The file is read twice: first to check all of it (`survey`), then to write (`write`). How far the
//! writing came travels in the same transactions as the records, so that it is the position in the file,
//! and not the key, that makes a line one that is loaded already: two equal lines are two records.

mod fields;
mod foreign;
mod guess;
mod input;
mod mark;
mod receipt;
mod split;
mod survey;
mod topic;
mod write;

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use chrono::NaiveDate;
use indicatif::ProgressBar;
use rdkafka::consumer::Consumer;

pub use self::receipt::LoadReceipt;

use self::fields::Fields;
use self::input::Input;
use self::mark::{Found, Mark, Way};
use self::topic::Destination;
use self::write::{Logs, Plan, Reached, Writer};
use crate::base::error::{Error, Reason, Result};
use crate::base::failpoint;
use crate::base::interrupt::Interrupt;
use crate::base::invariant;
use crate::base::json::Pointer;
use crate::base::progress::Progress;
use crate::base::range::Range;
use crate::base::time::rfc3339;
use crate::job::identity::{Fingers, Identity, IdentityHash};
use crate::job::window::{Window, WindowSpec};
use crate::kafka::client::Isolation;
use crate::kafka::cluster::Cluster;
use crate::kafka::mark::Evidence;
use crate::kafka::offsets;
use crate::kafka::pace::Pace;
use crate::kafka::pace::TransactionLimits;
use crate::kafka::producer::Producer;
use crate::kafka::properties::Properties;
use crate::kafka::reader::{Reader, Reading};
use crate::kafka::restart::{self, Restarts, StartUp};
use crate::kafka::watermarks::{Watermarks, ends};

/// A file to be loaded, and how.
#[derive(Clone, Debug)]
pub struct Loading {
    /// JSON Lines or one JSON array, plain or gzipped.
    pub file: PathBuf,
    /// Made where it is missing.
    pub topic: String,
    pub given: Given,
    /// Of a topic that is made.
    pub partitions: u16,
    /// Left out: the events of this window.
    pub except: Option<WindowSpec>,
    /// The day of `except`; else the one day that the file's events are of.
    pub date: Option<NaiveDate>,
    /// Leave out lines that are no event, and count them.
    pub skip_invalid: bool,
}

/// Where an event's key and time are; what is not given is guessed.
#[derive(Clone, Debug, Default)]
pub struct Given {
    pub key_field: Option<Pointer>,
    pub time_field: Option<Pointer>,
}

/// How long to wait for another producer's open transaction without progress.
const PATIENCE: Duration = Duration::from_secs(90);

/// Loads the file. A load that was killed goes on where its last transaction ended; one that is complete
/// writes nothing. The receipt tells what was done also where the load failed on the way; `None` where it was not
/// on its way.
///
/// # Errors
/// [`Error::Usage`] for a file that cannot be read twice, and where the key or time field is not plain;
/// [`Error::Refused`] for malformed lines, named by number before anything is written, and where the file was
/// loaded into this topic in another way; [`Error::Failed`], [`Error::Fenced`] and [`Error::Interrupted`] on the
/// way, with each line before the last commit loaded.
pub fn load(
    loading: &Loading,
    properties: &Properties,
    progress: Progress,
    interrupt: &Interrupt,
) -> (Option<LoadReceipt>, Result<()>) {
    let default = TransactionLimits::default();
    let records = failpoint::number("load-transaction-records", default.records);
    load_within(TransactionLimits { records, ..default }, loading, properties, progress, interrupt)
}

/// [`load`], in transactions of these bounds.
///
/// # Errors
/// As [`load`].
pub fn load_within(
    limits: TransactionLimits,
    loading: &Loading,
    properties: &Properties,
    progress: Progress,
    interrupt: &Interrupt,
) -> (Option<LoadReceipt>, Result<()>) {
    let mut receipt = None;
    let result = load_into(&mut receipt, limits, loading, properties, progress, interrupt);
    (receipt, result)
}

/// The receipt is made once there is something to tell: all is loaded, or a part of it.
fn load_into(
    receipt: &mut Option<LoadReceipt>,
    limits: TransactionLimits,
    loading: &Loading,
    properties: &Properties,
    progress: Progress,
    interrupt: &Interrupt,
) -> Result<()> {
    let started = Instant::now();
    check_date(loading)?;
    let input = Input::open(&loading.file)?;
    // No long look at the file where there is no cluster to load it into.
    Cluster::connect(properties, "replicator/load")?.topic(&loading.topic)?;

    let fields = survey::fields(&input, loading, interrupt)?;
    echo(loading, &fields);
    let survey = survey::survey(&input, &fields, loading.skip_invalid, progress, interrupt)?;
    let except = survey.except(loading)?;

    let name = format!("replicator/load/{}/{}", loading.topic, &survey.digest[..16]);
    let cluster = Cluster::connect(properties, &name)?;
    let destination =
        topic::prepare(&cluster, properties, &loading.topic, loading.partitions, &survey, interrupt)?;
    let way = way(&destination, &fields, except);
    let plan = Plan {
        input: &input,
        fields: &fields,
        survey: &survey,
        except,
        skip_invalid: loading.skip_invalid,
        topic: &destination.topic,
        way: &way,
        interrupt,
    };
    let batch_bytes = destination.batch_bytes;
    let mut run = Run {
        plan: &plan,
        properties,
        name: &name,
        batch_bytes,
        progress,
        reached: Reached::default(),
        before: None,
        restarts: Restarts::new(PATIENCE),
        pace: Rc::new(Pace::new(limits)),
    };
    let result = restart::until_done(&mut run, cluster, interrupt);
    if result.is_ok() || run.reached.transactions > 0 {
        let complete = result.is_ok();
        *receipt = Some(LoadReceipt { elapsed_ms: millis(started.elapsed()), complete, ..run.receipt() });
    }
    result
}

fn check_date(loading: &Loading) -> Result<()> {
    match (loading.date, loading.except) {
        (Some(_), None) => Err(Error::usage("--date is the day of --except, which is missing")),
        (Some(_), Some(window)) if !window.needs_date() => {
            Err(Error::usage("--date goes with a window in times of day; this one has its dates"))
        }
        _ => Ok(()),
    }
}

fn echo(loading: &Loading, fields: &Fields) {
    let how = |given: bool| if given { "given" } else { "guessed" };
    tracing::info!(
        "key from {} ({}), time from {} ({})",
        fields.key(),
        how(loading.given.key_field.is_some()),
        fields.time(),
        how(loading.given.time_field.is_some())
    );
}

fn way(destination: &Destination, fields: &Fields, except: Option<Window>) -> Way {
    Way {
        topic_id: destination.topic.id.clone(),
        partitions: destination.topic.partitions,
        key_field: fields.key().to_owned(),
        time_field: fields.time().to_owned(),
        except: except.map_or("none".to_owned(), |window| window.to_string()),
    }
}

fn millis(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

struct Run<'a> {
    plan: &'a Plan<'a>,
    properties: &'a Properties,
    /// Of the group and the transactional id.
    name: &'a str,
    batch_bytes: usize,
    progress: Progress,
    reached: Reached,
    /// Where earlier runs left off; known after the first start-up.
    before: Option<Mark>,
    restarts: Restarts,
    pace: Rc<Pace>,
}

impl StartUp for Run<'_> {
    fn connect(&self) -> Result<Cluster> {
        Cluster::connect(self.properties, self.name)
    }

    fn attempt(&mut self, cluster: &Cluster) -> Result<()> {
        self.load(cluster)
    }

    fn progress(&self) -> u64 {
        self.reached.transactions
    }

    fn has_written(&self) -> bool {
        self.reached.transactions > 0 || self.reached.in_doubt.is_some()
    }

    fn restarts(&mut self) -> &mut Restarts {
        &mut self.restarts
    }
}

impl Run<'_> {
    /// One start-up and all that follows. Its order is the proof; each step says why it stands there.
    fn load(&mut self, cluster: &Cluster) -> Result<()> {
        let topic = self.plan.topic;
        invariant::nothing_is_left(Rc::strong_count(&self.pace));

        // 1. Nobody else can commit lines of this file from here on, and nothing of a dead run is left open.
        let producer = Producer::init(
            self.properties,
            self.name,
            &self.plan.input.name(),
            &topic.name,
            self.batch_bytes,
            PATIENCE,
            &self.pace,
        )?;

        // 2. So this is where the last committed transaction left off, for good.
        let committed = offsets::committed(cluster, topic, self.plan.interrupt)?;
        let found = self.plan.way.mark(committed.first().and_then(Option::as_ref))?;
        self.check_same_topic(cluster)?;
        // Of a log that was cut, or emptied, the lines are gone however far the load had come.
        let logs = cluster.watermarks(topic)?;
        if let Some(found) = found.as_ref().filter(|found| !found.left.holds(&logs)) {
            self.check_still_there(cluster, found, &logs)?;
        }
        self.resume(cluster, found.as_ref().map(|found| found.mark))?;

        // 3. The rest of the lines, each in one transaction with the position after it.
        if self.reached.mark.position < self.plan.survey.documents {
            let group = cluster.committed.group_metadata();
            let group = group.ok_or_else(|| Error::failed("the client has no group metadata".to_owned()))?;
            let bar = self.progress.bar(&format!("loading {}", topic.name), self.plan.survey.documents);
            let logs = Logs::new(cluster, logs.clone(), found.as_ref());
            Writer::new(self.plan, &logs, &producer, group, &mut self.reached).finish(&bar)?;
            bar.finish_and_clear();
        }

        // 4. A commit is answered before its records can be read; the load ends when they can.
        let now = cluster.watermarks(topic)?;
        cluster.wait_until_stable(topic, &ends(&now), PATIENCE, self.plan.interrupt)?;
        // By a new leader, whose log may lack some of it, the next start-up counts the lines that are there.
        if now.iter().zip(&logs).any(|(now, then)| now.epoch != then.epoch) {
            return Err(Error::restart(format!("a partition of {} has another leader by now", topic.name)));
        }
        self.check_same_topic(cluster)
    }

    /// Looks for each line that earlier loads wrote where they wrote it, since the topic's log may have lost some: it was
    /// cut, or its records were deleted.
    ///
    /// # Errors
    /// [`Error::Refused`] where some are gone.
    fn check_still_there(&self, cluster: &Cluster, found: &Found, now: &[Watermarks]) -> Result<()> {
        let (topic, interrupt) = (self.plan.topic, self.plan.interrupt);
        cluster.wait_until_stable(topic, &ends(now), PATIENCE, interrupt)?;
        let fingers = Fingers::new()?;
        // The value is the line, with its time.
        let known = |key: Option<&[u8]>, value: Option<&[u8]>| {
            fingers.identity_of(&Identity::KeyAndValue, key, value)
        };
        let mut lacking: HashMap<Option<IdentityHash>, u64> = HashMap::new();
        let mut documents = self.plan.input.documents(&ProgressBar::hidden())?;
        while documents.passed() < found.mark.position {
            interrupt.check()?;
            let Some(document) = documents.next()? else { break };
            if let Ok(event) = self.plan.fields.read(document.bytes)
                && !self.plan.except.is_some_and(|window| window.contains(event.millis))
            {
                *lacking.entry(known(event.key.as_deref(), Some(document.bytes))).or_default() += 1;
            }
        }
        let firsts: Vec<i64> = match &found.left {
            Evidence::Each(logs) => logs.iter().map(|log| log.first).collect(),
            Evidence::Sums { .. } => now.iter().map(|now| now.low).collect(),
        };
        let starts: Vec<i64> = firsts.iter().zip(now).map(|(first, now)| (*first).max(now.low)).collect();
        let ranges = Range::all(&starts, &ends(now));
        let reading = Reading {
            properties: self.properties,
            group: self.name,
            topic: &topic.name,
            isolation: Isolation::ReadCommitted,
            patience: PATIENCE,
        };
        let bar =
            self.progress.bar(&format!("looking at {}", topic.name), ranges.iter().map(Range::len).sum());
        Reader::open(&reading, &ranges)?.for_each(interrupt, &bar, |message, ()| {
            if let Some(count) = lacking.get_mut(&known(message.key(), message.value())) {
                *count = count.saturating_sub(1);
            }
            Ok(())
        })?;
        let lost: u64 = lacking.values().sum();
        if lost == 0 {
            return Ok(());
        }
        Err(Error::refused(format!(
            "{} of the {} lines that earlier loads of this file wrote to {} are left there: the others were deleted, \
             or a leader lost them; to load the file again, delete the topic first, or load into another one",
            found.mark.loaded.saturating_sub(lost),
            found.mark.loaded,
            topic.name
        ))
        .because(Reason::LogLost))
    }

    fn resume(&mut self, cluster: &Cluster, found: Option<Mark>) -> Result<()> {
        let mark = found.unwrap_or_default();
        if mark.position > self.plan.survey.documents {
            return Err(Error::refused(format!(
                "the load's committed offset {} is past the file's {} lines; load into a new topic",
                mark.position, self.plan.survey.documents
            )));
        }
        if self.before.is_none() {
            self.before = Some(mark);
            match found {
                Some(mark) if mark.position < self.plan.survey.documents => {
                    tracing::info!("going on after {} lines that are loaded", mark.position);
                }
                Some(_) => {}
                None => self.warn_if_in_use(cluster)?,
            }
        }
        if self.reached.in_doubt.take() == Some(mark.position) {
            self.reached.transactions += 1;
        }
        self.reached.mark = mark;
        Ok(())
    }

    fn warn_if_in_use(&self, cluster: &Cluster) -> Result<()> {
        let topic = self.plan.topic;
        if cluster.watermarks(topic)?.iter().any(|w| w.high > w.low) {
            tracing::warn!(
                "{} holds records already, and nothing is known of an earlier load of this file; where there was one \
                 longer ago than the broker keeps offsets (offsets.retention.minutes, 7 days by default), its lines are \
                 written again",
                topic.name
            );
        }
        Ok(())
    }

    fn check_same_topic(&self, cluster: &Cluster) -> Result<()> {
        let topic = self.plan.topic;
        let is_same = cluster.topic(&topic.name)?.is_some_and(|found| found.id == topic.id);
        if is_same {
            return Ok(());
        }
        Err(Error::failed(format!(
            "{} was deleted or made anew during the load, and may hold some of the lines; delete it, and run again",
            topic.name
        ))
        .because(Reason::TopicChanged))
    }

    fn receipt(&self) -> LoadReceipt {
        let (survey, done) = (self.plan.survey, self.reached.mark);
        let before = self.before.unwrap_or_default();
        LoadReceipt {
            topic: self.plan.topic.name.clone(),
            file: self.plan.input.name(),
            lines: survey.documents,
            loaded: done.loaded.saturating_sub(before.loaded),
            already_loaded: before.loaded,
            skipped_by_window: (done.position == survey.documents)
                .then(|| survey.documents - survey.invalid - done.loaded),
            invalid: survey.invalid,
            without_key: survey.without_key,
            key_field: self.plan.fields.key().to_owned(),
            time_field: self.plan.fields.time().to_owned(),
            transactions: self.reached.transactions,
            restarts: self.restarts.count,
            elapsed_ms: 0,
            complete: false,
            first_event: survey.span.map(|(first, _)| rfc3339(first)),
            last_event: survey.span.map(|(_, last)| rfc3339(last)),
        }
    }
}
