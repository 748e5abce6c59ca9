//! From a window as typed to instants: which UTC day is meant.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::NaiveDate;

use crate::base::error::{Error, Reason, Result};
use crate::base::interrupt::Interrupt;
use crate::base::range::Range;
use crate::base::time::{day_of, rfc3339};
use crate::job::Selection;
use crate::job::window::Edges;
use crate::job::window::{OtherDays, Window};
use crate::kafka::client::Isolation;
use crate::kafka::cluster::Cluster;
use crate::kafka::reader::{Reader, Reading};
use crate::kafka::topic::Topic;
use crate::kafka::watermarks::Watermarks;

/// Records looked at from either end of a partition.
const PEEK: i64 = 64;

/// A window, and what is to be said of it.
pub(crate) struct Resolved {
    pub window: Window,
    /// Where it crosses midnight.
    pub warning: Option<String>,
    /// To be shown the records of the source as they are read.
    pub other_days: OtherDays,
}

/// Both topics, or which one is missing.
///
/// # Errors
/// [`Error::Refused`] for a missing topic; as [`Cluster::topic`].
pub(crate) fn topics(cluster: &Cluster, source: &str, target: &str) -> Result<(Topic, Topic)> {
    if source == target {
        return Err(Error::usage(format!("--source and --target are both {source}; name two topics")));
    }
    let mut found = Vec::new();
    let (mut sentences, mut reason) = (Vec::new(), None);
    for (name, flag) in [(source, "--source"), (target, "--target")] {
        match cluster.topic(name) {
            Ok(Some(topic)) => found.push(topic),
            Ok(None) => {
                reason = reason.or(Some(Reason::MissingTopic));
                sentences.push(format!("there is no topic {name}: create it, or name another one by {flag}"));
            }
            Err(Error::Refused(why)) => {
                reason = reason.or(why.reason());
                sentences.push(why.text);
            }
            Err(err) => return Err(err),
        }
    }
    match <[Topic; 2]>::try_from(found) {
        Ok([source, target]) => Ok((source, target)),
        Err(_) => Err(Error::refused(sentences.join("\n")).because(reason.unwrap_or(Reason::Refused))),
    }
}

/// The window's instants. A date that is given is trusted, wherever in the topic its records stand; where one is
/// needed and not given, it is the one that the source's first and last records are of.
///
/// # Errors
/// [`Error::Refused`] where a date is needed, and the source shows several days, or no event time at all.
pub(crate) fn window(
    cluster: &Cluster,
    selection: &Selection,
    source: &Topic,
    interrupt: &Interrupt,
) -> Result<Resolved> {
    let date = match selection.date {
        Some(date) => date,
        None if !selection.window.needs_date() => NaiveDate::default(),
        None => inferred(&look(cluster, selection, source, interrupt)?, source)?,
    };
    let window = selection.window.on(date).map_err(Error::usage)?;
    let is_inferred = selection.date.is_none() && selection.window.needs_date();
    Ok(Resolved {
        window,
        warning: selection.window.crossing(date),
        other_days: if is_inferred { OtherDays::than(date, window) } else { OtherDays::default() },
    })
}

fn inferred(look: &Look, source: &Topic) -> Result<NaiveDate> {
    match (look.days.first(), look.days.last()) {
        (Some(first), Some(last)) if first == last => Ok(*first),
        (Some(first), _) => Err(Error::refused(format!(
            "{} holds records of several days ({}); say which one is meant, as in --date {first}",
            source.name,
            look.days.iter().map(NaiveDate::to_string).collect::<Vec<_>>().join(", ")
        ))),
        (None, _) => Err(Error::refused(format!(
            "{} shows no record with an event time, so no date to put the window on; load the topic, or name another \
             by --source, or the day by --date",
            source.name
        ))),
    }
    .map_err(|err| err.because(Reason::AmbiguousDate))
}

/// What to say where no record of the source was in the window: a wrong day, say, or local time.
pub(crate) fn nothing_in(
    window: Window,
    cluster: &Cluster,
    selection: &Selection,
    source: &Topic,
    interrupt: &Interrupt,
) -> String {
    let holds = match look(cluster, selection, source, interrupt).map(|look| look.span) {
        Ok(Some((first, last))) => {
            format!("; its first and last records are of {} to {}", rfc3339(first), rfc3339(last))
        }
        Ok(None) => "; at neither end does it show a record with an event time".to_owned(),
        Err(err) => format!("; what it holds was not found out: {err}"),
    };
    let place = match window {
        Window { start: None, end: None } => String::new(),
        _ => format!(" in the window {}, which is in UTC", Edges::from(window)),
    };
    format!("{} holds no record{place}{holds}", source.name)
}

/// What the first and last records of each partition say.
#[derive(Default)]
struct Look {
    days: BTreeSet<NaiveDate>,
    /// The first and the last of their event times, in milliseconds since the epoch.
    span: Option<(i64, i64)>,
}

/// The time index is no help here: it also finds transaction markers, which bear the time at which they were
/// written.
fn look(cluster: &Cluster, selection: &Selection, source: &Topic, interrupt: &Interrupt) -> Result<Look> {
    let watermarks = cluster.watermarks(source)?;
    let mut look = Look::default();
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
            if let Some(time) = selection.event_time.of(message) {
                let (first, last) = look.span.unwrap_or((time, time));
                look.span = Some((first.min(time), last.max(time)));
                look.days.extend(day_of(time));
            }
            Ok(())
        })?;
    }
    Ok(look)
}
