//! One document for each topic, with the offsets at which its partitions began and ended.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::http::Http;
use super::positions::PositionDocument;
use crate::base::error::{Error, Result};
use crate::base::range::index;
use crate::kafka::watermarks::Watermarks;
use crate::sink::store::{Ends, TopicOf};

pub(super) fn mapping() -> Value {
    json!({
        "settings": {"index": {"number_of_shards": 1, "auto_expand_replicas": "0-1"}},
        "mappings": {"dynamic": false, "properties": {
            "topic_id": {"type": "keyword"}, "topic": {"type": "keyword"}, "as_of_ms": {"type": "long"},
        }}
    })
}

/// The offsets are in the order of the partitions.
#[derive(Serialize, Deserialize)]
struct Document {
    topic_id: String,
    topic: String,
    as_of_ms: i64,
    start_offsets: Vec<i64>,
    end_offsets: Vec<i64>,
}

/// The document's path. A topic's id may have characters with a meaning in a path, so it is encoded.
fn place(prefix: &str, topic_id: &str) -> String {
    format!("{prefix}-ends/_doc/{}", utf8_percent_encode(topic_id, NON_ALPHANUMERIC))
}

/// As [`Store::keep_watermarks`](crate::sink::store::Store::keep_watermarks).
pub(super) fn keep(
    http: &Http,
    prefix: &str,
    topic: TopicOf<'_>,
    watermarks: &[Watermarks],
    as_of_ms: i64,
) -> Result<()> {
    let document = Document {
        topic_id: topic.id.to_owned(),
        topic: topic.name.to_owned(),
        as_of_ms,
        start_offsets: watermarks.iter().map(|w| w.low).collect(),
        end_offsets: watermarks.iter().map(|w| w.high).collect(),
    };
    http.keep("PUT", &place(prefix, topic.id), &json!(document))
}

/// The ends of the topic that these positions belong to; `None` if the end of any of their partitions is unknown.
pub(super) fn of(http: &Http, prefix: &str, positions: &[PositionDocument]) -> Result<Option<Ends>> {
    let topic_id = &positions[0].topic_id;
    let (_, answer) = http.call("GET", &place(prefix, topic_id), "", &[404])?;
    if answer["found"] != true {
        return match answer["found"] == false {
            true => Ok(None),
            false => Err(Error::failed(format!(
                "the store did not give the ends of a topic: {}",
                answer["error"]["reason"]
            ))),
        };
    }
    let told = Document::deserialize(&answer["_source"]).map_err(|e| Error::io("the ends of a topic", e))?;
    let mut behind_offsets = 0;
    for position in positions {
        let Some(end) = told.end_offsets.get(index(position.partition)) else { return Ok(None) };
        behind_offsets += u64::try_from(end.saturating_sub(position.next_offset)).unwrap_or(0);
    }
    let first = json!({"first": {"min": {"field": "offset"}}});
    let partitions = json!({"terms": {"field": "partition", "size": 10_000}, "aggs": first});
    let query = json!({"size": 0, "query": {"term": {"topic_id": topic_id}}, "aggs": {"all": partitions}});
    let answer = http.search(&format!("{prefix}-records"), &query)?;
    let is_below = |bucket: &Value| {
        let partition = bucket["key"].as_u64().and_then(|key| usize::try_from(key).ok())?;
        #[expect(clippy::cast_precision_loss, reason = "the other side is a double, too")]
        Some(bucket["first"]["value"].as_f64()? < *told.start_offsets.get(partition)? as f64)
    };
    let trimmed = super::aggregated(&answer)?.iter().any(|bucket| is_below(bucket) == Some(true));
    Ok(Some(Ends { as_of_ms: told.as_of_ms, behind_offsets, trimmed }))
}
