//! What two readers of one topic must agree on. Pure.

use std::collections::HashMap;

use super::anomalies::Anomalies;
use super::topics::{Log, Record};

/// Compares what a reader saw while others wrote with what the same partitions hold in the end: its committed records,
/// and `all` of its records, those of aborted transactions too. `seen` is in the order in which the reader got it.
///
/// A partition that nobody watched is not judged.
pub(super) fn compare(seen: &[Log], committed: &[Log], all: &[Log]) -> Anomalies {
    let mut found = Anomalies::default();
    for ((seen, committed), all) in seen.iter().zip(committed).zip(all) {
        let (there, written) = (by_offset(committed), by_offset(all));
        for pair in seen.windows(2) {
            found.nonmonotonic_poll += u64::from(pair[1].0 <= pair[0].0);
        }
        for (offset, record) in seen {
            match (there.get(offset), written.get(offset)) {
                (Some(there), _) if *there == record => {}
                (None, Some(written)) if *written == record => found.aborted_read += 1,
                (None, None) => found.lost_write += 1,
                _ => found.inconsistent_offsets += 1,
            }
        }
        let (got, last) = (by_offset(seen), seen.iter().map(|(offset, _)| *offset).max());
        for (offset, _) in committed.iter().filter(|(offset, _)| !got.contains_key(offset)) {
            match last.is_some_and(|last| *offset < last) {
                true => found.poll_skip += 1,
                false => found.unseen += 1,
            }
        }
    }
    found
}

fn by_offset(log: &Log) -> HashMap<i64, &Record> {
    log.iter().map(|(offset, record)| (*offset, record)).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const NONE: Anomalies = Anomalies {
        lost_write: 0,
        duplicate: 0,
        changed: 0,
        extra: 0,
        aborted_read: 0,
        nonmonotonic_send: 0,
        moved: 0,
        nonmonotonic_poll: 0,
        poll_skip: 0,
        unseen: 0,
        inconsistent_offsets: 0,
        torn_transaction: 0,
    };

    /// Each letter is a record, and its place is its offset. A dot is an offset without a record that can be read.
    fn log(letters: &str) -> Log {
        let record = |letter: char| Record {
            partition: 0,
            time: 0,
            key: Some(letter.to_string().into_bytes()),
            value: None,
            headers: Vec::new(),
        };
        (0..).zip(letters.chars()).filter(|(_, l)| *l != '.').map(|(at, l)| (at, record(l))).collect()
    }

    /// The topic holds `a`, `b`, the aborted `X`, a marker, `c` and `d`.
    #[rstest]
    #[case::all("ab..cd", NONE)]
    #[case::nothing("", Anomalies { unseen: 4, ..NONE })]
    #[case::a_reader_that_stopped("ab", Anomalies { unseen: 2, ..NONE })]
    #[case::a_reader_that_jumped("a...cd", Anomalies { poll_skip: 1, ..NONE })]
    #[case::an_aborted_record("abX.cd", Anomalies { aborted_read: 1, ..NONE })]
    #[case::another_record("ab..xd", Anomalies { inconsistent_offsets: 1, ..NONE })]
    #[case::another_than_the_aborted_one("abY.cd", Anomalies { inconsistent_offsets: 1, ..NONE })]
    #[case::a_record_that_is_gone("ab..cd.e", Anomalies { lost_write: 1, ..NONE })]
    fn two_readers_are_compared(#[case] seen: &str, #[case] wanted: Anomalies) {
        assert_eq!(compare(&[log(seen)], &[log("ab..cd")], &[log("abX.cd")]), wanted);
    }

    #[test]
    fn a_reader_that_goes_back_is_found() {
        let there = [log("abcd")];
        let mut seen = there[0].clone();
        seen.insert(3, there[0][1].clone());
        let wanted = Anomalies { nonmonotonic_poll: 1, ..NONE };
        assert_eq!(compare(&[seen.clone()], &there, &there), wanted);
        seen.swap(0, 1);
        assert_eq!(compare(&[seen], &there, &there).nonmonotonic_poll, 2);
    }

    #[test]
    fn only_watched_partitions_are_judged() {
        let there = [log("ab"), log("cd")];
        assert_eq!(compare(&there[..1], &there, &there), NONE);
    }
}
