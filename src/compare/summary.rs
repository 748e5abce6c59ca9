//! Compares two topics that no one machine reaches: one run writes the sums of the source's window to a file, and another
//! compares them with the target.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::side::{OpenSide, Start};
use super::written::{Stretch, Summary, SumsByTime, none_yet, records, stretches};
use crate::base::error::{Error, Result};
use crate::base::interrupt::Interrupt;
use crate::base::progress::Progress;
use crate::base::shell::line;
use crate::base::time::{millis, rfc3339};
use crate::job::Selection;
use crate::job::identity::{Fingers, Print};
use crate::job::names::Names;
use crate::job::resolve::{self, Resolved};
use crate::job::window::{Edges, Window};
use crate::judge::Look;
use crate::kafka::cluster::Cluster;
use crate::kafka::sides::Side;

/// One topic to read, and a file for the other.
#[derive(Clone)]
pub struct Half {
    /// Only the topic of `side` and its cluster count, and the window if that is the source.
    pub selection: Selection,
    pub file: PathBuf,
    /// The side that is read. The source's sums are written to the file, and the target's are compared with it.
    pub side: Side,
}

/// What is in the file of `--summary`.
#[derive(Clone, Debug, Serialize)]
pub struct Summarized {
    pub window: Edges,
    pub source: String,
    pub source_topic_id: String,
    pub source_bootstrap_server: String,
    pub summary: PathBuf,
    pub in_source: u64,
    /// How many steps of time have records, and how long each is.
    pub steps: usize,
    pub step_ms: u64,
    pub elapsed_ms: u64,
    pub warnings: Vec<String>,
}

/// The target, compared with the file of `--against`.
#[derive(Clone, Debug, Serialize)]
pub struct Agreement {
    pub window: Edges,
    /// The source's are those of the file.
    #[serde(flatten)]
    pub names: Names,
    pub against: PathBuf,
    /// When the source was read, in RFC 3339.
    pub read_at: String,
    pub in_source: u64,
    pub in_target: u64,
    pub same: bool,
    /// The length of the steps of time that were compared.
    pub step_ms: u64,
    pub differing: Vec<Stretch>,
    pub elapsed_ms: u64,
    pub warnings: Vec<String>,
}

/// The most stretches of time that the text lists.
const SHOWN: usize = 10;

/// Adds up the committed records of the source's window, and writes the sums to a new file.
///
/// # Errors
/// [`Error::Usage`] if the file is there already or cannot be written; the other errors that the exit codes stand for. Then
/// no file is written.
pub fn summarize(half: &Half, progress: Progress, interrupt: &Interrupt) -> Result<Summarized> {
    let started = Instant::now();
    let read_at = chrono::Utc::now().timestamp_millis();
    let Half { selection, file, .. } = half;
    Summary::check_new(file)?;
    let cluster = Cluster::connect(&selection.properties.source, &selection.name())?;
    let topic = resolve::topic(&cluster, &selection.source, Side::Source)?;
    let Resolved { window, warning, mut other_days } =
        resolve::window(&cluster, selection, &topic, interrupt)?;
    let side = OpenSide::open(selection, &cluster, topic, window, progress, interrupt)?;
    let word = || getrandom::u64().map_err(|err| Error::io("the system's random numbers", err));
    let key = u128::from(word()?) << 64 | u128::from(word()?);
    let sums = add_up(&side, selection, window, key, none_yet(0), |time| other_days.see(time))?;
    let summary = Summary {
        key,
        source: selection.source.clone(),
        topic_id: side.topic.url_safe_id(),
        bootstrap: selection.properties.source.bootstrap().to_owned(),
        read_at,
        window,
        event_time: selection.event_time.clone(),
        has_registry: selection.registry_that_counts().is_some(),
        sums,
    };
    let in_source = records(&summary.sums);
    let nothing =
        (in_source == 0).then(|| resolve::nothing_in(window, &cluster, selection, &side.topic, interrupt));
    let is_open = window.end.is_none_or(|end| end > read_at);
    let open = is_open.then(|| {
        format!(
            "the window was not over when {} was read, so the file lacks the records that came later; write another one \
             when it is",
            selection.shown_source()
        )
    });
    let warnings: Vec<String> =
        [warning, other_days.warning(), nothing, open].into_iter().flatten().collect();
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    summary.write(file)?;
    Ok(Summarized {
        window: window.into(),
        source: summary.source,
        source_topic_id: summary.topic_id,
        source_bootstrap_server: summary.bootstrap,
        summary: file.clone(),
        in_source,
        steps: summary.sums.len(),
        step_ms: 1 << summary.sums.shift(),
        elapsed_ms: millis(started.elapsed()),
        warnings,
    })
}

/// Adds up the committed records of the target's window in the same way, and compares the sums with those of the file.
///
/// # Errors
/// [`Error::Usage`] if the file is not a whole summary; the other errors that the exit codes stand for. A difference is no
/// error here: see [`Agreement::verdict`].
pub fn agreement(half: &Half, progress: Progress, interrupt: &Interrupt) -> Result<Agreement> {
    let started = Instant::now();
    let mut summary = Summary::read(&half.file)?;
    let window = summary.window;
    let selection = Selection { event_time: summary.event_time.clone(), ..half.selection.clone() };
    if summary.has_registry != selection.registry_that_counts().is_some() {
        return Err(Error::usage(format!(
            "the event times of --against {} were read with{} a schema registry: run {} --schema-registry",
            half.file.display(),
            if summary.has_registry { "" } else { "out" },
            if summary.has_registry { "with" } else { "without" }
        )));
    }
    let cluster = Cluster::connect(&selection.properties.target, &selection.name())?;
    let topic = resolve::topic(&cluster, &selection.target, Side::Target)?;
    tracing::info!("window {} of {}", Edges::from(window), selection.shown_target());
    let side = OpenSide::open(&selection, &cluster, topic, window, progress, interrupt)?;
    let mut sums = add_up(&side, &selection, window, summary.key, none_yet(summary.sums.shift()), |_| {})?;
    let differing = stretches(&mut summary.sums, &mut sums, window);
    let mut agreement = Agreement {
        window: window.into(),
        names: names(&summary, &selection, &side),
        against: half.file.clone(),
        read_at: rfc3339(summary.read_at),
        in_source: records(&summary.sums),
        in_target: records(&sums),
        same: differing.is_empty(),
        step_ms: 1 << sums.shift(),
        differing,
        elapsed_ms: millis(started.elapsed()),
        warnings: Vec::new(),
    };
    let file = half.file.display();
    let none = (agreement.in_source == 0)
        .then(|| format!("{file} says that the source held no record in the window"));
    let open = window.end.is_none_or(|end| end > summary.read_at).then(|| {
        format!("the window was not over when {file} was written, so it lacks the records that came later")
    });
    agreement.warnings = [none, open].into_iter().flatten().collect();
    agreement.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(agreement)
}

fn names(summary: &Summary, selection: &Selection, side: &OpenSide<'_>) -> Names {
    let ours = selection.properties.target.bootstrap();
    let address = |of: &str| (summary.bootstrap != ours).then(|| of.to_owned());
    Names {
        source: summary.source.clone(),
        target: selection.target.clone(),
        source_bootstrap_server: address(&summary.bootstrap),
        target_bootstrap_server: address(ours),
        source_topic_id: Some(summary.topic_id.clone()),
        target_topic_id: Some(side.topic.url_safe_id()),
    }
}

/// Reads the window, and tells the time of each record.
fn add_up(
    side: &OpenSide<'_>,
    selection: &Selection,
    window: Window,
    key: u128,
    mut sums: SumsByTime,
    mut tell: impl FnMut(Option<i64>),
) -> Result<SumsByTime> {
    let look = Look::new(Fingers::new()?, selection, window, false);
    let print = Print::new(key);
    side.read(
        Start::Window,
        move |message| {
            let seen = look.at_time(message)?;
            Ok((seen.time, seen.is_in_window.then(|| print.of(message))))
        },
        |_, (time, hash)| {
            tell(*time);
            if let Some(hash) = hash {
                sums.at(*time).add(*hash);
            }
            Ok(())
        },
    )?;
    Ok(sums)
}

/// The length of a step, for people.
fn shown(step_ms: u64) -> String {
    humantime::format_duration(std::time::Duration::from_millis(step_ms)).to_string()
}

impl fmt::Display for Summarized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}  {}", self.source, self.window)?;
        count(f, "in source", self.in_source)?;
        if self.in_source == 0 {
            writeln!(f, "  it holds no record in the window")?;
        }
        let file = file_of(&self.summary);
        writeln!(f, "  {} steps of {} are in {file}", self.steps, shown(self.step_ms))?;
        let next = line(&["replicator", "verify", "--against", &file, "--target", "TOPIC"]);
        writeln!(f, "  where the target is: {next}")?;
        f.write_str("  keep the file secret: who reads it can make another topic with the same sums")
    }
}

fn file_of(path: &Path) -> String {
    path.display().to_string()
}

fn count(f: &mut fmt::Formatter<'_>, name: &str, count: u64) -> fmt::Result {
    writeln!(f, "  {name:<22}{count:>12}")
}

impl Agreement {
    /// # Errors
    /// [`Error::Different`] if the topics differ.
    pub fn verdict(&self) -> Result<()> {
        let Some(first) = self.differing.first() else { return Ok(()) };
        let more = match self.differing.len() {
            1 => String::new(),
            all => format!(", and in {} more stretches of time", all - 1),
        };
        Err(Error::different(format!(
            "{} and {} differ in the window: {first}{more}",
            self.names.shown_source(),
            self.names.shown_target()
        )))
    }
}

impl fmt::Display for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.start, &self.end) {
            (Some(start), Some(end)) => write!(f, "[{start}, {end})")?,
            _ => f.write_str("without event time")?,
        }
        write!(f, " has {} in the source and {} in the target", self.in_source, self.in_target)
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, target) = (self.names.shown_source(), self.names.shown_target());
        writeln!(f, "{source} = {target} ?  {}", self.window)?;
        writeln!(f, "  the source as it was at {}, by {}", self.read_at, file_of(&self.against))?;
        count(f, "in source", self.in_source)?;
        count(f, "in target", self.in_target)?;
        for stretch in self.differing.iter().take(SHOWN) {
            writeln!(f, "  {stretch}")?;
        }
        if let Some(more) = self.differing.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            writeln!(f, "  and {more} more stretches of time; --output json lists all")?;
        }
        f.write_str(match self.same {
            true if self.in_source == 0 => "  neither holds a record in the window",
            true => "  the same records",
            false => "  DIFFERENT",
        })
    }
}
