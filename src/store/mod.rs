//! Where topics are kept to be queried: each record once, whatever happens to the process that sinks them.
//!
//! What makes it exactly once: a record is known by its topic's id, its partition and its offset; the rows and
//! the next offsets are stored in one database transaction (SQL), or the rows first, under ids that cannot
//! double, and the next offsets after them (OpenSearch). The next offsets move by a conditional update that
//! names the offset they move from and the run that owns them: of two runs at once, one fails with
//! [`Error::Fenced`].

mod opensearch;
mod postgres;
mod row;
mod sql;
mod sqlite;
mod summary;

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

pub use row::{Content, Row};

use crate::cluster::Watermarks;
use crate::error::{Error, Result};
use crate::window::rfc3339;

/// A topic of one life: one that is deleted and made again has another id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicOf<'a> {
    pub name: &'a str,
    /// The topic's id (KIP-516), in base64.
    pub id: &'a str,
}

/// Rows of a topic, and the next offsets that they lead to.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    pub topic: TopicOf<'a>,
    pub rows: &'a [Row],
    /// One a partition, by partition; offsets without a record (transaction markers, aborted records) move it too.
    pub moves: &'a [Move],
}

/// The next offset of a partition goes from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    pub partition: i32,
    pub from: i64,
    pub to: i64,
}

/// What a store holds of a topic. Where there were several of that name, of the one that was sunk last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopicSummary {
    pub topic: String,
    /// The topic's id (KIP-516), in base64.
    pub topic_id: String,
    pub records: u64,
    /// The earliest timestamp, in milliseconds since the epoch; `None` where there is no record.
    pub first_ms: Option<i64>,
    pub last_ms: Option<i64>,
    /// `None` where the store was not told of each partition, as by a version that did not tell.
    pub ends: Option<Ends>,
}

/// How what a store holds of a topic compares with the topic itself, as it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ends {
    /// When the topic was asked, in milliseconds since the epoch, by the clock of the sink.
    pub as_of_ms: i64,
    /// Offsets below the topic's high watermarks that the store had not got to. Not all need to be records.
    pub behind_offsets: u64,
    /// Whether the store holds records below the topic's low watermarks: deleted there since.
    pub trimmed: bool,
}

/// How a store finds what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compared {
    /// Record by record, by key, timestamp and value, and by how many copies there are.
    Records,
    /// By how many there are in each bucket: none missing does not prove that they are the same.
    Counts,
}

/// A store of records, of the positions up to which they are there, and of receipts.
///
/// Times are in milliseconds since the epoch; a span is `[start_ms, end_ms)` and its buckets are counted from
/// `start_ms`. Topics are told by name, and mean the one of that name that was sunk last.
///
/// # Errors
/// All fail with [`Error::Failed`] where the store does not answer, or not as it should.
pub trait Store: Send {
    /// Takes the topic over: from here on, another run that still writes it fails. The first time for a
    /// partition, its position becomes its element of `starts`. Called again by the same store, it adds
    /// partitions that are new and takes nothing over. Returns each partition's next offset.
    ///
    /// # Errors
    /// [`Error::Fenced`] where another run took the topic over since.
    fn resume(&mut self, topic: TopicOf<'_>, starts: &[i64]) -> Result<Vec<i64>>;

    /// Stores the rows, and moves the next offsets: both or neither, as readers of positions see it.
    ///
    /// # Errors
    /// [`Error::Fenced`] where the positions are not those that this run left; nothing is stored twice then.
    fn write(&mut self, batch: Batch<'_>) -> Result<()>;

    /// Keeps where each partition of the topic began and ended at `as_of_ms` or later. What is told later replaces it.
    fn keep_watermarks(&mut self, topic: TopicOf<'_>, watermarks: &[Watermarks], as_of_ms: i64)
    -> Result<()>;

    /// By name.
    fn topics(&mut self) -> Result<Vec<TopicSummary>>;

    /// How many records each bucket holds, `(start_ms of the bucket, records)`; empty buckets are left out.
    fn timeline(&mut self, topic: &str, span: Span) -> Result<Vec<(i64, u64)>>;

    /// Top-level fields of the JSON values whose values repeat, as a sample has it: those that are worth a
    /// breakdown, the one with fewest values first.
    fn fields(&mut self, topic: &str) -> Result<Vec<String>>;

    /// The most frequent values of a top-level field, with their records.
    fn top(
        &mut self,
        topic: &str,
        field: &str,
        start_ms: i64,
        end_ms: i64,
        limit: usize,
    ) -> Result<Vec<(String, u64)>>;

    /// Records of the source, per bucket, of which the target has too few copies, of equal key, timestamp and
    /// value: each copy stands for one record. With [`Compared::Counts`], how many fewer the target's bucket holds.
    fn missing(&mut self, source: &str, target: &str, span: Span) -> Result<Vec<(i64, u64)>>;

    /// How [`Store::missing`] compares.
    fn compared(&self) -> Compared;

    /// The last receipts that were kept, newest first.
    fn receipts(&mut self, limit: usize) -> Result<Vec<serde_json::Value>>;

    fn keep_receipt(&mut self, receipt: &serde_json::Value) -> Result<()>;
}

/// `[start_ms, end_ms)`, in buckets of `bucket_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start_ms: i64,
    pub end_ms: i64,
    pub bucket_ms: i64,
}

/// Opens the store that `url` names, and makes its tables or indices where they are missing.
///
/// # Errors
/// [`Error::Usage`] for a URL that is none, [`Error::Failed`] where the store does not answer.
pub fn open(url: &str) -> Result<Box<dyn Store>> {
    if let Some(file) = url.strip_prefix("sqlite:").filter(|file| !file.is_empty()) {
        return Ok(Box::new(sql::SqlStore::new(sqlite::Sqlite::open(file)?)?));
    }
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Ok(Box::new(sql::SqlStore::new(postgres::Postgres::open(url)?)?));
    }
    if let Some(place) = url.strip_prefix("opensearch+http://").filter(|place| !place.is_empty()) {
        return Ok(Box::new(opensearch::OpenSearch::open(place)?));
    }
    // Not the URL itself, which may hold a password.
    Err(Error::usage(
        "--store takes sqlite:FILE, postgres://USER@HOST/DATABASE or opensearch+http://HOST:PORT".to_owned(),
    ))
}

/// The URL without what may be secret: a password, and parameters.
pub fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let rest = rest.split('?').next().unwrap_or_default();
    match rest.rsplit_once('@') {
        Some((user, place)) => format!("{scheme}://{}@{place}", user.split(':').next().unwrap_or_default()),
        None => format!("{scheme}://{rest}"),
    }
}

/// Keeps a run's receipt, with the time as its `at`, in the store that `url` names.
///
/// # Errors
/// As [`open()`] and [`Store::keep_receipt`].
pub fn keep_receipt(url: &str, receipt: &impl Serialize) -> Result<()> {
    let mut receipt = serde_json::to_value(receipt).map_err(|e| Error::io("the receipt", e))?;
    receipt["at"] = rfc3339(now_ms()).into();
    open(url)?.keep_receipt(&receipt)
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A name for one run, to own positions by.
fn new_owner() -> Result<String> {
    let word = || getrandom::u64().map_err(|e| Error::io("the system's random numbers", e));
    Ok(format!("{:016x}{:016x}", word()?, word()?))
}

fn fenced(topic: &str) -> Error {
    Error::fenced(format!(
        "another run sinks {topic} into this store and took over; nothing is lost or doubled: stop one of the two"
    ))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("sqlite:a/b.db", "sqlite:a/b.db")]
    #[case("postgres://me:hunter2@host/db?password=hunter2", "postgres://me@host/db")]
    #[case("opensearch+http://me:hunt@er2@host:9200", "opensearch+http://me@host:9200")]
    #[case("postgres://host/db", "postgres://host/db")]
    fn shown_without_secrets(#[case] url: &str, #[case] wanted: &str) {
        assert_eq!(shown(url), wanted);
    }

    #[rstest]
    #[case("")]
    #[case("sqlite:")]
    #[case("store.db")]
    #[case("mysql://me:hunter2@host/db")]
    #[case("postgres://me:hunter2@host/db?no_such=1")]
    fn a_url_that_is_none_names_the_forms(#[case] url: &str) {
        let Err(Error::Usage(message)) = open(url).map(drop) else { panic!("a usage error") };
        assert!(message.text.contains("postgres://USER@HOST/DATABASE"), "{message}");
        assert!(!message.text.contains("hunter2"), "{message}");
    }
}
