//! Stores each record as a document, once, under an id of its own.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::http::{Http, TRIES, is_busy, pause};
use crate::base::error::{Error, Result};
use crate::sink::store::summary::scalars;
use crate::sink::store::{Content, Row, TopicOf};

/// The value is not mapped. Otherwise the server would refuse a value if one of its fields had another type in an earlier
/// value. Queries use `facets`, which holds the value's top-level fields as `name=value`.
pub(super) fn mapping() -> Value {
    let keyword = json!({"type": "keyword", "ignore_above": 1024});
    let kept = json!({"type": "object", "enabled": false});
    json!({
        "settings": {"index": {"number_of_shards": 1, "auto_expand_replicas": "0-1"}},
        "mappings": {"dynamic": false, "properties": {
            "topic_id": keyword, "topic": keyword, "partition": {"type": "long"}, "offset": {"type": "long"},
            "time_ms": {"type": "long"},
            "time": {"type": "date", "format": "epoch_millis", "ignore_malformed": true},
            "key": keyword, "key_base64": {"type": "binary"},
            "value": kept, "raw_base64": {"type": "binary"}, "headers": kept,
            "facets": keyword, "digest": keyword,
        }}
    })
}

#[derive(Serialize)]
struct Document<'a> {
    topic_id: &'a str,
    topic: &'a str,
    partition: i32,
    offset: i64,
    time_ms: i64,
    time: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<&'a RawValue>,
    facets: Vec<String>,
    digest: String,
}

/// With `as_bytes`, the value is sent as bytes, because the server's own JSON parser refused it.
fn document<'a>(topic: TopicOf<'a>, row: &'a Row, as_bytes: bool) -> Document<'a> {
    let (value, raw) = match &row.value {
        Content::Null => (None, None),
        // A document is one line, and the value must stay as it is written.
        Content::Json(text) if !as_bytes && !text.contains(['\n', '\r']) => {
            serde_json::from_str(text).map_or((None, Some(text.as_bytes())), |raw| (Some(raw), None))
        }
        Content::Json(text) => (None, Some(text.as_bytes())),
        Content::Raw(bytes) => (None, Some(bytes.as_slice())),
    };
    let facets = match &row.value {
        Content::Json(text) => scalars(text),
        _ => Vec::new(),
    };
    let key = row.key.as_deref();
    let text = key.and_then(|key| std::str::from_utf8(key).ok());
    Document {
        topic_id: topic.id,
        topic: topic.name,
        partition: row.partition,
        offset: row.offset,
        time_ms: row.time_ms,
        time: row.time_ms,
        key: text,
        key_base64: key.filter(|_| text.is_none()).map(|key| BASE64.encode(key)),
        value,
        raw_base64: raw.map(|raw| BASE64.encode(raw)),
        headers: row.headers.as_deref().and_then(|headers| serde_json::from_str(headers).ok()),
        facets: facets
            .into_iter()
            .filter(|(name, _)| !name.contains('='))
            .map(|(name, value)| format!("{name}={value}"))
            .collect(),
        digest: row.digest.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        }),
    }
}

/// Stores each row that the index does not hold yet. Another run may have stored the others.
///
/// # Errors
/// [`Error::Failed`] if the server refuses a document, or is too busy for too long.
pub(super) fn store(http: &Http, index: &str, topic: TopicOf<'_>, rows: &[Row]) -> Result<()> {
    let mut waiting: Vec<(&Row, bool)> = rows.iter().map(|row| (row, false)).collect();
    let path = format!("{index}/_bulk?filter_path=items.*.status,items.*.error");
    for tries in 0.. {
        if waiting.is_empty() {
            return Ok(());
        }
        let mut body = String::new();
        for (row, as_bytes) in &waiting {
            let id = format!("{}-{}-{}", topic.id, row.partition, row.offset);
            let document = serde_json::to_string(&document(topic, row, *as_bytes))
                .map_err(|e| Error::io(format!("record {id}"), e))?;
            let _ = writeln!(body, "{}\n{document}", json!({"create": {"_id": id}}));
        }
        let (_, answer) = http.call("POST", &path, &body, &[])?;
        let items = answer["items"].as_array().map_or(&[][..], Vec::as_slice);
        if items.len() != waiting.len() {
            return Err(Error::failed(format!(
                "the store answered for {} of {} records",
                items.len(),
                waiting.len()
            )));
        }
        let mut again = Vec::new();
        let mut is_refused = false;
        for ((row, as_bytes), item) in waiting.into_iter().zip(items) {
            match item["create"]["status"].as_u64().unwrap_or(0) {
                // 409: an earlier run or an earlier try has stored it.
                200 | 201 | 409 => {}
                status if is_busy(status) && tries < TRIES => again.push((row, as_bytes)),
                400 if !as_bytes && matches!(row.value, Content::Json(_)) => {
                    is_refused = true;
                    again.push((row, true));
                }
                status => {
                    return Err(Error::failed(format!(
                        "the store answered {status} for partition {} offset {} of {}: {}",
                        row.partition, row.offset, topic.name, item["create"]["error"]["reason"]
                    )));
                }
            }
        }
        if !again.is_empty() && !is_refused {
            pause(tries);
        }
        waiting = again;
    }
    Ok(())
}
