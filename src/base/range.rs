//! Partitions and offsets in them. Pure.

/// Offsets `[start, end)` of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub partition: i32,
    pub start: i64,
    pub end: i64,
}

impl Range {
    /// The ranges from `starts` to `ends`, by partition.
    pub fn all(starts: &[i64], ends: &[i64]) -> Vec<Range> {
        let ranges = starts.iter().zip(ends).enumerate();
        ranges
            .map(|(partition, (start, end))| Range { partition: id(partition), start: *start, end: *end })
            .collect()
    }

    pub fn len(&self) -> u64 {
        u64::try_from(self.end - self.start).unwrap_or(0)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The partition's number: Kafka uses an `i32`, and we keep partitions in vectors.
pub(crate) fn id(partition: usize) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

/// The inverse of [`id`].
pub(crate) fn index(partition: i32) -> usize {
    usize::try_from(partition).unwrap_or(usize::MAX)
}
