//! The receipt of a load, for people and for machines.

use std::fmt;

use serde::Serialize;

/// The result of a load. It counts lines or elements; times are RFC 3339 in UTC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LoadReceipt {
    pub topic: String,
    pub file: String,
    /// Lines that are not blank, or elements of the array.
    pub lines: u64,
    /// Loaded by this run.
    pub loaded: u64,
    /// Loaded by earlier runs.
    pub already_loaded: u64,
    /// `None` if the load did not finish.
    pub skipped_by_window: Option<u64>,
    /// Lines that are not events, and were left out.
    pub invalid: u64,
    /// Events without the key field. Their records have a null key.
    pub without_key: u64,
    pub key_field: String,
    pub time_field: String,
    pub transactions: u64,
    /// How often the run started again after a failure.
    pub restarts: u64,
    pub elapsed_ms: u64,
    /// Whether the whole file is in the topic.
    pub complete: bool,
    pub first_event: Option<String>,
    pub last_event: Option<String>,
}

impl fmt::Display for LoadReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} -> {}", self.file, self.topic)?;
        if let (Some(first), Some(last)) = (&self.first_event, &self.last_event) {
            writeln!(f, "  events from {first} to {last}")?;
        }
        writeln!(f, "  key {}, time {}", self.key_field, self.time_field)?;
        let mut line = |name: &str, count: u64| writeln!(f, "  {name:<22}{count:>12}");
        line("lines", self.lines)?;
        line("loaded", self.loaded)?;
        for (name, count) in [
            ("already loaded", self.already_loaded),
            ("skipped by window", self.skipped_by_window.unwrap_or(0)),
            ("invalid", self.invalid),
            ("without key", self.without_key),
            ("transactions", self.transactions),
            ("restarts", self.restarts),
        ] {
            if count > 0 {
                line(name, count)?;
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "for reading")]
        let seconds = self.elapsed_ms as f64 / 1000.0;
        let state = match (self.complete, self.transactions) {
            (true, 0) => "was complete before",
            (true, _) => "complete",
            (false, _) => "NOT complete",
        };
        write!(f, "  {state} after {seconds:.1} s")
    }
}
