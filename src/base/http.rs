//! Sends requests over HTTP to the one server that a URL names.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use percent_encoding::percent_decode_str;
use ureq::Agent;
use ureq::http::{Request, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::error::{Error, Result};
use super::tls;
use super::url::{Url, is_local, without_port};

pub(crate) struct Server {
    agent: Agent,
    /// `https://host:port`
    base: String,
    authorization: Option<String>,
    /// The most bytes of an answer.
    longest: u64,
}

impl Server {
    /// The server at `url`, which came by `option`. The URL's scheme ends with `http` or `https`. A request takes at most
    /// `timeout`, and an answer has at most `longest` bytes.
    ///
    /// # Errors
    /// [`Error::Usage`] if a password would go to another machine in clear text; otherwise as [`tls::authorities`].
    pub(crate) fn new(url: &Url<'_>, option: &str, timeout: Duration, longest: u64) -> Result<Server> {
        let has_tls = url.scheme.ends_with("https");
        let kind = url.scheme.trim_end_matches("https").trim_end_matches("http");
        let is_here = is_local(without_port(url.hosts));
        if !has_tls && !is_here && url.has_password() {
            return Err(Error::usage(format!(
                "{option} {kind}http:// would send the password in clear text: use {kind}https://"
            )));
        }
        if url.parameters.iter().any(|(name, _)| *name != "ca") {
            return Err(Error::usage(format!(
                "{option} {kind}https://HOST:PORT takes one parameter, ?ca=FILE"
            )));
        }
        let ca = url.parameter("ca");
        if ca.is_some() && !has_tls {
            return Err(Error::usage(format!("{option}: ?ca=FILE needs {kind}https://")));
        }
        let authorization = url.user.map(|user| {
            let user = format!("{user}:{}", url.password.unwrap_or_default());
            format!("Basic {}", BASE64.encode(percent_decode_str(&user).collect::<Vec<u8>>()))
        });
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // Follow no redirects: they could send the password to another server.
            .max_redirects(0)
            .timeout_connect(Some(timeout.min(Duration::from_secs(10))))
            .timeout_global(Some(timeout));
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
        Ok(Server {
            agent: config.build().into(),
            base: format!("{scheme}://{}", url.hosts),
            authorization,
            longest,
        })
    }

    /// Sends a request once, and returns the status and the body. `path` begins with a slash.
    ///
    /// # Errors
    /// Why there is no answer, and what may help. The sentence never has the password.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: &str,
    ) -> std::result::Result<(u16, String), String> {
        let failed = |e: &dyn std::fmt::Display| {
            let why = e.to_string();
            let fix = if why.contains("invalid peer certificate") {
                "name the file with its authority's certificate as ?ca=FILE in the URL"
            } else if self.base.starts_with("https") {
                "check that it is up, with TLS, and run again"
            } else {
                "check that it is up, without TLS, and run again"
            };
            format!("no answer from {}/: {why}; {fix}", self.base)
        };
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request
            .header(header::CONTENT_TYPE, content_type)
            .body(body.to_owned())
            .map_err(|e| failed(&e))?;
        let mut response = self.agent.run(request).map_err(|e| failed(&e))?;
        let status = response.status().as_u16();
        let text =
            response.body_mut().with_config().limit(self.longest).read_to_string().map_err(|e| failed(&e))?;
        Ok((status, text))
    }
}
