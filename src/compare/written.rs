//! The file of `verify --summary`: the sums of one topic's window. Pure, but for [`Summary::read`] and [`Summary::write`].
//!
//! Each record has a keyed 128-bit hash ([`Print`]), and a step of time holds the sum of its records' hashes modulo 2^128
//! (see [`super::sums`] for the odds). The key lies in the file, so the odds hold only against those who cannot read it.

use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::steps::{Merge, Steps};
use crate::base::error::{Error, Result};
use crate::base::file::{beside, written_beside};
use crate::base::time::rfc3339;
use crate::job::event_time::EventTime;
use crate::job::identity::Print;
use crate::job::window::{Edges, Window};

/// The value of `format`, by which the file is known.
const FORMAT: &str = "replicator summary";

/// Any change of the fields or of the hash needs another version.
const VERSION: u32 = 1;

/// The most steps of time: two hours have steps of two seconds then, and the file has at most 600 KB.
const STEPS: usize = 4096;

/// The most bytes of a file that is read at all.
const MOST: u64 = 64 << 20;

/// Only the owner: whoever knows the key can make other records with the same sums, and try what a record may hold.
const MODE: u32 = 0o600;

/// What the records of a step come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub records: u64,
    pub hashes: u128,
}

impl Sum {
    pub(super) fn add(&mut self, hash: u128) {
        self.merge(&Sum { records: 1, hashes: hash });
    }
}

impl Merge for Sum {
    fn merge(&mut self, other: &Sum) {
        self.records += other.records;
        self.hashes = self.hashes.wrapping_add(other.hashes);
    }
}

pub(super) type SumsByTime = Steps<Sum>;

/// How many records all steps have together.
pub(super) fn records(sums: &SumsByTime) -> u64 {
    sums.all().map(|sum| sum.records).sum()
}

/// No sums yet, with steps of at least 2^`shift` milliseconds.
pub(super) fn none_yet(shift: u32) -> SumsByTime {
    let mut sums = Steps::new(STEPS);
    sums.lengthen(shift);
    sums
}

/// The window of one topic, as it was when it was read.
pub(super) struct Summary {
    pub key: u128,
    pub source: String,
    pub topic_id: String,
    pub bootstrap: String,
    /// When the reading began, in milliseconds since the epoch.
    pub read_at: i64,
    pub window: Window,
    pub event_time: EventTime,
    /// Whether a schema registry was asked for the fields of values.
    pub has_registry: bool,
    pub sums: SumsByTime,
}

/// The file's text.
#[derive(Serialize, Deserialize)]
struct Form {
    format: String,
    version: u32,
    source: String,
    source_topic_id: String,
    source_bootstrap_server: String,
    /// For people.
    read_at: String,
    read_at_ms: i64,
    window: FormWindow,
    /// The field that holds the event time; null if it is the record's timestamp.
    time_field: Option<String>,
    /// Whether a schema registry was asked for it.
    schema_registry: bool,
    records: u64,
    /// The hash's key, as 32 hexadecimal digits.
    key: String,
    /// The hash of all else, by which a damaged file is known.
    check: String,
    step_ms: u64,
    steps: Vec<FormStep>,
}

#[derive(Serialize, Deserialize)]
struct FormWindow {
    /// For people.
    start: Option<String>,
    end: Option<String>,
    start_ms: Option<i64>,
    end_ms: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct FormStep {
    /// Null for records without event time.
    start_ms: Option<i64>,
    records: u64,
    /// 32 hexadecimal digits.
    sum: String,
}

/// What every version has.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
}

fn hex(number: u128) -> String {
    format!("{number:032x}")
}

fn of_hex(text: &str) -> Option<u128> {
    let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u128::from_str_radix(text, 16).ok().filter(|_| is_hex)
}

impl Form {
    /// Puts the check in, and returns the one that was there.
    ///
    /// # Errors
    /// If the form cannot be written as JSON.
    fn check(&mut self, key: u128) -> serde_json::Result<String> {
        let found = std::mem::take(&mut self.check);
        let all_else = serde_json::to_string(self)?;
        self.check = hex(Print::new(key).of_bytes(all_else.as_bytes()));
        Ok(found)
    }
}

impl Summary {
    /// # Errors
    /// [`Error::Failed`] if it cannot be written as JSON.
    fn text(&self) -> Result<String> {
        let Edges { start, end } = self.window.into();
        let steps = self.sums.by_start().into_iter().map(|(start_ms, sum)| FormStep {
            start_ms,
            records: sum.records,
            sum: hex(sum.hashes),
        });
        let mut form = Form {
            format: FORMAT.to_owned(),
            version: VERSION,
            source: self.source.clone(),
            source_topic_id: self.topic_id.clone(),
            source_bootstrap_server: self.bootstrap.clone(),
            read_at: rfc3339(self.read_at),
            read_at_ms: self.read_at,
            window: FormWindow { start, end, start_ms: self.window.start, end_ms: self.window.end },
            time_field: match &self.event_time {
                EventTime::Timestamp => None,
                EventTime::Field(pointer) => Some(pointer.as_str().to_owned()),
            },
            schema_registry: self.has_registry,
            records: records(&self.sums),
            key: hex(self.key),
            check: String::new(),
            step_ms: 1 << self.sums.shift(),
            steps: steps.collect(),
        };
        let text = form.check(self.key).and_then(|_| serde_json::to_string_pretty(&form));
        text.map(|text| text + "\n").map_err(|err| Error::io("the summary", err))
    }

    /// # Errors
    /// What is wrong with the text, and how to get a right one.
    fn parse(text: &str) -> std::result::Result<Summary, String> {
        const DAMAGED: &str = "is damaged: copy it once more, or write it again with verify --summary";
        let head: Head = serde_json::from_str(text).map_err(|err| match text.contains(FORMAT) {
            true => format!(
                "is cut or damaged ({err}): copy it once more, or write it again with verify --summary"
            ),
            false => "is no file of verify --summary: name one".to_owned(),
        })?;
        if head.format != FORMAT {
            return Err("is no file of verify --summary: name one".to_owned());
        }
        if head.version != VERSION {
            return Err(format!(
                "has version {} of the format, and this program reads version {VERSION}: use the same version of \
                 replicator on both sides",
                head.version
            ));
        }
        let mut form: Form = serde_json::from_str(text).map_err(|err| format!("{DAMAGED} ({err})"))?;
        let key = of_hex(&form.key).ok_or(DAMAGED)?;
        if form.check(key).ok().is_none_or(|check| check != form.check) {
            return Err(DAMAGED.to_owned());
        }
        let is_length = form.step_ms.is_power_of_two() && form.step_ms < 1 << 63;
        let shift = is_length.then(|| form.step_ms.trailing_zeros()).ok_or(DAMAGED)?;
        let mut sums = none_yet(shift);
        for step in &form.steps {
            let hashes = of_hex(&step.sum).ok_or(DAMAGED)?;
            sums.at(step.start_ms).merge(&Sum { records: step.records, hashes });
        }
        let FormWindow { start_ms: start, end_ms: end, .. } = form.window;
        Ok(Summary {
            key,
            source: form.source,
            topic_id: form.source_topic_id,
            bootstrap: form.source_bootstrap_server,
            read_at: form.read_at_ms,
            window: Window::new(start, end).map_err(|_| DAMAGED)?,
            has_registry: form.schema_registry,
            event_time: match form.time_field {
                None => EventTime::Timestamp,
                Some(pointer) => EventTime::Field(pointer.parse().map_err(|_| DAMAGED)?),
            },
            sums,
        })
    }

    /// # Errors
    /// [`Error::Usage`] says what is wrong with the file, and how to get a right one.
    pub(super) fn read(path: &Path) -> Result<Summary> {
        let mut bytes = Vec::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut bytes));
        let says = |why: String| Error::usage(format!("--against {} {why}", path.display()));
        read.map_err(|err| says(format!("cannot be read: {err}")))?;
        // Bytes that are no text are no JSON either.
        Summary::parse(&String::from_utf8_lossy(&bytes)).map_err(says)
    }

    /// Checks that [`Summary::write`] can write the file, before anything is read.
    ///
    /// # Errors
    /// [`Error::Usage`] if it is there already, or if its folder takes no file.
    pub(super) fn check_new(path: &Path) -> Result<()> {
        let says = |why: String| Error::usage(format!("--summary {} {why}", path.display()));
        if path.symlink_metadata().is_ok() {
            // The topic of the old one may be gone, so nobody could write it again.
            return Err(says("is there already: name a new file, or remove that one".to_owned()));
        }
        beside(path, MODE).map(drop).map_err(|err| {
            says(format!("cannot be written: {err}; name a file in a folder that this user may write to"))
        })
    }

    /// Writes the file in one step.
    ///
    /// # Errors
    /// [`Error::Failed`] if that fails, or if somebody else has written the file meanwhile.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let new = written_beside(path, MODE, &self.text()?);
        let kept = new.and_then(|new| new.persist_noclobber(path).map_err(|err| err.error));
        kept.map(drop).map_err(|err| Error::io(format!("--summary {}", path.display()), err))
    }
}

/// A stretch of time in which two topics differ. Between its edges, no step with records is equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stretch {
    /// In RFC 3339, half-open; both are null for the records without event time.
    pub start: Option<String>,
    pub end: Option<String>,
    pub in_source: u64,
    pub in_target: u64,
}

/// Where the sums differ, in order of time. If the steps of one side are longer, those of the other become so.
pub(super) fn stretches(source: &mut SumsByTime, target: &mut SumsByTime, window: Window) -> Vec<Stretch> {
    source.lengthen(target.shift());
    target.lengthen(source.shift());
    let length = 1_i64 << source.shift();
    let (ours, theirs) = (source.by_start(), target.by_start());
    let starts: std::collections::BTreeSet<Option<i64>> = ours.keys().chain(theirs.keys()).copied().collect();
    let mut found: Vec<Stretch> = Vec::new();
    let mut is_open = false;
    for start in starts {
        let sum = |of: &std::collections::BTreeMap<Option<i64>, &Sum>| {
            of.get(&start).map_or(Sum::default(), |sum| **sum)
        };
        let (ours, theirs) = (sum(&ours), sum(&theirs));
        if ours == theirs {
            is_open = false;
            continue;
        }
        let end = start.map(|start| start.saturating_add(length));
        let end = end.map(|end| rfc3339(window.end.map_or(end, |of_window| of_window.min(end))));
        match found.last_mut().filter(|_| is_open) {
            Some(last) => {
                last.end = end;
                last.in_source += ours.records;
                last.in_target += theirs.records;
            }
            None => found.push(Stretch {
                start: start
                    .map(|start| rfc3339(window.start.map_or(start, |of_window| of_window.max(start)))),
                end,
                in_source: ours.records,
                in_target: theirs.records,
            }),
        }
        // Records without event time are no part of any stretch of time.
        is_open = start.is_some();
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const WINDOW: Window = Window { start: Some(1000), end: Some(9000) };

    /// Few times, with few hashes for each.
    fn records_of() -> impl Strategy<Value = Vec<(Option<i64>, u8)>> {
        prop::collection::vec((prop::option::of(1000_i64..9000), 0_u8..3), 0..60)
    }

    fn sums(records: &[(Option<i64>, u8)], shift: u32) -> SumsByTime {
        let mut sums = none_yet(shift);
        for (time, content) in records {
            let text = format!("{time:?} {content}");
            sums.at(*time).add(Print::new(7).of_bytes(text.as_bytes()));
        }
        sums
    }

    fn summary(sums: SumsByTime) -> Summary {
        Summary {
            key: 7,
            source: "topicA".to_owned(),
            topic_id: "id".to_owned(),
            bootstrap: "a:9092".to_owned(),
            read_at: 1_618_398_000_123,
            window: WINDOW,
            event_time: EventTime::Field("/at".parse().expect("a pointer")),
            has_registry: true,
            sums,
        }
    }

    fn ordered(mut records: Vec<(Option<i64>, u8)>) -> Vec<(Option<i64>, u8)> {
        records.sort_unstable();
        records
    }

    proptest! {
        /// Whatever the lengths of both sides' steps, the stretches have all differences, and none if there is none.
        #[test]
        fn every_difference_lies_in_a_stretch(
            both in records_of(), a in records_of(), b in records_of(), shifts in (0_u32..15, 0_u32..15)
        ) {
            let [source, target] = [a, b].map(|own| [both.as_slice(), &own].concat());
            let (mut ours, mut theirs) = (sums(&source, shifts.0), sums(&target, shifts.1));
            let found = stretches(&mut ours, &mut theirs, WINDOW);
            prop_assert_eq!(found.is_empty(), ordered(source.clone()) == ordered(target.clone()));
            let millis = |text: &Option<String>| text.as_deref().and_then(crate::base::time::parse_instant);
            let within = |time: Option<i64>, stretch: &Stretch| {
                (millis(&stretch.start), millis(&stretch.end)) == (None, None) && time.is_none()
                    || time.is_some_and(|time| millis(&stretch.start) <= Some(time) && Some(time) < millis(&stretch.end))
            };
            let number = |of: &[(Option<i64>, u8)], record| of.iter().filter(|other| *other == record).count();
            for record in source.iter().chain(&target) {
                if number(&source, record) != number(&target, record) {
                    prop_assert_eq!(found.iter().filter(|stretch| within(record.0, stretch)).count(), 1);
                }
            }
            for stretch in &found {
                let count = |of: &[(Option<i64>, u8)]| of.iter().filter(|record| within(record.0, stretch)).count();
                let counted = (stretch.in_source, stretch.in_target);
                prop_assert_eq!(counted, (count(&source) as u64, count(&target) as u64));
            }
        }

        #[test]
        fn a_file_reads_back(records in records_of(), shift in 0_u32..40) {
            let written = summary(sums(&records, shift));
            let text = written.text().expect("text");
            let read = Summary::parse(&text).expect("a summary");
            prop_assert_eq!(text, read.text().expect("text"));
            prop_assert_eq!((read.key, read.window), (7, WINDOW));
            prop_assert!(read.sums.by_start() == written.sums.by_start());
        }

        /// No change of a single byte, and no cut, makes another summary of it.
        #[test]
        fn a_damaged_file_is_refused(at in 0_usize..1000, byte in any::<u8>(), cuts in any::<bool>()) {
            let text = summary(sums(&[(None, 1), (Some(1500), 2), (Some(8000), 1)], 3)).text().expect("text");
            let mut bytes = text.clone().into_bytes();
            let at = at % (bytes.len() - 2);
            if cuts { bytes.truncate(at) } else { bytes[at] = byte }
            if let Ok(read) = Summary::parse(&String::from_utf8_lossy(&bytes)) {
                prop_assert_eq!(read.text().expect("text"), text);
            }
        }
    }

    #[test]
    fn neighbours_are_one_stretch_and_equal_steps_divide_it() {
        let of = |records: &[(i64, u8)]| {
            let records: Vec<_> = records.iter().map(|(time, content)| (Some(*time), *content)).collect();
            sums(&records, 9)
        };
        let mut source = of(&[(1001, 0), (1600, 0), (5000, 0), (8999, 0), (8999, 0)]);
        let mut target = of(&[(5000, 0), (8999, 0)]);
        let found = stretches(&mut source, &mut target, WINDOW);
        let told: Vec<_> =
            found.iter().map(|s| (s.start.as_deref(), s.end.as_deref(), s.in_source, s.in_target)).collect();
        let wanted = [
            (Some("1970-01-01T00:00:01Z"), Some("1970-01-01T00:00:02.048Z"), 2, 0),
            (Some("1970-01-01T00:00:08.704Z"), Some("1970-01-01T00:00:09Z"), 2, 1),
        ];
        assert_eq!(told, wanted);
    }

    #[test]
    fn the_file_stays_small() {
        let mut sums = none_yet(0);
        for n in 0..100_000_i64 {
            sums.at(Some(n * 1733)).add(u128::MAX);
        }
        let text = summary(sums).text().expect("text");
        assert!(text.len() < 600_000, "{}", text.len());
        assert_eq!(records(&Summary::parse(&text).expect("a summary").sums), 100_000);
    }

    #[rstest]
    #[case("", "is no file of verify --summary")]
    #[case("{\"what\":\"missing\"}", "is no file of verify --summary")]
    #[case("{\"format\":\"other\",\"version\":1}", "is no file of verify --summary")]
    #[case("{\"format\":\"replicator summary\",\"version\":2}", "use the same version of replicator")]
    #[case("{\"format\":\"replicator summary\",\"version\":1}", "write it again with verify --summary")]
    #[case("{\"format\":\"replicator summary\",\"ver", "is cut or damaged")]
    fn what_is_wrong_with_a_file(#[case] text: &str, #[case] wanted: &str) {
        let told = Summary::parse(text).err().expect("refused");
        assert!(told.contains(wanted), "{told}");
    }
}
