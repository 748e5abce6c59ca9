//! SQLite, which is compiled into the program. A store is one file.

use std::time::Duration;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, params};

use super::sql::{Cell, Database, Parameter};
use super::{Content, Row, TopicOf};
use crate::base::error::{Error, Result};

/// How long to wait for another process that writes the same file.
const BUSY: Duration = Duration::from_secs(60);

pub(super) struct Sqlite {
    connection: Connection,
    file: String,
}

impl Sqlite {
    pub(super) fn open(file: &str) -> Result<Sqlite> {
        let failed = |err| failed(file, err);
        let connection = Connection::open(file).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        // This only works before there is a table. Rows have a few hundred bytes, so larger pages are better.
        connection.pragma_update(None, "page_size", 16384).map_err(failed)?;
        // With WAL, others can read while this run writes. A power cut can undo a transaction, but only as a whole.
        let mut tries = 0;
        while let Err(err) = connection.pragma_update(None, "journal_mode", "WAL") {
            // Two runs may open a new file at once, and SQLite does not wait here.
            tries += 1;
            if err.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) || tries > 100 {
                return Err(failed(err));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
        connection.pragma_update(None, "cache_size", -65536).map_err(failed)?;
        Ok(Sqlite { connection, file: file.to_owned() })
    }
}

fn failed(file: &str, err: rusqlite::Error) -> Error {
    let fix = match err.sqlite_error_code() {
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly) => {
            "; name a file in a directory that you can write to"
        }
        Some(ErrorCode::DiskFull) => "; make room on the disk, and run again",
        Some(ErrorCode::NotADatabase) => "; it is not a SQLite file; name another file",
        Some(ErrorCode::DatabaseBusy) => "; another process has locked it; end that process, and run again",
        _ => "",
    };
    Error::failed(format!("the store sqlite:{file}: {err}{fix}"))
}

impl rusqlite::ToSql for Parameter<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Parameter::Int(int) => ToSqlOutput::Borrowed(ValueRef::Integer(*int)),
            Parameter::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
        })
    }
}

impl Database for Sqlite {
    const BEGIN: &'static str = "BEGIN IMMEDIATE";
    const HOLD: &'static str = "BEGIN";
    const TYPES: (&'static str, &'static str) = ("BLOB", "TEXT");
    const TOP: &'static str = "SELECT CASE f.type WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' \
         ELSE CAST(f.atom AS TEXT) END AS text, COUNT(*) FROM records AS r, json_each(r.value) AS f \
         WHERE r.topic_id = $1 AND f.key = $2 AND f.atom IS NOT NULL AND r.time_ms >= $3 AND r.time_ms < $4 \
         GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT $5";

    fn batch(&mut self, sql: &str) -> Result<()> {
        self.connection.execute_batch(sql).map_err(|e| failed(&self.file, e))
    }

    fn execute(&mut self, sql: &str, parameters: &[Parameter<'_>]) -> Result<u64> {
        let failed = |err| failed(&self.file, err);
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let changed = statement.execute(rusqlite::params_from_iter(parameters)).map_err(failed)?;
        Ok(changed as u64)
    }

    fn query(&mut self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Vec<Cell>>> {
        let failed = |err| failed(&self.file, err);
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let columns = statement.column_count();
        let cell = |value: ValueRef<'_>| match value {
            ValueRef::Integer(int) => Cell::Int(int),
            ValueRef::Text(text) | ValueRef::Blob(text) => {
                Cell::Text(String::from_utf8_lossy(text).into_owned())
            }
            ValueRef::Real(real) => Cell::Text(real.to_string()),
            ValueRef::Null => Cell::Null,
        };
        statement
            .query_map(rusqlite::params_from_iter(parameters), |row| {
                (0..columns).map(|column| row.get_ref(column).map(cell)).collect()
            })
            .and_then(Iterator::collect)
            .map_err(failed)
    }

    fn insert(&mut self, topic: TopicOf<'_>, rows: &[Row]) -> Result<()> {
        let failed = |err| failed(&self.file, err);
        let mut statement = self
            .connection
            .prepare_cached("INSERT INTO records VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)")
            .map_err(failed)?;
        for row in rows {
            let (json, raw) = match &row.value {
                Content::Null => (None, None),
                Content::Json(text) => (Some(text), None),
                Content::Raw(bytes) => (None, Some(bytes)),
            };
            statement
                .execute(params![
                    topic.id,
                    topic.name,
                    row.partition,
                    row.offset,
                    row.time_ms,
                    row.key,
                    json,
                    raw,
                    row.headers,
                    row.digest
                ])
                .map_err(failed)?;
        }
        Ok(())
    }
}
