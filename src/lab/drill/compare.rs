//! The verdict of a round, from comparing every record of both topics. Pure.

use std::collections::{HashMap, HashSet, VecDeque};

use super::anomalies::Anomalies;
use super::topics::Record;

/// Everything that a fill must copy: key, value, headers and time.
pub(super) type Content<'a> =
    (&'a Option<Vec<u8>>, &'a Option<Vec<u8>>, &'a [(String, Option<Vec<u8>>)], i64);

pub(super) fn content(record: &Record) -> Content<'_> {
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
    /// Records of aborted transactions, which nobody may see.
    pub aborted: &'r [Record],
    /// Whether each copy belongs into the partition of its original.
    pub same_partitions: bool,
    /// Whether the target must hold equal records as often as the source. Otherwise, once is enough.
    pub by_count: bool,
}

impl<'r> Expected<'r> {
    pub(super) fn is_due(&self, record: &Record) -> bool {
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

    pub(super) fn compare(&self, target: &[Record]) -> Anomalies {
        let mut anomalies = Anomalies::default();
        let (found, due, mirrored) = (count(target), self.due(), count(self.mirrored));
        let mut lost = HashSet::new();
        for (content, due) in &due {
            let found = found.get(content).copied().unwrap_or(0);
            let allowed = due + mirrored.get(content).copied().unwrap_or(0);
            anomalies.lost_write += due.saturating_sub(found);
            anomalies.duplicate += found.saturating_sub(allowed);
            if found < *due {
                lost.insert(content);
            }
        }
        let all = self.source.iter().chain(self.others);
        let lost_keys: HashSet<_> =
            all.filter(|record| lost.contains(&content(record))).map(|record| &record.key).collect();
        let aborted = count(self.aborted);
        for record in target.iter().filter(|record| !due.contains_key(&content(record))) {
            if aborted.contains_key(&content(record)) {
                anomalies.aborted_read += 1;
            } else if lost_keys.contains(&record.key) {
                anomalies.changed += 1;
            } else {
                anomalies.extra += 1;
            }
        }
        self.look_at_order(target, &mirrored, &mut anomalies);
        anomalies
    }

    /// Counts the copies that come after a copy of a later original of the same partition, and those in another partition.
    /// A mirror copies when it likes, so the place of what it copied shows nothing.
    fn look_at_order(
        &self,
        target: &[Record],
        mirrored: &HashMap<Content<'_>, u64>,
        anomalies: &mut Anomalies,
    ) {
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
            anomalies.moved += u64::from(self.same_partitions && *partition != record.partition);
            anomalies.nonmonotonic_send += u64::from(place < *last);
            *last = place.max(*last);
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::data::WINDOW;
    use super::*;

    fn compare(source: &[Record], others: &[Record], target: &[Record], same_partitions: bool) -> Anomalies {
        let expected = Expected {
            source,
            window: WINDOW,
            others,
            mirrored: &[],
            aborted: &[record(1, "aborted", "1")],
            same_partitions,
            by_count: false,
        };
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
    #[case::lost(|t: &mut Vec<Record>| { t.pop(); }, Anomalies { lost_write: 1, ..Anomalies::default() })]
    #[case::lost_of_before(|t: &mut Vec<Record>| { t.remove(0); }, Anomalies { lost_write: 1, ..Anomalies::default() })]
    #[case::doubled(|t: &mut Vec<Record>| t.push(record(1, "c", "1")), Anomalies { duplicate: 1, ..Anomalies::default() })]
    #[case::doubled_again(|t: &mut Vec<Record>| t.push(record(0, "b", "1")), Anomalies { duplicate: 1, ..Anomalies::default() })]
    #[case::changed(
        |t: &mut Vec<Record>| t.last_mut().expect("one").value = None,
        Anomalies { lost_write: 1, changed: 1, ..Anomalies::default() }
    )]
    #[case::extra(|t: &mut Vec<Record>| t.push(record(1, "foreign", "1")), Anomalies { extra: 1, ..Anomalies::default() })]
    #[case::aborted(|t: &mut Vec<Record>| t.push(record(1, "aborted", "1")), Anomalies { aborted_read: 1, ..Anomalies::default() })]
    #[case::moved(|t: &mut Vec<Record>| t.last_mut().expect("one").partition = 0, Anomalies { moved: 1, ..Anomalies::default() })]
    fn each_difference_is_found(#[case] damage: fn(&mut Vec<Record>), #[case] expected: Anomalies) {
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
            Anomalies { nonmonotonic_send: 1, ..Anomalies::default() }
        );
        for record in &mut target {
            record.partition = 0;
        }
        assert_eq!(compare(&source, &[], &target, false).nonmonotonic_send, 1);
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
            aborted: &[],
            same_partitions: true,
            by_count: true,
        };
        assert_eq!(expected.total(), 4);
        assert!(expected.compare(&right).is_none());
        assert_eq!(expected.compare(&[&right[..2], &right[3..]].concat()).lost_write, 1);
        assert_eq!(expected.compare(&[&right[..], &right[2..3]].concat()).duplicate, 1);
        let mirrored = Expected { mirrored: &source[2..3], ..expected };
        assert_eq!(mirrored.compare(&[&right[..], &right[2..3]].concat()).duplicate, 0);
        assert_eq!(mirrored.compare(&[&right[..2], &right[3..]].concat()).lost_write, 1);
    }
}
