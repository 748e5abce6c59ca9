//! Lists each difference in a file, as JSON Lines.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use tempfile::NamedTempFile;

use super::Judged;
use super::pairing::{ByHash, Place};
use crate::base::error::{Error, Result};
use crate::base::file::beside;
use crate::base::time::rfc3339;
use crate::job::identity::IdentityHash;
use crate::judge::{Sighting, Verdict};
use crate::kafka::sides::Side;
use crate::kafka::sys::Message;

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// A record of the source. The target lacks it, and all that has its identity.
    Missing,
    /// A record of the source. The target has its identity with another content.
    OtherContent,
    /// A record of the source that a fill leaves out on request.
    LeftOut,
    /// A record of the target. The source has its identity with another content.
    Changed,
    /// A further copy in the target.
    Duplicated,
    /// A record of the target that the source lacks.
    Extra,
    /// A record of the target that stands behind one that it precedes in the source.
    Reordered,
    /// A record of the target in another partition than in the source. A record that is reordered too is listed as
    /// reordered.
    Moved,
    /// A record of the target outside of the window that differs only in timestamp from a record of the source's window.
    UnderAnotherTime,
}

impl Kind {
    pub(super) fn shown(self) -> &'static str {
        match self {
            Kind::Missing => "missing",
            Kind::OtherContent => "other content",
            Kind::LeftOut => "left out",
            Kind::Changed => "changed to",
            Kind::Duplicated => "duplicated",
            Kind::Extra => "extra",
            Kind::Reordered => "reordered",
            Kind::Moved => "moved",
            Kind::UnderAnotherTime => "under another time",
        }
    }
}

/// One line of the file.
#[derive(Serialize)]
struct Line<'a> {
    what: Kind,
    side: &'static str,
    partition: i32,
    offset: i64,
    /// The event time, in RFC 3339; null if the record has none.
    time: Option<String>,
    /// The key as text, or else in Base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

/// Writes the list, if one is wanted.
pub(super) struct List {
    file: Option<(PathBuf, Out)>,
}

/// Where the lines go.
enum Out {
    /// To a new file, which takes the place of the old one when it is whole.
    Beside(BufWriter<NamedTempFile>),
    /// To a terminal or a pipe, as in `--differences /dev/stdout`.
    Straight(BufWriter<File>),
}

impl Out {
    fn open(path: &Path) -> std::io::Result<Out> {
        match path.metadata() {
            Ok(there) if !there.is_file() => Ok(Out::Straight(BufWriter::new(File::create(path)?))),
            _ => Ok(Out::Beside(BufWriter::new(beside(path, MODE)?))),
        }
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Out::Beside(file) => file,
            Out::Straight(file) => file,
        }
    }

    fn close(self, path: &Path) -> std::io::Result<()> {
        match self {
            Out::Beside(file) => {
                let file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
                file.persist(path).map(drop).map_err(|err| err.error)
            }
            Out::Straight(mut file) => file.flush(),
        }
    }
}

/// Everybody may read a list, as far as the user's mask allows.
const MODE: u32 = 0o666;

impl List {
    /// Begins a list. The file itself is replaced only by a whole list ([`List::close`]).
    ///
    /// # Errors
    /// [`Error::Usage`] if the file's folder takes no file.
    pub(super) fn new(path: Option<&Path>) -> Result<List> {
        let open = |path: &Path| {
            // If the name is a link, the list belongs where it leads.
            let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
            let file = Out::open(path).map_err(|err| {
                Error::usage(format!(
                    "--differences {} cannot be written: {err}; name a file in a folder that this user may write to",
                    path.display()
                ))
            })?;
            Ok((path.to_owned(), file))
        };
        Ok(List { file: path.map(open).transpose()? })
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.file.is_some()
    }

    /// Lists a record of the source, if the target lacks it or a fill leaves it out.
    ///
    /// # Errors
    /// [`Error::Failed`] if the file cannot be written.
    pub(super) fn source(
        &mut self,
        message: &Message,
        seen: &Sighting,
        judged: &Judged,
        skips_conflicts: bool,
    ) -> Result<()> {
        let (what, why) = match judged {
            Judged::LeftOut(why) => (Kind::LeftOut, Some(why.as_ref())),
            Judged::By(Verdict::Conflict) if skips_conflicts => (Kind::LeftOut, Some("conflict")),
            Judged::By(Verdict::Conflict) => (Kind::OtherContent, None),
            Judged::By(Verdict::New) => (Kind::Missing, None),
            Judged::By(_) => return Ok(()),
        };
        self.write(what, Side::Source, message, seen, why)
    }

    /// Lists a record.
    ///
    /// # Errors
    /// As [`List::source`].
    pub(super) fn take(&mut self, what: Kind, side: Side, message: &Message, seen: &Sighting) -> Result<()> {
        self.write(what, side, message, seen, None)
    }

    fn write(
        &mut self,
        what: Kind,
        side: Side,
        message: &Message,
        seen: &Sighting,
        why: Option<&str>,
    ) -> Result<()> {
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        let key = message.key().map(std::str::from_utf8);
        let (key, key_base64) = match key.transpose() {
            Ok(key) => (Some(key), None),
            Err(_) => (None, message.key().map(|key| STANDARD.encode(key))),
        };
        let (partition, offset) = (message.partition(), message.offset());
        let side = if side == Side::Source { "source" } else { "target" };
        let time = seen.time.map(rfc3339);
        let line = Line { what, side, partition, offset, time, key_base64, key, why };
        let says = |err: &dyn std::fmt::Display| Error::io(path.display(), err);
        let file = file.writer();
        serde_json::to_writer(&mut *file, &line).map_err(|err| says(&err))?;
        file.write_all(b"\n").map_err(|err| says(&err))
    }

    /// Puts the whole list into its place.
    ///
    /// # Errors
    /// As [`List::source`].
    pub(super) fn close(self) -> Result<()> {
        let Some((path, file)) = self.file else { return Ok(()) };
        file.close(&path).map_err(|err| Error::io(path.display(), err))
    }
}

/// Records of the target that belong to the list. Their keys are not in memory, so the target must be read again.
#[derive(Default)]
pub(super) struct Unnamed {
    /// By record: how many copies are in order, and what is wrong with those behind them.
    copies: ByHash<(u64, Vec<(Kind, u64)>)>,
    places: HashMap<Place, Kind>,
}

impl Unnamed {
    /// Notes the record at this place.
    pub(super) fn at(&mut self, place: Place, kind: Kind) {
        self.places.insert(place, kind);
    }

    /// Notes the next `records` copies of a record, behind the first `good` ones.
    pub(super) fn last(&mut self, record: IdentityHash, good: u64, kind: Kind, records: u64) {
        if records > 0 {
            self.copies.entry(record).or_insert((good, Vec::new())).1.push((kind, records));
        }
    }

    /// Whether each noted record was taken.
    pub(super) fn is_done(&self) -> bool {
        let is_left = |(_, kinds): &(u64, Vec<(Kind, u64)>)| kinds.iter().any(|(_, left)| *left > 0);
        self.places.is_empty() && !self.copies.values().any(is_left)
    }

    /// Takes the next record of the target, in the order in which the first reading took them, and says what is wrong
    /// with it.
    pub(super) fn take(&mut self, message: &Message, seen: &Sighting) -> [Option<Kind>; 2] {
        let by_place = self.places.remove(&Place::of(message));
        let by_copy = self.copies.get_mut(&seen.signature.exact_key()).and_then(|(good, kinds)| {
            if *good > 0 {
                *good -= 1;
                return None;
            }
            let (kind, left) = kinds.iter_mut().find(|(_, left)| *left > 0)?;
            *left -= 1;
            Some(*kind)
        });
        [by_place, by_copy]
    }
}
