//! The page, its API and its metrics never claim more than the store can know.

use std::process::Stdio;

use rstest::rstest;
use serde_json::{Value, json};

use crate::dashboard::{Page, picture, seen, text_of};
use crate::kit::*;
use crate::sink::{command, sunk};
use crate::stores::{Kind, TestStore};

/// The page's address for a pair, from the question mark on.
fn query(a: &str, b: &str) -> String {
    format!("?source={a}&target={b}")
}

fn overview(page: &Page, a: &str, b: &str) -> Value {
    page.json(&format!("api/overview{}", query(a, b)))
}

fn metrics(page: &Page, a: &str, b: &str) -> String {
    page.get(&format!("metrics{}", query(a, b))).body_mut().read_to_string().expect("a text")
}

/// The value of a topic's gauge, or of the gauge of the pair whose source it is.
fn gauge(metrics: &str, name: &str, topic: &str) -> Option<f64> {
    let line = metrics.lines().find(|l| l.starts_with(&format!("{name}{{")) && l.contains(topic))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// The page's headline and the detail below it; `None` if no browser is installed.
fn said(page: &Page, query: &str) -> Option<(String, String)> {
    let dom = seen(&format!("{}{query}", page.url))?;
    let whole = dom.split("id=\"detail\">").nth(1).and_then(|rest| rest.split("</p>").next());
    Some((text_of(&dom, "headline").to_owned(), whole.expect("a detail").to_owned()))
}

const MISSING: &str = "replicator_store_missing_records";
const BEHIND: &str = "replicator_store_behind_offsets";
const AS_OF: &str = "replicator_store_as_of_timestamp_seconds";

#[test]
fn nothing_is_claimed_of_a_topic_that_is_not_in_the_store() {
    let store = TestStore::new(Kind::Sqlite, "absent").expect("SQLite");
    let pair = Pair::new(1, 1);
    let page = Page::open(&store.url);
    let (a, b) = (pair.a.as_str(), pair.b.as_str());
    let of_none = (overview(&page, a, b)["missing"].clone(), gauge(&metrics(&page, a, b), MISSING, a));
    assert_eq!(of_none, (Value::Null, None), "of no topic at all");

    produce(a, &day(100, 1));
    produce(b, &day(100, 1));
    sunk(&store, &[a]);
    for (source, target) in [(a, b), (b, a)] {
        let found = overview(&page, source, target);
        let text = metrics(&page, source, target);
        assert_eq!(found["missing"], Value::Null, "{source} to {target}: {found}");
        assert_eq!((&found["gaps"], &found["compared"]), (&Value::Null, &Value::Null), "{found}");
        assert_eq!(gauge(&text, MISSING, source), None, "{text}");
        assert_eq!(gauge(&text, "replicator_store_records", a), Some(100.0), "{text}");
        assert_eq!(gauge(&text, BEHIND, b), None, "{text}");
        let values = page.json(&format!("api/breakdown{}", query(source, target)));
        for value in values["breakdowns"]
            .as_array()
            .expect("some")
            .iter()
            .flat_map(|b| b["values"].as_array().expect("some"))
        {
            assert_eq!(value["target"], Value::Null, "{values}");
        }
        let Some((headline, detail)) = said(&page, &query(source, target)) else { continue };
        assert_eq!(headline, format!("{b} is not in this store"));
        assert!(detail.contains(&format!("replicator sink --topic {b} --store {}", store.url)), "{detail}");
    }
    picture(&format!("{}{}", page.url, query(a, b)), "absent.png");
}

#[test]
fn behind_is_said_and_as_of_when() {
    let store = TestStore::new(Kind::Sqlite, "behind").expect("SQLite");
    let pair = Pair::new(2, 2);
    let (a, b) = (pair.a.as_str(), pair.b.as_str());
    produce(a, &day(100, 2));
    produce(b, &day(100, 2));
    let page = Page::open(&store.url);
    let child = command(&store, &[a, b]).arg("--follow").spawn().expect("starts");
    let behind = |topic: &str| overview(&page, a, b)[topic]["ends"]["behind_offsets"].clone();
    until(|| (behind("source"), behind("target")) == (json!(0), json!(0)));

    // Nothing is new, but the time of the report moves on.
    let as_of = || overview(&page, a, b)["source"]["ends"]["as_of_ms"].as_i64().expect("a time");
    let before = as_of();
    until(|| as_of() > before);

    // The records of an open transaction are in the topic, but not in the store.
    let open = Foreign::begin().send(a, &day(12, 1));
    until(|| behind("source") == json!(12));
    let text = metrics(&page, a, b);
    assert_eq!((gauge(&text, BEHIND, a), gauge(&text, BEHIND, b)), (Some(12.0), Some(0.0)), "{text}");
    assert!(gauge(&text, AS_OF, a).is_some_and(|seconds| seconds > 1.7e9), "{text}");
    if let Some((headline, detail)) = said(&page, &query(a, b)) {
        assert!(
            headline.starts_with("As of ")
                && headline.ends_with(&format!(" UTC the store is 12 offsets behind {a}")),
            "{headline}"
        );
        assert!(!detail.contains("every"), "{detail}");
        picture(&format!("{}{}", page.url, query(a, b)), "behind.png");
    }
    // The sink stops while it is behind, so its receipt is not complete.
    signal(&child, "-TERM");
    let receipt = receipt(&child.wait_with_output().expect("ends"));
    assert_eq!(receipt["complete"], false, "{receipt:?}");
    assert_eq!(receipt["topics"][0]["behind_offsets"], 12, "{receipt:?}");
    open.abort();

    sunk(&store, &[a, b]);
    assert_eq!((behind("source"), behind("target")), (json!(0), json!(0)));
    let Some((headline, detail)) = said(&page, &query(a, b)) else { return };
    assert_eq!(headline, format!("{b} holds every record of {a}"));
    assert!(detail.starts_with("as of ") && detail.contains(" UTC"), "{detail}");
}

#[test]
fn a_killed_sink_leaves_a_store_that_is_behind() {
    let store = TestStore::new(Kind::Sqlite, "killed_behind").expect("SQLite");
    let pair = Pair::new(1, 1);
    let (a, b) = (pair.a.as_str(), pair.b.as_str());
    produce(a, &day(20_000, 1));
    produce(b, &day(20_000, 1));
    // The store has the whole target and a part of the source. It has each record of that part from both topics.
    sunk(&store, &[b]);
    let mut child =
        command(&store, &[a]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    until(|| store.count() > 20_500);
    signal(&child, "-KILL");
    child.wait().expect("ends");
    let left = 40_000 - store.count();
    assert!(left > 0, "it was faster than the kill");

    let page = Page::open(&store.url);
    let found = overview(&page, a, b);
    assert_eq!(
        (&found["missing"], &found["source"]["ends"]["behind_offsets"]),
        (&json!(0), &json!(left)),
        "{found}"
    );
    assert_eq!(found["target"]["ends"]["behind_offsets"], 0);
    let Some((headline, _)) = said(&page, &query(a, b)) else { return };
    assert!(headline.contains(&format!("offsets behind {a}")), "{headline}");
}

#[test]
fn of_a_part_it_says_that_it_is_one() {
    let store = TestStore::new(Kind::Sqlite, "part").expect("SQLite");
    let pair = Pair::new(1, 1);
    let (a, b) = (pair.a.as_str(), pair.b.as_str());
    let records = day(810, 1);
    produce(a, &records);
    produce(b, &outside_of(&records));
    sunk(&store, &[a, b]);
    let page = Page::open(&store.url);
    let part =
        |from: i64, to: i64| format!("{}&start={}&end={}", query(a, b), DAY + from * HOUR, DAY + to * HOUR);
    let Some((whole, _)) = said(&page, &query(a, b)) else { return };
    assert_eq!(whole, format!("{b} lacks 240 records"));
    assert_eq!(
        said(&page, &part(14, 16)).expect("a browser").0,
        format!("In the part shown, {b} holds every record of {a}")
    );
    assert_eq!(
        said(&page, &part(12, 14)).expect("a browser").0,
        format!("In the part shown, {b} lacks 120 records")
    );
    // Somebody may type local times by mistake. An empty part of the source must not look like a success.
    assert_eq!(
        said(&page, &part(3, 4)).expect("a browser").0,
        format!("In the part shown, {a} has no record")
    );
    let after = format!("{}&start={}", query(a, b), DAY + 13 * HOUR);
    assert_eq!(
        said(&page, &after).expect("a browser").0,
        format!("In the part shown, {b} holds every record of {a}")
    );
    picture(&format!("{}{}", page.url, part(14, 16)), "part.png");
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[ignore = "takes a minute"]
#[case::opensearch(Kind::OpenSearch)]
#[case::elasticsearch(Kind::Elasticsearch)]
fn copies_are_counted(#[case] kind: Kind) {
    let Some(store) = TestStore::new(kind, "copies") else { return };
    let pair = Pair::new(1, 1);
    let (a, b) = (pair.a.as_str(), pair.b.as_str());
    let records = day(10, 1);
    // The source has the first record three times and the second twice. The target has them twice and three times.
    produce(a, &[&records[..], &records[..2], &records[..1]].concat());
    produce(b, &[&records[..], &records[..2], &records[1..2]].concat());
    sunk(&store, &[a, b]);
    let page = Page::open(&store.url);
    let found = overview(&page, a, b);
    assert_eq!((&found["missing"], &found["in_source"]), (&json!(1), &json!(13)), "{found}");
    assert_eq!(overview(&page, b, a)["missing"], 1);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[ignore = "takes a minute"]
#[case::opensearch(Kind::OpenSearch)]
#[case::elasticsearch(Kind::Elasticsearch)]
fn a_store_says_what_it_compared(#[case] kind: Kind) {
    let Some(store) = TestStore::new(kind, "compared") else { return };
    let pair = Pair::new(1, 1);
    let (a, b) = (pair.a.as_str(), pair.b.as_str());
    let records = day(405, 1);
    // Both topics have the same number of records in each minute, but one record differs.
    let mut others = records.clone();
    others[200].value = Some(b"{\"n\":\"another\"}".to_vec());
    produce(a, &records);
    produce(b, &others);
    sunk(&store, &[a, b]);
    let page = Page::open(&store.url);
    let found = overview(&page, a, b);
    let by_counts = matches!(kind, Kind::OpenSearch | Kind::Elasticsearch);
    let wanted = if by_counts { ("counts", 0) } else { ("records", 1) };
    assert_eq!(
        (found["compared"].as_str(), found["missing"].as_i64()),
        (Some(wanted.0), Some(wanted.1)),
        "{found}"
    );
    assert_eq!(
        (&found["source"]["ends"]["behind_offsets"], &found["target"]["ends"]["behind_offsets"]),
        (&json!(0), &json!(0))
    );
    assert!(found["source"]["ends"]["as_of_ms"].as_i64().is_some_and(|ms| ms > DAY), "{found}");
    let Some((headline, _)) = said(&page, &query(a, b)) else { return };
    let counted = format!("{b} holds at least as many records as {a} in each minute");
    assert_eq!(headline, if by_counts { counted } else { format!("{b} lacks 1 record") });
    picture(&format!("{}{}", page.url, query(a, b)), &format!("compared-{}.png", wanted.0));
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[ignore = "takes a minute"]
#[case::opensearch(Kind::OpenSearch)]
#[case::elasticsearch(Kind::Elasticsearch)]
fn a_store_of_before_knows_no_ends(#[case] kind: Kind) {
    let Some(store) = TestStore::new(kind, "before") else { return };
    let pair = Pair::new(1, 1);
    let (a, b) = (pair.a.as_str(), pair.b.as_str());
    produce(a, &day(50, 1));
    produce(b, &day(50, 1));
    sunk(&store, &[a, b]);
    store.forget_ends();
    let page = Page::open(&store.url);
    let found = overview(&page, a, b);
    assert_eq!((&found["missing"], &found["source"]["records"]), (&json!(0), &json!(50)), "{found}");
    assert_eq!(
        (&found["source"]["ends"]["behind_offsets"], &found["target"]["ends"]["as_of_ms"]),
        (&Value::Null, &Value::Null)
    );
    let text = metrics(&page, a, b);
    assert_eq!((gauge(&text, BEHIND, a), gauge(&text, AS_OF, b)), (None, None), "{text}");
    let seen = said(&page, &query(a, b));
    sunk(&store, &[a, b]);
    assert_eq!(overview(&page, a, b)["source"]["ends"]["behind_offsets"], 0);
    let Some((headline, detail)) = seen else { return };
    assert_eq!(headline, format!("This store does not know how far it is behind {a}"));
    assert!(detail.contains("replicator sink"), "{detail}");
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[ignore = "takes a minute"]
#[case::opensearch(Kind::OpenSearch)]
#[case::elasticsearch(Kind::Elasticsearch)]
fn what_the_target_has_lost_since_is_not_held(#[case] kind: Kind) {
    let Some(store) = TestStore::new(kind, "trimmed") else { return };
    let pair = Pair::new(1, 1);
    let (a, b) = (pair.a.as_str(), pair.b.as_str());
    produce(a, &day(50, 1));
    produce(b, &day(50, 1));
    sunk(&store, &[a, b]);
    let page = Page::open(&store.url);
    assert_eq!(overview(&page, a, b)["target"]["ends"]["trimmed"], false);
    trim(b, 0, 20);
    sunk(&store, &[a, b]);
    let found = overview(&page, a, b);
    assert_eq!(
        (&found["target"]["ends"]["trimmed"], &found["source"]["ends"]["trimmed"]),
        (&json!(true), &json!(false)),
        "{found}"
    );
    let Some((headline, _)) = said(&page, &query(a, b)) else { return };
    assert_eq!(headline, format!("{b} has deleted records that this store still holds"));
}

#[test]
fn a_topic_made_anew_is_not_caught_up_by_the_old_one() {
    let store = TestStore::new(Kind::Sqlite, "anew").expect("SQLite");
    let pair = Pair::new(1, 1);
    let (a, b) = (pair.a.as_str(), pair.b.as_str());
    produce(a, &day(50, 1));
    produce(b, &day(50, 1));
    sunk(&store, &[a, b]);
    let page = Page::open(&store.url);
    let old = overview(&page, a, b);
    delete(b);
    create(b, 1, &[]);
    produce(b, &day(30, 1));
    sunk(&store, &[a, b]);
    let new = overview(&page, a, b);
    assert_eq!((&old["missing"], &new["missing"]), (&json!(0), &json!(49)), "{new}");
    assert_ne!(old["target"]["topic_id"], new["target"]["topic_id"]);
    assert_eq!(
        (&new["target"]["records"], &new["target"]["ends"]["behind_offsets"]),
        (&json!(30), &json!(0)),
        "{new}"
    );
}
