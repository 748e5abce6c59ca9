//! JSON over HTTP to one node.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use ureq::Agent;
use ureq::http::{Request, header};

use crate::error::{Error, Result};

pub struct Http {
    agent: Agent,
    /// `http://host:port/`
    base: String,
    authorization: Option<String>,
}

/// How often a request is made that the server is too busy for, and how long the first pause is.
pub const TRIES: u32 = 9;
const PAUSE: Duration = Duration::from_millis(100);

/// An answer that a server gives when it has too much to do.
pub fn is_busy(status: u64) -> bool {
    matches!(status, 429 | 502 | 503 | 504)
}

/// Waits before the next try, each time longer: 25 s in all.
pub fn pause(tries: u32) {
    std::thread::sleep(PAUSE * 2_u32.pow(tries.min(8)));
}

impl Http {
    /// `authority` is `[user:password@]host[:port]`.
    pub fn new(authority: &str) -> Http {
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let authorization = user
            .map(|user| format!("Basic {}", BASE64.encode(percent_decode_str(user).collect::<Vec<u8>>())));
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_global(Some(Duration::from_secs(120)))
            .build();
        Http { agent: config.into(), base: format!("http://{host}/"), authorization }
    }

    /// A request, made again while the server is too busy for it: only for what may be done twice.
    ///
    /// # Errors
    /// [`Error::Failed`] where there is no answer, or another one than 2xx or one of `also`.
    pub fn call(&self, method: &str, path: &str, body: &str, also: &[u64]) -> Result<(u64, Value)> {
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
                "; name a user with the rights, as http://USER:PASSWORD@…"
            } else {
                ""
            };
            return Err(Error::failed(format!(
                "the store in OpenSearch: {path} answered {status}: {reason}{fix}"
            )));
        }
        unreachable!("the loop ends by itself")
    }

    /// A search, answered from all of the index: a shard that fails, or is late, is otherwise left out in silence.
    ///
    /// # Errors
    /// As [`Http::call`], and where the answer is of a part.
    pub fn search(&self, index: &str, query: &Value) -> Result<Value> {
        let path = format!("{index}/_search?allow_partial_search_results=false");
        let (_, answer) = self.call("POST", &path, &query.to_string(), &[])?;
        whole(&path, &answer)?;
        if answer["timed_out"] != false {
            return Err(Error::failed(format!("the store in OpenSearch: {path} took too long")));
        }
        Ok(answer)
    }

    /// What was stored before is found by searches after it.
    ///
    /// # Errors
    /// As [`Http::search`].
    pub fn refresh(&self, index: &str) -> Result<()> {
        let path = format!("{index}/_refresh");
        whole(&path, &self.call("POST", &path, "", &[])?.1)
    }

    fn once(&self, method: &str, path: &str, body: &str) -> Result<(u64, Value)> {
        let failed = |e: &dyn std::fmt::Display| {
            Error::failed(format!(
                "the store in OpenSearch: no answer from {}: {e}; see whether it is up, without TLS, and run again",
                self.base
            ))
        };
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let kind = if path.contains("_bulk") { "application/x-ndjson" } else { "application/json" };
        let request =
            request.header(header::CONTENT_TYPE, kind).body(body.to_owned()).map_err(|e| failed(&e))?;
        let mut response = self.agent.run(request).map_err(|e| failed(&e))?;
        let status = u64::from(response.status().as_u16());
        let text =
            response.body_mut().with_config().limit(1 << 30).read_to_string().map_err(|e| failed(&e))?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }
}

fn whole(path: &str, answer: &Value) -> Result<()> {
    match answer["_shards"]["failed"].as_u64() {
        Some(0) => Ok(()),
        failed => Err(Error::failed(format!(
            "the store in OpenSearch: {path} was answered without {} of its shards: {}",
            failed.map_or("some".to_owned(), |failed| failed.to_string()),
            answer["_shards"]["failures"][0]["reason"]["reason"]
        ))),
    }
}
