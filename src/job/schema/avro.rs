//! Gives an Avro datum as JSON. Pure.
//!
//! A crate reads the schema, but not the datum. Its decoder takes the end of the bytes for null, goes as deep as the
//! bytes say until the stack is full, and drops the scale of decimals (apache-avro 0.22, `decode.rs`).

use std::collections::HashMap;
use std::fmt::Display;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, NamespaceRef, RecordSchema, ResolvedSchema, UuidSchema};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, NaiveTime, SecondsFormat, Utc};
use num_bigint::BigInt;
use serde::Serialize;

use super::input::Input;

pub(super) struct Avro {
    schema: Schema,
    /// The types that have names.
    names: HashMap<Name, Schema>,
}

/// How many levels a datum may have. A record, a union and the name of a type are a level each.
const LEVELS: usize = 256;
/// The longest JSON, in bytes. Without a limit, five bytes could stand for a billion nulls.
const LONGEST: usize = 64 << 20;
/// The longest decimal, in bytes. The time to print one grows with the square of its length.
const LONGEST_DECIMAL: usize = 1 << 10;

impl Avro {
    pub(super) fn parse(text: &str, references: &[(String, String)]) -> Result<Avro, String> {
        let references = references.iter().map(|(_, text)| text);
        let (schema, others) = Schema::parse_str_with_list(text, references).map_err(|e| e.to_string())?;
        let all: Vec<&Schema> = others.iter().chain([&schema]).collect();
        let resolved = ResolvedSchema::new_with_schemata(all).map_err(|e| e.to_string())?;
        let named = resolved.get_names().iter().map(|(name, schema)| (name.clone(), (*schema).clone()));
        let names = named.collect();
        Ok(Avro { schema, names })
    }

    /// The datum as JSON, as its schema writes it: a union's value stands for itself, bytes are base64, times are ISO
    /// 8601, decimals are strings. NaN and the infinities are strings, as in Protobuf's JSON.
    ///
    /// # Errors
    /// Why the bytes are no such datum.
    pub(super) fn json(&self, datum: &[u8]) -> Result<Vec<u8>, String> {
        let mut writing =
            Writing { names: &self.names, input: Input::of(datum), out: Vec::with_capacity(2 * datum.len()) };
        writing.value(&self.schema, None, LEVELS)?;
        match writing.input.rest().len() {
            0 => Ok(writing.out),
            left => Err(format!("{left} bytes are left over")),
        }
    }
}

struct Writing<'a> {
    names: &'a HashMap<Name, Schema>,
    input: Input<'a>,
    out: Vec<u8>,
}

impl Writing<'_> {
    /// Writes the next value, which may have as many levels as are `left`.
    fn value(&mut self, schema: &Schema, namespace: NamespaceRef<'_>, left: usize) -> Result<(), String> {
        let Some(left) = left.checked_sub(1) else {
            return Err(format!("it has more than {LEVELS} levels"));
        };
        if self.out.len() > LONGEST {
            return Err(format!("its JSON has more than {LONGEST} bytes"));
        }
        match schema {
            Schema::Null => self.out.extend(b"null"),
            Schema::Boolean => match self.input.array()? {
                [0] => self.out.extend(b"false"),
                [1] => self.out.extend(b"true"),
                [other] => return Err(format!("{other} is no boolean")),
            },
            Schema::Int => {
                let int = self.int()?;
                self.plain(int);
            }
            Schema::Long => {
                let long = self.input.integer()?;
                self.plain(long);
            }
            Schema::Float => {
                let float = f32::from_le_bytes(self.input.array()?);
                if float.is_finite() { self.json(&float)? } else { self.json(not_finite(float.into()))? }
            }
            Schema::Double => {
                let double = f64::from_le_bytes(self.input.array()?);
                if double.is_finite() { self.json(&double)? } else { self.json(not_finite(double))? }
            }
            Schema::String | Schema::Uuid(UuidSchema::String) => self.string()?,
            Schema::Bytes | Schema::BigDecimal => {
                let bytes = self.input.bytes()?;
                self.base64(bytes)?;
            }
            Schema::Uuid(UuidSchema::Bytes) => {
                let bytes = self.input.bytes()?;
                self.uuid(bytes)?;
            }
            Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                let bytes = self.input.take(fixed.size)?;
                self.uuid(bytes)?;
            }
            Schema::Fixed(fixed) | Schema::Duration(fixed) => {
                let bytes = self.input.take(fixed.size)?;
                self.base64(bytes)?;
            }
            Schema::Decimal(decimal) => {
                let bytes = match &decimal.inner {
                    InnerDecimalSchema::Bytes => self.input.bytes()?,
                    InnerDecimalSchema::Fixed(fixed) => self.input.take(fixed.size)?,
                };
                self.json(&decimal_text(bytes, decimal.scale)?)?;
            }
            Schema::Enum(of) => {
                let index = self.input.index()?;
                let symbol =
                    of.symbols.get(index).ok_or_else(|| format!("{} has no symbol {index}", of.name))?;
                self.json(symbol)?;
            }
            Schema::Union(union) => {
                let index = self.input.index()?;
                let of = union.variants().get(index).ok_or_else(|| format!("a union has no type {index}"))?;
                self.value(of, namespace, left)?;
            }
            Schema::Array(array) => {
                self.blocks(*b"[]", |writing| writing.value(&array.items, namespace, left))?
            }
            Schema::Map(map) => self.blocks(*b"{}", |writing| {
                writing.string()?;
                writing.out.push(b':');
                writing.value(&map.types, namespace, left)
            })?,
            Schema::Record(record) => self.record(record, namespace, left)?,
            Schema::Ref { name } => {
                let (name, names) = (name.fully_qualified_name(namespace), self.names);
                let of = names.get(&*name).ok_or_else(|| format!("the schema has no type {name}"))?;
                self.value(of, name.namespace(), left)?;
            }
            time => self.time(time)?,
        }
        Ok(())
    }

    fn record(
        &mut self,
        record: &RecordSchema,
        namespace: NamespaceRef<'_>,
        left: usize,
    ) -> Result<(), String> {
        let name = record.name.fully_qualified_name(namespace);
        self.out.push(b'{');
        for (at, field) in record.fields.iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            self.json(&field.name)?;
            self.out.push(b':');
            let within = |why| format!("{}: {why}", field.name);
            self.value(&field.schema, name.namespace(), left).map_err(within)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    /// The items of an array or a map come in blocks, each after its count. After a negative count comes the length of
    /// the block in bytes. The count 0 ends them.
    fn blocks(
        &mut self,
        [open, close]: [u8; 2],
        mut each: impl FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        self.out.push(open);
        let mut is_first = true;
        loop {
            let count = self.input.integer()?;
            if count < 0 {
                self.input.integer()?;
            }
            if count == 0 {
                break;
            }
            for _ in 0..count.unsigned_abs() {
                if !std::mem::take(&mut is_first) {
                    self.out.push(b',');
                }
                each(self)?;
            }
        }
        self.out.push(close);
        Ok(())
    }

    /// A time that no calendar holds stays a number.
    fn time(&mut self, schema: &Schema) -> Result<(), String> {
        let of_day = |nanos: Option<i64>| {
            let nanos = u64::try_from(nanos?).ok()?;
            let (seconds, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
            NaiveTime::from_num_seconds_from_midnight_opt(seconds.try_into().ok()?, nanos.try_into().ok()?)
        };
        let instant = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        let local = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%S%.f").to_string();
        let int = matches!(schema, Schema::Date | Schema::TimeMillis);
        let number = if int { self.int()?.into() } else { self.input.integer()? };
        let text = match schema {
            Schema::Date => {
                DateTime::from_timestamp(number * 86_400, 0).map(|at| at.date_naive().to_string())
            }
            Schema::TimeMillis => of_day(number.checked_mul(1_000_000)).map(|time| time.to_string()),
            Schema::TimeMicros => of_day(number.checked_mul(1000)).map(|time| time.to_string()),
            Schema::TimestampMillis => DateTime::from_timestamp_millis(number).map(instant),
            Schema::TimestampMicros => DateTime::from_timestamp_micros(number).map(instant),
            Schema::TimestampNanos => Some(instant(DateTime::from_timestamp_nanos(number))),
            Schema::LocalTimestampMillis => DateTime::from_timestamp_millis(number).map(local),
            Schema::LocalTimestampMicros => DateTime::from_timestamp_micros(number).map(local),
            Schema::LocalTimestampNanos => Some(local(DateTime::from_timestamp_nanos(number))),
            other => return Err(format!("no value can be read by {other:?}")),
        };
        match text {
            Some(text) => self.json(&text),
            None => {
                self.plain(number);
                Ok(())
            }
        }
    }

    fn int(&mut self) -> Result<i32, String> {
        let long = self.input.integer()?;
        i32::try_from(long).map_err(|_| format!("{long} is no int"))
    }

    fn string(&mut self) -> Result<(), String> {
        let text = std::str::from_utf8(self.input.bytes()?).map_err(|e| e.to_string())?;
        self.json(text)
    }

    fn base64(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.json(&BASE64.encode(bytes))
    }

    fn uuid(&mut self, bytes: &[u8]) -> Result<(), String> {
        let Ok(bytes) = <[u8; 16]>::try_from(bytes) else { return self.base64(bytes) };
        let hex = format!("{:032x}", u128::from_be_bytes(bytes));
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        self.json(&parts.join("-"))
    }

    fn plain(&mut self, number: impl Display) {
        self.out.extend(number.to_string().as_bytes());
    }

    fn json<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), String> {
        serde_json::to_writer(&mut self.out, value).map_err(|e| e.to_string())
    }
}

fn not_finite(number: f64) -> &'static str {
    match number {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    }
}

/// `bytes` is the number without its point, as two's complement, big-endian.
fn decimal_text(bytes: &[u8], scale: usize) -> Result<String, String> {
    if bytes.len() > LONGEST_DECIMAL || scale > LONGEST_DECIMAL {
        return Err(format!("a decimal has more than {LONGEST_DECIMAL} bytes or digits after its point"));
    }
    let number = BigInt::from_signed_bytes_be(bytes);
    let sign = if number.sign() == num_bigint::Sign::Minus { "-" } else { "" };
    let digits = format!("{:0>width$}", number.magnitude().to_string(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    Ok(if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn json(schema: &str, datum: &[u8]) -> Result<String, String> {
        let schema = Avro::parse(schema, &[]).expect("a schema");
        schema.json(datum).map(|json| String::from_utf8(json).expect("text"))
    }

    fn logical(kind: &str, logical: &str) -> String {
        format!(r#"{{"type":"{kind}","logicalType":"{logical}"}}"#)
    }

    /// An integer as Avro writes it.
    fn long(value: i64) -> Vec<u8> {
        #[expect(clippy::cast_sign_loss, reason = "the definition of this encoding")]
        let mut bits = ((value << 1) ^ (value >> 63)) as u64;
        let mut bytes = Vec::new();
        while bits > 0x7f {
            bytes.push(u8::try_from(bits & 0x7f).expect("seven bits") | 0x80);
            bits >>= 7;
        }
        bytes.push(u8::try_from(bits).expect("seven bits"));
        bytes
    }

    #[rstest]
    #[case(r#""null""#, b"", "null")]
    #[case(r#""boolean""#, b"\x01", "true")]
    #[case(r#""int""#, b"\x01", "-1")]
    #[case(r#""long""#, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "-9223372036854775808")]
    #[case(r#""float""#, &0.1_f32.to_le_bytes(), "0.1")]
    #[case(r#""double""#, &0.1_f64.to_le_bytes(), "0.1")]
    #[case(r#""double""#, &f64::NAN.to_le_bytes(), r#""NaN""#)]
    #[case(r#""float""#, &f32::NEG_INFINITY.to_le_bytes(), r#""-Infinity""#)]
    #[case(r#""string""#, b"\x06a\"\n", r#""a\"\n""#)]
    #[case(r#""bytes""#, b"\x04\xff\x00", r#""/wA=""#)]
    #[case(r#"{"type":"fixed","name":"f","size":2}"#, b"\xff\x00", r#""/wA=""#)]
    #[case(r#"{"type":"enum","name":"e","symbols":["A","B"]}"#, b"\x02", r#""B""#)]
    #[case(r#"["null","string"]"#, b"\x02\x02x", r#""x""#)]
    #[case(r#"["null","string"]"#, b"\x00", "null")]
    #[case(r#"{"type":"array","items":"int"}"#, b"\x04\x02\x04\x01\x02\x06\x00", "[1,2,3]")]
    #[case(r#"{"type":"array","items":"int"}"#, b"\x00", "[]")]
    #[case(r#"{"type":"map","values":"int"}"#, b"\x04\x02b\x02\x02a\x04\x00", r#"{"b":1,"a":2}"#)]
    fn a_datum_as_json(#[case] schema: &str, #[case] datum: &[u8], #[case] wanted: &str) {
        assert_eq!(json(schema, datum).as_deref(), Ok(wanted));
    }

    #[rstest]
    #[case("int", "date", long(18_731), r#""2021-04-14""#)]
    #[case("int", "time-millis", long(39_600_123), r#""11:00:00.123""#)]
    #[case("long", "time-micros", long(39_600_000_001), r#""11:00:00.000001""#)]
    #[case("long", "timestamp-millis", long(1_618_398_000_123), r#""2021-04-14T11:00:00.123Z""#)]
    #[case("long", "timestamp-millis", long(-1), r#""1969-12-31T23:59:59.999Z""#)]
    #[case("long", "timestamp-micros", long(1_618_398_000_000_001), r#""2021-04-14T11:00:00.000001Z""#)]
    #[case("long", "timestamp-nanos", long(1), r#""1970-01-01T00:00:00.000000001Z""#)]
    #[case("long", "local-timestamp-millis", long(1_618_398_000_123), r#""2021-04-14T11:00:00.123""#)]
    #[case("long", "timestamp-millis", long(i64::MAX), "9223372036854775807")]
    #[case("int", "time-millis", long(-1), "-1")]
    #[case("string", "uuid", b"\x04ab".to_vec(), r#""ab""#)]
    #[case("string", "nobody-knows-it", b"\x04ab".to_vec(), r#""ab""#)]
    fn logical_types(#[case] kind: &str, #[case] name: &str, #[case] datum: Vec<u8>, #[case] wanted: &str) {
        assert_eq!(json(&logical(kind, name), &datum).as_deref(), Ok(wanted));
    }

    #[test]
    fn a_uuid_of_bytes() {
        let schema = r#"{"type":"fixed","name":"u","size":16,"logicalType":"uuid"}"#;
        let wanted = r#""00010203-0405-0607-0809-0a0b0c0d0e0f""#;
        assert_eq!(json(schema, &(0..16).collect::<Vec<u8>>()).as_deref(), Ok(wanted));
    }

    #[rstest]
    #[case(&[0x04, 0xd2], 2, "12.34")]
    #[case(&[0xff], 2, "-0.01")]
    #[case(&[0xff], 0, "-1")]
    #[case(&[0x01], 3, "0.001")]
    #[case(&[], 1, "0.0")]
    #[case(&[0x7f; 17], 0, "43385334562092358133808765634594698395519")]
    fn decimals(#[case] bytes: &[u8], #[case] scale: usize, #[case] wanted: &str) {
        assert_eq!(decimal_text(bytes, scale).as_deref(), Ok(wanted));
        let schema = format!(r#"{{"type":"bytes","logicalType":"decimal","precision":60,"scale":{scale}}}"#);
        let datum = [long(bytes.len().try_into().expect("short")), bytes.to_vec()].concat();
        assert_eq!(json(&schema, &datum), Ok(format!("\"{wanted}\"")));
    }

    const TREE: &str = r#"{"type":"record","name":"a.Tree","fields":[
        {"name":"id","type":"string"}, {"name":"next","type":["null","Tree"]}]}"#;

    #[test]
    fn records_and_the_names_of_types() {
        let datum = b"\x02x\x02\x02y\x00";
        assert_eq!(json(TREE, datum).as_deref(), Ok(r#"{"id":"x","next":{"id":"y","next":null}}"#));
        let of = r#"{"type":"record","name":"b.Two","fields":[{"name":"l","type":"a.Tree"},{"name":"r","type":"a.Tree"}]}"#;
        let schema = Avro::parse(of, &[("a.Tree".to_owned(), TREE.to_owned())]).expect("a schema");
        let text = schema.json(b"\x02x\x00\x02y\x00").expect("a datum");
        assert_eq!(text, br#"{"l":{"id":"x","next":null},"r":{"id":"y","next":null}}"#);
    }

    /// Each of these is a beginning of a datum, or has one too many bytes, or goes on for ever.
    #[rstest]
    #[case(TREE, b"", "id: the bytes end too early")]
    #[case(TREE, b"\x04x", "too early")]
    #[case(TREE, b"\x02x", "next: the bytes end too early")]
    #[case(TREE, b"\x02x\x04", "no type 2")]
    #[case(TREE, b"\x02x\x01", "-1 is no")]
    #[case(TREE, b"\x02x\x00\x00", "1 bytes are left over")]
    #[case(TREE, b"\x02\xff\x00", "utf-8")]
    #[case(r#""boolean""#, b"", "too early")]
    #[case(r#""boolean""#, b"\x02", "no boolean")]
    #[case(r#""int""#, b"\x80\x80\x80\x80\x10", "no int")]
    #[case(r#""long""#, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", "64 bits")]
    #[case(r#""long""#, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "64 bits")]
    #[case(r#""string""#, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", "too early")]
    #[case(
        r#"{"type":"array","items":"null"}"#,
        b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00",
        "JSON has more"
    )]
    #[case(r#"{"type":"enum","name":"e","symbols":["A"]}"#, b"\x02", "no symbol 1")]
    fn no_datum(#[case] schema: &str, #[case] datum: &[u8], #[case] says: &str) {
        let why = json(schema, datum).expect_err("no datum");
        assert!(why.contains(says), "{why}");
    }

    #[test]
    fn depth_has_a_limit() {
        let nested = |levels: usize| [b"\x00\x02".repeat(levels), b"\x00\x00".to_vec()].concat();
        assert!(json(TREE, &nested(80)).is_ok());
        let why = json(TREE, &nested(100_000)).expect_err("too deep");
        assert!(why.ends_with("it has more than 256 levels"), "{}", &why[why.len() - 60..]);
    }

    proptest! {
        #[test]
        fn never_panics(datum in prop::collection::vec(any::<u8>(), 0..60)) {
            let schema = r#"{"type":"record","name":"r","fields":[
                {"name":"a","type":["null","long",{"type":"map","values":"r"}]},
                {"name":"b","type":{"type":"array","items":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}}},
                {"name":"c","type":{"type":"long","logicalType":"timestamp-micros"}},
                {"name":"d","type":{"type":"int","logicalType":"time-millis"}}]}"#;
            if let Ok(json) = Avro::parse(schema, &[]).expect("a schema").json(&datum) {
                prop_assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok());
            }
        }
    }
}
