//! Runs that are at work or were killed, in a store and on the page.

use std::process::Stdio;
use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};

use replicator::store;

use crate::browser::Browser;
use crate::dashboard::Page;
use crate::kit::*;
use crate::sink::sunk;
use crate::stores::{Kind, TestStore};

fn kept(store: &TestStore) -> Vec<Value> {
    store::open(&store.url).expect("opens").receipts(10).expect("receipts")
}

/// One receipt for one run, from its first sign to its end.
#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[case::opensearch(Kind::OpenSearch)]
#[case::elasticsearch(Kind::Elasticsearch)]
fn a_run_from_its_start_on(#[case] kind: Kind) {
    let Some(store) = TestStore::new(kind, "running") else { return };
    let keeping = store::Keeping::start(&store.url).expect("starts");
    assert!(kept(&store).is_empty(), "nothing is known yet");
    let told = |written: u64| json!({ "source": "a", "target": "b", "written": written, "elapsed_ms": 0, "complete": false });
    keeping.tell(&told(1));
    let until_written =
        |written: u64| until(|| kept(&store).first().is_some_and(|kept| kept["written"] == written));
    until_written(1);
    let first = kept(&store).remove(0);
    assert_eq!((&first["status"], &first["source"]), (&json!("running"), &json!("a")));
    assert!(
        first.get("elapsed_ms").is_none() && first.get("complete").is_none(),
        "nobody knows yet: {first}"
    );
    keeping.tell(&told(2));
    until_written(2);
    let second = kept(&store);
    assert_eq!(second.len(), 1, "in place of the first one: {second:?}");
    let time = |kept: &Value, name: &str| {
        kept[name].as_str().expect("a time").parse::<chrono::DateTime<chrono::Utc>>().expect("a time")
    };
    assert!(time(&second[0], "at") > time(&first, "at"));
    assert_eq!(second[0]["started"], first["started"]);
    keeping.end(json!({ "status": "done", "written": 3, "complete": true })).expect("kept");
    let last = kept(&store);
    assert_eq!(
        (last.len(), &last[0]["status"], &last[0]["written"]),
        (1, &json!("done"), &json!(3)),
        "{last:?}"
    );
    assert_eq!(last[0]["started"], first["started"]);
}

/// A run that never began leaves nothing that says it is at work. A store that is away costs a run nothing but its receipt.
#[test]
fn what_is_never_kept() {
    let store = TestStore::new(Kind::Sqlite, "never").expect("SQLite");
    drop(store::Keeping::start(&store.url).expect("starts"));
    let pair = Pair::new(1, 1);
    let refused = pair.command(1000).args(["--store", &store.url, "--source", "no-such-topic"]).output();
    // Given twice, --source is refused.
    assert_eq!(code(&refused.expect("runs")), 2);
    assert!(kept(&store).is_empty());
}

#[test]
fn a_run_that_is_at_work_and_one_that_was_killed() {
    let store = TestStore::new(Kind::Sqlite, "killed").expect("SQLite");
    let pair = Pair::new(1, 1);
    let records = day(405, 1);
    produce(&pair.a, &records);
    produce(&pair.b, &outside_of(&records));
    sunk(&store, &[&pair.a, &pair.b]);
    let run = |rate: &str| {
        let mut command = pair.command(1000);
        command
            .args(["--store", &store.url, "--max-rate", rate])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().expect("starts")
    };
    let page = Page::open(&store.url);
    let api = format!("api/overview?source={}&target={}", pair.a, pair.b);
    let runs = || page.json(&api)["receipts"].as_array().expect("runs").clone();
    let mut browser = Browser::open(&format!("{}?source={}&target={}", page.url, pair.a, pair.b), 1200);
    if let Some(browser) = &mut browser {
        browser.wait_for("#no-runs", "No receipt of these topics");
    }
    let mut child = run("4/s");
    let is_at_work = |run: &Value| run["status"] == "running" && run["written"].as_u64() > Some(0);
    until(|| runs().first().is_some_and(is_at_work));
    let at_work = runs().remove(0);
    assert_eq!(at_work["window"]["start"], "2021-04-14T11:00:00Z");
    assert!(at_work["source_topic_id"].is_string() && at_work.get("complete").is_none(), "{at_work}");
    if let Some(browser) = &mut browser {
        browser.wait_for("#runs", "running");
        browser.wait_for("#runs", "since 20");
        assert!(!browser.text("#runs").contains("complete"), "{}", browser.text("#runs"));
        browser.picture("running.png");
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert!(is_at_work(&runs()[0]), "nobody could say that it ended");
    // Long ago.
    let file = rusqlite::Connection::open(&store.url["sqlite:".len()..]).expect("opens");
    file.busy_timeout(Duration::from_secs(60)).expect("set");
    let aged = "UPDATE runs SET receipt = json_set(receipt, '$.at', '2021-04-14T12:00:00Z'), at_ms = 0";
    assert_eq!(file.execute(aged, []).expect("changed"), 1);
    if let Some(browser) = &mut browser {
        browser.wait_for("#runs", "no sign since 2021-04-14 12:00:00");
    }
    let again = run("100000/s").wait_with_output().expect("ends");
    assert_eq!(code(&again), 0, "{}", stderr(&again));
    let both = runs();
    let status = |run: &Value| run["status"].as_str().map(str::to_owned);
    assert_eq!(both.iter().map(status).collect::<Vec<_>>(), [Some("done".into()), Some("running".into())]);
    if let Some(browser) = &mut browser {
        browser.wait_for("#runs", "complete");
        assert!(browser.text("#runs").contains("no sign since"), "it is still there");
        browser.picture("killed.png");
        browser.dark(true);
        browser.resize(390);
        browser.picture("killed-390-dark.png");
    }
}
