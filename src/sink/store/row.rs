//! A record, as a store keeps it. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::kafka::sys::Message;

/// One record, with everything that it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub partition: i32,
    pub offset: i64,
    /// The record's timestamp in milliseconds since the epoch; -1 if it has none.
    pub time_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Content,
    /// A JSON array of `{"name", "value"}`, in order. Bytes that are not text are in `name_base64` or `value_base64`.
    /// `None` if there are no headers.
    pub headers: Option<String>,
    /// A hash of key, timestamp and the value's bytes. A record and its copy in another topic have the same digest.
    pub digest: [u8; 16],
}

/// A record's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A tombstone.
    Null,
    /// The value's text as it was written, or as its schema gives it. Every store can query it: it is UTF-8 without NUL, at most 128 levels deep,
    /// with numbers in the range of a double and without lone surrogates.
    Json(String),
    Raw(Vec<u8>),
}

impl Row {
    /// The record. `json` is its value as JSON, if its bytes are something else. If no store can query that, the value
    /// stays bytes.
    pub fn of(message: &Message, json: Option<&[u8]>) -> Row {
        let mut headers = Vec::new();
        message.for_each_header(|name, value| headers.push(header(name, value)));
        let (key, time_ms) = (message.key(), message.timestamp().0);
        Row {
            partition: message.partition(),
            offset: message.offset(),
            time_ms,
            key: key.map(<[u8]>::to_vec),
            value: match json.and_then(queryable) {
                Some(text) => Content::Json(text.to_owned()),
                None => Content::of(message.value()),
            },
            headers: (!headers.is_empty()).then(|| Value::Array(headers).to_string()),
            digest: digest(key, time_ms, message.value()),
        }
    }

    /// About how many bytes the row takes.
    pub fn size(&self) -> usize {
        let value = match &self.value {
            Content::Null => 0,
            Content::Json(text) => text.len(),
            Content::Raw(bytes) => bytes.len(),
        };
        let headers = self.headers.as_ref().map_or(0, String::len);
        100 + self.key.as_ref().map_or(0, Vec::len) + value + headers
    }
}

impl Content {
    pub fn of(value: Option<&[u8]>) -> Content {
        match value {
            None => Content::Null,
            Some(bytes) => match queryable(bytes) {
                Some(text) => Content::Json(text.to_owned()),
                None => Content::Raw(bytes.to_vec()),
            },
        }
    }
}

fn header(name: &[u8], value: Option<&[u8]>) -> Value {
    let mut header = serde_json::Map::new();
    let mut put = |what: &str, bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => header.insert(what.to_owned(), json!(text)),
        _ => header.insert(format!("{what}_base64"), json!(BASE64.encode(bytes))),
    };
    put("name", name);
    match value {
        Some(value) => put("value", value),
        None => header.insert("value".to_owned(), Value::Null),
    };
    Value::Object(header)
}

/// Hashes lengths too, so that null differs from empty, and a byte cannot move between key and value unseen.
fn digest(key: Option<&[u8]>, time_ms: i64, value: Option<&[u8]>) -> [u8; 16] {
    let mut hasher = Sha256::new();
    hasher.update(time_ms.to_be_bytes());
    for part in [key, value] {
        hasher.update(part.map_or(u64::MAX, |part| part.len() as u64).to_be_bytes());
        hasher.update(part.unwrap_or_default());
    }
    let mut digest = [0; 16];
    digest.copy_from_slice(&hasher.finalize()[..16]);
    digest
}

/// The text, if it is JSON that all stores accept.
fn queryable(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    serde_json::from_str::<Checked>(text).ok().map(|_| text)
}

/// JSON that is only checked; nothing is kept.
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Checked, D::Error> {
        deserializer.deserialize_any(Checked)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = Checked;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON without NUL")
    }

    fn visit_unit<E>(self) -> Result<Checked, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Checked, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Checked, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Checked, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Checked, E> {
        Ok(self)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Checked, E> {
        if text.contains('\0') { Err(E::custom("a NUL")) } else { Ok(self) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Checked, A::Error> {
        while seq.next_element::<Checked>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Checked, A::Error> {
        while map.next_entry::<Checked, Checked>()?.is_some() {}
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(br#"{"a":[1,null,true,"x",1.5e300]}"#)]
    #[case(b"1")]
    #[case(b" \"\\u00e9\" ")]
    #[case(b"123456789012345678901234567890")]
    fn json_stays_as_it_is_written(#[case] bytes: &[u8]) {
        assert_eq!(
            Content::of(Some(bytes)),
            Content::Json(String::from_utf8(bytes.to_vec()).expect("UTF-8"))
        );
    }

    #[rstest]
    #[case(b"")]
    #[case(b"\xff\xfe")]
    #[case(b"hello")]
    #[case(b"{\"a\":\"\\u0000\"}")]
    #[case(b"{\"\\u0000\":1}")]
    #[case(b"\"\\ud800\"")]
    #[case(b"1e999")]
    #[case(b"{} {}")]
    #[case(b"\xef\xbb\xbf{}")]
    fn anything_else_stays_bytes(#[case] bytes: &[u8]) {
        assert_eq!(Content::of(Some(bytes)), Content::Raw(bytes.to_vec()));
    }

    #[test]
    fn nesting_without_bound_stays_bytes() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels)).into_bytes();
        assert!(queryable(&nested(100)).is_some());
        assert!(queryable(&nested(1000)).is_none());
        assert!(queryable(&nested(500_000)).is_none());
    }

    #[test]
    fn digests_tell_null_empty_and_neighbours_apart() {
        let parts = [
            (None, 0, None),
            (Some(""), 0, None),
            (None, 0, Some("")),
            (Some("ab"), 0, Some("c")),
            (Some("a"), 0, Some("bc")),
            (Some("a"), 1, Some("bc")),
        ];
        let digests = parts.map(|(k, t, v)| digest(k.map(str::as_bytes), t, v.map(str::as_bytes)));
        let digests = std::collections::HashSet::from(digests);
        assert_eq!(digests.len(), parts.len());
    }

    #[test]
    fn headers_lose_nothing() {
        assert_eq!(header(b"a", Some(b"x")), json!({"name": "a", "value": "x"}));
        assert_eq!(header(b"a", None), json!({"name": "a", "value": null}));
        assert_eq!(header(b"\xff", Some(b"\0")), json!({"name_base64": "/w==", "value_base64": "AA=="}));
    }
}
