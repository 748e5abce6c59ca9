//! What a fill would mean for those who read the target: told by a plan, of the user's own topics.

mod gather;
mod groups;

use serde::Serialize;

pub(crate) use gather::Foresight;

/// What follows from a fill, besides its records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Consequences {
    /// Keys that would be written and have a record of a later time in the target; `None` where not known.
    pub keys_with_newer_records: Option<u64>,
    /// False where there may be more of these keys.
    pub keys_are_exact: bool,
    /// `None` where the topic's configuration is not visible.
    pub target_is_compacted: Option<bool>,
    /// Consumer groups with committed offsets on the target, by name.
    pub groups: Vec<Group>,
    /// Of keys and values, before compression.
    pub bytes_to_write: u64,
    /// How long the fill would take; see `estimate_basis`.
    pub estimated_ms: u64,
    pub estimate_basis: String,
    /// How long a transaction of the fill is open before it is committed, as a rule.
    pub transaction_ms: u64,
    /// How long one is open at most, where the fill dies and no run follows it.
    pub transaction_timeout_ms: u64,
    /// What could not be found out, a sentence each.
    pub not_known: Vec<String>,
}

/// A consumer group of the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    pub group: String,
    /// Offsets between what it has committed and the ends, of the partitions where it has committed.
    pub lag: u64,
    /// Whether it has read all that the target holds of the window, or something later than the window.
    pub past_window: bool,
}

impl Consequences {
    /// A sentence for each, where `to_write` records would be written to `target`.
    pub fn sentences(&self, target: &str, to_write: u64) -> Vec<String> {
        let mut told = Vec::new();
        if to_write == 0 {
            told.push(format!("nothing would be written, so nothing changes for the readers of {target}"));
            return told;
        }
        let least = if self.keys_are_exact { "" } else { "at least " };
        match self.keys_with_newer_records {
            None => {}
            Some(0) if self.keys_are_exact => {
                told.push(format!("no key that would be written has a newer record in {target}"));
            }
            Some(keys) => told.push(format!(
                "{least}{keys} of the keys that would be written have a newer record in {target}: readers that keep \
                 the last value of a key will see it go back in time, unless they compare times"
            )),
        }
        if self.target_is_compacted == Some(true) {
            told.push(format!(
                "{target} is compacted: of each key that would be written, what stands there now is deleted by the \
                 next compaction, also where it is newer"
            ));
        }
        for Group { group, lag, past_window } in &self.groups {
            told.push(if *past_window {
                format!(
                    "group {group} (lag {lag}) has read past the window: it will get the {to_write} old events as new \
                     ones"
                )
            } else {
                format!(
                    "group {group} (lag {lag}) has not read all of the window: it will get the {to_write} events \
                     behind all that is in {target} now"
                )
            });
        }
        if self.groups.is_empty() {
            told.push(format!("no consumer group that could be asked has committed offsets on {target}"));
        }
        let seconds = |millis: u64| {
            #[expect(clippy::cast_precision_loss, reason = "for reading")]
            let seconds = millis as f64 / 1000.0;
            seconds
        };
        told.push(format!(
            "readers of {target} with isolation.level=read_uncommitted, the default of Java's clients, also see the \
             records of transactions that are aborted (by a kill, say), and see them again when they are written anew; \
             only readers with read_committed see each record once"
        ));
        told.push(format!(
            "while a transaction of the fill is open, readers of {target} with read_committed get nothing that is behind \
             its first record, of other producers neither: about {} s as a rule, and where the fill dies until the next \
             run begins, or for {} s",
            seconds(self.transaction_ms),
            seconds(self.transaction_timeout_ms)
        ));
        told.push(format!("{} bytes of keys and values would be written", self.bytes_to_write));
        told.push(format!(
            "it would take about {:.1} s: {}",
            seconds(self.estimated_ms),
            self.estimate_basis
        ));
        told.extend(self.not_known.iter().map(|what| format!("not known: {what}")));
        told
    }
}
