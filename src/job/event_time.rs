//! The event time of a record: its timestamp, or a field of its value. Pure.

use serde_json::Number;

use crate::base::json::{Pointer, Written};
use crate::base::time::parse_instant;
use crate::kafka::sys::Message;

/// Where a record's event time comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventTime {
    /// The record's own timestamp.
    Timestamp,
    /// A field of the value: epoch s, ms, us or ns, distinguished by magnitude, or RFC 3339 (naive is UTC).
    Field(Pointer),
}

impl EventTime {
    /// Milliseconds since the epoch; `None` if the record has no event time. `json` is its value as JSON, as
    /// [`Schemas::json`](super::schema::Schemas::json) gives it.
    pub fn of(&self, message: &Message, json: Option<&[u8]>) -> Option<i64> {
        match self {
            EventTime::Timestamp => Some(message.timestamp().0).filter(|millis| *millis >= 0),
            EventTime::Field(pointer) => pointer.find(json?).ok()?.and_then(of_json),
        }
    }

    /// Why a record has no event time.
    pub fn why_none(&self, json: Option<&[u8]>) -> &'static str {
        let (EventTime::Field(pointer), Some(value)) = (self, json) else {
            return "no event time";
        };
        match pointer.find(value) {
            Err(_) => "no event time: the value is not JSON",
            Ok(None) => "no event time: the field is absent or null",
            Ok(Some(found)) if found.text().is_err() => "no event time: the field cannot be read",
            Ok(Some(_)) => "no event time: the field is not a time",
        }
    }

    /// Whether the broker's time index covers this event time.
    pub fn is_indexed(&self) -> bool {
        *self == EventTime::Timestamp
    }
}

/// A JSON number or string as milliseconds since the epoch.
pub fn of_json(value: Written<'_>) -> Option<i64> {
    let text = value.text().ok()?;
    let instant = if value.is_string() { parse_instant(&text) } else { None };
    instant.or_else(|| from_number(&text.trim().parse().ok()?))
}

/// Numbers below 1e11 are seconds (up to the year 5138). Numbers up to a thousand times that are milliseconds, then
/// come microseconds and nanoseconds in the same way. Fractions of a millisecond are cut towards the past, so that a
/// window's edge stays exact.
fn from_number(number: &Number) -> Option<i64> {
    if let Some(whole) = number.as_i64() {
        return Some(match whole.unsigned_abs() {
            0..100_000_000_000 => whole * 1000,
            100_000_000_000..100_000_000_000_000 => whole,
            100_000_000_000_000..100_000_000_000_000_000 => whole.div_euclid(1000),
            _ => whole.div_euclid(1_000_000),
        });
    }
    let float = number.as_f64().filter(|f| f.is_finite())?;
    let millis = match float.abs() {
        f if f < 1e11 => float * 1e3,
        f if f < 1e14 => float,
        f if f < 1e17 => float / 1e3,
        _ => float / 1e6,
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "bounded by the magnitudes above; larger numbers saturate"
    )]
    Some((if float.abs() < 1e11 { (millis * 1e3).round() / 1e3 } else { millis }).floor() as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn from_json(value: &Value) -> Option<i64> {
        let document = json!({ "t": value }).to_string();
        Pointer::member("t").find(document.as_bytes()).expect("JSON").and_then(of_json)
    }

    const AT: i64 = 1_618_398_000_123; // 2021-04-14T11:00:00.123Z

    #[rstest]
    #[case(json!(1_618_398_000), AT - 123)]
    #[case(json!(1_618_398_000.123), AT)]
    #[case(json!(1_618_398_000_123i64), AT)]
    #[case(json!(1_618_398_000_123_999i64), AT)]
    #[case(json!(1_618_398_000_123_999_999i64), AT)]
    #[case(json!("1618398000123"), AT)]
    #[case(json!("2021-04-14T11:00:00.123Z"), AT)]
    #[case(json!("2021-04-14T11:00:00.123999Z"), AT)]
    #[case(json!("2021-04-14T13:00:00.123+02:00"), AT)]
    #[case(json!("2021-04-14 11:00:00.123"), AT)]
    #[case(json!("2021-04-14 11:00:00.123 UTC"), AT)]
    #[case(json!("2021-04-14T11:00:00.123"), AT)]
    #[case(json!("2021-04-14T11:00Z"), AT - 123)]
    #[case(json!(0), 0)]
    #[case(json!(-1), -1000)]
    fn instants(#[case] value: Value, #[case] millis: i64) {
        assert_eq!(from_json(&value), Some(millis));
    }

    #[rstest]
    #[case(json!(null))]
    #[case(json!(true))]
    #[case(json!("yesterday"))]
    #[case(json!(""))]
    #[case(json!("2021-02-30T11:00:00Z"))]
    #[case(json!(["2021-04-14T11:00:00Z"]))]
    fn no_instants(#[case] value: Value) {
        assert_eq!(from_json(&value), None);
    }

    proptest! {
        #[test]
        fn a_formatted_instant_reads_back(millis in 0i64..4_102_444_800_000) {
            prop_assert_eq!(from_json(&json!(crate::base::time::rfc3339(millis))), Some(millis));
        }

        #[test]
        fn never_panics(text in ".{0,40}", number in any::<i64>(), float in any::<f64>()) {
            let _ = (from_json(&json!(text)), from_json(&json!(number)), from_json(&json!(float)));
        }
    }
}
