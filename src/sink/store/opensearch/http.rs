//! Sends JSON over HTTP to one node.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use ureq::Agent;
use ureq::http::{Request, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::base::error::{Error, Result};
use crate::sink::store::tls;
use crate::sink::store::url::{StoreUrl, is_local, without_port};

pub(super) struct Http {
    agent: Agent,
    /// `opensearch` or `elasticsearch`, as in the URL.
    product: String,
    /// `https://host:port/`
    base: String,
    authorization: Option<String>,
}

/// How often a request is repeated while the server is too busy.
pub(super) const TRIES: u32 = 9;
/// The first pause between two tries.
const PAUSE: Duration = Duration::from_millis(100);

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
    /// [`Error::Usage`] if a password would go to another machine in clear text; otherwise as [`tls::authorities`].
    pub(super) fn new(url: &StoreUrl<'_>) -> Result<Http> {
        let has_tls = url.scheme.ends_with("+https");
        let product = url.scheme.split('+').next().unwrap_or_default();
        let is_here = is_local(without_port(url.hosts));
        if !has_tls && !is_here && url.has_password() {
            return Err(Error::usage(format!(
                "--store {product}+http:// would send the password in clear text: use {product}+https://"
            )));
        }
        if url.parameters.iter().any(|(name, _)| *name != "ca") {
            return Err(Error::usage(format!(
                "--store {product}+https://HOST:PORT takes one parameter, ?ca=FILE"
            )));
        }
        let ca = url.parameter("ca");
        if ca.is_some() && !has_tls {
            return Err(Error::usage(format!("--store: ?ca=FILE needs {product}+https://")));
        }
        let authorization = url.user.map(|user| {
            let user = format!("{user}:{}", url.password.unwrap_or_default());
            format!("Basic {}", BASE64.encode(percent_decode_str(&user).collect::<Vec<u8>>()))
        });
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // Follow no redirects: they could send the password to another server.
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_global(Some(Duration::from_secs(120)));
        if is_here {
            config = config.proxy(None);
        }
        if has_tls {
            let owned = |der: &rustls::pki_types::CertificateDer<'_>| Certificate::from_der(der).to_owned();
            let authorities = tls::authorities(ca.as_deref())?.iter().map(owned).collect();
            let tls = TlsConfig::builder()
                .root_certs(RootCerts::Specific(Arc::new(authorities)))
                .unversioned_rustls_crypto_provider(tls::provider());
            config = config.https_only(true).tls_config(tls.build());
        }
        let scheme = if has_tls { "https" } else { "http" };
        let (product, base) = (product.to_owned(), format!("{scheme}://{}/", url.hosts));
        Ok(Http { agent: config.build().into(), product, base, authorization })
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
        let failed = |e: &dyn std::fmt::Display| {
            let why = e.to_string();
            let fix = if why.contains("invalid peer certificate") {
                "name the file with its authority's certificate as ?ca=FILE in the URL"
            } else if self.base.starts_with("https") {
                "check that it is up, with TLS, and run again"
            } else {
                "check that it is up, without TLS, and run again"
            };
            Error::failed(format!("the store: no answer from {}: {why}; {fix}", self.base))
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
            "the store: {path} was answered without {} of its shards: {}",
            failed.map_or("some".to_owned(), |failed| failed.to_string()),
            answer["_shards"]["failures"][0]["reason"]["reason"]
        ))),
    }
}
