//! Asks the store for everything that the page shows. Times are in milliseconds since the epoch.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::charts::{Charts, Differences, Known, span};
use super::names;
use super::pair::{self, Pair};
use crate::base::error::Result;
use crate::sink::store::{Span, Store, TopicSummary, now_ms};

/// Parts of field names that people ask for first.
const TELLING: [&[&str]; 2] =
    [&["action", "event_type", "type", "kind"], &["user", "customer", "account", "device"]];
/// How many runs the page shows, and in how many kept receipts it looks for those of its pair.
const RUNS: usize = 10;
const RECEIPTS: usize = 200;
const VALUES: usize = 8;
/// How many values of the target are searched for those of the source.
const VALUES_OF_TARGET: usize = 200;
/// How many answers of each kind are kept. Each browser, and each reader of the metrics, has its own look.
const LOOKS: usize = 16;

/// The choice of a visitor: two topics by their [`names`], and a part of their time or all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Look {
    /// If both names are empty, the page chooses a [`Pair`].
    pub source: String,
    pub target: String,
    pub start: Option<i64>,
    pub end: Option<i64>,
    /// Fields of the breakdowns, one in each line. For an empty line, the page chooses a field.
    pub field: String,
}

impl Look {
    /// Whether the page chooses the topics.
    fn names_no_topic(&self) -> bool {
        self.source.is_empty() && self.target.is_empty()
    }
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Overview {
    /// The store's URL, without secrets.
    pub store: String,
    /// The present time by this machine's clock.
    pub now_ms: i64,
    /// The [`names`] of all topics.
    pub topics: Vec<String>,
    pub pair: Pair,
    /// `None` if the store does not hold the topic, or holds several of this name. Then nothing is known about it, which
    /// does not mean that it is empty.
    pub source: Option<TopicSummary>,
    pub target: Option<TopicSummary>,
    #[serde(flatten)]
    pub charts: Charts,
    /// The command that fills all gaps. `None` if there is no gap.
    pub command: Option<String>,
    /// The last kept receipts of this pair, newest first. `shown` has the names of their topics, or null if the store does
    /// not hold them.
    pub receipts: Vec<Json>,
    /// How many of the store's last receipts are of other pairs.
    pub receipts_of_others: usize,
    /// Whether the store may hold earlier receipts, in which nobody looked for those of this pair.
    pub has_earlier_receipts: bool,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Breakdowns {
    /// The fields that a visitor can choose.
    pub fields: Vec<String>,
    pub breakdowns: Vec<Breakdown>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Breakdown {
    pub field: String,
    pub values: Vec<Value>,
}

/// How many records have a field's value.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Value {
    pub value: String,
    pub source: u64,
    /// `None` if the store does not hold the target, or if the value may be too rare for the target's list of values.
    pub target: Option<u64>,
}

/// The state of both topics when an answer was made. Finding what is missing reads all their records, so an answer is kept
/// until that state changes.
type Topics = [Option<TopicSummary>; 2];

/// Kept answers. The one that was used last is at the end.
struct Kept<T>(VecDeque<(Look, Topics, T)>);

impl<T: Clone> Kept<T> {
    /// Finds the answer for this look. If the topics have changed, the answer is dropped.
    fn find(&mut self, look: &Look, topics: &Topics) -> Option<T> {
        let at = self.0.iter().position(|(of, ..)| of == look)?;
        let kept = self.0.remove(at).filter(|(_, before, _)| before == topics)?;
        let answer = kept.2.clone();
        self.0.push_back(kept);
        Some(answer)
    }

    fn keep(&mut self, look: Look, topics: Topics, answer: &T) {
        self.0.push_back((look, topics, answer.clone()));
        if self.0.len() > LOOKS {
            self.0.pop_front();
        }
    }
}

/// The store, and its last answers.
pub(super) struct Board {
    store: Box<dyn Store>,
    shown: String,
    charts: Kept<Charts>,
    breakdowns: Kept<Breakdowns>,
}

impl Board {
    /// `shown` is the store's URL without secrets.
    pub(super) fn new(store: Box<dyn Store>, shown: String) -> Board {
        Board { store, shown, charts: Kept(VecDeque::new()), breakdowns: Kept(VecDeque::new()) }
    }

    /// Goes on with a new connection to the same store.
    pub(super) fn reopen(&mut self, store: Box<dyn Store>) {
        self.store = store;
    }

    /// # Errors
    /// As [`Store`].
    pub(super) fn ping(&mut self) -> Result<()> {
        self.store.ping()
    }

    /// # Errors
    /// As [`Store`].
    pub(super) fn overview(&mut self, look: &Look) -> Result<Overview> {
        self.at_one_moment(|board| board.look_over(look))
    }

    fn at_one_moment<T>(&mut self, work: impl FnOnce(&mut Board) -> Result<T>) -> Result<T> {
        self.store.hold()?;
        let done = work(self);
        let released = self.store.release();
        // After a failure, the store is opened anew.
        let done = done?;
        released.map(|()| done)
    }

    /// The store's last receipts, with the names of their topics.
    fn ask_receipts(&mut self, topics: &[TopicSummary]) -> Result<Vec<Json>> {
        let mut receipts = self.store.receipts(RECEIPTS)?;
        pair::annotate(&mut receipts, topics);
        Ok(receipts)
    }

    fn look_over(&mut self, look: &Look) -> Result<Overview> {
        let topics = self.store.topics()?;
        let mut receipts = self.ask_receipts(&topics)?;
        let pair = Pair::choose(&look.source, &look.target, &topics, &receipts);
        let has_earlier_receipts = receipts.len() >= RECEIPTS;
        let searched = receipts.len();
        receipts.retain(|receipt| pair.is_of(receipt, &topics));
        let receipts_of_others = searched - receipts.len();
        receipts.truncate(RUNS);
        let [source, target] = both(&pair, &topics);
        let of = [&source, &target].map(|topic| topic.clone().map(|of| TopicSummary { ends: None, ..of }));
        // The charts have no fields.
        let charted = Look {
            source: pair.source.clone(),
            target: pair.target.clone(),
            field: String::new(),
            ..look.clone()
        };
        let charts = match self.charts.find(&charted, &of) {
            Some(charts) => charts,
            None => {
                let charts = self.chart(look, source.as_ref(), target.as_ref())?;
                self.charts.keep(charted, of, &charts);
                charts
            }
        };
        let gaps = charts.gaps.as_deref().unwrap_or_default();
        let command = match (gaps, source.as_ref().zip(target.as_ref())) {
            ([first, ..], Some((source, target))) => {
                let end = gaps.last().unwrap_or(first).last_ms.saturating_add(1);
                Some(pair::command(source, target, first.first_ms, end))
            }
            _ => None,
        };
        Ok(Overview {
            store: self.shown.clone(),
            now_ms: now_ms(),
            topics: names::of(&topics),
            pair,
            source,
            target,
            charts,
            command,
            receipts,
            receipts_of_others,
            has_earlier_receipts,
        })
    }

    fn chart(
        &mut self,
        look: &Look,
        source: Option<&TopicSummary>,
        target: Option<&TopicSummary>,
    ) -> Result<Charts> {
        let both = || [source, target].into_iter().flatten();
        let first = both().filter_map(|topic| topic.first_ms).min();
        let last = both().filter_map(|topic| topic.last_ms).max();
        let ids = [source, target].map(|topic| topic.map(|of| of.topic_id.as_str()));
        let span = match first.zip(last) {
            Some((first, last)) => {
                span(look.start.unwrap_or(first), look.end.unwrap_or(last.saturating_add(1)))
            }
            None => Span { start_ms: 0, end_ms: 0, bucket_ms: 0 },
        };
        let store = self.store.as_mut();
        let mut counts = |id: Option<&str>| id.map(|id| store.timeline(id, span)).transpose();
        let (source_counts, target_counts) = (counts(ids[0])?, counts(ids[1])?);
        let mut partitions =
            |id: Option<&str>| id.map(|id| store.partitions(id, span.start_ms, span.end_ms)).transpose();
        let (source_partitions, target_partitions) = (partitions(ids[0])?, partitions(ids[1])?);
        let [source_id, target_id] = ids;
        let compared = match source_id.zip(target_id).filter(|(source, target)| source != target) {
            None => None,
            Some((source, target)) => {
                let missing = store.lacks(source, target, span)?;
                let sum =
                    |counts: &Option<Vec<(i64, u64)>>| counts.iter().flatten().map(|of| of.1).sum::<u64>();
                let lacking: u64 = missing.iter().map(|lack| lack.records).sum();
                // If the counts add up without a surplus, there is none.
                let adds_up = sum(&target_counts) + lacking == sum(&source_counts);
                let surplus = if adds_up { Vec::new() } else { store.lacks(target, source, span)? };
                Some(Differences { by: store.compared(), missing, surplus })
            }
        };
        let known = Known {
            span,
            source: source_counts,
            target: target_counts,
            source_partitions,
            target_partitions,
            compared,
        };
        let mut charts = known.charts();
        for gap in charts.gaps.iter_mut().flatten() {
            if let Some((source, target)) = source.zip(target) {
                gap.command =
                    Some(pair::command(source, target, gap.first_ms, gap.last_ms.saturating_add(1)));
            }
        }
        Ok(charts)
    }

    /// # Errors
    /// As [`Store`].
    pub(super) fn breakdowns(&mut self, look: &Look) -> Result<Breakdowns> {
        self.at_one_moment(|board| board.break_down(look))
    }

    fn break_down(&mut self, look: &Look) -> Result<Breakdowns> {
        let topics = self.store.topics()?;
        // The page names the topics, so this rarely asks for all those receipts.
        let receipts = if look.names_no_topic() { self.ask_receipts(&topics)? } else { Vec::new() };
        let pair = Pair::choose(&look.source, &look.target, &topics, &receipts);
        let of = both(&pair, &topics).map(|topic| topic.map(|of| TopicSummary { ends: None, ..of }));
        if let Some(kept) = self.breakdowns.find(look, &of) {
            return Ok(kept);
        }
        let [source_id, target_id] = of.each_ref().map(|of| of.as_ref().map(|of| of.topic_id.as_str()));
        let Some(source_id) = source_id else {
            return Ok(Breakdowns { fields: Vec::new(), breakdowns: Vec::new() });
        };
        let fields = self.store.fields(source_id)?;
        let chosen = choose(&fields, &look.field);
        let (start, end) = (look.start.unwrap_or(i64::MIN), look.end.unwrap_or(i64::MAX));
        let mut breakdowns = Vec::new();
        for field in chosen {
            let source = self.store.top(source_id, field, start, end, VALUES)?;
            let mut top = |id| self.store.top(id, field, start, end, VALUES_OF_TARGET);
            let target = target_id.map(&mut top).transpose()?;
            let in_target = |value: &str| {
                let target = target.as_ref()?;
                let found =
                    target.iter().find(|(of_target, _)| of_target == value).map(|(_, records)| *records);
                // If the list is not full, it holds all values of the target. Then an absent value has 0 records.
                found.or((target.len() < VALUES_OF_TARGET).then_some(0))
            };
            let values = source
                .into_iter()
                .map(|(value, source)| Value { target: in_target(&value), value, source })
                .collect();
            breakdowns.push(Breakdown { field: field.clone(), values });
        }
        let found = Breakdowns { fields, breakdowns };
        self.breakdowns.keep(look.clone(), of, &found);
        Ok(found)
    }
}

/// The pair's two topics, if the store holds them.
fn both(pair: &Pair, topics: &[TopicSummary]) -> Topics {
    [&pair.source, &pair.target].map(|name| names::find(topics, name).cloned())
}

/// Chooses two fields: the `wanted` ones, one in each line. For a line that names no field, names decide: the first
/// field should say what was done, and the second who did it.
fn choose<'f>(fields: &'f [String], wanted: &str) -> Vec<&'f String> {
    let mut chosen: Vec<&String> = Vec::new();
    for (number, telling) in TELLING.iter().enumerate() {
        let wanted = wanted.lines().nth(number).unwrap_or_default();
        let tells = |field: &&String| telling.iter().any(|part| field.to_lowercase().contains(part));
        let free = || fields.iter().filter(|field| !chosen.contains(field));
        let field = fields.iter().find(|field| *field == wanted);
        chosen.extend(field.or_else(|| free().find(tells)).or_else(|| free().next()));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::store::{self, Advance, Content, Move, Row, TopicOf};

    const TEN: i64 = 1_618_394_400_000; // 2021-04-14T10:00Z

    #[test]
    fn breaks_down_by_what_is_asked_for_else_by_what_tells() {
        let fields = ["network", "codec", "user_id", "action"].map(str::to_owned);
        assert_eq!(choose(&fields, ""), ["action", "user_id"]);
        assert_eq!(choose(&fields, "codec\n"), ["codec", "user_id"]);
        assert_eq!(choose(&fields, "nothing\naction"), ["action", "action"]);
        assert_eq!(choose(&fields[..2], ""), ["network", "codec"]);
        assert!(choose(&[], "x").is_empty());
    }

    #[test]
    fn a_value_among_too_many_is_not_known() {
        let dir = tempfile::tempdir().expect("a directory");
        let url = format!("sqlite:{}", dir.path().join("store").display());
        let mut sunk = store::open(&url).expect("opens");
        let mut write = |name: &str, values: &mut dyn Iterator<Item = String>| {
            let row = |(offset, value): (i64, String)| Row {
                partition: 0,
                offset,
                time_ms: TEN,
                key: None,
                value: Content::Json(format!(r#"{{"kind":"{value}"}}"#)),
                headers: None,
                digest: [0; 16],
            };
            let rows: Vec<Row> = (0..).zip(values).map(row).collect();
            let topic = TopicOf { name, id: name, bootstrap: "a:9092" };
            sunk.resume(topic, &[0]).expect("resumes");
            let to = i64::try_from(rows.len()).expect("fits");
            let moves = [Move { partition: 0, from: 0, to }];
            sunk.write(Advance { topic, rows: &rows, moves: &moves }).expect("writes");
        };
        let often = |values: usize| (0..2 * values).map(|n| format!("v{}", n / 2));
        write("topicA", &mut ["rare", "rare"].map(str::to_owned).into_iter());
        write("many", &mut often(VALUES_OF_TARGET).chain(["rare".to_owned()]));
        write("few", &mut often(VALUES_OF_TARGET - 1));
        let mut board = Board::new(store::open(&url).expect("opens"), url);
        let mut of = |target: &str| {
            let look = Look { source: "topicA".to_owned(), target: target.to_owned(), ..Look::default() };
            board.breakdowns(&look).expect("breakdowns").breakdowns[0].values[0].target
        };
        assert_eq!((of("many"), of("few"), of("none")), (None, Some(0), None));
    }

    #[test]
    fn each_look_keeps_its_answer_until_a_record_comes() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("store");
        let url = format!("sqlite:{}", file.display());
        let mut sunk = store::open(&url).expect("opens");
        let row = |offset| Row {
            partition: 0,
            offset,
            time_ms: TEN + offset,
            key: None,
            value: Content::Json(r#"{"action":"play"}"#.to_owned()),
            headers: None,
            digest: [0; 16],
        };
        let mut write = |name, from: i64, to: i64| {
            let (topic, rows) =
                (TopicOf { name, id: name, bootstrap: "a:9092" }, (from..to).map(row).collect::<Vec<_>>());
            sunk.resume(topic, &[0]).expect("resumes");
            let moves = [Move { partition: 0, from, to }];
            sunk.write(Advance { topic, rows: &rows, moves: &moves }).expect("writes");
        };
        write("topicA", 0, 9);
        write("topicB", 0, 3);
        let mut board = Board::new(store::open(&url).expect("opens"), url.clone());
        let zoomed = Look { start: Some(TEN), end: Some(TEN + 9), ..Look::default() };
        let mut seen = |look: &Look| {
            let values = board.breakdowns(look).expect("breakdowns").breakdowns;
            let actions = values.first().and_then(|of| of.values.first()).map(|value| value.source);
            (board.overview(look).expect("an overview").charts.in_source, actions)
        };
        let first = [seen(&Look::default()), seen(&zoomed)];
        assert_eq!(first, [(Some(9), Some(9)); 2]);
        // Delete a record behind the board's back. The topic's edges stay the same, so only a new question would show it.
        let behind = rusqlite::Connection::open(&file).expect("opens");
        behind.execute("DELETE FROM records WHERE topic = 'topicA' AND \"offset\" = 4", []).expect("deleted");
        for _ in 0..2 {
            assert_eq!([seen(&Look::default()), seen(&zoomed)], first, "not asked again");
        }
        for other in 0..LOOKS as i64 {
            seen(&Look { start: Some(TEN + other), ..Look::default() });
        }
        assert_eq!(seen(&zoomed), (Some(8), Some(8)), "the number of looks is bounded");
        assert_eq!(seen(&Look::default()), (Some(8), Some(8)));
        write("topicA", 9, 10);
        assert_eq!(seen(&Look::default()), (Some(9), Some(9)), "a record came");
    }

    /// There may be 200 of them, each with its examples, and the page asks for breakdowns often.
    #[test]
    fn a_breakdown_of_named_topics_needs_no_receipts() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("store");
        let url = format!("sqlite:{}", file.display());
        let mut board = Board::new(store::open(&url).expect("opens"), url.clone());
        let behind = rusqlite::Connection::open(&file).expect("opens");
        behind.execute_batch("DROP TABLE runs; DROP TABLE receipts").expect("dropped");
        let named = Look { source: "a".to_owned(), target: "b".to_owned(), ..Look::default() };
        assert!(board.breakdowns(&named).is_ok());
        assert!(board.breakdowns(&Look::default()).is_err(), "it chooses the topics of the last run");
        assert!(board.overview(&named).is_err(), "it shows the runs");
    }
}
