//! Describes the effects of a fill on the target's readers. A plan reports them for the user's own topics.

mod gather;
mod groups;

use serde::Serialize;

pub(crate) use gather::Foresight;

/// The effects of a fill, besides the records that it writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Consequences {
    /// How many of the keys that would be written have a later record in the target; `None` if unknown.
    pub keys_with_newer_records: Option<u64>,
    /// False if there may be more of these keys.
    pub keys_are_exact: bool,
    /// `None` if the topic's configuration is not visible.
    pub target_is_compacted: Option<bool>,
    /// Consumer groups with committed offsets on the target, by name.
    pub groups: Vec<Group>,
    /// The bytes of keys and values, before compression.
    pub bytes_to_write: u64,
    /// How the producer compresses them; `none` if it does not.
    pub compression: String,
    /// The empty topic of the target's cluster for whose partitions the fill commits its positions; `None` if it commits
    /// them for the source. The fill creates the topic if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger: Option<String>,
    /// The group that commits the positions. A fill needs rights on it, and on the transactional id of this name.
    pub group: String,
    /// How long the fill would take; see `estimate_basis`.
    pub estimated_ms: u64,
    pub estimate_basis: String,
    /// How long a transaction of the fill usually stays open before it is committed.
    pub transaction_ms: u64,
    /// How long a transaction stays open at most, if the fill dies and no run follows it.
    pub transaction_timeout_ms: u64,
    /// The facts that the plan could not find out, one clause for each.
    pub not_known: Vec<String>,
}

/// A consumer group of the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    pub group: String,
    /// How many offsets its commits are behind the ends, in the partitions where it has committed.
    pub lag: u64,
    /// Whether the group has read all records of the window in the target; if there are none, whether it has reached
    /// the first later record.
    pub past_window: bool,
}

impl Consequences {
    /// One sentence for each consequence, if `to_write` records would be written to `target`.
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
                "{target} is compacted: for each key that would be written, the next compaction deletes the records \
                 that are there now, even newer ones"
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
                    "group {group} (lag {lag}) has not read all of the window: it will get the {to_write} events after \
                     everything that is in {target} now"
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
             records of aborted transactions (after a kill, for example), and see them again when they are written \
             again; only readers with read_committed see each record once"
        ));
        told.push(format!(
            "while a transaction of the fill is open, readers of {target} with read_committed get no record that comes \
             after its first one, not even from other producers: usually for about {} s, and if the fill dies, until \
             the next run begins, or for {} s",
            seconds(self.transaction_ms),
            seconds(self.transaction_timeout_ms)
        ));
        let compressed = match self.compression.as_str() {
            "none" => "not compressed".to_owned(),
            codec => format!("compressed with {codec}"),
        };
        told.push(format!("{} bytes of keys and values would be written, {compressed}", self.bytes_to_write));
        if let Some(ledger) = &self.ledger {
            told.push(format!(
                "positions would be committed in the target cluster by the group {} and a transactional id of this \
                 name, as offsets of the empty topic {ledger}, which the fill creates if it is missing",
                self.group
            ));
        }
        told.push(format!(
            "it would take about {:.1} s: {}",
            seconds(self.estimated_ms),
            self.estimate_basis
        ));
        told.extend(self.not_known.iter().map(|what| format!("not known: {what}")));
        told
    }
}
