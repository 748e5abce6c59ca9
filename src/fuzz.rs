//! What must hold whatever bytes come in. `cargo fuzz` searches for bytes for which it does not (`fuzz/`), and `cargo test`
//! tries those that it has found.

use crate::base::json::{self, Pointer};
use crate::base::time::{parse_date, parse_duration, parse_instant, rfc3339, shown_duration};
use crate::base::zone::{Tz, parse_zone};
use crate::job::identity::Identity;
use crate::job::typed::TypedWindow;
use crate::job::window::{Window, WindowSpec};
use crate::job::{OnConflict, Rules, TargetScan};
use crate::judge::{Judge, Signature, Verdict};
use crate::kafka::follow_mark::FollowMark;
use crate::kafka::mark::{Evidence, Mark};
use crate::kafka::properties::Properties;
use crate::kafka::watermarks::Watermarks;

/// Panics if something does not hold.
pub type Check = fn(&[u8]);

/// Each target of `fuzz/fuzz_targets`, by its name.
pub const TARGETS: [(&str, Check); 6] = [
    ("windows", windows),
    ("documents", documents),
    ("json", json),
    ("properties", properties),
    ("marks", marks),
    ("judge", judge),
];

/// A window, a date or a length of time is refused, or reads back as what it is shown as.
pub fn windows(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let zones = [Tz::UTC, Tz::Europe__Berlin, Tz::Asia__Kathmandu, Tz::America__New_York];
    for zone in zones {
        let Ok(spec) = text.parse::<TypedWindow>().and_then(|typed| typed.at(1_618_405_200_000, zone)) else {
            continue;
        };
        assert_eq!(spec.to_string().parse::<WindowSpec>().as_ref(), Ok(&spec), "{text}");
        let date = chrono::NaiveDate::from_ymd_opt(2021, 3, 28).expect("a day");
        let Ok(window) = spec.on(date, zone) else { continue };
        assert_eq!(Window::new(window.start, window.end), Ok(window), "{text}");
        assert_eq!(window.to_string().parse(), Ok(WindowSpec::Instants(window)), "{text}");
    }
    if let Some(millis) = parse_instant(text) {
        assert_eq!(parse_instant(&rfc3339(millis)), Some(millis), "{text}");
    }
    if let Ok(length) = parse_duration(text) {
        assert_eq!(parse_duration(&shown_duration(length)), Ok(length), "{text}");
    }
    let _ = (parse_date(text), parse_zone(text));
}

/// However a file is cut into buffers, its documents are the same, and none of its text is lost. The first byte says how
/// long the buffers are.
pub fn documents(data: &[u8]) {
    crate::load::fuzz::documents(data);
}

/// A pointer finds in a document what `serde_json` finds. The first line is the pointer.
pub fn json(data: &[u8]) {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
    let (Ok(path), document) = (std::str::from_utf8(&data[..end]), &data[end + 1..]) else { return };
    let Ok(pointer) = path.parse::<Pointer>() else { return };
    let _ = json::members(document);
    let (found, whole) = (pointer.find(document), serde_json::from_slice::<serde_json::Value>(document));
    let Ok(whole) = whole else { return };
    let found = found.expect("it is JSON").map(|written| written.as_written());
    let found =
        found.map(|text| serde_json::from_str::<serde_json::Value>(text).expect("a part of it is JSON too"));
    assert_eq!(found.as_ref(), whole.pointer(&written(&pointer)).filter(|value| !value.is_null()));
}

/// The pointer as RFC 6901 writes it. A bare name is a member of the document.
fn written(pointer: &Pointer) -> String {
    let text = pointer.as_str();
    match text.starts_with('/') {
        true => text.to_owned(),
        false => format!("/{}", text.replace('~', "~0").replace('/', "~1")),
    }
}

/// Options and variables of the environment are refused or taken, and no refusal shows a password. Each line with a blank
/// before it is a variable, each other line the value of `-X`.
pub fn properties(data: &[u8]) {
    const PASSWORD: &str = "open-sesame";
    // A name that has the password in it is no secret.
    let Some(text) = std::str::from_utf8(data).ok().filter(|text| !text.contains(PASSWORD)) else { return };
    let (variables, flags): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with(' '));
    let flags: Vec<String> = flags.into_iter().map(str::to_owned).collect();
    let variables = variables.into_iter().filter_map(|line| line.trim_start().split_once('='));
    let secret = [("KAFKA_SASL_PASSWORD", PASSWORD)];
    let environment = variables.chain(secret).map(|(name, value)| (name.into(), value.into()));
    if let Err(err) = Properties::new(None, None, environment, &flags) {
        assert!(!err.to_string().contains(PASSWORD), "{err}");
    }
}

/// The metadata of an offset, which anybody may commit, is no mark, or a mark that reads back.
pub fn marks(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let logs = [Watermarks { low: 3, high: 7, epoch: 1 }, Watermarks { low: 0, high: i64::MAX, epoch: 0 }];
    if let Some(mark) = Mark::parse(text) {
        assert_eq!(Mark::parse(&mark.to_string()).as_ref(), Some(&mark), "{text}");
        mark.target.holds(&logs);
    }
    if let Some(mark) = FollowMark::parse(text) {
        assert_eq!(FollowMark::parse(&mark.to_string()).as_ref(), Some(&mark), "{text}");
    }
    if let Some(evidence) = Evidence::parse(text) {
        evidence.holds(&logs);
    }
}

/// The index answers as a list of records does. Each three bytes are a record: of which topic, of which identity, and of
/// which content.
pub fn judge(data: &[u8]) {
    let rules = Rules {
        identity: Identity::Key,
        on_conflict: OnConflict::Skip,
        skip_invalid: false,
        target_scan: TargetScan::Window,
    };
    let mut judge = Judge::new(&rules, 1 << 24);
    let records: Vec<(bool, u8, u8)> =
        data.chunks_exact(3).map(|record| (record[0] % 2 == 0, record[1], record[2])).collect();
    let of_target: Vec<(u8, u8)> =
        records.iter().filter(|(is, ..)| *is).map(|(_, id, content)| (*id, *content)).collect();
    for (id, content) in &of_target {
        judge.target(signature(*id, *content)).expect("room");
    }
    let mut taken: Vec<(u8, u8)> = Vec::new();
    for (_, id, content) in records.iter().filter(|(is, ..)| !is) {
        let record = (*id, *content);
        let has_identity = |all: &[(u8, u8)]| all.iter().any(|(other, _)| other == id);
        let wanted = if taken.contains(&record) {
            Verdict::DuplicateInSource
        } else if of_target.contains(&record) {
            Verdict::AlreadyInTarget
        } else if has_identity(&of_target) || has_identity(&taken) {
            Verdict::Conflict
        } else {
            Verdict::New
        };
        assert_eq!(judge.source(signature(*id, *content)).expect("room"), wanted, "{records:?}");
        if wanted != Verdict::Conflict {
            taken.push(record);
        }
    }
}

/// Hashes as those of records, but all identities want the first places of the table.
fn signature(identity: u8, content: u8) -> Signature {
    let hash = |seed: u64| {
        let n = (u64::from(identity) << 8 | seed).wrapping_add(1).wrapping_mul(0x7fb5_d329_728e_a185);
        (n ^ n >> 29).wrapping_mul(0x81da_def4_bc2d_d44d) ^ n >> 33
    };
    let exact = hash(u64::from(content)).rotate_left(17);
    Signature { identity: [hash(1 << 16) >> 10, hash(1 << 17)], exact, loose: exact }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The inputs that `cargo fuzz` has found.
    #[test]
    fn the_corpora() {
        for (name, check) in TARGETS {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
            let inputs =
                std::fs::read_dir(&folder).unwrap_or_else(|err| panic!("{}: {err}", folder.display()));
            let mut count = 0;
            for input in inputs {
                check(&std::fs::read(input.expect("an entry").path()).expect("a file"));
                count += 1;
            }
            assert!(count > 0, "{name} has no corpus");
        }
    }
}
