//! The index of identities that topicB holds or this run wrote. Pure.

use std::collections::HashMap;
use std::collections::hash_map::{self, Entry::Occupied, Entry::Vacant};
use std::hash::{BuildHasherDefault, Hash, Hasher};

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

/// Identity to content, bounded in memory: 16 bytes each, so 20 to 39 in the table, and half as much again
/// where it has to grow.
pub struct Index {
    entries: HashMap<Key, Entry, BuildHasherDefault<AlreadyHashed>>,
    memory: usize,
    ignore_target_timestamps: bool,
}

/// 96 bits of an identity. Where two of them meet by chance, their contents differ, and that is an error: it
/// takes all 127 bits of an entry to lose a record.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key([u32; 3]);

impl Key {
    #[expect(clippy::cast_possible_truncation, reason = "the bits that are left out are not needed")]
    fn new([first, second]: IdentityHash) -> Key {
        Key([first as u32, (first >> 32) as u32, second as u32])
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.0[0]) | u64::from(self.0[1]) << 32);
    }
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

/// What an entry takes in the table: its 16 bytes and a control byte.
const ENTRY_BYTES: usize = size_of::<(Key, Entry)>() + 1;

impl Index {
    /// `memory` bounds the table in bytes. With `ignore_target_timestamps`, a copy in the target is equal
    /// to the source's record whatever its timestamp.
    pub fn new(memory: usize, ignore_target_timestamps: bool) -> Index {
        Index { entries: HashMap::default(), memory, ignore_target_timestamps }
    }

    /// Makes room for that many identities at once, where the memory allows: to grow into it takes half as much
    /// again, and time.
    pub fn reserve(&mut self, expected: usize) {
        let slots = (expected.min(self.memory) / 7 + 1).saturating_mul(8).next_power_of_two();
        if slots.saturating_mul(ENTRY_BYTES) <= self.memory {
            // Without the room it grows, or says that it cannot.
            let _ = self.entries.try_reserve(expected);
        }
    }

    /// Takes in a record of the target; true if it doubles an equal one there.
    ///
    /// # Errors
    /// [`Error::Failed`] when the table would outgrow its memory.
    pub fn insert_target(&mut self, identity: IdentityHash, content: Content) -> Result<bool> {
        let hash = if self.ignore_target_timestamps { content.loose } else { content.exact };
        match self.entry(identity)? {
            Occupied(entry) => Ok(entry.get().is_content(hash)),
            Vacant(entry) => {
                entry.insert(Entry::new(hash, Origin::Target));
                Ok(false)
            }
        }
    }

    /// Judges a record of the source, and takes it in where it is new.
    ///
    /// # Errors
    /// [`Error::Failed`] when the table would outgrow its memory.
    pub fn judge(&mut self, identity: IdentityHash, content: Content) -> Result<Verdict> {
        let ignore_target_timestamps = self.ignore_target_timestamps;
        let mut slot = match self.entry(identity)? {
            Occupied(slot) => slot,
            Vacant(slot) => {
                slot.insert(Entry::new(content.exact, Origin::Source));
                return Ok(Verdict::New);
            }
        };
        let entry = *slot.get();
        Ok(match entry.origin() {
            Origin::Source if entry.is_content(content.exact) => Verdict::DuplicateInSource,
            Origin::Target if ignore_target_timestamps && entry.is_content(content.loose) => {
                // From here on the source's own timestamp counts: another record of the source that
                // differs in nothing else is not this one.
                slot.insert(Entry::new(content.exact, Origin::Source));
                Verdict::AlreadyInTarget
            }
            Origin::Target if !ignore_target_timestamps && entry.is_content(content.exact) => {
                Verdict::AlreadyInTarget
            }
            _ => Verdict::Conflict,
        })
    }

    /// Whether the record was found in the source by this run.
    pub fn is_from_source(&self, identity: &IdentityHash) -> bool {
        self.entries.get(&Key::new(*identity)).is_some_and(|entry| entry.origin() == Origin::Source)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The identity's place, which may be taken.
    fn entry(&mut self, identity: IdentityHash) -> Result<hash_map::Entry<'_, Key, Entry>> {
        let key = Key::new(identity);
        // A full table doubles, and holds both copies while it moves; it is full at 7/8 of its slots.
        let (len, capacity) = (self.entries.len(), self.entries.capacity());
        if len == capacity {
            let slots = capacity.max(3) * 8 / 7;
            if slots * 3 * ENTRY_BYTES > self.memory && !self.entries.contains_key(&key) {
                return Err(Error::Failed(format!(
                    "the index of identities would outgrow --index-memory {} MiB at {len} records of the window; \
                     raise it to {} MiB or fill a smaller window at a time",
                    self.memory >> 20,
                    ((slots * 3 * ENTRY_BYTES) >> 20) + 1,
                )));
            }
        }
        Ok(self.entries.entry(key))
    }
}

/// Takes the first 64 bits of an identity as its hash, which they are already.
#[derive(Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("a key writes one word");
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

    #[test]
    fn reserves_what_its_memory_allows() {
        let mut index = Index::new(2 << 20, false);
        index.reserve(usize::MAX);
        assert_eq!(index.entries.capacity(), 0);
        index.reserve(50_000);
        let capacity = index.entries.capacity();
        assert!(capacity >= 50_000);
        (0..50_000).for_each(|n| assert!(index.judge([n, n], content(n, n)).is_ok()));
        assert_eq!(index.entries.capacity(), capacity);
    }

    #[test]
    fn refuses_to_outgrow_its_memory() {
        let mut index = Index::new(1 << 20, false);
        let outcome = (0..1 << 20).find_map(|n| index.judge([n, n], content(n, n)).err());
        let message = outcome.expect("refused").to_string();
        assert!(message.contains("--index-memory"), "{message}");
        assert!(index.entries.capacity() * ENTRY_BYTES < 1 << 20);
    }
}
