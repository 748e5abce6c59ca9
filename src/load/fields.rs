//! A document's key and time, taken out of it without building the rest. Pure.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::event_time;
use crate::json::{Pointer, key_bytes};

/// Where the key and the time of each document are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    key: Path,
    time: Path,
}

/// What becomes of a document: its record's key and timestamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `None` where the document has no key field, or null there.
    pub key: Option<Vec<u8>>,
    /// Milliseconds since the epoch, above 0.
    pub millis: i64,
}

/// A pointer, cut after the member of the document itself that it goes through.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Path {
    whole: Pointer,
    member: String,
    rest: String,
}

impl From<Pointer> for Path {
    fn from(whole: Pointer) -> Path {
        let inner = whole.as_str().strip_prefix('/').unwrap_or_default();
        let (member, rest) = inner.find('/').map_or((inner, ""), |slash| inner.split_at(slash));
        let (member, rest) = (member.replace("~1", "/").replace("~0", "~"), rest.to_owned());
        Path { whole, member, rest }
    }
}

impl Path {
    fn find(&self, member: Option<&RawValue>) -> Option<Value> {
        let value: Value = serde_json::from_str(member?.get()).ok()?;
        match self.rest.as_str() {
            "" => Some(value).filter(|value| !value.is_null()),
            _ => value.pointer(&self.rest).filter(|value| !value.is_null()).cloned(),
        }
    }
}

impl Fields {
    pub fn new(key: Pointer, time: Pointer) -> Fields {
        Fields { key: key.into(), time: time.into() }
    }

    pub fn key(&self) -> &str {
        self.key.whole.as_str()
    }

    pub fn time(&self) -> &str {
        self.time.whole.as_str()
    }

    /// # Errors
    /// Why the document is no event: not JSON, no object, or without a time that a record can carry.
    pub fn read(&self, document: &[u8]) -> Result<Event, String> {
        // The parser does not look into the strings that it passes over.
        let text = std::str::from_utf8(document).map_err(|err| format!("not UTF-8: {err}"))?;
        let members = self.members(text)?;
        let Some(time) = self.time.find(members.time) else {
            return Err(format!("no time at {}", self.time()));
        };
        let millis = event_time::from_json(&time)
            .ok_or_else(|| format!("{} at {} is no time", excerpt(&time), self.time()))?;
        if millis <= 0 {
            // Kafka's clients take 0 for "now" and negative ones for "none".
            return Err(format!(
                "{} at {} is a time before 1970, which no record can carry",
                excerpt(&time),
                self.time()
            ));
        }
        let key = self.key.find(members.key).as_ref().map(key_bytes);
        Ok(Event { key, millis })
    }

    fn members<'d>(&self, text: &'d str) -> Result<Members<'d>, String> {
        let mut parser = serde_json::Deserializer::from_str(text);
        let members = Wanted(self).deserialize(&mut parser).map_err(|err| reason(&err))?;
        parser.end().map_err(|err| reason(&err))?;
        Ok(members)
    }
}

/// serde_json's reason; its line is always 1, and misleads where a file has many.
pub fn reason(err: &serde_json::Error) -> String {
    let (text, column) = (err.to_string(), err.column());
    let place = format!(" at line {} column {column}", err.line());
    match text.strip_suffix(&place) {
        Some(text) => format!("{text} at column {column}"),
        None => text,
    }
}

fn excerpt(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// The members that the paths go through. Of a repeated one the last counts, as in [`Value`].
#[derive(Default)]
struct Members<'d> {
    key: Option<&'d RawValue>,
    time: Option<&'d RawValue>,
}

struct Wanted<'f>(&'f Fields);

impl<'d> DeserializeSeed<'d> for Wanted<'_> {
    type Value = Members<'d>;

    fn deserialize<D: Deserializer<'d>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'d> Visitor<'d> for Wanted<'_> {
    type Value = Members<'d>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'d>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Members::default();
        while let Some(name) = map.next_key_seed(Which(self.0))? {
            if !name.is_key && !name.is_time {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value: &RawValue = map.next_value()?;
            if name.is_key {
                members.key = Some(value);
            }
            if name.is_time {
                members.time = Some(value);
            }
        }
        Ok(members)
    }
}

/// Which of the paths a member's name belongs to, found without keeping the name.
struct Which<'f>(&'f Fields);

struct Match {
    is_key: bool,
    is_time: bool,
}

impl<'d> DeserializeSeed<'d> for Which<'_> {
    type Value = Match;

    fn deserialize<D: Deserializer<'d>>(self, deserializer: D) -> Result<Match, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Which<'_> {
    type Value = Match;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Match, E> {
        Ok(Match { is_key: name == self.0.key.member, is_time: name == self.0.time.member })
    }

    fn visit_bytes<E: serde::de::Error>(self, name: &[u8]) -> Result<Match, E> {
        self.visit_str(std::str::from_utf8(name).map_err(E::custom)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    const AT: i64 = 1_618_398_000_123; // 2021-04-14T11:00:00.123Z

    fn fields(key: &str, time: &str) -> Fields {
        Fields::new(key.parse().expect("a pointer"), time.parse().expect("a pointer"))
    }

    #[rstest]
    #[case("id", "time", r#"{"id":"a","time":1618398000123}"#, Some("a"))]
    #[case("id", "time", r#" {"time":"2021-04-14T11:00:00.123Z","x":[{"id":2}],"id":7} "#, Some("7"))]
    #[case("/m/id", "/m/t", r#"{"m":{"id":"a","t":1618398000123}}"#, Some("a"))]
    #[case("/m/l/1", "t", r#"{"m":{"l":[1,{"b":2}]},"t":1618398000123}"#, Some(r#"{"b":2}"#))]
    #[case("/a~1b~0", "t", r#"{"a/b~":"k","t":1618398000123}"#, Some("k"))]
    #[case("id", "t", r#"{"t":1618398000123}"#, None)]
    #[case("id", "t", r#"{"id":null,"t":1618398000123}"#, None)]
    #[case("id", "t", r#"{"id":"","t":1618398000123}"#, Some(""))]
    #[case("id", "t", r#"{"id":"a","t":0,"i\u0064":"b","t":1618398000123}"#, Some("b"))]
    #[case("t", "t", r#"{"t":1618398000123}"#, Some("1618398000123"))]
    fn events(#[case] key: &str, #[case] time: &str, #[case] document: &str, #[case] expected: Option<&str>) {
        let event = fields(key, time).read(document.as_bytes()).expect("an event");
        assert_eq!(event, Event { key: expected.map(|key| key.as_bytes().to_vec()), millis: AT });
    }

    #[rstest]
    #[case(b"", "EOF")]
    #[case(b"hello", "expected value at column 1")]
    #[case(b"{\"t\":1618398000123", "EOF")]
    #[case(b"{\"t\":1618398000123} x", "trailing")]
    #[case(b"{\"t\":1618398000123,\"x\":\"\xff\"}", "UTF-8")]
    #[case(b"[1]", "expected a JSON object")]
    #[case(b"5", "expected a JSON object")]
    #[case(b"{}", "no time at /t")]
    #[case(b"{\"t\":null}", "no time at /t")]
    #[case(b"{\"t\":\"soon\"}", "\"soon\" at /t is no time")]
    #[case(b"{\"t\":0}", "before 1970")]
    #[case(b"{\"t\":-1}", "before 1970")]
    fn no_events(#[case] document: &[u8], #[case] says: &str) {
        let why = fields("id", "t").read(document).expect_err("no event");
        assert!(why.contains(says), "{why}");
    }

    proptest! {
        #[test]
        fn finds_what_the_pointers_find(name in "[a-z~/ ]{1,3}", value in ".{0,9}", other in ".{0,9}") {
            let document = json!({ name.clone(): { "k": value }, "t": AT, "x": [other, { "t": 1 }] });
            let pointer = Pointer::member(&name);
            let read = Fields::new(format!("{}/k", pointer.as_str()).parse().expect("a pointer"), Pointer::member("t"))
                .read(document.to_string().as_bytes());
            prop_assume!(name != "t" && name != "x");
            prop_assert_eq!(read, Ok(Event { key: Some(value.into_bytes()), millis: AT }));
        }

        #[test]
        fn never_panics(document in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = fields("id", "t").read(&document);
        }
    }
}
