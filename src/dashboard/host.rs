//! Checks the host name by which a browser asks for the page. Pure.
//!
//! A web site can make its own name resolve to this machine, and then read the page through its visitor's browser (DNS
//! rebinding). It cannot do so with an address or with `localhost`.

use std::net::IpAddr;

use crate::base::url::{is_local, without_port};

/// Whether a `Host` header, with or without a port, is `localhost`, an address, or one of `allowed`.
pub(crate) fn is_allowed(host: &str, allowed: &[String]) -> bool {
    let name = without_port(host);
    is_local(name)
        || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
        || allowed.iter().any(|allowed| name.eq_ignore_ascii_case(allowed))
}

/// Parses a name for `--allowed-host`.
///
/// # Errors
/// Says how to write a name.
pub(crate) fn parse(text: &str) -> std::result::Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if text.is_empty() || !text.chars().all(is_plain) {
        return Err("not a host name; write it as dashboard.example.com, without a port".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("localhost:8080", true)]
    #[case("LOCALHOST", true)]
    #[case("127.0.0.1:8080", true)]
    #[case("[::1]:8080", true)]
    #[case("10.1.2.3:8080", true)]
    #[case("page.example:8080", true)]
    #[case("PAGE.example", true)]
    #[case("localhost.example.com:8080", false)]
    #[case("127.0.0.1.example.com", false)]
    #[case("a.page.example", false)]
    #[case("page.example:80:80", false)]
    #[case("", false)]
    fn names_of_the_page(#[case] host: &str, #[case] wanted: bool) {
        assert_eq!(is_allowed(host, &["page.example".to_owned()]), wanted);
    }

    #[test]
    fn a_name_has_no_port() {
        assert_eq!(parse("page.example").as_deref(), Ok("page.example"));
        for text in ["", "page.example:80", "http://page", "*"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
