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
mod tls;
mod url;

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

pub use row::{Content, Row};
pub use url::{is_local, shown, without_port};

use self::url::{AMBIGUOUS, StoreUrl};

use crate::base::error::{Error, Result};
use crate::base::time::rfc3339;
use crate::kafka::watermarks::Watermarks;

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

    /// Whether it answers at all, and has what this program made in it. Costs next to nothing.
    fn ping(&mut self) -> Result<()>;

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

/// What a URL names.
enum Place<'a> {
    File(&'a str),
    Postgres(StoreUrl<'a>),
    OpenSearch(StoreUrl<'a>),
}

impl Place<'_> {
    fn of(url: &str) -> Result<Place<'_>> {
        if let Some(file) = url.strip_prefix("sqlite:").filter(|file| !file.is_empty()) {
            return Ok(Place::File(file));
        }
        // Not the URL itself, which may hold a password.
        let wrong = |why: &str| {
            Error::usage(format!(
                "--store takes sqlite:FILE, postgres://USER@HOST/DATABASE or opensearch+https://HOST:PORT{why}"
            ))
        };
        let Some(parts) = StoreUrl::parse(url) else {
            return Err(wrong(&if url.contains("://") { format!("; {AMBIGUOUS}") } else { String::new() }));
        };
        match parts.scheme {
            "postgres" | "postgresql" => Ok(Place::Postgres(parts)),
            "opensearch+http" | "opensearch+https" if !parts.hosts.is_empty() => Ok(Place::OpenSearch(parts)),
            _ => Err(wrong("")),
        }
    }
}

/// Opens the store that `url` names, and makes its tables or indices where they are missing.
///
/// # Errors
/// [`Error::Usage`] for a URL that is none, or that would send a password in clear text; [`Error::Failed`] where the
/// store does not answer, or cannot prove who it is.
pub fn open(url: &str) -> Result<Box<dyn Store>> {
    Ok(match Place::of(url)? {
        Place::File(file) => Box::new(sql::SqlStore::new(sqlite::Sqlite::open(file)?)?),
        Place::Postgres(url) => Box::new(sql::SqlStore::new(postgres::Postgres::open(&url)?)?),
        Place::OpenSearch(url) => Box::new(opensearch::OpenSearch::open(&url)?),
    })
}

/// Refuses the URL of a flag where it holds a password: flags are seen in the process list.
///
/// # Errors
/// [`Error::Usage`] for a password, and for a URL that is none.
pub fn check_flag(url: &str) -> Result<()> {
    match Place::of(url)? {
        Place::Postgres(url) | Place::OpenSearch(url) if url.has_password() => Err(Error::usage(
            "--store: a flag is seen in the process list; put a URL with a password in the environment as REPLICATOR_STORE",
        )),
        _ => Ok(()),
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
    #[case("")]
    #[case("sqlite:")]
    #[case("store.db")]
    #[case("mysql://me:hunter2@host/db")]
    #[case("postgres://me:hunter2@host/db?no_such=1")]
    #[case("postgres://me:hunter2@host/db?sslmode=on")]
    #[case("postgres://me:hunter?2@host/db")]
    #[case("opensearch+http://")]
    fn a_url_that_is_none_names_the_forms(#[case] url: &str) {
        let Err(Error::Usage(message)) = open(url).map(drop) else { panic!("a usage error") };
        assert!(message.text.contains("postgres://USER@HOST/DATABASE"), "{message}");
        assert!(!message.text.contains("hunter2"), "{message}");
    }
    #[rstest]
    #[case("postgres://me:hunter2@host/db", "REPLICATOR_STORE")]
    #[case("postgres://host/db?user=me&password=hunter2", "REPLICATOR_STORE")]
    #[case("opensearch+https://me:hunter2@host", "REPLICATOR_STORE")]
    #[case("postgres://me:hunter?2@host/db", "%3F")]
    fn a_password_is_no_flag(#[case] url: &str, #[case] says: &str) {
        let Err(Error::Usage(message)) = check_flag(url) else { panic!("a usage error") };
        assert!(message.text.contains(says) && !message.text.contains("hunter"), "{message}");
    }

    #[test]
    fn a_flag_without_a_password_is_taken() {
        for url in ["sqlite:a:b@c", "postgres://me@host/db?sslmode=require", "opensearch+http://host:9200/p"]
        {
            check_flag(url).expect(url);
        }
    }

    #[rstest]
    #[case("opensearch+http://me:hunter2@search.example:9200", "clear text")]
    #[case("opensearch+http://me:hunter2@10.1.2.3:9200", "clear text")]
    #[case("opensearch+http://127.0.0.1:1?ca=x", "opensearch+https")]
    #[case("opensearch+https://host?c=x", "?ca=FILE")]
    fn no_password_in_clear_text(#[case] url: &str, #[case] says: &str) {
        let Err(Error::Usage(message)) = open(url).map(drop) else { panic!("a usage error") };
        assert!(message.text.contains(says) && !message.text.contains("hunter"), "{message}");
    }
}
