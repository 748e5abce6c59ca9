//! Keeps the position of each partition in a document of its own. A document is changed only if nobody else has changed
//! it meanwhile.

use std::collections::HashMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::hits;
use super::http::{Http, TRIES, is_busy, pause};
use crate::base::error::{Error, Result};
use crate::base::range::{id, index};
use crate::sink::store::{Advance, TopicOf, fenced, new_owner, now_ms};

pub(super) struct Positions {
    index: String,
    owner: String,
    /// The positions of the topics that this run took over, by the ids of their documents.
    taken: HashMap<String, Place>,
}

/// The position of a partition, as in its document.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PositionDocument {
    pub topic_id: String,
    pub topic: String,
    /// Earlier versions did not store it.
    #[serde(default)]
    pub bootstrap_server: Option<String>,
    pub partition: i32,
    pub next_offset: i64,
    pub records: u64,
    owner: String,
    since_ms: i64,
}

/// A document and its version.
#[derive(Clone, Debug)]
struct Place {
    position: PositionDocument,
    sequence: u64,
    term: u64,
}

impl Positions {
    pub(super) fn new(index: String) -> Result<Positions> {
        Ok(Positions { index, owner: new_owner()?, taken: HashMap::new() })
    }

    /// As [`Store::resume`](crate::sink::store::Store::resume).
    pub(super) fn resume(&mut self, http: &Http, topic: TopicOf<'_>, starts: &[i64]) -> Result<Vec<i64>> {
        let is_ours = self.taken.contains_key(&position_id(topic.id, 0));
        for tries in 0.. {
            let mut changes = Vec::new();
            for (partition, before) in self.places(http, topic, starts.len())?.into_iter().enumerate() {
                let after = match &before {
                    // An earlier try of this call may have taken the position without getting an answer.
                    Some(place) if place.position.owner == self.owner => {
                        self.taken.insert(position_id(topic.id, id(partition)), place.clone());
                        continue;
                    }
                    Some(_) if is_ours => return Err(fenced(topic.name)),
                    Some(place) => place.position.clone(),
                    None => PositionDocument {
                        topic_id: topic.id.to_owned(),
                        topic: topic.name.to_owned(),
                        bootstrap_server: None,
                        partition: id(partition),
                        next_offset: starts[partition],
                        records: 0,
                        owner: String::new(),
                        since_ms: 0,
                    },
                };
                let (owner, bootstrap_server) = (self.owner.clone(), Some(topic.bootstrap.to_owned()));
                let after = PositionDocument { owner, bootstrap_server, since_ms: now_ms(), ..after };
                changes.push((before, after));
            }
            // If another run moved a position or took over meanwhile, read the positions again.
            if self.exchange(http, changes, true)?.iter().all(|stored| *stored) {
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

    /// Moves the positions. The rows must be stored before.
    pub(super) fn advance(&mut self, http: &Http, batch: Advance<'_>) -> Result<()> {
        let topic = batch.topic;
        let mut changes = Vec::with_capacity(batch.moves.len());
        for moved in batch.moves {
            let place = self.taken.get(&position_id(topic.id, moved.partition));
            let Some(place) = place.filter(|place| place.position.next_offset == moved.from) else {
                return Err(fenced(topic.name));
            };
            let rows = batch.rows.iter().filter(|row| row.partition == moved.partition).count() as u64;
            let records = place.position.records + rows;
            let after = PositionDocument { next_offset: moved.to, records, ..place.position.clone() };
            changes.push((Some(place.clone()), after));
        }
        let stored = self.exchange(http, changes, false)?;
        if stored.iter().all(|stored| *stored) {
            return Ok(());
        }
        // An earlier try may have done it, although the server was too busy to say so.
        let now =
            self.places(http, topic, batch.moves.iter().map(|m| index(m.partition) + 1).max().unwrap_or(0))?;
        for moved in batch.moves {
            let place = now.get(index(moved.partition)).cloned().flatten();
            match place.filter(|p| p.position.owner == self.owner && p.position.next_offset == moved.to) {
                Some(place) => drop(self.taken.insert(position_id(topic.id, moved.partition), place)),
                None => return Err(fenced(topic.name)),
            }
        }
        Ok(())
    }

    /// Reads the documents of a topic's positions.
    fn places(&self, http: &Http, topic: TopicOf<'_>, partitions: usize) -> Result<Vec<Option<Place>>> {
        let ids: Vec<String> =
            (0..partitions).map(|partition| position_id(topic.id, id(partition))).collect();
        let path = format!("{}/_mget", self.index);
        let (_, answer) = http.call("POST", &path, &json!({"ids": ids}).to_string(), &[])?;
        let documents = answer["docs"].as_array().map_or(&[][..], Vec::as_slice);
        if documents.len() != partitions {
            return Err(Error::failed(format!(
                "the store answered for {} of {partitions} positions",
                documents.len()
            )));
        }
        documents.iter().map(place).collect()
    }

    /// Stores each position if its document has not changed (`None`: if there is no document). Returns which were stored.
    fn exchange(
        &mut self,
        http: &Http,
        changes: Vec<(Option<Place>, PositionDocument)>,
        refresh: bool,
    ) -> Result<Vec<bool>> {
        let path = format!("{}/_bulk?refresh={refresh}", self.index);
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
            let (_, answer) = http.call("POST", &path, &body, &[])?;
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
                        return Err(Error::failed(format!(
                            "the store answered {status} for the position of {}-{}: {}",
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

    /// The positions of each topic. The topic that a sink took over last is the first.
    pub(super) fn by_topic(&self, http: &Http) -> Result<Vec<Vec<PositionDocument>>> {
        /// The largest answer that the server gives by default, in documents.
        const PAGE: usize = 10_000;
        http.refresh(&self.index)?;
        let mut topics: Vec<Vec<PositionDocument>> = Vec::new();
        let sort = json!([{"since_ms": "desc"}, {"topic_id": "asc"}, {"partition": "asc"}]);
        let mut query = json!({"size": PAGE, "sort": sort});
        loop {
            let answer = http.search(&self.index, &query)?;
            let hits = hits(&answer)?;
            for hit in hits {
                let position =
                    PositionDocument::deserialize(&hit["_source"]).map_err(|e| Error::io("a position", e))?;
                match topics.iter_mut().find(|topic| topic[0].topic_id == position.topic_id) {
                    Some(topic) => topic.push(position),
                    None => topics.push(vec![position]),
                }
            }
            match hits.last() {
                Some(last) if hits.len() == PAGE => query["search_after"] = last["sort"].clone(),
                _ => break,
            }
        }
        Ok(topics)
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
        return Err(Error::failed(format!("the store did not give a position: {}", error["reason"])));
    }
    if document["found"] != true {
        return Ok(None);
    }
    let position =
        PositionDocument::deserialize(&document["_source"]).map_err(|e| Error::io("a position", e))?;
    let (sequence, term) = version(document)
        .ok_or_else(|| Error::failed("the store gave no version of a position".to_owned()))?;
    Ok(Some(Place { position, sequence, term }))
}
