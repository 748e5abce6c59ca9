//! A window as it is typed, in all the forms that the command line takes. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, NaiveDate};

use super::window::{FORMS, Window, WindowSpec};
use crate::base::time::{Moment, millis, parse_date, parse_duration, parse_moment, shown_duration};
use crate::base::zone::{Tz, end_of, instant, start_of};

/// A window as it was typed. The present and a time zone turn it into a [`WindowSpec`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypedWindow {
    text: String,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Times of day: `11:00-13:00`.
    TimesOfDay(WindowSpec),
    /// A whole day: `2021-04-14`.
    Day(NaiveDate),
    /// `2021-04-14T11:00Z/2021-04-14T13:00Z` or `-2h..now`, and `2h` for the last two hours.
    Between(Option<Edge>, Option<Edge>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edge {
    At(Moment),
    /// Where this day begins.
    Day(NaiveDate),
    /// This long ago.
    Ago(Duration),
}

impl Edge {
    fn is_relative(self) -> bool {
        matches!(self, Edge::Ago(_))
    }

    fn at(self, now: i64, zone: Tz) -> Result<i64, String> {
        match self {
            Edge::At(Moment::Instant(millis)) => Ok(millis),
            Edge::At(Moment::Local(local)) => instant(zone, local),
            Edge::Day(day) => start_of(zone, day).ok_or_else(|| format!("{day} is beyond the calendar")),
            Edge::Ago(length) => {
                let at = now.saturating_sub(i64::try_from(millis(length)).unwrap_or(i64::MAX));
                match DateTime::from_timestamp_millis(at) {
                    Some(_) => Ok(at),
                    None => Err(format!("{} ago is beyond the calendar", shown_duration(length))),
                }
            }
        }
    }
}

impl TypedWindow {
    /// The day at whose beginning the window ends, if it was typed as a day. Somebody may take it for a part of the window.
    pub(crate) fn excluded_day(&self) -> Option<NaiveDate> {
        match self.form {
            Form::Between(_, Some(Edge::Day(day))) => Some(day),
            _ => None,
        }
    }

    /// Whether the window moves with the present: two runs of one command then take two windows.
    pub(crate) fn is_relative(&self) -> bool {
        match self.form {
            Form::Between(start, end) => [start, end].into_iter().flatten().any(Edge::is_relative),
            Form::TimesOfDay(_) | Form::Day(_) => false,
        }
    }

    /// The window at `now`, in milliseconds since the epoch. Days and times without an offset are those of `zone`.
    ///
    /// # Errors
    /// A sentence, if the window is empty, or if the zone's clocks show a time twice or never.
    pub fn at(&self, now: i64, zone: Tz) -> Result<WindowSpec, String> {
        let window = match self.form {
            Form::TimesOfDay(times) => return Ok(times),
            Form::Day(day) => Window::new(start_of(zone, day), end_of(zone, day)),
            Form::Between(Some(Edge::Day(day)), Some(Edge::Day(end))) if day == end => {
                return Err(format!(
                    "the window is empty: it ends where {end} begins; write {day} for that whole day"
                ));
            }
            Form::Between(start, end) => {
                let edge = |edge: Option<Edge>| edge.map(|edge| edge.at(now, zone)).transpose();
                Window::new(edge(start)?, edge(end)?)
            }
        };
        window.map(WindowSpec::Instants)
    }
}

impl fmt::Display for TypedWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for TypedWindow {
    type Err = String;

    fn from_str(typed: &str) -> Result<TypedWindow, String> {
        // A chat or a report may have made longer dashes of the hyphen, with blanks around it.
        let text = typed.trim().replace(['–', '—'], "-").replace(" - ", "-");
        let text = text.as_str();
        let form = match text.split_once("..").or_else(|| text.split_once('/')) {
            Some((start, end)) => match (edge(start)?, edge(end)?) {
                (None, None) => return Err(format!("the window has neither a start nor an end; {FORMS}")),
                (start, end) => Form::Between(start, end),
            },
            None => match (parse_date(text), parse_duration(text)) {
                (Ok(day), _) => Form::Day(day),
                (_, Ok(length)) => Form::Between(Some(Edge::Ago(length)), Some(Edge::Ago(Duration::ZERO))),
                _ => Form::TimesOfDay(text.parse()?),
            },
        };
        Ok(TypedWindow { text: typed.to_owned(), form })
    }
}

/// `now`, `-2h` or an instant; nothing for no edge.
fn edge(text: &str) -> Result<Option<Edge>, String> {
    let text = text.trim();
    let ago = || text.strip_prefix('-').and_then(|length| parse_duration(length).ok());
    match text {
        "" => Ok(None),
        "now" => Ok(Some(Edge::Ago(Duration::ZERO))),
        text => parse_moment(text)
            .map(Edge::At)
            .or_else(|| parse_date(text).ok().map(Edge::Day))
            .or_else(|| ago().map(Edge::Ago))
            .map(Some)
            .ok_or_else(|| format!("`{text}` is neither an instant, a day nor a time before now; {FORMS}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// 2021-04-14T13:00:00Z.
    const NOW: i64 = 1_618_405_200_000;

    fn resolved(text: &str, zone: Tz) -> Result<String, String> {
        Ok(text.parse::<TypedWindow>()?.at(NOW, zone)?.to_string())
    }

    #[rstest]
    #[case("2h", "2021-04-14T11:00:00Z/2021-04-14T13:00:00Z", true)]
    #[case("1h 30m", "2021-04-14T11:30:00Z/2021-04-14T13:00:00Z", true)]
    #[case("250ms", "2021-04-14T12:59:59.750Z/2021-04-14T13:00:00Z", true)]
    #[case("-2h..now", "2021-04-14T11:00:00Z/2021-04-14T13:00:00Z", true)]
    #[case("-2h..-1h", "2021-04-14T11:00:00Z/2021-04-14T12:00:00Z", true)]
    #[case("-2h..", "2021-04-14T11:00:00Z/", true)]
    #[case("..now", "/2021-04-14T13:00:00Z", true)]
    #[case("2021-04-14T11:00Z..now", "2021-04-14T11:00:00Z/2021-04-14T13:00:00Z", true)]
    #[case("2021-04-14T11:00Z/now", "2021-04-14T11:00:00Z/2021-04-14T13:00:00Z", true)]
    #[case("2021-04-14T11:00Z..2021-04-14T12:00Z", "2021-04-14T11:00:00Z/2021-04-14T12:00:00Z", false)]
    #[case("2021-04-14", "2021-04-14T00:00:00Z/2021-04-15T00:00:00Z", false)]
    #[case("2021-04-14/2021-04-15", "2021-04-14T00:00:00Z/2021-04-15T00:00:00Z", false)]
    #[case("2021-04-14..2021-04-16", "2021-04-14T00:00:00Z/2021-04-16T00:00:00Z", false)]
    #[case("2021-04-14..", "2021-04-14T00:00:00Z/", false)]
    #[case("/2021-04-14", "/2021-04-14T00:00:00Z", false)]
    #[case("2021-04-14..now", "2021-04-14T00:00:00Z/2021-04-14T13:00:00Z", true)]
    #[case("2021-04-14T11:00Z/2021-04-15", "2021-04-14T11:00:00Z/2021-04-15T00:00:00Z", false)]
    #[case("11-13", "11:00-13:00", false)]
    #[case("11:00–13:00", "11:00-13:00", false)]
    #[case(" 11:00 — 13:00 ", "11:00-13:00", false)]
    #[case("2021-04-14 .. 2021-04-15", "2021-04-14T00:00:00Z/2021-04-15T00:00:00Z", false)]
    #[case("–2h..now", "2021-04-14T11:00:00Z/2021-04-14T13:00:00Z", true)]
    fn of_every_day(#[case] text: &str, #[case] wanted: &str, #[case] is_relative: bool) {
        assert_eq!(resolved(text, Tz::UTC).as_deref(), Ok(wanted));
        assert_eq!(text.parse::<TypedWindow>().expect("parses").is_relative(), is_relative);
    }

    #[rstest]
    #[case("2021-04-14", "2021-04-13T22:00:00Z/2021-04-14T22:00:00Z")]
    #[case("2021-03-28", "2021-03-27T23:00:00Z/2021-03-28T22:00:00Z")]
    #[case("2021-03-28/2021-03-29", "2021-03-27T23:00:00Z/2021-03-28T22:00:00Z")]
    #[case("2021-04-14T11:00/2021-04-14T13:00Z", "2021-04-14T09:00:00Z/2021-04-14T13:00:00Z")]
    #[case("2h", "2021-04-14T11:00:00Z/2021-04-14T13:00:00Z")]
    fn of_a_zone(#[case] text: &str, #[case] wanted: &str) {
        assert_eq!(resolved(text, Tz::Europe__Berlin).as_deref(), Ok(wanted));
    }

    #[rstest]
    #[case("0s", "empty")]
    #[case("51223030w", "ago is beyond the calendar")]
    #[case("now..-2h", "reversed")]
    #[case("-1h..-2h", "reversed")]
    #[case("2021-04-14/2021-04-14", "write 2021-04-14 for that whole day")]
    #[case("2021-04-15..2021-04-14", "reversed")]
    #[case("2021-04-14/2021-02-30", "neither an instant, a day nor a time before now")]
    #[case("..", "neither a start nor an end")]
    #[case("2h..now", "neither an instant, a day nor a time before now")]
    #[case("-2..now", "neither an instant, a day nor a time before now")]
    #[case("yesterday", "not a window")]
    #[case("2021-02-30", "not a window")]
    #[case("2021-10-31T02:30/2021-10-31T04:00", "twice")]
    #[case("2021-03-28T02:30/2021-03-28T04:00", "never")]
    fn nonsense(#[case] text: &str, #[case] says: &str) {
        let error = resolved(text, Tz::Europe__Berlin).expect_err("refused");
        assert!(error.contains(says), "{error}");
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,40}") {
            let _ = resolved(&text, Tz::Europe__Berlin);
        }
    }
}
