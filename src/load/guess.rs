//! Guesses which field is the key and which is the time. If the choice is not clear, it lists the candidates. Pure.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::base::error::{Error, Result};
use crate::base::json::{self, Pointer, Written};
use crate::base::time::parse_instant;
use crate::job::event_time;

/// A time field must hold a time in each of this many events.
const TIME_SAMPLE: u64 = 1000;
/// A key field must be unique in this many events.
pub(super) const KEY_SAMPLE: u64 = 10_000;
/// A refusal lists at most this many fields.
const LISTED: usize = 12;
/// A bare number counts as a time only between 2000 and 2100.
const NUMBERS: std::ops::Range<i64> = 946_684_800_000..4_102_444_800_000;

const TIME_NAMES: &[&str] = &[
    "timestamp",
    "@timestamp",
    "time",
    "ts",
    "eventtime",
    "eventtimestamp",
    "eventts",
    "datetime",
    "occurredat",
    "createdat",
    "created",
    "date",
];
const KEY_NAMES: &[&str] = &["id", "eventid", "uuid", "eventuuid", "guid", "messageid", "recordid"];

/// Collects facts about the fields of a file's first events.
#[derive(Default)]
pub(super) struct Guess {
    fields: Vec<Field>,
    events: u64,
}

/// A field of the first event, top-level or one level below.
struct Field {
    pointer: Pointer,
    name: String,
    /// The name of the object that holds the field, unless that is the event itself.
    within: Option<String>,
    /// Whether it was a time in every event so far. Only the first [`TIME_SAMPLE`] events count.
    is_time: bool,
    /// Whether it was text or a whole number in every event so far.
    is_scalar: bool,
    values: HashSet<u64>,
}

impl Guess {
    /// # Errors
    /// Says why the document is not an event, whatever its fields are.
    pub(super) fn look_at(&mut self, document: &[u8]) -> std::result::Result<(), String> {
        let members = json::members(document).map_err(|why| why.to_string())?;
        let members = members.ok_or("not a JSON object")?;
        let inner: Inner =
            members.iter().filter_map(|(name, value)| Some((name.as_str(), object(*value)?))).collect();
        if self.events == 0 {
            self.fields = Field::all(&members, &inner);
        }
        let is_time_sampled = self.events < TIME_SAMPLE;
        self.events += 1;
        for field in &mut self.fields {
            let value = match &field.within {
                Some(outer) => inner.get(outer.as_str()).and_then(|members| members.get(&field.name)),
                None => members.get(&field.name),
            };
            field.look_at(value.copied(), is_time_sampled);
        }
        self.fields.retain(|field| field.is_time || field.is_scalar);
        Ok(())
    }

    /// # Errors
    /// [`Error::Usage`] if no field, or more than one, can be the time; it lists them.
    pub(super) fn time(&self) -> Result<Pointer> {
        let times: Vec<&Field> = self.fields.iter().filter(|f| f.is_time && !f.is_named_as_key()).collect();
        if times.is_empty() {
            return Err(Error::usage(format!(
                "no field holds a time in each of the first {} events; name the time field with --time-field",
                self.events.min(TIME_SAMPLE)
            )));
        }
        plainest(&times, Field::time_rank).ok_or_else(|| {
            let names: Vec<_> = times.iter().take(LISTED).map(|field| field.pointer.as_str()).collect();
            Error::usage(format!(
                "more than one field holds times ({}); name the event's time with --time-field",
                names.join(", ")
            ))
        })
    }

    /// # Errors
    /// [`Error::Usage`] if no field, or more than one, tells the events apart; it lists the fields with the count of
    /// their values.
    pub(super) fn key(&self) -> Result<Pointer> {
        let keys: Vec<&Field> = self.fields.iter().filter(|field| field.can_be_key()).collect();
        let unique: Vec<&Field> =
            keys.iter().filter(|field| field.values.len() as u64 == self.events).copied().collect();
        if unique.is_empty() {
            return Err(Error::usage(format!(
                "no field is unique in the first {} events{}; give --key-field: each of them can be the records' key, but \
                 none tells the records apart, so a fill then needs --identity key+value",
                self.events,
                listed(keys)
            )));
        }
        plainest(&unique, Field::key_rank).ok_or_else(|| {
            Error::usage(format!(
                "more than one field is unique in the first {} events{}; give --key-field",
                self.events,
                listed(unique)
            ))
        })
    }
}

/// The field of the best rank, if it is the only one of that rank.
fn plainest(fields: &[&Field], rank: impl Fn(&Field) -> usize) -> Option<Pointer> {
    let best = fields.iter().map(|field| rank(field)).min()?;
    let mut of_best = fields.iter().filter(|field| rank(field) == best);
    match (of_best.next(), of_best.next()) {
        (Some(field), None) => Some(field.pointer.clone()),
        _ => None,
    }
}

fn listed(mut fields: Vec<&Field>) -> String {
    if fields.is_empty() {
        return String::new();
    }
    fields.sort_by_key(|field| std::cmp::Reverse(field.values.len()));
    let more = if fields.len() > LISTED { ", …" } else { "" };
    let names: Vec<_> = fields
        .iter()
        .take(LISTED)
        .map(|field| format!("{} ({} values)", field.pointer.as_str(), field.values.len()))
        .collect();
    format!(": {}{more}", names.join(", "))
}

type Members<'d> = BTreeMap<String, Written<'d>>;
/// The members of each member that is an object.
type Inner<'m, 'd> = BTreeMap<&'m str, Members<'d>>;

fn object(value: Written<'_>) -> Option<Members<'_>> {
    // This cannot fail: the value is a part of valid JSON.
    json::members(value.as_written().as_bytes()).ok()?
}

impl Field {
    fn all(members: &Members, inner: &Inner) -> Vec<Field> {
        let mut fields = Vec::new();
        for name in members.keys() {
            match inner.get(name.as_str()) {
                Some(inner) => fields.extend(inner.keys().map(|inner| Field::new(Some(name), inner))),
                None => fields.push(Field::new(None, name)),
            }
        }
        fields
    }

    fn new(within: Option<&String>, name: &str) -> Field {
        Field {
            pointer: within.map_or_else(|| Pointer::member(name), |outer| Pointer::member(outer).and(name)),
            name: name.to_owned(),
            within: within.cloned(),
            is_time: true,
            is_scalar: true,
            values: HashSet::new(),
        }
    }

    fn look_at(&mut self, value: Option<Written<'_>>, is_time_sampled: bool) {
        self.is_time &= !is_time_sampled || value.is_some_and(is_time);
        // "1" and 1 make the same key.
        let key = value.filter(|value| value.is_string() || is_whole(value.as_written()));
        match key.and_then(|key| key.text().ok()).filter(|_| self.is_scalar) {
            Some(text) => {
                let mut hasher = DefaultHasher::new();
                text.hash(&mut hasher);
                self.values.insert(hasher.finish());
            }
            None => {
                self.is_scalar = false;
                self.values = HashSet::new();
            }
        }
    }

    /// The name without case and underscores, so that `eventTime` equals `event_time`.
    fn plain_name(&self) -> String {
        self.name.chars().filter(|c| c.is_alphanumeric() || *c == '@').flat_map(char::to_lowercase).collect()
    }

    fn is_named_as_key(&self) -> bool {
        KEY_NAMES.contains(&self.plain_name().as_str()) || self.is_some_id()
    }

    fn is_some_id(&self) -> bool {
        let name = &self.name;
        name.to_lowercase().ends_with("_id") || name.ends_with("Id") || name.ends_with("ID")
    }

    fn can_be_key(&self) -> bool {
        self.is_scalar && (!self.is_time || self.is_named_as_key())
    }

    /// Known names come first, in their order. If a name occurs twice, the field that is not nested comes first. All
    /// other names have the same rank.
    fn time_rank(&self) -> usize {
        let name = self.plain_name();
        let by_name = TIME_NAMES.iter().position(|known| *known == name);
        by_name.map_or(usize::MAX, |at| at * 2 + usize::from(self.within.is_some()))
    }

    /// Nested fields come last: in a few events, `/user/id` is unique too.
    fn key_rank(&self) -> usize {
        let name = self.plain_name();
        let any_name = KEY_NAMES.len() + usize::from(!self.is_some_id());
        let by_name = KEY_NAMES.iter().position(|known| *known == name).unwrap_or(any_name);
        by_name + if self.within.is_some() { KEY_NAMES.len() + 2 } else { 0 }
    }
}

fn is_time(value: Written<'_>) -> bool {
    let is_instant = |text: &str| parse_instant(text).is_some();
    (value.is_string() && value.text().is_ok_and(|text| is_instant(&text)))
        || event_time::of_json(value).is_some_and(|millis| NUMBERS.contains(&millis))
}

/// Whether it is a number without fraction or exponent, of any size.
fn is_whole(text: &str) -> bool {
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) && !text.contains(['.', 'e', 'E'])
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    const DAY: &str = "2021-04-14T11:00:00Z";

    fn guess(events: &[Value]) -> Guess {
        let mut guess = Guess::default();
        for event in events {
            guess.look_at(event.to_string().as_bytes()).expect("an event");
        }
        guess
    }

    #[rstest]
    #[case(json!({"timestamp": DAY, "received": DAY}), "/timestamp")]
    #[case(json!({"@timestamp": DAY, "received": DAY}), "/@timestamp")]
    #[case(json!({"eventTime": DAY, "created_at": DAY}), "/eventTime")]
    #[case(json!({"id": 1_618_398_000, "at": 1_618_398_000}), "/at")]
    #[case(json!({"position": 83_250, "when": 1_618_398_000_123i64}), "/when")]
    #[case(json!({"when": "1618398000.5", "x": "5"}), "/when")]
    #[case(json!({"meta": {"ts": DAY}, "received": DAY}), "/meta/ts")]
    #[case(json!({"meta": {"ts": DAY}, "ts": DAY}), "/ts")]
    #[case(json!({"a/b": {"t~": DAY}}), "/a~1b/t~0")]
    fn times(#[case] event: Value, #[case] pointer: &str) {
        assert_eq!(guess(&[event.clone(), event]).time().expect("plain").as_str(), pointer);
    }

    #[rstest]
    #[case(json!({"received": DAY, "sent": DAY}), "/received, /sent")]
    #[case(json!({"a": {"time": DAY}, "b": {"time": DAY}}), "/a/time, /b/time")]
    #[case(json!({"a": 5, "b": "x", "c": null}), "--time-field")]
    fn no_plain_time(#[case] event: Value, #[case] says: &str) {
        let error = guess(&[event]).time().expect_err("refused");
        assert!(matches!(error, Error::Usage(_)));
        assert!(error.to_string().contains(says), "{error}");
    }

    #[test]
    fn a_time_that_is_missing_once_is_none() {
        let events = [json!({"ts": DAY, "at": DAY}), json!({"at": DAY})];
        assert_eq!(guess(&events).time().expect("plain").as_str(), "/at");
    }

    #[rstest]
    #[case(json!({"id": "a", "uuid": "a", "n": 1}), json!({"id": "b", "uuid": "b", "n": 2}), "/id")]
    #[case(json!({"eventId": "a", "user_id": "a"}), json!({"eventId": "b", "user_id": "b"}), "/eventId")]
    #[case(json!({"play_id": 1, "n": 1}), json!({"play_id": 2, "n": 2}), "/play_id")]
    #[case(json!({"n": 1, "f": 1.5, "b": true}), json!({"n": 2, "f": 2.5, "b": false}), "/n")]
    #[case(json!({"user": {"id": 1}, "n": 1}), json!({"user": {"id": 2}, "n": 2}), "/n")]
    #[case(json!({"meta": {"id": 1}}), json!({"meta": {"id": 2}}), "/meta/id")]
    #[case(json!({"id": 1_618_398_000, "n": 0}), json!({"id": 1_618_398_001, "n": 0}), "/id")]
    #[case(json!({"user_id": 1, "x": "y"}), json!({"user_id": 1, "x": "z"}), "/x")]
    #[case(json!({"n": 1, "at": DAY}), json!({"n": 2, "at": "2021-04-14T11:00:01Z"}), "/n")]
    fn keys(#[case] first: Value, #[case] second: Value, #[case] pointer: &str) {
        assert_eq!(guess(&[first, second]).key().expect("plain").as_str(), pointer);
    }

    #[test]
    fn what_cannot_be_read_is_in_nobodys_way() {
        let mut guess = Guess::default();
        for n in ["340282366920938463463374607431768211455", "340282366920938463463374607431768211454"] {
            let event =
                format!(r#"{{"id":{n},"n":1e400,"x":"\ud83d","\ud83d":0,"deep":{},"ts":"{DAY}"}}"#, deep());
            guess.look_at(event.as_bytes()).expect("an event");
        }
        assert_eq!(guess.key().expect("plain").as_str(), "/id");
        assert_eq!(guess.time().expect("plain").as_str(), "/ts");
        assert_eq!(guess.look_at(b"[1]").expect_err("no event"), "not a JSON object");
    }

    fn deep() -> String {
        "[".repeat(200) + &"]".repeat(200)
    }

    #[rstest]
    #[case(json!({"a_id": 1, "b_id": 1}), json!({"a_id": 2, "b_id": 2}), "/a_id (2 values), /b_id (2 values)")]
    #[case(json!({"x": "a", "y": "a"}), json!({"x": "b", "y": "b"}), "/x (2 values), /y (2 values); give --key-field")]
    #[case(json!({"user_id": 1}), json!({"user_id": 1}), "/user_id (1 values); give --key-field")]
    #[case(json!({"user_id": 1}), json!({"user_id": 1}), "--identity key+value")]
    #[case(json!({"id": 1}), json!({"x": 1}), "no field is unique")]
    fn no_plain_key(#[case] first: Value, #[case] second: Value, #[case] says: &str) {
        let error = guess(&[first, second]).key().expect_err("refused");
        assert!(matches!(error, Error::Usage(_)));
        assert!(error.to_string().contains(says), "{error}");
    }
}
