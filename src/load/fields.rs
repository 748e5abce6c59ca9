//! Reads the key and the time of a document, without building the rest of it. Pure.

use crate::base::json::{self, Pointer, Written};
use crate::job::event_time;

/// The fields that hold the key and the time of each document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    key: Pointer,
    time: Pointer,
}

/// The key and timestamp of the record that a document becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// The content of a string, or the written text of any other value. `None` if the key field is absent or null.
    pub key: Option<Vec<u8>>,
    /// Milliseconds since the epoch, above 0.
    pub millis: i64,
}

impl Fields {
    pub(super) fn new(key: Pointer, time: Pointer) -> Fields {
        Fields { key, time }
    }

    pub(super) fn key(&self) -> &str {
        self.key.as_str()
    }

    pub(super) fn time(&self) -> &str {
        self.time.as_str()
    }

    /// # Errors
    /// Says why the document is not an event: it is not JSON, it has no time that a record can carry, or its key cannot
    /// be read. A record without that key would be another event.
    pub(super) fn read(&self, document: &[u8]) -> Result<Event, String> {
        let [key, time] = json::find([&self.key, &self.time], document).map_err(|why| why.to_string())?;
        let time = time.ok_or_else(|| format!("no time at {}", self.time()))?;
        let millis = event_time::of_json(time)
            .ok_or_else(|| format!("{} at {} is not a time", excerpt(time), self.time()))?;
        if millis <= 0 {
            // Kafka's clients take 0 for "now" and a negative timestamp for "none".
            return Err(format!(
                "{} at {} is a time before 1970, which a record cannot carry",
                excerpt(time),
                self.time()
            ));
        }
        let key = key.map(Written::text).transpose();
        let key = key.map_err(|why| format!("the key at {} cannot be read: {why}", self.key()))?;
        Ok(Event { key: key.map(|key| key.into_owned().into_bytes()), millis })
    }
}

fn excerpt(value: Written<'_>) -> String {
    let text = value.as_written();
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
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
    #[case(
        "id",
        "t",
        r#"{"id":340282366920938463463374607431768211455,"t":1618398000123}"#,
        Some("340282366920938463463374607431768211455")
    )]
    #[case("id", "t", r#"{"id":1e400,"t":1618398000123}"#, Some("1e400"))]
    #[case("id", "t", r#"{"id":[1.0, {}],"t":1618398000123,"x":"\ud83d"}"#, Some("[1.0, {}]"))]
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
    #[case(b"[1]", "no time at /t")]
    #[case(b"5", "no time at /t")]
    #[case(b"{}", "no time at /t")]
    #[case(b"{\"t\":null}", "no time at /t")]
    #[case(b"{\"t\":\"soon\"}", "\"soon\" at /t is not a time")]
    #[case(b"{\"t\":1e400}", "1e400 at /t is not a time")]
    #[case(b"{\"t\":\"\\ud83d\"}", "at /t is not a time")]
    #[case(
        b"{\"t\":1618398000123,\"id\":\"a\\ud83d\"}",
        "the key at /id cannot be read: it holds a lone surrogate"
    )]
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
