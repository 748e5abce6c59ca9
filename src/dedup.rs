//! The index of identities that topicB holds or this run wrote. Pure.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

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

/// Identity to content, bounded in memory.
pub struct Index {
    entries: HashMap<IdentityHash, Entry, BuildHasherDefault<AlreadyHashed>>,
    memory: usize,
    ignore_target_timestamps: bool,
}

#[derive(Clone, Copy)]
struct Entry(u64); // the content's hash, its lowest bit given to the origin

impl Entry {
    fn new(hash: u64, origin: Origin) -> Entry {
        Entry(hash << 1 | u64::from(origin == Origin::Source))
    }

    fn origin(self) -> Origin {
        if self.0 & 1 == 1 { Origin::Source } else { Origin::Target }
    }

    fn is_content(self, hash: u64) -> bool {
        self.0 >> 1 == hash << 1 >> 1
    }
}

/// What an entry takes in the table: its 24 bytes and a control byte.
const ENTRY_BYTES: usize = size_of::<(IdentityHash, Entry)>() + 1;

impl Index {
    /// `memory` bounds the table in bytes. With `ignore_target_timestamps`, a copy in the target is equal
    /// to the source's record whatever its timestamp.
    pub fn new(memory: usize, ignore_target_timestamps: bool) -> Index {
        Index { entries: HashMap::default(), memory, ignore_target_timestamps }
    }

    /// Takes in a record of the target; true if it doubles an equal one there.
    ///
    /// # Errors
    /// [`Error::Failed`] when the table would outgrow its memory.
    pub fn insert_target(&mut self, identity: IdentityHash, content: Content) -> Result<bool> {
        let hash = if self.ignore_target_timestamps { content.loose } else { content.exact };
        if let Some(entry) = self.entries.get(&identity) {
            return Ok(entry.is_content(hash));
        }
        self.insert(identity, Entry::new(hash, Origin::Target))?;
        Ok(false)
    }

    /// Judges a record of the source, and takes it in where it is new.
    ///
    /// # Errors
    /// [`Error::Failed`] when the table would outgrow its memory.
    pub fn judge(&mut self, identity: IdentityHash, content: Content) -> Result<Verdict> {
        let Some(entry) = self.entries.get_mut(&identity) else {
            self.insert(identity, Entry::new(content.exact, Origin::Source))?;
            return Ok(Verdict::New);
        };
        Ok(match entry.origin() {
            Origin::Source if entry.is_content(content.exact) => Verdict::DuplicateInSource,
            Origin::Target if self.ignore_target_timestamps && entry.is_content(content.loose) => {
                // From here on the source's own timestamp counts: another record of the source that
                // differs in nothing else is not this one.
                *entry = Entry::new(content.exact, Origin::Source);
                Verdict::AlreadyInTarget
            }
            Origin::Target if !self.ignore_target_timestamps && entry.is_content(content.exact) => {
                Verdict::AlreadyInTarget
            }
            _ => Verdict::Conflict,
        })
    }

    /// Whether the record was found in the source by this run.
    pub fn is_from_source(&self, identity: &IdentityHash) -> bool {
        self.entries.get(identity).is_some_and(|entry| entry.origin() == Origin::Source)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn insert(&mut self, identity: IdentityHash, entry: Entry) -> Result<()> {
        // A full table doubles, and holds both copies while it moves; it is full at 7/8 of its slots.
        let (len, capacity) = (self.entries.len(), self.entries.capacity());
        if len == capacity {
            let slots = capacity.max(3) * 8 / 7;
            if slots * 3 * ENTRY_BYTES > self.memory {
                return Err(Error::Failed(format!(
                    "the index of identities would outgrow --index-memory {} MiB at {len} records of the window; \
                     raise it to {} MiB or fill a smaller window at a time",
                    self.memory >> 20,
                    ((slots * 3 * ENTRY_BYTES) >> 20) + 1,
                )));
            }
        }
        self.entries.insert(identity, entry);
        Ok(())
    }
}

/// Takes the first half of an identity as its hash, which it is already.
#[derive(Default)]
pub struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }

    fn write_usize(&mut self, _length: usize) {}

    fn write(&mut self, bytes: &[u8]) {
        // `[u64; 2]` is hashed as one run of bytes.
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_ne_bytes(*first);
        }
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
    fn refuses_to_outgrow_its_memory() {
        let mut index = Index::new(1 << 20, false);
        let outcome = (0..1 << 20).find_map(|n| index.judge([n, n], content(n, n)).err());
        let message = outcome.expect("refused").to_string();
        assert!(message.contains("--index-memory"), "{message}");
        assert!(index.entries.capacity() * ENTRY_BYTES < 1 << 20);
    }
}
