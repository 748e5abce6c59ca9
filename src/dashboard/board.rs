//! Asks the store for everything that the page shows. Times are in milliseconds since the epoch.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::names;
use crate::base::error::Result;
use crate::sink::store::{Compared, Span, Store, TopicSummary};

/// A chart has at most about this many buckets.
const BUCKETS: i64 = 500;
/// The widths that a bucket can have, from a second to a week.
const WIDTHS: [i64; 16] = [
    1_000,
    5_000,
    10_000,
    15_000,
    30_000,
    60_000,
    120_000,
    300_000,
    600_000,
    900_000,
    1_800_000,
    3_600_000,
    10_800_000,
    21_600_000,
    86_400_000,
    604_800_000,
];
/// Parts of field names that people ask for first.
const TELLING: [&[&str]; 2] =
    [&["action", "event_type", "type", "kind"], &["user", "customer", "account", "device"]];
const RECEIPTS: usize = 10;
const VALUES: usize = 8;
/// How many values of the target are searched for those of the source.
const VALUES_OF_TARGET: usize = 200;
/// How many answers of each kind are kept. Each browser, and each reader of the metrics, has its own look.
const LOOKS: usize = 16;

/// The choice of a visitor: two topics by their [`names`], and a part of their time or all of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Look {
    pub source: String,
    pub target: String,
    pub start: Option<i64>,
    pub end: Option<i64>,
    /// Fields of the breakdowns, one in each line. For an empty line, the page chooses a field.
    pub field: String,
}

impl Default for Look {
    fn default() -> Look {
        let (source, target) = ("topicA".to_owned(), "topicB".to_owned());
        Look { source, target, start: None, end: None, field: String::new() }
    }
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Overview {
    /// The store's URL, without secrets.
    pub store: String,
    /// The [`names`] of all topics.
    pub topics: Vec<String>,
    /// `None` if the store does not hold the topic, or holds several of this name. Then nothing is known about it, which
    /// does not mean that it is empty.
    pub source: Option<TopicSummary>,
    pub target: Option<TopicSummary>,
    #[serde(flatten)]
    pub charts: Charts,
    /// The last receipts, newest first. `shown` has the names of their topics, or null if the store does not hold them.
    pub receipts: Vec<serde_json::Value>,
}

/// Counts of each bucket, in the order of time. They are `None` if the store does not hold a topic that they need.
/// Nothing is missing in a topic compared with itself, which proves nothing: then `missing_counts` are `None` too.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Charts {
    /// All three times are 0 if there is no record.
    pub start_ms: i64,
    pub end_ms: i64,
    pub bucket_ms: i64,
    pub source_counts: Option<Vec<u64>>,
    pub target_counts: Option<Vec<u64>>,
    pub missing_counts: Option<Vec<u64>>,
    /// Records of the source in this time.
    pub in_source: Option<u64>,
    /// Records of these that the target lacks, as far as the store knows. `compared` says how they were found.
    pub missing: Option<u64>,
    pub compared: Option<Compared>,
    pub gaps: Option<Vec<Gap>>,
}

/// Buckets in a row that lack records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Gap {
    pub start_ms: i64,
    pub end_ms: i64,
    pub missing: u64,
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
        let topics = self.store.topics()?;
        let [source, target] = both(look, &topics);
        let of = [&source, &target].map(|topic| topic.clone().map(|of| TopicSummary { ends: None, ..of }));
        // The charts have no fields.
        let charted = Look { field: String::new(), ..look.clone() };
        let charts = match self.charts.find(&charted, &of) {
            Some(charts) => charts,
            None => {
                let charts = self.chart(look, source.as_ref(), target.as_ref())?;
                self.charts.keep(charted, of, &charts);
                charts
            }
        };
        let named = names::of(&topics);
        let mut receipts = self.store.receipts(RECEIPTS)?;
        for receipt in receipts.iter_mut().filter_map(serde_json::Value::as_object_mut) {
            let of = |end: &str| {
                let text = |field: String| receipt.get(&field).and_then(serde_json::Value::as_str);
                let found = match text(format!("{end}_topic_id")) {
                    Some(id) => names::by_id(&topics, id),
                    None => names::find(&topics, text(end.to_owned())?),
                };
                let found = topics.iter().position(|topic| Some(topic) == found)?;
                named.get(found)
            };
            let shown = json!({ "source": of("source"), "target": of("target") });
            receipt.insert("shown".to_owned(), shown);
        }
        Ok(Overview { store: self.shown.clone(), topics: named, source, target, charts, receipts })
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
        let (source, target) = (source.map(|of| &of.topic_id), target.map(|of| &of.topic_id));
        let span = match first.zip(last) {
            Some((first, last)) => {
                span(look.start.unwrap_or(first), look.end.unwrap_or(last.saturating_add(1)))
            }
            None => Span { start_ms: 0, end_ms: 0, bucket_ms: 0 },
        };
        let mut counts = |topic: Option<&String>| {
            topic.map(|topic| Ok(dense(span, &self.store.timeline(topic, span)?))).transpose()
        };
        let (source_counts, target_counts) = (counts(source)?, counts(target)?);
        let missing = |(source, target): (&String, &String)| {
            Ok(dense(span, &self.store.missing(source, target, span)?))
        };
        let two = source.zip(target).filter(|(source, target)| source != target);
        let missing_counts = two.map(missing).transpose()?;
        let sum = |counts: &Option<Vec<u64>>| counts.as_ref().map(|counts| counts.iter().sum());
        let of_both = missing_counts.as_ref().zip(source_counts.as_ref());
        Ok(Charts {
            start_ms: span.start_ms,
            end_ms: span.end_ms,
            bucket_ms: span.bucket_ms,
            in_source: sum(&source_counts),
            missing: sum(&missing_counts),
            compared: missing_counts.as_ref().map(|_| self.store.compared()),
            gaps: of_both.map(|(missing, in_source)| gaps(span, missing, in_source)),
            source_counts,
            target_counts,
            missing_counts,
        })
    }

    /// # Errors
    /// As [`Store`].
    pub(super) fn breakdowns(&mut self, look: &Look) -> Result<Breakdowns> {
        let of =
            both(look, &self.store.topics()?).map(|topic| topic.map(|of| TopicSummary { ends: None, ..of }));
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

/// The look's two topics, if the store holds them.
fn both(look: &Look, topics: &[TopicSummary]) -> Topics {
    [&look.source, &look.target].map(|name| names::find(topics, name).cloned())
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

/// Buckets begin at whole multiples of their width, so that two looks at the same time have the same buckets.
fn span(start: i64, end: i64) -> Span {
    let end = end.max(start.saturating_add(1));
    let length = end.saturating_sub(start);
    let widest = WIDTHS[WIDTHS.len() - 1];
    let bucket = WIDTHS.into_iter().find(|width| length / width < BUCKETS);
    // For thousands of years, a bucket is several weeks wide.
    let bucket = bucket.unwrap_or_else(|| (length / BUCKETS / widest + 1) * widest);
    let start = start.div_euclid(bucket).saturating_mul(bucket);
    let buckets = (end.saturating_sub(start) - 1).div_euclid(bucket) + 1;
    Span { start_ms: start, end_ms: start.saturating_add(buckets.saturating_mul(bucket)), bucket_ms: bucket }
}

fn dense(span: Span, counts: &[(i64, u64)]) -> Vec<u64> {
    let buckets = (span.end_ms.saturating_sub(span.start_ms)) / span.bucket_ms.max(1);
    let mut dense = vec![0; usize::try_from(buckets).unwrap_or(0)];
    for (start, count) in counts {
        let place = usize::try_from(start.saturating_sub(span.start_ms) / span.bucket_ms.max(1));
        if let Some(bucket) = place.ok().and_then(|place| dense.get_mut(place)) {
            *bucket += count;
        }
    }
    dense
}

/// Buckets in a row that lack records are one gap. A bucket without records in the source does not end a gap.
fn gaps(span: Span, missing: &[u64], in_source: &[u64]) -> Vec<Gap> {
    let mut gaps: Vec<Gap> = Vec::new();
    let mut is_open = false;
    let mut end = span.start_ms;
    for (missing, in_source) in missing.iter().zip(in_source) {
        let start = end;
        end += span.bucket_ms;
        match gaps.last_mut() {
            _ if *missing == 0 => is_open &= *in_source == 0,
            Some(gap) if is_open => (gap.end_ms, gap.missing) = (end, gap.missing + missing),
            _ => {
                gaps.push(Gap { start_ms: start, end_ms: end, missing: *missing });
                is_open = true;
            }
        }
    }
    gaps
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sink::store::{self, Advance, Content, Move, Row, TopicOf};

    const TEN: i64 = 1_618_394_400_000; // 2021-04-14T10:00Z

    #[test]
    fn a_day_of_work_is_in_minutes() {
        let span = span(TEN + 12_345, TEN + 405 * 60_000);
        assert_eq!(span, Span { start_ms: TEN, end_ms: TEN + 405 * 60_000, bucket_ms: 60_000 });
        assert_eq!(dense(span, &[(TEN, 3), (TEN + 404 * 60_000, 4)]).len(), 405);
    }

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
            let look = Look { target: target.to_owned(), ..Look::default() };
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

    #[test]
    fn buckets_in_a_row_are_one_gap() {
        let span = Span { start_ms: 0, end_ms: 60, bucket_ms: 10 };
        let gap = |start_ms, end_ms, missing| Gap { start_ms, end_ms, missing };
        assert_eq!(gaps(span, &[1, 2, 0, 0, 3, 4], &[5; 6]), [gap(0, 20, 3), gap(40, 60, 7)]);
        assert_eq!(gaps(span, &[0, 2, 0, 0, 3, 0], &[1, 2, 0, 0, 3, 0]), [gap(10, 50, 5)]);
        assert_eq!(gaps(span, &[0; 6], &[0; 6]), []);
    }

    proptest! {
        #[test]
        fn a_span_covers_what_was_asked_in_few_buckets(start in -1i64 << 50..1i64 << 50, length in 0i64..1i64 << 50) {
            let span = span(start, start + length);
            prop_assert!(span.start_ms <= start && span.end_ms >= start + length);
            prop_assert_eq!((span.end_ms - span.start_ms) % span.bucket_ms, 0);
            prop_assert!((span.end_ms - span.start_ms) / span.bucket_ms <= BUCKETS + 1);
        }

        #[test]
        fn no_edge_overflows(start in any::<i64>(), end in any::<i64>()) {
            let span = span(start, end);
            prop_assert!(dense(span, &[(start, 1), (end, 1)]).len() <= 1000);
        }
    }
}
