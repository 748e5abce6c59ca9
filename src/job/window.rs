//! The window of event time that a run fills: half-open, in milliseconds since the epoch. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{Days, NaiveDate, NaiveTime};
use serde::Serialize;

use crate::base::time::{parse_instant, rfc3339};
use crate::base::zone::{Tz, day_of, end_of, in_zone, instant, local};

/// A window of a job. Times of day become a [`Window`] only with a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowSpec {
    TimesOfDay { start: Option<NaiveTime>, end: Option<EndOfDay> },
    Instants(Window),
}

/// An end as a time of day; `24:00` is the next midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndOfDay {
    At(NaiveTime),
    NextMidnight,
}

/// `[start, end)` in milliseconds since the epoch; `None` is unbounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    pub start: Option<i64>,
    pub end: Option<i64>,
}

impl Window {
    /// # Errors
    /// A sentence, if the window would hold nothing.
    pub fn new(start: Option<i64>, end: Option<i64>) -> Result<Window, String> {
        match (start, end) {
            (Some(start), Some(end)) if start == end => {
                Err("the window is empty: its start equals its end".into())
            }
            (Some(start), Some(end)) if start > end => Err(format!(
                "the window is reversed: {} is after {}; swap them",
                rfc3339(start),
                rfc3339(end)
            )),
            (None, None) => Err("the window has neither a start nor an end; give at least one".into()),
            _ => Ok(Window { start, end }),
        }
    }

    pub fn contains(&self, millis: i64) -> bool {
        self.start.is_none_or(|start| start <= millis) && self.end.is_none_or(|end| millis < end)
    }
}

impl Window {
    /// The edges in `zone`, and whether its clocks change in between: an addition to the edges in UTC. `None` in UTC.
    pub(crate) fn told_in(self, zone: Tz) -> Option<String> {
        if zone == Tz::UTC {
            return None;
        }
        let edge = |edge: Option<i64>| edge.map_or("…".to_owned(), |millis| in_zone(zone, millis));
        let offset = |edge: Option<i64>| {
            Some(local(zone, edge?)?.naive_local() - local(Tz::UTC, edge?)?.naive_local())
        };
        let change = match (self.start, self.end, offset(self.start), offset(self.end)) {
            (Some(start), Some(end), Some(first), Some(last)) if first != last => {
                let length = Duration::from_millis(end.abs_diff(start));
                format!("; the clocks change in it, and it is {} long", humantime::format_duration(length))
            }
            _ => String::new(),
        };
        Some(format!("in {zone} [{}, {}){change}", edge(self.start), edge(self.end)))
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let edge = |edge: Option<i64>| edge.map_or(String::new(), rfc3339);
        write!(f, "{}/{}", edge(self.start), edge(self.end))
    }
}

/// The window's edges in RFC 3339; `None` is unbounded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Edges {
    pub start: Option<String>,
    pub end: Option<String>,
}

impl From<Window> for Edges {
    fn from(window: Window) -> Edges {
        Edges { start: window.start.map(rfc3339), end: window.end.map(rfc3339) }
    }
}

impl fmt::Display for Edges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let edge = |edge: &Option<String>| edge.clone().unwrap_or("…".into());
        write!(f, "[{}, {})", edge(&self.start), edge(&self.end))
    }
}

impl WindowSpec {
    pub(crate) fn has_end(self) -> bool {
        match self {
            WindowSpec::TimesOfDay { end, .. } => end.is_some(),
            WindowSpec::Instants(window) => window.end.is_some(),
        }
    }

    pub fn needs_date(&self) -> bool {
        matches!(self, WindowSpec::TimesOfDay { .. })
    }

    /// Turns times of day into instants of `date` in `zone`. An end before the start falls on the day after.
    ///
    /// # Errors
    /// A sentence, if the result is empty or beyond the calendar, or if the zone's clocks show a time twice or never.
    pub fn on(&self, date: NaiveDate, zone: Tz) -> Result<Window, String> {
        let (start, end) = match *self {
            WindowSpec::Instants(window) => return Ok(window),
            WindowSpec::TimesOfDay { start, end } => (start, end),
        };
        const LAST: &str = "that date has no day after it";
        let end = match end {
            None => None,
            Some(EndOfDay::NextMidnight) => Some(end_of(zone, date).ok_or(LAST)?),
            Some(EndOfDay::At(end)) => {
                let is_next = start.is_some_and(|start| end < start);
                let date = date.checked_add_days(Days::new(u64::from(is_next))).ok_or(LAST)?;
                Some(instant(zone, date.and_time(end))?)
            }
        };
        Window::new(start.map(|start| instant(zone, date.and_time(start))).transpose()?, end)
    }

    /// A warning if the window crosses midnight, because its times may be swapped.
    pub fn crossing(&self, date: NaiveDate, zone: Tz) -> Option<String> {
        let WindowSpec::TimesOfDay { start: Some(start), end: Some(EndOfDay::At(end)) } = *self else {
            return None;
        };
        let window = self.on(date, zone).ok().filter(|_| end < start)?;
        let (from, to) = (window.start?, window.end?);
        let swapped = WindowSpec::TimesOfDay { start: Some(end), end: Some(EndOfDay::At(start)) };
        let length = Duration::from_millis(to.abs_diff(from));
        Some(format!(
            "the window {self} crosses midnight: it is {} long, up to {}; swap its times if you meant {swapped}",
            humantime::format_duration(length),
            rfc3339(to)
        ))
    }
}

impl fmt::Display for WindowSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WindowSpec::Instants(window) => window.fmt(f),
            WindowSpec::TimesOfDay { start, end } => {
                let time = |time: NaiveTime| time.format("%H:%M:%S%.f").to_string();
                let short = |text: String| text.strip_suffix(":00").map_or(text.clone(), str::to_owned);
                let end = end.map_or(String::new(), |end| match end {
                    EndOfDay::NextMidnight => "24:00".to_owned(),
                    EndOfDay::At(end) => short(time(end)),
                });
                write!(f, "{}-{end}", start.map_or(String::new(), |start| short(time(start))))
            }
        }
    }
}

/// Collects the days of source records that belong to another day than the one that was inferred for the window.
#[derive(Clone, Debug, Default)]
pub(crate) struct OtherDays {
    /// The inferred day, the window on it, and the zone of the days. `None` if the day was given; then nothing is
    /// collected.
    inferred: Option<(NaiveDate, Window, Tz)>,
    found: BTreeSet<NaiveDate>,
}

/// The most other days that a warning lists.
const OTHER_DAYS: usize = 3;

impl OtherDays {
    pub(crate) fn than(day: NaiveDate, window: Window, zone: Tz) -> OtherDays {
        OtherDays { inferred: Some((day, window, zone)), found: BTreeSet::new() }
    }

    /// Takes the event time of a record of the source, in milliseconds since the epoch.
    pub(crate) fn see(&mut self, time: Option<i64>) {
        if let (Some((inferred, window, zone)), Some(millis)) = (self.inferred, time)
            && self.found.len() < OTHER_DAYS
            && !window.contains(millis)
            && let Some(day) = day_of(zone, millis).filter(|day| *day != inferred)
        {
            self.found.insert(day);
        }
    }

    pub(crate) fn warning(&self) -> Option<String> {
        let ((inferred, ..), first) = (self.inferred?, self.found.first()?);
        let days: Vec<String> = self.found.iter().map(NaiveDate::to_string).collect();
        Some(format!(
            "the window was put on {inferred}, the day of the source's first and last records, but the source holds \
             records of {} too; choose the day, for example with --date {first}",
            days.join(", ")
        ))
    }
}

/// The forms that a window may have.
pub(crate) const FORMS: &str = "write 11:00-13:00, 11-13, 11:00-, -13:00, 2021-04-14, 2h, -2h..now, \
     2021-04-14/2021-04-16 or 2021-04-14T11:00Z/2021-04-14T13:00Z";

/// Reads times of day, or two instants. The command line takes more forms: see
/// [`TypedWindow`](super::typed::TypedWindow).
impl FromStr for WindowSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<WindowSpec, String> {
        if let Some((start, end)) = text.split_once('/') {
            let edge = |text: &str| match text {
                "" => Ok(None),
                text => parse_instant(text).map(Some).ok_or(format!("`{text}` is not an instant; {FORMS}")),
            };
            return Window::new(edge(start)?, edge(end)?).map(WindowSpec::Instants);
        }
        let (start, end) = text
            .split_once('-')
            .filter(|(_, end)| !end.contains('-'))
            .ok_or(format!("`{text}` is not a window; {FORMS}"))?;
        let time =
            |text: &str| parse_time_of_day(text).ok_or(format!("`{text}` is not a time of day; {FORMS}"));
        let start = Some(start).filter(|text| !text.is_empty()).map(time).transpose()?;
        let end = match end {
            "" => None,
            "24" | "24:00" | "24:00:00" => Some(EndOfDay::NextMidnight),
            text => Some(EndOfDay::At(time(text)?)),
        };
        match (start, end) {
            (None, None) => Err(format!("the window has neither a start nor an end; {FORMS}")),
            (Some(start), Some(EndOfDay::At(end))) if start == end => {
                Err("the window is empty: its start equals its end".into())
            }
            _ => Ok(WindowSpec::TimesOfDay { start, end }),
        }
    }
}

fn parse_time_of_day(text: &str) -> Option<NaiveTime> {
    let of_hour = || {
        let is_hour = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| is_hour).and_then(|hour| NaiveTime::from_hms_opt(hour, 0, 0))
    };
    ["%H:%M", "%H:%M:%S", "%H:%M:%S%.3f"]
        .iter()
        .find_map(|format| NaiveTime::parse_from_str(text, format).ok())
        .or_else(of_hour)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::job::typed::TypedWindow;

    fn on_the_day(text: &str) -> Result<String, String> {
        let date = NaiveDate::from_ymd_opt(2021, 4, 14).ok_or("no such day")?;
        Ok(text.parse::<TypedWindow>()?.at(0, Tz::UTC)?.on(date, Tz::UTC)?.to_string())
    }

    #[rstest]
    #[case("11:00-13:00", "2021-04-14T11:00:00Z/2021-04-14T13:00:00Z")]
    #[case("11:00:30-13:00:00.250", "2021-04-14T11:00:30Z/2021-04-14T13:00:00.250Z")]
    #[case("11:00-", "2021-04-14T11:00:00Z/")]
    #[case("-13:00", "/2021-04-14T13:00:00Z")]
    #[case("23:00-01:00", "2021-04-14T23:00:00Z/2021-04-15T01:00:00Z")]
    #[case("11-13", "2021-04-14T11:00:00Z/2021-04-14T13:00:00Z")]
    #[case("11-", "2021-04-14T11:00:00Z/")]
    #[case("-13", "/2021-04-14T13:00:00Z")]
    #[case("9-24", "2021-04-14T09:00:00Z/2021-04-15T00:00:00Z")]
    #[case("9:30-13", "2021-04-14T09:30:00Z/2021-04-14T13:00:00Z")]
    #[case("00:00-24:00", "2021-04-14T00:00:00Z/2021-04-15T00:00:00Z")]
    #[case("22:00-00:00", "2021-04-14T22:00:00Z/2021-04-15T00:00:00Z")]
    #[case("2021-04-14T11:00Z/2021-04-14T13:00Z", "2021-04-14T11:00:00Z/2021-04-14T13:00:00Z")]
    #[case("2021-04-14T13:00+02:00/2021-04-14T13:00", "2021-04-14T11:00:00Z/2021-04-14T13:00:00Z")]
    #[case("2021-04-14T11:00Z/", "2021-04-14T11:00:00Z/")]
    fn windows(#[case] text: &str, #[case] resolved: &str) {
        assert_eq!(on_the_day(text).as_deref(), Ok(resolved));
        let shown =
            text.parse::<TypedWindow>().expect("parses").at(0, Tz::UTC).expect("resolves").to_string();
        assert_eq!(on_the_day(&shown).as_deref(), Ok(resolved), "{shown} reads back");
    }

    #[rstest]
    #[case("", "not a window")]
    #[case("-", "neither")]
    #[case("/", "neither")]
    #[case("11:00", "not a window")]
    #[case("11:00-11:00", "empty")]
    #[case("25:00-26:00", "not a time of day")]
    #[case("11:00-13:00-14:00", "not a window")]
    #[case("24:00-01:00", "not a time of day")]
    #[case("11 bis 13", "not a window")]
    #[case("111-13", "not a time of day")]
    #[case("+1-13", "not a time of day")]
    #[case("25-26", "not a time of day")]
    #[case("-2h", "not a time of day")]
    #[case("11", "not a window")]
    #[case("2021-04-14T13:00Z/2021-04-14T11:00Z", "reversed")]
    #[case("2021-04-14T13:00Z/2021-04-14T13:00Z", "empty")]
    #[case("2021-04-31T11:00Z/2021-05-01T11:00Z", "neither an instant, a day nor")]
    fn nonsense(#[case] text: &str, #[case] says: &str) {
        let error = on_the_day(text).expect_err("refused");
        assert!(error.contains(says), "{error}");
    }

    #[rstest]
    #[case(
        "13:00-11:00",
        Some("22h long, up to 2021-04-15T11:00:00Z; swap its times if you meant 11:00-13:00")
    )]
    #[case(
        "23:30-01:00",
        Some("1h 30m long, up to 2021-04-15T01:00:00Z; swap its times if you meant 01:00-23:30")
    )]
    #[case("11:00-13:00", None)]
    #[case("11:00-24:00", None)]
    #[case("13:00-", None)]
    #[case("-11:00", None)]
    #[case("2021-04-14T13:00Z/2021-04-15T11:00Z", None)]
    fn what_crosses_midnight_is_told(#[case] text: &str, #[case] wanted: Option<&str>) {
        let date = NaiveDate::from_ymd_opt(2021, 4, 14).expect("a day");
        let typed = text.parse::<TypedWindow>().expect("parses");
        let told = typed.at(0, Tz::UTC).expect("resolves").crossing(date, Tz::UTC);
        let wanted = wanted.map(|wanted| format!("the window {text} crosses midnight: it is {wanted}"));
        assert_eq!(told, wanted);
    }

    #[test]
    fn records_of_other_days_are_told_where_the_day_was_inferred() {
        let date = NaiveDate::from_ymd_opt(2021, 4, 14).expect("a day");
        let (midnight, hour) = (1_618_358_400_000, 3_600_000);
        let window = Window { start: Some(midnight + 23 * hour), end: Some(midnight + 25 * hour) };
        let mut days = OtherDays::than(date, window, Tz::UTC);
        for time in [None, Some(midnight), Some(midnight + 24 * hour), Some(midnight + 25 * hour - 1)] {
            days.see(time);
            assert_eq!(days.warning(), None, "{time:?} is of the day, or of the window");
        }
        days.see(Some(midnight + 25 * hour));
        days.see(Some(midnight - 1));
        let told = days.warning().expect("a warning");
        assert!(told.contains("on 2021-04-14,") && told.contains("of 2021-04-13, 2021-04-15 too"), "{told}");
        assert!(told.ends_with("--date 2021-04-13"), "{told}");

        let mut given = OtherDays::default();
        given.see(Some(midnight - 1));
        assert_eq!(given.warning(), None);
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,40}") {
            let _ = on_the_day(&text);
        }

        #[test]
        fn holds_its_start_and_not_its_end(start in -1i64 << 40..1i64 << 41, length in 1i64..1 << 40) {
            let window = Window::new(Some(start), Some(start + length)).expect("not empty");
            prop_assert!(window.contains(start) && window.contains(start + length - 1));
            prop_assert!(!window.contains(start - 1) && !window.contains(start + length));
        }

        #[test]
        fn a_window_of_the_day_is_at_most_a_day(a in 0u32..1440, b in 0u32..1440) {
            prop_assume!(a != b);
            let text = format!("{:02}:{:02}-{:02}:{:02}", a / 60, a % 60, b / 60, b % 60);
            let date = NaiveDate::from_ymd_opt(2021, 4, 14).expect("a day");
            let window = text.parse::<WindowSpec>().expect("parses").on(date, Tz::UTC).expect("resolves");
            let minutes = (window.end.expect("end") - window.start.expect("start")) / 60_000;
            prop_assert_eq!(minutes, i64::from((b + 1440 - a) % 1440));
        }
    }
}
