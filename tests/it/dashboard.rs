//! The page in a real browser, on a store that a real fill and sink wrote.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::thread::JoinHandle;

use serde_json::Value;

use replicator::{Dashboard, Error, Interrupt, Result, store};

use crate::browser::Browser;
use crate::kit::*;

/// A page, served until this is dropped.
pub(crate) struct Page {
    pub url: String,
    interrupt: Interrupt,
    serving: Option<JoinHandle<Result<()>>>,
}

impl Page {
    pub(crate) fn open(store: &str) -> Page {
        Page::at(store, (Ipv4Addr::LOCALHOST, 0).into(), &[])
    }

    pub(crate) fn at(store: &str, listen: SocketAddr, allowed: &[String]) -> Page {
        let dashboard = Dashboard::open(store, listen, allowed).expect("a page");
        let (url, interrupt) = (dashboard.url(), Interrupt::default());
        let flag = interrupt.clone();
        let serving = std::thread::spawn(move || dashboard.serve(&flag));
        Page { url, interrupt, serving: Some(serving) }
    }

    pub(crate) fn get(&self, path: &str) -> ureq::http::Response<ureq::Body> {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        agent.get(format!("{}{path}", self.url)).call().expect("an answer")
    }

    pub(crate) fn json(&self, path: &str) -> Value {
        let text = self.get(path).body_mut().read_to_string().expect("a text");
        serde_json::from_str(&text).expect("JSON")
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.interrupt.set();
        let served = self.serving.take().expect("once").join().expect("no panic");
        served.expect("ends well");
    }
}

/// Runs Chromium on the page for some seconds of Chromium's virtual time. `None` if there is no Chromium.
fn browser(page: &str, arguments: &[&str]) -> Option<String> {
    let dir = tempfile::tempdir().expect("a directory");
    let mut missing = 0;
    for name in ["chromium", "chromium-browser", "google-chrome"] {
        let mut command = Command::new(name);
        command
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"])
            .arg(format!("--user-data-dir={}", dir.path().display()))
            .args(["--virtual-time-budget=8000", "--timeout=60000", "--window-size=1200,900"])
            .args(arguments)
            .arg(page);
        match command.output() {
            Ok(output) => return Some(String::from_utf8_lossy(&output.stdout).into_owned()),
            Err(_) => missing += 1,
        }
    }
    assert_eq!(missing, 3);
    eprintln!("skipped: no browser is installed (apt-get install chromium)");
    None
}

/// The page as HTML, after its scripts have run.
pub(crate) fn seen(page: &str) -> Option<String> {
    browser(page, &["--dump-dom"])
}

/// The text of the element with this id, up to the next tag.
pub(crate) fn text_of<'a>(dom: &'a str, id: &str) -> &'a str {
    let from = dom.find(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("no {id} in {dom}"));
    let text = &dom[from..];
    let text = &text[text.find('>').expect("a tag") + 1..];
    &text[..text.find('<').expect("an end")]
}

pub(crate) fn run(arguments: &[&str]) {
    let output = replicator(arguments).output().expect("runs");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

/// If `SCREENSHOTS` names a directory, this makes the pictures of the README there.
pub(crate) fn picture(page: &str, name: &str) {
    if let Some(dir) = std::env::var_os("SCREENSHOTS") {
        let file = Path::new(&dir).join(name);
        browser(page, &[&format!("--screenshot={}", file.display())]);
    }
}

#[test]
fn the_gap_is_seen_and_closes() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = format!("sqlite:{}", dir.path().join("page.db").display());
    let events = dir.path().join("events.json.gz");
    let events = events.to_str().expect("a path");
    let records = 30_000;
    let (a, b) = ("page-topicA", "page-topicB");
    run(&["generate", "--records", &records.to_string(), "--out", events]);
    run(&["load", events, "--topic", a, "--partitions", "3"]);
    run(&["load", events, "--topic", b, "--partitions", "3", "--except", "11:00-13:00"]);
    run(&["sink", "--topic", a, "--topic", b, "--store", &store]);
    let of_window = window_of(&consume(a));
    let window = of_window.len() as u64;
    assert!(window > 100);

    let page = Page::open(&store);
    let query = format!("?source={a}&target={b}");
    let address = format!("{}{query}", page.url);
    let before = page.json(&format!("api/overview{query}"));
    assert_eq!((before["in_source"].as_u64(), before["missing"].as_u64()), (Some(records), Some(window)));
    let counts = |found: &Value, name: &str| -> u64 {
        found[name].as_array().expect("counts").iter().map(|n| n.as_u64().expect("a count")).sum()
    };
    assert_eq!(counts(&before, "target_counts"), records - window);
    let first = of_window.iter().map(|r| r.time).min().expect("a record");
    assert_eq!(before["gaps"].as_array().map(Vec::len), Some(1), "{}", before["gaps"]);
    assert_eq!(before["gaps"][0]["start_ms"], first - first % MINUTE, "{}", before["gaps"]);
    picture(&address, "before.png");
    if let Some(mut browser) = Browser::open(&address, 1440) {
        browser.wait_for("#breakdowns", "choose_branch");
        for (is_dark, colour) in [(false, "light"), (true, "dark")] {
            browser.dark(is_dark);
            for width in [360, 820, 1440] {
                browser.resize(width);
                browser.wait("document.querySelector('#timeline canvas').clientWidth <= innerWidth");
                browser.picture(&format!("page-{width}-{colour}.png"));
            }
        }
    }
    let seen_before = seen(&address);

    run(&["--window", "11:00-13:00", "--source", a, "--target", b, "--store", &store]);
    run(&["sink", "--topic", a, "--topic", b, "--store", &store]);
    let after = page.json(&format!("api/overview{query}"));
    assert_eq!((after["missing"].as_u64(), after["gaps"].as_array().map(Vec::len)), (Some(0), Some(0)));
    assert_eq!(after["source_counts"], after["target_counts"]);
    assert_eq!(after["receipts"][0]["written"].as_u64(), Some(window));
    picture(&address, "after.png");

    let (Some(before), Some(after)) = (seen_before, seen(&address)) else { return };
    let lacks = format!("{b} lacks {} record", thousands(window));
    assert!(text_of(&before, "headline").starts_with(&lacks), "{}", text_of(&before, "headline"));
    assert!(text_of(&before, "detail").contains("between 11:00 and 13:00 UTC on 14 April 2021"));
    assert_eq!(text_of(&after, "headline"), format!("{b} holds every record of {a}"));
    // The page shows both charts, the breakdowns and the run.
    for part in ["u-over", "choose_branch", "complete"] {
        assert!(after.contains(part), "no {part} in {after}");
    }
}

fn thousands(n: u64) -> String {
    if n < 1000 { n.to_string() } else { format!("{},{:03}", n / 1000, n % 1000) }
}

#[test]
fn what_a_record_holds_is_text() {
    let pair = Pair::new(1, 1);
    let hostile = [
        "<img src=x onerror=\"document.body.id='pwned'\">",
        "</span></td><script>document.body.id='pwned'</script>",
        "\"'><svg onload=document.body.id='pwned'>",
        "{{constructor.constructor('document.body.id=1')()}}",
        "\u{202e}\u{0007} \u{1f600}",
    ];
    let mut records = Vec::new();
    for time in 0..20 {
        for text in hostile {
            let value = serde_json::json!({ text: text, "action": text, "user": text }).to_string();
            records.push(record(0, 1_618_394_400_000 + time, text, &value));
        }
    }
    produce(&pair.a, &records);
    let dir = tempfile::tempdir().expect("a directory");
    let store = format!("sqlite:{}", dir.path().join("page.db").display());
    run(&["sink", "--topic", &pair.a, "--topic", &pair.b, "--store", &store]);
    let receipt =
        serde_json::json!({ "source": hostile[0], "target": hostile[1], "window": { "start": hostile[2] } });
    store::keep_receipt(&store, &receipt).expect("kept");

    let page = Page::open(&store);
    let query = format!("?source={}&target={}", pair.a, pair.b);
    let Some(dom) = seen(&format!("{}{query}", page.url)) else { return };
    assert!(text_of(&dom, "headline").contains("lacks 100 records"), "{dom}");
    assert!(dom.contains("&lt;img src=x onerror="), "shown as text: {dom}");
    let elsewhere =
        format!("{}?source=%3Cimg%20src%3Dx%20onerror%3D%22document.body.id%3D%27pwned%27%22%3E", page.url);
    for dom in [dom, seen(&elsewhere).expect("a browser")] {
        for trace in ["id=\"pwned\"", "<img", "<svg onload", "<script>document"] {
            assert!(!dom.contains(trace), "{trace} in {dom}");
        }
    }
}

#[test]
fn an_empty_store_says_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = format!("sqlite:{}", dir.path().join("page.db").display());
    let page = Page::open(&store);
    assert_eq!(page.get("healthz").status(), 200);
    assert_eq!(page.json("api/overview")["missing"], Value::Null);
    let Some(dom) = seen(&page.url) else { return };
    assert!(dom.contains("Nothing to show yet") && dom.contains("--follow"), "{dom}");
    assert!(dom.contains(&store), "{dom}");
}

#[test]
fn only_what_is_asked_for_by_its_own_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let page = Page::open(&format!("sqlite:{}", dir.path().join("page.db").display()));
    for path in ["", "app.js", "style.css", "api/overview", "metrics", "nothing"] {
        let answer = page.get(path);
        assert_eq!(answer.status(), if path == "nothing" { 404 } else { 200 }, "{path}");
        let policy = answer.headers()["content-security-policy"].to_str().expect("text");
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    }
    assert_eq!(page.get("api/overview?start=yesterday").status(), 400);
    let rebound = ureq::get(&page.url).header("Host", "attacker.example").call();
    assert!(matches!(rebound, Err(ureq::Error::StatusCode(421))), "{rebound:?}");

    // The address is already in use.
    let address = page.url.trim_start_matches("http://").trim_end_matches('/').parse().expect("an address");
    let second = Dashboard::open(&format!("sqlite:{}", dir.path().join("b.db").display()), address, &[]);
    assert!(matches!(second.map(drop), Err(Error::Failed(why)) if why.text.contains("--listen")));
}
