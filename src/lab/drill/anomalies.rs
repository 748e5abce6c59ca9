//! What a round can find wrong with records, by name. Pure.

use std::fmt;

use serde::ser::{Serialize, SerializeMap, Serializer};

/// How often each anomaly was found, in numbers of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Anomalies {
    /// Records that are not in the target, although they are in the source's window or were in the target before. Or a
    /// reader saw them, and nothing is at their offset any more.
    pub lost_write: u64,
    /// Records that are in the target more often than before or, if they were not there before, more than once.
    pub duplicate: u64,
    /// Records with the key of a lost record, but another content.
    pub changed: u64,
    /// Records of the target that are not in the source's window, were not in the target before, and were not aborted.
    pub extra: u64,
    /// Records of aborted transactions that a read_committed reader saw.
    pub aborted_read: u64,
    /// Records that come in the target after a record that follows them in their partition of the source.
    pub nonmonotonic_send: u64,
    /// Records in another partition than their original, although both topics have equally many.
    pub moved: u64,
    /// Records that the watching reader got at an offset that was not above the one before.
    pub nonmonotonic_poll: u64,
    /// Records that the watching reader passed over.
    pub poll_skip: u64,
    /// Records behind all that the watching reader got.
    pub unseen: u64,
    /// Offsets at which two readers saw different records.
    pub inconsistent_offsets: u64,
    /// Records without the position that was committed with them, or positions without their records, to a reader that
    /// asks for both.
    pub torn_transaction: u64,
}

impl Anomalies {
    /// The one place that gives them their names. They are those of `jepsen.tests.kafka`, where it has the same meaning:
    /// all but `changed`, `extra`, `moved` and `torn-transaction`.
    fn each_mut(&mut self) -> [(&'static str, &mut u64); 12] {
        [
            ("lost-write", &mut self.lost_write),
            ("duplicate", &mut self.duplicate),
            ("changed", &mut self.changed),
            ("extra", &mut self.extra),
            ("G1a", &mut self.aborted_read),
            ("nonmonotonic-send", &mut self.nonmonotonic_send),
            ("moved", &mut self.moved),
            ("nonmonotonic-poll", &mut self.nonmonotonic_poll),
            ("poll-skip", &mut self.poll_skip),
            ("unseen", &mut self.unseen),
            ("inconsistent-offsets", &mut self.inconsistent_offsets),
            ("torn-transaction", &mut self.torn_transaction),
        ]
    }

    pub fn each(mut self) -> [(&'static str, u64); 12] {
        self.each_mut().map(|(name, count)| (name, *count))
    }

    pub fn is_none(&self) -> bool {
        *self == Anomalies::default()
    }

    pub fn add(&mut self, other: &Anomalies) {
        for ((_, sum), (_, count)) in self.each_mut().into_iter().zip(other.each()) {
            *sum += count;
        }
    }
}

/// An object with a number for each name.
impl Serialize for Anomalies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let all = self.each();
        let mut map = serializer.serialize_map(Some(all.len()))?;
        for (name, count) in all {
            map.serialize_entry(name, &count)?;
        }
        map.end()
    }
}

/// Those that were found: `2 lost-write, 1 duplicate`, or `no anomaly`.
impl fmt::Display for Anomalies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.each().into_iter().filter(|(_, count)| *count > 0);
        let told: Vec<String> = found.map(|(name, count)| format!("{count} {name}")).collect();
        f.write_str(if told.is_empty() { "no anomaly" } else { "" })?;
        f.write_str(&told.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_name() {
        let one = Anomalies { lost_write: 2, torn_transaction: 1, ..Anomalies::default() };
        let mut sum = one;
        sum.add(&one);
        assert_eq!(sum.to_string(), "4 lost-write, 2 torn-transaction");
        assert_eq!(Anomalies::default().to_string(), "no anomaly");
        let told = serde_json::to_value(sum).expect("JSON");
        assert_eq!((&told["lost-write"], &told["G1a"]), (&4.into(), &0.into()));
    }
}
