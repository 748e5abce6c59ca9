//! Writes and reads instants, which are milliseconds since the epoch. Pure.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, Utc};

/// Milliseconds since the epoch as RFC 3339 in UTC; the number itself if it lies beyond the calendar.
pub fn rfc3339(millis: i64) -> String {
    match DateTime::<Utc>::from_timestamp_millis(millis) {
        Some(at) if millis % 1000 == 0 => at.to_rfc3339_opts(SecondsFormat::Secs, true),
        Some(at) => at.to_rfc3339_opts(SecondsFormat::Millis, true),
        None => millis.to_string(),
    }
}

/// A length of time in whole milliseconds.
pub(crate) fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// A time as it was written: with its offset from UTC, or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Milliseconds since the epoch.
    Instant(i64),
    Local(NaiveDateTime),
}

/// Reads an RFC 3339 instant as milliseconds since the epoch. It may have a blank instead of the T, no seconds, ` UTC`
/// at its end, or no zone at all (then it is UTC).
pub(crate) fn parse_instant(text: &str) -> Option<i64> {
    parse_moment(text).map(|moment| match moment {
        Moment::Instant(millis) => millis,
        Moment::Local(at) => at.and_utc().timestamp_millis(),
    })
}

/// [`parse_instant`], which tells a time without a zone from the others.
pub(crate) fn parse_moment(text: &str) -> Option<Moment> {
    let text = text.trim();
    let (text, is_utc) = text.strip_suffix(" UTC").map_or((text, false), |rest| (rest, true));
    let offsets =
        ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z", "%Y-%m-%d %H:%M%#z"];
    let naives = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"];
    DateTime::parse_from_rfc3339(text)
        .ok()
        .or_else(|| {
            let zoned = text.strip_suffix(['Z', 'z']).map_or(text.to_owned(), |rest| format!("{rest}+00:00"));
            offsets.iter().find_map(|format| DateTime::parse_from_str(&zoned, format).ok())
        })
        .map(|at| Moment::Instant(at.timestamp_millis()))
        .or_else(|| {
            let naive = naives.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())?;
            Some(match is_utc {
                true => Moment::Instant(naive.and_utc().timestamp_millis()),
                false => Moment::Local(naive),
            })
        })
}

/// `90s`, `5m` or `200ms`.
///
/// # Errors
/// A sentence that shows the form.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    // humantime takes M for months.
    let length = humantime::parse_duration(text).ok().filter(|_| !text.contains('M'));
    length.ok_or_else(|| format!("`{text}` is not a length of time; write 200ms, 90s, 5m or 2h"))
}

/// The inverse of [`parse_duration`], as one word for a shell.
pub(crate) fn shown_duration(length: Duration) -> String {
    humantime::format_duration(length).to_string().replace(' ', "")
}

/// `2021-04-14`, for `--date`.
///
/// # Errors
/// A sentence that shows the form.
pub(crate) fn parse_date(text: &str) -> Result<NaiveDate, String> {
    // chrono takes 21-04-14 for the year 21.
    let day = text.parse().ok().filter(|_| text.len() == "2021-04-14".len());
    day.ok_or_else(|| format!("`{text}` is not a date; write 2021-04-14"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_reads_back() {
        for millis in [0, 1, 600_000, 5_400_000, 90_061_001, 40 * 86_400_000] {
            let length = Duration::from_millis(millis);
            assert_eq!(parse_duration(&shown_duration(length)), Ok(length));
        }
    }
}
