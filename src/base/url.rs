//! Parses the URL of a server, as RFC 3986 defines it. Pure.

use std::borrow::Cow;
use std::net::IpAddr;

use percent_encoding::percent_decode_str;

use super::error::{Error, Result};

/// `scheme://[user[:password]@]hosts[/path][?parameters]`. All parts stay as they were written, percent-encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url<'a> {
    pub scheme: &'a str,
    pub user: Option<&'a str>,
    pub password: Option<&'a str>,
    /// Hosts with their ports, separated by commas; may be empty.
    pub hosts: &'a str,
    /// The path with its slash, or empty.
    pub path: &'a str,
    pub parameters: Vec<(&'a str, &'a str)>,
}

/// What to add to a refusal of text that is no such URL. It does not repeat the text, which may hold a password.
pub(crate) fn advice(text: &str) -> &'static str {
    if text.contains("://") {
        "; write a / ? # or @ in a user's name, in a password or after the host as %2F %3F %23 or %40"
    } else {
        ""
    }
}

impl<'a> Url<'a> {
    /// `None` if it is not such a URL, or if it can be read in two ways: for some parsers, a `?` in a password ends the
    /// host, and for others it does not.
    pub(crate) fn parse(url: &'a str) -> Option<Url<'a>> {
        let (scheme, rest) = url.split_once("://")?;
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if tail.contains(['@', '#']) {
            return None;
        }
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        if !hosts.split(',').all(is_host) {
            return None;
        }
        let (user, password) = match user.and_then(|user| user.split_once(':')) {
            Some((user, password)) => (Some(user), Some(password)),
            None => (user, None),
        };
        let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
        let pair = |pair: &'a str| pair.split_once('=').unwrap_or((pair, ""));
        let parameters = query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect();
        Some(Url { scheme, user, password, hosts, path, parameters })
    }

    pub(crate) fn parameter(&self, wanted: &str) -> Option<Cow<'a, str>> {
        let value = self.parameters.iter().rev().find(|(name, _)| decoded(name) == wanted)?.1;
        Some(decoded(value))
    }

    pub(crate) fn has_password(&self) -> bool {
        self.password.is_some_and(|password| !password.is_empty()) || self.parameter("password").is_some()
    }

    /// Refuses a password in the flag `option`, because the process list shows flags. It belongs into `variable`.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub(crate) fn check_flag(&self, option: &str, variable: &str) -> Result<()> {
        if self.has_password() {
            return Err(Error::usage(format!(
                "{option}: the process list shows flags; put a URL with a password into the environment as {variable}"
            )));
        }
        Ok(())
    }
}

fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

/// A host with or without a port.
fn is_host(text: &str) -> bool {
    let port = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((_, "")) => return true,
        Some((_, port)) => port.strip_prefix(':'),
        None => text.split_once(':').map_or(Some(""), |(_, port)| Some(port)),
    };
    port.is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether a name or an address, without a port, always means this machine.
pub(crate) fn is_local(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// The name or address of a host, without the port that it may have.
pub(crate) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// The URL without a password and parameters, which may be secret. If it cannot be parsed, only its scheme is shown.
pub(crate) fn shown(url: &str) -> String {
    match Url::parse(url) {
        Some(Url { scheme, user, hosts, path, .. }) => {
            let user = user.map_or(String::new(), |user| format!("{user}@"));
            format!("{scheme}://{user}{hosts}{path}")
        }
        None => {
            format!("{}:…", url.split(':').next().filter(|scheme| scheme.len() < url.len()).unwrap_or(""))
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("postgres://me:hunter2@host/db?password=hunter2", "postgres://me@host/db")]
    #[case("opensearch+http://me:hunt@er2@host:9200", "opensearch+http://me@host:9200")]
    #[case("postgres://host/db", "postgres://host/db")]
    #[case("postgres://me:12@[::1]:5432,other/db", "postgres://me@[::1]:5432,other/db")]
    #[case("postgres://me@/db?host=/run/postgresql", "postgres://me@/db")]
    #[case("postgres://me:hun?ter2@host/db", "postgres:…")]
    #[case("postgres://me:12?ter2@host/db", "postgres:…")]
    #[case("postgres://me:hun/ter2@host/db", "postgres:…")]
    #[case("postgres://me:12#ter2@host/db", "postgres:…")]
    #[case("opensearch+https://me:12?x@host:9200/p", "opensearch+https:…")]
    #[case("postgres://me:hunter2", "postgres:…")]
    #[case("postgres:me:hunter2@host/db", "postgres:…")]
    #[case("hunter2", ":…")]
    fn shown_without_secrets(#[case] url: &str, #[case] wanted: &str) {
        assert_eq!(shown(url), wanted);
    }

    #[rstest]
    #[case("postgres://me:x@host/db", true)]
    #[case("postgres://host/db?user=me&password=x", true)]
    #[case("postgres://host/db?passwor%64=x", true)]
    #[case("postgres://me@host/db?sslmode=require", false)]
    #[case("postgres://me:@host/db", false)]
    fn a_password_is_found(#[case] url: &str, #[case] wanted: bool) {
        assert_eq!(Url::parse(url).map(|url| url.has_password()), Some(wanted));
    }

    #[test]
    fn the_parts() {
        let url =
            Url::parse("postgres://me:p%40@db:5433/d?sslmode=verify-ca&sslrootcert=%2Fca.pem").expect("one");
        assert_eq!(
            (url.user, url.password, url.hosts, url.path),
            (Some("me"), Some("p%40"), "db:5433", "/d")
        );
        assert_eq!(
            (url.parameter("sslmode").as_deref(), url.parameter("sslrootcert").as_deref()),
            (Some("verify-ca"), Some("/ca.pem"))
        );
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "[::1]", "::1"] {
            assert!(is_local(host), "{host}");
        }
        for host in ["localhost.example.com", "127.0.0.1.example.com", "10.0.0.1", "db", ""] {
            assert!(!is_local(host), "{host}");
        }
        assert_eq!(
            (without_port("db:1"), without_port("[::1]:1"), without_port("[::1]")),
            ("db", "[::1]", "[::1]")
        );
    }
}
