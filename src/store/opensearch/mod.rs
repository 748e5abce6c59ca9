//! OpenSearch, or what speaks its bulk API, over HTTP without TLS.
//!
//! It has no transactions. So rows are stored under ids that say which record they are, each at most once
//! whoever stores it, and the positions after them, by a conditional update of a document of their own: a
//! run that dies in between stores the same rows again, which changes nothing.

mod http;
mod rows;

use std::collections::HashMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::http::{Http, TRIES, is_busy, pause};
use super::summary::{SAMPLE, repeating};
use super::{Batch, Span, Store, TopicOf, TopicSummary, fenced, new_owner, now_ms};
use crate::error::{Error, Result};
use crate::range::id;

pub struct OpenSearch {
    http: Http,
    /// Of the indices' names.
    prefix: String,
    owner: String,
    /// The positions of the topics that this run took over, by their documents' ids.
    taken: HashMap<String, Place>,
}

/// The position of a partition, as its document has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Position {
    topic_id: String,
    topic: String,
    partition: i32,
    next_offset: i64,
    records: u64,
    owner: String,
    since_ms: i64,
}

/// A document and the version that it is of.
#[derive(Clone, Debug)]
struct Place {
    position: Position,
    sequence: u64,
    term: u64,
}

impl OpenSearch {
    /// `place` is `[user:password@]host[:port][/prefix]`.
    pub fn open(place: &str) -> Result<OpenSearch> {
        let (authority, prefix) = place.split_once('/').unwrap_or((place, ""));
        let prefix = match prefix.trim_end_matches('/') {
            "" => "replicator",
            prefix => prefix,
        };
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        if !prefix.starts_with(|c: char| c.is_ascii_alphanumeric()) || !prefix.chars().all(is_plain) {
            return Err(Error::Usage(
                "--store opensearch+http://HOST:PORT/PREFIX: a prefix of indices has lower-case letters, digits, \
                 hyphens and underscores only"
                    .to_owned(),
            ));
        }
        let store = OpenSearch {
            http: Http::new(authority),
            prefix: prefix.to_owned(),
            owner: new_owner()?,
            taken: HashMap::new(),
        };
        let (long, keyword) = (json!({"type": "long"}), json!({"type": "keyword"}));
        store.create("records", &rows::mapping())?;
        store.create(
            "positions",
            &json!({
                "settings": {"index": {"number_of_shards": 1, "auto_expand_replicas": "0-1"}},
                "mappings": {"dynamic": false, "properties": {
                    "topic_id": keyword, "topic": keyword, "partition": long, "next_offset": long,
                    "records": long, "owner": keyword, "since_ms": long,
                }}
            }),
        )?;
        store.create(
            "receipts",
            &json!({
                "settings": {"index": {"number_of_shards": 1, "auto_expand_replicas": "0-1"}},
                "mappings": {"dynamic": false, "properties": {
                    "at_ms": long, "receipt": {"type": "object", "enabled": false},
                }}
            }),
        )?;
        Ok(store)
    }

    fn index(&self, what: &str) -> String {
        format!("{}-{what}", self.prefix)
    }

    fn create(&self, what: &str, definition: &Value) -> Result<()> {
        let index = self.index(what);
        if self.http.call("HEAD", &index, "", &[404])?.0 != 404 {
            return Ok(());
        }
        let (status, answer) = self.http.call("PUT", &index, &definition.to_string(), &[400])?;
        if status == 400 && answer["error"]["type"] != "resource_already_exists_exception" {
            return Err(Error::Failed(format!("the index {index}: {}", answer["error"]["reason"])));
        }
        Ok(())
    }

    fn search(&self, what: &str, query: &Value) -> Result<Value> {
        Ok(self.http.call("POST", &format!("{}/_search", self.index(what)), &query.to_string(), &[])?.1)
    }

    /// The documents of a topic's positions, as they are now.
    fn places(&self, topic: TopicOf<'_>, partitions: usize) -> Result<Vec<Option<Place>>> {
        let ids: Vec<String> =
            (0..partitions).map(|partition| position_id(topic.id, id(partition))).collect();
        let path = format!("{}/_mget", self.index("positions"));
        let (_, answer) = self.http.call("POST", &path, &json!({"ids": ids}).to_string(), &[])?;
        let documents = answer["docs"].as_array().map_or(&[][..], Vec::as_slice);
        if documents.len() != partitions {
            return Err(Error::Failed(format!(
                "OpenSearch answered for {} of {partitions} positions",
                documents.len()
            )));
        }
        documents.iter().map(place).collect()
    }

    /// Stores positions, each if its document is still as it was (`None`: not there). Returns which were.
    fn exchange(&mut self, changes: Vec<(Option<Place>, Position)>, refresh: bool) -> Result<Vec<bool>> {
        let path = format!("{}/_bulk?refresh={refresh}", self.index("positions"));
        let mut stored = vec![false; changes.len()];
        let mut waiting: Vec<usize> = (0..changes.len()).collect();
        for tries in 0.. {
            let mut body = String::new();
            for change in &waiting {
                let (before, after) = &changes[*change];
                let id = position_id(&after.topic_id, after.partition);
                let action = match before {
                    None => json!({"create": {"_id": id}}),
                    Some(Place { sequence, term, .. }) => {
                        json!({"index": {"_id": id, "if_seq_no": sequence, "if_primary_term": term}})
                    }
                };
                let _ = writeln!(body, "{action}\n{}", json!(after));
            }
            let (_, answer) = self.http.call("POST", &path, &body, &[])?;
            let mut again = Vec::new();
            for (number, change) in waiting.iter().enumerate() {
                let item = &answer["items"][number];
                let item = item.get("index").or(item.get("create")).unwrap_or(&Value::Null);
                let after = &changes[*change].1;
                match (item["status"].as_u64().unwrap_or(0), version(item)) {
                    (200 | 201, Some((sequence, term))) => {
                        let id = position_id(&after.topic_id, after.partition);
                        self.taken.insert(id, Place { position: after.clone(), sequence, term });
                        stored[*change] = true;
                    }
                    (409, _) => {}
                    (status, _) if is_busy(status) && tries < TRIES => again.push(*change),
                    (status, _) => {
                        return Err(Error::Failed(format!(
                            "OpenSearch answered {status} for the position of {}-{}: {}",
                            after.topic, after.partition, item["error"]["reason"]
                        )));
                    }
                }
            }
            if again.is_empty() {
                break;
            }
            pause(tries);
            waiting = again;
        }
        Ok(stored)
    }

    /// All positions, by topic; of several topics of a name, the one that was sunk last.
    fn current(&self) -> Result<HashMap<String, Vec<Position>>> {
        let _ = self.http.call("POST", &format!("{}/_refresh", self.index("positions")), "", &[])?;
        let answer = self.search("positions", &json!({"size": 10000, "sort": [{"since_ms": "desc"}]}))?;
        let mut topics: HashMap<String, Vec<Position>> = HashMap::new();
        for hit in hits(&answer) {
            let position = Position::deserialize(&hit["_source"]).map_err(|e| Error::io("a position", e))?;
            let topic = topics.entry(position.topic.clone()).or_default();
            if topic.first().is_none_or(|first| first.topic_id == position.topic_id) {
                topic.push(position);
            }
        }
        Ok(topics)
    }

    /// The filter of a topic's records; of none where it was never sunk.
    fn filter(&self, topic: &str, start_ms: i64, end_ms: i64) -> Result<Value> {
        let current = self.current()?;
        let id = current.get(topic).and_then(|positions| positions.first()).map_or("", |p| &p.topic_id);
        Ok(json!({"bool": {"filter": [
            {"term": {"topic_id": id}}, {"range": {"time_ms": {"gte": start_ms, "lt": end_ms}}},
        ]}}))
    }
}

fn position_id(topic_id: &str, partition: i32) -> String {
    format!("{topic_id}-{partition}")
}

fn version(item: &Value) -> Option<(u64, u64)> {
    Some((item["_seq_no"].as_u64()?, item["_primary_term"].as_u64()?))
}

fn place(document: &Value) -> Result<Option<Place>> {
    if let Some(error) = document.get("error") {
        return Err(Error::Failed(format!("OpenSearch has no position to give: {}", error["reason"])));
    }
    if document["found"] != true {
        return Ok(None);
    }
    let position = Position::deserialize(&document["_source"]).map_err(|e| Error::io("a position", e))?;
    let (sequence, term) = version(document)
        .ok_or_else(|| Error::Failed("OpenSearch gave no version of a position".to_owned()))?;
    Ok(Some(Place { position, sequence, term }))
}

fn hits(answer: &Value) -> &[Value] {
    answer["hits"]["hits"].as_array().map_or(&[], Vec::as_slice)
}

fn buckets(answer: &Value) -> impl Iterator<Item = (&Value, u64)> {
    let buckets = answer["aggregations"]["all"]["buckets"].as_array().map_or(&[][..], Vec::as_slice);
    buckets.iter().map(|bucket| (&bucket["key"], bucket["doc_count"].as_u64().unwrap_or(0)))
}

/// What matches `text` itself in Lucene's regular expressions.
fn literal(text: &str) -> String {
    text.chars().fold(String::new(), |mut literal, c| {
        if c.is_ascii_punctuation() {
            literal.push('\\');
        }
        literal.push(c);
        literal
    })
}

impl Store for OpenSearch {
    fn resume(&mut self, topic: TopicOf<'_>, starts: &[i64]) -> Result<Vec<i64>> {
        let is_ours = self.taken.contains_key(&position_id(topic.id, 0));
        for tries in 0.. {
            let mut changes = Vec::new();
            for (partition, before) in self.places(topic, starts.len())?.into_iter().enumerate() {
                let after = match &before {
                    Some(Place { position, .. }) if is_ours && position.owner != self.owner => {
                        return Err(fenced(topic.name));
                    }
                    Some(Place { position, .. }) if is_ours || position.owner == self.owner => continue,
                    Some(Place { position, .. }) => position.clone(),
                    None => Position {
                        topic_id: topic.id.to_owned(),
                        topic: topic.name.to_owned(),
                        partition: id(partition),
                        next_offset: starts[partition],
                        records: 0,
                        owner: String::new(),
                        since_ms: 0,
                    },
                };
                changes.push((before, Position { owner: self.owner.clone(), since_ms: now_ms(), ..after }));
            }
            // Another run moved on, or took over, meanwhile: what stands there now is to be looked at.
            if self.exchange(changes, true)?.iter().all(|stored| *stored) {
                break;
            }
            if tries > 100 {
                return Err(fenced(topic.name));
            }
        }
        let place = |partition| self.taken.get(&position_id(topic.id, id(partition)));
        let next = |partition| place(partition).map(|place| place.position.next_offset);
        (0..starts.len()).map(|partition| next(partition).ok_or_else(|| fenced(topic.name))).collect()
    }

    fn write(&mut self, batch: Batch<'_>) -> Result<()> {
        let topic = batch.topic;
        rows::store(&self.http, &self.index("records"), topic, batch.rows)?;
        let mut changes = Vec::with_capacity(batch.moves.len());
        for moved in batch.moves {
            let place = self.taken.get(&position_id(topic.id, moved.partition));
            let Some(place) = place.filter(|place| place.position.next_offset == moved.from) else {
                return Err(fenced(topic.name));
            };
            let rows = batch.rows.iter().filter(|row| row.partition == moved.partition).count() as u64;
            let records = place.position.records + rows;
            let after = Position { next_offset: moved.to, records, ..place.position.clone() };
            changes.push((Some(place.clone()), after));
        }
        let stored = self.exchange(changes, false)?;
        if stored.iter().all(|stored| *stored) {
            return Ok(());
        }
        // A try that the server was too busy to answer may have been the one that did it.
        let now =
            self.places(topic, batch.moves.iter().map(|m| m.partition as usize + 1).max().unwrap_or(0))?;
        for moved in batch.moves {
            let place = now.get(moved.partition as usize).cloned().flatten();
            match place.filter(|p| p.position.owner == self.owner && p.position.next_offset == moved.to) {
                Some(place) => drop(self.taken.insert(position_id(topic.id, moved.partition), place)),
                None => return Err(fenced(topic.name)),
            }
        }
        Ok(())
    }

    fn topics(&mut self) -> Result<Vec<TopicSummary>> {
        let _ = self.http.call("POST", &format!("{}/_refresh", self.index("records")), "", &[])?;
        let mut summaries = Vec::new();
        for (topic, positions) in self.current()? {
            let aggregations =
                json!({"first": {"min": {"field": "time_ms"}}, "last": {"max": {"field": "time_ms"}}});
            let filter = json!({"term": {"topic_id": positions[0].topic_id}});
            let answer =
                self.search("records", &json!({"size": 0, "query": filter, "aggs": aggregations}))?;
            #[expect(clippy::cast_possible_truncation, reason = "aggregations are doubles, of whole numbers")]
            let edge = |name: &str| answer["aggregations"][name]["value"].as_f64().map(|ms| ms as i64);
            let records = positions.iter().map(|position| position.records).sum();
            summaries.push(TopicSummary { topic, records, first_ms: edge("first"), last_ms: edge("last") });
        }
        summaries.sort_by(|a, b| a.topic.cmp(&b.topic));
        Ok(summaries)
    }

    fn timeline(&mut self, topic: &str, span: Span) -> Result<Vec<(i64, u64)>> {
        let bucket = span.bucket_ms.max(1);
        let histogram = json!({"field": "time_ms", "interval": bucket, "offset": span.start_ms.rem_euclid(bucket),
            "min_doc_count": 1});
        let answer = self.search(
            "records",
            &json!({"size": 0, "query": self.filter(topic, span.start_ms, span.end_ms)?,
                "aggs": {"all": {"histogram": histogram}}}),
        )?;
        #[expect(clippy::cast_possible_truncation, reason = "keys are doubles, of whole numbers")]
        Ok(buckets(&answer).filter_map(|(key, count)| Some((key.as_f64()? as i64, count))).collect())
    }

    fn fields(&mut self, topic: &str) -> Result<Vec<String>> {
        let mut query = self.filter(topic, i64::MIN, i64::MAX)?;
        if let Some(filter) = query["bool"]["filter"].as_array_mut() {
            filter.push(json!({"exists": {"field": "facets"}}));
        }
        let sort = json!([{"time_ms": "desc"}]);
        let answer = self.search(
            "records",
            &json!({"size": SAMPLE, "query": query, "sort": sort, "_source": ["facets"]}),
        )?;
        let facets = hits(&answer).iter().flat_map(|hit| hit["_source"]["facets"].as_array()).flatten();
        let pairs = facets.filter_map(|facet| facet.as_str()?.split_once('='));
        Ok(repeating(pairs.map(|(name, value)| (name.to_owned(), value.to_owned()))))
    }

    fn top(
        &mut self,
        topic: &str,
        field: &str,
        start_ms: i64,
        end_ms: i64,
        limit: usize,
    ) -> Result<Vec<(String, u64)>> {
        // Longer than the server takes an expression to be, or no facet.
        if field.len() > 400 || field.contains('=') || limit == 0 {
            return Ok(Vec::new());
        }
        // In brackets: a plain prefix that is past the last term is an IndexOutOfBoundsException in 2.19.
        let terms = json!({"field": "facets", "include": format!("{}=(.*)", literal(field)), "size": limit});
        let answer = self.search(
            "records",
            &json!({"size": 0, "query": self.filter(topic, start_ms, end_ms)?, "aggs": {"all": {"terms": terms}}}),
        )?;
        let value = |facet: &str| facet.split_once('=').map(|(_, value)| value.to_owned());
        Ok(buckets(&answer).filter_map(|(facet, count)| Some((value(facet.as_str()?)?, count))).collect())
    }

    fn missing(&mut self, source: &str, target: &str, span: Span) -> Result<Vec<(i64, u64)>> {
        let there: HashMap<i64, u64> = self.timeline(target, span)?.into_iter().collect();
        let of_source = self.timeline(source, span)?.into_iter();
        let missing = |(bucket, count): (i64, u64)| {
            (bucket, count.saturating_sub(there.get(&bucket).copied().unwrap_or(0)))
        };
        Ok(of_source.map(missing).filter(|(_, count)| *count > 0).collect())
    }

    fn receipts(&mut self, limit: usize) -> Result<Vec<Value>> {
        let sort = json!([{"at_ms": "desc"}]);
        let answer = self.search("receipts", &json!({"size": limit.min(10000), "sort": sort}))?;
        Ok(hits(&answer).iter().map(|hit| hit["_source"]["receipt"].clone()).collect())
    }

    fn keep_receipt(&mut self, receipt: &Value) -> Result<()> {
        let document = json!({"at_ms": now_ms(), "receipt": receipt});
        let path = format!("{}/_doc?refresh=true", self.index("receipts"));
        self.http.call("POST", &path, &document.to_string(), &[]).map(drop)
    }
}
