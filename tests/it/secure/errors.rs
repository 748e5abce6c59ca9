//! A client that is not let in says why, and what to change.

use rstest::rstest;

use super::broker::{Authority, ELSEWHERE, MUTUAL, PLAIN_PASSWORD, SASL, TLS};
use super::ways::{scram, scram_user, token_endpoint, trusting};
use super::*;

fn refused(story: &Story, properties: &str, wanted: i32, says: &[&str]) {
    let output = story.run(properties, &story.selection());
    let text = stderr(&output);
    assert_eq!(code(&output), wanted, "{text}");
    assert!(says.iter().all(|says| text.contains(says)), "{says:?}: {text}");
    assert!(!text.contains("hunter2"), "a secret: {text}");
}

const NO_MECHANISM: &str = "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-256\n\
                            sasl.username=paul\nsasl.password=hunter2";

#[test]
fn a_wrong_password() {
    let story = Story::new(SASL);
    let user = scram_user("wendy", "right");
    let says = ["invalid credentials", "sasl.password", "REPLICATOR_SASL_PASSWORD"];
    refused(&story, &trusting(&story, &scram(&user, "wrong-hunter2")), 3, &says);
    let plain = scram("paul", "wrong-hunter2").replace("SCRAM-SHA-512", "PLAIN");
    refused(&story, &trusting(&story, &plain), 3, &["Invalid username or password", "sasl.password"]);
}

#[rstest]
#[case::no_such_mechanism(SASL, NO_MECHANISM, 3, &["Unsupported SASL mechanism", "set sasl.mechanism"])]
#[case::sasl_where_there_is_none(TLS, NO_MECHANISM, 3, &["security.protocol to one without SASL"])]
#[case::tls_to_plaintext("PLAIN", "security.protocol=SSL", 1, &["PLAINTEXT broker listener?", "security properties"])]
#[case::no_sasl(SASL, "security.protocol=SSL", 1, &["security properties"])]
fn another_listener(
    #[case] listener: &'static str,
    #[case] properties: &str,
    #[case] code: i32,
    #[case] says: &[&str],
) {
    let story = Story::new(listener);
    refused(&story, &trusting(&story, properties), code, says);
}

#[test]
fn plaintext_to_tls() {
    refused(&Story::new(TLS), "", 1, &["security properties"]);
}

#[test]
fn an_authority_that_is_not_trusted() {
    let story = Story::new(TLS);
    let other = story.file("other.pem", &Authority::new("another").pem());
    for properties in
        ["security.protocol=SSL", &format!("security.protocol=SSL\nssl.ca.location={}", other.display())]
    {
        refused(&story, properties, 3, &["certificate verify failed", "set ssl.ca.location"]);
    }
    refused(&story, "security.protocol=SSL\nssl.ca.location=/none.pem", 2, &["ssl.ca.location"]);
}

#[test]
fn a_certificate_of_another_host() {
    let story = Story::new(ELSEWHERE);
    let properties = trusting(&story, "security.protocol=SSL");
    refused(&story, &properties, 3, &["certificate verify failed", "name that is in the certificate"]);
    // It is the name that was wrong: without a look at it, what is missing are the topics.
    let unnamed = format!("{properties}\nssl.endpoint.identification.algorithm=none");
    refused(&story, &unnamed, 3, &["there is no topic"]);
}

#[test]
fn a_client_certificate_that_is_not_trusted_or_missing() {
    let story = Story::new(MUTUAL);
    let (certificate, key) = Authority::new("a stranger").sign("eve", &[]);
    let certificate = story.file("eve.pem", &certificate.pem());
    let key = story.file("eve.key", &key.serialize_pem());
    let stranger = format!(
        "security.protocol=SSL\nssl.certificate.location={}\nssl.key.location={}",
        certificate.display(),
        key.display()
    );
    for properties in ["security.protocol=SSL", &stranger] {
        let says = ["ssl.certificate.location", "ssl.key.location"];
        refused(&story, &trusting(&story, properties), 3, &says);
    }
}

#[test]
fn a_token_that_is_not_given() {
    let story = Story::new(SASL);
    for url in [&token_endpoint("olga", "right"), "http://127.0.0.1:1/token"] {
        let with = format!(
            "security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.method=oidc\n\
             sasl.oauthbearer.client.id=replicator\nsasl.oauthbearer.client.secret=wrong-hunter2\n\
             sasl.oauthbearer.token.endpoint.url={url}"
        );
        refused(&story, &trusting(&story, &with), 3, &["token.endpoint.url", "client.secret"]);
    }
}

/// In no output however chatty, in no receipt, in no argument, from a file and from the environment.
#[rstest]
#[case::good("", 0)]
#[case::wrong("not-", 3)]
fn secrets_are_told_nowhere(#[case] prefix: &str, #[case] wanted: i32) {
    let story = Story::new(SASL).filled_but_for_the_window();
    story.grant("User:paul", &FILL);
    let secret = format!("{prefix}{PLAIN_PASSWORD}");
    let without =
        "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.username=paul\nssl.key.password=key-hunter2";
    let with = format!("{without}\nsasl.password={secret}");
    let chatty =
        [&story.selection()[..], &["-vv", "--output", "json", "-X", "debug=all", "--max-rate", "100/s"]];
    for is_in_file in [true, false] {
        let properties = trusting(&story, if is_in_file { &with } else { without });
        let mut command = story.command(&properties, &chatty.concat());
        if !is_in_file {
            command.env("REPLICATOR_SASL_PASSWORD", &secret);
        }
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        let arguments = std::fs::read(format!("/proc/{}/cmdline", child.id())).unwrap_or_default();
        let output = child.wait_with_output().expect("ends");
        let text = stderr(&output);
        assert_eq!(code(&output), wanted, "{text}");
        let said = [&output.stdout[..], &output.stderr[..], &arguments].concat();
        assert!(said.len() > 10_000, "debug=all says a lot: {text}");
        use base64::prelude::*;
        let coded = BASE64_STANDARD.encode(format!("\0paul\0{secret}"));
        for hidden in [&b"hunter2"[..], coded.as_bytes()] {
            let at = said.windows(hidden.len()).position(|window| window == hidden);
            assert_eq!(
                at,
                None,
                "{}",
                String::from_utf8_lossy(&said[at.unwrap_or(0).saturating_sub(200)..][..400])
            );
        }
    }
}

#[rstest]
#[case("sasl.password")]
#[case("ssl.key.password")]
#[case("ssl.key.pem")]
#[case("ssl.keystore.password")]
#[case("sasl.oauthbearer.client.secret")]
#[case("sasl.oauthbearer.client.credentials.client.secret")]
#[case("sasl.oauthbearer.config")]
#[case("sasl.oauthbearer.assertion.private.key.pem")]
#[case("sasl.oauthbearer.assertion.private.key.passphrase")]
fn a_secret_by_flag_is_refused(#[case] property: &str) {
    let output = replicator(&["--window", "11:00-13:00", "-X", &format!("{property}=hunter2")]).output();
    let output = output.expect("runs");
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(
        stderr(&output).contains(property) && !stderr(&output).contains("hunter2"),
        "{}",
        stderr(&output)
    );
}
