//! The page under load, under foreign host names, and on a store that goes away.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::dashboard::Page;
use crate::kit::{signal, until};
use crate::postgres::Postgres;

#[test]
fn a_store_that_comes_back_is_asked_again() {
    let Some(mut server) = Postgres::start(None) else { return };
    let page = Page::open(&server.url("127.0.0.1", ""));
    let asked = || ["healthz", "api/overview", "metrics"].map(|path| page.get(path).status().as_u16());
    assert_eq!(asked(), [200; 3]);
    for _ in 0..2 {
        server.stop();
        assert_eq!(asked(), [503; 3], "it is away");
        let why = page.json("api/overview")["error"].as_str().expect("an error").to_owned();
        assert!(why.contains("check that the server is up"), "{why}");
        server.go_on();
        assert_eq!(asked(), [200; 3], "it is back");
    }
}

#[test]
fn by_other_names_only_as_allowed() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = format!("sqlite:{}", dir.path().join("page.db").display());
    let page = Page::at(&store, (Ipv4Addr::UNSPECIFIED, 0).into(), &["page.example".to_owned()]);
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let by = |host: &str| {
        ["", "api/overview", "healthz", "metrics"].map(|path| {
            let request = agent.get(format!("{}{path}", page.url)).header("Host", host);
            request.call().expect("an answer").status().as_u16()
        })
    };
    for host in ["localhost:8080", "127.0.0.1:8080", "10.1.2.3", "[::1]:8080", "page.example:8080"] {
        assert_eq!(by(host), [200; 4], "{host}");
    }
    for host in ["attacker.example", "page.example.attacker.example:8080", "localhost.attacker.example"] {
        assert_eq!(by(host), [421; 4], "{host}");
    }
}

/// The page as a process, so that a test can count its threads.
struct Process {
    child: Child,
    address: String,
}

impl Process {
    fn start(store: &str) -> Process {
        let mut child = Command::new(env!("CARGO_BIN_EXE_replicator"))
            .args(["dashboard", "--listen", "127.0.0.1:0"])
            .env("REPLICATOR_STORE", store)
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut line = String::new();
        BufReader::new(child.stderr.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
        let address = address.unwrap_or_else(|| panic!("no address in {line}")).to_owned();
        Process { child, address }
    }

    fn threads(&self) -> usize {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("Threads:")).expect("a count");
        line.trim().parse().expect("a number")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer's head, in lower case.
fn head(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(300))).expect("set");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.split("\r\n\r\n").next().unwrap_or_default().to_lowercase()
}

#[test]
fn many_requests_are_few_threads_and_health_is_told_meanwhile() {
    const REQUESTS: usize = 700;
    /// How many requests may wait for an answer.
    const QUESTIONS: usize = 32;
    let Some(server) = Postgres::start(None) else { return };
    let mut page = Process::start(&server.url("127.0.0.1", ""));
    assert!(head(&page.address, "/api/overview").starts_with("http/1.1 200"));
    let idle = page.threads();

    // The store answers no question until this transaction ends.
    let mut other = server.connect().expect("connects");
    let mut slow = other.transaction().expect("begins");
    slow.batch_execute("LOCK TABLE receipts IN ACCESS EXCLUSIVE MODE").expect("locked");
    let answered = Arc::new(AtomicUsize::new(0));
    let ask = |_| {
        let (address, answered) = (page.address.clone(), answered.clone());
        let ask = move || {
            let head = head(&address, "/api/overview");
            answered.fetch_add(1, Ordering::SeqCst);
            head
        };
        std::thread::Builder::new().stack_size(256 << 10).spawn(ask).expect("a thread")
    };
    let asking: Vec<_> = (0..REQUESTS).map(ask).collect();
    until(|| answered.load(Ordering::SeqCst) >= REQUESTS - QUESTIONS);
    assert!(page.threads() <= idle + 4, "{} threads, and {idle} before", page.threads());
    assert!(head(&page.address, "/healthz").starts_with("http/1.1 200"), "while a question waits");
    assert!(head(&page.address, "/").starts_with("http/1.1 200"));

    slow.commit().expect("unlocked");
    let heads: Vec<String> = asking.into_iter().map(|asking| asking.join().expect("no panic")).collect();
    let turned_away: Vec<&String> = heads.iter().filter(|head| head.starts_with("http/1.1 503")).collect();
    assert!(turned_away.len() >= REQUESTS - QUESTIONS, "{}", turned_away.len());
    assert!(turned_away.iter().all(|head| head.contains("retry-after: ")), "{}", turned_away[0]);
    let others = heads.iter().filter(|head| head.starts_with("http/1.1 200")).count();
    assert_eq!(turned_away.len() + others, REQUESTS);
    assert!(head(&page.address, "/api/overview").starts_with("http/1.1 200"));
    signal(&page.child, "-TERM");
    assert_eq!(page.child.wait().expect("ends").code(), Some(0));
}
