//! The text of a field counts: keys, times and identities are as the JSON writes them.

use std::io::Write;

use replicator::{EventTime, Given, Interrupt, LoadReceipt, Loading, Progress, Result, load};
use rstest::rstest;

use crate::kit::{
    Pair, Record, WINDOW, assert_same, code, consume, produce, properties, record, replicator, stderr, unique,
};

/// Loads a file with this content into a new topic. The fields are given, or guessed.
fn load_file(content: &[u8], are_given: bool, skip_invalid: bool) -> (String, Result<LoadReceipt>) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("events.json");
    std::fs::write(&file, content).expect("written");
    let field = |name: &str| name.parse().ok().filter(|_| are_given);
    let given = Given { key_field: field("id"), time_field: field("ts") };
    let topic = unique("fields");
    let args =
        Loading { file, topic: topic.clone(), given, partitions: 3, except: None, date: None, skip_invalid };
    let loaded = load(&args, &properties(), Progress { quiet: true }, &Interrupt::default());
    let (receipt, result) = loaded;
    (topic, result.map(|()| receipt.expect("a receipt")))
}

fn lines(ids: &[&str]) -> String {
    ids.iter().map(|id| format!("{{\"id\":{id},\"ts\":\"2021-04-14T11:00:00Z\"}}\n")).collect()
}

fn keys(topic: &str) -> Vec<String> {
    let text =
        |record: Record| record.key.map_or("no key".to_owned(), |key| String::from_utf8(key).expect("UTF-8"));
    let mut keys: Vec<String> = consume(topic).into_iter().map(text).collect();
    keys.sort();
    keys
}

fn deep(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

/// Numbers beyond 2^64, floats and nested values give their written text. Strings give their content.
#[test]
fn a_key_is_its_written_text() {
    let deep = deep(200);
    let ids = [
        ("340282366920938463463374607431768211455", "340282366920938463463374607431768211455"),
        ("340282366920938463463374607431768211454", "340282366920938463463374607431768211454"),
        ("340282366920938463463374607431768211453", "340282366920938463463374607431768211453"),
        ("1", "1"),
        ("1.0", "1.0"),
        ("1e3", "1e3"),
        ("1e400", "1e400"),
        (r#""caf\u00e9 \ud83d\ude00""#, "café 😀"),
        ("{\"b\": 1, \"a\":[ ]}", "{\"b\": 1, \"a\":[ ]}"),
        (deep.as_str(), deep.as_str()),
        ("null", "no key"),
    ];
    let (written, mut expected): (Vec<&str>, Vec<&str>) = ids.into_iter().unzip();
    let (topic, loaded) = load_file(lines(&written).as_bytes(), true, false);
    let receipt = loaded.expect("loads");
    assert_eq!((receipt.loaded, receipt.without_key), (11, 1));
    expected.sort_unstable();
    assert_eq!(keys(&topic), expected);
}

#[test]
fn a_key_that_cannot_be_read_is_an_error_and_not_a_null_key() {
    let content = lines(&["\"a\"", r#""cut \ud83d""#, "\"b\""]);
    let (_, loaded) = load_file(content.as_bytes(), true, false);
    let error = loaded.expect_err("refused");
    assert_eq!(error.exit_code(), 3);
    for says in ["line 2: ", "the key at /id", "surrogate"] {
        assert!(error.to_string().contains(says), "{error}");
    }
    let (topic, loaded) = load_file(content.as_bytes(), true, true);
    let receipt = loaded.expect("leaves it out");
    assert_eq!((receipt.loaded, receipt.invalid, receipt.without_key), (2, 1, 0));
    assert_eq!(keys(&topic), ["a", "b"]);
}

/// A load or a fill need not understand values that no field names. This holds for guessed fields as for given ones.
#[rstest]
#[case::lone_surrogate(r#""cut \ud83d""#)]
#[case::lone_surrogate_in_a_name(r#"{"\ud83d":1}"#)]
#[case::huge("1e400")]
#[case::deep(&deep(200))]
fn what_stands_elsewhere_in_the_document_does_not_matter(#[case] elsewhere: &str) {
    let content: String = (0..3)
        .map(|n| {
            let x = if n == 1 { elsewhere } else { "0" };
            format!("{{\"id\":\"k{n}\",\"ts\":\"2021-04-14T11:00:0{n}Z\",\"x\":{x}}}\n")
        })
        .collect();
    for are_given in [true, false] {
        let (topic, loaded) = load_file(content.as_bytes(), are_given, false);
        assert_eq!(loaded.expect("loads").loaded, 3);
        assert_eq!(keys(&topic), ["k0", "k1", "k2"]);
    }
    let pair = Pair::new(1, 1).with(|job| {
        job.selection.event_time = EventTime::Field("/ts".parse().expect("a pointer"));
        job.selection.rules.identity = "field:/id".parse().expect("an identity");
    });
    let records: Vec<Record> = content.lines().map(|line| record(0, WINDOW.0 - 1, "user", line)).collect();
    produce(&pair.a, &records);
    assert_eq!(pair.filled().counts.written, 3);
    assert_same(&consume(&pair.b), &records);
    assert_eq!(pair.filled().counts.written, 0);
}

#[test]
fn an_identity_is_its_written_text() {
    let pair =
        Pair::new(1, 1).with(|job| job.selection.rules.identity = "field:/id".parse().expect("an identity"));
    let ids = (0..10).map(|n| format!("34028236692093846346337460743176821145{n}"));
    let ids = ids.chain(["1", "1.0", "\"1\"", "1e400", "[1]", "[ 1]"].map(str::to_owned));
    let records: Vec<Record> =
        ids.map(|id| record(0, WINDOW.0, "user", &format!("{{\"id\":{id}}}"))).collect();
    produce(&pair.a, &records);
    produce(&pair.b, &records[..3]);
    let receipt = pair.filled();
    assert_eq!((receipt.counts.already_in_target, receipt.counts.written), (3, 13));
    assert_same(&consume(&pair.b), &records);
    assert_eq!(pair.filled().counts.written, 0);
    pair.verify().1.expect("the same");
}

#[rstest]
#[case::surrogate(r#"{"id":"\ud83d"}"#, "no identity: the field cannot be read")]
#[case::no_json(r#"{"id":"a"}}"#, "no identity: the value is not JSON")]
#[case::null(r#"{"id":null}"#, "no identity: ")]
#[case::absent(r#"{"x":1}"#, "no identity: ")]
fn a_record_without_an_identity_says_why(#[case] value: &str, #[case] says: &str) {
    let pair =
        Pair::new(1, 1).with(|job| job.selection.rules.identity = "field:/id".parse().expect("an identity"));
    produce(&pair.a, &[record(0, WINDOW.0, "user", value)]);
    let (receipt, result) = pair.fill();
    assert_eq!((result.expect_err("fails").exit_code(), receipt.counts.invalid), (1, 1));
    assert!(receipt.examples[0].starts_with(says), "{:?}", receipt.examples);
}

#[rstest]
#[case::surrogate(r#"{"ts":"\ud83d"}"#, "no event time: the field cannot be read")]
#[case::no_time(r#"{"ts":"soon"}"#, "no event time: the field is not a time")]
#[case::no_json(r#"{"ts":1618398000"#, "no event time: the value is not JSON")]
#[case::absent(r#"{"x":1}"#, "no event time: ")]
fn a_record_without_a_time_says_why(#[case] value: &str, #[case] says: &str) {
    let pair = Pair::new(1, 1)
        .with(|job| job.selection.event_time = EventTime::Field("/ts".parse().expect("a pointer")));
    produce(&pair.a, &[record(0, 1, "other", "{\"ts\":1618398000}"), record(0, 1, "user", value)]);
    let (receipt, result) = pair.fill();
    assert_eq!((result.expect_err("fails").exit_code(), receipt.counts.invalid), (1, 1));
    assert!(receipt.examples[0].starts_with(says), "{:?}", receipt.examples);
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).expect("in memory");
    encoder.finish().expect("in memory")
}

/// Tapes and block devices leave such files, and `gzip -t` accepts them.
#[test]
fn zeros_behind_gzip_are_padding() {
    let content = gzip(lines(&["\"a\"", "\"b\""]).as_bytes());
    let padded = [content.as_slice(), &[0; 700]].concat();
    let (topic, loaded) = load_file(&padded, true, false);
    assert_eq!(loaded.expect("loads").loaded, 2);
    assert_eq!(keys(&topic), ["a", "b"]);
}

/// The content of several files, each with its byte order mark. Two of them have no newline between them.
#[test]
fn joined_files_lose_nothing() {
    let line = |id: &str| lines(&[id]);
    let (a, b, c, d) = (line("\"a\""), line("\"b\""), line("\"c\""), line("\"d\""));
    let content = format!("\u{feff}{a}\u{feff}{}{}\u{feff}{d}", b.trim_end(), c.trim_end());
    let (topic, loaded) = load_file(content.as_bytes(), true, false);
    assert_eq!(loaded.expect("loads").loaded, 4);
    assert_eq!(keys(&topic), ["a", "b", "c", "d"]);
    assert!(consume(&topic).iter().all(|record| {
        let value = record.value.as_deref().unwrap_or_default();
        value.starts_with(b"{") && value.ends_with(b"}")
    }));
}

/// The message names the cause and the way out. It gives no advice that would lose events.
#[rstest]
#[case::utf_16(lines(&["1", "2"]).encode_utf16().flat_map(u16::to_le_bytes).collect(), "iconv -f UTF-16LE -t UTF-8")]
#[case::zstd([&[0x28, 0xb5, 0x2f, 0xfd][..], &[4; 40]].concat(), "zstd -d")]
#[case::gzip_in_gzip(gzip(&gzip(lines(&["1"]).as_bytes())), "gzip -dc")]
#[case::behind_gzip([&gzip(lines(&["1"]).as_bytes())[..], b"<html>"].concat(), "after its last gzip member")]
fn what_is_no_text_of_ours_is_named(#[case] content: Vec<u8>, #[case] says: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("events.json");
    std::fs::write(&file, content).expect("written");
    let topic = unique("fields");
    let output =
        replicator(&["load", file.to_str().expect("a path"), "--topic", &topic]).output().expect("runs");
    let told = stderr(&output);
    assert_eq!(code(&output), 3, "{told}");
    assert!(told.contains(says) && !told.contains("--skip-invalid"), "{told}");
}
