//! What the page counts adds up, and its command fills the gap, in every store.

use std::process::Command;

use rstest::rstest;
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::dashboard::Page;
use crate::kit::*;
use crate::sink::sunk;
use crate::stores::{Kind, TestStore};

fn overview(page: &Page, a: &str, b: &str) -> Value {
    page.json(&format!("api/overview?source={}&target={}", a.replace('@', "%40"), b.replace('@', "%40")))
}

fn count(found: &Value, name: &str) -> i64 {
    found[name].as_i64().unwrap_or_else(|| panic!("no {name} in {found}"))
}

/// The command that the page prints, run by a shell, as a reader would paste it.
fn paste(found: &Value) -> Value {
    let command = found["command"].as_str().expect("a command");
    let rest = command.strip_prefix("replicator ").unwrap_or_else(|| panic!("{command}"));
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec \"$0\" {rest} --output json"), env!("CARGO_BIN_EXE_replicator")]);
    for variable in
        ["KAFKA_BOOTSTRAP_SERVERS", "KAFKA_SOURCE_BOOTSTRAP_SERVERS", "KAFKA_TARGET_BOOTSTRAP_SERVERS"]
    {
        shell.env_remove(variable);
    }
    let output = shell.output().expect("runs");
    assert_eq!(code(&output), 0, "{command}: {}", stderr(&output));
    receipt(&output)["written"].clone()
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[case::opensearch(Kind::OpenSearch)]
fn the_counts_add_up(#[case] kind: Kind) {
    let Some(store) = TestStore::new(kind, "add_up") else { return };
    let pair = Pair::new(2, 2);
    let (a, b) = (pair.a.as_str(), pair.b.as_str());
    let records = day(810, 2);
    let mut there = outside_of(&records);
    // Five that only the target has, and three that it has doubled; all in the last hour.
    let late = |n: i64, partition| record(partition, DAY + 16 * HOUR + n, &format!("only-{n}"), "{}");
    there.extend((0..5).map(|n| late(n, 1)));
    there.extend(records[800..803].iter().cloned());
    produce(a, &records);
    produce(b, &there);
    sunk(&store, &[a, b]);
    let page = Page::open(&store.url);
    let by_counts = matches!(kind, Kind::OpenSearch);
    let wanted = if by_counts { (240, json!(8), Value::Null) } else { (240, json!(5), json!(3)) };
    for (query, of) in [("", [810, 578, 240, 8]), ("&start=1618401600000", [570, 458, 120, 8])] {
        let found = page.json(&format!("api/overview?source={a}&target={b}{query}"));
        let [in_source, in_target, missing, more] = of;
        assert_eq!(
            (count(&found, "in_source"), count(&found, "in_target")),
            (in_source, in_target),
            "{found}"
        );
        assert_eq!(count(&found, "missing"), missing, "{found}");
        assert_eq!((&found["extra"], &found["doubled"]), (&wanted.1, &wanted.2), "{found}");
        assert_eq!(in_source - missing + more, in_target);
    }
    let found = overview(&page, a, b);
    assert_eq!(count(&found, "missing"), wanted.0);
    let partitions = found["partitions"].as_array().expect("partitions");
    let of = |name: &str| partitions.iter().map(|row| row[name].clone()).collect::<Vec<_>>();
    assert_eq!((of("in_source"), of("in_target")), (vec![json!(405); 2], vec![json!(287), json!(291)]));
    if by_counts {
        assert_eq!(of("missing"), [Value::Null, Value::Null]);
        assert_eq!(found["gaps"][0]["per_partition"], Value::Null);
    } else {
        assert_eq!(of("missing"), [json!(120), json!(120)]);
        assert_eq!((of("extra"), of("doubled")), (vec![json!(0), json!(5)], vec![json!(2), json!(1)]));
        assert_eq!(found["gaps"][0]["per_partition"], json!([120, 120]));
    }

    let address = format!("{}?source={a}&target={b}", page.url);
    let Some(mut browser) = Browser::open(&address, 1200) else { return };
    browser.wait_for("#figures", "810");
    let figures = browser.text("#figures .figure b").replace('\n', " ");
    let more = format!(". {b} has more: 5 that only {b} has and 3 doubled");
    if by_counts {
        assert_eq!(figures, "810 −240 +8 =578");
        assert!(browser.text("#detail").contains(&format!("{b} has 8 more in other places")));
    } else {
        assert_eq!(figures, "810 −240 +5 +3 =578");
        assert!(browser.text("#detail").contains(&more), "{}", browser.text("#detail"));
        assert!(browser.text("#gaps").contains("0: 120, 1: 120"), "{}", browser.text("#gaps"));
    }
    assert!(browser.text("#partitions").contains("287"), "{}", browser.text("#partitions"));
}

/// The page's command is the one of `gaps`, and it fills the gap.
#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[case::opensearch(Kind::OpenSearch)]
fn the_command_fills_the_gap(#[case] kind: Kind) {
    let Some(store) = TestStore::new(kind, "command") else { return };
    let pair = Pair::new(2, 2);
    let (a, b) = (pair.a.as_str(), pair.b.as_str());
    let records = day(810, 2);
    produce(a, &records);
    produce(b, &outside_of(&records));
    sunk(&store, &[a, b]);
    let page = Page::open(&store.url);
    let found = overview(&page, a, b);
    let gaps =
        replicator(&["gaps", "--source", a, "--target", b, "--output", "json"]).output().expect("runs");
    let holes = receipt(&gaps)["holes"].clone();
    assert_eq!((holes.as_array().map(Vec::len), found["gaps"].as_array().map(Vec::len)), (Some(1), Some(1)));
    assert_eq!(found["command"], found["gaps"][0]["command"]);
    if !matches!(kind, Kind::OpenSearch) {
        assert_eq!(found["command"], holes[0]["command"]);
    }
    assert_eq!(paste(&found), 240);
    sunk(&store, &[a, b]);
    let after = overview(&page, a, b);
    assert_eq!((&after["missing"], &after["command"]), (&json!(0), &Value::Null), "{after}");
    assert_holds(&consume(b), &outside_of(&records), &window_of(&records));
}

/// Several gaps have a command each, and one that fills them all.
#[test]
fn one_command_for_all_gaps() {
    let store = TestStore::new(Kind::Sqlite, "gaps").expect("SQLite");
    let pair = Pair::new(1, 1);
    let (a, b) = (pair.a.as_str(), pair.b.as_str());
    let records = day(810, 1);
    let is_there = |(n, _): &(usize, &Record)| n % 40 >= 4;
    let there: Vec<Record> =
        records.iter().enumerate().filter(is_there).map(|(_, record)| record.clone()).collect();
    produce(a, &records);
    produce(b, &there);
    sunk(&store, &[a, b]);
    let page = Page::open(&store.url);
    let found = overview(&page, a, b);
    let gaps = found["gaps"].as_array().expect("gaps");
    assert_eq!((gaps.len(), count(&found, "missing")), (21, 84));
    let first = records[0].time;
    assert_eq!((&gaps[0]["first_ms"], &gaps[0]["last_ms"]), (&json!(first), &json!(records[3].time)));
    if let Some(mut browser) = Browser::open(&format!("{}?source={a}&target={b}", page.url), 1200) {
        browser.wait_for("#fill-title", "Fill these 21 gaps with one command");
        assert_eq!(browser.value("document.querySelectorAll('#gaps tbody tr').length"), 12);
        browser.click("#gaps-more");
        browser.wait("document.querySelectorAll('#gaps tbody tr').length === 21");
        browser.click("#gaps tbody tr:nth-child(3) button");
        browser.wait_for("#headline", &format!("In the part shown, {b} lacks 4 records"));
        browser.wait_for("#fill-title", "Fill this gap");
    }
    let one = json!({ "command": gaps[2]["command"] });
    assert_eq!((paste(&one), paste(&found)), (json!(4), json!(80)));
}

/// With the target in another cluster, the command names both.
#[test]
fn the_command_between_two_clusters() {
    let store = TestStore::new(Kind::Sqlite, "two").expect("SQLite");
    let across = Across::same_name(2, 2);
    let (records, topic) = (day(810, 2), across.source.as_str());
    across.from.produce(topic, &records);
    across.to.produce(topic, &outside_of(&records));
    for side in [&across.from, &across.to] {
        let mut sink = replicator(&["sink", "-b", &side.0, "--topic", topic, "--store", &store.url]);
        assert_eq!(code(&sink.output().expect("runs")), 0);
    }
    let page = Page::open(&store.url);
    let found = overview(&page, &format!("{topic}@{}", across.from.0), &format!("{topic}@{}", across.to.0));
    let gaps = across.command(&["gaps", "--output", "json"]).output().expect("runs");
    assert_eq!(found["command"], receipt(&gaps)["holes"][0]["command"], "{found}");
    assert_eq!(paste(&found), 240);
}

/// A fill by key writes no second copy, and the page says so beside its command.
#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
fn further_copies_are_told_apart(#[case] kind: Kind) {
    let Some(store) = TestStore::new(kind, "further") else { return };
    let pair = Pair::new(1, 1);
    let (a, b) = (pair.a.as_str(), pair.b.as_str());
    let records = day(10, 1);
    produce(a, &[&records[..], &records[2..3], &records[2..3]].concat());
    produce(b, &records[..9]);
    sunk(&store, &[a, b]);
    let page = Page::open(&store.url);
    let found = overview(&page, a, b);
    assert_eq!((count(&found, "missing"), count(&found, "missing_copies")), (3, 2), "{found}");
    assert_eq!(found["partitions"][0]["missing"], 3);
    assert_eq!(
        (&found["gaps"][0]["missing_copies"], &found["gaps"][1]["missing_copies"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(paste(&found), 1);
    let Some(mut browser) = Browser::open(&format!("{}?source={a}&target={b}", page.url), 1200) else {
        return;
    };
    browser.wait_for("#fill-notes", &format!("2 of the 3 are further copies of records that {b} holds"));
}
