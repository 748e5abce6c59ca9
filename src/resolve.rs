//! From a window as typed to instants: which UTC day is meant.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::NaiveDate;

use crate::client::Isolation;
use crate::cluster::{Cluster, Topic, Watermarks};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::job::Selection;
use crate::range::Range;
use crate::source::{Reader, Reading};
use crate::window::{Window, day_of};

/// Records looked at from either end of a partition.
const PEEK: i64 = 64;

/// The window's instants. The date, where one is needed and not given, is the one that the source's
/// records are of.
///
/// # Errors
/// [`Error::Refused`] where the source spans several days, holds nothing of `--date`, or nothing at all.
pub fn window(
    cluster: &Cluster,
    selection: &Selection,
    source: &Topic,
    interrupt: &Interrupt,
) -> Result<Window> {
    if !selection.window.needs_date() {
        return selection.window.on(NaiveDate::default()).map_err(Error::usage);
    }
    let days = days(cluster, selection, source, interrupt)?;
    let list = || days.iter().map(NaiveDate::to_string).collect::<Vec<_>>().join(", ");
    let date = match (selection.date, days.first(), days.last()) {
        (Some(date), Some(first), Some(last)) if *first <= date && date <= *last => date,
        (Some(date), Some(_), _) => {
            return Err(Error::refused(format!(
                "{} holds no record of --date {date}; it holds records of {}",
                source.name,
                list()
            )));
        }
        (None, Some(first), Some(last)) if first == last => *first,
        (None, Some(first), _) => {
            return Err(Error::refused(format!(
                "{} holds records of several days ({}); say which one is meant, as in --date {first}",
                source.name,
                list()
            )));
        }
        (_, None, _) => {
            return Err(Error::refused(format!(
                "{} shows no record with an event time, so no date to put the window on; load the topic, or name \
                 another by --source",
                source.name
            )));
        }
    };
    selection.window.on(date).map_err(Error::usage)
}

/// The days of the first and last records of each partition. The time index is no help here: it also
/// finds transaction markers, which bear the time at which they were written.
fn days(
    cluster: &Cluster,
    selection: &Selection,
    source: &Topic,
    interrupt: &Interrupt,
) -> Result<BTreeSet<NaiveDate>> {
    let watermarks = cluster.watermarks(source)?;
    let mut days = BTreeSet::new();
    let heads = |w: &Watermarks| (w.low, w.high.min(w.low + PEEK));
    let tails = |w: &Watermarks| (w.low.max(w.high - PEEK), w.high);
    for edge in [&heads as &dyn Fn(&Watermarks) -> (i64, i64), &tails] {
        let (starts, ends): (Vec<_>, Vec<_>) = watermarks.iter().map(edge).unzip();
        // Uncommitted records too: an open transaction at the end must not hold up a look at the date.
        let reading = Reading {
            properties: &selection.properties,
            group: &selection.name(),
            topic: &source.name,
            isolation: Isolation::ReadUncommitted,
            patience: Duration::from_secs(10),
        };
        let reader = Reader::open(&reading, &Range::all(&starts, &ends))?;
        reader.for_each(interrupt, &indicatif::ProgressBar::hidden(), |message, ()| {
            days.extend(selection.event_time.of(message).and_then(day_of));
            Ok(())
        })?;
    }
    Ok(days)
}
