//! Local times of a time zone, which may be ambiguous or skipped. Pure.

use chrono::{
    DateTime, Days, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat, TimeDelta, TimeZone,
};
pub use chrono_tz::Tz;

use super::time::rfc3339;

/// How far apart two local times are at most that a change of the clocks skips: a whole day, as in Samoa in 2011.
const LONGEST_JUMP: i64 = 25 * 60 * 60;

/// The instant of a local time, in milliseconds since the epoch.
///
/// # Errors
/// A sentence, if the clocks show that time twice or never. It names both instants, or the jump.
pub(crate) fn instant(zone: Tz, local: NaiveDateTime) -> Result<i64, String> {
    match zone.from_local_datetime(&local) {
        LocalResult::Single(at) => Ok(at.timestamp_millis()),
        LocalResult::Ambiguous(first, second) => Err(format!(
            "the clocks of {zone} show {} twice on {}: at {} and at {}; give the window in instants, as in \
             2021-04-14T11:00Z/2021-04-14T13:00Z, with the one that you mean",
            local.time(),
            local.date(),
            written(first),
            written(second)
        )),
        LocalResult::None => {
            let around =
                |step| (1..=LONGEST_JUMP).find_map(|n| at(zone, local + TimeDelta::seconds(n * step)));
            let jump = match (around(-1), around(1)) {
                (Some(before), Some(after)) => {
                    let from = before.naive_local() + TimeDelta::seconds(1);
                    format!(
                        ": they jump from {} to {}, at {}",
                        from.time(),
                        after.time(),
                        rfc3339(after.timestamp_millis())
                    )
                }
                _ => String::new(),
            };
            Err(format!("the clocks of {zone} never show {} on {}{jump}", local.time(), local.date()))
        }
    }
}

/// The first instant of a day, in milliseconds since the epoch. It is not midnight if the clocks skip midnight.
pub(crate) fn start_of(zone: Tz, day: NaiveDate) -> Option<i64> {
    let midnight = day.and_time(NaiveTime::MIN);
    let first = (0..=LONGEST_JUMP).find_map(|n| at(zone, midnight + TimeDelta::seconds(n)));
    first.map(|at| at.timestamp_millis())
}

/// The first instant of the day after.
pub(crate) fn end_of(zone: Tz, day: NaiveDate) -> Option<i64> {
    start_of(zone, day.checked_add_days(Days::new(1))?)
}

/// The earliest instant of a local time; `None` if the clocks skip it.
fn at(zone: Tz, local: NaiveDateTime) -> Option<DateTime<Tz>> {
    zone.from_local_datetime(&local).earliest()
}

/// Milliseconds since the epoch as RFC 3339, with the zone's offset from UTC; the number itself if it lies beyond the
/// calendar.
pub(crate) fn in_zone(zone: Tz, millis: i64) -> String {
    local(zone, millis).map_or_else(|| millis.to_string(), written)
}

/// The zone's local time of an instant in milliseconds since the epoch.
pub(crate) fn local(zone: Tz, millis: i64) -> Option<DateTime<Tz>> {
    DateTime::from_timestamp_millis(millis).map(|at| at.with_timezone(&zone))
}

/// The zone's day of an instant in milliseconds since the epoch.
pub(crate) fn day_of(zone: Tz, millis: i64) -> Option<NaiveDate> {
    local(zone, millis).map(|at| at.date_naive())
}

fn written(at: DateTime<Tz>) -> String {
    let whole = at.timestamp_subsec_millis() == 0;
    at.to_rfc3339_opts(if whole { SecondsFormat::Secs } else { SecondsFormat::Millis }, true)
}

/// `Europe/Berlin`, for `--tz`.
///
/// # Errors
/// A sentence that shows the form.
pub(crate) fn parse_zone(text: &str) -> Result<Tz, String> {
    let found = chrono_tz::TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(text));
    found.copied().ok_or_else(|| {
        format!("`{text}` is not a time zone; write a name of the IANA database, as in Europe/Berlin or UTC")
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn at(zone: &str, text: &str) -> Result<String, String> {
        instant(parse_zone(zone)?, text.parse().map_err(|_| "a local time")?).map(rfc3339)
    }

    #[rstest]
    #[case("UTC", "2021-04-14T11:00:00", "2021-04-14T11:00:00Z")]
    #[case("Europe/Berlin", "2021-04-14T11:00:00", "2021-04-14T09:00:00Z")]
    #[case("europe/berlin", "2021-04-14T11:00:00", "2021-04-14T09:00:00Z")]
    #[case("Europe/Berlin", "2021-03-28T01:59:59.999", "2021-03-28T00:59:59.999Z")]
    #[case("Europe/Berlin", "2021-03-28T03:00:00", "2021-03-28T01:00:00Z")]
    #[case("Asia/Kolkata", "2021-04-14T11:00:00", "2021-04-14T05:30:00Z")]
    fn local_times(#[case] zone: &str, #[case] local: &str, #[case] wanted: &str) {
        assert_eq!(at(zone, local).as_deref(), Ok(wanted));
    }

    #[rstest]
    #[case("Europe/Berlin", "2021-10-31T02:30:00", &["twice", "2021-10-31T02:30:00+02:00", "2021-10-31T02:30:00+01:00"])]
    #[case("Europe/Berlin", "2021-03-28T02:30:00", &["never", "from 02:00:00 to 03:00:00", "2021-03-28T01:00:00Z"])]
    #[case("Pacific/Apia", "2011-12-30T12:00:00", &["never", "from 00:00:00 to 00:00:00", "2011-12-30T10:00:00Z"])]
    #[case("Europe/Atlantis", "2021-04-14T11:00:00", &["is not a time zone"])]
    fn no_time(#[case] zone: &str, #[case] local: &str, #[case] says: &[&str]) {
        let error = at(zone, local).expect_err("refused");
        assert!(says.iter().all(|says| error.contains(says)), "{error}");
    }

    #[rstest]
    #[case("UTC", "2021-04-14", "2021-04-14T00:00:00Z", "2021-04-15T00:00:00Z")]
    #[case::short("Europe/Berlin", "2021-03-28", "2021-03-27T23:00:00Z", "2021-03-28T22:00:00Z")]
    #[case::long("Europe/Berlin", "2021-10-31", "2021-10-30T22:00:00Z", "2021-10-31T23:00:00Z")]
    #[case::without_midnight(
        "America/Sao_Paulo",
        "2018-11-04",
        "2018-11-04T03:00:00Z",
        "2018-11-05T02:00:00Z"
    )]
    #[case::with_two_midnights(
        "America/Havana",
        "2021-11-07",
        "2021-11-07T04:00:00Z",
        "2021-11-08T05:00:00Z"
    )]
    fn days(#[case] zone: &str, #[case] day: &str, #[case] start: &str, #[case] end: &str) {
        let (zone, day) = (parse_zone(zone).expect("a zone"), day.parse().expect("a day"));
        let wanted = (Some(start.to_owned()), Some(end.to_owned()));
        assert_eq!((start_of(zone, day).map(rfc3339), end_of(zone, day).map(rfc3339)), wanted);
    }
}
