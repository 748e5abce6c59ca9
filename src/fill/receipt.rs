//! The receipt of a run, for people and for machines.

use std::fmt;

use serde::Serialize;

use crate::base::error::Result;
use crate::base::time::rfc3339;
use crate::fill::consequences::Consequences;
use crate::fill::differences::Difference;
use crate::job::names::Names;
use crate::job::window::Edges;
use crate::kafka::mark::Done;

/// The receipt of a run. Its counts are numbers of records; its times are RFC 3339 in UTC.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Receipt {
    /// `None` until the window is resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Edges>,
    #[serde(flatten)]
    pub names: Names,
    #[serde(flatten)]
    pub counts: Counts,
    /// How many records a run would write. Only in a plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_write: Option<u64>,
    /// The command that fills the window, with an identity that has no conflicts. Only in a plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The effects of the fill on the target's readers. Only in a plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consequences: Option<Consequences>,
    /// How the topics differ in what they take and keep. Only in a plan.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
    pub duplicates_in_target: u64,
    pub transactions: u64,
    pub aborted_transactions: u64,
    /// How often the run started up again after a failure.
    pub restarts: u64,
    /// The work of an earlier run, if nothing was left to do. The counts are then 0, because this run read nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done_before: Option<DoneBefore>,
    pub elapsed_ms: u64,
    /// With --max-out-of-orderness: the run took the source for no further out of order than this, as `10m`, and did not
    /// look for records of the window behind that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assumed_max_out_of_orderness: Option<String>,
    /// Whether the target holds all records that the promise covers.
    pub complete: bool,
    pub warnings: Vec<String>,
    /// Some of the conflicting, invalid and refused records.
    pub examples: Vec<String>,
}

impl Receipt {
    /// Whether the counts mean something: the run ended well, or it has read records. An aborted transaction has read
    /// records too, although the counts leave them out.
    pub fn has_read(&self, result: &Result<()>) -> bool {
        result.is_ok() || self.counts.read > 0 || self.aborted_transactions > 0
    }
}

/// The run that read the window to its end and checked what it wrote; with `--scale-out`, all instances together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DoneBefore {
    /// RFC 3339, in UTC.
    pub at: String,
    pub in_window: u64,
    pub written: u64,
}

impl From<Done> for DoneBefore {
    fn from(Done { at, in_window, written }: Done) -> DoneBefore {
        DoneBefore { at: rfc3339(at), in_window, written }
    }
}

/// The numbers of the source's records, by their fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub read: u64,
    pub in_window: u64,
    pub already_in_target: u64,
    pub duplicates_in_source: u64,
    pub conflicts: u64,
    /// Records without identity, event time or target partition, or with a timestamp that cannot be written.
    pub invalid: u64,
    /// Records that would be written, but that the target's broker would refuse or delete.
    pub refused: u64,
    pub written: u64,
    /// Bytes of the keys and values among `written`.
    #[serde(skip)]
    pub written_bytes: u64,
    /// Records among `written` that were copied after the joint, with --follow.
    #[serde(skip_serializing_if = "is_zero")]
    pub followed: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Counts {
    /// How many records were judged. Each valid record has exactly one of these fates.
    pub(crate) fn judged(&self) -> u64 {
        self.already_in_target + self.duplicates_in_source + self.conflicts + self.refused + self.written
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.read += other.read;
        self.in_window += other.in_window;
        self.already_in_target += other.already_in_target;
        self.duplicates_in_source += other.duplicates_in_source;
        self.conflicts += other.conflicts;
        self.invalid += other.invalid;
        self.refused += other.refused;
        self.written += other.written;
        self.written_bytes += other.written_bytes;
        self.followed += other.followed;
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.counts;
        let (source, target) = (self.names.shown_source(), self.names.shown_target());
        match &self.window {
            None if c.followed > 0 => writeln!(f, "{source} -> {target}  since the joint")?,
            window => writeln!(f, "{source} -> {target}  {}", window.clone().unwrap_or_default())?,
        }
        let mut line = |name: &str, count: u64| writeln!(f, "  {name:<22}{count:>12}");
        if self.done_before.is_none() {
            line("read", c.read)?;
            line("in window", c.in_window)?;
            line("already in target", c.already_in_target)?;
            match self.to_write {
                Some(to_write) => line("to write", to_write)?,
                None => line("written", c.written)?,
            }
            if c.followed > 0 {
                line("of them, following", c.followed)?;
            }
        }
        for (name, count) in [
            ("duplicates in source", c.duplicates_in_source),
            ("duplicates in target", self.duplicates_in_target),
            ("conflicts", c.conflicts),
            ("invalid", c.invalid),
            ("refused by the target", c.refused),
            ("transactions", self.transactions),
            ("aborted transactions", self.aborted_transactions),
            ("restarts", self.restarts),
        ] {
            if count > 0 {
                line(name, count)?;
            }
        }
        if let Some(DoneBefore { at, in_window, written }) = &self.done_before {
            writeln!(
                f,
                "  nothing is left to do: the run that ended at {at} read {in_window} records of the window and wrote {written}"
            )?;
        }
        if let Some(bound) = &self.assumed_max_out_of_orderness {
            writeln!(
                f,
                "  assumed that no record of {source} is more than {bound} older than an earlier one of its partition"
            )?;
        }
        for example in &self.examples {
            writeln!(f, "  e.g. {example}")?;
        }
        for sentence in
            self.consequences.iter().flat_map(|c| c.sentences(&target, self.to_write.unwrap_or(0)))
        {
            writeln!(f, "  - {sentence}")?;
        }
        if !self.differences.is_empty() {
            writeln!(f, "  the topics differ:")?;
            writeln!(f, "    {:<24}{:>22}{:>22}", "", "source", "target")?;
            for Difference { property, source, target, command } in &self.differences {
                writeln!(f, "    {property:<24}{source:>22}{target:>22}")?;
                if let Some(command) = command {
                    writeln!(f, "      {command}")?;
                }
            }
        }
        if let Some(command) = &self.command {
            writeln!(f, "  {command}")?;
        }
        #[expect(clippy::cast_precision_loss, reason = "for reading")]
        let seconds = self.elapsed_ms as f64 / 1000.0;
        let state = match (self.complete, self.to_write) {
            (true, Some(_)) => "plan complete, nothing was written",
            (true, None) => "complete",
            (false, _) => "NOT complete",
        };
        write!(f, "  {state} after {seconds:.1} s")
    }
}
