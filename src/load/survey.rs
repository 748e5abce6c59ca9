//! The first reading of a file. It finds out what the file holds and whether all of it can be loaded. It writes nothing.

use std::collections::BTreeSet;

use chrono::NaiveDate;

use super::Loading;
use super::fields::Fields;
use super::guess::{Guess, KEY_SAMPLE};
use super::input::{Documents, Input, Place};
use crate::base::error::{Error, Reason, Result};
use crate::base::interrupt::Interrupt;
use crate::base::progress::Progress;
use crate::base::zone::{Tz, day_of};
use crate::job::window::Window;

/// A refusal names at most this many malformed documents.
const NAMED: usize = 5;
/// A message lists at most this many days.
const DAYS: usize = 31;
/// Documents between two checks for an interrupt.
const ROUND: u64 = 1024;

/// A summary of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Survey {
    /// SHA-256 of the decompressed content, in hex.
    pub digest: String,
    /// Lines that are not blank, or elements of the array.
    pub documents: u64,
    pub invalid: u64,
    pub without_key: u64,
    /// First and last event, in milliseconds since the epoch; `None` if there is no event.
    pub span: Option<(i64, i64)>,
    /// The UTC days of the events; no more are added once there are more than [`DAYS`].
    pub days: BTreeSet<NaiveDate>,
}

/// The given fields. A field that is not given is guessed.
///
/// # Errors
/// [`Error::Usage`] if a field is not given and cannot be guessed; otherwise as [`survey`].
pub(super) fn fields(input: &Input, loading: &Loading, interrupt: &Interrupt) -> Result<Fields> {
    if let (Some(key), Some(time)) = (&loading.given.key_field, &loading.given.time_field) {
        return Ok(Fields::new(key.clone(), time.clone()));
    }
    let mut guess = Guess::default();
    let mut faults = Faults::new(input, loading.skip_invalid);
    let mut documents = input.documents(&indicatif::ProgressBar::hidden())?;
    while documents.passed() < KEY_SAMPLE {
        pause(&documents, interrupt)?;
        let Some(document) = documents.next()? else { break };
        if let Err(why) = guess.look_at(document.bytes) {
            faults.add(document.place, &why);
        }
    }
    if documents.passed() == 0 {
        return Err(nothing(input));
    }
    faults.verdict(documents.passed())?;
    let time = loading.given.time_field.clone().map_or_else(|| guess.time(), Ok)?;
    let key = loading.given.key_field.clone().map_or_else(|| guess.key(), Ok)?;
    Ok(Fields::new(key, time))
}

/// Reads the whole file.
///
/// # Errors
/// [`Error::Refused`] names the first documents that are not events, unless `skip_invalid`. It also refuses a file that
/// has no event or cannot be read to its end. [`Error::Interrupted`].
pub(super) fn survey(
    input: &Input,
    fields: &Fields,
    skip_invalid: bool,
    progress: Progress,
    interrupt: &Interrupt,
) -> Result<Survey> {
    let mut survey = Survey::default();
    let mut faults = Faults::new(input, skip_invalid);
    let bar = progress.bar("checking the file", input.bytes());
    let mut documents = input.digested_documents(&bar)?;
    loop {
        pause(&documents, interrupt)?;
        let Some(document) = documents.next()? else { break };
        match fields.read(document.bytes) {
            Ok(event) => {
                survey.without_key += u64::from(event.key.is_none());
                survey.note_time(event.millis);
            }
            Err(why) => faults.add(document.place, &why),
        }
    }
    bar.finish_and_clear();
    survey.documents = documents.passed();
    survey.invalid = faults.count;
    if survey.documents == 0 {
        return Err(nothing(input));
    }
    faults.verdict(survey.documents)?;
    input.check_unchanged()?;
    survey.digest = documents.digest().unwrap_or_default();
    Ok(survey)
}

impl Survey {
    fn note_time(&mut self, millis: i64) {
        let (first, last) = self.span.unwrap_or((millis, millis));
        self.span = Some((first.min(millis), last.max(millis)));
        if self.days.len() <= DAYS {
            self.days.extend(day_of(Tz::UTC, millis));
        }
    }

    /// The instants of `--except`. If it is a window in times of day and `--date` is not given, its day is the day of
    /// the file's events, if all are of one day.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is no such window on that date; [`Error::Refused`] if the events are of several days, or
    /// if `--date` lies outside them.
    pub(super) fn except(&self, loading: &Loading) -> Result<Option<Window>> {
        let Some(window) = loading.except else { return Ok(None) };
        if !window.needs_date() {
            return window.on(NaiveDate::default(), Tz::UTC).map(Some).map_err(Error::usage);
        }
        let span =
            self.span.and_then(|(first, last)| Some((day_of(Tz::UTC, first)?, day_of(Tz::UTC, last)?)));
        let date = match (loading.date, span) {
            (Some(date), Some((first, last))) if first <= date && date <= last => date,
            (None, Some((first, last))) if first == last => first,
            (Some(date), _) => {
                return Err(Error::refused(format!(
                    "the file has no event on --date {date}; it has events on {}",
                    self.listed_days()
                ))
                .because(Reason::AmbiguousDate));
            }
            (None, _) => {
                return Err(Error::refused(format!(
                    "the file has events on several days ({}), so --except needs a --date",
                    self.listed_days()
                ))
                .because(Reason::AmbiguousDate));
            }
        };
        window.crossing(date, Tz::UTC).inspect(|warning| tracing::warn!("--except: {warning}"));
        window.on(date, Tz::UTC).map(Some).map_err(Error::usage)
    }

    fn listed_days(&self) -> String {
        let days: Vec<_> = self.days.iter().take(DAYS).map(NaiveDate::to_string).collect();
        format!("{}{}", days.join(", "), if self.days.len() > DAYS { ", …" } else { "" })
    }
}

fn pause(documents: &Documents, interrupt: &Interrupt) -> Result<()> {
    if documents.passed().is_multiple_of(ROUND) { interrupt.check() } else { Ok(()) }
}

fn nothing(input: &Input) -> Error {
    Error::refused(format!("{} holds no events", input.name())).because(Reason::InvalidRecords)
}

/// Documents that are not events.
struct Faults {
    file: String,
    skip: bool,
    count: u64,
    unit: &'static str,
    named: Vec<String>,
}

impl Faults {
    fn new(input: &Input, skip: bool) -> Faults {
        Faults { file: input.name(), skip, count: 0, unit: "lines", named: Vec::new() }
    }

    fn add(&mut self, place: Place, why: &str) {
        self.count += 1;
        self.unit = if place.in_array { "elements" } else { "lines" };
        if self.named.len() < NAMED {
            self.named.push(format!("{place}: {why}"));
        }
    }

    fn verdict(&self, documents: u64) -> Result<()> {
        if self.count == 0 || (self.skip && self.count < documents) {
            return Ok(());
        }
        let more = if self.count > self.named.len() as u64 { "\n  …" } else { "" };
        let way_out = if self.count < documents { "; use --skip-invalid to leave them out" } else { "" };
        Err(Error::refused(format!(
            "{}: {} of {documents} {} are not events{way_out}; nothing was written\n  {}{more}",
            self.file,
            self.count,
            self.unit,
            self.named.join("\n  ")
        ))
        .because(Reason::InvalidRecords))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::PathBuf;

    use rstest::rstest;

    use super::*;
    use crate::load::Given;

    fn loading(file: PathBuf) -> Loading {
        let given = Given { key_field: None, time_field: None };
        let topic = "t".to_owned();
        Loading { file, topic, given, partitions: 1, except: None, date: None, skip_invalid: false }
    }

    fn surveyed(content: &str, options: impl Fn(&mut Loading)) -> Result<(Survey, Loading, Fields)> {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(content.as_bytes()).expect("written");
        let mut loading = loading(file.path().to_owned());
        options(&mut loading);
        let input = Input::open(&loading.file)?;
        let interrupt = Interrupt::default();
        let fields = fields(&input, &loading, &interrupt)?;
        let survey = survey(&input, &fields, loading.skip_invalid, Progress { quiet: true }, &interrupt)?;
        Ok((survey, loading, fields))
    }

    const TWO_DAYS: &str =
        "{\"id\":1,\"ts\":\"2021-04-14T11:00:00Z\"}\n{\"id\":2,\"ts\":\"2021-04-15T11:00:00Z\"}\n";
    const FAULTY: &str = "{\"id\":1,\"ts\":\"2021-04-14T11:00:00Z\"}\n\n{\"id\":2,\n{\"id\":3}\n";

    #[test]
    fn counts_and_guesses() {
        let (survey, _, fields) = surveyed(TWO_DAYS, |_| {}).expect("a good file");
        assert_eq!((survey.documents, survey.invalid, survey.without_key), (2, 0, 0));
        assert_eq!(survey.span, Some((1_618_398_000_000, 1_618_484_400_000)));
        assert_eq!(survey.digest.len(), 64);
        assert_eq!((fields.key(), fields.time()), ("/id", "/ts"));
    }

    #[test]
    fn malformed_lines_are_named_by_number() {
        let with_fields = |loading: &mut Loading| {
            loading.given.key_field = "id".parse().ok();
            loading.given.time_field = "ts".parse().ok();
        };
        let error = surveyed(FAULTY, with_fields).expect_err("refused");
        assert!(matches!(error, Error::Refused(_)));
        for says in ["2 of 3 lines", "line 3: EOF", "line 4: no time at /ts", "--skip-invalid"] {
            assert!(error.to_string().contains(says), "{error}");
        }
        let error = surveyed(FAULTY, |_| {}).expect_err("refused before a guess");
        assert!(error.to_string().contains("line 3: EOF"), "{error}");
        let (survey, ..) = surveyed(FAULTY, |loading| {
            with_fields(loading);
            loading.skip_invalid = true;
        })
        .expect("skipped");
        assert_eq!((survey.documents, survey.invalid), (3, 2));
    }

    #[rstest]
    #[case("\n \n")]
    #[case("[]")]
    #[case("nonsense\nand more\n")]
    fn nothing_to_load(#[case] content: &str) {
        for skip in [false, true] {
            let result = surveyed(content, |loading| loading.skip_invalid = skip);
            assert!(matches!(result, Err(Error::Refused(_))));
        }
    }

    #[test]
    fn the_day_of_except() {
        let except = |content: &str, window: &str, date: Option<&str>| {
            let (survey, loading, _) = surveyed(content, |loading| {
                loading.except = window.parse().ok();
                loading.date = date.and_then(|date| date.parse().ok());
            })?;
            Ok::<_, Error>(survey.except(&loading)?.map(|window| window.to_string()))
        };
        let one_day = TWO_DAYS.lines().next().expect("a line");
        let resolved = "2021-04-14T11:00:00Z/2021-04-14T13:00:00Z";
        assert_eq!(except(one_day, "11:00-13:00", None).expect("one day").as_deref(), Some(resolved));
        let second = except(TWO_DAYS, "11:00-13:00", Some("2021-04-14")).expect("a date");
        assert_eq!(second.as_deref(), Some(resolved));
        assert_eq!(except(TWO_DAYS, resolved, None).expect("instants").as_deref(), Some(resolved));
        let error = except(TWO_DAYS, "11:00-13:00", None).expect_err("two days");
        assert!(error.to_string().contains("2021-04-14, 2021-04-15"), "{error}");
        let error = except(TWO_DAYS, "11:00-13:00", Some("2021-04-16")).expect_err("no such day");
        assert!(error.to_string().contains("2021-04-14, 2021-04-15"), "{error}");
    }

    #[test]
    fn ends_when_interrupted() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), TWO_DAYS).expect("written");
        let input = Input::open(file.path()).expect("opens");
        let fields = Fields::new("/id".parse().expect("a pointer"), "/ts".parse().expect("a pointer"));
        let interrupt = Interrupt::default();
        interrupt.set();
        let result = survey(&input, &fields, false, Progress { quiet: true }, &interrupt);
        assert!(matches!(result, Err(Error::Interrupted)));
    }
}
