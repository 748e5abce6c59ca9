//! OpenSearch, or what speaks its bulk API, over HTTP without TLS.
//!
//! It has no transactions. So rows are stored under ids that say which record they are, each at most once
//! whoever stores it, and the positions after them, by a conditional update of a document of their own: a
//! run that dies in between stores the same rows again, which changes nothing.

mod http;
mod positions;
mod rows;

use std::collections::HashMap;

use serde_json::{Value, json};

use self::http::Http;
use self::positions::Positions;
use super::summary::{SAMPLE, repeating};
use super::{Batch, Span, Store, TopicOf, TopicSummary, now_ms};
use crate::error::{Error, Result};

pub struct OpenSearch {
    http: Http,
    /// Of the indices' names.
    prefix: String,
    positions: Positions,
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
            return Err(Error::usage(
                "--store opensearch+http://HOST:PORT/PREFIX: a prefix of indices has lower-case letters, digits, \
                 hyphens and underscores only"
                    .to_owned(),
            ));
        }
        let store = OpenSearch {
            http: Http::new(authority),
            prefix: prefix.to_owned(),
            positions: Positions::new(format!("{prefix}-positions"))?,
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
            return Err(Error::failed(format!("the index {index}: {}", answer["error"]["reason"])));
        }
        Ok(())
    }

    fn search(&self, what: &str, query: &Value) -> Result<Value> {
        Ok(self.http.call("POST", &format!("{}/_search", self.index(what)), &query.to_string(), &[])?.1)
    }

    /// The filter of a topic's records; of none where it was never sunk.
    fn filter(&self, topic: &str, start_ms: i64, end_ms: i64) -> Result<Value> {
        let current = self.positions.current(&self.http)?;
        let id = current.get(topic).and_then(|positions| positions.first()).map_or("", |p| &p.topic_id);
        Ok(json!({"bool": {"filter": [
            {"term": {"topic_id": id}}, {"range": {"time_ms": {"gte": start_ms, "lt": end_ms}}},
        ]}}))
    }
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
        self.positions.resume(&self.http, topic, starts)
    }

    fn write(&mut self, batch: Batch<'_>) -> Result<()> {
        rows::store(&self.http, &self.index("records"), batch.topic, batch.rows)?;
        self.positions.advance(&self.http, batch)
    }

    fn topics(&mut self) -> Result<Vec<TopicSummary>> {
        let _ = self.http.call("POST", &format!("{}/_refresh", self.index("records")), "", &[])?;
        let mut summaries = Vec::new();
        for (topic, positions) in self.positions.current(&self.http)? {
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
        let facets = hits(&answer).iter().filter_map(|hit| hit["_source"]["facets"].as_array()).flatten();
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
