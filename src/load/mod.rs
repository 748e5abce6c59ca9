//! Loads a file of JSON events into a topic, each line exactly once.
//!
//! A load reads the file twice: first to check all of it (`survey`), then to write it (`write`). Each transaction
//! commits records together with the position in the file that they reach. So the position, not the key, decides
//! whether a line is loaded already: two equal lines are two records.

mod fields;
mod foreign;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
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
use self::mark::{EarlierLoad, Loaded, Way};
use self::topic::Destination;
use self::write::{Logs, Plan, Reached, Writer};
use crate::base::error::{Error, Reason, Result};
use crate::base::failpoint;
use crate::base::interrupt::Interrupt;
use crate::base::invariant;
use crate::base::json::Pointer;
use crate::base::progress::Progress;
use crate::base::range::Range;
use crate::base::time::{millis, rfc3339};
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

/// A file to load, and how to load it.
#[derive(Clone, Debug)]
pub struct Loading {
    /// JSON Lines or one JSON array, plain or gzipped.
    pub file: PathBuf,
    /// Created if it is missing.
    pub topic: String,
    pub given: Given,
    /// The partitions of a topic that the load creates.
    pub partitions: u16,
    /// The load leaves out the events of this window.
    pub except: Option<WindowSpec>,
    /// The day of `except`. Without it, the load takes the day of the file's events, if all are of one day.
    pub date: Option<NaiveDate>,
    /// Leave out lines that are not events, and count them.
    pub skip_invalid: bool,
}

/// The fields of an event's key and time. The load guesses a field that is not given.
#[derive(Clone, Debug, Default)]
pub struct Given {
    pub key_field: Option<Pointer>,
    pub time_field: Option<Pointer>,
}

/// How long to wait for another producer's open transaction without progress.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Loads the file. A load that was killed continues after its last transaction; a load that is complete writes nothing.
/// If the load fails on the way, the receipt tells what it did. There is no receipt if it failed before it wrote.
///
/// # Errors
/// [`Error::Usage`] for a file that cannot be read twice, and if the load cannot guess the key or time field;
/// [`Error::Refused`] for malformed lines, named by number before anything is written, and if the file was loaded into
/// this topic in another way; [`Error::Failed`], [`Error::Fenced`] and [`Error::Interrupted`] on the way; then each
/// line before the last commit is loaded.
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

/// [`load`], in transactions within these limits.
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

/// Puts a receipt into `receipt` if all of the file is loaded, or a part of it.
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
    // Ask for the topic before the long reading of the file, in case no cluster answers.
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
    let result = restart::until_done(&mut run, cluster);
    if result.is_ok() || run.reached.transactions > 0 {
        let complete = result.is_ok();
        *receipt = Some(LoadReceipt { elapsed_ms: millis(started.elapsed()), complete, ..run.receipt() });
    }
    result
}

fn check_date(loading: &Loading) -> Result<()> {
    match (loading.date, loading.except) {
        (Some(_), None) => Err(Error::usage("--date names the day of --except, but --except is not given")),
        (Some(_), Some(window)) if !window.needs_date() => {
            Err(Error::usage("--date is for a window without dates, but --except has dates"))
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

struct Run<'a> {
    plan: &'a Plan<'a>,
    properties: &'a Properties,
    /// The group, and the transactional id.
    name: &'a str,
    batch_bytes: usize,
    progress: Progress,
    reached: Reached,
    /// Where earlier runs stopped. Known after the first start-up.
    before: Option<Loaded>,
    restarts: Restarts,
    pace: Rc<Pace>,
}

impl StartUp for Run<'_> {
    type Connection = Cluster;

    fn connect(&self) -> Result<Cluster> {
        Cluster::connect(self.properties, self.name)
    }

    fn attempt(&mut self, cluster: &Cluster) -> Result<()> {
        self.load(cluster)
    }

    fn take(&mut self, result: Result<()>) -> Option<Result<()>> {
        self.restarts.take(result, self.reached.transactions, self.plan.interrupt)
    }

    fn has_written(&self) -> bool {
        self.reached.transactions > 0 || self.reached.in_doubt.is_some()
    }
}

impl Run<'_> {
    /// Does one start-up, and the work that follows. The order of the steps is the proof. Each step says why it comes
    /// at this point.
    fn load(&mut self, cluster: &Cluster) -> Result<()> {
        let topic = self.plan.topic;
        invariant::nothing_is_left(Rc::strong_count(&self.pace));

        // 1. Take over the transactional id. From here on, nobody else can commit lines of this file, and no
        //    transaction of a dead run is open.
        let producer = Producer::init(
            self.properties,
            self.name,
            &self.plan.input.name(),
            &topic.name,
            self.batch_bytes,
            PATIENCE,
            &self.pace,
        )?;

        // 2. Ask for the position of the last committed transaction. After step 1, it can no longer change.
        let committed = offsets::committed(cluster, topic.extent(), self.plan.interrupt)?;
        let found = self.plan.way.mark(committed.first().and_then(Option::as_ref))?;
        self.check_same_topic(cluster)?;
        // If a log was cut or emptied, lines are gone, even if the position says that they are loaded.
        let logs = cluster.watermarks(topic)?;
        if let Some(found) = found.as_ref().filter(|found| !found.left.holds(&logs)) {
            self.check_still_there(cluster, found, &logs)?;
        }
        self.resume(cluster, found.as_ref().map(|found| found.mark))?;

        // 3. Write the rest of the lines, each in one transaction with the position after it.
        if self.reached.mark.position < self.plan.survey.documents {
            let group = cluster.committed.group_metadata();
            let group = group.ok_or_else(|| Error::failed("the client has no group metadata".to_owned()))?;
            let bar = self.progress.bar(&format!("loading {}", topic.name), self.plan.survey.documents);
            let logs = Logs::new(cluster, logs.clone(), found.as_ref());
            Writer::new(self.plan, &logs, &producer, group, &mut self.reached).finish(&bar)?;
            bar.finish_and_clear();
        }

        // 4. Wait until the records can be read. The broker answers a commit before that.
        let now = cluster.watermarks(topic)?;
        cluster.wait_until_stable(topic, &ends(&now), PATIENCE, self.plan.interrupt)?;
        // A new leader's log may lack some lines. Start up again, to count the lines that are there.
        if now.iter().zip(&logs).any(|(now, then)| now.epoch != then.epoch) {
            return Err(Error::restart(format!("a partition of {} has a new leader", topic.name)));
        }
        self.check_same_topic(cluster)
    }

    /// Looks in the topic for each line that earlier loads wrote, from the offsets at which they began. Some lines may
    /// be gone: the log was cut, or its records were deleted.
    ///
    /// # Errors
    /// [`Error::Refused`] if some are gone.
    fn check_still_there(&self, cluster: &Cluster, found: &EarlierLoad, now: &[Watermarks]) -> Result<()> {
        let (topic, interrupt) = (self.plan.topic, self.plan.interrupt);
        cluster.wait_until_stable(topic, &ends(now), PATIENCE, interrupt)?;
        let fingers = Fingers::new()?;
        // The value is the whole line, with the time in it.
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
        let bar = self.progress.over(&format!("looking at {}", topic.name), &ranges);
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
            "earlier loads of this file wrote lines to {2}, but only {0} of the {1} lines are still there: the others \
             were deleted, or a leader lost them; to load the file again, delete the topic first, or load into another \
             topic",
            found.mark.loaded.saturating_sub(lost),
            found.mark.loaded,
            topic.name
        ))
        .because(Reason::LogLost))
    }

    fn resume(&mut self, cluster: &Cluster, found: Option<Loaded>) -> Result<()> {
        let mark = found.unwrap_or_default();
        if mark.position > self.plan.survey.documents {
            return Err(Error::refused(format!(
                "the load's committed offset {} is past the end of the file, which has {} lines; load into a new topic",
                mark.position, self.plan.survey.documents
            )));
        }
        if self.before.is_none() {
            self.before = Some(mark);
            match found {
                Some(mark) if mark.position < self.plan.survey.documents => {
                    tracing::info!("continuing after the first {} lines, which are done", mark.position);
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
                "{} holds records already, and the broker knows of no earlier load of this file; if there was one \
                 longer ago than the broker keeps offsets (offsets.retention.minutes, 7 days by default), this load \
                 writes its lines again",
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
            "{} was deleted or recreated during the load, and may hold some of the lines; delete it and run again",
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
