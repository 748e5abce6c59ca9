//! Sinks of topics into stores keep each record, through kills and rivals, and whatever a record holds.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rstest::rstest;
use serde_json::{Value, json};

use replicator::store;
use replicator::store::{Span, Store};

use crate::kit::*;
use crate::stores::{Kept, Kind, TestStore};

/// A sink with small writes, so that a kill can land in or between many of them.
pub(crate) fn command(store: &TestStore, topics: &[&str]) -> Command {
    let mut command = replicator(&["sink", "--output", "json", "--store", &store.url]);
    for topic in topics {
        command.args(["--topic", topic]);
    }
    command.env("FAILPOINTS", "sink-write-records=return(100)").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Sinks to the end, and returns how many records were written.
pub(crate) fn sunk(store: &TestStore, topics: &[&str]) -> u64 {
    let output = command(store, topics).output().expect("runs");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let receipt = receipt(&output);
    assert_eq!(receipt["complete"], true);
    receipt["written"].as_u64().expect("a count")
}

fn signal(child: &Child, signal: &str) {
    // The process may have ended by itself.
    let _ = Command::new("kill").args([signal, &child.id().to_string()]).stderr(Stdio::null()).status();
}

/// Checks that the store holds each record of the topic once and whole, and nothing else.
fn assert_kept(store: &TestStore, topic: &str) -> Vec<Kept> {
    let kept = store.kept(topic);
    let records: Vec<Record> = kept.iter().map(|kept| kept.record.clone()).collect();
    assert_same(&records, &consume(topic));
    for pair in kept.windows(2).filter(|pair| pair[0].record.partition == pair[1].record.partition) {
        assert!(pair[0].offset < pair[1].offset, "{pair:?}");
    }
    kept
}

/// Records that a broker accepts, but a database may not.
fn hostile() -> Vec<Record> {
    let mut values: Vec<Option<Vec<u8>>> = [
        &b""[..],
        b"null",
        b"1",
        b"\"text\"",
        b"[1,[2,[3]]]",
        b"not JSON",
        b"\xff\xfe\x00",
        b"{\"a\":\"\\u0000\"}",
        b"{\"a\":1}",
        b"{\"a\":{\"b\":1}}",
        b"{\"a\":[{\"b\":[]}],\"a.b\":1,\"\":2,\".\":3,\"a..b\":4}",
        b"{\"a\":1,\"a\":2}",
        b"{ \"a\" :\n1 }",
        b"{\"a\":1e999}",
        b"{\"a\":\"\\ud800\"}",
        "{\"a\":\"\u{e9}\u{1f600}\",\"topic\":\"x\",\"_id\":1,\"_source\":{}}".as_bytes(),
        b"{\"$ref\":\"'; DROP TABLE records; --\",\"<script>\":\"</script>\"}",
    ]
    .iter()
    .map(|value| Some(value.to_vec()))
    .collect();
    values.push(None);
    values.push(Some(format!("{{\"a\":{}}}", "9".repeat(300)).into_bytes()));
    values.push(Some(format!("{{\"a\":0.{}1}}", "0".repeat(3000)).into_bytes()));
    values.push(Some(format!("{}{}", "[".repeat(120), "]".repeat(120)).into_bytes()));
    values.push(Some(format!("{}{}", "[".repeat(50_000), "]".repeat(50_000)).into_bytes()));
    values.push(Some(format!("{{\"a\":\"{}\"}}", "x".repeat(1_000_000)).into_bytes()));
    values.push(Some(vec![0; 1_000_000]));
    let many: Vec<String> = (0..3000).map(|n| format!("\"field{n}\":{n}")).collect();
    values.push(Some(format!("{{{}}}", many.join(",")).into_bytes()));
    let keys: [Option<&[u8]>; 5] = [None, Some(b""), Some(b"key"), Some(b"\xff\x00"), Some(b"a\0b")];
    let headers = vec![
        ("h".to_owned(), Some(b"v".to_vec())),
        ("h".to_owned(), None),
        ("h".to_owned(), Some(b"\xff\0".to_vec())),
        (String::new(), Some(Vec::new())),
    ];
    let mut records = Vec::new();
    for (number, value) in values.into_iter().enumerate() {
        let key = keys[number % keys.len()].map(<[u8]>::to_vec);
        let headers = if number % 3 == 0 { headers.clone() } else { Vec::new() };
        let time = DAY + i64::try_from(number).expect("fits") * MINUTE;
        records.push(Record { partition: 0, time, key, value, headers });
    }
    let mut long = record(0, DAY, "", "{\"a\":1}");
    long.key = Some(vec![b'k'; 100_000]);
    records.push(long);
    records
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[case::opensearch(Kind::OpenSearch)]
#[case::elasticsearch(Kind::Elasticsearch)]
fn whatever_a_record_holds(#[case] kind: Kind) {
    let Some(store) = TestStore::new(kind, "hostile") else { return };
    let pair = Pair::new(1, 1);
    let topic = pair.a.as_str();
    let records = hostile();
    produce(topic, &records[..10]);
    Foreign::begin().send(topic, &records[..10]).abort();
    produce(topic, &records[10..]);
    assert_eq!(sunk(&store, &[topic]), records.len() as u64);
    let kept = exact(&store, topic);
    let is_json = |value: &[u8]| {
        let kept = kept.iter().find(|kept| kept.record.value.as_deref() == Some(value));
        kept.unwrap_or_else(|| panic!("{} is kept", String::from_utf8_lossy(value))).is_json
    };
    assert!(is_json(b"{\"a\":1}") && is_json(b"{\"a\":{\"b\":1}}") && is_json(b"null"));
    assert!(!is_json(b"not JSON") && !is_json(b"{\"a\":\"\\u0000\"}") && !is_json(b""));
    assert_eq!(sunk(&store, &[topic]), 0, "a further run writes nothing");
    exact(&store, topic);

    // The store answers the page's questions, whatever the records hold.
    let mut open = store::open(&store.url).expect("opens");
    let summary = &open.topics().expect("topics")[0];
    assert_eq!((summary.records, summary.first_ms), (records.len() as u64, Some(DAY)));
    let id = summary.topic_id.as_str();
    let span = Span { start_ms: DAY, end_ms: DAY + HOUR, bucket_ms: 10 * MINUTE };
    assert_eq!(open.timeline(id, span).expect("timeline").iter().map(|b| b.1).sum::<u64>(), summary.records);
    assert_eq!(
        open.lacks(id, "none", span).expect("lacks").iter().map(|lack| lack.records).sum::<u64>(),
        summary.records
    );
    assert_eq!(open.lacks(id, id, span).expect("lacks"), []);
    open.fields(id).expect("fields");
    let top = open.top(id, "a", DAY, DAY + HOUR, 3).expect("top");
    assert_eq!(top.first().map(|(value, _)| value.as_str()), Some("1"), "{top:?}");
    for field in ["", ".", "a.b", "a\"b", "'", "a=b", "$ref", "<script>", "(", "\u{e9}"] {
        open.top(id, field, DAY, DAY + HOUR, 3).unwrap_or_else(|e| panic!("{field}: {e}"));
    }
}

/// The id of the topic of this name that was sunk last.
fn id_of(open: &mut Box<dyn Store>, topic: &str) -> String {
    let topics = open.topics().expect("topics");
    topics.into_iter().find(|of| of.topic == topic).expect("it is in the store").topic_id
}

/// [`assert_kept`], but compares what OpenSearch and Elasticsearch answer as JSON and not as text.
fn exact(store: &TestStore, topic: &str) -> Vec<Kept> {
    let normal = |record: &Record| {
        let parsed = |bytes: &Vec<u8>| {
            serde_json::from_slice(bytes).map_or(bytes.clone(), |v: Value| v.to_string().into_bytes())
        };
        Record { value: record.value.as_ref().map(parsed), ..record.clone() }
    };
    if !store.url.contains("search+") {
        return assert_kept(store, topic);
    }
    let kept = store.kept(topic);
    let records: Vec<Record> = kept.iter().map(|kept| normal(&kept.record)).collect();
    assert_same(&records, &consume(topic).iter().map(normal).collect::<Vec<_>>());
    kept
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[case::opensearch(Kind::OpenSearch)]
#[case::elasticsearch(Kind::Elasticsearch)]
fn the_gap_is_seen_and_then_is_not(#[case] kind: Kind) {
    let Some(store) = TestStore::new(kind, "gap") else { return };
    let pair = Pair::new(2, 2);
    let mut records = day(810, 2);
    for (n, record) in records.iter_mut().enumerate() {
        let action = if n % 3 == 0 { "stop" } else { "play" };
        record.value =
            Some(format!(r#"{{"id":"{n}","user":{},"action":"{action}","at":[]}}"#, n % 4).into_bytes());
    }
    produce(&pair.a, &records);
    produce(&pair.b, &outside_of(&records));
    sunk(&store, &[&pair.a, &pair.b]);
    let mut open = store::open(&store.url).expect("opens");
    let (a, b) = (&id_of(&mut open, &pair.a), &id_of(&mut open, &pair.b));
    let start_ms = DAY + 10 * HOUR;
    let span = Span { start_ms, end_ms: DAY + 17 * HOUR, bucket_ms: HOUR };
    // There is one record every half minute.
    let hours = |of: &[i64]| {
        of.iter().map(|h| (start_ms + h * HOUR, if *h == 6 { 90 } else { 120 })).collect::<Vec<_>>()
    };
    assert_eq!(open.timeline(a, span).expect("timeline"), hours(&[0, 1, 2, 3, 4, 5, 6]));
    assert_eq!(open.timeline(b, span).expect("timeline"), hours(&[0, 3, 4, 5, 6]));
    // Without the partitions, which OpenSearch does not compare.
    let lacks = |open: &mut Box<dyn Store>, of: &str, other: &str| {
        let mut lacks: Vec<(i64, u64)> = Vec::new();
        for lack in open.lacks(of, other, span).expect("lacks") {
            match lacks.last_mut().filter(|(start, _)| *start == lack.start_ms) {
                Some((_, records)) => *records += lack.records,
                None => lacks.push((lack.start_ms, lack.records)),
            }
        }
        lacks
    };
    assert_eq!(lacks(&mut open, a, b), hours(&[1, 2]));
    assert_eq!(lacks(&mut open, b, a), []);
    let partitions = open.partitions(a, start_ms, start_ms + HOUR).expect("partitions");
    assert_eq!(partitions, [(0, 60), (1, 60)]);
    let aside = Span { start_ms: start_ms + 7, ..span };
    assert_eq!(open.timeline(a, aside).expect("timeline")[0].0, start_ms + 7, "buckets begin with the span");
    assert_eq!(open.fields(a).expect("fields"), ["action", "user"]);
    let mut top = |field, end_ms| open.top(a, field, start_ms, end_ms, 2).expect("top");
    assert_eq!(top("action", span.end_ms), [("play".to_owned(), 540), ("stop".to_owned(), 270)]);
    assert_eq!(top("user", start_ms + HOUR), [("0".to_owned(), 30), ("1".to_owned(), 30)]);
    assert_eq!((top("at", span.end_ms), top("none", span.end_ms)), (vec![], vec![]));

    pair.filled();
    assert_eq!(sunk(&store, &[&pair.a, &pair.b]), 240);
    assert_eq!(open.topics().expect("topics").iter().map(|s| s.records).sum::<u64>(), 1620);
    assert_eq!(lacks(&mut open, a, b), []);
    for n in 0..3 {
        open.keep_receipt(&n.to_string(), &json!({"n": n, "0": {"a": [n]}})).expect("kept");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let newest: Vec<Value> = open.receipts(2).expect("receipts");
    assert_eq!(newest, [json!({"n": 2, "0": {"a": [2]}}), json!({"n": 1, "0": {"a": [1]}})]);
    // A later one of the same run takes the place of the earlier one, and is the newest.
    open.keep_receipt("0", &json!({"n": "again"})).expect("kept");
    let newest: Vec<Value> = open.receipts(10).expect("receipts");
    assert_eq!(
        newest.iter().map(|kept| &kept["n"]).collect::<Vec<_>>(),
        [&json!("again"), &json!(2), &json!(1)]
    );
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[case::opensearch(Kind::OpenSearch)]
#[case::elasticsearch(Kind::Elasticsearch)]
fn killed_many_times_in_mid_sink(#[case] kind: Kind) {
    let Some(store) = TestStore::new(kind, "killed") else { return };
    let pair = Pair::new(3, 2);
    produce(&pair.a, &day(12_000, 3));
    produce(&pair.b, &day(8_000, 2));
    let topics = [pair.a.as_str(), pair.b.as_str()];
    let mut random = ChaCha8Rng::seed_from_u64(getrandom::u64().expect("randomness"));
    let mut kills = 0;
    // A node takes long for each batch.
    let most = if matches!(kind, Kind::OpenSearch | Kind::Elasticsearch) { 7 } else { 20 };
    while kills < most {
        let wanted = store.count() + random.random_range(0..400);
        let mut child = command(&store, &topics)
            .env("FAILPOINTS", "sink-write-records=return(20)")
            .spawn()
            .expect("starts");
        until(|| store.count() > wanted || child.try_wait().expect("asked").is_some());
        std::thread::sleep(std::time::Duration::from_micros(random.random_range(0..20_000)));
        signal(&child, "-KILL");
        let output = child.wait_with_output().expect("ends");
        if output.status.signal() == Some(9) {
            kills += 1;
        } else {
            // The sink was faster than the kill, so give it more to do.
            assert_eq!(code(&output), 0, "{}", stderr(&output));
            produce(&pair.a, &day(3_000, 3));
        }
    }
    sunk(&store, &topics);
    topics.iter().for_each(|topic| drop(assert_kept(&store, topic)));
    assert_eq!(sunk(&store, &topics), 0);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[case::opensearch(Kind::OpenSearch)]
#[case::elasticsearch(Kind::Elasticsearch)]
fn a_rival_takes_over(#[case] kind: Kind) {
    let Some(store) = TestStore::new(kind, "rival") else { return };
    let pair = Pair::new(2, 1);
    produce(&pair.a, &day(20_000, 2));
    let first = command(&store, &[&pair.a]).spawn().expect("starts");
    until(|| store.count() > 500);
    let second = command(&store, &[&pair.a]).spawn().expect("starts");
    let outputs = [first, second].map(|child| child.wait_with_output().expect("ends"));
    assert_eq!(outputs.each_ref().map(code), [5, 0], "{} {}", stderr(&outputs[0]), stderr(&outputs[1]));
    assert!(stderr(&outputs[0]).contains("another run"), "{}", stderr(&outputs[0]));
    assert_kept(&store, &pair.a);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[case::opensearch(Kind::OpenSearch)]
#[case::elasticsearch(Kind::Elasticsearch)]
fn started_together_and_killed(#[case] kind: Kind) {
    let Some(store) = TestStore::new(kind, "together") else { return };
    let pair = Pair::new(2, 1);
    produce(&pair.a, &day(10_000, 2));
    for more in [500, 1500, 2500] {
        let children = [0; 3].map(|_| command(&store, &[&pair.a]).spawn().expect("starts"));
        until(|| store.count() > more);
        signal(&children[0], "-KILL");
        let outputs = children.map(|child| child.wait_with_output().expect("ends"));
        let codes = outputs.each_ref().map(code);
        assert!(codes.iter().all(|code| [-1, 0, 5].contains(code)), "{codes:?} {}", stderr(&outputs[1]));
    }
    sunk(&store, &[&pair.a]);
    assert_kept(&store, &pair.a);
}

#[test]
fn followed_until_told_to_stop() {
    let store = TestStore::new(Kind::Sqlite, "followed").expect("SQLite");
    let pair = Pair::new(2, 1);
    let records = day(600, 2);
    produce(&pair.a, &records[..100]);
    let child = command(&store, &[&pair.a, &pair.b]).arg("--follow").spawn().expect("starts");
    until(|| store.count() == 100);
    // An open transaction holds back the records behind it, and nothing else.
    let open = Foreign::begin().send(&pair.b, &day(10, 1));
    produce(&pair.a, &records[100..]);
    until(|| store.count() == 600);
    open.commit();
    until(|| store.count() == 610);
    // A new topic of the same name has other records.
    delete(&pair.b);
    create(&pair.b, 1, &[]);
    produce(&pair.b, &day(5, 1));
    until(|| store.count() == 615);
    signal(&child, "-TERM");
    let output = child.wait_with_output().expect("ends");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let receipt = receipt(&output);
    assert_eq!(
        (&receipt["written"], &receipt["complete"]),
        (&json!(615), &json!(true)),
        "{}",
        stderr(&output)
    );
    assert_kept(&store, &pair.a);
    assert_eq!(store.kept(&pair.b).len(), 15);
    let summaries = store::open(&store.url).expect("opens").topics().expect("topics");
    assert_eq!(summaries.iter().find(|s| s.topic == pair.b).map(|s| s.records), Some(5));
}

#[test]
fn what_never_came_is_not_complete() {
    let store = TestStore::new(Kind::Sqlite, "never").expect("SQLite");
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(10, 1));
    let child = command(&store, &[&pair.a, "never-made"]).arg("--follow").spawn().expect("starts");
    until(|| store.count() == 10);
    signal(&child, "-TERM");
    let output = child.wait_with_output().expect("ends");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let receipt = receipt(&output);
    assert_eq!(receipt["complete"], false, "{receipt:?}");
    let known = |topic: usize| receipt["topics"][topic]["behind_offsets"].clone();
    assert_eq!((known(0), known(1)), (json!(0), Value::Null), "{receipt:?}");
}

#[test]
fn interrupted_goes_on_from_there() {
    let store = TestStore::new(Kind::Sqlite, "interrupted").expect("SQLite");
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(20_000, 1));
    let child = command(&store, &[&pair.a]).spawn().expect("starts");
    until(|| store.count() > 500);
    signal(&child, "-INT");
    let output = child.wait_with_output().expect("ends");
    assert_eq!(code(&output), 130, "{}", stderr(&output));
    let written = receipt(&output)["written"].as_u64().expect("a count");
    assert_eq!(written + sunk(&store, &[&pair.a]), 20_000);
    assert_kept(&store, &pair.a);
}

#[test]
fn deleted_before_they_were_sunk() {
    let store = TestStore::new(Kind::Sqlite, "deleted").expect("SQLite");
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(100, 1));
    trim(&pair.a, 0, 10);
    assert_eq!(sunk(&store, &[&pair.a]), 90, "what is gone before the first time was never promised");
    produce(&pair.a, &day(100, 1));
    trim(&pair.a, 0, 150);
    let output = command(&store, &[&pair.a]).output().expect("runs");
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    assert!(stderr(&output).contains("records 100 to 149"), "{}", stderr(&output));
}

#[test]
fn refused_with_the_way_out() {
    let store = TestStore::new(Kind::Sqlite, "refused").expect("SQLite");
    let pair = Pair::new(1, 1);
    let fails = |arguments: &[&str], wanted: i32, says: &str| {
        let output = replicator(arguments).output().expect("runs");
        assert_eq!(code(&output), wanted, "{}", stderr(&output));
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    };
    fails(&["sink", "--topic", "no-such-topic", "--store", &store.url], 3, "--follow");
    fails(&["sink", "--topic", &pair.a, "--store", "mysql://x"], 2, "sqlite:FILE");
    fails(&["sink", "--topic", &pair.a, "--topic", &pair.a, "--store", &store.url], 2, "twice");
    fails(&["sink", "--topic", &pair.a, "--store", "sqlite:/no/such/directory/x"], 1, "directory");
    fails(&["sink", "--topic", &pair.a, "--store", "postgres://x@127.0.0.1:1/x"], 1, "is up");
    for store in ["opensearch+http://127.0.0.1:1", "elasticsearch+http://127.0.0.1:1"] {
        fails(&["sink", "--topic", &pair.a, "--store", store], 1, "is up");
    }
    fails(&["sink", "--topic", &pair.a, "--store", "sqlite:/etc/passwd"], 1, "not a SQLite file");
}

#[test]
fn a_fill_keeps_its_receipt() {
    let store = TestStore::new(Kind::Sqlite, "receipts").expect("SQLite");
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(60, 1));
    let run = |url: &str| pair.command(50_000).args(["--store", url]).output().expect("runs");
    for _ in 0..2 {
        let output = run(&store.url);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
    }
    let receipts = store::open(&store.url).expect("opens").receipts(10).expect("receipts");
    let written: Vec<&Value> = receipts.iter().map(|receipt| &receipt["written"]).collect();
    assert_eq!(written, [&json!(0), &json!(18)], "newest first");
    assert!(receipts[0]["at"].as_str().is_some_and(|at| at.ends_with('Z')));
    let output = run("sqlite:/no/such/directory/x");
    assert_eq!(code(&output), 0, "it only warns");
    assert!(stderr(&output).contains("the receipt was not kept"), "{}", stderr(&output));
}
