//! A store in a SQL database. All databases share this code, and almost all of the SQL.
//!
//! Parameters are `$1`, `$2`, …, and their first uses are in that order, because SQLite numbers them by first use.

use super::summary::{SAMPLE, SAMPLE_BYTES, repeating, scalars};
use super::{
    Advance, Compared, Ends, Lack, Row, Span, Store, TopicOf, TopicSummary, fenced, new_owner, now_ms,
};
use crate::base::error::{Error, Result};
use crate::base::range::id;
use crate::kafka::watermarks::Watermarks;

/// A connection to a SQL database.
pub(super) trait Database: Send + Sized {
    /// Begins a transaction that will change positions.
    const BEGIN: &'static str;
    /// Begins a transaction that only reads, and sees one moment.
    const HOLD: &'static str;
    /// The types for bytes, and for JSON that stays as it is written.
    const TYPES: (&'static str, &'static str);
    /// Selects the most frequent values of a field. Its parameters are topic id, field, start, end and limit.
    const TOP: &'static str;

    /// Runs statements without parameters.
    fn batch(&mut self, sql: &str) -> Result<()>;
    /// Returns how many rows it changed.
    fn execute(&mut self, sql: &str, parameters: &[Parameter<'_>]) -> Result<u64>;
    fn query(&mut self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Vec<Cell>>>;
    /// Inserts into `records`, in the fastest way of the database.
    fn insert(&mut self, topic: TopicOf<'_>, rows: &[Row]) -> Result<()>;

    /// Creates missing tables; two runs may do so at once.
    fn create(&mut self, schema: &str) -> Result<()> {
        self.transaction(|database| database.batch(schema))
    }

    fn transaction<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.batch(Self::BEGIN)?;
        let done = work(self).and_then(|done| self.batch("COMMIT").map(|()| done));
        if done.is_err() {
            // This fails if the connection is lost. Then the database rolls back by itself.
            let _ = self.batch("ROLLBACK");
        }
        done
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Parameter<'a> {
    Int(i64),
    Text(&'a str),
}

/// A value of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    Null,
    Int(i64),
    Text(String),
}

impl Cell {
    fn int(&self) -> Option<i64> {
        if let Cell::Int(int) = self { Some(*int) } else { None }
    }

    fn count(&self) -> Result<u64> {
        let count = self.int().and_then(|int| u64::try_from(int).ok());
        count.ok_or_else(|| Error::failed(format!("the store answered {self:?} instead of a count")))
    }

    fn time(&self) -> Result<i64> {
        self.int().ok_or_else(|| Error::failed(format!("the store answered {self:?} instead of a time")))
    }

    fn partition(&self) -> Result<i32> {
        let partition = self.int().and_then(|int| i32::try_from(int).ok()).filter(|int| *int >= 0);
        partition.ok_or_else(|| Error::failed(format!("the store answered {self:?} instead of a partition")))
    }

    fn text(&self) -> &str {
        if let Cell::Text(text) = self { text } else { "" }
    }
}

const SCHEMA: &str = r#"
CREATE TABLE IF NOT EXISTS records (
    topic_id TEXT NOT NULL, topic TEXT NOT NULL, partition BIGINT NOT NULL, "offset" BIGINT NOT NULL,
    time_ms BIGINT NOT NULL, key BYTEA, value JSON, raw BYTEA, headers JSON, digest BYTEA NOT NULL,
    PRIMARY KEY (topic_id, partition, "offset"));
CREATE INDEX IF NOT EXISTS records_by_time ON records (topic_id, time_ms, digest);
CREATE TABLE IF NOT EXISTS positions (
    topic_id TEXT NOT NULL, topic TEXT NOT NULL, partition BIGINT NOT NULL, next_offset BIGINT NOT NULL,
    records BIGINT NOT NULL, owner TEXT NOT NULL, since_ms BIGINT NOT NULL, PRIMARY KEY (topic_id, partition));
CREATE TABLE IF NOT EXISTS ends (
    topic_id TEXT NOT NULL, partition BIGINT NOT NULL, start_offset BIGINT NOT NULL, end_offset BIGINT NOT NULL,
    as_of_ms BIGINT NOT NULL, PRIMARY KEY (topic_id, partition));
CREATE TABLE IF NOT EXISTS topic_brokers (topic_id TEXT NOT NULL PRIMARY KEY, bootstrap_server TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS receipts (at_ms BIGINT NOT NULL, receipt TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (run TEXT NOT NULL PRIMARY KEY, at_ms BIGINT NOT NULL, receipt TEXT NOT NULL);
"#;

const TAKE: &str = "INSERT INTO positions (topic_id, topic, partition, next_offset, records, owner, since_ms) \
     VALUES ($1, $2, $3, $4, 0, $5, $6) ON CONFLICT (topic_id, partition) \
     DO UPDATE SET owner = excluded.owner, since_ms = excluded.since_ms";
const KEEP_BROKERS: &str = "INSERT INTO topic_brokers (topic_id, bootstrap_server) VALUES ($1, $2) \
     ON CONFLICT (topic_id) DO UPDATE SET bootstrap_server = excluded.bootstrap_server";
const POSITIONS: &str = "SELECT next_offset FROM positions WHERE topic_id = $1 ORDER BY partition";
const MOVE: &str = "UPDATE positions SET next_offset = $1, records = records + $2 \
     WHERE topic_id = $3 AND partition = $4 AND next_offset = $5 AND owner = $6";

const TOPICS: &str = "SELECT t.topic, t.topic_id, \
     (SELECT bootstrap_server FROM topic_brokers WHERE topic_id = t.topic_id), t.records, \
     (SELECT MIN(time_ms) FROM records WHERE topic_id = t.topic_id), \
     (SELECT MAX(time_ms) FROM records WHERE topic_id = t.topic_id) \
     FROM (SELECT topic, topic_id, CAST(SUM(records) AS BIGINT) AS records, MAX(since_ms) AS since_ms \
     FROM positions GROUP BY topic, topic_id) AS t ORDER BY t.topic, t.since_ms DESC, t.topic_id";
/// One statement, so that positions and ends are read at the same moment.
const ENDS: &str = "SELECT MIN(e.as_of_ms), \
     CAST(SUM(CASE WHEN e.end_offset > p.next_offset THEN e.end_offset - p.next_offset ELSE 0 END) AS BIGINT), \
     CAST(SUM(CASE WHEN (SELECT MIN(r.\"offset\") FROM records AS r WHERE r.topic_id = p.topic_id \
     AND r.partition = p.partition) < e.start_offset THEN 1 ELSE 0 END) AS BIGINT), COUNT(*) - COUNT(e.as_of_ms) \
     FROM positions AS p LEFT JOIN ends AS e ON e.topic_id = p.topic_id AND e.partition = p.partition \
     WHERE p.topic_id = $1";
const KEEP_ENDS: &str = "INSERT INTO ends (topic_id, partition, start_offset, end_offset, as_of_ms) \
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (topic_id, partition) DO UPDATE SET \
     start_offset = excluded.start_offset, end_offset = excluded.end_offset, as_of_ms = excluded.as_of_ms";
const TIMELINE: &str = "SELECT (time_ms - $1) / $2 * $2 + $1 AS bucket, COUNT(*) FROM records \
     WHERE topic_id = $3 AND time_ms >= $1 AND time_ms < $4 GROUP BY 1 ORDER BY 1";
const PARTITIONS: &str = "SELECT partition, COUNT(*) FROM records \
     WHERE topic_id = $1 AND time_ms >= $2 AND time_ms < $3 GROUP BY 1 ORDER BY 1";
/// Adds the records without a copy and the records with too few copies. Counting the copies of each record would give the
/// same result, but take several times as long.
const LACKS: &str = "SELECT (time_ms - $1) / $2 * $2 + $1 AS bucket, partition, CAST(SUM(lack) AS BIGINT), \
     CAST(SUM(further) AS BIGINT), MIN(time_ms), MAX(time_ms) FROM (\
     SELECT s.time_ms, s.partition, 1 AS lack, 0 AS further FROM records AS s \
     WHERE s.topic_id = $3 AND s.time_ms >= $1 AND s.time_ms < $4 \
     AND NOT EXISTS (SELECT 1 FROM records AS t WHERE t.topic_id = $5 AND t.time_ms = s.time_ms AND t.digest = s.digest) \
     UNION ALL SELECT m.time_ms, (SELECT MAX(p.partition) FROM records AS p WHERE p.topic_id = $3 \
     AND p.time_ms = m.time_ms AND p.digest = m.digest), m.lack, m.lack FROM (\
     SELECT s.time_ms, s.digest, s.copies - (SELECT COUNT(*) FROM records AS t WHERE t.topic_id = $5 \
     AND t.time_ms = s.time_ms AND t.digest = s.digest) AS lack FROM (\
     SELECT time_ms, digest, COUNT(*) AS copies FROM records \
     WHERE topic_id = $3 AND time_ms >= $1 AND time_ms < $4 GROUP BY time_ms, digest HAVING COUNT(*) > 1) AS s \
     WHERE EXISTS (SELECT 1 FROM records AS t WHERE t.topic_id = $5 AND t.time_ms = s.time_ms \
     AND t.digest = s.digest)) AS m WHERE m.lack > 0) AS lacks GROUP BY 1, 2 ORDER BY 1, 2";
const VALUES: &str = "SELECT CAST(value AS TEXT) FROM records \
     WHERE topic_id = $1 AND value IS NOT NULL AND CAST(LENGTH(CAST(value AS TEXT)) AS BIGINT) <= $2 ORDER BY time_ms DESC LIMIT $3";
/// Earlier versions kept receipts in a table without the run.
const RECEIPTS: &str = "SELECT receipt FROM (SELECT at_ms, receipt FROM runs UNION ALL \
     SELECT at_ms, receipt FROM receipts) AS kept ORDER BY at_ms DESC LIMIT $1";
const KEEP: &str = "INSERT INTO runs (run, at_ms, receipt) VALUES ($1, $2, $3) \
     ON CONFLICT (run) DO UPDATE SET at_ms = excluded.at_ms, receipt = excluded.receipt";

/// A [`Store`] in a database.
pub(super) struct SqlStore<D> {
    database: D,
    owner: String,
    /// The ids of the topics that this run took over.
    taken: Vec<String>,
}

impl<D: Database> SqlStore<D> {
    pub(super) fn new(mut database: D) -> Result<SqlStore<D>> {
        let (bytes, json) = D::TYPES;
        database.create(&SCHEMA.replace("BYTEA", bytes).replace("JSON", json))?;
        Ok(SqlStore { database, owner: new_owner()?, taken: Vec::new() })
    }

    fn ends(&mut self, topic_id: &str) -> Result<Option<Ends>> {
        let rows = self.database.query(ENDS, &[Parameter::Text(topic_id)])?;
        let Some([as_of, behind, trimmed, untold]) = rows.first().map(Vec::as_slice) else { return Ok(None) };
        let (Some(as_of_ms), 0) = (as_of.int(), untold.count()?) else { return Ok(None) };
        Ok(Some(Ends { as_of_ms, behind_offsets: behind.count()?, trimmed: trimmed.count()? > 0 }))
    }
}

impl<D: Database> Store for SqlStore<D> {
    fn resume(&mut self, topic: TopicOf<'_>, starts: &[i64]) -> Result<Vec<i64>> {
        use Parameter::{Int, Text};
        let is_ours = self.taken.iter().any(|id| id == topic.id);
        let take =
            if is_ours { format!("{TAKE} WHERE positions.owner = excluded.owner") } else { TAKE.to_owned() };
        let (owner, now) = (&self.owner, now_ms());
        let positions = self.database.transaction(|database| {
            // Take partitions in the same order as `write` does. Otherwise two runs could wait for each other for ever.
            for (partition, start) in starts.iter().enumerate() {
                let partition = i64::from(id(partition));
                let row =
                    [Text(topic.id), Text(topic.name), Int(partition), Int(*start), Text(owner), Int(now)];
                if database.execute(&take, &row)? != 1 {
                    return Err(fenced(topic.name));
                }
            }
            database.execute(KEEP_BROKERS, &[Text(topic.id), Text(topic.bootstrap)])?;
            database.query(POSITIONS, &[Text(topic.id)])
        })?;
        if !is_ours {
            self.taken.push(topic.id.to_owned());
        }
        Ok(positions.iter().filter_map(|row| row[0].int()).collect())
    }

    fn write(&mut self, batch: Advance<'_>) -> Result<()> {
        use Parameter::{Int, Text};
        let owner = &self.owner;
        self.database.transaction(|database| {
            // Move the positions before the rows. That locks them, so a run that was taken over does no more work.
            for moved in batch.moves {
                let rows = batch.rows.iter().filter(|row| row.partition == moved.partition).count();
                let rows = Int(i64::try_from(rows).unwrap_or(i64::MAX));
                let (partition, from, to) = (Int(moved.partition.into()), Int(moved.from), Int(moved.to));
                let row = [to, rows, Text(batch.topic.id), partition, from, Text(owner)];
                if database.execute(MOVE, &row)? != 1 {
                    return Err(fenced(batch.topic.name));
                }
            }
            database.insert(batch.topic, batch.rows)
        })
    }

    fn keep_watermarks(
        &mut self,
        topic: TopicOf<'_>,
        watermarks: &[Watermarks],
        as_of_ms: i64,
    ) -> Result<()> {
        use Parameter::{Int, Text};
        self.database.transaction(|database| {
            for (partition, Watermarks { low, high, .. }) in watermarks.iter().enumerate() {
                let partition = Int(id(partition).into());
                let row = [Text(topic.id), partition, Int(*low), Int(*high), Int(as_of_ms)];
                database.execute(KEEP_ENDS, &row)?;
            }
            Ok(())
        })
    }

    fn ping(&mut self) -> Result<()> {
        self.database.query("SELECT COUNT(*) FROM positions", &[]).map(drop)
    }

    fn topics(&mut self) -> Result<Vec<TopicSummary>> {
        let topics = self.database.query(TOPICS, &[])?;
        let summary = |row: &Vec<Cell>| {
            Ok(TopicSummary {
                topic: row[0].text().to_owned(),
                topic_id: row[1].text().to_owned(),
                bootstrap_server: Some(row[2].text()).filter(|at| !at.is_empty()).map(str::to_owned),
                records: row[3].count()?,
                first_ms: row[4].int(),
                last_ms: row[5].int(),
                ends: self.ends(row[1].text())?,
            })
        };
        topics.iter().map(summary).collect()
    }

    fn timeline(&mut self, topic_id: &str, span: Span) -> Result<Vec<(i64, u64)>> {
        use Parameter::{Int, Text};
        let parameters = [Int(span.start_ms), Int(span.bucket_ms.max(1)), Text(topic_id), Int(span.end_ms)];
        let rows = self.database.query(TIMELINE, &parameters)?;
        rows.iter().map(|row| Ok((row[0].time()?, row[1].count()?))).collect()
    }

    fn fields(&mut self, topic_id: &str) -> Result<Vec<String>> {
        use Parameter::{Int, Text};
        let values =
            self.database.query(VALUES, &[Text(topic_id), Int(SAMPLE_BYTES as i64), Int(SAMPLE as i64)])?;
        Ok(repeating(values.iter().flat_map(|row| scalars(row[0].text()))))
    }

    fn top(
        &mut self,
        topic_id: &str,
        field: &str,
        start_ms: i64,
        end_ms: i64,
        limit: usize,
    ) -> Result<Vec<(String, u64)>> {
        use Parameter::{Int, Text};
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let parameters = [Text(topic_id), Text(field), Int(start_ms), Int(end_ms), Int(limit)];
        let rows = self.database.query(D::TOP, &parameters)?;
        rows.iter().map(|row| Ok((row[0].text().to_owned(), row[1].count()?))).collect()
    }

    fn partitions(&mut self, topic_id: &str, start_ms: i64, end_ms: i64) -> Result<Vec<(i32, u64)>> {
        use Parameter::{Int, Text};
        let rows = self.database.query(PARTITIONS, &[Text(topic_id), Int(start_ms), Int(end_ms)])?;
        rows.iter().map(|row| Ok((row[0].partition()?, row[1].count()?))).collect()
    }

    fn lacks(&mut self, topic_id: &str, other_id: &str, span: Span) -> Result<Vec<Lack>> {
        use Parameter::{Int, Text};
        let (start, bucket, end) = (Int(span.start_ms), Int(span.bucket_ms.max(1)), Int(span.end_ms));
        let rows = self.database.query(LACKS, &[start, bucket, Text(topic_id), end, Text(other_id)])?;
        let lack = |row: &Vec<Cell>| {
            Ok(Lack {
                start_ms: row[0].time()?,
                partition: Some(row[1].partition()?),
                records: row[2].count()?,
                further: row[3].count()?,
                first_ms: row[4].time()?,
                last_ms: row[5].time()?,
            })
        };
        rows.iter().map(lack).collect()
    }

    fn hold(&mut self) -> Result<()> {
        self.database.batch(D::HOLD)
    }

    fn release(&mut self) -> Result<()> {
        self.database.batch("COMMIT")
    }

    fn compared(&self) -> Compared {
        Compared::Records
    }

    fn receipts(&mut self, limit: usize) -> Result<Vec<serde_json::Value>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.database.query(RECEIPTS, &[Parameter::Int(limit)])?;
        let parse =
            |row: &Vec<Cell>| serde_json::from_str(row[0].text()).map_err(|e| Error::io("a kept receipt", e));
        rows.iter().map(parse).collect()
    }

    fn keep_receipt(&mut self, run: &str, receipt: &serde_json::Value) -> Result<()> {
        use Parameter::{Int, Text};
        self.database.execute(KEEP, &[Text(run), Int(now_ms()), Text(&receipt.to_string())]).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use crate::sink::store::{Content, Move, open};

    use super::*;

    const A: TopicOf<'_> = TopicOf { name: "a", id: "id-of-a", bootstrap: "a:9092" };
    const B: TopicOf<'_> = TopicOf { name: "b", id: "id-of-b", bootstrap: "a:9092" };

    fn url(dir: &tempfile::TempDir) -> String {
        format!("sqlite:{}", dir.path().join("store").display())
    }

    /// Record `n` has the time of minute `n`.
    fn rows(numbers: impl Iterator<Item = i64>) -> Vec<Row> {
        let row = |n: i64| Row {
            partition: 0,
            offset: n,
            time_ms: n * 60_000,
            key: None,
            value: Content::Json(format!(r#"{{"id":"{n}","odd":{},"a \"name\"":{}}}"#, n % 2 == 1, n % 3)),
            headers: None,
            digest: [n as u8; 16],
        };
        numbers.map(row).collect()
    }

    fn write(store: &mut dyn Store, topic: TopicOf<'_>, rows: &[Row], from: i64, to: i64) -> Result<()> {
        store.write(Advance { topic, rows, moves: &[Move { partition: 0, from, to }] })
    }

    #[test]
    fn the_gap_and_the_rest() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut store = open(&url(&dir)).expect("opens");
        let span = Span { start_ms: 0, end_ms: 10 * 60_000, bucket_ms: 300_000 };
        assert_eq!(store.topics().expect("topics"), []);
        assert_eq!(store.resume(A, &[0]).expect("resumes"), [0]);
        assert_eq!(store.resume(B, &[0]).expect("resumes"), [0]);
        assert_eq!(store.lacks(A.id, B.id, span).expect("lacks"), []);
        write(store.as_mut(), A, &rows(0..10), 0, 11).expect("writes");
        write(store.as_mut(), B, &rows((0..10).filter(|n| !(3..6).contains(n))), 0, 7).expect("writes");
        let summary = |topic: &str, records| TopicSummary {
            topic: topic.into(),
            topic_id: format!("id-of-{topic}"),
            bootstrap_server: Some("a:9092".into()),
            records,
            first_ms: Some(0),
            last_ms: Some(540_000),
            ends: None,
        };
        assert_eq!(store.topics().expect("topics"), [summary("a", 10), summary("b", 7)]);
        assert_eq!(store.timeline(B.id, span).expect("timeline"), [(0, 3), (300_000, 4)]);
        let lack = |start_ms, records, first: i64, last: i64| Lack {
            start_ms,
            partition: Some(0),
            records,
            further: 0,
            first_ms: first * 60_000,
            last_ms: last * 60_000,
        };
        let lacks =
            |of: &str, other: &str, store: &mut dyn Store| store.lacks(of, other, span).expect("lacks");
        assert_eq!(lacks(A.id, B.id, store.as_mut()), [lack(0, 2, 3, 4), lack(300_000, 1, 5, 5)]);
        assert_eq!(lacks(B.id, A.id, store.as_mut()), []);
        assert_eq!(lacks(A.id, "none", store.as_mut()), [lack(0, 5, 0, 4), lack(300_000, 5, 5, 9)]);
        assert_eq!(store.partitions(B.id, 0, 300_000).expect("partitions"), [(0, 3)]);
        assert_eq!(store.fields(A.id).expect("fields"), ["odd", "a \"name\""]);
        let top = |field: &str, store: &mut dyn Store| store.top(A.id, field, 0, 600_000, 2).expect("top");
        assert_eq!(top("odd", store.as_mut()), [("false".into(), 5), ("true".into(), 5)]);
        assert_eq!(top("a \"name\"", store.as_mut()), [("0".into(), 4), ("1".into(), 3)]);
        assert_eq!(top("none", store.as_mut()), []);
        for n in 0..3 {
            store.keep_receipt(&n.to_string(), &serde_json::json!({"n": n})).expect("keeps");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        assert_eq!(
            store.receipts(2).expect("receipts"),
            [serde_json::json!({"n": 2}), serde_json::json!({"n": 1})]
        );
    }

    #[test]
    fn a_rival_takes_over_and_nothing_is_stored_twice() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut first, mut second) = (open(&url(&dir)).expect("opens"), open(&url(&dir)).expect("opens"));
        first.resume(A, &[5]).expect("resumes");
        write(first.as_mut(), A, &rows(5..7), 5, 7).expect("writes");
        assert_eq!(second.resume(A, &[0]).expect("resumes"), [7]);
        assert!(matches!(write(first.as_mut(), A, &rows(7..9), 7, 9), Err(Error::Fenced(_))));
        assert!(matches!(first.resume(A, &[0, 0]), Err(Error::Fenced(_))), "not taken back");
        write(second.as_mut(), A, &rows(7..9), 7, 9).expect("writes");
        assert!(matches!(write(second.as_mut(), A, &rows(7..9), 7, 9), Err(Error::Fenced(_))), "not twice");
        assert_eq!(second.resume(A, &[0, 3]).expect("a new partition"), [9, 3]);
        assert_eq!(second.topics().expect("topics")[0].records, 4);
    }

    #[test]
    fn a_topic_made_anew_is_another_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut store = open(&url(&dir)).expect("opens");
        store.resume(A, &[0]).expect("resumes");
        write(store.as_mut(), A, &rows(0..3), 0, 3).expect("writes");
        std::thread::sleep(std::time::Duration::from_millis(2));
        let anew = TopicOf { id: "another", ..A };
        assert_eq!(store.resume(anew, &[0]).expect("resumes"), [0]);
        write(store.as_mut(), anew, &rows(0..1), 0, 1).expect("writes");
        let summaries = store.topics().expect("topics");
        let of = |summary: &TopicSummary| (summary.topic_id.clone(), summary.records);
        assert_eq!(summaries.iter().map(of).collect::<Vec<_>>(), [("another".into(), 1), (A.id.into(), 3)]);
    }

    #[test]
    fn the_store_keeps_where_a_sink_last_reached_a_topic() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut store = open(&url(&dir)).expect("opens");
        let at = |store: &mut dyn Store| {
            let of = |summary: TopicSummary| (summary.topic_id, summary.bootstrap_server, summary.records);
            store.topics().expect("topics").into_iter().map(of).collect::<Vec<_>>()
        };
        store.resume(A, &[0]).expect("resumes");
        write(store.as_mut(), A, &rows(0..3), 0, 3).expect("writes");
        std::thread::sleep(std::time::Duration::from_millis(2));
        let elsewhere = TopicOf { id: "elsewhere", bootstrap: "b:9092", ..A };
        assert_eq!(store.resume(elsewhere, &[0]).expect("resumes"), [0]);
        let other = ("elsewhere".to_owned(), Some("b:9092".to_owned()), 0);
        assert_eq!(at(store.as_mut()), [other.clone(), (A.id.into(), Some("a:9092".into()), 3)]);
        std::thread::sleep(std::time::Duration::from_millis(2));
        let by_another_address = TopicOf { bootstrap: "localhost:9092", ..A };
        let mut later = open(&url(&dir)).expect("opens");
        assert_eq!(later.resume(by_another_address, &[0]).expect("resumes"), [3]);
        let here = (A.id.to_owned(), Some("localhost:9092".to_owned()), 3);
        assert_eq!(at(later.as_mut()), [here, other]);
        // An earlier version did not store it.
        let file = rusqlite::Connection::open(dir.path().join("store")).expect("opens");
        file.execute_batch("DROP TABLE topic_brokers").expect("dropped");
        let mut later = open(&url(&dir)).expect("opens");
        assert!(later.topics().expect("topics").iter().all(|topic| topic.bootstrap_server.is_none()));
    }

    #[test]
    fn the_ends_are_of_each_partition_and_of_one_life() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut store = open(&url(&dir)).expect("opens");
        let ends = |store: &mut dyn Store| store.topics().expect("topics")[0].ends;
        let told = |as_of_ms, behind_offsets, trimmed| Some(Ends { as_of_ms, behind_offsets, trimmed });
        store.resume(A, &[0, 5]).expect("resumes");
        write(store.as_mut(), A, &rows(0..3), 0, 3).expect("writes");
        assert_eq!(ends(store.as_mut()), None, "not told");
        let marks = |low, high| Watermarks { low, high, epoch: 0 };
        store.keep_watermarks(A, &[marks(0, 3)], 1000).expect("kept");
        assert_eq!(ends(store.as_mut()), None, "not told of the second partition");
        store.keep_watermarks(A, &[marks(0, 5), marks(5, 9)], 2000).expect("kept");
        assert_eq!(ends(store.as_mut()), told(2000, 2 + 4, false));
        // The store has read beyond the stored end. It is then 0 behind, not less: that must not hide the other partition.
        write(store.as_mut(), A, &rows(3..9), 3, 9).expect("writes");
        assert_eq!(ends(store.as_mut()), told(2000, 4, false));
        store.keep_watermarks(A, &[marks(1, 9), marks(5, 5)], 3000).expect("kept");
        assert_eq!(ends(store.as_mut()), told(3000, 0, true));
        std::thread::sleep(std::time::Duration::from_millis(2));
        store.resume(TopicOf { id: "another", ..A }, &[0, 0]).expect("resumes");
        assert_eq!(ends(store.as_mut()), None, "the topic was made anew");
    }
}
