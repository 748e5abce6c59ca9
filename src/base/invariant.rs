//! The invariants of `lib.rs` that a program can check, by their numbers there. Debug builds and tests check them. If
//! one is broken, this program has a fault, so the check panics. The broker keeps 1 and 2; the drills test that it
//! does.

use std::collections::BTreeSet;

use crate::base::range::{Range, id, index};

/// 3: a mark says the same when a later run reads it.
#[track_caller]
pub(crate) fn a_mark_reads_back<M: PartialEq + std::fmt::Debug>(written: &M, read: impl Fn() -> Option<M>) {
    debug_assert_eq!(Some(written), read().as_ref(), "invariant 3: a later run would read another mark");
}

/// 4: a range that is read ends where the start-up saw the partition end.
#[track_caller]
pub(crate) fn ends_never_move(ranges: &[Range], ends: &[i64]) {
    for range in ranges {
        let end = ends[index(range.partition)];
        debug_assert_eq!(range.end, end, "invariant 4: the end of partition {} moved", range.partition);
    }
}

/// 4: a committed position lies at or below the end, because every transaction below the end had ended before the run
/// read.
#[track_caller]
pub(crate) fn no_position_passes_an_end(positions: &[(i32, i64)], ends: &[i64]) {
    for (partition, end) in ends.iter().enumerate() {
        for (_, position) in positions.iter().filter(|(of, _)| *of == id(partition)) {
            debug_assert!(position <= end, "invariant 4: {position} of partition {partition} passes {end}");
        }
    }
}

/// 5: in one start-up, a partition's position never falls.
#[track_caller]
pub(crate) fn positions_only_rise(before: &[(i32, i64)], now: &[(i32, i64)]) {
    for (partition, position) in now {
        let fell = before.iter().find(|(of, before)| of == partition && before > position);
        debug_assert_eq!(fell, None, "invariant 5: partition {partition} fell to {position}");
    }
}

/// 5: a reading is done when each position is at its end.
#[track_caller]
pub(crate) fn done_is_at_the_ends(positions: &[(i32, i64)], ranges: &[Range]) {
    for range in ranges {
        let is_there = positions.contains(&(range.partition, range.end.max(range.start)));
        debug_assert!(is_there, "invariant 5: the reading ended before {range:?} did");
    }
}

/// 6: the judge decides about each record of the window once. Records that count as `invalid` may be in the window or
/// outside of it.
#[track_caller]
pub(crate) fn each_record_has_one_fate(in_window: u64, judged: u64, invalid: u64) {
    let fates = judged..=judged + invalid;
    debug_assert!(fates.contains(&in_window), "invariant 6: {in_window} records, and {fates:?} fates");
}

/// 7: a start-up begins only after the producer of the start-up before it is gone. `holders` counts the owners of a
/// value that each live producer shares; 1 means that no producer lives.
#[track_caller]
pub(crate) fn nothing_is_left(holders: usize) {
    debug_assert_eq!(holders, 1, "invariant 7: the former producer is still there");
}

/// 8: an instance commits positions only of the partitions that the group gave to it.
#[track_caller]
pub(crate) fn a_share_commits_its_own(positions: &[(i32, i64)], share: &BTreeSet<i32>) {
    for (partition, _) in positions {
        debug_assert!(share.contains(partition), "invariant 8: partition {partition} is not in {share:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: Range = Range { partition: 1, start: 3, end: 7 };

    #[test]
    fn holds() {
        a_mark_reads_back(&"mark", || Some("mark"));
        ends_never_move(&[RANGE], &[5, 7]);
        no_position_passes_an_end(&[(1, 7)], &[5, 7]);
        positions_only_rise(&[(0, 9), (1, 3)], &[(1, 3)]);
        done_is_at_the_ends(&[(1, 7)], &[RANGE]);
        done_is_at_the_ends(&[(1, 9)], &[Range { start: 9, ..RANGE }]);
        each_record_has_one_fate(10, 8, 3);
        nothing_is_left(1);
        a_share_commits_its_own(&[(1, 7)], &[1].into());
    }

    #[test]
    #[should_panic(expected = "invariant 3")]
    fn another_mark() {
        a_mark_reads_back(&"mark", || Some("other"));
    }

    #[test]
    #[should_panic(expected = "invariant 4")]
    fn an_end_that_moved() {
        ends_never_move(&[RANGE], &[5, 8]);
    }

    #[test]
    #[should_panic(expected = "invariant 4")]
    fn a_position_behind_the_end() {
        no_position_passes_an_end(&[(1, 8)], &[9, 7]);
    }

    #[test]
    #[should_panic(expected = "invariant 5")]
    fn a_position_that_fell() {
        positions_only_rise(&[(0, 1), (1, 4)], &[(1, 3)]);
    }

    #[test]
    #[should_panic(expected = "invariant 5")]
    fn done_before_the_end() {
        done_is_at_the_ends(&[(1, 6)], &[RANGE]);
    }

    #[test]
    #[should_panic(expected = "invariant 6")]
    fn a_record_without_a_fate() {
        each_record_has_one_fate(10, 6, 3);
    }

    #[test]
    #[should_panic(expected = "invariant 6")]
    fn a_record_with_two_fates() {
        each_record_has_one_fate(10, 11, 0);
    }

    #[test]
    #[should_panic(expected = "invariant 7")]
    fn a_producer_that_stayed() {
        nothing_is_left(2);
    }

    #[test]
    #[should_panic(expected = "invariant 8")]
    fn a_partition_of_another_instance() {
        a_share_commits_its_own(&[(0, 7)], &[1].into());
    }
}
