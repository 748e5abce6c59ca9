//! PostgreSQL.
//!
//! `sslmode` and `sslrootcert` in the URL mean the same as in libpq, with three differences:
//! - Without `sslmode`, a server on this machine (a socket, `localhost` or a loopback address) gets `prefer`, and any
//!   other server gets `verify-full`. libpq's own default gives the password in clear text to whoever answers.
//! - For the same reason, `prefer` and `allow` do not send a password to another machine without TLS. Only a written
//!   `sslmode=disable` does that.
//! - libpq looks into `~/.postgresql/root.crt`; this program uses the authorities that this machine trusts.

use std::time::Duration;

use postgres::binary_copy::BinaryCopyInWriter;
use postgres::config::{Host, SslMode};
use postgres::types::{ToSql, Type};
use postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::sql::{Cell, Database, Parameter};
use super::{Content, Row, TopicOf};
use crate::base::error::{Error, Result};
use crate::base::tls::{self, Proof};
use crate::base::url::{Url, is_local};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// After this long without traffic, the system checks that the server is still there. It waits as long for the server to
/// confirm what was sent.
const KEEPALIVE: Duration = Duration::from_secs(30);

pub(super) struct Postgres(Client);

impl Postgres {
    pub(super) fn open(url: &Url<'_>) -> Result<Postgres> {
        let (config, tls) = config(url)?;
        let client = match tls {
            Some((proof, file)) => {
                config.connect(MakeRustlsConnect::new(tls::client(proof, file.as_deref())?))
            }
            None => config.connect(NoTls),
        };
        let mut client = client.map_err(failed)?;
        let encoding: String =
            client.query_one("SHOW server_encoding", &[]).and_then(|row| row.try_get(0)).map_err(failed)?;
        if encoding != "UTF8" {
            return Err(Error::refused(format!(
                "the database's encoding is {encoding}, which cannot hold all text; use a database that was created with \
                 ENCODING 'UTF8' TEMPLATE template0"
            )));
        }
        // Do not report that the tables exist already.
        client.batch_execute("SET client_min_messages = warning").map_err(failed)?;
        Ok(Postgres(client))
    }
}

/// The proof that the server must give, and a file with the certificates of authorities.
type Proven = (Proof, Option<String>);

/// How to connect, and what the server must prove if TLS is used.
fn config(url: &Url<'_>) -> Result<(Config, Option<Proven>)> {
    // The message does not repeat the URL, which may hold a password.
    let wrong = |why: &str| Error::usage(format!("--store postgres://USER@HOST/DATABASE: {why}"));
    let mut config: Config = without_tls(url).parse().map_err(|e| wrong(&chain(&e)))?;
    if config.get_application_name().is_none() {
        config.application_name("replicator");
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT);
    }
    if url.parameter("keepalives_idle").is_none() {
        config.keepalives_idle(KEEPALIVE);
    }
    if url.parameter("tcp_user_timeout").is_none() {
        config.tcp_user_timeout(KEEPALIVE);
    }
    let hosts = config.get_hosts();
    if !hosts.is_empty() && hosts.iter().all(|host| matches!(host, Host::Unix(_))) {
        // As in libpq: data on a socket never leaves this machine.
        config.ssl_mode(SslMode::Disable);
        return Ok((config, None));
    }
    let is_here = |host: &Host| !matches!(host, Host::Tcp(name) if !is_local(name));
    let is_local =
        hosts.iter().all(is_here) && config.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback);
    let file = url.parameter("sslrootcert").filter(|file| file != "system").map(Into::into);
    let signed = if url.parameter("sslrootcert").is_some() { Proof::Authority } else { Proof::None };
    let default = if is_local && signed == Proof::None { "prefer" } else { "verify-full" };
    let written = url.parameter("sslmode");
    let (mode, proof) = match written.as_deref().unwrap_or(default) {
        "disable" => (SslMode::Disable, Proof::None),
        "allow" | "prefer" if is_local || config.get_password().is_none() => (SslMode::Prefer, Proof::None),
        "allow" | "prefer" => (SslMode::Require, Proof::None),
        // A given file of authorities is used, as in libpq.
        "require" => (SslMode::Require, signed),
        "verify-ca" => (SslMode::Require, Proof::Authority),
        "verify-full" => (SslMode::Require, Proof::AuthorityAndName),
        _ => return Err(wrong("sslmode is disable, allow, prefer, require, verify-ca or verify-full")),
    };
    config.ssl_mode(mode);
    Ok((config, (mode != SslMode::Disable).then_some((proof, file))))
}

/// The URL for the client. The client takes the first `@` for the end of the user, so this encodes the other ones. The
/// TLS parameters are left out and set separately.
fn without_tls(url: &Url<'_>) -> String {
    let ours = |name: &str| ["sslmode", "sslrootcert"].contains(&name);
    let kept = url.parameters.iter().filter(|(name, _)| !ours(name));
    let parameters: Vec<String> = kept.map(|(name, value)| format!("{name}={value}")).collect();
    let password = url.password.map_or(String::new(), |password| format!(":{password}"));
    let user = url.user.map_or(String::new(), |user| format!("{user}{password}").replace('@', "%40") + "@");
    format!("postgres://{user}{}{}?{}", url.hosts, url.path, parameters.join("&"))
}

/// The error with its causes. The crate prints only the error itself.
fn chain(err: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(err.source(), |cause| cause.source());
    causes.fold(err.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn failed(err: postgres::Error) -> Error {
    let why = chain(&err);
    let fix = if why.contains("server does not support TLS") {
        "; nothing secret was sent: set ssl=on at the server, or write sslmode=disable into the URL if you trust the \
         network in between"
    } else if why.contains("invalid peer certificate") {
        "; nothing secret was sent: name the file with its authority's certificate as sslrootcert=FILE in the URL, or \
         write sslmode=require to encrypt without checking who answers"
    } else if err.is_closed() || err.code().is_none() {
        "; check that the server is up and lets this user in, and run again"
    } else {
        ""
    };
    Error::failed(format!("the store in PostgreSQL: {why}{fix}"))
}

fn borrowed<'a>(parameters: &'a [Parameter<'_>]) -> Vec<&'a (dyn ToSql + Sync)> {
    let borrow = |parameter: &'a Parameter<'_>| -> &'a (dyn ToSql + Sync) {
        match parameter {
            Parameter::Int(int) => int,
            Parameter::Text(text) => text,
        }
    };
    parameters.iter().map(borrow).collect()
}

impl Database for Postgres {
    const BEGIN: &'static str = "BEGIN";
    const HOLD: &'static str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    // `json` keeps the text as it is written; `jsonb` would not.
    const TYPES: (&'static str, &'static str) = ("BYTEA", "JSON");
    const TOP: &'static str = "SELECT r.value ->> CAST($2 AS TEXT) AS text, COUNT(*) FROM records AS r \
         WHERE r.topic_id = $1 AND json_typeof(r.value -> CAST($2 AS TEXT)) IN ('string', 'number', 'boolean') \
         AND r.time_ms >= $3 AND r.time_ms < $4 GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT $5";

    fn batch(&mut self, sql: &str) -> Result<()> {
        self.0.batch_execute(sql).map_err(failed)
    }

    fn execute(&mut self, sql: &str, parameters: &[Parameter<'_>]) -> Result<u64> {
        self.0.execute(sql, &borrowed(parameters)).map_err(failed)
    }

    fn query(&mut self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Vec<Cell>>> {
        let rows = self.0.query(sql, &borrowed(parameters)).map_err(failed)?;
        let cell = |row: &postgres::Row, column: usize| {
            if *row.columns()[column].type_() == Type::INT8 {
                row.try_get(column).map(|int: Option<i64>| int.map_or(Cell::Null, Cell::Int))
            } else {
                row.try_get(column).map(|text: Option<String>| text.map_or(Cell::Null, Cell::Text))
            }
        };
        let cells = rows.iter().map(|row| (0..row.len()).map(|column| cell(row, column)).collect());
        cells.collect::<std::result::Result<_, _>>().map_err(failed)
    }

    fn insert(&mut self, topic: TopicOf<'_>, rows: &[Row]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let copy = self.0.copy_in("COPY records FROM STDIN (FORMAT binary)").map_err(failed)?;
        // JSON is sent as text.
        let (text, int, bytes) = (Type::TEXT, Type::INT8, Type::BYTEA);
        let types = [&text, &text, &int, &int, &int, &bytes, &text, &bytes, &text, &bytes].map(Clone::clone);
        let mut copy = BinaryCopyInWriter::new(copy, &types);
        for row in rows {
            let (json, raw) = match &row.value {
                Content::Null => (None, None),
                Content::Json(text) => (Some(text), None),
                Content::Raw(bytes) => (None, Some(bytes)),
            };
            let digest: &[u8] = &row.digest;
            let partition = i64::from(row.partition);
            copy.write(&[
                &topic.id,
                &topic.name,
                &partition,
                &row.offset,
                &row.time_ms,
                &row.key,
                &json,
                &raw,
                &row.headers,
                &digest,
            ])
            .map_err(failed)?;
        }
        copy.finish().map(drop).map_err(failed)
    }

    fn create(&mut self, schema: &str) -> Result<()> {
        self.transaction(|database| {
            // Two runs that create the same table at once would fail, so they take a lock. Its number is arbitrary.
            database.batch("SELECT pg_advisory_xact_lock(7238470931)")?;
            database.batch(schema)
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::socket("postgres://me:x@%2Frun%2Fpostgresql/db?sslmode=verify-full", SslMode::Disable, None)]
    #[case::here("postgres://me:x@localhost/db", SslMode::Prefer, Some(Proof::None))]
    #[case::loopback("postgres://me:x@127.0.0.1/db", SslMode::Prefer, Some(Proof::None))]
    #[case::away("postgres://me:x@db/db", SslMode::Require, Some(Proof::AuthorityAndName))]
    #[case::away_by_address(
        "postgres://me:x@db/db?hostaddr=127.0.0.1",
        SslMode::Require,
        Some(Proof::AuthorityAndName)
    )]
    #[case::one_of_two("postgres://me:x@localhost,db/db", SslMode::Require, Some(Proof::AuthorityAndName))]
    #[case::disable("postgres://me:x@db/db?sslmode=disable", SslMode::Disable, None)]
    #[case::prefer("postgres://me:x@db/db?sslmode=prefer", SslMode::Require, Some(Proof::None))]
    #[case::nothing_to_lose("postgres://me@db/db?sslmode=allow", SslMode::Prefer, Some(Proof::None))]
    #[case::require("postgres://me:x@db/db?sslmode=require", SslMode::Require, Some(Proof::None))]
    #[case::with_a_file(
        "postgres://me:x@db/db?sslmode=require&sslrootcert=f",
        SslMode::Require,
        Some(Proof::Authority)
    )]
    #[case::verify_ca("postgres://me:x@db/db?sslmode=verify-ca", SslMode::Require, Some(Proof::Authority))]
    #[case::file_alone(
        "postgres://me:x@localhost/db?sslrootcert=f",
        SslMode::Require,
        Some(Proof::AuthorityAndName)
    )]
    fn tls_by_default(#[case] url: &str, #[case] mode: SslMode, #[case] proof: Option<Proof>) {
        let (config, tls) = config(&Url::parse(url).expect("a URL")).expect("a configuration");
        assert_eq!((config.get_ssl_mode(), tls.map(|(proof, _)| proof)), (mode, proof));
    }

    #[test]
    fn the_last_at_ends_the_password() {
        let url = Url::parse("postgres://me:a@b%3F@host:5433/db?connect_timeout=3").expect("a URL");
        let (config, _) = config(&url).expect("a configuration");
        assert_eq!((config.get_password(), config.get_ports()), (Some(&b"a@b?"[..]), &[5433][..]));
        assert_eq!(config.get_hosts(), [Host::Tcp("host".into())]);
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(3)));
    }
}
