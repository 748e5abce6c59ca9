//! Values that name their schema in a Schema Registry: their fields are read, and their bytes are copied. The registry is
//! a real one, Apicurio, by its compatible API.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use replicator::{EventTime, Identity, Schemas, Window};
use rstest::rstest;
use serde_json::{Value, json};

use crate::kit::*;
use crate::nodes::{NEEDED, in_cache, maven};
use crate::sink::sunk;
use crate::stores::{Kind, REMOVE, Server, TestStore, pipe, server, spawn, wait_for};

const VERSION: &str = "2.6.13.Final";

/// The place of a real registry's API, without `http://`. `None`, and told, where this machine cannot run it.
fn registry() -> Option<&'static str> {
    static REGISTRY: OnceLock<Option<Server>> = OnceLock::new();
    server(&REGISTRY, || {
        let home = in_cache(&format!("apicurio-{VERSION}"), |part| {
            let artifact = format!("-Dartifact=io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all");
            let plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:unpack";
            maven(part, &[plugin, &artifact, "-DoutputDirectory=."])
        })?;
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let dir = tempfile::Builder::new().prefix("registry").tempdir().expect("a directory").keep();
        let jar = home.join(format!("apicurio-registry-app-{VERSION}-runner.jar")).display().to_string();
        let port_of = format!("-Dquarkus.http.port={port}");
        let command = ["java", "-Xmx256m", "-Dquarkus.http.host=127.0.0.1", &port_of, "-jar", &jar];
        Command::new("java").arg("-version").output().map_err(|_| NEEDED.to_owned())?;
        let pipe = pipe(spawn(&dir, "TERM", REMOVE, command.map(str::to_owned).to_vec()));
        let at = format!("127.0.0.1:{port}/apis/ccompat/v7");
        wait_for("Apicurio", &dir, || ureq::get(format!("http://{at}/subjects")).call().is_ok())?;
        Ok(Server { at, _lives: Box::new(pipe) })
    })
}

/// Registers a schema, and returns its id.
fn register(at: &str, subject: &str, kind: &str, schema: &str, references: Value) -> u32 {
    let body = json!({"schemaType": kind, "schema": schema, "references": references}).to_string();
    let mut answer = ureq::post(format!("http://{at}/subjects/{subject}/versions"))
        .content_type("application/vnd.schemaregistry.v1+json")
        .send(body)
        .expect("registered");
    let answer: Value =
        serde_json::from_str(&answer.body_mut().read_to_string().expect("text")).expect("JSON");
    u32::try_from(answer["id"].as_u64().expect("an id")).expect("fits")
}

fn with_id(id: u32, bytes: &[u8]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), bytes].concat()
}

/// Integers of Avro and of Protobuf; only small ones are needed in Protobuf.
fn varint(mut bits: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bits > 0x7f {
        bytes.push(u8::try_from(bits & 0x7f).expect("seven bits") | 0x80);
        bits >>= 7;
    }
    bytes.push(u8::try_from(bits).expect("seven bits"));
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [&[u8::try_from(2 * text.len()).expect("short")], text.as_bytes()].concat()
}

fn avro(id: u32, name: &str, time: i64, rest: &[u8]) -> Vec<u8> {
    let time = varint(2 * u64::try_from(time).expect("after 1970"));
    with_id(id, &[&text(name)[..], &time, rest].concat())
}

fn protobuf(id: u32, name: &str, time: i64) -> Vec<u8> {
    let seconds = [&[8][..], &varint(u64::try_from(time / 1000).expect("after 1970"))].concat();
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("short");
    let fields = [&[0x0a, length(name.as_bytes())], name.as_bytes(), &[0x12, length(&seconds)], &seconds];
    // The schema's second message.
    with_id(id, &[&[0x02, 0x02][..], &fields.concat()].concat())
}

/// A subject with a character that a path must escape.
fn subject(name: &str) -> String {
    unique(&format!("{name}%2F"))
}

/// Two ids of schemas that have the fields `id` and `at`, and how a value looks by each of them.
type Written = Box<dyn Fn(&str, i64) -> Vec<u8>>;

fn kind(at: &str, kind: &str) -> [Written; 2] {
    match kind {
        "AVRO" => {
            let place = unique("Place").replace('-', "_");
            let of_place = format!(
                r#"{{"type":"record","name":"{place}","fields":[{{"name":"x","type":["null","boolean"]}}]}}"#
            );
            let place_subject = unique("place/of");
            register(at, &place_subject.replace('/', "%2F"), "AVRO", &of_place, json!([]));
            let fields = r#"{"name":"id","type":"string"},{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}}"#;
            let name = subject("avro");
            let schema =
                |more: &str| format!(r#"{{"type":"record","name":"Event","fields":[{fields}{more}]}}"#);
            let old = register(at, &name, "AVRO", &schema(""), json!([]));
            let more = format!(r#",{{"name":"place","type":["null","{place}"],"default":null}}"#);
            let reference = json!([{"name": place, "subject": place_subject, "version": 1}]);
            let new = register(at, &name, "AVRO", &schema(&more), reference);
            assert_ne!(old, new);
            [
                Box::new(move |name, time| avro(old, name, time, b"")),
                Box::new(move |name, time| avro(new, name, time, b"\x02\x02\x01")),
            ]
        }
        "PROTOBUF" => {
            let money = subject("money");
            let of_money = r#"syntax = "proto3"; message Money { int64 cents = 1; }"#;
            register(at, &money, "PROTOBUF", of_money, json!([]));
            let reference =
                json!([{"name": "money.proto", "subject": money.replace("%2F", "/"), "version": 1}]);
            let of = |more: &str| {
                format!(
                    r#"syntax = "proto3"; import "google/protobuf/timestamp.proto"; {more}
                    message First {{ string id = 1; }}
                    message Event {{ string id = 1; google.protobuf.Timestamp at = 2; }}"#
                )
            };
            let name = subject("protobuf");
            let old = register(at, &name, "PROTOBUF", &of(""), json!([]));
            let import = r#"import "money.proto"; message Price { Money is = 1; }"#;
            let new = register(at, &name, "PROTOBUF", &of(import), reference);
            assert_ne!(old, new);
            [
                Box::new(move |name, time| protobuf(old, name, time)),
                Box::new(move |name, time| {
                    let mut value = protobuf(new, name, time);
                    // By this schema, the event is the third message.
                    value[6] = 0x04;
                    value
                }),
            ]
        }
        _ => {
            let name = subject("json");
            let schema = r#"{"type":"object","properties":{"id":{"type":"string"}}}"#;
            let old = register(at, &name, "JSON", schema, json!([]));
            let written = |name: &str, time: i64| json!({"id": name, "at": time}).to_string().into_bytes();
            [
                Box::new(move |name, time| with_id(old, &written(name, time))),
                // Without an id, and so without a schema.
                Box::new(written),
            ]
        }
    }
}

fn pair(at: &str) -> Pair {
    Pair::new(2, 2).with(|job| {
        let selection = &mut job.selection;
        selection.schemas = Schemas::at(&format!("http://{at}")).expect("a registry");
        selection.event_time = EventTime::Field("/at".parse().expect("a pointer"));
        selection.rules.identity = Identity::Field("id".parse().expect("a pointer"));
    })
}

/// Records of a whole day whose timestamps and keys say nothing.
fn events(values: &[Written; 2]) -> Vec<Record> {
    let event = |n: i64| {
        let value = values[usize::from(n % 3 == 0)](&format!("event-{n}"), DAY + 10 * HOUR + n * 7 * MINUTE);
        Record { value: Some(value), ..record(i32::try_from(n % 2).expect("fits"), DAY, "one key", "") }
    };
    (0..58).map(event).collect()
}

fn is_in_window(n: usize) -> bool {
    let time = 10 * 60 + 7 * n;
    (11 * 60..13 * 60).contains(&time)
}

#[rstest]
#[case("AVRO")]
#[case("PROTOBUF")]
#[case("JSON")]
fn fields_of_values_with_a_schema_count(#[case] of: &str) {
    let Some(at) = registry() else { return };
    let pair = pair(at);
    let values = kind(at, of);
    let records = events(&values);
    produce(&pair.a, &records);
    let wanted: Vec<Record> = records
        .iter()
        .enumerate()
        .filter(|(n, _)| is_in_window(*n))
        .map(|(_, record)| record.clone())
        .collect();
    produce(&pair.b, &wanted[..5]);
    let receipt = pair.filled();
    assert_eq!((receipt.counts.written, receipt.counts.already_in_target), (12, 5));
    pair.assert_holds(&wanted[..5], &wanted);
    let (findings, result) = pair.verify();
    result.unwrap_or_else(|e| panic!("{e} {findings:?}"));
    assert_eq!(findings.in_source, 17);
    assert_eq!(pair.filled().counts.written, 0);
    let command = pair.job.selection.command(Window { start: None, end: None }, &Identity::Key);
    assert!(command.contains(&format!("--schema-registry http://{at}")), "{command}");

    // The same identity under another schema is another content of it.
    let n = (0..58).find(|n| is_in_window(*n)).expect("one");
    let time = DAY + 10 * HOUR + i64::try_from(n).expect("fits") * 7 * MINUTE;
    let other = values[usize::from(n % 3 != 0)](&format!("event-{n}"), time);
    produce(&pair.a, &[Record { value: Some(other), ..record(0, DAY, "one key", "") }]);
    let (receipt, result) = pair.fill();
    assert_eq!((receipt.counts.conflicts, result.expect_err("a conflict").exit_code()), (1, 1));
}

#[test]
fn values_that_cannot_be_read_are_counted_and_named() {
    let Some(at) = registry() else { return };
    let pair = pair(at);
    let [old, _] = kind(at, "AVRO");
    let good = old("good", WINDOW.0);
    let unknown = with_id(999_999, &good[5..]);
    let cut = good[..good.len() - 1].to_vec();
    let values = [good.clone(), unknown, cut, vec![0, 0, 0], with_id(0, b"?"), with_id(u32::MAX, b"?")];
    let records = values.map(|value| Record { value: Some(value), ..record(0, WINDOW.0, "k", "") });
    produce(&pair.a, &records);
    let (receipt, result) = pair.fill();
    assert_eq!((receipt.counts.invalid, result.expect_err("refused").exit_code()), (5, 1));
    let told = receipt.examples.join("\n");
    for says in [
        "knows no schema 999999",
        "at: the bytes end too early",
        "ends within the id",
        "no registry has a schema 4294967295",
    ] {
        assert!(told.contains(says), "{told}");
    }
    assert_eq!(consume(&pair.b), []);

    // Without the registry no value has the fields, so a run skips all. A run with the registry must not rely on that.
    let skipping = |schemas: Schemas| {
        let mut job = pair.job.clone();
        job.selection.rules.skip_invalid = true;
        job.selection.schemas = schemas;
        let (receipt, result) = run(&job, replicator::Mode::Fill);
        result.expect("fills");
        (receipt.counts.written, receipt.counts.invalid)
    };
    assert_eq!(skipping(Schemas::default()), (0, 6));
    // The wrong registry knows none of the schemas.
    let wrong = moody(at, usize::MAX, "404 Not Found", r#"{"error_code":40403}"#);
    assert_eq!(skipping(Schemas::at(&wrong).expect("a registry")), (0, 6));
    assert_eq!(skipping(pair.job.selection.schemas.clone()), (1, 5));
    assert_same(&consume(&pair.b), &records[..1]);
}

fn filling(pair: &Pair, registry: &str, more: &[&str]) -> Output {
    let fill = ["fill", "--bootstrap-server", broker(), "--source", &pair.a, "--target", &pair.b];
    let job = [
        "--window",
        "2021-04-14T11:00:00Z/2021-04-14T13:00:00Z",
        "--time-field",
        "at",
        "--identity",
        "field:id",
    ];
    let mut command = replicator(&[&fill[..], &job, &["--output", "json"], more].concat());
    command.env("REPLICATOR_SCHEMA_REGISTRY", registry).output().expect("runs")
}

/// Passes requests on to the registry, but answers the first `refused` ones with `status` and `body`.
fn moody(at: &'static str, refused: usize, status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let place = listener.local_addr().expect("an address").to_string();
    let asked = AtomicUsize::new(0);
    let (host, path) = at.split_once('/').expect("a path");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().expect("cloned"));
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|read| read > 0) {}
            if asked.fetch_add(1, Ordering::Relaxed) < refused {
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                continue;
            }
            let wanted = head.split(' ').nth(1).expect("a path");
            let mut upstream = TcpStream::connect(host).expect("connects");
            write!(upstream, "GET /{path}{wanted} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
                .expect("sent");
            let mut answer = Vec::new();
            upstream.read_to_end(&mut answer).expect("an answer");
            let _ = stream.write_all(&answer);
        }
    });
    format!("http://{place}")
}

#[test]
fn a_registry_that_is_away_is_waited_for_and_never_taken_for_an_answer() {
    let Some(at) = registry() else { return };
    let pair = pair(at);
    let [old, _] = kind(at, "AVRO");
    let records = [Record { value: Some(old("x", WINDOW.0)), ..record(0, WINDOW.0, "k", "") }];
    produce(&pair.a, &records);

    let nobody = filling(&pair, "http://127.0.0.1:1", &["--patience", "2", "--skip-invalid"]);
    assert_eq!((code(&nobody), &receipt(&nobody)["error"]["reason"]), (1, &json!("schema-registry")));
    assert!(stderr(&nobody).contains("127.0.0.1:1"), "{}", stderr(&nobody));
    let (a, b) = (&pair.a, &pair.b);
    let verify =
        ["verify", "--bootstrap-server", broker(), "--source", a, "--target", b, "--identity", "field:id"];
    let more = ["--window", "2021-04-14", "--output", "json", "--schema-registry", "http://127.0.0.1:1"];
    let verified = replicator(&[&verify[..], &more].concat()).output().expect("runs");
    assert_eq!((code(&verified), &receipt(&verified)["error"]["reason"]), (1, &json!("schema-registry")));
    // A server that is no registry, or the wrong path of one, says 404 to everything.
    for (refused, says) in [
        ("404 Not Found", "no Schema Registry does"),
        ("200 OK", "no Schema Registry does"),
        ("401 Unauthorized", "REPLICATOR_SCHEMA_REGISTRY"),
    ] {
        let output = filling(&pair, &moody(at, usize::MAX, refused, "no"), &["--skip-invalid"]);
        assert_eq!(code(&output), 3, "{}", stderr(&output));
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
    assert_eq!(consume(&pair.b), []);

    // Five answers of 500 take more than the tries of one question.
    let output = filling(&pair, &moody(at, 5, "500 Internal Server Error", "no"), &[]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_same(&consume(&pair.b), &records);
}

#[test]
fn a_sink_keeps_values_with_a_schema_as_json() {
    let Some(at) = registry() else { return };
    let topic = unique("sunk");
    create(&topic, 1, &[]);
    let [old, _] = kind(at, "AVRO");
    let values = [old("x", WINDOW.0), with_id(999_999, b"?"), br#"{"id":"plain"}"#.to_vec()];
    produce(&topic, &values.map(|value| Record { value: Some(value), ..record(0, WINDOW.0, "k", "") }));
    let store = TestStore::new(Kind::Sqlite, "schemas").expect("SQLite");
    let mut command = crate::sink::command(&store, &[&topic]);
    let output = command.env("REPLICATOR_SCHEMA_REGISTRY", format!("http://{at}")).output().expect("runs");
    assert_eq!((code(&output), &receipt(&output)["written"]), (0, &json!(3)), "{}", stderr(&output));
    assert!(stderr(&output).contains("knows no schema 999999"), "{}", stderr(&output));
    let kept: HashMap<i64, (Option<Vec<u8>>, bool)> =
        store.kept(&topic).into_iter().map(|kept| (kept.offset, (kept.record.value, kept.is_json))).collect();
    let json = |text: &str| (Some(text.as_bytes().to_vec()), true);
    assert_eq!(kept[&0], json(r#"{"id":"x","at":"2021-04-14T11:00:00Z"}"#));
    assert_eq!(kept[&1], (Some(with_id(999_999, b"?")), false));
    assert_eq!(kept[&2], json(r#"{"id":"plain"}"#));
    assert_eq!(sunk(&store, &[&topic]), 0);
}

#[rstest]
#[case("http://me:secret@127.0.0.1:8081", "REPLICATOR_SCHEMA_REGISTRY")]
#[case("ftp://127.0.0.1", "takes https://HOST:PORT")]
#[case("127.0.0.1:8081", "takes https://HOST:PORT")]
#[case("me:secret@127.0.0.1:8081", "takes https://HOST:PORT")]
#[case("https://me:sec/secret@127.0.0.1:8081", "takes https://HOST:PORT")]
#[case("http://127.0.0.1:8081?ca=x", "?ca=FILE needs https://")]
fn a_wrong_registry_is_told(#[case] url: &str, #[case] says: &str) {
    // The log tells how to repeat a moving window, so nothing secret may be in the command line by then.
    for arguments in [
        ["plan", "--window", "2h", "--schema-registry", url],
        ["--schema-registry", url, "plan", "--window", "2h"],
    ] {
        let output = replicator(&arguments).output().expect("runs");
        assert!(code(&output) == 2 && !stderr(&output).contains("secret"), "{}", stderr(&output));
    }
    let output = replicator(&["plan", "--window", "11-13", "--schema-registry", url]).output().expect("runs");
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains(says) && !stderr(&output).contains("secret"), "{}", stderr(&output));
}

#[test]
fn a_password_goes_to_other_machines_only_with_tls() {
    let output = replicator(&["plan", "--window", "11-13"])
        .env("REPLICATOR_SCHEMA_REGISTRY", "http://me:secret@registry.example:8081")
        .output()
        .expect("runs");
    assert_eq!(code(&output), 2);
    assert!(
        stderr(&output).contains("clear text") && !stderr(&output).contains("secret"),
        "{}",
        stderr(&output)
    );
}
