//! Gives a Protobuf message as JSON. Pure.

use prost_reflect::{DynamicMessage, FileDescriptor, MessageDescriptor, SerializeOptions};
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use super::input::Input;

/// A file of message types.
pub(super) struct Protobuf(FileDescriptor);

/// The name of the file itself. No import can have it, because the registry gives no file a name like this.
const NAME: &str = "replicator/the value's schema.proto";

impl Protobuf {
    pub(super) fn parse(text: &str, references: &[(String, String)]) -> Result<Protobuf, String> {
        let mut files = ChainFileResolver::new();
        files.add(Files { text: text.to_owned(), references: references.to_vec() });
        files.add(GoogleFileResolver::new());
        let mut compiler = Compiler::with_file_resolver(files);
        compiler.include_imports(true).open_file(NAME).map_err(|e| e.to_string())?;
        let file = compiler.descriptor_pool().get_file_by_name(NAME);
        file.map(Protobuf).ok_or_else(|| "the compiler lost it".to_owned())
    }

    /// The message in the canonical JSON of Protobuf, but with fields under their own names and with 64-bit integers as
    /// numbers. A field without presence that has its default is left out: nobody can tell whether it was set. A message
    /// that holds the same values always gives the same text.
    ///
    /// # Errors
    /// Why the bytes are no such message.
    pub(super) fn json(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut input = Input::of(bytes);
        let message = self.message(&mut input)?;
        let message = DynamicMessage::decode(message, input.rest()).map_err(|e| e.to_string())?;
        let options = SerializeOptions::new().stringify_64_bit_integers(false).use_proto_field_name(true);
        // By way of a value, because the order of a map's entries is random, and that of a value's members is not.
        let value = message.serialize_with_options(serde_json::value::Serializer, &options);
        value.and_then(|value| serde_json::to_vec(&value)).map_err(|e| e.to_string())
    }

    /// The type that the value names: the index of a message in the file, then that of a message within it, and so on.
    /// No indices stand for the first message.
    fn message(&self, input: &mut Input<'_>) -> Result<MessageDescriptor, String> {
        let count = input.index()?;
        let first = if count == 0 { 0 } else { input.index()? };
        let mut message = self.0.messages().nth(first);
        for _ in 1..count {
            let within = input.index()?;
            message = message.and_then(|message| message.child_messages().nth(within));
            if message.is_none() {
                break;
            }
        }
        message.ok_or_else(|| "it names a message type that the schema does not have".to_owned())
    }
}

struct Files {
    text: String,
    references: Vec<(String, String)>,
}

impl FileResolver for Files {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let reference = || self.references.iter().find(|(of, _)| of == name).map(|(_, text)| text);
        match if name == NAME { Some(&self.text) } else { reference() } {
            Some(text) => File::from_source(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const FILE: &str = r#"syntax = "proto3"; package shop;
        import "google/protobuf/timestamp.proto"; import "money.proto";
        message Other { string a = 1; }
        message Order {
            message Line { int64 n = 1; }
            string order_id = 1; int64 count = 2; google.protobuf.Timestamp at = 3; bytes raw = 4;
            map<string, int32> m = 5; optional int32 maybe = 6; Money price = 7; double d = 8;
        }"#;
    const MONEY: &str = r#"syntax = "proto3"; package shop; enum Unit { EUR = 0; USD = 1; } message Money { Unit unit = 1; }"#;

    fn json(value: &[u8]) -> Result<String, String> {
        let references = [("money.proto".to_owned(), MONEY.to_owned())];
        let schema = Protobuf::parse(FILE, &references).expect("a schema");
        schema.json(value).map(|json| String::from_utf8(json).expect("text"))
    }

    #[rstest]
    // No index stands for the first message; 1 is the second; 1, 0 is the first one in that.
    #[case(b"\x00", "{}")]
    #[case(b"\x00\x0a\x01x", r#"{"a":"x"}"#)]
    #[case(b"\x02\x00\x0a\x01x", r#"{"a":"x"}"#)]
    #[case(b"\x04\x02\x00\x08\x07", r#"{"n":7}"#)]
    #[case(b"\x02\x02\x30\x00", r#"{"maybe":0}"#)]
    #[case(
        b"\x02\x02\x0a\x01x\x10\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x1a\x02\x08\x01\x22\x01\xff\x30\x00\x3a\x02\x08\x01\x41\x00\x00\x00\x00\x00\x00\xf8\x7f",
        r#"{"at":"1970-01-01T00:00:01Z","count":9223372036854775807,"d":"NaN","maybe":0,"order_id":"x","price":{"unit":"USD"},"raw":"/w=="}"#
    )]
    fn a_message_as_json(#[case] value: &[u8], #[case] wanted: &str) {
        assert_eq!(json(value).as_deref(), Ok(wanted));
    }

    /// An identity by such a field must not change from one reading to the next.
    #[test]
    fn maps_have_one_order() {
        let entry = |name: u8| [b"\x2a\x05\x0a\x01".as_slice(), &[name], b"\x10\x01"].concat();
        let value: Vec<u8> = [b"\x02\x02".to_vec(), (b'a'..=b'z').flat_map(entry).collect()].concat();
        let first = json(&value).expect("a message");
        assert!(first.contains(r#""m":{"a":1,"b":1,"c":1,"#), "{first}");
        assert!((0..20).all(|_| json(&value).as_ref() == Ok(&first)));
    }

    #[rstest]
    #[case(b"", "too early")]
    #[case(b"\x02\x04", "does not have")]
    #[case(b"\x02\x01", "no length, count or index")]
    #[case(b"\x04\x02\x06", "does not have")]
    #[case(b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02", "too early")]
    #[case(b"\x00\x0a\x05x", "Protobuf")]
    #[case(b"\x00\x0a\x01\xff", "Protobuf")]
    fn no_message(#[case] value: &[u8], #[case] says: &str) {
        let why = json(value).expect_err("no message");
        assert!(why.contains(says), "{why}");
    }

    #[test]
    fn an_import_that_is_missing_is_named() {
        let why = Protobuf::parse(FILE, &[]).err().expect("no schema");
        assert!(why.contains("money.proto"), "{why}");
    }
}
