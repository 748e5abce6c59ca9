//! Compares two topics in little memory, by sums of hashes. Pure.
//!
//! Each record has a keyed 128-bit hash. The source's records add theirs to a cell, and the target's records subtract
//! theirs, modulo 2^128. A record's cell follows from its event time and its identity, so equal records meet in one
//! cell. If both topics hold the same records, each cell is 0 in the end. If they do not, a cell is 0 by chance only: the
//! odds that a given difference goes unseen are at most 2^-64. XOR would not do, since a record would cancel its double.

use std::ops::Range;

use super::steps::{Merge, Steps};
use crate::job::identity::IdentityHash;
use crate::judge::{Sighting, Signature};
use crate::kafka::sides::Side;

/// The cells of one step of time. Each takes one class of identities.
pub(super) const CLASSES: usize = 256;

/// The fewest and the most steps of time.
const STEPS: (usize, usize) = (16, 8192);

#[derive(Clone, Copy, Default)]
struct Cell {
    /// The halves of a sum, so that a cell takes 24 bytes.
    sum: [u64; 2],
    source: u32,
    target: u32,
}

impl Cell {
    fn sum(&self) -> u128 {
        u128::from(self.sum[0]) << 64 | u128::from(self.sum[1])
    }

    #[expect(clippy::cast_possible_truncation, reason = "the halves of a sum")]
    fn add(&mut self, sum: u128, source: u32, target: u32) {
        let sum = self.sum().wrapping_add(sum);
        self.sum = [(sum >> 64) as u64, sum as u64];
        self.source = self.source.wrapping_add(source);
        self.target = self.target.wrapping_add(target);
    }

    fn differs(&self) -> bool {
        self.sum != [0; 2] || self.source != self.target
    }
}

/// The cells of one step.
struct Cells(Box<[Cell; CLASSES]>);

impl Default for Cells {
    fn default() -> Cells {
        Cells(Box::new([Cell::default(); CLASSES]))
    }
}

impl Merge for Cells {
    fn merge(&mut self, other: &Cells) {
        for (cell, more) in self.0.iter_mut().zip(other.0.iter()) {
            cell.add(more.sum(), more.source, more.target);
        }
    }
}

/// The sums of two topics, by steps of event time and by classes of identities.
pub(super) struct Sums {
    steps: Steps<Cells>,
}

/// What the records of some cells add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Total {
    sum: u128,
    records: i64,
}

impl Total {
    /// The source's records less the target's.
    pub(super) fn records(&self) -> i64 {
        self.records
    }

    pub(super) fn add(&mut self, side: Side, signature: Signature) {
        let (sum, one) = match side {
            Side::Source => (term(signature), 1),
            Side::Target => (term(signature).wrapping_neg(), -1),
        };
        self.sum = self.sum.wrapping_add(sum);
        self.records += one;
    }
}

/// The class of an identity. Its bits lie where no hash table looks for the place of a key.
pub(super) fn class(identity: IdentityHash) -> usize {
    usize::from((identity[0] >> 24).to_le_bytes()[0])
}

/// The hash of a record, of which the sums are made.
pub(super) fn term(signature: Signature) -> u128 {
    let [first, second] = signature.exact_key();
    u128::from(first) << 64 | u128::from(second)
}

impl Sums {
    /// The cells take at most `memory` bytes, but never less than 100 KB.
    pub(super) fn new(memory: usize) -> Sums {
        let most = (memory / size_of::<[Cell; CLASSES]>()).clamp(STEPS.0, STEPS.1);
        Sums { steps: Steps::new(most) }
    }

    /// Adds a record of the source, or subtracts one of the target.
    pub(super) fn add(&mut self, side: Side, seen: &Sighting) {
        let cell = &mut self.steps.at(seen.time).0[class(seen.signature.identity)];
        match side {
            Side::Source => cell.add(term(seen.signature), 1, 0),
            Side::Target => cell.add(term(seen.signature).wrapping_neg(), 0, 1),
        }
    }

    /// Whether the topics differ in the cell of this record. If not, both hold the record equally often.
    pub(super) fn differ_at(&self, seen: &Sighting) -> bool {
        let cells = self.steps.get(seen.time);
        cells.is_none_or(|cells| cells.0[class(seen.signature.identity)].differs())
    }

    pub(super) fn are_equal(&self) -> bool {
        self.steps.all().all(|cells| !cells.0.iter().any(Cell::differs))
    }

    /// How many records of the source and of the target lie in cells that differ, for each class.
    pub(super) fn differing(&self) -> [[u64; 2]; CLASSES] {
        let mut found = [[0; 2]; CLASSES];
        for cells in self.steps.all() {
            for ([source, target], cell) in
                found.iter_mut().zip(cells.0.iter()).filter(|(_, cell)| cell.differs())
            {
                *source += u64::from(cell.source);
                *target += u64::from(cell.target);
            }
        }
        found
    }

    /// What all records of these classes that lie in cells that differ add up to.
    pub(super) fn total(&self, classes: &Range<usize>) -> Total {
        let mut total = Total::default();
        for cell in self.steps.all().flat_map(|cells| &cells.0[classes.clone()]) {
            total.sum = total.sum.wrapping_add(cell.sum());
            total.records += i64::from(cell.source) - i64::from(cell.target);
        }
        total
    }
}

/// Consecutive classes that have at most so many records together, unless one alone has more. Classes without records
/// need no round.
pub(super) fn rounds(loads: &[u64; CLASSES], most: u64) -> Vec<Range<usize>> {
    let mut rounds: Vec<(Range<usize>, u64)> = Vec::new();
    for (class, load) in loads.iter().enumerate().filter(|(_, load)| **load > 0) {
        match rounds.last_mut().filter(|(_, all)| all + load <= most) {
            Some((classes, all)) => (classes.end, *all) = (class + 1, *all + load),
            None => rounds.push((class..class + 1, *load)),
        }
    }
    rounds.into_iter().map(|(classes, _)| classes).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen(identity: u64, content: u64, time: Option<i64>) -> Sighting {
        let spread = |n: u64| {
            let n = (n.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (n ^ n >> 29).wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(31)
        };
        let exact = spread(identity * 1009 + content).wrapping_add(time.unwrap_or(-7).cast_unsigned());
        let signature = Signature { identity: [spread(identity), spread(!identity)], exact, loose: exact };
        Sighting { time, signature, ..Sighting::default() }
    }

    fn few() -> impl Strategy<Value = Vec<(u64, u64, Option<i64>)>> {
        prop::collection::vec((0_u64..40, 0_u64..3, prop::option::of(-9_i64..3_000_000)), 0..60)
    }

    proptest! {
        /// A record whose number differs is always in a cell that differs, and equal topics are equal in each cell,
        /// however often the steps were widened.
        #[test]
        fn each_difference_is_seen(both in few(), source in few(), target in few()) {
            let mut sums = Sums::new(0);
            let of = |(identity, content, time): &(u64, u64, Option<i64>)| seen(*identity, *content, *time);
            let topics = [(Side::Source, &source), (Side::Target, &target)];
            for (side, own) in topics {
                both.iter().chain(own).for_each(|record| sums.add(side, &of(record)));
            }
            let count = |topic: &[(u64, u64, Option<i64>)], record| topic.iter().filter(|r| *r == record).count();
            for record in source.iter().chain(&target) {
                if count(&source, record) != count(&target, record) {
                    prop_assert!(sums.differ_at(&of(record)));
                }
            }
            let (mut left, mut right) = (source.clone(), target.clone());
            left.sort_unstable();
            right.sort_unstable();
            prop_assert_eq!(sums.are_equal(), left == right);
            let mut total = Total::default();
            for (side, own) in topics {
                let all = both.iter().chain(own).map(of);
                all.filter(|seen| sums.differ_at(seen)).for_each(|seen| total.add(side, seen.signature));
            }
            prop_assert_eq!(sums.total(&(0..CLASSES)), total);
        }
    }

    #[test]
    fn the_number_of_cells_does_not_depend_on_the_timestamps() {
        let mut sums = Sums::new(0);
        for time in (0..10_000).map(|n| n * 977).chain([i64::MIN, i64::MAX, -1, 4_102_444_800_000]) {
            sums.add(Side::Source, &seen(1, 1, Some(time)));
            assert!(sums.steps.len() <= STEPS.0);
        }
        assert_eq!(sums.differing().iter().flatten().sum::<u64>(), 10_004);
    }

    #[test]
    fn a_double_does_not_cancel_itself() {
        let mut sums = Sums::new(0);
        for _ in 0..2 {
            sums.add(Side::Source, &seen(1, 1, Some(1)));
        }
        assert!(!sums.are_equal());
    }
}
