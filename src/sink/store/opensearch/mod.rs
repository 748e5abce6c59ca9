//! OpenSearch and Elasticsearch. Nothing that this program asks of them differs, so only the URL tells them
//! apart.
//!
//! `…+https://` verifies the server's certificate and name. It trusts the authorities that this machine trusts, or
//! those in the file of `?ca=FILE`. `…+http://` refuses to send a password to another machine.
//!
//! These servers have no transactions. So a row's id names its record, and each row is stored at most once, whoever stores
//! it. The positions follow, by a conditional update of their own documents. If a run dies in between, the next run stores
//! the same rows again, which changes nothing.

mod ends;
mod http;
mod positions;
mod rows;

use std::collections::HashMap;

use serde_json::{Value, json};

use self::http::Http;
use self::positions::{PositionDocument, Positions};
use super::summary::{SAMPLE, repeating};
use super::{Advance, Compared, Lack, Span, Store, TopicOf, TopicSummary, now_ms};
use crate::base::error::{Error, Result};
use crate::base::url::Url;
use crate::kafka::watermarks::Watermarks;

pub(super) struct OpenSearch {
    http: Http,
    /// The prefix of the indices' names.
    prefix: String,
    positions: Positions,
}

impl OpenSearch {
    pub(super) fn open(url: &Url<'_>) -> Result<OpenSearch> {
        let prefix = match url.path.trim_matches('/') {
            "" => "replicator",
            prefix => prefix,
        };
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        if !prefix.starts_with(|c: char| c.is_ascii_alphanumeric()) || !prefix.chars().all(is_plain) {
            return Err(Error::usage(
                "--store …+https://HOST:PORT/PREFIX: the prefix of the indices may have only lower-case letters, \
                 digits, hyphens and underscores"
                    .to_owned(),
            ));
        }
        let store = OpenSearch {
            http: Http::new(url)?,
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
                    "records": long, "owner": keyword, "bootstrap_server": keyword, "since_ms": long,
                }}
            }),
        )?;
        store.create("ends", &ends::mapping())?;
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
        self.http.search(&self.index(what), query)
    }
}

/// The filter for a topic's records.
fn filter(topic_id: &str, start_ms: i64, end_ms: i64) -> Value {
    json!({"bool": {"filter": [
        {"term": {"topic_id": topic_id}}, {"range": {"time_ms": {"gte": start_ms, "lt": end_ms}}},
    ]}})
}

fn hits(answer: &Value) -> Result<&[Value]> {
    let hits = answer["hits"]["hits"].as_array();
    hits.map(Vec::as_slice).ok_or_else(|| Error::failed("the store answered without the hits"))
}

/// The buckets of the aggregation `all`. The list may be empty, but a whole answer always has it.
fn aggregated(answer: &Value) -> Result<&[Value]> {
    let buckets = answer["aggregations"]["all"]["buckets"].as_array();
    buckets.map(Vec::as_slice).ok_or_else(|| Error::failed("the store answered without the buckets"))
}

fn buckets(answer: &Value) -> Result<impl Iterator<Item = (&Value, u64)>> {
    let count = |bucket: &Value| bucket["doc_count"].as_u64();
    let buckets = aggregated(answer)?;
    if buckets.iter().any(|bucket| count(bucket).is_none()) {
        return Err(Error::failed("the store answered a bucket without a count"));
    }
    Ok(buckets.iter().map(move |bucket| (&bucket["key"], count(bucket).unwrap_or(0))))
}

/// A regular expression of Lucene that matches exactly `text`.
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

    fn write(&mut self, batch: Advance<'_>) -> Result<()> {
        rows::store(&self.http, &self.index("records"), batch.topic, batch.rows)?;
        self.positions.advance(&self.http, batch)
    }

    fn keep_watermarks(
        &mut self,
        topic: TopicOf<'_>,
        watermarks: &[Watermarks],
        as_of_ms: i64,
    ) -> Result<()> {
        ends::keep(&self.http, &self.prefix, topic, watermarks, as_of_ms)
    }

    fn ping(&mut self) -> Result<()> {
        self.http.call("HEAD", &self.index("positions"), "", &[]).map(drop)
    }

    fn topics(&mut self) -> Result<Vec<TopicSummary>> {
        let mut topics = self.positions.by_topic(&self.http)?;
        // This keeps topics of one name in their order.
        topics.sort_by(|a, b| a[0].topic.cmp(&b[0].topic));
        // Refresh after reading the positions, so that the searches below find every record that these count.
        self.http.refresh(&self.index("records"))?;
        let mut summaries = Vec::new();
        for positions in topics {
            let PositionDocument { topic, topic_id, bootstrap_server, .. } = positions[0].clone();
            let aggregations =
                json!({"first": {"min": {"field": "time_ms"}}, "last": {"max": {"field": "time_ms"}}});
            let filter = json!({"term": {"topic_id": topic_id}});
            let answer =
                self.search("records", &json!({"size": 0, "query": filter, "aggs": aggregations}))?;
            #[expect(clippy::cast_possible_truncation, reason = "aggregations are doubles, of whole numbers")]
            let edge = |name: &str| answer["aggregations"][name]["value"].as_f64().map(|ms| ms as i64);
            let records = positions.iter().map(|position| position.records).sum();
            let ends = ends::of(&self.http, &self.prefix, &positions)?;
            let (first_ms, last_ms) = (edge("first"), edge("last"));
            summaries.push(TopicSummary {
                topic,
                topic_id,
                bootstrap_server,
                records,
                first_ms,
                last_ms,
                ends,
            });
        }
        Ok(summaries)
    }

    fn timeline(&mut self, topic_id: &str, span: Span) -> Result<Vec<(i64, u64)>> {
        let bucket = span.bucket_ms.max(1);
        let histogram = json!({"field": "time_ms", "interval": bucket, "offset": span.start_ms.rem_euclid(bucket),
            "min_doc_count": 1});
        let answer = self.search(
            "records",
            &json!({"size": 0, "query": filter(topic_id, span.start_ms, span.end_ms),
                "aggs": {"all": {"histogram": histogram}}}),
        )?;
        #[expect(clippy::cast_possible_truncation, reason = "keys are doubles, of whole numbers")]
        Ok(buckets(&answer)?.filter_map(|(key, count)| Some((key.as_f64()? as i64, count))).collect())
    }

    fn fields(&mut self, topic_id: &str) -> Result<Vec<String>> {
        let mut query = filter(topic_id, i64::MIN, i64::MAX);
        if let Some(filter) = query["bool"]["filter"].as_array_mut() {
            filter.push(json!({"exists": {"field": "facets"}}));
        }
        let sort = json!([{"time_ms": "desc"}]);
        let answer = self.search(
            "records",
            &json!({"size": SAMPLE, "query": query, "sort": sort, "_source": ["facets"]}),
        )?;
        let facets = hits(&answer)?.iter().filter_map(|hit| hit["_source"]["facets"].as_array()).flatten();
        let pairs = facets.filter_map(|facet| facet.as_str()?.split_once('='));
        Ok(repeating(pairs.map(|(name, value)| (name.to_owned(), value.to_owned()))))
    }

    fn top(
        &mut self,
        topic_id: &str,
        field: &str,
        start_ms: i64,
        end_ms: i64,
        limit: usize,
    ) -> Result<Vec<(String, u64)>> {
        // The field is too long for the server's regular expressions, or it is not a facet.
        if field.len() > 400 || field.contains('=') || limit == 0 {
            return Ok(Vec::new());
        }
        // Without the parentheses, OpenSearch 2.19 fails with an IndexOutOfBoundsException if the prefix comes after
        // the last term.
        let terms = json!({"field": "facets", "include": format!("{}=(.*)", literal(field)), "size": limit});
        let answer = self.search(
            "records",
            &json!({"size": 0, "query": filter(topic_id, start_ms, end_ms), "aggs": {"all": {"terms": terms}}}),
        )?;
        let value = |facet: &str| facet.split_once('=').map(|(_, value)| value.to_owned());
        Ok(buckets(&answer)?.filter_map(|(facet, count)| Some((value(facet.as_str()?)?, count))).collect())
    }

    fn partitions(&mut self, topic_id: &str, start_ms: i64, end_ms: i64) -> Result<Vec<(i32, u64)>> {
        let terms = json!({"field": "partition", "size": 10_000, "order": {"_key": "asc"}});
        let answer = self.search(
            "records",
            &json!({"size": 0, "query": filter(topic_id, start_ms, end_ms), "aggs": {"all": {"terms": terms}}}),
        )?;
        let partition = |key: &Value| key.as_i64().and_then(|key| i32::try_from(key).ok());
        Ok(buckets(&answer)?.filter_map(|(key, count)| Some((partition(key)?, count))).collect())
    }

    fn lacks(&mut self, topic_id: &str, other_id: &str, span: Span) -> Result<Vec<Lack>> {
        let there: HashMap<i64, u64> = self.timeline(other_id, span)?.into_iter().collect();
        let lack = |(start_ms, count): (i64, u64)| Lack {
            start_ms,
            partition: None,
            records: count.saturating_sub(there.get(&start_ms).copied().unwrap_or(0)),
            further: 0,
            first_ms: start_ms,
            last_ms: start_ms.saturating_add(span.bucket_ms.max(1)) - 1,
        };
        let here = self.timeline(topic_id, span)?.into_iter();
        Ok(here.map(lack).filter(|lack| lack.records > 0).collect())
    }

    fn hold(&mut self) -> Result<()> {
        Ok(())
    }

    fn release(&mut self) -> Result<()> {
        Ok(())
    }

    fn compared(&self) -> Compared {
        Compared::Counts
    }

    fn receipts(&mut self, limit: usize) -> Result<Vec<Value>> {
        let sort = json!([{"at_ms": "desc"}]);
        let answer = self.search("receipts", &json!({"size": limit.min(10000), "sort": sort}))?;
        Ok(hits(&answer)?.iter().map(|hit| hit["_source"]["receipt"].clone()).collect())
    }

    fn keep_receipt(&mut self, run: &str, receipt: &Value) -> Result<()> {
        let document = json!({"at_ms": now_ms(), "receipt": receipt});
        let path = format!("{}/_doc/{run}?refresh=true", self.index("receipts"));
        self.http.keep("PUT", &path, &document)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// A server that answers each search with `search`, and everything else with success. It ends with the process.
    fn server(search: &'static str) -> String {
        answering(search, r#"{"_shards":{"total":1,"successful":1,"failed":0}}"#)
    }

    /// A server that answers each search with `search`, and everything else with `rest`. It ends with the process.
    fn answering(search: &'static str, rest: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let place = listener.local_addr().expect("an address").to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut reader = BufReader::new(stream.try_clone().expect("cloned"));
                let (mut first, mut length) = (String::new(), 0);
                reader.read_line(&mut first).expect("a request");
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).expect("a header");
                    if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().expect("a length");
                    }
                    if line.trim().is_empty() {
                        break;
                    }
                }
                reader.read_exact(&mut vec![0; length]).expect("a body");
                let body = if first.contains("_search") { search } else { rest };
                let body = if first.starts_with("HEAD") { "" } else { body };
                let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}", body.len());
                write!(stream, "{head}\r\n\r\n{body}").expect("answered");
            }
        });
        place
    }

    #[test]
    fn an_answer_of_a_part_is_none() {
        let of = |answer| {
            let url = format!("opensearch+http://{}", server(answer));
            OpenSearch::open(&Url::parse(&url).expect("a URL")).expect("opens").topics()
        };
        let whole = r#"{"timed_out":false,"_shards":{"failed":0},"hits":{"hits":[]}}"#;
        assert_eq!(of(whole).expect("topics"), []);
        for (part, says) in [
            (
                r#"{"timed_out":false,"_shards":{"failed":1,"failures":[{"reason":{"reason":"full"}}]},"hits":{"hits":[]}}"#,
                "full",
            ),
            (r#"{"timed_out":true,"_shards":{"failed":0},"hits":{"hits":[]}}"#, "too long"),
            (r#"{"timed_out":false,"_shards":{"failed":0}}"#, "without the hits"),
            ("{}", "shards"),
        ] {
            let told = of(part).expect_err(part).to_string();
            assert!(told.contains(says), "{told}");
        }
    }

    #[test]
    fn a_page_that_greets_everybody_keeps_nothing() {
        for page in ["<html>please log in</html>", "{}", r#"{"result":"noop"}"#] {
            let url = format!("elasticsearch+http://{}", answering(page, page));
            let mut store = OpenSearch::open(&Url::parse(&url).expect("a URL")).expect("opens");
            let of = TopicOf { name: "t", id: "i", bootstrap: "b" };
            for kept in [store.keep_receipt("0", &json!({})), store.keep_watermarks(of, &[], 0)] {
                let told = kept.expect_err(page).to_string();
                assert!(told.contains("did not say that it kept"), "{told}");
            }
        }
    }
}
