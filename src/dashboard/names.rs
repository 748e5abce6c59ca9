//! Names of the store's topics, which tell topics of one name in two clusters apart. Pure.
//!
//! A topic is `events` if that says which one it is. Otherwise it is `events@a:9092`, after the brokers at which `sink`
//! reached it, or `events@` and its id as Kafka's tools print it. A topic's name has no `@`.

use crate::kafka::topic::url_safe;
use crate::sink::store::TopicSummary;

/// The name of each topic, in the order of `topics`, which is the order of [`Store::topics`].
///
/// If `sink` reached several topics of one name at the same brokers, the topic was made anew. The plain name is the
/// newest one's, and the others are named by their ids. The same holds for a topic of which the store does not know the
/// brokers: earlier versions of `sink` did not store them.
///
/// [`Store::topics`]: crate::sink::store::Store::topics
pub(super) fn of(topics: &[TopicSummary]) -> Vec<String> {
    (0..topics.len()).map(|index| name(topics, index)).collect()
}

fn name(topics: &[TopicSummary], index: usize) -> String {
    let TopicSummary { topic: name, topic_id, bootstrap_server, .. } = &topics[index];
    let is_current = |index: &usize| !is_replaced(topics, *index);
    let mut of_name = (0..topics.len()).filter(|other| topics[*other].topic == *name).filter(is_current);
    match bootstrap_server {
        _ if !is_current(&index) => format!("{name}@{}", url_safe(topic_id)),
        _ if of_name.all(|other| other == index) => name.clone(),
        Some(brokers) => format!("{name}@{brokers}"),
        None => format!("{name}@{}", url_safe(topic_id)),
    }
}

/// Whether a newer topic of that name was at the same place.
fn is_replaced(topics: &[TopicSummary], index: usize) -> bool {
    let TopicSummary { topic, bootstrap_server, .. } = &topics[index];
    let is_same_place =
        |newer: &TopicSummary| bootstrap_server.is_none() || newer.bootstrap_server == *bootstrap_server;
    topics[..index].iter().any(|newer| newer.topic == *topic && is_same_place(newer))
}

/// The topic of this name, as [`of`] gives it. A name with brokers or an id is found even if a shorter one would do.
/// `None` if there is no such topic, or if it could be several.
pub(super) fn find<'a>(topics: &'a [TopicSummary], wanted: &str) -> Option<&'a TopicSummary> {
    if let Some(index) = of(topics).iter().position(|name| name == wanted) {
        return topics.get(index);
    }
    let (name, place) = wanted.split_once('@')?;
    let is_at = |topic: &&TopicSummary| topic.bootstrap_server.as_deref() == Some(place);
    let mut of_name = topics.iter().filter(|topic| topic.topic == name);
    of_name.clone().find(is_at).or_else(|| of_name.find(|topic| url_safe(&topic.topic_id) == url_safe(place)))
}

/// The topic with this id, in either alphabet of base64.
pub(super) fn by_id<'a>(topics: &'a [TopicSummary], id: &str) -> Option<&'a TopicSummary> {
    topics.iter().find(|topic| url_safe(&topic.topic_id) == url_safe(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, id and brokers of each topic.
    fn store(topics: &[(&str, &str, Option<&str>)]) -> Vec<TopicSummary> {
        let summary = |(topic, topic_id, bootstrap): &(&str, &str, Option<&str>)| TopicSummary {
            topic: (*topic).to_owned(),
            topic_id: (*topic_id).to_owned(),
            bootstrap_server: bootstrap.map(str::to_owned),
            records: 0,
            first_ms: None,
            last_ms: None,
            ends: None,
        };
        topics.iter().map(summary).collect()
    }

    fn found<'a>(topics: &'a [TopicSummary], wanted: &str) -> Option<&'a str> {
        find(topics, wanted).map(|topic| topic.topic_id.as_str())
    }

    #[test]
    fn one_name_in_two_clusters() {
        let topics =
            store(&[("events", "2", Some("b:1")), ("events", "1", Some("a:1")), ("other", "3", None)]);
        assert_eq!(of(&topics), ["events@b:1", "events@a:1", "other"]);
        assert_eq!(found(&topics, "events"), None, "it could be either");
        assert_eq!((found(&topics, "events@a:1"), found(&topics, "events@b:1")), (Some("1"), Some("2")));
        assert_eq!((found(&topics, "events@1"), found(&topics, "other@3")), (Some("1"), Some("3")));
        assert_eq!((found(&topics, "events@3"), found(&topics, "events@c:1")), (None, None));
    }

    #[test]
    fn the_name_of_a_topic_made_anew_is_the_newest_ones() {
        let topics = store(&[("events", "2", Some("a:1")), ("events", "1", Some("a:1"))]);
        assert_eq!(of(&topics), ["events", "events@1"]);
        assert_eq!((found(&topics, "events"), found(&topics, "events@a:1")), (Some("2"), Some("2")));
        let both = store(&[
            ("events", "4", Some("b:1")),
            ("events", "3", Some("a:1")),
            ("events", "2", Some("b:1")),
            ("events", "1", None),
        ]);
        assert_eq!(of(&both), ["events@b:1", "events@a:1", "events@2", "events@1"]);
    }

    #[test]
    fn a_store_of_an_earlier_version() {
        let topics = store(&[("events", "2", None), ("events", "1", None)]);
        assert_eq!(
            (of(&topics), found(&topics, "events")),
            (vec!["events".into(), "events@1".into()], Some("2"))
        );
        // An earlier version sank the newest one, in another cluster or not.
        let topics = store(&[("events", "2", None), ("events", "1", Some("a:1"))]);
        assert_eq!(
            (of(&topics), found(&topics, "events")),
            (vec!["events@2".into(), "events@a:1".into()], None)
        );
    }

    #[test]
    fn an_id_in_both_alphabets() {
        let topics = store(&[("events", "new", None), ("events", "a+b/c", None)]);
        assert_eq!(of(&topics), ["events", "events@a-b_c"]);
        assert_eq!(
            (found(&topics, "events@a-b_c"), found(&topics, "events@a+b/c")),
            (Some("a+b/c"), Some("a+b/c"))
        );
        assert!(by_id(&topics, "a-b_c").is_some() && by_id(&topics, "a+b/c").is_some());
        assert!(by_id(&topics, "a+b").is_none());
    }
}
