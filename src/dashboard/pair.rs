//! The pair of topics that the page shows: which one it is, its runs, and the command that fills its gaps. Pure.

use serde::Serialize;
use serde_json::{Value, json};

use super::names;
use crate::job::command_line;
use crate::job::window::Window;
use crate::sink::store::TopicSummary;

/// The names that the page looks for if nobody names a topic.
pub(super) const DEFAULT: [&str; 2] = ["topicA", "topicB"];

/// The [`names`] of two topics, and why it is these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Pair {
    pub source: String,
    pub target: String,
    pub chosen: Chosen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Chosen {
    /// The visitor named at least one of the topics.
    Asked,
    /// The default names, of which the store holds at least one.
    ByName,
    /// The topics of the last kept run of which the store holds both.
    LastRun,
    /// The only two topics of the store. The one with more records is taken for the source.
    OnlyTwo,
    /// Nothing tells which topics to show.
    Unknown,
}

impl Pair {
    /// Empty names are not named. `receipts` have gone through [`annotate`].
    pub(super) fn choose(source: &str, target: &str, topics: &[TopicSummary], receipts: &[Value]) -> Pair {
        let pair = |source: &str, target: &str, chosen| Pair {
            source: source.to_owned(),
            target: target.to_owned(),
            chosen,
        };
        let [first, second] = DEFAULT;
        let or = |name: &'_ str, default: &'_ str| {
            if name.is_empty() { default.to_owned() } else { name.to_owned() }
        };
        if !source.is_empty() || !target.is_empty() {
            return pair(&or(source, first), &or(target, second), Chosen::Asked);
        }
        if DEFAULT.iter().any(|name| names::find(topics, name).is_some()) {
            return pair(first, second, Chosen::ByName);
        }
        let shown = |receipt: &Value, end: &str| receipt["shown"][end].as_str().map(str::to_owned);
        let of_run = |receipt: &Value| shown(receipt, "source").zip(shown(receipt, "target"));
        if let Some((source, target)) = receipts.iter().find_map(of_run) {
            return pair(&source, &target, Chosen::LastRun);
        }
        match (topics, names::of(topics).as_slice()) {
            ([one, other], [name, another]) if other.records > one.records => {
                pair(another, name, Chosen::OnlyTwo)
            }
            ([one, other], [name, another]) if other.records < one.records || name < another => {
                pair(name, another, Chosen::OnlyTwo)
            }
            ([_, _], [name, another]) => pair(another, name, Chosen::OnlyTwo),
            _ => pair(first, second, Chosen::Unknown),
        }
    }

    /// Whether a receipt that has gone through [`annotate`] is of this pair.
    pub(super) fn is_of(&self, receipt: &Value, topics: &[TopicSummary]) -> bool {
        let is_end = |end: &str, name: &str| match receipt["shown"][end].as_str() {
            Some(shown) => names::find(topics, shown) == names::find(topics, name),
            // The store does not hold the topic of the run. If it holds one of this name, that is another topic.
            None => names::find(topics, name).is_none() && receipt[end].as_str() == Some(name),
        };
        is_end("source", &self.source) && is_end("target", &self.target)
    }
}

/// Adds to each receipt, as `shown`, the names of its topics, or null if the store does not hold them.
pub(super) fn annotate(receipts: &mut [Value], topics: &[TopicSummary]) {
    let named = names::of(topics);
    for receipt in receipts.iter_mut().filter_map(Value::as_object_mut) {
        let of = |end: &str| {
            let text = |field: String| receipt.get(&field).and_then(Value::as_str);
            let found = match text(format!("{end}_topic_id")) {
                Some(id) => names::by_id(topics, id),
                None => names::find(topics, text(end.to_owned())?),
            };
            let found = topics.iter().position(|topic| Some(topic) == found)?;
            named.get(found)
        };
        let shown = json!({ "source": of("source"), "target": of("target") });
        receipt.insert("shown".to_owned(), shown);
    }
}

/// The command that fills `[start_ms, end_ms)`, with the brokers at which a sink reached the topics. For a topic whose
/// brokers the store does not know, it names none: whoever pastes the command names them.
pub(super) fn command(source: &TopicSummary, target: &TopicSummary, start_ms: i64, end_ms: i64) -> String {
    let brokers = [source, target].map(|topic| topic.bootstrap_server.as_deref());
    let connection = match brokers {
        [Some(source), Some(target)] if source != target => {
            vec!["--source-bootstrap-server", source, "--target-bootstrap-server", target]
        }
        [source, target] => {
            source.or(target).map_or_else(Vec::new, |brokers| vec!["--bootstrap-server", brokers])
        }
    };
    let window = Window { start: Some(start_ms), end: Some(end_ms) }.to_string();
    command_line(&["--window", &window], &connection, &source.topic, &target.topic, &[])
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn topic(name: &str, bootstrap: Option<&str>, records: u64) -> TopicSummary {
        TopicSummary {
            topic: name.to_owned(),
            topic_id: format!("id-of-{name}-{}", bootstrap.unwrap_or_default()),
            bootstrap_server: bootstrap.map(str::to_owned),
            records,
            first_ms: None,
            last_ms: None,
            ends: None,
        }
    }

    #[rstest]
    #[case::one(
        Some("a:1"),
        Some("a:1"),
        "replicator --window 1970-01-01T00:00:00Z/1970-01-01T00:00:01Z --bootstrap-server a:1 --source a --target b"
    )]
    #[case::default(
        Some("localhost:9092"),
        Some("localhost:9092"),
        "replicator --window 1970-01-01T00:00:00Z/1970-01-01T00:00:01Z --bootstrap-server localhost:9092 --source a --target b"
    )]
    #[case::two(
        Some("a:1"),
        Some("b:1"),
        "replicator --window 1970-01-01T00:00:00Z/1970-01-01T00:00:01Z --source-bootstrap-server a:1 --target-bootstrap-server b:1 --source a --target b"
    )]
    #[case::unknown(
        None,
        None,
        "replicator --window 1970-01-01T00:00:00Z/1970-01-01T00:00:01Z --source a --target b"
    )]
    fn the_command_names_the_brokers_that_the_store_knows(
        #[case] of_source: Option<&str>,
        #[case] of_target: Option<&str>,
        #[case] wanted: &str,
    ) {
        let told = command(&topic("a", of_source, 1), &topic("b", of_target, 1), 0, 1000);
        assert_eq!(told, wanted);
    }

    #[test]
    fn a_pair_of_what_the_store_holds() {
        let chosen = |source: &str, target: &str, topics: &[TopicSummary], receipts: &[Value]| {
            let Pair { source, target, chosen } = Pair::choose(source, target, topics, receipts);
            (source, target, chosen)
        };
        let pair = |source: &str, target: &str, chosen| (source.to_owned(), target.to_owned(), chosen);
        let (few, many) = (topic("few", None, 3), topic("many", None, 5));
        let two = [few.clone(), many.clone()];
        assert_eq!(chosen("x", "", &two, &[]), pair("x", "topicB", Chosen::Asked));
        assert_eq!(chosen("", "", &two, &[]), pair("many", "few", Chosen::OnlyTwo));
        assert_eq!(chosen("", "", &[many, few], &[]), pair("many", "few", Chosen::OnlyTwo));
        let equal = [topic("a", Some("y:1"), 3), topic("a", Some("x:1"), 3)];
        assert_eq!(chosen("", "", &equal, &[]), pair("a@x:1", "a@y:1", Chosen::OnlyTwo));
        let run = |source: &str, target: &str| json!({ "source": source, "target": target });
        let mut receipts = [run("few", "gone"), run("few", "many")];
        annotate(&mut receipts, &two);
        assert_eq!(chosen("", "", &two, &receipts), pair("few", "many", Chosen::LastRun));
        let named = [topic("topicB", None, 1), topic("few", None, 3)];
        assert_eq!(chosen("", "", &named, &receipts), pair("topicA", "topicB", Chosen::ByName));
        assert_eq!(chosen("", "", &two[..1], &[]), pair("topicA", "topicB", Chosen::Unknown));
    }

    #[test]
    fn a_run_is_of_a_pair_by_its_ids() {
        let topics = [topic("e", Some("a:1"), 3), topic("e", Some("b:1"), 5)];
        let pair = Pair { source: "e@a:1".into(), target: "e@b:1".into(), chosen: Chosen::Asked };
        let run = |source: &str, target: &str| json!({ "source": "e", "target": "e", "source_topic_id": source, "target_topic_id": target });
        let mut runs = [
            run("id-of-e-a:1", "id-of-e-b:1"),
            run("id-of-e-b:1", "id-of-e-a:1"),
            run("another", "id-of-e-b:1"),
            json!({ "source": "e@a:1", "target": "e@b:1" }),
        ];
        annotate(&mut runs, &topics);
        assert_eq!(runs.each_ref().map(|run| pair.is_of(run, &topics)), [true, false, false, true]);
        let absent = Pair { source: "x".into(), target: "y".into(), chosen: Chosen::Asked };
        let mut runs = [json!({ "source": "x", "target": "y" }), json!({ "source": "x", "target": "z" })];
        annotate(&mut runs, &topics);
        assert_eq!(runs.each_ref().map(|run| absent.is_of(run, &topics)), [true, false]);
    }
}
