//! The index of identities that topicB holds or this run wrote. Pure.

mod table;

use self::table::{Key, Table};
use crate::error::{Error, Result};
use crate::identity::IdentityHash;

/// What the index says of a record of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To be written; the index holds it from now on.
    New,
    AlreadyInTarget,
    /// The source itself holds an equal record before this one.
    DuplicateInSource,
    /// The same identity with another content, in the target or before in the source.
    Conflict,
}

/// A record's content, hashed.
#[derive(Clone, Copy, Debug)]
pub struct Content {
    pub exact: u64,
    /// Without the timestamp; looked at only where the index ignores the target's.
    pub loose: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Target,
    /// Found in the source: written by us, or matched to a copy in the target.
    Source,
}

/// Identity to content, bounded in memory: 16 bytes each, so 21 to 32 in the table, and two thirds as much again
/// while it grows.
pub struct Index {
    entries: Table,
    memory: usize,
    ignore_target_timestamps: bool,
}

#[derive(Clone, Copy)]
struct Entry(u32); // 31 bits of the content's hash, and one for the origin

impl Entry {
    #[expect(clippy::cast_possible_truncation, reason = "31 bits are kept")]
    fn new(hash: u64, origin: Origin) -> Entry {
        Entry((hash as u32) << 1 | u32::from(origin == Origin::Source))
    }

    fn origin(self) -> Origin {
        if self.0 & 1 == 1 { Origin::Source } else { Origin::Target }
    }

    fn is_content(self, hash: u64) -> bool {
        self.0 >> 1 == Entry::new(hash, Origin::Target).0 >> 1
    }
}

impl Index {
    /// `memory` bounds the table in bytes. With `ignore_target_timestamps`, a copy in the target is equal
    /// to the source's record whatever its timestamp.
    pub fn new(memory: usize, ignore_target_timestamps: bool) -> Index {
        Index { entries: Table::default(), memory, ignore_target_timestamps }
    }

    /// Makes room for that many identities at once, where the memory allows: to grow into it takes half as much
    /// again, and time.
    pub fn reserve(&mut self, expected: usize) {
        let places = Table::places_for(expected.min(self.memory));
        if places > self.entries.places() && places.saturating_mul(Table::PLACE_BYTES) <= self.memory {
            self.entries.grow(places);
        }
    }

    /// Takes in a record of the target; true if it doubles an equal one there.
    ///
    /// # Errors
    /// [`Error::Failed`] when the table would outgrow its memory.
    pub fn insert_target(&mut self, identity: IdentityHash, content: Content) -> Result<bool> {
        let hash = if self.ignore_target_timestamps { content.loose } else { content.exact };
        let key = Key::new(identity);
        if let Some(entry) = self.entries.get(key) {
            return Ok(Entry(entry).is_content(hash));
        }
        self.insert(key, Entry::new(hash, Origin::Target))?;
        Ok(false)
    }

    /// Judges a record of the source, and takes it in where it is new.
    ///
    /// # Errors
    /// [`Error::Failed`] when the table would outgrow its memory.
    pub fn judge(&mut self, identity: IdentityHash, content: Content) -> Result<Verdict> {
        let (key, ours) = (Key::new(identity), Entry::new(content.exact, Origin::Source));
        let Some(slot) = self.entries.get_mut(key) else {
            self.insert(key, ours)?;
            return Ok(Verdict::New);
        };
        let entry = Entry(*slot);
        let ignore_target_timestamps = self.ignore_target_timestamps;
        Ok(match entry.origin() {
            Origin::Source if entry.is_content(content.exact) => Verdict::DuplicateInSource,
            Origin::Target if ignore_target_timestamps && entry.is_content(content.loose) => {
                // From here on the source's own timestamp counts: another record of the source that
                // differs in nothing else is not this one.
                *slot = ours.0;
                Verdict::AlreadyInTarget
            }
            Origin::Target if !ignore_target_timestamps && entry.is_content(content.exact) => {
                Verdict::AlreadyInTarget
            }
            _ => Verdict::Conflict,
        })
    }

    /// Has the processor fetch the places of `identities`, many at once; the look-ups that follow do not wait.
    pub fn warm(&self, identities: impl Iterator<Item = IdentityHash>) {
        self.entries.warm(identities.map(Key::new));
    }

    /// Whether the record was found in the source by this run.
    pub fn is_from_source(&self, identity: &IdentityHash) -> bool {
        self.entries.get(Key::new(*identity)).is_some_and(|entry| Entry(entry).origin() == Origin::Source)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.len() == 0
    }

    fn insert(&mut self, key: Key, entry: Entry) -> Result<()> {
        if self.entries.is_full() {
            let (len, places) = (self.entries.len(), self.entries.places());
            let more = Table::places_for(places);
            let needed = (places + more) * Table::PLACE_BYTES; // both are there while it moves
            if needed > self.memory {
                return Err(Error::failed(format!(
                    "the index of identities would outgrow --index-memory {} MiB at {len} records of the window; \
                     raise it to {} MiB or fill a smaller window at a time",
                    self.memory >> 20,
                    (needed >> 20) + 1,
                )));
            }
            self.entries.grow(more);
        }
        self.entries.insert(key, entry.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn content(exact: u64, loose: u64) -> Content {
        Content { exact, loose }
    }

    #[rstest]
    #[case(false, content(1, 9), Verdict::AlreadyInTarget)]
    #[case(false, content(2, 9), Verdict::Conflict)]
    #[case(true, content(2, 9), Verdict::AlreadyInTarget)]
    #[case(true, content(1, 8), Verdict::Conflict)]
    fn against_the_target(#[case] ignore: bool, #[case] record: Content, #[case] verdict: Verdict) {
        let mut index = Index::new(1 << 20, ignore);
        assert!(!index.insert_target([1, 2], content(1, 9)).expect("room"));
        assert!(index.insert_target([1, 2], content(1, 9)).expect("room"), "a double in the target");
        assert_eq!(index.judge([1, 2], record).expect("room"), verdict);
    }

    #[test]
    fn within_the_source() {
        let mut index = Index::new(1 << 20, false);
        assert_eq!(index.judge([1, 2], content(1, 9)).expect("room"), Verdict::New);
        assert_eq!(index.judge([1, 2], content(1, 9)).expect("room"), Verdict::DuplicateInSource);
        assert_eq!(index.judge([1, 2], content(2, 9)).expect("room"), Verdict::Conflict);
        assert_eq!(index.judge([1, 3], content(2, 9)).expect("room"), Verdict::New);
    }

    #[test]
    fn a_stamped_copy_stands_for_one_record_of_the_source() {
        let mut index = Index::new(1 << 20, true);
        index.insert_target([1, 2], content(7, 9)).expect("room");
        assert_eq!(index.judge([1, 2], content(1, 9)).expect("room"), Verdict::AlreadyInTarget);
        assert_eq!(index.judge([1, 2], content(1, 9)).expect("room"), Verdict::DuplicateInSource);
        assert_eq!(index.judge([1, 2], content(2, 9)).expect("room"), Verdict::Conflict);
    }

    /// Spread as hashes are.
    fn identity(n: u64) -> IdentityHash {
        [n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n]
    }

    #[test]
    fn reserves_what_its_memory_allows() {
        let mut index = Index::new(2 << 20, false);
        index.reserve(usize::MAX);
        assert_eq!(index.entries.places(), 0);
        index.reserve(50_000);
        let places = index.entries.places();
        (0..50_000).for_each(|n| assert!(index.judge(identity(n), content(n, n)).is_ok()));
        assert_eq!(index.entries.places(), places);
    }

    #[test]
    fn refuses_to_outgrow_its_memory() {
        let mut index = Index::new(1 << 20, false);
        let outcome = (0..1 << 20).find_map(|n| index.judge(identity(n), content(n, n)).err());
        let message = outcome.expect("refused").to_string();
        assert!(message.contains("--index-memory"), "{message}");
        assert!(index.entries.places() * Table::PLACE_BYTES < 1 << 20);
    }
}
