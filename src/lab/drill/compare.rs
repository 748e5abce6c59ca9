//! The verdict of a round, from comparing every record of both topics. Pure.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::data::in_window;
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
type Content<'a> = (&'a Option<Vec<u8>>, &'a Option<Vec<u8>>, &'a [(String, Option<Vec<u8>>)], i64);

fn content(record: &Record) -> Content<'_> {
    (&record.key, &record.value, &record.headers, record.time)
}

/// Compares `target` with what it must hold: the window of `source`, and the `others`, which the fill did not write (they
/// were there before, or are from other producers). Each list is in order within its partitions.
pub(super) fn compare(
    source: &[Record],
    others: &[Record],
    target: &[Record],
    same_partitions: bool,
) -> Differences {
    let mut differences = Differences::default();
    let mut found: HashMap<_, u64> = HashMap::new();
    for record in target {
        *found.entry(content(record)).or_default() += 1;
    }
    let mut due: HashMap<_, u64> = HashMap::new();
    for record in others {
        *due.entry(content(record)).or_default() += 1;
    }
    // The first place of each record of the window in the source.
    let mut places = HashMap::new();
    for (place, record) in source.iter().enumerate().filter(|(_, record)| in_window(record)) {
        due.entry(content(record)).or_insert(1);
        places.entry(content(record)).or_insert((record.partition, place));
    }
    let mut lost_keys = HashSet::new();
    for (content, due) in &due {
        let found = found.get(content).copied().unwrap_or(0);
        differences.lost += due.saturating_sub(found);
        differences.doubled += found.saturating_sub(*due);
        if found < *due {
            lost_keys.insert(content);
        }
    }
    let lost_keys: HashSet<_> = source
        .iter()
        .chain(others)
        .filter(|record| lost_keys.contains(&content(record)))
        .map(|record| &record.key)
        .collect();

    let mut others_left: HashMap<_, u64> = HashMap::new();
    for record in others {
        *others_left.entry((record.partition, content(record))).or_default() += 1;
    }
    let mut last: HashMap<(i32, i32), usize> = HashMap::new();
    for record in target {
        let wanted = content(record);
        if let Some(left) = others_left.get_mut(&(record.partition, wanted)).filter(|left| **left > 0) {
            *left -= 1;
            continue;
        }
        let Some((partition, place)) = places.get(&wanted) else {
            if !due.contains_key(&wanted) {
                let is_changed = lost_keys.contains(&record.key);
                differences.changed += u64::from(is_changed);
                differences.extra += u64::from(!is_changed);
            }
            continue;
        };
        let last = last.entry((*partition, record.partition)).or_insert(*place);
        let is_moved = same_partitions && *partition != record.partition;
        differences.reordered += u64::from(*place < *last || is_moved);
        *last = (*place).max(*last);
    }
    differences
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::data::WINDOW;
    use super::*;

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
}
