//! Finds the topics and the window that a command means. If the window was typed as times of day, this finds their day.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::NaiveDate;

use crate::base::error::{Error, Reason, Result};
use crate::base::interrupt::Interrupt;
use crate::base::range::Range;
use crate::base::time::rfc3339;
use crate::base::zone::day_of;
use crate::job::Selection;
use crate::job::window::Edges;
use crate::job::window::{OtherDays, Window};
use crate::kafka::client::Isolation;
use crate::kafka::cluster::Cluster;
use crate::kafka::reader::{Reader, Reading};
use crate::kafka::sides::{Clusters, Side, Sides};
use crate::kafka::topic::Topic;
use crate::kafka::watermarks::Watermarks;

/// The properties of a topic on which it depends whether it takes and keeps the same records as another.
pub(crate) const COPIED: [&str; 5] =
    ["cleanup.policy", "retention.ms", "retention.bytes", "max.message.bytes", "message.timestamp.type"];

/// How many records to look at from each end of a partition.
const PEEK: i64 = 64;

/// A window, and warnings about it.
pub(crate) struct Resolved {
    pub window: Window,
    /// Set if the window crosses midnight.
    pub warning: Option<String>,
    /// The caller shows it the records of the source as it reads them.
    pub other_days: OtherDays,
}

/// Looks up the topic of a command that reads only one side.
///
/// # Errors
/// [`Error::Refused`] if it is missing; otherwise as [`Cluster::topic`].
pub(crate) fn topic(cluster: &Cluster, name: &str, side: Side) -> Result<Topic> {
    let missing = || missing(cluster, name, side, "create it").because(Reason::MissingTopic);
    cluster.topic(name)?.ok_or_else(missing)
}

fn missing(cluster: &Cluster, name: &str, side: Side, create: &str) -> Error {
    let told = format!("there is no topic {name}: name another one with --{}, or {create}", side.word());
    cluster.properties().says(Error::refused(told))
}

/// Looks up both topics.
///
/// # Errors
/// [`Error::Refused`] names each missing topic, or says that both are one topic; otherwise as [`Cluster::topic`].
pub(crate) fn topics(clusters: &Clusters, selection: &Selection) -> Result<Sides<Topic>> {
    let Selection { source, target, properties, .. } = selection;
    if source == target && !properties.are_two() {
        return Err(Error::usage(format!("--source and --target are both {source}; name two topics")));
    }
    let mut found: Vec<Topic> = Vec::new();
    let (mut sentences, mut reason) = (Vec::new(), None);
    for (name, side, cluster) in
        [(source, Side::Source, &clusters.source), (target, Side::Target, &clusters.target)]
    {
        match cluster.topic(name) {
            Ok(Some(topic)) => found.push(topic),
            Ok(None) => {
                reason = reason.or(Some(Reason::MissingTopic));
                let original = found.first().filter(|_| side == Side::Target);
                let create = match original {
                    Some(original) => creation(clusters, original, name),
                    None => "create it".to_owned(),
                };
                sentences.push(missing(cluster, name, side, &create).to_string());
            }
            Err(Error::Refused(why)) => {
                reason = reason.or(why.reason());
                sentences.push(why.text);
            }
            Err(err) => return Err(err),
        }
    }
    match <[Topic; 2]>::try_from(found) {
        Ok([source, target]) if source.id == target.id => Err(Error::refused(format!(
            "{} and {} are one topic: both have the topic id {}; name two topics",
            selection.shown_source(),
            selection.shown_target(),
            source.url_safe_id()
        ))
        .because(Reason::SameTopic)),
        Ok([source, target]) => Ok(Sides { source, target }),
        Err(_) => Err(Error::refused(sentences.join("\n")).because(reason.unwrap_or(Reason::Refused))),
    }
}

/// A setting for Kafka's own tools. Without brackets, a comma would separate two settings.
pub(crate) fn setting(key: &str, value: &str) -> String {
    if value.contains(',') { format!("{key}=[{value}]") } else { format!("{key}={value}") }
}

/// How to create a target like the source, as far as this principal may see the source's configuration.
fn creation(clusters: &Clusters, source: &Topic, target: &str) -> String {
    let mut words = ["--create", "--topic", target, "--partitions"].map(str::to_owned).to_vec();
    words.push(source.partitions.to_string());
    let configuration = clusters.source.configuration(&[&source.name]).ok().flatten();
    for key in COPIED {
        let value = configuration.as_ref().and_then(|all| all.first()?.get(key));
        // Copies keep their timestamps only if the broker does not replace them.
        if let Some(value) = value.filter(|value| *value != "LogAppendTime") {
            words.extend(["--config".to_owned(), setting(key, value)]);
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let command = clusters.target.properties().tool("kafka-topics.sh", &words);
    format!("create it with\n  {command}\nthen `replicator plan` says whether these settings suit the fill")
}

/// The window's instants, which are told to the log. A given date is trusted, even if the topic's records are of other days. If the window needs a
/// date and none is given, it is the day of the source's first and last records.
///
/// # Errors
/// [`Error::Refused`] if a date is needed, and those records show several days or no event time at all.
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
    let zone = selection.zone;
    let window = selection.window.on(date, zone).map_err(Error::usage)?;
    if window.start.or(window.end).is_some() {
        let in_zone = window.told_in(zone).map_or_else(String::new, |told| format!(", {told}"));
        tracing::info!("window {} of {}{in_zone}", Edges::from(window), selection.shown_source());
    }
    let is_inferred = selection.date.is_none() && selection.window.needs_date();
    Ok(Resolved {
        window,
        warning: selection.window.crossing(date, zone),
        other_days: if is_inferred { OtherDays::than(date, window, zone) } else { OtherDays::default() },
    })
}

fn inferred(look: &Look, source: &Topic) -> Result<NaiveDate> {
    match (look.days.first(), look.days.last()) {
        (Some(first), Some(last)) if first == last => Ok(*first),
        (Some(first), _) => Err(Error::refused(format!(
            "{} holds records of several days ({}); choose one of them, for example with --date {first}",
            source.name,
            look.days.iter().map(NaiveDate::to_string).collect::<Vec<_>>().join(", ")
        ))),
        (None, _) => Err(Error::refused(format!(
            "{} has no record with an event time at either end, so the window's date is unknown; load the topic, name \
             another one with --source, or give the date with --date",
            source.name
        ))),
    }
    .map_err(|err| err.because(Reason::AmbiguousDate))
}

/// A warning if no record of the source was in the window. The user may have given a wrong day, or local time.
pub(crate) fn nothing_in(
    window: Window,
    cluster: &Cluster,
    selection: &Selection,
    source: &Topic,
    interrupt: &Interrupt,
) -> String {
    let holds = match look(cluster, selection, source, interrupt).map(|look| look.span) {
        Ok(Some((first, last))) => {
            format!("; its first and last records are from {} to {}", rfc3339(first), rfc3339(last))
        }
        Ok(None) => "; it has no record with an event time at either end".to_owned(),
        Err(err) => format!("; its first and last records could not be read: {err}"),
    };
    let place = match window {
        Window { start: None, end: None } => String::new(),
        _ => format!(" in the window {}, which is in UTC", Edges::from(window)),
    };
    format!("{} holds no record{place}{holds}", selection.shown_source())
}

/// The event times of the first and last records of each partition.
#[derive(Default)]
struct Look {
    days: BTreeSet<NaiveDate>,
    /// The earliest and the latest event time, in milliseconds since the epoch.
    span: Option<(i64, i64)>,
}

/// Reads the first and last records of each partition. The time index is no help here: it also finds transaction
/// markers, whose timestamp is the time at which they were written.
fn look(cluster: &Cluster, selection: &Selection, source: &Topic, interrupt: &Interrupt) -> Result<Look> {
    let watermarks = cluster.watermarks(source)?;
    let mut look = Look::default();
    let heads = |w: &Watermarks| (w.low, w.high.min(w.low + PEEK));
    let tails = |w: &Watermarks| (w.low.max(w.high - PEEK), w.high);
    for edge in [&heads as &dyn Fn(&Watermarks) -> (i64, i64), &tails] {
        let (starts, ends): (Vec<_>, Vec<_>) = watermarks.iter().map(edge).unzip();
        // Read uncommitted records too: an open transaction at the end must not delay a look at the date.
        let reading = Reading {
            properties: cluster.properties(),
            group: &selection.name(),
            topic: &source.name,
            isolation: Isolation::ReadUncommitted,
            patience: Duration::from_secs(10),
        };
        let reader = Reader::open(&reading, &Range::all(&starts, &ends))?;
        reader.for_each(interrupt, &indicatif::ProgressBar::hidden(), |message, ()| {
            let json = match message.value() {
                Some(value) if !selection.event_time.is_indexed() => selection.schemas.json(value)?.ok(),
                _ => None,
            };
            if let Some(time) = selection.event_time.of(message, json.as_deref()) {
                let (first, last) = look.span.unwrap_or((time, time));
                look.span = Some((first.min(time), last.max(time)));
                look.days.extend(day_of(selection.zone, time));
            }
            Ok(())
        })?;
    }
    Ok(look)
}
