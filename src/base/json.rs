//! Finds fields of a JSON document. Pure.
//!
//! All code that needs a field of a document uses this reader. It skips the fields that nobody asks for. So lone
//! surrogates, numbers that no double can hold and any depth of nesting do no harm there. They are valid JSON (RFC
//! 8259).
//! It returns a value as it is written, because a number that is parsed and written again may change.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::{FromStr, Utf8Error};

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A JSON pointer (RFC 6901); a bare name `id` stands for `/id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    text: String,
    /// The name of each level, unescaped. There is at least one.
    tokens: Vec<String>,
}

impl Pointer {
    /// The value at the pointer; `None` if there is no value, or if it is null. If a member is repeated, the last one
    /// counts.
    ///
    /// # Errors
    /// If the document is not JSON, at the pointer or elsewhere.
    pub fn find<'d>(&self, document: &'d [u8]) -> Result<Option<Written<'d>>, NotJson> {
        find([self], document).map(|[found]| found)
    }

    /// The pointer to a top-level member of the document.
    pub fn member(name: &str) -> Pointer {
        Pointer { text: format!("/{}", escaped(name)), tokens: vec![name.to_owned()] }
    }

    /// The pointer to a member of the value at this pointer.
    #[must_use]
    pub fn and(mut self, name: &str) -> Pointer {
        self.text = format!("{}/{}", self.text, escaped(name));
        self.tokens.push(name.to_owned());
        self
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Pointer {
    type Err = String;

    fn from_str(text: &str) -> Result<Pointer, String> {
        let unescaped = |token: &str| token.replace("~1", "/").replace("~0", "~");
        match text.strip_prefix('/') {
            _ if text.is_empty() => Err("name a field, as in `/id`".into()),
            Some(path) => {
                Ok(Pointer { text: text.to_owned(), tokens: path.split('/').map(unescaped).collect() })
            }
            None => Ok(Pointer::member(text)),
        }
    }
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// [`Pointer::find`] for several pointers, in one pass over the document.
///
/// # Errors
/// As [`Pointer::find`].
pub(crate) fn find<'d, const N: usize>(
    pointers: [&Pointer; N],
    document: &'d [u8],
) -> Result<[Option<Written<'d>>; N], NotJson> {
    // The parser does not check the encoding of the strings that it skips.
    let text = std::str::from_utf8(document)?;
    let mut found = children(text, pointers.map(|pointer| pointer.tokens[0].as_str()))?;
    for (place, pointer) in found.iter_mut().zip(pointers) {
        for token in &pointer.tokens[1..] {
            let Some(text) = *place else { break };
            [*place] = children(text, [token])?;
        }
    }
    Ok(found.map(|text| text.filter(|text| *text != "null").map(Written)))
}

/// The members of the document, if it is an object. A member is left out if its name is not valid text, because no
/// pointer can name it.
///
/// # Errors
/// As [`Pointer::find`].
pub(crate) fn members(document: &[u8]) -> Result<Option<BTreeMap<String, Written<'_>>>, NotJson> {
    let text = std::str::from_utf8(document)?;
    let mut all = BTreeMap::new();
    let is_object = text.trim_ascii_start().starts_with('{');
    let mut parser = serde_json::Deserializer::from_str(text);
    match is_object {
        true => parser.deserialize_map(Members(&mut all))?,
        false => drop(IgnoredAny::deserialize(&mut parser)?),
    }
    parser.end()?;
    Ok(is_object.then_some(all))
}

/// A value as the document writes it, without the blanks around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written<'d>(&'d str);

impl<'d> Written<'d> {
    pub fn as_written(self) -> &'d str {
        self.0
    }

    pub fn is_string(self) -> bool {
        self.0.starts_with('"')
    }

    /// The content of a string, or any other value as it is written, byte for byte: `1`, `1.0` and `1e0` differ.
    ///
    /// # Errors
    /// [`LoneSurrogate`], the only thing that JSON can write and text cannot hold.
    pub fn text(self) -> Result<Cow<'d, str>, LoneSurrogate> {
        match self.0.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            Some(text) if !text.contains('\\') => Ok(Cow::Borrowed(text)),
            Some(_) => serde_json::from_str(self.0).map(Cow::Owned).map_err(|_| LoneSurrogate),
            None => Ok(Cow::Borrowed(self.0)),
        }
    }
}

/// Half of a character that takes two UTF-16 units. Cutting a string can leave one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it holds a lone surrogate (half of a character, written as \\ud800 to \\udfff)")]
pub struct LoneSurrogate;

/// Why a document is not JSON.
#[derive(Debug, thiserror::Error)]
pub enum NotJson {
    #[error("not UTF-8: {0}")]
    Encoding(#[from] Utf8Error),
    #[error("{}", reason(.0))]
    Syntax(#[from] serde_json::Error),
}

/// serde_json's reason without its line number. The line counts from the document's start, which would mislead in a
/// file of many documents.
fn reason(err: &serde_json::Error) -> String {
    let (text, column) = (err.to_string(), err.column());
    let place = format!(" at line {} column {column}", err.line());
    match text.strip_suffix(&place) {
        Some(text) => format!("{text} at column {column}"),
        None => text,
    }
}

/// The members of an object, or the elements of an array, with these names. Any other value has none.
fn children<'d, const N: usize>(
    text: &'d str,
    names: [&str; N],
) -> Result<[Option<&'d str>; N], serde_json::Error> {
    let mut parser = serde_json::Deserializer::from_str(text);
    let found = match text.trim_ascii_start().as_bytes().first() {
        Some(b'{') => parser.deserialize_map(Children(names))?,
        Some(b'[') => parser.deserialize_seq(Children(names))?,
        _ => {
            IgnoredAny::deserialize(&mut parser)?;
            [None; N]
        }
    };
    parser.end()?;
    Ok(found)
}

struct Children<'n, const N: usize>([&'n str; N]);

impl<const N: usize> Children<'_, N> {
    fn put<'d>(found: &mut [Option<&'d str>; N], wanted: [bool; N], value: &'d RawValue) {
        for (place, _) in found.iter_mut().zip(wanted).filter(|(_, is_wanted)| *is_wanted) {
            *place = Some(value.get());
        }
    }
}

impl<'d, const N: usize> Visitor<'d> for Children<'_, N> {
    type Value = [Option<&'d str>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object or array")
    }

    fn visit_map<A: MapAccess<'d>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(wanted) = map.next_key_seed(Which(self.0))? {
            if wanted == [false; N] {
                map.next_value::<IgnoredAny>()?;
            } else {
                Self::put(&mut found, wanted, map.next_value()?);
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'d>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        let indices = self.0.map(index);
        for at in 0.. {
            let wanted = indices.map(|index| index == Some(at));
            if wanted == [false; N] {
                if seq.next_element::<IgnoredAny>()?.is_none() {
                    break;
                }
            } else {
                let Some(value) = seq.next_element()? else { break };
                Self::put(&mut found, wanted, value);
            }
        }
        Ok(found)
    }
}

/// An array index by RFC 6901: digits without a leading zero.
fn index(token: &str) -> Option<usize> {
    let is_index = token == "0" || !token.starts_with(['0', '+']);
    token.parse().ok().filter(|_| is_index)
}

/// Tells which of the wanted names a member's name equals, without keeping it. It compares bytes, because a name may
/// hold a lone surrogate.
struct Which<'n, const N: usize>([&'n str; N]);

impl<'d, const N: usize> DeserializeSeed<'d> for Which<'_, N> {
    type Value = [bool; N];

    fn deserialize<D: Deserializer<'d>>(self, deserializer: D) -> Result<[bool; N], D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<const N: usize> Visitor<'_> for Which<'_, N> {
    type Value = [bool; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_bytes<E: serde::de::Error>(self, name: &[u8]) -> Result<[bool; N], E> {
        Ok(self.0.map(|wanted| wanted.as_bytes() == name))
    }
}

struct Members<'m, 'd>(&'m mut BTreeMap<String, Written<'d>>);

impl<'d> Visitor<'d> for Members<'_, 'd> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'d>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key()? {
            let value: &RawValue = map.next_value()?;
            if let Some(name) = name {
                self.0.insert(name, Written(value.get()));
            }
        }
        Ok(())
    }
}

/// A member's name; `None` if it is not valid text.
struct Name(Option<String>);

impl<'d> Deserialize<'d> for Name {
    fn deserialize<D: Deserializer<'d>>(deserializer: D) -> Result<Name, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }

            fn visit_bytes<E: serde::de::Error>(self, name: &[u8]) -> Result<Name, E> {
                Ok(Name(std::str::from_utf8(name).ok().map(str::to_owned)))
            }
        }
        deserializer.deserialize_bytes(Text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn found<'d>(pointer: &str, document: &'d str) -> Option<&'d str> {
        let pointer: Pointer = pointer.parse().expect("a pointer");
        pointer.find(document.as_bytes()).expect("JSON").map(Written::as_written)
    }

    #[rstest]
    #[case("id", r#"{"id":"a"}"#, Some(r#""a""#))]
    #[case("/id", r#" {"x":[{"id":2}] , "id" : 7 } "#, Some("7"))]
    #[case("/m/id", r#"{"m":{"id":1.0}}"#, Some("1.0"))]
    #[case("/m/l/1", r#"{"m":{"l":[1,{"b": 2 }]}}"#, Some(r#"{"b": 2 }"#))]
    #[case("/0/1", "[[1,2],3]", Some("2"))]
    #[case("/00", "[1]", None)]
    #[case("/-", "[1]", None)]
    #[case("/1", "[1]", None)]
    #[case("/1", r#"{"1":2}"#, Some("2"))]
    #[case("/a~1b~0", r#"{"a/b~":"k"}"#, Some(r#""k""#))]
    #[case("/", r#"{"":1}"#, Some("1"))]
    #[case("/m//b", r#"{"m":{"":{"b":1}}}"#, Some("1"))]
    #[case("id", r#"{"id":null}"#, None)]
    #[case("id", r#"{"id":"null"}"#, Some(r#""null""#))]
    #[case("/id/x", r#"{"id":5}"#, None)]
    #[case("/id/x", r#"{"id":null}"#, None)]
    #[case("id", "5", None)]
    #[case("id", r#""id""#, None)]
    // The last one counts, however its name is written.
    #[case("id", r#"{"id":1,"i\u0064":2}"#, Some("2"))]
    #[case("/m/id", r#"{"m":{"id":1},"m":{"id":2,"id":3}}"#, Some("3"))]
    #[case("/m/id", r#"{"m":{"id":1},"m":{}}"#, None)]
    #[case("id", r#"{"id":1,"id":null}"#, None)]
    // Odd values elsewhere do no harm.
    #[case("id", r#"{"x":"\ud83d","\ud83d":0,"id":1,"n":1e400,"m":-1E+999}"#, Some("1"))]
    fn finds(#[case] pointer: &str, #[case] document: &str, #[case] expected: Option<&str>) {
        assert_eq!(found(pointer, document), expected);
    }

    #[test]
    fn no_depth_is_too_deep() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(found("id", &format!(r#"{{"x":{deep},"id":1}}"#)), Some("1"));
        assert_eq!(found("id", &format!(r#"{{"id":{deep}}}"#)), Some(deep.as_str()));
        assert_eq!(found(&"/0".repeat(500), &deep), Some(&deep[500..199_500]));
        let all = members(deep.as_bytes()).expect("JSON");
        assert!(all.is_none());
    }

    #[rstest]
    #[case(b"", "EOF while parsing a value at column 0")]
    #[case(b"{\"id\":1} x", "trailing characters at column 10")]
    #[case(b"{\"id\":1,", "EOF")]
    #[case(b"{\"id\":01}", "column 8")]
    #[case(b"{\"id\":\"\\x\"}", "invalid escape")]
    #[case(b"{\"id\":1,\"x\":\"\xff\"}", "not UTF-8")]
    #[case(b"[1,]", "column 4")]
    fn no_json(#[case] document: &[u8], #[case] says: &str) {
        let why = Pointer::member("id").find(document).expect_err("no JSON").to_string();
        assert!(why.contains(says), "{why}");
        assert!(members(document).is_err());
    }

    #[rstest]
    #[case(r#""a""#, Ok("a"))]
    #[case(r#""""#, Ok(""))]
    #[case(r#""\u00e9\n\ud83d\ude00\"""#, Ok("é\n😀\""))]
    #[case(r#""cut \ud83d""#, Err(LoneSurrogate))]
    #[case(r#""\ude00""#, Err(LoneSurrogate))]
    #[case("340282366920938463463374607431768211455", Ok("340282366920938463463374607431768211455"))]
    #[case("1e400", Ok("1e400"))]
    #[case("1.0", Ok("1.0"))]
    #[case("{\"a\": [ 1 ]}", Ok("{\"a\": [ 1 ]}"))]
    fn texts(#[case] written: &str, #[case] expected: Result<&str, LoneSurrogate>) {
        assert_eq!(Written(written).text().as_deref(), expected.as_ref().map(|text| *text));
    }

    #[test]
    fn pointers_are_as_written() {
        assert_eq!(Pointer::member("a/b").and("t~").as_str(), "/a~1b/t~0");
        for text in ["/a~1b/t~0", "/", "/a//b"] {
            assert_eq!(text.parse::<Pointer>().expect("a pointer").as_str(), text);
        }
        assert_eq!("id".parse::<Pointer>(), "/id".parse());
        assert!("".parse::<Pointer>().is_err());
    }

    #[test]
    fn members_by_name() {
        let document = r#"{"b":1,"a":{"x":null},"\ud83d":5,"b":"2"}"#;
        let all = members(document.as_bytes()).expect("JSON").expect("an object");
        let all: Vec<_> = all.iter().map(|(name, value)| (name.as_str(), value.as_written())).collect();
        assert_eq!(all, [("a", r#"{"x":null}"#), ("b", r#""2""#)]);
        assert!(members(b"[1]").expect("JSON").is_none());
    }

    proptest! {
        #[test]
        fn finds_what_serde_json_finds(names in proptest::collection::vec("[ab/~01]{0,2}", 1..4), value in ".{0,9}") {
            let mut document = json!([value, { "x": value }]);
            for name in names.iter().rev() {
                document = json!({ "before": [1, { "a": {} }], name.clone(): document, "zz": value });
            }
            let path: String = names.iter().map(|name| format!("/{}", escaped(name))).collect();
            for path in [path.clone(), format!("{path}/0"), format!("{path}/1/x"), format!("{path}/2")] {
                let text = document.to_string();
                let found: Option<Value> = found(&path, &text).map(|text| serde_json::from_str(text).expect("JSON"));
                prop_assert_eq!(found.as_ref(), document.pointer(&path));
            }
        }

        #[test]
        fn never_panics(document in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = (Pointer::member("a").find(&document), members(&document));
        }
    }
}
