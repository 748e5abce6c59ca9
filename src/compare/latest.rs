//! Compares only the last record of each key, since compaction keeps no other.
//!
//! The target is read from its beginning: a value that the source has deleted may be older than the window.

use std::collections::hash_map::Entry;

use super::differences::{Kind, List, Unnamed};
use super::pair::Pair;
use super::pairing::{ByHash, Place};
use super::side::{OpenSide, Start};
use super::sums::{CLASSES, class, rounds};
use super::verify::Findings;
use super::{Census, Notes};
use crate::base::error::{Error, Reason, Result};
use crate::base::range::{Range, index};
use crate::job::identity::IdentityHash;
use crate::judge::Sighting;
use crate::kafka::record::key;
use crate::kafka::sides::Side;
use crate::kafka::sys::Message;

/// About how many bytes a record of both topics takes, if each has a key of its own.
const RECORD_BYTES: u64 = 256;

/// The last record of a key.
#[derive(Clone, Copy)]
struct Last {
    exact: u64,
    place: Place,
    is_in_window: bool,
    is_tombstone: bool,
}

type Lasts = ByHash<Last>;

impl Pair<'_> {
    /// Compares the keys whose last record, below the source's end, lies in the window. All counts are of keys.
    pub(super) fn judge_latest(
        &self,
        census: &mut Census<'_, impl Notes>,
        list: &mut List,
    ) -> Result<Findings> {
        let (source, target) = (self.source.ranges(Start::Window), self.target.ranges(Start::Beginning));
        let records: u64 = source.iter().chain(&target).map(Range::len).sum();
        let load = records.saturating_mul(RECORD_BYTES) / CLASSES as u64 + 1;
        let mut found = Findings::default();
        for (n, classes) in rounds(&[load; CLASSES], self.selection.index_memory as u64).iter().enumerate() {
            let mut source = self.lasts(&self.source, Start::Window, classes, |seen| {
                if n == 0 {
                    census.other_days.see(seen.time);
                }
            })?;
            let target = self.lasts(&self.target, Start::Beginning, classes, |_| ())?;
            // What was written while the ends were asked for may be in one topic only.
            found.unsettled +=
                source.values().filter(|last| last.is_in_window && self.is_new(last)).count() as u64;
            for last in source.values_mut() {
                last.is_in_window &= !self.is_new(last);
            }
            let mut unnamed = <[Unnamed; 2]>::default();
            let mut note = |side: Side, place: Place, kind: Kind| {
                found.example(kind.shown(), || match side {
                    Side::Source => format!("source {place}"),
                    Side::Target => format!("target {place}"),
                });
                if list.is_wanted() {
                    unnamed[usize::from(side == Side::Target)].at(place, kind);
                }
            };
            census.in_source += source.values().filter(|last| last.is_in_window).count() as u64;
            census.in_target += target.values().filter(|last| last.is_in_window).count() as u64;
            let (mut missing, mut changed, mut extra) = (0, 0, 0);
            for (key, last) in source.iter().filter(|(_, last)| last.is_in_window) {
                match target.get(key) {
                    Some(copy) if copy.exact == last.exact => {}
                    Some(copy) => {
                        changed += 1;
                        note(Side::Source, last.place, Kind::OtherContent);
                        note(Side::Target, copy.place, Kind::Changed);
                    }
                    // Compaction may have deleted it.
                    None if last.is_tombstone => {}
                    None => {
                        missing += 1;
                        note(Side::Source, last.place, Kind::Missing);
                    }
                }
            }
            for (key, last) in target.iter().filter(|(_, last)| last.is_in_window && !last.is_tombstone) {
                if !source.contains_key(key) {
                    extra += 1;
                    note(Side::Target, last.place, Kind::Extra);
                }
            }
            found.missing += missing;
            found.changed += changed;
            found.extra += extra;
            let [of_source, of_target] = unnamed;
            self.name(Side::Source, Start::Window, of_source, list)?;
            self.name(Side::Target, Start::Beginning, of_target, list)?;
        }
        found.in_target = census.in_target;
        Ok(found)
    }

    /// The last record of each key of these classes.
    fn lasts(
        &self,
        side: &OpenSide<'_>,
        from: Start,
        classes: &std::ops::Range<usize>,
        mut see: impl FnMut(&Sighting),
    ) -> Result<Lasts> {
        let mut lasts = Lasts::default();
        let at = self.look.clone();
        side.read(
            from,
            move |message| at.at(message),
            |message, seen| {
                see(seen);
                let identity: IdentityHash = seen.signature.identity;
                if classes.contains(&class(identity)) {
                    let last = Last {
                        exact: seen.signature.exact,
                        place: Place::of(message),
                        is_in_window: seen.is_in_window,
                        is_tombstone: message.value().is_none(),
                    };
                    match lasts.entry(identity) {
                        Entry::Occupied(entry) if entry.get().place.partition != last.place.partition => {
                            return Err(in_two_places(&side.topic.name, message, entry.get().place));
                        }
                        Entry::Occupied(mut entry) => *entry.get_mut() = last,
                        Entry::Vacant(entry) => drop(entry.insert(last)),
                    }
                }
                Ok(())
            },
        )?;
        Ok(lasts)
    }

    /// Whether this record of the source came after the comparison began.
    fn is_new(&self, last: &Last) -> bool {
        self.settled.get(index(last.place.partition)).is_some_and(|end| last.place.offset >= *end)
    }
}

/// A key in two partitions has no order, so nobody can tell which of its records is the last.
fn in_two_places(topic: &str, message: &Message, before: Place) -> Error {
    Error::refused(format!(
        "the key {} is in two partitions of {topic}, {} and {}, so nobody can tell which of its records is the last one; \
         compare without --latest-only",
        key(message.key()),
        before.partition,
        message.partition()
    ))
    .because(Reason::UnknownPlacement)
}
