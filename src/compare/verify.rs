//! Compares every record of the window in both topics.

use std::fmt;
use std::time::Instant;

use serde::Serialize;

use crate::base::error::{Error, Result};
use crate::base::interrupt::Interrupt;
use crate::base::progress::Progress;
use crate::base::time::millis;
use crate::compare::{Pairing, compare};
use crate::job::Selection;
use crate::job::names::Names;
use crate::job::window::Edges;

/// Two topics, and the window in which they should hold the same records.
#[derive(Clone)]
pub struct Comparison {
    pub selection: Selection,
    /// Whether another order or another partition is a difference too.
    pub strict_order: bool,
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
    /// Records that come before some record in their source partition, but after it in the target.
    pub reordered: u64,
    /// Records in another partition than in the source, if both topics have the same number of partitions.
    pub moved: u64,
    /// Records of the source that equal an earlier one there. One copy in the target is enough. Records above the joint
    /// of a follow, and all records with `--identity record`, need a copy each and are not among these.
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
    pub examples: Vec<String>,
}

const EXAMPLES: usize = 10;

/// Reads the committed records of both topics' windows, up to the present ends.
///
/// # Errors
/// [`Error::Different`] if the findings show a difference; the other errors that the exit codes stand for.
pub fn verify(comparison: &Comparison, progress: Progress, interrupt: &Interrupt) -> (Findings, Result<()>) {
    let started = Instant::now();
    let mut pairing = Pairing::new(&comparison.selection);
    let compared = compare(&comparison.selection, progress, interrupt, &mut pairing);
    let (mut findings, result) = match compared {
        Err(err) => (pairing.found, Err(err)),
        Ok(mut compared) => {
            let mut findings = pairing.settle(compared.keeps_partitions());
            let matters = findings.differences() + findings.duplicates_in_source > 0;
            compared.warn_of_unread_joints(&comparison.selection, matters);
            findings.under_another_time = compared.elsewhen.copies;
            findings.warnings = compared.warnings;
            findings.names.found(&compared.topics);
            let verdict = findings.verdict(comparison);
            (findings, verdict)
        }
    };
    findings.elapsed_ms = millis(started.elapsed());
    (findings, result)
}

impl Findings {
    pub(crate) fn example(&mut self, what: &str, example: impl Fn() -> String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("{what}: {}", example()));
        }
    }

    /// Counts the records that the target lacks, that it holds too often or with another content, and that it should
    /// not hold.
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
            self.names.shown_source(),
            self.names.shown_target(),
            self.missing,
            self.duplicated,
            self.changed,
            self.extra,
            self.reordered,
            self.moved
        );
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
            (false, 0) => "  DIFFERENT: no record is missing or changed, but see the counts above",
            (false, _) => "  DIFFERENT",
        })
    }
}
