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

/// The UTC day of an instant in milliseconds since the epoch.
pub(crate) fn day_of(millis: i64) -> Option<NaiveDate> {
    DateTime::<Utc>::from_timestamp_millis(millis).map(|at| at.date_naive())
}

/// Reads an RFC 3339 instant as milliseconds since the epoch. It may have a blank instead of the T, no seconds, ` UTC`
/// at its end, or no zone at all (then it is UTC).
pub(crate) fn parse_instant(text: &str) -> Option<i64> {
    let text = text.trim();
    let text = text.strip_suffix(" UTC").unwrap_or(text);
    let offsets =
        ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z", "%Y-%m-%d %H:%M%#z"];
    let naives = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"];
    DateTime::parse_from_rfc3339(text)
        .ok()
        .or_else(|| {
            let zoned = text.strip_suffix(['Z', 'z']).map_or(text.to_owned(), |rest| format!("{rest}+00:00"));
            offsets.iter().find_map(|format| DateTime::parse_from_str(&zoned, format).ok())
        })
        .map(|at| at.timestamp_millis())
        .or_else(|| {
            let naive = naives.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())?;
            Some(naive.and_utc().timestamp_millis())
        })
}

/// `2021-04-14`, for `--date`.
///
/// # Errors
/// A sentence that shows the form.
pub(crate) fn parse_date(text: &str) -> Result<NaiveDate, String> {
    text.parse().map_err(|_| format!("`{text}` is not a date; write 2021-04-14"))
}
