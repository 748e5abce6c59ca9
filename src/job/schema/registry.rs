//! Asks a Schema Registry for schemas, each once: a schema never changes under its id. But one may come, so "no such
//! schema" is asked again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{Schema, Source};
use crate::base::error::{Error, Reason, Result};
use crate::base::http::Server;
use crate::base::url::{Url, advice, shown};

pub(super) const OPTION: &str = "--schema-registry";
pub(super) const VARIABLE: &str = "REPLICATOR_SCHEMA_REGISTRY";
/// The longest time for an answer, and how often a question is asked. Ctrl-C waits for all of it.
const TIMEOUT: Duration = Duration::from_secs(5);
const TRIES: u32 = 3;
/// The longest answer, in bytes.
const LONGEST: u64 = 16 << 20;
/// How long "no such schema" holds.
const UNKNOWN: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(200);
/// How many schemas are kept. Values that are no such values at all could name any number of them.
const KEPT: usize = 10_000;

/// A schema, or why there is none to read values by.
type Known = Arc<std::result::Result<Schema, String>>;

/// The parts of a registry's URL.
///
/// # Errors
/// [`Error::Usage`] if it is no such URL.
pub(super) fn parse(url: &str) -> Result<Url<'_>> {
    // The message does not repeat the URL, which may hold a password.
    let wrong =
        |why: &str| Error::usage(format!("{OPTION} takes https://HOST:PORT or http://HOST:PORT{why}"));
    let Some(parts) = Url::parse(url) else {
        return Err(wrong(advice(url)));
    };
    let is_one =
        matches!(parts.scheme, "http" | "https") && !parts.hosts.is_empty() && !parts.hosts.contains(',');
    if is_one { Ok(parts) } else { Err(wrong("")) }
}

pub(super) struct Registry {
    server: Server,
    /// The path of the API, without a slash at its end.
    path: String,
    url: String,
    has_password: bool,
    /// With the time until which it holds, if it may change.
    known: Mutex<HashMap<u32, (Known, Option<Instant>)>>,
}

impl Registry {
    pub(super) fn new(url: &str) -> Result<Registry> {
        let parts = parse(url)?;
        Ok(Registry {
            server: Server::new(&parts, OPTION, TIMEOUT, LONGEST)?,
            path: parts.path.trim_end_matches('/').to_owned(),
            url: url.to_owned(),
            has_password: parts.has_password(),
            known: Mutex::default(),
        })
    }

    pub(super) fn shown(&self) -> String {
        shown(&self.url)
    }

    pub(super) fn flag(&self) -> Option<&str> {
        (!self.has_password).then_some(self.url.as_str())
    }

    /// The schema with this id, or why values cannot be read by it.
    ///
    /// # Errors
    /// As [`super::Schemas::json`].
    pub(super) fn schema(&self, id: u32) -> Result<Known> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((schema, until)) = known().get(&id)
            && until.is_none_or(|until| Instant::now() < until)
        {
            return Ok(schema.clone());
        }
        // Several threads may ask for the same schema. That does no harm.
        let source = self.source(id)?;
        let until = source.is_err().then(|| Instant::now() + UNKNOWN);
        let schema = Arc::new(source.and_then(|source| {
            tracing::debug!("schema {id} of {} is of type {}", self.shown(), source.kind);
            Schema::parse(&source).map_err(|why| format!("schema {id} cannot be used: {why}"))
        }));
        let mut known = known();
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(id, (schema.clone(), until));
        Ok(schema)
    }

    /// The schema with this id and all that it refers to. The inner error says which of them the registry does not know.
    fn source(&self, id: u32) -> Result<std::result::Result<Source, String>> {
        let path = format!("/schemas/ids/{id}");
        let Some(answer) = self.get(&path)? else {
            return Ok(Err(format!("the registry knows no schema {id}")));
        };
        let mut references = BTreeMap::new();
        let mut wanted = vec![answer.clone()];
        while let Some(of) = wanted.pop() {
            for reference in of["references"].as_array().into_iter().flatten() {
                let (name, subject) = (&reference["name"], &reference["subject"]);
                let (Some(name), Some(subject)) = (name.as_str(), subject.as_str()) else {
                    return Err(self.not_a_registry(&path, "a reference without a name or a subject"));
                };
                if references.contains_key(name) {
                    continue;
                }
                let subject = utf8_percent_encode(subject, NON_ALPHANUMERIC);
                let path = format!("/subjects/{subject}/versions/{}?deleted=true", reference["version"]);
                let Some(answer) = self.get(&path)? else {
                    return Ok(Err(format!(
                        "schema {id} cannot be used: it refers to {name}, which the registry does not know"
                    )));
                };
                references.insert(name.to_owned(), self.text(&path, &answer)?);
                wanted.push(answer);
            }
        }
        let kind = answer["schemaType"].as_str().unwrap_or("AVRO").to_owned();
        let text = self.text(&path, &answer)?;
        Ok(Ok(Source { kind, text, references: references.into_iter().collect() }))
    }

    fn text(&self, path: &str, answer: &Value) -> Result<String> {
        let text = answer["schema"].as_str().map(str::to_owned);
        text.ok_or_else(|| self.not_a_registry(path, "an answer without a schema"))
    }

    /// The answer to a question; `None` if the registry says, in its own words, that it has no such thing. A bare 404
    /// may come from any server.
    fn get(&self, path: &str) -> Result<Option<Value>> {
        let mut tries = 1;
        let (status, text) = loop {
            let why = match self.server.ask("GET", &format!("{}{path}", self.path), CONTENT_TYPE, "") {
                Ok((status @ (429 | 500..), _)) => format!("{} answered {status}", self.shown()),
                Ok(answer) => break answer,
                Err(why) => why,
            };
            if tries == TRIES {
                let told = format!("the Schema Registry: {why}");
                return Err(Error::restart(told).because(Reason::SchemaRegistry));
            }
            std::thread::sleep(PAUSE * tries);
            tries += 1;
        };
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        match (status, answer["error_code"].as_u64()) {
            (200, _) => Ok(Some(answer)),
            (404, Some(40401..=40403)) => Ok(None),
            (401 | 403, _) => Err(Error::refused(format!(
                "the Schema Registry {} answered {status} to {path}; name a user who may read schemas, as \
                 https://USER:PASSWORD@… in {VARIABLE}",
                self.shown()
            ))
            .because(Reason::NoPermission)),
            _ => Err(self.not_a_registry(path, &format!("status {status}"))),
        }
    }

    fn not_a_registry(&self, path: &str, answered: &str) -> Error {
        Error::refused(format!(
            "{} answered {path} with {answered}, which no Schema Registry does; {OPTION} names the place of its API, as \
             in http://HOST:8081, or http://HOST:8080/apis/ccompat/v7 for Apicurio",
            self.shown()
        ))
        .because(Reason::SchemaRegistry)
    }
}

const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";
