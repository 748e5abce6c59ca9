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
    use crate::lab::drill::topics::log;

    /// The topic holds `a`, `b`, the aborted `X`, a marker, `c` and `d`.
    #[rstest]
    #[case::all("ab..cd", Anomalies::default())]
    #[case::nothing("", Anomalies { unseen: 4, ..Anomalies::default() })]
    #[case::a_reader_that_stopped("ab", Anomalies { unseen: 2, ..Anomalies::default() })]
    #[case::a_reader_that_jumped("a...cd", Anomalies { poll_skip: 1, ..Anomalies::default() })]
    #[case::an_aborted_record("abX.cd", Anomalies { aborted_read: 1, ..Anomalies::default() })]
    #[case::another_record("ab..xd", Anomalies { inconsistent_offsets: 1, ..Anomalies::default() })]
    #[case::another_than_the_aborted_one("abY.cd", Anomalies { inconsistent_offsets: 1, ..Anomalies::default() })]
    #[case::a_record_that_is_gone("ab..cd.e", Anomalies { lost_write: 1, ..Anomalies::default() })]
    fn two_readers_are_compared(#[case] seen: &str, #[case] wanted: Anomalies) {
        assert_eq!(compare(&[log(seen)], &[log("ab..cd")], &[log("abX.cd")]), wanted);
    }

    #[test]
    fn a_reader_that_goes_back_is_found() {
        let there = [log("abcd")];
        let mut seen = there[0].clone();
        seen.insert(3, there[0][1].clone());
        let wanted = Anomalies { nonmonotonic_poll: 1, ..Anomalies::default() };
        assert_eq!(compare(&[seen.clone()], &there, &there), wanted);
        seen.swap(0, 1);
        assert_eq!(compare(&[seen], &there, &there).nonmonotonic_poll, 2);
    }

    #[test]
    fn only_watched_partitions_are_judged() {
        let there = [log("ab"), log("cd")];
        assert_eq!(compare(&there[..1], &there, &there), Anomalies::default());
    }
}
