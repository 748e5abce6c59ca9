//! Two topics of one name, in two clusters: a store holds both beside each other, and the page tells them apart.

use std::process::Command;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rstest::rstest;
use serde_json::{Value, json};

use replicator::store;
use replicator::store::TopicSummary;

use crate::dashboard::{Page, seen, text_of};
use crate::kit::*;
use crate::raw;
use crate::stores::{Kind, TestStore};

/// A sink from the brokers at `bootstrap`, with small writes.
fn sink(bootstrap: &str, topic: &str, store: &TestStore) -> Command {
    let mut command = replicator(&["sink", "-b", bootstrap, "--topic", topic, "--store", &store.url]);
    command.args(["--output", "json"]).env("FAILPOINTS", "sink-write-records=return(50)");
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    command
}

/// Sinks to the end, and returns how many records this run wrote and how many of its topic are in the store.
fn sunk(bootstrap: &str, topic: &str, store: &TestStore) -> (u64, u64) {
    let output = sink(bootstrap, topic, store).output().expect("runs");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let receipt = receipt(&output);
    assert_eq!(receipt["complete"], true, "{receipt:?}");
    let count = |count: &Value| count.as_u64().expect("a count");
    (count(&receipt["written"]), count(&receipt["topics"][0]["in_store"]))
}

/// The id of a topic, as a store keeps it. Kafka's tools print it in another alphabet.
fn id(side: &Side, topic: &str) -> String {
    raw::topic_id(side, topic).replace('-', "+").replace('_', "/")
}

/// The store holds this topic's records once and whole, and none of another topic under its id.
fn assert_kept(store: &TestStore, side: &Side, topic: &str) {
    let kept: Vec<Record> = store.kept_of(&id(side, topic)).into_iter().map(|kept| kept.record).collect();
    assert_same(&kept, &side.consume(topic));
}

fn summaries(store: &TestStore) -> Vec<TopicSummary> {
    store::open(&store.url).expect("opens").topics().expect("topics")
}

/// Names, as part of an address.
fn query(source: &str, target: &str) -> String {
    let encoded = |name: &str| name.replace('@', "%40").replace('+', "%2B").replace('/', "%2F");
    format!("?source={}&target={}", encoded(source), encoded(target))
}

/// 10:00-16:45 in the first cluster; the same without the window, and three records of its own, in the second.
fn two_topics() -> (Across, String, Vec<Record>, Vec<Record>) {
    let across = Across::same_name(2, 3);
    let (of_a, mut of_b) = (day(405, 2), outside_of(&day(405, 2)));
    of_b.extend((0..3).map(|n| record(2, DAY + 10 * HOUR + 7, &format!("only-b-{n}"), "{}")));
    across.from.produce(&across.source, &of_a);
    across.to.produce(&across.target, &of_b);
    let topic = across.source.clone();
    (across, topic, of_a, of_b)
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[case::opensearch(Kind::OpenSearch)]
#[case::elasticsearch(Kind::Elasticsearch)]
fn both_lie_beside_each_other(#[case] kind: Kind) {
    let Some(store) = TestStore::new(kind, "one_name") else { return };
    let (Across { from: a, to: b, .. }, topic, of_a, of_b) = two_topics();
    let (of_a, of_b) = (of_a.len() as u64, of_b.len() as u64);
    assert_eq!(sunk(&a.0, &topic, &store), (of_a, of_a));
    assert_eq!(sunk(&b.0, &topic, &store), (of_b, of_b), "the other cluster's are not counted");
    for _ in 0..2 {
        assert_eq!((sunk(&a.0, &topic, &store), sunk(&b.0, &topic, &store)), ((0, of_a), (0, of_b)));
    }
    for side in [&a, &b] {
        assert_kept(&store, side, &topic);
    }
    let told = |summaries: Vec<TopicSummary>| -> Vec<(String, Option<String>, u64, Option<u64>)> {
        let behind = |of: &TopicSummary| of.ends.map(|ends| ends.behind_offsets);
        summaries
            .iter()
            .map(|of| (of.topic_id.clone(), of.bootstrap_server.clone(), of.records, behind(of)))
            .collect()
    };
    let [in_a, in_b] = [(&a, of_a), (&b, of_b)]
        .map(|(side, records)| (id(side, &topic), Some(side.0.clone()), records, Some(0)));
    assert_eq!(
        told(summaries(&store)),
        [in_b.clone(), in_a.clone()],
        "the one that was sunk last is the first"
    );

    // The same cluster by another list of brokers is the same topic.
    let elsewhere = format!("{}, 127.0.0.1:1", a.0);
    assert_eq!(sunk(&elsewhere, &topic, &store), (0, of_a));
    let mut brokers = [a.0.as_str(), "127.0.0.1:1"];
    brokers.sort_unstable();
    let moved = (in_a.0, Some(brokers.join(",")), of_a, Some(0));
    assert_eq!(told(summaries(&store)), [moved, in_b]);
    assert_kept(&store, &a, &topic);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[case::opensearch(Kind::OpenSearch)]
#[case::elasticsearch(Kind::Elasticsearch)]
fn the_page_answers_for_each(#[case] kind: Kind) {
    let Some(store) = TestStore::new(kind, "one_page") else { return };
    let (Across { from: a, to: b, .. }, topic, of_a, of_b) = two_topics();
    let page = Page::open(&store.url);
    let ask = |source: &str, target: &str| page.json(&format!("api/overview{}", query(source, target)));
    sunk(&a.0, &topic, &store);
    let alone = ask(&topic, &topic);
    assert_eq!(alone["topics"], json!([topic]), "nothing else has this name");
    assert_eq!(
        (&alone["source"]["records"], &alone["missing"]),
        (&json!(of_a.len()), &Value::Null),
        "{alone}"
    );

    sunk(&b.0, &topic, &store);
    let (in_a, in_b) = (format!("{topic}@{}", a.0), format!("{topic}@{}", b.0));
    let both = ask(&in_a, &in_b);
    let mut names = [in_a.as_str(), in_b.as_str()];
    assert_eq!(both["topics"], json!([names[1], names[0]]), "the one that was sunk last is the first");
    names.sort_unstable();
    assert_eq!(both["source"]["records"], json!(of_a.len()));
    assert_eq!(both["target"]["records"], json!(of_b.len()));
    assert_eq!(
        (&both["source"]["bootstrap_server"], &both["target"]["bootstrap_server"]),
        (&json!(a.0), &json!(b.0))
    );
    let window = window_of(&of_a).len();
    assert_eq!((&both["in_source"], &both["missing"]), (&json!(of_a.len()), &json!(window)), "{both}");
    let back = ask(&in_b, &in_a);
    assert_eq!((&back["in_source"], &back["missing"]), (&json!(of_b.len()), &json!(3)), "{back}");
    let unclear = ask(&topic, &topic);
    assert_eq!(
        (&unclear["source"], &unclear["target"], &unclear["missing"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    let itself = ask(&in_a, &in_a);
    assert_eq!((&itself["source"]["records"], &itself["missing"]), (&json!(of_a.len()), &Value::Null));
    let by_id = format!("{topic}@{}", raw::topic_id(&b, &topic));
    assert_eq!(ask(&in_a, &by_id)["target"]["records"], json!(of_b.len()));

    let metrics =
        page.get(&format!("metrics{}", query(&in_a, &in_b))).body_mut().read_to_string().expect("a text");
    for line in [
        format!("replicator_store_records{{topic=\"{in_a}\"}} {}\n", of_a.len()),
        format!("replicator_store_records{{topic=\"{in_b}\"}} {}\n", of_b.len()),
        format!("replicator_store_missing_records{{source=\"{in_a}\",target=\"{in_b}\"}} {window}\n"),
    ] {
        assert!(metrics.contains(&line), "no {line} in {metrics}");
    }
    let metrics =
        page.get(&format!("metrics{}", query(&in_a, &in_a))).body_mut().read_to_string().expect("a text");
    assert!(
        !metrics.contains("missing_records{"),
        "a topic lacks nothing of itself, which proves nothing: {metrics}"
    );
    assert_eq!(metrics.matches("replicator_store_records{").count(), 1, "{metrics}");
}

/// What the page's reader sees.
#[test]
fn the_page_in_a_browser() {
    let store = TestStore::new(Kind::Sqlite, "one_seen").expect("SQLite");
    let (Across { from: a, to: b, .. }, topic, of_a, _) = two_topics();
    let (in_a, in_b) = (format!("{topic}@{}", a.0), format!("{topic}@{}", b.0));
    let page = Page::open(&store.url);
    let at = |query: &str| seen(&format!("{}{query}", page.url));
    sunk(&a.0, &topic, &store);
    let Some(alone) = at(&query(&topic, &topic)) else { return };
    let headline = |dom: &str| text_of(dom, "headline").to_owned();
    assert_eq!(headline(&alone), format!("{topic} is compared with itself"));
    let absent = at(&query(&topic, &in_b)).expect("a browser");
    assert_eq!(headline(&absent), format!("{in_b} is not in this store"));
    assert!(absent.contains(&format!("replicator sink -b {} --topic {topic} --store", b.0)), "{absent}");

    sunk(&b.0, &topic, &store);
    let unclear = at(&query(&topic, &topic)).expect("a browser");
    assert_eq!(text_of(&unclear, "empty-headline"), "Choose two topics");
    let both = format!("holds several topics {topic}: {in_b}, {in_a}.");
    assert!(text_of(&unclear, "why-empty").ends_with(&both), "{}", text_of(&unclear, "why-empty"));
    let one_unclear = at(&query(&in_a, &topic)).expect("a browser");
    assert_eq!(headline(&one_unclear), format!("This store holds several topics {topic}"));

    let lacks = format!("{in_b} lacks {} records", window_of(&of_a).len());
    let unchosen = at("").expect("a browser");
    assert_eq!(headline(&unchosen), lacks, "the store holds no other topics, and this one has more records");
    let chosen = at(&query(&in_a, &in_b)).expect("a browser");
    assert_eq!(headline(&chosen), lacks);
    for name in [&in_a, &in_b] {
        let option = format!("<option value=\"{name}\">{name}</option>");
        assert_eq!(chosen.matches(&option).count(), 2, "{option} in {chosen}");
    }
    // A receipt says by their ids which topics a run was about, whatever their names and brokers.
    let receipt = |source: &str, target: &str| {
        json!({ "source": topic, "target": topic, "source_topic_id": source, "target_topic_id": target,
            "source_bootstrap_server": "old-a:1", "target_bootstrap_server": "old-b:1", "written": 7 })
    };
    let (id_a, id_b) = (raw::topic_id(&a, &topic), raw::topic_id(&b, &topic));
    store::keep_receipt(&store.url, &receipt(&id_a, &id_b)).expect("kept");
    store::keep_receipt(&store.url, &receipt("AAAAAAAAAAAAAAAAAAAAAQ", &id_b)).expect("kept");
    let of_last = at("").expect("a browser");
    assert_eq!(headline(&of_last), lacks, "the pair of the last run that is in the store");
    assert_eq!(of_last.matches("<td class=\"number\" data-head=\"Written\">7</td>").count(), 1, "{of_last}");
    assert_eq!(text_of(&of_last, "other-runs"), "1 run of other topics is not shown.");
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[ignore = "takes a minute"]
#[case::opensearch(Kind::OpenSearch)]
#[case::elasticsearch(Kind::Elasticsearch)]
fn both_killed_in_mid_sink(#[case] kind: Kind) {
    let Some(store) = TestStore::new(kind, "one_killed") else { return };
    let across = Across::same_name(3, 2);
    let Across { from: a, to: b, source: topic, .. } = &across;
    a.produce(topic, &day(6_000, 3));
    b.produce(topic, &day(4_000, 2));
    let mut random = ChaCha8Rng::seed_from_u64(getrandom::u64().expect("randomness"));
    let mut kills = 0;
    while kills < 10 {
        let wanted = store.count() + random.random_range(0..400);
        let mut both = [a, b].map(|side| {
            let mut command = sink(&side.0, topic, &store);
            command.env("FAILPOINTS", "sink-write-records=return(10)").spawn().expect("starts")
        });
        until(|| {
            let has_ended = both.iter_mut().all(|child| child.try_wait().expect("asked").is_some());
            store.count() > wanted || has_ended
        });
        for mut child in both {
            // It may have ended by itself.
            let _ = child.kill();
            match child.wait_with_output().expect("ends") {
                output if output.status.code().is_none() => kills += 1,
                output => {
                    // Two topics do not fence each other. Give both sinks more to do.
                    assert_eq!(code(&output), 0, "{}", stderr(&output));
                    a.produce(topic, &day(1_500, 3));
                    b.produce(topic, &day(1_500, 2));
                }
            }
        }
    }
    for side in [a, b] {
        sunk(&side.0, topic, &store);
        assert_kept(&store, side, topic);
        assert_eq!(sunk(&side.0, topic, &store).0, 0);
    }
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[case::opensearch(Kind::OpenSearch)]
#[case::elasticsearch(Kind::Elasticsearch)]
fn made_anew_in_one_of_them(#[case] kind: Kind) {
    let Some(store) = TestStore::new(kind, "one_anew") else { return };
    let (Across { from: a, to: b, .. }, topic, of_a, of_b) = two_topics();
    sunk(&a.0, &topic, &store);
    sunk(&b.0, &topic, &store);
    let old = raw::topic_id(&a, &topic);
    a.delete(&topic);
    a.create(&topic, 1, &[]);
    a.produce(&topic, &of_a[..1]);
    assert_eq!(sunk(&a.0, &topic, &store), (1, 1), "the earlier topic's records are not counted");
    let page = Page::open(&store.url);
    let (in_a, in_b, before) =
        (format!("{topic}@{}", a.0), format!("{topic}@{}", b.0), format!("{topic}@{old}"));
    let records =
        |name: &str| page.json(&format!("api/overview{}", query(name, "none")))["source"]["records"].clone();
    assert_eq!(
        [&in_a, &in_b, &before].map(|name| records(name)),
        [json!(1), json!(of_b.len()), json!(of_a.len())]
    );
    let mut names = page.json("api/overview")["topics"].clone();
    let names = names.as_array_mut().expect("names");
    names.sort_by_key(Value::to_string);
    let mut wanted = [in_a, in_b, before].map(Value::from);
    wanted.sort_by_key(Value::to_string);
    assert_eq!(*names, wanted);
    assert_kept(&store, &b, &topic);
}

#[rstest]
#[case::sqlite(Kind::Sqlite)]
#[case::postgres(Kind::Postgres)]
#[ignore = "takes a minute"]
#[case::opensearch(Kind::OpenSearch)]
#[case::elasticsearch(Kind::Elasticsearch)]
fn a_store_of_an_earlier_version_goes_on(#[case] kind: Kind) {
    let Some(store) = TestStore::new(kind, "one_early") else { return };
    let (Across { from: a, to: b, .. }, topic, of_a, of_b) = two_topics();
    sunk(&b.0, &topic, &store);
    sunk(&a.0, &topic, &store);
    store.forget_brokers();
    let page = Page::open(&store.url);
    let names = || page.json("api/overview")["topics"].clone();
    // As before: the name is the one that was sunk last. The other one is there, too.
    assert_eq!(names(), json!([topic, format!("{topic}@{}", raw::topic_id(&b, &topic))]));
    let of_name = page.json(&format!("api/overview{}", query(&topic, "none")));
    assert_eq!(of_name["source"]["records"], json!(of_a.len()));
    // A sink goes on from its position, and its brokers are known from then on.
    assert_eq!(sunk(&b.0, &topic, &store), (0, of_b.len() as u64));
    assert_eq!(sunk(&a.0, &topic, &store), (0, of_a.len() as u64));
    assert_eq!(names(), json!([format!("{topic}@{}", a.0), format!("{topic}@{}", b.0)]));
    for side in [&a, &b] {
        assert_kept(&store, side, &topic);
    }
}
