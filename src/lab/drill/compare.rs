//! The verdict of a round, from comparing every record of both topics. Pure.

use std::collections::{HashMap, HashSet, VecDeque};

use serde::Serialize;

use super::topics::Record;

/// The faults after a fill, in numbers of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Differences {
    /// Records that are not in the target, although they are in the source's window or were in the target before.
    pub lost: u64,
    /// Records that are in the target more often than before or, if they were not there before, more than once.
    pub doubled: u64,
    /// Records with the key of a lost record, but another content.
    pub changed: u64,
    /// Records of the target that are not in the source's window and were not in the target before.
    pub extra: u64,
    /// Records that come in the target after a record that follows them in their partition of the source, or that are
    /// in a wrong partition.
    pub reordered: u64,
}

impl Differences {
    pub fn is_none(&self) -> bool {
        *self == Differences::default()
    }

    pub fn add(&mut self, other: &Differences) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.changed += other.changed;
        self.extra += other.extra;
        self.reordered += other.reordered;
    }
}

/// Everything that a fill must copy: key, value, headers and time.
pub(super) type Content<'a> =
    (&'a Option<Vec<u8>>, &'a Option<Vec<u8>>, &'a [(String, Option<Vec<u8>>)], i64);

fn content(record: &Record) -> Content<'_> {
    (&record.key, &record.value, &record.headers, record.time)
}

/// How often each content occurs.
pub(super) fn count<'r>(records: impl IntoIterator<Item = &'r Record>) -> HashMap<Content<'r>, u64> {
    let mut counts = HashMap::new();
    for record in records {
        *counts.entry(content(record)).or_default() += 1;
    }
    counts
}

/// What a target must hold. Each list is in order within its partitions.
pub(super) struct Expected<'r> {
    pub source: &'r [Record],
    /// The window of event times, in milliseconds. The target needs no copy of a record outside.
    pub window: (i64, i64),
    /// The target's records that the fill did not write: they were there before, or are from other producers.
    pub others: &'r [Record],
    /// Records that a mirror copied from the source. A fill that ran meanwhile may have copied them too, and then says so.
    pub mirrored: &'r [Record],
    /// Whether each copy belongs into the partition of its original.
    pub same_partitions: bool,
    /// Whether the target must hold equal records as often as the source. Otherwise, once is enough.
    pub by_count: bool,
}

impl<'r> Expected<'r> {
    fn is_due(&self, record: &Record) -> bool {
        (self.window.0..self.window.1).contains(&record.time)
    }

    /// How often the target must hold each content.
    fn due(&self) -> HashMap<Content<'r>, u64> {
        let mut due = count(self.others);
        for (content, count) in count(self.source.iter().filter(|record| self.is_due(record))) {
            let wanted = if self.by_count { count } else { 1 };
            let due = due.entry(content).or_default();
            *due = wanted.max(*due);
        }
        due
    }

    /// How many records the target must hold.
    pub(super) fn total(&self) -> u64 {
        self.due().values().sum()
    }

    pub(super) fn compare(&self, target: &[Record]) -> Differences {
        let mut differences = Differences::default();
        let (found, due, mirrored) = (count(target), self.due(), count(self.mirrored));
        let mut lost = HashSet::new();
        for (content, due) in &due {
            let found = found.get(content).copied().unwrap_or(0);
            let allowed = due + mirrored.get(content).copied().unwrap_or(0);
            differences.lost += due.saturating_sub(found);
            differences.doubled += found.saturating_sub(allowed);
            if found < *due {
                lost.insert(content);
            }
        }
        let all = self.source.iter().chain(self.others);
        let lost_keys: HashSet<_> =
            all.filter(|record| lost.contains(&content(record))).map(|record| &record.key).collect();
        for record in target.iter().filter(|record| !due.contains_key(&content(record))) {
            let is_changed = lost_keys.contains(&record.key);
            differences.changed += u64::from(is_changed);
            differences.extra += u64::from(!is_changed);
        }
        differences.reordered = self.reordered(target, &mirrored);
        differences
    }

    /// Counts the copies that come after a copy of a later original of the same partition. A mirror copies when it likes,
    /// so the place of what it copied shows nothing.
    fn reordered(&self, target: &[Record], mirrored: &HashMap<Content<'_>, u64>) -> u64 {
        // The places of each record of the window in the source: all if equal records count, otherwise the first.
        let mut places: HashMap<_, (i32, VecDeque<usize>)> = HashMap::new();
        for (place, record) in self.source.iter().enumerate().filter(|(_, record)| self.is_due(record)) {
            let (_, all) = places.entry(content(record)).or_insert((record.partition, VecDeque::new()));
            if self.by_count || all.is_empty() {
                all.push_back(place);
            }
        }
        let mut others: HashMap<_, u64> = HashMap::new();
        for record in self.others {
            *others.entry((record.partition, content(record))).or_default() += 1;
        }
        let mut last: HashMap<(i32, i32), usize> = HashMap::new();
        let mut reordered = 0;
        for record in target.iter().filter(|record| !mirrored.contains_key(&content(record))) {
            let wanted = content(record);
            if let Some(left) = others.get_mut(&(record.partition, wanted)).filter(|left| **left > 0) {
                *left -= 1;
                continue;
            }
            let Some((partition, places)) = places.get_mut(&wanted) else { continue };
            let last = last.entry((*partition, record.partition)).or_default();
            // Equal records cannot be told apart, so this may be the copy of any of them.
            while places.len() > 1 && places[0] < *last {
                places.pop_front();
            }
            let Some(place) = (if self.by_count && places.len() > 1 {
                places.pop_front()
            } else {
                places.front().copied()
            }) else {
                continue;
            };
            let is_moved = self.same_partitions && *partition != record.partition;
            reordered += u64::from(place < *last || is_moved);
            *last = place.max(*last);
        }
        reordered
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::data::WINDOW;
    use super::*;

    fn compare(
        source: &[Record],
        others: &[Record],
        target: &[Record],
        same_partitions: bool,
    ) -> Differences {
        let expected =
            Expected { source, window: WINDOW, others, mirrored: &[], same_partitions, by_count: false };
        expected.compare(target)
    }

    fn record(partition: i32, key: &str, value: &str) -> Record {
        Record {
            partition,
            time: WINDOW.0,
            key: Some(key.into()),
            value: Some(value.into()),
            headers: Vec::new(),
        }
    }

    fn source() -> Vec<Record> {
        let mut outside = record(0, "outside", "");
        outside.time = WINDOW.1;
        vec![record(0, "a", "1"), record(0, "b", "1"), record(0, "a", "1"), outside, record(1, "c", "1")]
    }

    fn before() -> Vec<Record> {
        vec![record(0, "b", "1"), record(0, "b", "1"), record(1, "x", "1")]
    }

    fn filled() -> Vec<Record> {
        [&before()[..2], &[record(0, "a", "1")], &before()[2..], &[record(1, "c", "1")]].concat()
    }

    #[test]
    fn a_right_fill_has_no_difference() {
        assert!(compare(&source(), &before(), &filled(), true).is_none());
    }

    #[rstest]
    #[case::lost(|t: &mut Vec<Record>| { t.pop(); }, Differences { lost: 1, ..Differences::default() })]
    #[case::lost_of_before(|t: &mut Vec<Record>| { t.remove(0); }, Differences { lost: 1, ..Differences::default() })]
    #[case::doubled(|t: &mut Vec<Record>| t.push(record(1, "c", "1")), Differences { doubled: 1, ..Differences::default() })]
    #[case::doubled_again(|t: &mut Vec<Record>| t.push(record(0, "b", "1")), Differences { doubled: 1, ..Differences::default() })]
    #[case::changed(
        |t: &mut Vec<Record>| t.last_mut().expect("one").value = None,
        Differences { lost: 1, changed: 1, ..Differences::default() }
    )]
    #[case::extra(|t: &mut Vec<Record>| t.push(record(1, "aborted", "1")), Differences { extra: 1, ..Differences::default() })]
    #[case::moved(|t: &mut Vec<Record>| t.last_mut().expect("one").partition = 0, Differences { reordered: 1, ..Differences::default() })]
    fn each_difference_is_found(#[case] damage: fn(&mut Vec<Record>), #[case] expected: Differences) {
        let mut target = filled();
        damage(&mut target);
        assert_eq!(compare(&source(), &before(), &target, true), expected);
    }

    #[test]
    fn another_order_is_found_within_a_partition_only() {
        let source = [record(0, "a", "1"), record(0, "b", "1"), record(1, "c", "1")];
        let mut target = source.to_vec();
        target.rotate_right(1);
        assert!(compare(&source, &[], &target, true).is_none(), "c before a and b, of another partition");
        target.swap(1, 2);
        assert_eq!(
            compare(&source, &[], &target, true),
            Differences { reordered: 1, ..Differences::default() }
        );
        for record in &mut target {
            record.partition = 0;
        }
        assert_eq!(compare(&source, &[], &target, false).reordered, 1);
    }

    /// The target held one "a" before, so the fill wrote one more.
    #[test]
    fn equal_records_are_counted() {
        let source = [record(0, "a", "1"), record(0, "b", "1"), record(0, "a", "1"), record(0, "c", "1")];
        let others = [record(0, "a", "1")];
        let right = [record(0, "a", "1"), record(0, "b", "1"), record(0, "a", "1"), record(0, "c", "1")];
        let expected = Expected {
            source: &source,
            window: WINDOW,
            others: &others,
            mirrored: &[],
            same_partitions: true,
            by_count: true,
        };
        assert_eq!(expected.total(), 4);
        assert!(expected.compare(&right).is_none());
        assert_eq!(expected.compare(&[&right[..2], &right[3..]].concat()).lost, 1);
        assert_eq!(expected.compare(&[&right[..], &right[2..3]].concat()).doubled, 1);
        let mirrored = Expected { mirrored: &source[2..3], ..expected };
        assert_eq!(mirrored.compare(&[&right[..], &right[2..3]].concat()).doubled, 0);
        assert_eq!(mirrored.compare(&[&right[..2], &right[3..]].concat()).lost, 1);
    }
}
