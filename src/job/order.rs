//! How far the records of a partition stand out of order, as `--max-out-of-orderness` promises, and what follows from
//! that.
//!
//! The promise: within a partition, no record is older than an earlier one by more than the bound. So behind a record
//! that is later than the window's end by the bound, no record is in the window. This holds wherever the reading began.
//! One such record would be enough, but a single wrong clock is more likely than many, so it takes [`IN_A_ROW`].

use std::time::Duration;

use chrono::Utc;

use crate::base::error::{Error, Reason, Result};
use crate::base::failpoint;
use crate::base::range::index;
use crate::base::time::rfc3339;
use crate::job::Selection;
use crate::job::window::Window;
use crate::kafka::record::describe;
use crate::kafka::sys::Message;

/// So many records in a row must be too late for the window before a partition is left.
const IN_A_ROW: usize = 10_000;
/// A record further in the future, in milliseconds, shows nothing but a wrong clock.
const FUTURE: i64 = 3_600_000;

/// Watches the order of the partitions of one reading.
pub(crate) struct Order {
    /// The topic.
    source: String,
    /// `None` if nobody promises an order.
    bound: Option<Duration>,
    /// The window's end, in milliseconds since the epoch.
    end: Option<i64>,
    /// Records of a later time do not count.
    latest: i64,
    in_a_row: usize,
    partitions: Vec<Seen>,
}

#[derive(Clone)]
struct Seen {
    /// The latest time so far.
    latest: i64,
    /// How many records in a row were too late for the window.
    in_a_row: usize,
}

impl Order {
    pub(crate) fn of(selection: &Selection, window: Window, partitions: usize) -> Order {
        Order {
            source: selection.shown_source(),
            bound: selection.max_out_of_orderness,
            end: window.end,
            latest: Utc::now().timestamp_millis() + FUTURE,
            in_a_row: failpoint::number("late-in-a-row", IN_A_ROW),
            partitions: vec![Seen { latest: i64::MIN, in_a_row: 0 }; partitions],
        }
    }

    /// Nobody promises an order.
    pub(crate) fn unknown() -> Order {
        let source = String::new();
        Order { source, bound: None, end: None, latest: i64::MAX, in_a_row: 0, partitions: Vec::new() }
    }

    pub(crate) fn is_promised(&self) -> bool {
        self.bound.is_some()
    }

    /// Takes the next record of a partition, and its event time. Returns whether no record of the window follows, if the
    /// promise holds. A record without an event time may be in any window, so the partition is not left near one.
    ///
    /// # Errors
    /// [`Error::Refused`] if the record breaks the promise.
    pub(crate) fn see(&mut self, message: &Message, time: Option<i64>) -> Result<bool> {
        let Some(bound) = self.bound else { return Ok(false) };
        match self.take(index(message.partition()), time) {
            Ok(is_past) => Ok(is_past),
            Err(latest) => Err(Error::refused(format!(
                "{}: {} is of {}, but an earlier record of its partition is of {}, and --max-out-of-orderness says that they \
                 are at most {} out of order; run again with a longer one, or without",
                self.source,
                describe(message),
                rfc3339(time.unwrap_or(latest)),
                rfc3339(latest),
                humantime::format_duration(bound)
            ))
            .because(Reason::OutOfOrder)),
        }
    }

    /// As [`Order::see`]; the error is the latest time so far.
    fn take(&mut self, partition: usize, time: Option<i64>) -> std::result::Result<bool, i64> {
        let bound = self.bound.map_or(i64::MAX, |bound| i64::try_from(bound.as_millis()).unwrap_or(i64::MAX));
        let seen = &mut self.partitions[partition];
        let Some(time) = time else {
            seen.in_a_row = 0;
            return Ok(false);
        };
        if time > self.latest {
            return Ok(false);
        }
        if seen.latest.saturating_sub(time) > bound {
            return Err(seen.latest);
        }
        seen.latest = time.max(seen.latest);
        let is_late = self.end.is_some_and(|end| time.saturating_sub(bound) >= end);
        seen.in_a_row = if is_late { seen.in_a_row + 1 } else { 0 };
        Ok(seen.in_a_row >= self.in_a_row)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// A window that ends at 1000, and a bound of 10 ms; three late records in a row are enough.
    fn order() -> Order {
        Order {
            source: "a".to_owned(),
            bound: Some(Duration::from_millis(10)),
            end: Some(1000),
            latest: 5000,
            in_a_row: 3,
            partitions: vec![Seen { latest: i64::MIN, in_a_row: 0 }; 2],
        }
    }

    /// The times of a partition, and how many of its records are read.
    #[rstest]
    #[case::late(&[990, 1010, 1011, 1010, 999], Ok(4))]
    #[case::too_early_by_one(&[1009, 1009, 1009, 1009, 1009], Ok(5))]
    #[case::not_in_a_row(&[1010, 1010, 1009, 1010, 1010], Ok(5))]
    #[case::in_the_future(&[5001, 990, 5001, 5001, 5001], Ok(5))]
    #[case::the_future_neither_counts_nor_hinders(&[1010, 5001, 1010, 5001, 1010, 1010], Ok(5))]
    #[case::at_the_bound(&[1005, 995, 1004], Ok(3))]
    #[case::beyond_the_bound(&[1005, 1000, 994], Err(1005))]
    fn a_partition(#[case] times: &[i64], #[case] wanted: std::result::Result<usize, i64>) {
        let mut order = order();
        for other in [1, 0] {
            order.take(other, Some(1)).expect("in order");
            order.partitions[0] = Seen { latest: i64::MIN, in_a_row: 0 };
        }
        let mut read = 0;
        let found = times.iter().try_for_each(|time| {
            read += 1;
            match order.take(0, Some(*time)) {
                Ok(false) => Ok(()),
                Ok(true) => Err(Ok(read)),
                Err(latest) => Err(Err(latest)),
            }
        });
        assert_eq!(found.map_or_else(|found| found, |()| Ok(read)), wanted);
    }

    #[test]
    fn a_record_without_a_time_is_not_late() {
        let mut order = order();
        let found: Vec<_> = [Some(1010), Some(1010), None, Some(1010), Some(1010), Some(1010)]
            .map(|time| order.take(0, time).expect("in order"))
            .into();
        assert_eq!(found, [false, false, false, false, false, true]);
    }

    #[test]
    fn a_window_without_an_end_is_read_to_the_end() {
        let mut order = Order { end: None, ..order() };
        assert!((0..100).all(|_| order.take(0, Some(4000)) == Ok(false)));
    }
}
