//! What a sink did. Pure.

use std::fmt;

use serde::Serialize;

/// The receipt of a sink. All counts are of records.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SinkReceipt {
    pub store: String,
    pub topics: Vec<Sunk>,
    /// Written by this run, of all topics.
    pub written: u64,
    pub elapsed_ms: u64,
    /// Whether the store has all records that each topic held when the sink last asked for its ends.
    pub complete: bool,
}

/// The part of a sink's receipt about one topic.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sunk {
    pub topic: String,
    /// Written by this run.
    pub written: u64,
    /// In the store now, written by this run or earlier ones. `None` if the store did not answer, or if the run did not
    /// learn the topic's id and the store holds topics of its name.
    pub in_store: Option<u64>,
    /// Offsets from the store's positions up to the topic's ends. `None` if the sink did not ask for the ends.
    pub behind_offsets: Option<u64>,
    /// When the sink last asked for the ends, in milliseconds since the epoch.
    pub as_of_ms: Option<i64>,
}

impl fmt::Display for SinkReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "sink into {}", self.store)?;
        for sunk in &self.topics {
            write!(f, "  {:<22}{:>12} written", sunk.topic, sunk.written)?;
            sunk.in_store.map_or(Ok(()), |records| write!(f, ", {records} in the store"))?;
            match sunk.behind_offsets {
                Some(0) => {}
                Some(behind) => write!(f, ", {behind} offsets behind its end")?,
                None => write!(f, ", its end not known")?,
            }
            writeln!(f)?;
        }
        #[expect(clippy::cast_precision_loss, reason = "for reading")]
        let seconds = self.elapsed_ms as f64 / 1000.0;
        let state = if self.complete { "complete" } else { "NOT complete" };
        write!(f, "  {state} after {seconds:.1} s")
    }
}
