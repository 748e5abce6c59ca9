//! Sends JSON over HTTP to one node.

use std::time::Duration;

use serde_json::Value;

use crate::base::error::{Error, Result};
use crate::base::http::Server;
use crate::base::url::Url;

pub(super) struct Http {
    server: Server,
    /// `opensearch` or `elasticsearch`, as in the URL.
    product: String,
}

/// How often a request is repeated while the server is too busy.
pub(super) const TRIES: u32 = 9;
/// The first pause between two tries.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest time for an answer.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The longest answer, in bytes.
const LONGEST: u64 = 1 << 30;

/// Whether the server says that it has too much to do.
pub(super) fn is_busy(status: u64) -> bool {
    matches!(status, 429 | 502 | 503 | 504)
}

/// Waits before the next try. Each pause is longer than the one before: 51 s in all.
pub(super) fn pause(tries: u32) {
    std::thread::sleep(PAUSE * 2_u32.pow(tries.min(8)));
}

impl Http {
    /// # Errors
    /// As [`Server::new`].
    pub(super) fn new(url: &Url<'_>) -> Result<Http> {
        let product = url.scheme.split('+').next().unwrap_or_default().to_owned();
        Ok(Http { server: Server::new(url, "--store", TIMEOUT, LONGEST)?, product })
    }

    /// Sends a request, and repeats it while the server is too busy. So it must be safe to do the request twice.
    ///
    /// # Errors
    /// [`Error::Failed`] if there is no answer, or its status is neither 2xx nor one of `also`.
    pub(super) fn call(&self, method: &str, path: &str, body: &str, also: &[u64]) -> Result<(u64, Value)> {
        for tries in 0.. {
            let (status, answer) = self.once(method, path, body)?;
            if is_busy(status) && tries < TRIES {
                pause(tries);
                continue;
            }
            if (200..300).contains(&status) || also.contains(&status) {
                return Ok((status, answer));
            }
            let reasons =
                ["/error/root_cause/0/reason", "/error/caused_by/reason", "/error/reason", "/error"];
            let reason = reasons.iter().find_map(|at| answer.pointer(at)).unwrap_or(&answer);
            let fix = if status == 401 || status == 403 {
                let how = format!("{}+https://USER:PASSWORD@… in REPLICATOR_STORE", self.product);
                format!("; name a user who has the rights, as {how}")
            } else {
                String::new()
            };
            return Err(Error::failed(format!("the store: {path} answered {status}: {reason}{fix}")));
        }
        unreachable!("the loop ends by itself")
    }

    /// Searches the whole index. Without these checks, the server silently leaves out a shard that fails or is late.
    ///
    /// # Errors
    /// As [`Http::call`], and [`Error::Failed`] if the answer is from a part of the index.
    pub(super) fn search(&self, index: &str, query: &Value) -> Result<Value> {
        let path = format!("{index}/_search?allow_partial_search_results=false");
        let (_, answer) = self.call("POST", &path, &query.to_string(), &[])?;
        whole(&path, &answer)?;
        if answer["timed_out"] != false {
            return Err(Error::failed(format!("the store: {path} took too long")));
        }
        Ok(answer)
    }

    /// Keeps a document. Something else than the store may answer 200 to everything, so the answer must say it.
    ///
    /// # Errors
    /// As [`Http::call`], and [`Error::Failed`] if the answer does not say that the document is kept.
    pub(super) fn keep(&self, method: &str, path: &str, document: &Value) -> Result<()> {
        let (_, answer) = self.call(method, path, &document.to_string(), &[])?;
        if answer["result"] == "created" || answer["result"] == "updated" {
            return Ok(());
        }
        Err(Error::failed(format!(
            "the store: the answer of {path} did not say that it kept the document; check that the URL names the store"
        )))
    }

    /// Makes searches find everything that was stored before this call.
    ///
    /// # Errors
    /// As [`Http::search`].
    pub(super) fn refresh(&self, index: &str) -> Result<()> {
        let path = format!("{index}/_refresh");
        whole(&path, &self.call("POST", &path, "", &[])?.1)
    }

    fn once(&self, method: &str, path: &str, body: &str) -> Result<(u64, Value)> {
        let kind = if path.contains("_bulk") { "application/x-ndjson" } else { "application/json" };
        let answer = self.server.ask(method, &format!("/{path}"), kind, body);
        let (status, text) = answer.map_err(|why| Error::failed(format!("the store: {why}")))?;
        Ok((u64::from(status), serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }
}

fn whole(path: &str, answer: &Value) -> Result<()> {
    match answer["_shards"]["failed"].as_u64() {
        Some(0) => Ok(()),
        failed => Err(Error::failed(format!(
            "the store: {path} was answered without {} of its shards: {}",
            failed.map_or("some".to_owned(), |failed| failed.to_string()),
            answer["_shards"]["failures"][0]["reason"]["reason"]
        ))),
    }
}
