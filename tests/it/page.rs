//! What a reader does on the page, and what it shows then, in a real browser.

use std::process::Stdio;

use serde_json::{Value, json};

use replicator::store;

use crate::browser::Browser;
use crate::dashboard::Page;
use crate::kit::*;
use crate::sink::{command, sunk};
use crate::stores::{Kind, TestStore};

/// `count` records over the day, whose values have this field.
fn with_field(count: usize, field: &str) -> Vec<Record> {
    let mut records = day(count, 1);
    for (n, record) in records.iter_mut().enumerate() {
        record.value = Some(format!(r#"{{"{field}":"{field}-{}"}}"#, n % 3).into_bytes());
    }
    records
}

/// A pair of which the target lacks the window, in a store.
fn with_a_gap(store: &TestStore, count: usize) -> Pair {
    let pair = Pair::new(1, 1);
    let records = with_field(count, "action");
    produce(&pair.a, &records);
    produce(&pair.b, &outside_of(&records));
    sunk(store, &[&pair.a, &pair.b]);
    pair
}

fn address(page: &Page, pair: &Pair) -> String {
    format!("{}?source={}&target={}", page.url, pair.a, pair.b)
}

#[test]
fn breakdowns_follow_the_selection() {
    let store = TestStore::new(Kind::Sqlite, "switch").expect("SQLite");
    let (first, second) = (Pair::new(1, 1), Pair::new(1, 1));
    for (pair, field) in [(&first, "action"), (&second, "colour")] {
        produce(&pair.a, &with_field(90, field));
        produce(&pair.b, &with_field(90, field));
    }
    sunk(&store, &[&first.a, &first.b, &second.a, &second.b]);
    let page = Page::open(&store.url);
    let Some(mut browser) = Browser::open(&address(&page, &first), 1200) else { return };
    browser.wait_for("#breakdowns", "action-0");
    browser.choose("#source", &second.a);
    browser.choose("#target", &second.b);
    browser.wait_for("#headline", &second.b);
    browser.wait_for("#breakdowns", "colour-0");
    assert!(!browser.text("#breakdowns").contains("action"));
    // A part of the time has other counts, and the way back has the earlier ones.
    browser.wait_for("#breakdowns", "30");
    browser.drag("#timeline .u-over", 0.5, 0.9);
    browser.wait("location.search.includes('start=')");
    browser.wait("document.querySelector('#breakdowns .count') && document.querySelector('#breakdowns .count').innerText < 20");
    browser.press("Escape");
    browser.wait_for("#breakdowns", "30");
}

#[test]
fn a_zoom_is_undone() {
    let store = TestStore::new(Kind::Sqlite, "zoom").expect("SQLite");
    let pair = with_a_gap(&store, 810);
    let page = Page::open(&store.url);
    let Some(mut browser) = Browser::open(&address(&page, &pair), 1200) else { return };
    let part = "location.search.includes('start=') && document.querySelector('#headline').innerText.startsWith('In the part')";
    let all = "!location.search.includes('start=') && !document.querySelector('#headline').innerText.startsWith('In the part')";
    browser.wait_for("#headline", "lacks 240 records");
    for undo in ["Escape", "double click", "Back", "Home", "Show all", "the browser's button"] {
        browser.drag("#timeline .u-over", 0.2, 0.4);
        browser.wait(part);
        match undo {
            "Escape" => browser.press("Escape"),
            "double click" => browser.double_click("#missing .u-over"),
            "Back" => browser.click("#back"),
            "Home" => {
                browser.value("document.querySelector('#timeline').focus()");
                browser.press("Home");
            }
            "Show all" => browser.click("#whole"),
            _ => drop(browser.value("history.back()")),
        }
        browser.wait(all);
    }
    // Two steps closer are two steps back.
    browser.drag("#timeline .u-over", 0.1, 0.6);
    browser.wait(part);
    let first = browser.value("location.search");
    browser.drag("#missing .u-over", 0.2, 0.5);
    browser.wait(&format!("location.search !== {first}"));
    browser.press("Escape");
    browser.wait(&format!("location.search === {first}"));
    browser.press("Escape");
    browser.wait(all);
    // The axis says the day, and the zone.
    let midnight = (DAY + 24 * HOUR) / 1000;
    let at = [midnight - 3600, midnight, midnight + 3600].map(|seconds| seconds.to_string()).join(", ");
    let ticks = browser.value(&format!("import('/charts.js').then(charts => charts.ticks(null, [{at}]))"));
    assert_eq!(ticks, json!(["23:00\n14 Apr 2021 UTC", "00:00\n15 Apr", "01:00"]));
    // By the keyboard alone.
    browser.value("document.querySelector('#timeline').focus()");
    browser.press("+");
    browser.wait(part);
    let closer = browser.value("location.search");
    browser.press("ArrowLeft");
    browser.wait(&format!("location.search !== {closer}"));
    browser.press("ArrowRight");
    browser.wait(&format!("location.search === {closer}"));
    browser.press("-");
    browser.wait(all);
}

#[test]
fn fingers_look_closer() {
    let store = TestStore::new(Kind::Sqlite, "touch").expect("SQLite");
    let pair = with_a_gap(&store, 810);
    let page = Page::open(&store.url);
    let Some(mut browser) = Browser::open(&address(&page, &pair), 360) else { return };
    browser.wait_for("#headline", "lacks 240 records");
    let shown = "(p => Number(p.get('end')) - Number(p.get('start')))(new URLSearchParams(location.search))";
    let whole = 405.0 * 60_000.0;
    // One finger selects a third.
    browser.swipe("#timeline .u-over", &[(0.3, 0.63)]);
    browser.wait("location.search.includes('start=')");
    let third = browser.value(shown).as_f64().expect("a length");
    assert!((0.25..0.42).contains(&(third / whole)), "{third}");
    browser.press("Escape");
    browser.wait("!location.search.includes('start=')");
    browser.wait_for("#headline", "lacks 240 records");
    // Two fingers spread it to about twice its length.
    browser.swipe("#timeline .u-over", &[(0.4, 0.3), (0.6, 0.7)]);
    browser.wait("location.search.includes('start=')");
    let half = browser.value(shown).as_f64().expect("a length");
    assert!((0.4..0.6).contains(&(half / whole)), "{half} of {whole}");
    // A finger that moves up and down scrolls the page.
    assert_eq!(browser.value("getComputedStyle(document.querySelector('.u-over')).touchAction"), "pan-y");
}

#[test]
fn the_command_is_copied() {
    let store = TestStore::new(Kind::Sqlite, "copied").expect("SQLite");
    let pair = with_a_gap(&store, 405);
    let page = Page::open(&store.url);
    let Some(mut browser) = Browser::open(&address(&page, &pair), 1200) else { return };
    browser.call(
        "Browser.grantPermissions",
        json!({ "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"] }),
    );
    let wanted = page.json(&format!("api/overview?source={}&target={}", pair.a, pair.b))["command"].clone();
    browser.wait_for("#fill", wanted.as_str().expect("a command"));
    for button in ["#fill .copy", "#gaps .copy"] {
        browser.value("navigator.clipboard.writeText('nothing')");
        browser.click(button);
        browser.wait_for(button, "Copied");
        assert_eq!(browser.value("navigator.clipboard.readText()"), wanted, "{button}");
    }
    // A page of another machine without TLS has no clipboard, but the older way.
    browser.value("navigator.clipboard.writeText('nothing')");
    browser.value("Object.defineProperty(navigator, 'clipboard', { value: undefined, configurable: true })");
    browser.click("#fill .copy");
    browser.wait_for("#fill .copy", "Copied");
    browser.value("delete navigator.clipboard");
    assert_eq!(browser.value("navigator.clipboard.readText()"), wanted);
}

#[test]
fn runs_of_this_pair_with_their_errors() {
    let store = TestStore::new(Kind::Sqlite, "runs").expect("SQLite");
    let (pair, other) = (with_a_gap(&store, 405), with_a_gap(&store, 81));
    let run = |pair: &Pair| {
        let mut command = pair.command(1000);
        command.args(["--store", &store.url]).output().expect("runs")
    };
    assert_eq!(code(&run(&other)), 0);
    // One key with two contents: a fill by key stops.
    produce(&pair.a, &[record(0, WINDOW.0 + 1, "event-100", "{\"n\":\"another\"}")]);
    let failed = run(&pair);
    assert_eq!(code(&failed), 1, "{}", stderr(&failed));
    let message = receipt(&failed)["error"]["message"].as_str().expect("a message").to_owned();
    let page = Page::open(&store.url);
    let found = page.json(&format!("api/overview?source={}&target={}", pair.a, pair.b));
    let runs = found["receipts"].as_array().expect("runs");
    assert_eq!((runs.len(), &runs[0]["error"]["message"]), (1, &json!(message)), "{found}");
    assert_eq!((&found["receipts_of_others"], &found["has_earlier_receipts"]), (&json!(1), &json!(false)));
    let Some(mut browser) = Browser::open(&address(&page, &pair), 1200) else { return };
    browser.wait_for("#runs", &message);
    let (told, others) = (browser.text("#runs"), browser.text("#other-runs"));
    assert!(told.contains("failed: ") && told.contains("UTC") && !told.contains("complete"), "{told}");
    assert_eq!(others, "1 run of other topics is not shown.");
}

#[test]
fn how_old_it_is_and_how_far_behind() {
    let store = TestStore::new(Kind::Sqlite, "fresh").expect("SQLite");
    let pair = with_a_gap(&store, 405);
    let page = Page::open(&store.url);
    let Some(mut browser) = Browser::open(&address(&page, &pair), 1200) else { return };
    browser.wait_for("#fresh", &format!("{}: sink at its end as of ", pair.b));
    browser.wait_for("#fresh", "ago");
    let child = command(&store, &[&pair.a, &pair.b])
        .arg("--follow")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let open = Foreign::begin().send(&pair.b, &day(12, 1));
    browser.wait_for("#fresh", &format!("{}: sink behind by 12 offsets", pair.b));
    // What the store has not read yet may well be in the topic.
    browser.click("#swap");
    browser.wait_for("#detail", &format!("120 that this store has not seen in {}", pair.b));
    browser.wait_for("#figures", &format!("not seen in {}", pair.b));
    browser.click("#swap");
    open.abort();
    signal(&child, "-TERM");
    child.wait_with_output().expect("ends");
    // Long ago, by a sink's clock: the page says what keeps it up to date.
    let file = rusqlite::Connection::open(&store.url["sqlite:".len()..]).expect("opens");
    file.execute("UPDATE ends SET as_of_ms = as_of_ms - 7200000", []).expect("changed");
    browser.wait_for("#fresh", "2 hours ago");
    browser
        .wait_for("#fresh", &format!("--topic {} --topic {} --store {} --follow", pair.a, pair.b, store.url));
}

#[test]
fn the_pair_is_chosen_from_what_the_store_holds() {
    let store = TestStore::new(Kind::Sqlite, "chosen").expect("SQLite");
    let pair = with_a_gap(&store, 405);
    let page = Page::open(&store.url);
    let asked = |query: &str| page.json(&format!("api/overview{query}"))["pair"].clone();
    let wanted = json!({ "source": pair.a, "target": pair.b, "chosen": "only_two" });
    assert_eq!(asked(""), wanted);
    let Some(mut browser) = Browser::open(&page.url, 1200) else { return };
    browser.wait_for("#headline", &format!("{} lacks 120 records", pair.b));
    browser.wait_for("#fresh", "the only two topics");
    assert!(!browser.text("select option").contains("topicA"), "it is not in the store");
    browser.wait("location.search.includes('source=')");
    browser.click("#swap");
    browser.wait_for("#headline", &format!("{} holds every record of {}", pair.a, pair.b));
    browser.wait_for("#detail", &format!("120 that only {} has", pair.a));

    // With a third topic, only a run tells which two belong together.
    let third = Pair::new(1, 1);
    produce(&third.a, &day(9, 1));
    sunk(&store, &[&third.a]);
    assert_eq!(asked("")["chosen"], "unknown");
    store::keep_receipt(&store.url, &json!({ "source": pair.b, "target": third.a })).expect("kept");
    assert_eq!(asked(""), json!({ "source": pair.b, "target": third.a, "chosen": "last_run" }));
    let unknown = asked("?source=none");
    assert_eq!(unknown, json!({ "source": "none", "target": "topicB", "chosen": "asked" }));
}

/// The share of the target's colour among the pixels of both topics on the chart, where both hold the same.
fn share_of_target(browser: &mut Browser) -> f64 {
    let counted = browser.value(
        "(() => {
            const canvas = document.querySelector('#timeline canvas');
            const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
            const rgb = (name) => {
                const made = document.createElement('canvas').getContext('2d');
                made.fillStyle = getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
                made.fillRect(0, 0, 1, 1);
                return [...made.getImageData(0, 0, 1, 1).data].slice(0, 3).join();
            };
            const [source, target] = [rgb('source'), rgb('target')];
            const counts = [0, 0];
            for (let n = 0; n < data.length; n += 4) {
                const here = data[n] + ',' + data[n + 1] + ',' + data[n + 2];
                if (here === source) counts[0] += 1;
                if (here === target) counts[1] += 1;
            }
            return counts;
        })()",
    );
    let [source, target]: [f64; 2] = serde_json::from_value(counted).expect("counts");
    target / (source + target)
}

#[test]
fn nothing_is_hidden_or_cut_on_any_screen() {
    let store = TestStore::new(Kind::Sqlite, "screens").expect("SQLite");
    // The longest name that Kafka allows has 249 characters.
    let long = |end: &str| format!("{}-{}", unique("a-long-name"), "of-a-topic.".repeat(12) + end);
    let (a, b) = (long("source"), long("target"));
    create(&a, 3, &[]);
    create(&b, 3, &[]);
    let records = day(8100, 3);
    produce(&a, &records);
    produce(&b, &records);
    sunk(&store, &[&a, &b]);
    let receipt = json!({ "source": a, "target": b, "status": "failed", "read": 8100, "written": 0, "elapsed_ms": 1200,
        "window": { "start": "2021-04-14T11:00:00Z", "end": "2021-04-14T13:00:00Z" },
        "error": { "reason": "failed", "message": "x".repeat(300) } });
    store::keep_receipt(&store.url, &receipt).expect("kept");
    let page = Page::open(&store.url);
    let Some(mut browser) = Browser::open(&format!("{}?source={a}&target={b}", page.url), 1440) else {
        return;
    };
    browser.wait_for("#headline", "holds every record");
    for is_dark in [false, true] {
        browser.dark(is_dark);
        for width in [360, 820, 1440] {
            browser.resize(width);
            browser.wait("document.querySelector('#timeline canvas').clientWidth <= innerWidth");
            browser.wait("document.documentElement.scrollWidth <= innerWidth");
            let cut = browser.value(
                "[...document.querySelectorAll('th, td, .card, .figure, h1, p, button')]
                    .filter(e => e.checkVisibility() && (e.scrollWidth > e.clientWidth + 1
                        || e.getBoundingClientRect().right > innerWidth)).map(e => e.outerHTML.slice(0, 200))",
            );
            assert_eq!(cut, json!([]), "at {width} px");
            let share = share_of_target(&mut browser);
            assert!(share > 0.97, "the source hides the target at {width} px: {share}");
        }
    }
    // The middle of a long name is left out, and the pointer shows all of it.
    let names = browser
        .value("[...document.querySelectorAll('#figures span[title]')].map(e => [e.title, e.innerText])");
    let names: Vec<[String; 2]> = serde_json::from_value(names).expect("names");
    assert_eq!([&names[0][0], &names[4][0]], [&a, &b]);
    assert!(names[0][1].contains('…') && names[0][1].ends_with("source"), "{names:?}");
    assert!(names[4][1].contains('…') && names[4][1].ends_with("target"), "{names:?}");
    assert_eq!(page.json("api/overview")["source"]["topic"], Value::from(a), "the whole name");
}
