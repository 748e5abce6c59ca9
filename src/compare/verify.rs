//! Compares every record of the window in both topics.

use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;

use crate::base::error::{Error, Reason, Result};
use crate::base::interrupt::Interrupt;
use crate::base::progress::Progress;
use crate::base::time::millis;
use crate::compare::{Judged, Notes, Wish, compare};
use crate::job::Selection;
use crate::job::names::Names;
use crate::job::window::{Edges, Window};
use crate::judge::Sighting;
use crate::judge::elsewhen::StampedCopies;
use crate::kafka::sides::Side;
use crate::kafka::sys::Message;

/// Two topics, and the window in which they should hold the same records.
#[derive(Clone)]
pub struct Comparison {
    pub selection: Selection,
    /// Whether another order or another partition is a difference too.
    pub strict_order: bool,
    /// A file that lists each difference, as JSON Lines.
    pub list: Option<PathBuf>,
    /// Whether only the last record of each key is compared, as compaction keeps it. Then all counts are of keys.
    pub latest_only: bool,
}

/// The differences that the comparison found. All counts are of records.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Findings {
    /// `None` until the window is resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Edges>,
    #[serde(flatten)]
    pub names: Names,
    pub in_source: u64,
    pub in_target: u64,
    /// Records of the source's window that the target lacks.
    pub missing: u64,
    /// Copies in the target beyond the number that the source holds.
    pub duplicated: u64,
    /// Records whose identity is in both topics, but with another key, value, header or timestamp.
    pub changed: u64,
    /// Records of the target's window that the source lacks.
    pub extra: u64,
    /// Records that come before some record in their source partition, but after it in the target. `None` if this was not
    /// judged, because the memory does not suffice or only the last record of each key is compared.
    pub reordered: Option<u64>,
    /// Records in another partition than in the source, if both topics have the same number of partitions. `None` as
    /// above.
    pub moved: Option<u64>,
    /// Records of the source that equal an earlier one there, and have no copy of their own. One copy in the target is
    /// enough. Records above the joint of a follow, and all records with `--identity record`, need a copy each and are
    /// not among these.
    pub duplicates_in_source: u64,
    /// Records that `--on-conflict skip` leaves out: the target has their identity with another content.
    pub conflicts: u64,
    /// Records that `--skip-invalid` leaves out: they have no identity or event time, or a timestamp that cannot be
    /// written.
    pub invalid: u64,
    /// Records of the target outside of the window that differ only in timestamp from a record of the source's window.
    pub under_another_time: u64,
    /// Whether the target holds each record that it should, once, and in order if that was asked for.
    pub same: bool,
    pub elapsed_ms: u64,
    pub warnings: Vec<String>,
    /// A few of the differences. `--differences` lists all.
    pub examples: Vec<String>,
    /// With `--latest-only`, the keys of the window that the source wrote anew while the comparison began. They are not
    /// judged.
    #[serde(skip)]
    pub(crate) unsettled: u64,
    #[serde(skip)]
    pub(crate) stamped: StampedCopies,
    /// Whether `--max-out-of-orderness` ended a reading of the source.
    #[serde(skip)]
    pub(crate) relies_on_promise: bool,
}

const EXAMPLES: usize = 10;

/// Reads the committed records of both topics' windows, up to the present ends.
///
/// # Errors
/// [`Error::Different`] if the findings show a difference; the other errors that the exit codes stand for.
pub fn verify(comparison: &Comparison, progress: Progress, interrupt: &Interrupt) -> (Findings, Result<()>) {
    let started = Instant::now();
    let Comparison { selection, list, latest_only, .. } = comparison;
    let wish = Wish { list: list.as_deref(), is_latest_only: *latest_only, expects_equal: !*latest_only };
    let mut window = None;
    let compared = compare(selection, wish, progress, interrupt, &mut window);
    let (mut findings, result) = match compared {
        Err(err) => (Findings::default(), Err(err)),
        Ok(mut compared) => {
            let mut findings = std::mem::take(&mut compared.findings);
            let matters = findings.differences() + findings.duplicates_in_source > 0;
            compared.warn_of_unread_joints(selection, matters);
            findings.under_another_time = findings.stamped.copies;
            findings.warnings = compared.warnings;
            findings.names = Names::from(selection);
            findings.names.found(&compared.topics);
            let verdict = findings.verdict(comparison);
            (findings, verdict)
        }
    };
    if result.as_ref().is_err_and(|err| !matches!(err, Error::Different(_))) {
        findings.names = Names::from(selection);
    }
    findings.window = window.map(Edges::from);
    findings.elapsed_ms = millis(started.elapsed());
    (findings, result)
}

/// `verify` notes only the window.
impl Notes for Option<Window> {
    fn window(&mut self, window: Window) {
        *self = Some(window);
    }

    fn read(&mut self, _: Side, _: &Sighting) {}

    fn judged(&mut self, _: &Message, _: &Sighting, _: &Judged) {}
}

impl Findings {
    pub(crate) fn example(&mut self, what: &str, example: impl Fn() -> String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("{what}: {}", example()));
        }
    }

    /// Adds what another round has found among other records.
    pub(crate) fn take_in(&mut self, other: Findings) {
        self.in_target += other.in_target;
        self.missing += other.missing;
        self.duplicated += other.duplicated;
        self.changed += other.changed;
        self.extra += other.extra;
        self.reordered = self.reordered.or(other.reordered);
        self.moved = self.moved.or(other.moved);
        self.duplicates_in_source += other.duplicates_in_source;
        self.conflicts += other.conflicts;
        self.invalid += other.invalid;
        self.stamped.copies += other.stamped.copies;
        self.stamped.lacking += other.stamped.lacking;
        other.examples.into_iter().for_each(|example| {
            if self.examples.len() < EXAMPLES {
                self.examples.push(example);
            }
        });
    }

    /// Counts the records that the target lacks, that it holds too often or with another content, and that it should
    /// not hold.
    fn differences(&self) -> u64 {
        self.missing + self.duplicated + self.changed + self.extra
    }

    fn verdict(&mut self, comparison: &Comparison) -> Result<()> {
        let out_of_place = self.reordered.unwrap_or(0) + self.moved.unwrap_or(0);
        let is_in_place = !comparison.strict_order || (out_of_place == 0 && self.reordered.is_some());
        let differs = self.differences() + self.under_another_time > 0;
        self.same = !differs && is_in_place;
        if self.same {
            return Ok(());
        }
        if !differs && self.reordered.is_none() {
            return Err(Error::failed(
                "the records are the same, but their order was not judged: --index-memory has no room for the places of \
                 all of them; raise it, or leave --strict-order out",
            )
            .because(Reason::IndexMemory));
        }
        let mut told = format!(
            "{} and {} differ in the window: {} missing, {} duplicated, {} changed, {} extra",
            self.names.shown_source(),
            self.names.shown_target(),
            self.missing,
            self.duplicated,
            self.changed,
            self.extra
        );
        match (self.reordered, self.moved) {
            (Some(reordered), Some(moved)) => told += &format!(", {reordered} reordered, {moved} moved"),
            _ => told += ", order not judged",
        }
        if self.under_another_time > 0 {
            told += &format!(", {} copies with another timestamp", self.under_another_time);
        }
        Err(Error::different(told))
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, target) = (self.names.shown_source(), self.names.shown_target());
        writeln!(f, "{source} = {target} ?  {}", self.window.clone().unwrap_or_default())?;
        let mut line = |name: &str, count: u64| writeln!(f, "  {name:<22}{count:>12}");
        line("in source", self.in_source)?;
        line("in target", self.in_target)?;
        line("missing", self.missing)?;
        line("duplicated", self.duplicated)?;
        line("changed", self.changed)?;
        line("extra", self.extra)?;
        for (name, count) in [
            ("reordered", self.reordered.unwrap_or(0)),
            ("moved", self.moved.unwrap_or(0)),
            ("duplicates in source", self.duplicates_in_source),
            ("conflicts, left out", self.conflicts),
            ("invalid, left out", self.invalid),
            ("under another time", self.under_another_time),
        ] {
            if count > 0 {
                line(name, count)?;
            }
        }
        for example in &self.examples {
            writeln!(f, "  e.g. {example}")?;
        }
        f.write_str(match (self.same, self.differences()) {
            (true, _) if self.in_source + self.in_target == 0 => "  neither holds a record in the window",
            (true, _) => "  the same records",
            (false, 0) => "  DIFFERENT: no record is missing or changed, but see the counts above",
            (false, _) => "  DIFFERENT",
        })
    }
}
