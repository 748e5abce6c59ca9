//! Each way in, for each command.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

use std::time::{SystemTime, UNIX_EPOCH};

use super::broker::{Broker, MUTUAL, PLAIN_PASSWORD, SASL, TLS};
use super::*;

pub(super) fn trusting(story: &Story, more: &str) -> String {
    let authority = story.file("ca.pem", &Broker::get().authority.pem());
    format!("ssl.ca.location={}\n{more}", authority.display())
}

/// Loads a file into both topics, but for the window in the second; then plan, fill, verify, fill again.
fn load_and_play(story: &Story, properties: &str) {
    let lines: String = day(600, 1)
        .iter()
        .enumerate()
        .map(|(n, r)| format!("{{\"id\":\"e{n}\",\"ts\":{}}}\n", r.time))
        .collect();
    let file = story.file("events.jsonl", &lines);
    let file = file.to_str().expect("a path");
    for (topic, more) in [(&story.a, &[][..]), (&story.b, &["--except", "11:00-13:00"])] {
        let arguments = [&["load", file, "--topic", topic, "--partitions", "2"], more].concat();
        let output = story.run(properties, &arguments);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
    }
    story.play(properties);
}

/// All that the whole story needs.
fn grant_all(story: &Story, principal: &str) {
    let more = [(TOPIC, "a", WRITE), (TOPIC, "a", CREATE), (TOPIC, "b", CREATE)];
    story.grant(principal, &[&FILL[..], &more].concat());
    for resource in [GROUP, TRANSACTIONAL_ID] {
        let operation = if resource == GROUP { READ } else { WRITE };
        let entry = raw::Entry {
            principal,
            resource,
            name: "replicator/",
            pattern: raw::PREFIXED,
            operation,
            permission: raw::ALLOW,
        };
        raw::control(Broker::get().plain(), &entry);
    }
}

#[test]
fn tls() {
    let story = Story::new(TLS);
    load_and_play(&story, &trusting(&story, "security.protocol=SSL"));
}

#[test]
fn mutual_tls() {
    let story = Story::new(MUTUAL);
    let (certificate, key) = Broker::get().authority.sign("maud", &[]);
    let certificate = story.file("client.pem", &certificate.pem());
    let key = story.file("client.key", &key.serialize_pem());
    grant_all(&story, "User:CN=maud");
    let with = format!(
        "security.protocol=SSL\nssl.certificate.location={}\nssl.key.location={}",
        certificate.display(),
        key.display()
    );
    load_and_play(&story, &trusting(&story, &with));
}

#[test]
fn sasl_plain() {
    let story = Story::new(SASL);
    grant_all(&story, "User:paul");
    let with = format!(
        "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.username=paul\nsasl.password={PLAIN_PASSWORD}"
    );
    load_and_play(&story, &trusting(&story, &with));
}

#[test]
fn sasl_scram() {
    let story = Story::new(SASL);
    let user = scram_user("scott", "tiger");
    grant_all(&story, &format!("User:{user}"));
    load_and_play(&story, &trusting(&story, &scram(&user, "tiger")));
}

#[test]
fn sasl_oauthbearer_of_a_token_endpoint() {
    let story = Story::new(SASL);
    grant_all(&story, "User:olga");
    let url = token_endpoint("olga", "endpoint-hunter2");
    let with = format!(
        "security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.method=oidc\n\
         sasl.oauthbearer.client.id=replicator\nsasl.oauthbearer.client.secret=endpoint-hunter2\n\
         sasl.oauthbearer.token.endpoint.url={url}"
    );
    load_and_play(&story, &trusting(&story, &with));
}

#[test]
fn sasl_oauthbearer_unsecured() {
    let story = Story::new(SASL);
    grant_all(&story, "User:ursula");
    let with = "security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER\n\
                enable.sasl.oauthbearer.unsecure.jwt=true\nsasl.oauthbearer.config=principal=ursula";
    load_and_play(&story, &trusting(&story, with));
}

pub(super) fn scram_user(name: &str, password: &str) -> String {
    let user = format!("{name}-{}", number());
    Broker::get().add_user(&user, password);
    user
}

pub(super) fn scram(user: &str, password: &str) -> String {
    format!(
        "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\nsasl.username={user}\nsasl.password={password}"
    )
}

/// Gives tokens for `subject` to who knows `secret`, to the test's end. The broker believes them unsigned.
pub(super) fn token_endpoint(subject: &str, secret: &str) -> String {
    use base64::prelude::*;
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let part = |json: String| BASE64_URL_SAFE_NO_PAD.encode(json);
    let token = format!(
        "{}.{}.",
        part("{\"alg\":\"none\"}".to_owned()),
        part(format!("{{\"sub\":\"{subject}\",\"iat\":{seconds},\"exp\":{}}}", seconds + 3600))
    );
    let expected = format!("authorization: basic {}", BASE64_STANDARD.encode(format!("replicator:{secret}")));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/token", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.expect("a connection"));
            let (mut length, mut known) = (0, false);
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).expect("a line");
                let (line, lower) = (line.trim(), line.trim().to_lowercase());
                known |= lower.starts_with("authorization: basic") && lower == expected.to_lowercase();
                if let Some(value) = lower.strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a number");
                }
                if line.is_empty() {
                    break;
                }
            }
            stream.read_exact(&mut vec![0; length]).expect("a body");
            let (status, body) = if known {
                (
                    "200 OK",
                    format!("{{\"access_token\":\"{token}\",\"token_type\":\"Bearer\",\"expires_in\":3600}}"),
                )
            } else {
                ("401 Unauthorized", "{\"error\":\"invalid_client\",\"error_description\":\"no\"}".to_owned())
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.get_mut().write_all([head, body].concat().as_bytes());
        }
    });
    url
}
