//! A store keeps topics so that people can query them. It holds each record once, whatever happens to the process that
//! sinks them.
//!
//! Exactly once works as follows. A topic's id, a partition and an offset identify a record. A SQL store writes the rows
//! and the next offsets in one database transaction. OpenSearch and Elasticsearch store the rows first, under ids that
//! cannot occur twice, and then the next offsets. A conditional update moves the next offsets: it names the offset they move from and the run
//! that owns them. If two runs write at once, one of them fails with [`Error::Fenced`].

mod opensearch;
mod postgres;
mod row;
mod running;
mod sql;
mod sqlite;
mod summary;

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

pub use row::{Content, Row};
pub use running::Keeping;

use crate::base::error::{Error, Result};
use crate::base::time::rfc3339;
use crate::base::url::{self, Url, advice};
use crate::kafka::watermarks::Watermarks;

/// A topic, identified by its id. If it is deleted and created again, it has another id. Topics in two clusters have
/// different ids, even if their names are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicOf<'a> {
    pub name: &'a str,
    /// The topic's id (KIP-516), in base64.
    pub id: &'a str,
    /// The brokers at which the sink reaches the topic's cluster. They only tell people topics of one name apart: one
    /// cluster may be reached at several addresses, and a later sink replaces them.
    pub bootstrap: &'a str,
}

/// Rows of a topic, and the next offsets after them.
#[derive(Clone, Copy, Debug)]
pub struct Advance<'a> {
    pub topic: TopicOf<'a>,
    pub rows: &'a [Row],
    /// One for each partition, in their order. Offsets without a record (transaction markers, aborted records) count too.
    pub moves: &'a [Move],
}

/// Moves the next offset of a partition from one value to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    pub partition: i32,
    pub from: i64,
    pub to: i64,
}

/// A summary of a topic in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopicSummary {
    pub topic: String,
    /// The topic's id (KIP-516), in base64.
    pub topic_id: String,
    /// The brokers at which the last sink reached the topic's cluster. `None` if only earlier versions of `sink` wrote
    /// the topic, because they did not store them.
    pub bootstrap_server: Option<String>,
    pub records: u64,
    /// The earliest timestamp, in milliseconds since the epoch; `None` if there is no record.
    pub first_ms: Option<i64>,
    pub last_ms: Option<i64>,
    /// `None` if the store does not know the ends of each partition. Earlier versions of `sink` did not store them.
    pub ends: Option<Ends>,
}

/// How far the store is behind the topic, from the watermarks that the sink stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ends {
    /// When the sink asked for the watermarks, in milliseconds since the epoch by its own clock.
    pub as_of_ms: i64,
    /// Offsets below the topic's high watermarks that the store had not reached. Some may not be records.
    pub behind_offsets: u64,
    /// Whether the store holds records below the topic's low watermarks, which were deleted from the topic.
    pub trimmed: bool,
}

/// Records of a topic that another topic lacks, in one bucket of time and one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lack {
    /// Where the bucket begins.
    pub start_ms: i64,
    /// If the copies of a record lie in several partitions, it is the last of them. `None` with [`Compared::Counts`].
    pub partition: Option<i32>,
    pub records: u64,
    /// Those of `records` of which the other topic has copies, but fewer.
    pub further: u64,
    /// The timestamps of the first and the last of these records. With [`Compared::Counts`], where the bucket begins and
    /// its last millisecond.
    pub first_ms: i64,
    pub last_ms: i64,
}

/// The way in which a store finds missing records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compared {
    /// Record by record: by key, timestamp and value, and by the number of copies.
    Records,
    /// By the number of records in each bucket. Equal numbers do not prove that the records are the same.
    Counts,
}

/// Stores records, the positions up to which they are complete, and receipts.
///
/// Times are in milliseconds since the epoch. A span is `[start_ms, end_ms)`, and its buckets begin at `start_ms`.
/// Questions name a topic by its id. The store has no records of an id that it does not know.
///
/// # Errors
/// All methods fail with [`Error::Failed`] if the store does not answer, or gives a wrong answer.
pub trait Store: Send {
    /// Takes the topic over: from now on, every other run that writes it fails. A partition that the store does not know
    /// yet starts at its element of `starts`. A second call on the same store only adds new partitions. Returns each
    /// partition's next offset.
    ///
    /// # Errors
    /// [`Error::Fenced`] if another run has taken the topic over meanwhile.
    fn resume(&mut self, topic: TopicOf<'_>, starts: &[i64]) -> Result<Vec<i64>>;

    /// Stores the rows and moves the next offsets. A reader of the positions sees both or neither.
    ///
    /// # Errors
    /// [`Error::Fenced`] if another run has changed the positions; then nothing is stored twice.
    fn write(&mut self, batch: Advance<'_>) -> Result<()>;

    /// Stores where each partition of the topic began and ended at `as_of_ms` or later. The next call replaces it.
    fn keep_watermarks(&mut self, topic: TopicOf<'_>, watermarks: &[Watermarks], as_of_ms: i64)
    -> Result<()>;

    /// Checks that the store answers and has the tables or indices of this program. It costs almost nothing.
    fn ping(&mut self) -> Result<()>;

    /// All topics, in the order of their names. Topics of one name are in the order in which a sink last took them over,
    /// the latest first.
    fn topics(&mut self) -> Result<Vec<TopicSummary>>;

    /// The number of records in each bucket, as `(start_ms of the bucket, records)`. Empty buckets are left out.
    fn timeline(&mut self, topic_id: &str, span: Span) -> Result<Vec<(i64, u64)>>;

    /// Top-level fields of the JSON values that are worth a breakdown, because their values repeat in a sample. The field
    /// with the fewest values comes first.
    fn fields(&mut self, topic_id: &str) -> Result<Vec<String>>;

    /// The most frequent values of a top-level field, with their numbers of records.
    fn top(
        &mut self,
        topic_id: &str,
        field: &str,
        start_ms: i64,
        end_ms: i64,
        limit: usize,
    ) -> Result<Vec<(String, u64)>>;

    /// The number of records in each partition that has some, in the order of the partitions.
    fn partitions(&mut self, topic_id: &str, start_ms: i64, end_ms: i64) -> Result<Vec<(i32, u64)>>;

    /// The topic's records without a copy in the other topic, in the order of time. A copy has the same key, timestamp
    /// and value, and counts for one record. With [`Compared::Counts`], this is the difference by which the other topic's
    /// bucket holds fewer records.
    fn lacks(&mut self, topic_id: &str, other_id: &str, span: Span) -> Result<Vec<Lack>>;

    /// How [`Store::lacks`] compares the topics.
    fn compared(&self) -> Compared;

    /// Until [`Store::release`], all answers are about this moment, whatever a sink writes meanwhile. OpenSearch cannot
    /// do that: its answers are about the moment of each question.
    fn hold(&mut self) -> Result<()>;

    /// Ends what [`Store::hold`] began.
    fn release(&mut self) -> Result<()>;

    /// The last kept receipts, newest first.
    fn receipts(&mut self, limit: usize) -> Result<Vec<serde_json::Value>>;

    /// Keeps the receipt of a run, in place of an earlier one of the same run. `run` is hexadecimal.
    fn keep_receipt(&mut self, run: &str, receipt: &serde_json::Value) -> Result<()>;
}

/// `[start_ms, end_ms)`, in buckets of `bucket_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start_ms: i64,
    pub end_ms: i64,
    pub bucket_ms: i64,
}

/// The kind of store that a URL names.
enum Kind<'a> {
    File(&'a str),
    Postgres(Url<'a>),
    /// OpenSearch or Elasticsearch.
    Search(Url<'a>),
}

impl Kind<'_> {
    fn of(url: &str) -> Result<Kind<'_>> {
        if let Some(file) = url.strip_prefix("sqlite:").filter(|file| !file.is_empty()) {
            return Ok(Kind::File(file));
        }
        // The message does not repeat the URL, which may hold a password.
        let wrong = |why: &str| {
            Error::usage(format!(
                "--store takes sqlite:FILE, postgres://USER@HOST/DATABASE, opensearch+https://HOST:PORT or \
                 elasticsearch+https://HOST:PORT{why}"
            ))
        };
        let Some(parts) = Url::parse(url) else {
            return Err(wrong(advice(url)));
        };
        match parts.scheme {
            "postgres" | "postgresql" => Ok(Kind::Postgres(parts)),
            "opensearch+http" | "opensearch+https" | "elasticsearch+http" | "elasticsearch+https"
                if !parts.hosts.is_empty() =>
            {
                Ok(Kind::Search(parts))
            }
            _ => Err(wrong("")),
        }
    }
}

/// Opens the store that `url` names, and creates missing tables or indices.
///
/// # Errors
/// [`Error::Usage`] if the URL is not valid, or would send a password in clear text; [`Error::Failed`] if the store does
/// not answer, or cannot prove its identity.
pub fn open(url: &str) -> Result<Box<dyn Store>> {
    Ok(match Kind::of(url)? {
        Kind::File(file) => Box::new(sql::SqlStore::new(sqlite::Sqlite::open(file)?)?),
        Kind::Postgres(url) => Box::new(sql::SqlStore::new(postgres::Postgres::open(&url)?)?),
        Kind::Search(url) => Box::new(opensearch::OpenSearch::open(&url)?),
    })
}

/// The URL without secrets.
pub fn shown(url: &str) -> String {
    if url.starts_with("sqlite:") { url.to_owned() } else { url::shown(url) }
}

/// Refuses a URL with a password in a flag, because the process list shows flags.
///
/// # Errors
/// [`Error::Usage`] if the URL has a password, or is not valid.
pub fn check_flag(url: &str) -> Result<()> {
    match Kind::of(url)? {
        Kind::Postgres(url) | Kind::Search(url) => url.check_flag("--store", "REPLICATOR_STORE"),
        Kind::File(_) => Ok(()),
    }
}

/// Keeps the receipt of a run that has ended in the store that `url` names, with the current time as `at`.
///
/// # Errors
/// As [`open()`] and [`Store::keep_receipt`].
pub fn keep_receipt(url: &str, receipt: &impl Serialize) -> Result<()> {
    let mut receipt = serde_json::to_value(receipt).map_err(|e| Error::io("the receipt", e))?;
    receipt["at"] = rfc3339(now_ms()).into();
    open(url)?.keep_receipt(&new_owner()?, &receipt)
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A random name by which one run owns positions.
fn new_owner() -> Result<String> {
    let word = || getrandom::u64().map_err(|e| Error::io("the system's random numbers", e));
    Ok(format!("{:016x}{:016x}", word()?, word()?))
}

fn fenced(topic: &str) -> Error {
    Error::fenced(format!(
        "another run that sinks {topic} into this store took over; nothing is lost or doubled; stop one of the two runs"
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
    #[case("elasticsearch+https://")]
    #[case("elasticsearch://me:hunter2@host:9200")]
    fn a_url_that_is_none_names_the_forms(#[case] url: &str) {
        let Err(Error::Usage(message)) = open(url).map(drop) else { panic!("a usage error") };
        assert!(message.text.contains("postgres://USER@HOST/DATABASE"), "{message}");
        assert!(!message.text.contains("hunter2"), "{message}");
    }
    #[rstest]
    #[case("postgres://me:hunter2@host/db", "REPLICATOR_STORE")]
    #[case("postgres://host/db?user=me&password=hunter2", "REPLICATOR_STORE")]
    #[case("opensearch+https://me:hunter2@host", "REPLICATOR_STORE")]
    #[case("elasticsearch+https://me:hunter2@host", "REPLICATOR_STORE")]
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
    #[case("elasticsearch+http://me:hunter2@10.1.2.3:9200", "use elasticsearch+https")]
    #[case("opensearch+http://127.0.0.1:1?ca=x", "opensearch+https")]
    #[case("elasticsearch+http://127.0.0.1:1?ca=x", "elasticsearch+https")]
    #[case("opensearch+https://host?c=x", "?ca=FILE")]
    fn no_password_in_clear_text(#[case] url: &str, #[case] says: &str) {
        let Err(Error::Usage(message)) = open(url).map(drop) else { panic!("a usage error") };
        assert!(message.text.contains(says) && !message.text.contains("hunter"), "{message}");
    }
}
