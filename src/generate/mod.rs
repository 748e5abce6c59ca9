//! Generates events of an interactive music-video service: viewers play videos, choose how they continue, skip, share.
//!
//! The same seed and count give the same bytes on any machine: each session draws from the ChaCha stream with its own
//! number, and all arithmetic is on integers. Sessions overlap. Memory holds only the live ones, in a heap ordered by
//! the time of their next event.

mod session;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use flate2::{Compression, GzBuilder};
use serde::Serialize;

use self::session::{Service, Session};
use crate::base::error::{Error, Result};
use crate::base::interrupt::Interrupt;
use crate::base::progress::Progress;

/// How many events to write between two checks for an interrupt.
const ROUND: u64 = 4096;

/// The file of events to generate.
pub struct Generating {
    pub records: u64,
    pub seed: u64,
    /// Gzipped if it ends in `.gz`.
    pub out: PathBuf,
}

/// The receipt of a generated file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GenerateReceipt {
    pub file: String,
    pub records: u64,
    pub seed: u64,
}

impl fmt::Display for GenerateReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events of seed {} -> {}", self.records, self.seed, self.file)
    }
}

/// Writes a file of JSON Lines, gzipped if its name ends in `.gz`. The file appears only when it is complete.
///
/// # Errors
/// [`Error::Failed`] if the file cannot be written; [`Error::Interrupted`].
pub fn generate(
    generating: &Generating,
    progress: Progress,
    interrupt: &Interrupt,
) -> Result<GenerateReceipt> {
    let shown = generating.out.display().to_string();
    let failed = |err: io::Error| Error::io(&shown, err);
    let is_special = generating.out.metadata().is_ok_and(|metadata| !metadata.is_file());
    if is_special {
        // A terminal or a pipe takes the events as they come.
        write_file(File::create(&generating.out).map_err(failed)?, generating, progress, interrupt)
            .map_err(failed)?;
    } else {
        let folder = generating.out.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less the umask
        let file = builder.tempfile_in(folder.unwrap_or(".".as_ref())).map_err(failed)?;
        let written = write_file(file.as_file(), generating, progress, interrupt);
        interrupt.check()?;
        written.map_err(failed)?;
        file.persist(&generating.out).map_err(|err| failed(err.error))?;
    }
    interrupt.check()?;
    Ok(GenerateReceipt { file: shown, records: generating.records, seed: generating.seed })
}

fn write_file(
    file: impl Write,
    generating: &Generating,
    progress: Progress,
    interrupt: &Interrupt,
) -> io::Result<()> {
    let bar = progress.bar("generating events", generating.records);
    let mut goes_on = |written| {
        bar.set_position(written);
        !interrupt.is_set()
    };
    let mut out = BufWriter::new(file);
    if generating.out.extension().is_some_and(|extension| extension == "gz") {
        // The header holds no time, so that the same seed gives the same bytes.
        let mut gzip = GzBuilder::new().mtime(0).write(out, Compression::default());
        write_while(&mut gzip, generating.records, generating.seed, &mut goes_on)?;
        out = gzip.finish()?;
    } else {
        write_while(&mut out, generating.records, generating.seed, &mut goes_on)?;
    }
    bar.finish_and_clear();
    out.flush()
}

/// Writes `records` events as JSON Lines, in the order in which the service received them. Now and then it calls
/// `goes_on` with the number of events written, and stops early if that returns false.
fn write_while(
    out: &mut impl Write,
    records: u64,
    seed: u64,
    goes_on: &mut impl FnMut(u64) -> bool,
) -> io::Result<()> {
    let service = Service::new(seed, records);
    let mut sessions = service.sessions().peekable();
    let mut pending: BinaryHeap<Reverse<Pending>> = BinaryHeap::new();
    let mut written: u64 = 0;
    loop {
        let due = pending.peek().map(|Reverse(next)| next.due);
        // Sessions come in the order of their earliest possible start.
        if let Some(session) = sessions.next_if(|session| due.is_none_or(|due| session.earliest <= due)) {
            pending.push(Reverse(Pending::session(session)));
            continue;
        }
        let Some(Reverse(Pending { session, sequence, work, .. })) = pending.pop() else { return Ok(()) };
        let mut write = |line: &[u8]| {
            out.write_all(line)?;
            written += 1;
            io::Result::Ok(!written.is_multiple_of(ROUND) || goes_on(written))
        };
        match work {
            Work::Late(line) => {
                if !write(&line)? {
                    return Ok(());
                }
            }
            Work::Live(mut live) => {
                let (line, late_by) = live.event(&service);
                if late_by > 0 {
                    let due = live.due + late_by;
                    pending.push(Reverse(Pending { due, session, sequence, work: Work::Late(line) }));
                } else if !write(&line)? {
                    return Ok(());
                }
                if live.advance() {
                    pending.push(Reverse(Pending::session(*live)));
                }
            }
        }
    }
}

/// An event to write. Events are ordered by time, then by session, then by their number in the session.
struct Pending {
    due: i64,
    session: u64,
    sequence: u32,
    work: Work,
}

enum Work {
    Live(Box<Session>),
    /// An event that the client sends later than it happened.
    Late(Vec<u8>),
}

impl Pending {
    fn session(session: Session) -> Pending {
        Pending {
            due: session.due,
            session: session.number,
            sequence: session.sequence,
            work: Work::Live(Box::new(session)),
        }
    }

    fn order(&self) -> (i64, u64, u32) {
        (self.due, self.session, self.sequence)
    }
}

impl PartialEq for Pending {
    fn eq(&self, other: &Pending) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Pending {}

impl PartialOrd for Pending {
    fn partial_cmp(&self, other: &Pending) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pending {
    fn cmp(&self, other: &Pending) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};
    use std::io::Read;

    use rstest::rstest;
    use serde_json::Value;
    use sha2::{Digest, Sha256};

    use super::*;

    fn bytes(records: u64, seed: u64) -> Vec<u8> {
        let mut out = Vec::new();
        write_while(&mut out, records, seed, &mut |_| true).expect("in memory");
        out
    }

    fn events(records: u64, seed: u64) -> Vec<Value> {
        let text = String::from_utf8(bytes(records, seed)).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn millis(event: &Value) -> i64 {
        crate::base::time::parse_instant(event["timestamp"].as_str().expect("text")).expect("a time")
    }

    #[rstest]
    #[case(0)]
    #[case(1)]
    #[case(17)]
    #[case(3000)]
    fn as_many_as_asked_for_and_always_the_same(#[case] records: u64) {
        assert_eq!(events(records, 7).len() as u64, records);
        assert_eq!(bytes(records, 7), bytes(records, 7));
        assert!(records == 0 || bytes(records, 7) != bytes(records, 8));
    }

    #[test]
    fn the_bytes_are_pinned() {
        let digest = format!("{:x}", Sha256::digest(bytes(1000, 1)));
        assert_eq!(digest, "6d65294a6c9eb3767d51b5a8f8752cb9893a62aba6914bc50d6f653505e1afd2");
    }

    #[test]
    fn looks_like_a_day_of_the_service() {
        let events = events(30_000, 1);
        let ids: HashSet<_> = events.iter().map(|event| event["event_id"].to_string()).collect();
        assert_eq!(ids.len(), events.len());

        let times: Vec<_> = events.iter().map(millis).collect();
        let (first, last) = (times.iter().min().expect("one"), times.iter().max().expect("one"));
        assert!((1_618_394_400_000..1_618_394_520_000).contains(first), "from 10:00");
        assert!((1_618_418_400_000..1_618_418_700_000).contains(last), "to 16:45");
        let late = times.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!((100..1500).contains(&late), "{late} events out of order");

        let mut viewers: HashMap<String, u32> = HashMap::new();
        for event in &events {
            *viewers.entry(event["user_id"].to_string()).or_default() += 1;
        }
        let most = viewers.values().max().expect("one");
        assert!(viewers.len() > 150 && *most > 150, "{} users, one with {most}", viewers.len());

        let length = bytes(30_000, 1).len() / 30_000;
        assert!((290..360).contains(&length), "{length} bytes a line");
    }

    #[rstest]
    #[case("events.json.gz")]
    #[case("events.jsonl")]
    fn files(#[case] name: &str) {
        let folder = tempfile::tempdir().expect("a folder");
        let generating = Generating { records: 500, seed: 3, out: folder.path().join(name) };
        let (progress, interrupt) = (Progress { quiet: true }, Interrupt::default());
        generate(&generating, progress, &interrupt).expect("written");
        let stored = std::fs::read(&generating.out).expect("there");
        let mut content = Vec::new();
        if name.ends_with("gz") {
            assert_eq!(stored[4..8], [0; 4], "no time in the header");
            flate2::read::GzDecoder::new(&stored[..]).read_to_end(&mut content).expect("gzip");
        } else {
            content.clone_from(&stored);
        }
        assert_eq!(content, bytes(500, 3));
        generate(&generating, progress, &interrupt).expect("written again");
        assert_eq!(std::fs::read(&generating.out).expect("there"), stored);
    }

    #[test]
    fn an_interrupted_run_leaves_no_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let generating = Generating { records: 50_000, seed: 3, out: folder.path().join("events.json") };
        let interrupt = Interrupt::default();
        interrupt.set();
        let result = generate(&generating, Progress { quiet: true }, &interrupt);
        assert!(matches!(result, Err(Error::Interrupted)));
        assert_eq!(std::fs::read_dir(folder.path()).expect("there").count(), 0);
    }
}
