//! To whom a store's password goes: only to who can prove to be the store, or where the URL says that it may.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use replicator::{Error, Result, store};
use rstest::rstest;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::dashboard::Page;
use crate::kit::{code, stderr};
use crate::postgres::{ENCODED, PASSWORD, Postgres};
use crate::secure::broker::Authority;
use crate::stores::{Kind, TestStore};

/// A server that is not this machine by its name, and is reached all the same.
const AWAY: &str = "db.example";

fn file(dir: &Path, authority: &Authority) -> String {
    let file = dir.join(format!("{:p}.pem", authority));
    std::fs::write(&file, authority.pem()).expect("written");
    file.display().to_string()
}

fn failure(opened: Result<Box<dyn store::Store>>) -> String {
    match opened {
        Err(Error::Failed(why)) => {
            assert!(!why.text.contains(PASSWORD) && !why.text.contains(ENCODED), "{why}");
            why.text
        }
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("it opened"),
    }
}

#[test]
fn postgres_is_known_by_its_certificate() {
    let (authority, stranger) = (Authority::new("authority"), Authority::new("stranger"));
    let Some(server) = Postgres::start(Some((&authority, &[AWAY]))) else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let (right, wrong) = (file(dir.path(), &authority), file(dir.path(), &stranger));
    let open = |host: &str, parameters: &str| store::open(&server.url(host, parameters));
    let away = |parameters: &str| open(AWAY, &format!("?hostaddr=127.0.0.1{parameters}"));
    let has_tls = |mut store: Box<dyn store::Store>| -> bool {
        store.ping().expect("answers");
        let sql = "SELECT bool_and(s.ssl) FROM pg_stat_ssl AS s JOIN pg_stat_activity AS a USING (pid) \
             WHERE a.application_name = 'replicator'";
        let has_tls = server.connect().expect("connects").query_one(sql, &[]).expect("one").get(0);
        drop(store);
        // The next one is to be looked at alone.
        let alone = "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = 'replicator'";
        crate::kit::until(|| {
            server.connect().expect("connects").query_one(alone, &[]).expect("one").get::<_, i64>(0) == 0
        });
        has_tls
    };

    assert!(has_tls(away(&format!("&sslrootcert={right}")).expect("the right authority")));
    for parameters in [
        format!("&sslrootcert={wrong}"),
        format!("&sslmode=verify-ca&sslrootcert={wrong}"),
        format!("&sslmode=require&sslrootcert={wrong}"),
    ] {
        let why = failure(away(&parameters));
        assert!(why.contains("invalid peer certificate") && why.contains("sslrootcert=FILE"), "{why}");
    }
    // The authorities of this machine do not know it, if there are any.
    failure(away(""));
    failure(away("&sslrootcert=system"));
    let by_another_name = |parameters: &str| {
        open("other.example", &format!("?hostaddr=127.0.0.1&sslrootcert={right}{parameters}"))
    };
    let why = failure(by_another_name(""));
    assert!(why.contains("invalid peer certificate"), "{why}");
    assert!(has_tls(by_another_name("&sslmode=verify-ca").expect("the name is not asked for")));
    assert!(has_tls(away("&sslmode=require").expect("nothing is asked for")));
    assert!(has_tls(open("127.0.0.1", "").expect("on this machine, TLS where it is offered")));
    assert!(!has_tls(away("&sslmode=disable").expect("written")));
    let none = store::open(&server.url(AWAY, "?sslrootcert=/no/such/file")).map(drop);
    assert!(matches!(none, Err(Error::Usage(why)) if why.text.contains("/no/such/file")));
}

#[test]
fn one_that_signed_for_itself_is_known_by_its_own_certificate() {
    let authority = Authority::new("authority");
    let Some(mut server) = Postgres::start(Some((&authority, &[AWAY]))) else { return };
    // As `openssl req -x509` makes them, and as PostgreSQL's manual has it: an authority's, used by a server.
    server.stop();
    let (pem, key) = crate::secure::broker::own(AWAY);
    std::fs::write(server.dir().join("server.pem"), &pem).expect("written");
    std::fs::write(server.dir().join("server.key"), key).expect("written");
    server.go_on();
    let dir = tempfile::tempdir().expect("a directory");
    let right = dir.path().join("own.pem").display().to_string();
    std::fs::write(&right, &pem).expect("written");
    let open = |host: &str, file: &str| {
        store::open(&server.url(host, &format!("?hostaddr=127.0.0.1&sslrootcert={file}")))
    };
    open(AWAY, &right).expect("itself");
    assert!(failure(open("other.example", &right)).contains("invalid peer certificate"));
    assert!(failure(open(AWAY, &file(dir.path(), &authority))).contains("invalid peer certificate"));
}

#[test]
fn postgres_without_tls_gets_a_password_on_this_machine_only() {
    let Some(server) = Postgres::start(None) else { return };
    let open = |host: &str, parameters: &str| store::open(&server.url(host, parameters));
    for parameters in ["", "&sslmode=prefer", "&sslmode=allow", "&sslmode=require", "&sslmode=verify-full"] {
        let why = failure(open(AWAY, &format!("?hostaddr=127.0.0.1{parameters}")));
        // Or there are no authorities on this machine.
        let is_right = why.contains("does not support TLS") && why.contains("sslmode=disable");
        assert!(is_right || why.contains("no certificates of authorities"), "{parameters}: {why}");
    }
    failure(open("127.0.0.1", "?sslmode=require"));
    open(AWAY, "?hostaddr=127.0.0.1&sslmode=disable").expect("written");
    open("127.0.0.1", "").expect("on this machine");
    if let Some(socket) = server.socket() {
        open(&socket, "").expect("a socket");
    }
}

/// A server that has no TLS, asks for the password in clear text, and keeps what it gets until it is asked for it.
struct Recorder {
    port: u16,
    got: Arc<Mutex<Vec<u8>>>,
}

impl Recorder {
    fn start() -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let got = Arc::new(Mutex::new(Vec::new()));
        let record = got.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut first = true;
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    record.lock().expect("no panic").extend(&buffer[..length]);
                    // To a request for TLS, no; to all else, a request for the password.
                    let is_ssl_request = first && buffer[..length] == [0, 0, 0, 8, 4, 210, 22, 47];
                    let answer: &[u8] = if is_ssl_request { b"N" } else { &[b'R', 0, 0, 0, 8, 0, 0, 0, 3] };
                    first = false;
                    if stream.write_all(answer).is_err() || buffer[0] == b'p' {
                        break;
                    }
                }
            }
        });
        Recorder { port, got }
    }

    fn has_got(&self, secret: &str) -> bool {
        let got = self.got.lock().expect("no panic");
        got.windows(secret.len()).any(|part| part == secret.as_bytes())
    }
}

#[test]
fn a_false_store_gets_no_password() {
    let recorder = Recorder::start();
    let port = recorder.port;
    let postgres = |parameters: &str| {
        store::open(&format!("postgres://me:{ENCODED}@{AWAY}:{port}/db?hostaddr=127.0.0.1{parameters}"))
    };
    for parameters in ["", "&sslmode=prefer", "&sslmode=allow", "&sslmode=require", "&sslmode=verify-full"] {
        failure(postgres(parameters));
        assert!(!recorder.has_got(PASSWORD), "{parameters}");
    }
    for product in ["opensearch", "elasticsearch"] {
        failure(store::open(&format!("{product}+https://me:{ENCODED}@127.0.0.1:{port}")));
        let clear = store::open(&format!("{product}+http://me:{ENCODED}@{AWAY}:{port}")).map(drop);
        assert!(matches!(clear, Err(Error::Usage(why)) if why.text.contains("clear text")));
    }
    assert!(!recorder.has_got("Basic") && !recorder.has_got("authorization"));
    // And what it looks for would be found.
    failure(postgres("&sslmode=disable"));
    assert!(recorder.has_got(PASSWORD));
}

/// What takes TLS off in front of OpenSearch or Elasticsearch, whose parts for it are not in Maven. It ends with the process.
fn in_front_of(backend: &str, authority: &Authority, hosts: &[&str]) -> u16 {
    let (certificate, key) = authority.sign("opensearch", hosts);
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a certificate");
    let (config, backend) = (Arc::new(config), backend.to_owned());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(config.clone()).expect("a connection");
            // A client that does not trust it ends the connection.
            let _ = pass_on(StreamOwned::new(connection, stream), &backend);
        }
    });
    port
}

fn pass_on(stream: StreamOwned<ServerConnection, TcpStream>, backend: &str) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut first, mut length, mut kind) = (String::new(), 0, String::new());
    stream.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let lower = line.to_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        if let Some(value) = lower.strip_prefix("content-type:") {
            kind = value.trim().to_owned();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let mut words = first.split(' ');
    let (method, path) = (words.next().expect("a method"), words.next().expect("a path"));
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let request = ureq::http::Request::builder().method(method).uri(format!("http://{backend}{path}"));
    let request = request.header("content-type", kind).body(body).expect("a request");
    let mut answer = agent.run(request).map_err(std::io::Error::other)?;
    let body = answer.body_mut().read_to_vec().map_err(std::io::Error::other)?;
    let stream = stream.get_mut();
    let head = format!("HTTP/1.1 {}\r\nConnection: close\r\nContent-Length: {}", answer.status(), body.len());
    stream.write_all(format!("{head}\r\n\r\n").as_bytes())?;
    stream.write_all(&body)?;
    stream.conn.send_close_notify();
    stream.flush()
}

#[rstest]
#[case::opensearch(Kind::OpenSearch)]
#[case::elasticsearch(Kind::Elasticsearch)]
fn a_node_is_known_by_its_certificate(#[case] kind: Kind) {
    let Some(backend) = TestStore::new(kind, "tls") else { return };
    let (product, _) = backend.url.split_once('+').expect("a product");
    let (place, prefix) = backend.place();
    let (authority, stranger) = (Authority::new("authority"), Authority::new("stranger"));
    let dir = tempfile::tempdir().expect("a directory");
    let (right, wrong) = (file(dir.path(), &authority), file(dir.path(), &stranger));
    let port = in_front_of(place, &authority, &["localhost"]);
    let open = |host: &str, parameters: &str| {
        store::open(&format!("{product}+https://me:{ENCODED}@{host}:{port}/{prefix}{parameters}"))
    };
    let mut store = open("localhost", &format!("?ca={right}")).expect("opens");
    store.ping().expect("answers");
    store.keep_receipt("0", &json!({"n": 1})).expect("kept");
    assert_eq!(store.receipts(2).expect("receipts"), [json!({"n": 1})]);
    let why = failure(open("localhost", &format!("?ca={wrong}")));
    assert!(why.contains("invalid peer certificate") && why.contains("?ca=FILE"), "{why}");
    let why = failure(open("127.0.0.1", &format!("?ca={right}")));
    assert!(why.contains("invalid peer certificate"), "{why}");
    failure(open("localhost", ""));
}

#[test]
fn a_password_is_no_flag_and_never_shown() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_replicator"));
        command.args(arguments).env("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1").output().expect("runs")
    };
    let urls = [
        ("postgres://me:hunter2@127.0.0.1:1/db", "REPLICATOR_STORE"),
        ("postgres://127.0.0.1:1/db?user=me&password=hunter2", "REPLICATOR_STORE"),
        ("opensearch+https://me:hunter2@127.0.0.1:1", "REPLICATOR_STORE"),
        ("elasticsearch+https://me:hunter2@127.0.0.1:1", "REPLICATOR_STORE"),
        ("postgres://me:hunter2?@127.0.0.1:1/db", "%3F"),
        ("postgres://me:12?hunter2@127.0.0.1:1/db", "%3F"),
    ];
    for (url, says) in urls {
        for arguments in [
            &["sink", "--topic", "t", "--store", url][..],
            &["dashboard", "--listen", "127.0.0.1:0", "--store", url],
            &["--window", "2021-04-14T11:00Z/2021-04-14T13:00Z", "--store", url],
        ] {
            let output = run(&[arguments, &["-o", "json"]].concat());
            assert_eq!(code(&output), 2, "{}", stderr(&output));
            assert!(stderr(&output).contains(says), "{}", stderr(&output));
            let all = [output.stdout.clone(), output.stderr.clone()].concat();
            let all = String::from_utf8_lossy(&all);
            assert!(!all.contains("hunter") && !all.contains("12?"), "{all}");
        }
    }
    // In the environment it is taken, and shown without it. Where it could be read in two ways, not at all.
    for (url, shown) in [
        ("postgres://me:hunter2@127.0.0.1:1/db?password=hunter2", "postgres://me@127.0.0.1:1/db"),
        ("postgres://me:12?hunter2@127.0.0.1:1/db", "postgres:…"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_replicator"));
        command.args(["sink", "--topic", "t", "-o", "json"]).env("REPLICATOR_STORE", url);
        let output = command.env("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1").output().expect("runs");
        let all = [output.stdout.clone(), output.stderr.clone()].concat();
        let all = String::from_utf8_lossy(&all);
        assert!(!all.contains("hunter") && !all.contains("12?"), "{all}");
        let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        if let Some(store) = found.get("store") {
            assert_eq!(store, shown);
        }
    }
    let Some(server) = Postgres::start(None) else { return };
    let page = Page::open(&server.url("127.0.0.1", "?connect_timeout=5"));
    let shown = format!("postgres://replicator@127.0.0.1:{}/postgres", server.port);
    assert_eq!(page.json("api/overview")["store"], json!(shown));
}
