//! Counts records over time in bounded memory, and finds the stretches of time with missing records. Pure.

use std::collections::BTreeMap;

use super::steps::{Merge, Steps};
use crate::base::range::index;
use crate::kafka::sides::Side;

/// The most entries of a timeline. They take some 20 MB.
const ENTRIES: usize = 1 << 18;

/// The event times of two topics' records, counted in steps. A step takes one millisecond, and becomes longer only if
/// there are more than [`ENTRIES`] of them.
pub(super) struct Timeline {
    most: usize,
    /// The records of each step.
    counts: Steps<Counts>,
    /// The source's records that the target lacks, by step and partition. The steps are those of the counts.
    missing: BTreeMap<(i64, i32), Missing>,
    /// Each step of the missing records takes 2^shift milliseconds.
    shift: u32,
    /// The first and the last time of the source.
    span: Option<(i64, i64)>,
}

/// The records of the source, and of the target.
#[derive(Clone, Copy, Default)]
struct Counts([u64; 2]);

impl Merge for Counts {
    fn merge(&mut self, other: &Counts) {
        self.0 = [self.0[0] + other.0[0], self.0[1] + other.0[1]];
    }
}

#[derive(Clone, Copy)]
struct Missing {
    first: i64,
    last: i64,
    records: u64,
}

impl Missing {
    fn merge(&mut self, other: Missing) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.records += other.records;
    }
}

/// A stretch of time in which records are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// The event times of the first and the last missing record.
    pub first: i64,
    pub last: i64,
    /// The missing records of each partition of the source.
    pub missing: Vec<u64>,
    /// How many records the source has from the first to the last missing one, in whole steps.
    pub of: u64,
}

impl Default for Timeline {
    fn default() -> Timeline {
        Timeline::of(ENTRIES)
    }
}

impl Timeline {
    fn of(most: usize) -> Timeline {
        Timeline { most, counts: Steps::new(most), missing: BTreeMap::new(), shift: 0, span: None }
    }

    /// The length of a step, in milliseconds.
    pub(super) fn step(&self) -> i64 {
        1 << self.counts.shift()
    }

    pub(super) fn count(&mut self, side: Side, time: i64) {
        if side == Side::Source {
            let (first, last) = self.span.unwrap_or((time, time));
            self.span = Some((first.min(time), last.max(time)));
        }
        self.counts.at(Some(time)).0[usize::from(side == Side::Target)] += 1;
        self.widen();
    }

    /// Takes a record of the source that the target lacks. [`Timeline::count`] must count it too.
    pub(super) fn miss(&mut self, time: i64, partition: i32) {
        let missing = Missing { first: time, last: time, records: 1 };
        let of = self.missing.entry((time >> self.shift, partition));
        of.and_modify(|all| all.merge(missing)).or_insert(missing);
        self.widen();
    }

    /// Makes the steps longer until there are few enough, and those of the missing records as long as the others.
    fn widen(&mut self) {
        loop {
            let shorter = self.counts.shift() - self.shift;
            if shorter > 0 {
                self.shift += shorter;
                for ((step, partition), missing) in std::mem::take(&mut self.missing) {
                    let of = self.missing.entry((step >> shorter, partition));
                    of.and_modify(|all| all.merge(missing)).or_insert(missing);
                }
            }
            if self.counts.len() + self.missing.len() <= self.most || self.shift >= 62 {
                return;
            }
            self.counts.lengthen(self.shift + 1);
        }
    }

    /// From the first to behind the last time of the source; `None` if it has no record with a time.
    pub(super) fn span(&self) -> Option<(i64, i64)> {
        self.span.map(|(first, last)| (first, last.saturating_add(1)))
    }

    /// The times of a topic's records, each with a count.
    pub(super) fn times(&self, side: Side) -> Vec<(i64, u64)> {
        // The step of the source's first record begins before it.
        let first = self.span.map(|(first, _)| first >> self.shift << self.shift);
        let begin = |start: i64| self.span.filter(|_| first == Some(start)).map_or(start, |(first, _)| first);
        let each = self.counts.by_start().into_iter();
        each.filter_map(|(start, counts)| Some((begin(start?), counts.0[usize::from(side == Side::Target)])))
            .collect()
    }

    /// The stretches with missing records, in order of time. Two missing records are of one stretch if they are less
    /// than `near` milliseconds apart, or if the source has no other record in between.
    pub(super) fn stretches(&self, near: i64, partitions: usize) -> Vec<Stretch> {
        let mut found: Vec<Stretch> = Vec::new();
        // How many records of the source lie behind the last missing one.
        let mut since = 0;
        for (start, Counts([source, _])) in self.counts.by_start() {
            let Some(step) = start.map(|start| start >> self.shift) else { continue };
            let mut missing = self.missing.range((step, i32::MIN)..=(step, i32::MAX)).peekable();
            if missing.peek().is_none() {
                since += source;
                continue;
            }
            let (mut first, mut last, mut each) = (i64::MAX, i64::MIN, vec![0; partitions]);
            for ((_, partition), of) in missing {
                (first, last) = (first.min(of.first), last.max(of.last));
                if let Some(count) = each.get_mut(index(*partition)) {
                    *count += of.records;
                }
            }
            let is_near = |stretch: &&mut Stretch| since == 0 || first.saturating_sub(stretch.last) < near;
            match found.last_mut().filter(is_near) {
                Some(stretch) => {
                    stretch.last = last;
                    stretch.of += since + source;
                    stretch.missing.iter_mut().zip(each).for_each(|(all, more)| *all += more);
                }
                None => found.push(Stretch { first, last, missing: each, of: *source }),
            }
            since = 0;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// One record a second: `x` is missing in the target, `.` is there, and a blank is no record.
    fn line(text: &str, most: usize) -> Timeline {
        let mut line = Timeline::of(most);
        for (c, second) in text.chars().zip(0..).filter(|(c, _)| *c != ' ') {
            line.count(Side::Source, second * 1000);
            match c {
                'x' => line.miss(second * 1000, 0),
                _ => line.count(Side::Target, second * 1000),
            }
        }
        line
    }

    #[rstest]
    #[case("", &[])]
    #[case("....", &[])]
    #[case("..xx..", &[(2, 3)])]
    #[case("xx....", &[(0, 1)])]
    #[case("....xx", &[(4, 5)])]
    #[case("xxxxxx", &[(0, 5)])]
    #[case("x......x", &[(0, 0), (7, 7)])]
    #[case("x.x.x......xx", &[(0, 4), (11, 12)])]
    #[case("x         x", &[(0, 10)])]
    fn found(#[case] text: &str, #[case] wanted: &[(i64, i64)]) {
        let found: Vec<(i64, i64)> =
            line(text, 1000).stretches(5000, 1).iter().map(|s| (s.first / 1000, s.last / 1000)).collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_thinned_stretch_counts_what_is_there() {
        let found = line("..x.x..x..", 1000).stretches(5000, 1);
        assert_eq!(found, [Stretch { first: 2000, last: 7000, missing: vec![3], of: 6 }]);
    }

    proptest! {
        /// However few steps there are, each missing record is in one stretch, and the counts are exact.
        #[test]
        fn every_missing_record_is_in_one_stretch(text in "[x. ]{0,80}", near in 1i64..20_000, most in 4_usize..200) {
            let line = line(&text, most);
            let count = |wanted: &[char]| text.chars().filter(|c| wanted.contains(c)).count() as u64;
            prop_assert_eq!(line.times(Side::Source).iter().map(|(_, n)| n).sum::<u64>(), count(&['x', '.']));
            prop_assert_eq!(line.times(Side::Target).iter().map(|(_, n)| n).sum::<u64>(), count(&['.']));
            let found = line.stretches(near, 1);
            prop_assert!(line.counts.len() + line.missing.len() <= most);
            prop_assert_eq!(found.iter().map(|s| s.missing[0]).sum::<u64>(), count(&['x']));
            let is_missing = |time: i64| text.as_bytes().get(usize::try_from(time / 1000).unwrap_or(0)) == Some(&b'x');
            prop_assert!(found.iter().all(|s| is_missing(s.first) && is_missing(s.last) && s.of >= s.missing[0]));
            for pair in found.windows(2) {
                prop_assert!(pair[1].first - pair[0].last >= near);
            }
        }
    }
}
