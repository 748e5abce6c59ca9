//! A broker of our own that loses what it had acknowledged, and one that is too old: what was done is looked at again.

#[allow(dead_code, reason = "it is the other tests' kit as well")]
#[path = "it/containers.rs"]
mod containers;
#[allow(dead_code, unused_imports, reason = "it is the other tests' kit as well")]
#[path = "it/kit.rs"]
mod kit;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use kit::*;
use replicator::{Backend, Cluster, Properties, Reason, Sandbox};

/// One broker, for one test at a time: it is stopped by each. `None` where its files are out of reach.
fn own() -> Option<MutexGuard<'static, Sandbox>> {
    static SANDBOX: OnceLock<Mutex<Sandbox>> = OnceLock::new();
    let sandbox = SANDBOX.get_or_init(|| {
        let sandbox = Sandbox::start_own(1).expect("a broker");
        // SAFETY: all tests of this process come through here before they do anything, and one at a time.
        unsafe { std::env::set_var("REPLICATOR_TEST_BOOTSTRAP_SERVERS", sandbox.bootstrap()) };
        Mutex::new(sandbox)
    });
    let sandbox = sandbox.lock().unwrap_or_else(PoisonError::into_inner);
    if sandbox.backend() != Backend::Local {
        eprintln!("not tried: the broker's files are in a container");
        return None;
    }
    Some(sandbox)
}

/// The leader of the topic's only partition comes back without its log.
fn lose(sandbox: &mut Sandbox, topic: &str) {
    sandbox.stop(0).expect("stopped");
    let homes = std::env::temp_dir().read_dir().expect("readable").map_while(Result::ok);
    let logs: Vec<_> =
        homes.map(|home| home.path().join(format!("0/data/{topic}-0"))).filter(|log| log.exists()).collect();
    assert_eq!(logs.len(), 1, "{logs:?}");
    std::fs::remove_dir_all(&logs[0]).expect("removed");
    sandbox.restart(0).expect("started");
    wait_for(topic, 0);
}

/// Stops the broker and starts it again; the topic's only partition has records up to `end` then.
fn restart(sandbox: &mut Sandbox, topic: &str, end: i64) {
    sandbox.stop(0).expect("stopped");
    sandbox.restart(0).expect("started");
    wait_for(topic, end);
}

/// A broker that answers may not lead its partitions yet.
fn wait_for(topic: &str, end: i64) {
    let mut config = ClientConfig::new();
    let reader: BaseConsumer = config.set("bootstrap.servers", broker()).create().expect("a consumer");
    until(|| reader.fetch_watermarks(topic, 0, TIMEOUT).is_ok_and(|(_, high)| high == end));
}

/// More records than any of these tests had before, none of which is of the window.
fn grow(topic: &str) {
    let many: Vec<Record> =
        (0..2000).map(|n| record(0, DAY + 9 * HOUR + n, &format!("other-{n}"), "other")).collect();
    produce(topic, &many);
}

#[test]
fn a_target_whose_leader_lost_its_log_is_filled_again() {
    let Some(mut sandbox) = own() else { return };
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(600, 1));
    assert_eq!(pair.filled().counts.written, 178);
    let again = pair.filled();
    assert_eq!(again.counts.read, 0, "{again:?}");
    let done = again.done_before.clone().expect("by the first run");
    assert_eq!((done.in_window, done.written), (178, 178));
    let text = again.to_string();
    assert!(
        text.contains("nothing is left to do: the run that ended at 20") && !text.contains("  read "),
        "{text}"
    );

    lose(&mut sandbox, &pair.b);
    let receipt = pair.filled();
    assert_eq!((receipt.counts.written, receipt.done_before.is_none()), (178, true), "{receipt:?}");
    pair.assert_filled(&[]);

    lose(&mut sandbox, &pair.b);
    grow(&pair.b);
    assert_eq!(pair.filled().counts.written, 178, "cut, and grown again");
}

#[test]
fn a_run_that_stopped_midway_looks_again_at_what_it_wrote() {
    let Some(mut sandbox) = own() else { return };
    for is_grown in [false, true] {
        let pair = Pair::new(1, 1).with(|job| job.limit = Some(60));
        produce(&pair.a, &day(600, 1));
        let (receipt, _) = pair.fill();
        assert_eq!((receipt.counts.written, receipt.complete), (60, false));
        lose(&mut sandbox, &pair.b);
        if is_grown {
            grow(&pair.b);
        }
        let pair = pair.with(|job| job.limit = None);
        assert_eq!(pair.filled().counts.written, 178, "grown: {is_grown}");
    }
}

#[test]
fn a_source_that_was_cut_and_has_grown_again_is_read_again() {
    let Some(mut sandbox) = own() else { return };
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(600, 1));
    assert_eq!(pair.filled().counts.written, 178);
    lose(&mut sandbox, &pair.a);
    let others: Vec<Record> =
        (0..1000).map(|n| record(0, WINDOW.0 + n, &format!("later-{n}"), "another record")).collect();
    produce(&pair.a, &others);
    let receipt = pair.filled();
    assert_eq!(receipt.counts.written, 1000, "{receipt:?}");
}

#[test]
fn a_restart_alone_costs_a_look_and_nothing_else() {
    let Some(mut sandbox) = own() else { return };
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(600, 1));
    assert_eq!(pair.filled().counts.written, 178);
    restart(&mut sandbox, &pair.a, 600);
    let receipt = pair.filled();
    assert_eq!((receipt.counts.written, receipt.counts.already_in_target), (0, 178), "{receipt:?}");
    pair.assert_filled(&[]);
}

#[test]
fn a_loaded_topic_that_lost_lines_is_not_called_loaded() {
    let Some(mut sandbox) = own() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("events.jsonl");
    let lines: String = (0..100)
        .map(|n| format!("{{\"id\":\"{n}\",\"ts\":\"2021-04-14T11:{:02}:00Z\"}}\n", n % 60))
        .collect();
    std::fs::write(&file, lines).expect("written");
    let file = file.to_str().expect("text");
    let topic = Pair::new(1, 1).a;
    let load = || replicator(&["load", file, "--topic", &topic, "-o", "json"]).output().expect("runs");
    let first = load();
    assert_eq!(code(&first), 0, "{}", stderr(&first));
    assert_eq!(receipt(&first)["loaded"], 100);

    let (_, end) = watermarks(&topic)[0];
    restart(&mut sandbox, &topic, end);
    let again = load();
    assert_eq!(code(&again), 0, "all is there, by another leader: {}", stderr(&again));
    assert_eq!(receipt(&again)["loaded"], 0);

    lose(&mut sandbox, &topic);
    let refused = load();
    assert_eq!(code(&refused), 3, "{}", stderr(&refused));
    assert!(stderr(&refused).contains("0 of the 100 lines"), "{}", stderr(&refused));
    grow(&topic);
    let refused = load();
    assert_eq!(code(&refused), 3, "{}", stderr(&refused));
    assert_eq!(consume(&topic).len(), 2000);
}

/// Kinds of requests.
const METADATA: i16 = 3;
const API_VERSIONS: i16 = 18;

/// Passes on to a broker what clients send, and says of it that its metadata ends at version 9.
fn old_broker(sandbox: &Sandbox) -> String {
    let door = sandbox.back_doors()[0].clone();
    let listener = TcpListener::bind(("127.0.0.1", door.advertised)).expect("a port");
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(broker) = TcpStream::connect(&door.address) else { continue };
            let asked = Arc::new(Mutex::new(HashMap::new()));
            let (from, to, noted) =
                (client.try_clone().expect("a handle"), broker.try_clone().expect("a handle"), asked.clone());
            std::thread::spawn(move || {
                pass(from, to, |request| {
                    if i16::from_be_bytes([request[0], request[1]]) == API_VERSIONS {
                        let version = i16::from_be_bytes([request[2], request[3]]);
                        noted.lock().expect("sound").insert(request[4..8].to_vec(), version);
                    }
                    request
                });
            });
            std::thread::spawn(move || {
                pass(broker, client, |response| match asked.lock().expect("sound").remove(&response[..4]) {
                    Some(version) => aged(response, version),
                    None => response,
                });
            });
        }
    });
    format!("127.0.0.1:{}", door.advertised)
}

fn pass(mut from: TcpStream, mut to: TcpStream, change: impl Fn(Vec<u8>) -> Vec<u8>) {
    let mut next = || -> std::io::Result<()> {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        from.read_exact(&mut frame)?;
        let frame = change(frame);
        to.write_all(&u32::try_from(frame.len()).expect("small").to_be_bytes())?;
        to.write_all(&frame)
    };
    while next().is_ok() {}
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// The response with fewer versions of Metadata: after its correlation id and an error code come the count of its
/// entries, and of each the API's key, its lowest and its highest version.
fn aged(mut response: Vec<u8>, version: i16) -> Vec<u8> {
    let (mut at, each) = if version < 3 { (4 + 2 + 4, 6) } else { (4 + 2, 7) };
    if version >= 3 {
        // Of seven bits in each byte; the last one has its first bit clear.
        while response[at] & 0x80 != 0 {
            at += 1;
        }
        at += 1;
    }
    while response[at..at + 2] != METADATA.to_be_bytes() {
        at += each;
    }
    response[at + 4..at + 6].copy_from_slice(&9_i16.to_be_bytes());
    response
}

#[test]
fn a_broker_without_topic_ids_is_refused() {
    let Some(sandbox) = own() else { return };
    let old = old_broker(&sandbox);
    let properties = Properties::new(Some(&old), None, std::iter::empty(), &[]).expect("properties");
    let cluster = Cluster::connect(&properties, "replicator/test").expect("connects");
    let pair = Pair::new(1, 1).with(|job| job.selection.properties = properties.into());
    produce(&pair.a, &day(600, 1));
    let err = cluster.topic(&pair.a).expect_err("refused");
    assert_eq!((err.exit_code(), err.reason()), (3, Reason::UnsupportedBroker), "{err}");
    let (_, result) = pair.fill();
    let err = result.expect_err("refused");
    assert!(err.exit_code() == 3 && err.to_string().contains("Kafka 2.8"), "{err}");
    assert_eq!(consume(&pair.b), []);
}

/// A follow cannot know what was lost behind its joint, so it ends.
#[test]
fn a_log_that_was_cut_and_has_grown_again_ends_a_follow() {
    let Some(mut sandbox) = own() else { return };
    for is_source in [true, false] {
        let pair = Pair::new(1, 1);
        produce(&pair.a, &day(600, 1));
        let follow = || {
            let window = ["--window", "2021-04-14T11:00Z/", "--follow", "--output", "json"];
            let mut command = replicator(&window);
            command.args(["--source", &pair.a, "--target", &pair.b]);
            command
        };
        let mut child = follow().stdout(Stdio::null()).spawn().expect("starts");
        let group = format!("replicator/{}/{}", pair.a, pair.b);
        until(|| side_a().committed(&group, &pair.a).iter().all(|(_, mark)| mark.contains(" follow ")));
        signal(&child, "-TERM");
        assert!(child.wait().expect("ends").success());
        let lost = if is_source { &pair.a } else { &pair.b };
        lose(&mut sandbox, lost);
        grow(lost);
        let output = follow().output().expect("runs");
        assert_eq!(code(&output), 1, "{}", stderr(&output));
        assert_eq!(receipt(&output)["error"]["reason"], "log-lost");
        assert!(stderr(&output).contains("was cut and has grown again"), "{}", stderr(&output));
        assert!(stderr(&output).contains("--delete-offsets"), "{}", stderr(&output));
    }
}
