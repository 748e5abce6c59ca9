//! Compares every record of the window in both topics.

use std::fmt;
use std::time::Instant;

use serde::Serialize;

use crate::base::error::{Error, Result};
use crate::base::interrupt::Interrupt;
use crate::base::progress::Progress;
use crate::compare::{Ledger, compare};
use crate::job::Selection;
use crate::job::window::Edges;

/// Two topics and the window in which they are to hold the same.
#[derive(Clone)]
pub struct Comparison {
    pub selection: Selection,
    /// Another order, or another partition, fails the comparison too.
    pub strict_order: bool,
}

/// What the comparison found; counts are of records.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Findings {
    /// `None` until it was resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Edges>,
    pub source: String,
    pub target: String,
    pub in_source: u64,
    pub in_target: u64,
    /// In the source's window and not in the target's.
    pub missing: u64,
    /// Further copies in the target than the source holds itself.
    pub duplicated: u64,
    /// The same identity with another key, value, header or timestamp.
    pub changed: u64,
    /// In the target's window and not in the source's.
    pub extra: u64,
    /// Behind a record that stands after them in their partition of the source.
    pub reordered: u64,
    /// In another partition than in the source, where both have as many.
    pub moved: u64,
    /// Equal records that the source holds more than once; one in the target is enough, unless they are counted.
    pub duplicates_in_source: u64,
    /// Left out, as `--on-conflict skip` says: another content of an identity that stands in the target.
    pub conflicts: u64,
    /// Left out, as `--skip-invalid` says: without identity or event time, or with a timestamp that cannot be written.
    pub invalid: u64,
    /// Of the target, outside of the window: equal to a record of the source's window but for the timestamp.
    pub under_another_time: u64,
    /// Whether all that was to be is in the target, once, and in order where that was asked for.
    pub same: bool,
    pub elapsed_ms: u64,
    pub warnings: Vec<String>,
    pub examples: Vec<String>,
}

const EXAMPLES: usize = 10;

/// Reads both topics' windows, committed records only, up to their ends now.
///
/// # Errors
/// [`Error::Different`] with the findings beside it; as the exit codes otherwise.
pub fn verify(comparison: &Comparison, progress: Progress, interrupt: &Interrupt) -> (Findings, Result<()>) {
    let started = Instant::now();
    let mut ledger = Ledger::new(&comparison.selection);
    let compared = compare(&comparison.selection, progress, interrupt, &mut ledger);
    let (mut findings, result) = match compared {
        Err(err) => (ledger.found, Err(err)),
        Ok(compared) => {
            let mut findings = ledger.settle(compared.source.partitions == compared.target.partitions);
            findings.under_another_time = compared.elsewhen.copies;
            findings.warnings = compared.warnings;
            let verdict = findings.verdict(comparison);
            (findings, verdict)
        }
    };
    findings.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    (findings, result)
}

impl Findings {
    pub(crate) fn example(&mut self, what: &str, example: impl Fn() -> String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("{what}: {}", example()));
        }
    }

    /// What is missing, more or other in the target than in the source.
    fn differences(&self) -> u64 {
        self.missing + self.duplicated + self.changed + self.extra
    }

    fn verdict(&mut self, comparison: &Comparison) -> Result<()> {
        let out_of_place = if comparison.strict_order { self.reordered + self.moved } else { 0 };
        self.same = self.differences() + self.under_another_time + out_of_place == 0;
        if self.same {
            return Ok(());
        }
        let mut told = format!(
            "{} and {} differ in the window: {} missing, {} duplicated, {} changed, {} extra, {} reordered, {} moved",
            self.source,
            self.target,
            self.missing,
            self.duplicated,
            self.changed,
            self.extra,
            self.reordered,
            self.moved
        );
        if self.under_another_time > 0 {
            told += &format!(", {} copies under another timestamp", self.under_another_time);
        }
        Err(Error::different(told))
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} = {} ?  {}", self.source, self.target, self.window.clone().unwrap_or_default())?;
        let mut line = |name: &str, count: u64| writeln!(f, "  {name:<22}{count:>12}");
        line("in source", self.in_source)?;
        line("in target", self.in_target)?;
        line("missing", self.missing)?;
        line("duplicated", self.duplicated)?;
        line("changed", self.changed)?;
        line("extra", self.extra)?;
        for (name, count) in [
            ("reordered", self.reordered),
            ("moved", self.moved),
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
            (false, 0) => "  DIFFERENT: each record is there, but see above",
            (false, _) => "  DIFFERENT",
        })
    }
}
