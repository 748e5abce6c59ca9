//! Remembers where a sent record comes from, for the report about its delivery.

/// The place that a record comes from, packed so that librdkafka can carry it with a message. The low 48 bits are an
/// offset or a line. The high bits are one more than the partition, or 0 for a line. 0 as a whole means unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin(usize);

const BITS: u32 = 48;

impl Origin {
    pub fn record(partition: i32, offset: i64) -> Origin {
        let partition = u16::try_from(partition).ok().and_then(|partition| partition.checked_add(1));
        Origin::packed(partition.map(u64::from), u64::try_from(offset).ok())
    }

    /// A line of a file; the first line is 1.
    pub fn line(line: u64) -> Origin {
        Origin::packed(Some(0), Some(line))
    }

    fn packed(high: Option<u64>, low: Option<u64>) -> Origin {
        let low = low.filter(|low| low >> BITS == 0);
        let both = high.zip(low).and_then(|(high, low)| usize::try_from(high << BITS | low).ok());
        Origin(both.unwrap_or(0))
    }

    pub(super) fn of_opaque(opaque: usize) -> Origin {
        Origin(opaque)
    }

    pub(super) fn as_opaque(self) -> usize {
        self.0
    }

    /// Names the record by its place in the topic or the file `name`.
    pub(super) fn within(self, name: &str) -> String {
        let (high, low) = (self.0 as u64 >> BITS, self.0 as u64 & ((1 << BITS) - 1));
        match (high, low) {
            (0, 0) => format!("a record of {name}"),
            (0, line) => format!("line {line} of {name}"),
            (partition, offset) => format!("{name}-{}@{offset}", partition - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Origin::record(0, 0), "a-0@0")]
    #[case(Origin::record(7, 123), "a-7@123")]
    #[case(Origin::record(65_534, (1 << 48) - 1), "a-65534@281474976710655")]
    #[case(Origin::record(65_535, 0), "a record of a")]
    #[case(Origin::record(0, 1 << 48), "a record of a")]
    #[case(Origin::record(-1, -1), "a record of a")]
    #[case(Origin::line(1), "line 1 of a")]
    #[case(Origin::line(u64::MAX), "a record of a")]
    fn origins(#[case] origin: Origin, #[case] text: &str) {
        assert_eq!(Origin::of_opaque(origin.as_opaque()).within("a"), text);
    }
}
