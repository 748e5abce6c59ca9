//! PostgreSQL, over a connection without TLS.

use postgres::binary_copy::BinaryCopyInWriter;
use postgres::types::{ToSql, Type};
use postgres::{Client, NoTls};

use super::sql::{Cell, Database, Parameter};
use super::{Content, Row, TopicOf};
use crate::error::{Error, Result};

pub struct Postgres(Client);

impl Postgres {
    pub fn open(url: &str) -> Result<Postgres> {
        let mut config: postgres::Config = url
            .parse()
            // Not the URL itself, which may hold a password.
            .map_err(|e| Error::usage(format!("--store postgres://USER@HOST/DATABASE: {}", chain(&e))))?;
        if config.get_application_name().is_none() {
            config.application_name("replicator");
        }
        let mut client = config.connect(NoTls).map_err(failed)?;
        let encoding: String =
            client.query_one("SHOW server_encoding", &[]).and_then(|row| row.try_get(0)).map_err(failed)?;
        if encoding != "UTF8" {
            return Err(Error::refused(format!(
                "the database's encoding is {encoding}, which cannot hold all text: name one that was made with \
                 CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
            )));
        }
        // The table being there is no news.
        client.batch_execute("SET client_min_messages = warning").map_err(failed)?;
        Ok(Postgres(client))
    }
}

/// An error with its causes, which the crate leaves out.
fn chain(err: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(err.source(), |cause| cause.source());
    causes.fold(err.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn failed(err: postgres::Error) -> Error {
    let fix = if err.is_closed() || err.code().is_none() {
        "; see whether the server is up and lets this user in without TLS, and run again"
    } else {
        ""
    };
    Error::failed(format!("the store in PostgreSQL: {}{fix}", chain(&err)))
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
    // `json`, not `jsonb`, which would write it anew.
    const TYPES: (&'static str, &'static str) = ("BYTEA", "JSON");
    const TOP: &'static str = "SELECT r.value ->> CAST($2 AS TEXT) AS text, COUNT(*) FROM records AS r \
         WHERE r.topic_id = (SELECT topic_id FROM positions WHERE topic = $1 ORDER BY since_ms DESC LIMIT 1) \
         AND json_typeof(r.value -> CAST($2 AS TEXT)) IN ('string', 'number', 'boolean') \
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
        // JSON travels as text does.
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
            // Two that make the same table at once would fail; the number is any that is our own.
            database.batch("SELECT pg_advisory_xact_lock(7238470931)")?;
            database.batch(schema)
        })
    }
}
