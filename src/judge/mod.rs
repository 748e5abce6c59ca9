//! Decides whether the target holds a record: by identity, content and count. Pure.
//!
//! A fill, a plan, `gaps` and `verify` all ask the judge in the same way. First they show it the target's records
//! ([`Judge::target`]), then it judges the source's records of the window one by one ([`Judge::source`]). [`Look`]
//! reads from a record what the judge compares. The judge cannot see copies outside of the window; [`elsewhen`] finds
//! those.

pub(crate) mod elsewhen;
mod filter;
mod index;
pub(crate) mod joint;
mod look;
pub(crate) mod marked;
mod table;
mod tally;

pub use self::look::Signature;
pub(crate) use self::look::{Look, Sighting};
pub(crate) use self::tally::Tally;

use self::index::{Index, Slot};
use crate::base::error::Result;
use crate::job::identity::{Identity, IdentityHash};
use crate::job::{Rules, TargetScan};

/// The judge's answer for a record of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The target lacks the record. From now on the judge counts it as written.
    New,
    AlreadyInTarget,
    /// The target holds the record with another timestamp. Occurs only if timestamps are not compared.
    UnderAnotherTime,
    /// The source has shown an equal record before, and one copy in the target is enough.
    DuplicateInSource,
    /// The target lacks the record, and its identity has another content in the target or earlier in the source. Or
    /// timestamps are not compared, and the target holds fewer copies than the source has records that differ only in
    /// timestamp, in and outside of the window: nobody can tell which records the copies belong to.
    Conflict,
}

/// Judges records in bounded memory. Each record of the target and of the source's window takes an entry of 16 bytes.
/// The table has free places too, so this makes 21 to 32 bytes for each record, and two thirds more while the table
/// grows. If timestamps are not compared, the judge takes three times as much.
pub struct Judge {
    way: Way,
    index: Index,
    doubles: u64,
}

/// How records are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// One content for each identity.
    Contents,
    /// As many equal records as the source has (`--identity record`).
    Counts,
    /// [`Way::Contents`], and a copy may have another timestamp.
    AnyTime,
    /// [`Way::Counts`], and a copy may have another timestamp.
    CountsAnyTime,
}

/// An entry for the first content of an identity: 30 bits of the content's hash, and two flags.
#[derive(Clone, Copy)]
struct Entry(u32);

impl Entry {
    const SOURCE: u32 = 1; // the source has shown a record with this content
    const MORE: u32 = 2; // the target holds other contents of this identity too

    #[expect(clippy::cast_possible_truncation, reason = "30 bits are kept")]
    fn new(content: u64, flags: u32) -> Entry {
        Entry((content as u32) << 2 | flags)
    }

    fn is_content(self, content: u64) -> bool {
        self.0 >> 2 == Entry::new(content, 0).0 >> 2
    }
}

/// A value of the tables of counts: the number of copies, in units of [`ONE`], and three flags in the lower bits.
const SEEN: u32 = 1; // the source's window has shown this record
const EXPLAINED: u32 = 2; // a record of the source equals the copies, timestamp included
const CLAIMANT: u32 = 4; // no copy equals this record of the source, but one with another timestamp may be its copy
const ONE: u32 = 8;

/// A value of the table of claims: the number of claimants, in units of [`CLAIM`], and a flag that one of them is
/// outside of the window.
const OUTSIDE: u32 = 1;
const CLAIM: u32 = 2;

impl Judge {
    /// The tables take at most `memory` bytes.
    pub fn new(rules: &Rules, memory: usize) -> Judge {
        let way = match (&rules.identity, rules.target_scan) {
            (Identity::Record, TargetScan::Window) => Way::Counts,
            (Identity::Record, TargetScan::All) => Way::CountsAnyTime,
            (_, TargetScan::Window) => Way::Contents,
            (_, TargetScan::All) => Way::AnyTime,
        };
        Judge { way, index: Index::new(memory), doubles: 0 }
    }

    /// Makes room for that many records at once, if the memory allows. Growing step by step takes more memory, and
    /// time.
    pub fn reserve(&mut self, expected: usize) {
        self.index.reserve(expected);
    }

    /// Makes sure that `more` records find room.
    ///
    /// # Errors
    /// [`crate::base::error::Error::Failed`] when the tables would outgrow their memory.
    pub(crate) fn make_room(&mut self, more: usize) -> Result<()> {
        self.index.make_room(more)
    }

    /// Whether the target or the source has shown a record with this identity. Only for a judge that compares the contents
    /// of identities.
    pub(crate) fn knows(&self, identity: IdentityHash) -> bool {
        self.index.get(Slot::First, identity).is_some()
    }

    /// Makes the processor fetch the places of many records at once, so that the next look-ups do not wait.
    pub fn warm(&self, signatures: impl Iterator<Item = Signature>) {
        match self.way {
            Way::Contents => self.index.warm(signatures.map(|signature| signature.identity)),
            _ => self.index.warm(signatures.map(|signature| signature.exact_key())),
        }
    }

    /// Whether the caller must first show all records of the source's topic to [`Judge::explain`].
    pub fn wants_explanations(&self) -> bool {
        matches!(self.way, Way::AnyTime | Way::CountsAnyTime)
    }

    /// Adds some records of the target, and empties their list.
    ///
    /// # Errors
    /// As [`Judge::target`].
    pub fn take_in(&mut self, signatures: &mut Vec<Signature>) -> Result<()> {
        self.warm(signatures.iter().copied());
        signatures.drain(..).try_for_each(|signature| self.target(signature))
    }

    /// Adds a record of the target.
    ///
    /// # Errors
    /// [`crate::base::error::Error::Failed`] when the tables would outgrow their memory.
    pub fn target(&mut self, signature: Signature) -> Result<()> {
        if self.way == Way::Contents {
            return self.content_of_target(signature);
        }
        let copies = self.index.add(Slot::First, signature.exact_key(), ONE)?;
        if self.wants_explanations() {
            self.index.add(Slot::Loose, signature.loose_key(), 1)?;
            self.index.add(Slot::Identity, signature.identity, 1)?;
            self.doubles += u64::from(self.way == Way::AnyTime && copies > ONE);
        }
        Ok(())
    }

    fn content_of_target(&mut self, signature: Signature) -> Result<()> {
        let Some(entry) = self.index.get_mut(Slot::First, signature.identity) else {
            return self.index.insert(Slot::First, signature.identity, Entry::new(signature.exact, 0).0);
        };
        if Entry(*entry).is_content(signature.exact) {
            self.doubles += 1;
            return Ok(());
        }
        *entry |= Entry::MORE;
        let copies = self.index.add(Slot::More, signature.exact_key(), ONE)?;
        self.doubles += u64::from(copies > ONE);
        Ok(())
    }

    /// Notes that the source holds this record, in the window or elsewhere. A target record that equals it, timestamp
    /// included, is then a copy of no other record. If no target record equals it, one with another timestamp may be
    /// its copy.
    ///
    /// # Errors
    /// [`crate::base::error::Error::Failed`] when the tables would outgrow their memory.
    pub fn explain(&mut self, seen: &Sighting) -> Result<()> {
        let signature = seen.signature;
        let entry = self.index.get(Slot::First, signature.exact_key()).unwrap_or(0);
        if entry >= ONE {
            return self.take_as_explained(signature, entry);
        }
        // If records are not counted, one copy is enough for all equal records.
        let is_counted = self.way == Way::CountsAnyTime || entry & CLAIMANT == 0;
        if is_counted && self.index.get(Slot::Loose, signature.loose_key()).is_some() {
            let flag = if seen.is_in_window { 0 } else { OUTSIDE };
            self.index.add(Slot::More, signature.loose_key(), CLAIM)?;
            self.index.set(Slot::More, signature.loose_key(), flag);
            if entry & CLAIMANT == 0 {
                self.index.add(Slot::First, signature.exact_key(), CLAIMANT)?;
            }
        }
        Ok(())
    }

    fn take_as_explained(&mut self, signature: Signature, entry: u32) -> Result<()> {
        if entry & EXPLAINED == 0 {
            self.index.set(Slot::First, signature.exact_key(), EXPLAINED);
            for (which, key) in [(Slot::Loose, signature.loose_key()), (Slot::Identity, signature.identity)] {
                if let Some(unexplained) = self.index.get_mut(which, key) {
                    *unexplained = unexplained.saturating_sub(entry / ONE);
                }
            }
        }
        Ok(())
    }

    /// Judges a record of the source's window.
    ///
    /// # Errors
    /// [`crate::base::error::Error::Failed`] when the tables would outgrow their memory.
    pub fn source(&mut self, signature: Signature) -> Result<Verdict> {
        match self.way {
            Way::Contents => self.by_content(signature),
            Way::AnyTime => self.by_content_at_any_time(signature),
            Way::Counts | Way::CountsAnyTime => Ok(self.by_count(signature)),
        }
    }

    /// Whether the target is known to hold exactly this record, timestamp included. Changes nothing.
    pub fn holds(&self, signature: Signature) -> bool {
        if self.way != Way::Contents {
            return self.index.get(Slot::First, signature.exact_key()).is_some_and(|entry| entry >= ONE);
        }
        self.index.get(Slot::First, signature.identity).is_some_and(|entry| {
            Entry(entry).is_content(signature.exact)
                || (entry & Entry::MORE != 0 && self.index.get(Slot::More, signature.exact_key()).is_some())
        })
    }

    fn by_content(&mut self, signature: Signature) -> Result<Verdict> {
        let found = |flags: &mut u32| match *flags & SEEN {
            0 => {
                *flags |= SEEN;
                Verdict::AlreadyInTarget
            }
            _ => Verdict::DuplicateInSource,
        };
        let Some(entry) = self.index.get_mut(Slot::First, signature.identity) else {
            self.index.insert(
                Slot::First,
                signature.identity,
                Entry::new(signature.exact, Entry::SOURCE).0,
            )?;
            return Ok(Verdict::New);
        };
        if Entry(*entry).is_content(signature.exact) {
            return Ok(found(entry));
        }
        let has_more = *entry & Entry::MORE != 0;
        let other = has_more.then(|| self.index.get_mut(Slot::More, signature.exact_key())).flatten();
        Ok(other.map_or(Verdict::Conflict, found))
    }

    fn by_content_at_any_time(&mut self, signature: Signature) -> Result<Verdict> {
        let entry = self.index.get(Slot::First, signature.exact_key()).unwrap_or(0);
        if entry & SEEN != 0 {
            return Ok(Verdict::DuplicateInSource);
        }
        if entry >= ONE {
            self.index.set(Slot::First, signature.exact_key(), SEEN);
            self.index.add(Slot::Identity, signature.identity, 1)?;
            return Ok(Verdict::AlreadyInTarget);
        }
        let is_known = self.index.get(Slot::Identity, signature.identity).is_some_and(|known| known > 0);
        let verdict = self.by_claim(signature);
        if verdict == Verdict::Conflict || (verdict == Verdict::New && is_known) {
            return Ok(Verdict::Conflict);
        }
        self.index.add(Slot::First, signature.exact_key(), 0)?;
        self.index.set(Slot::First, signature.exact_key(), SEEN);
        if verdict == Verdict::New {
            self.index.add(Slot::Identity, signature.identity, 1)?;
        }
        Ok(verdict)
    }

    fn by_count(&mut self, signature: Signature) -> Verdict {
        if let Some(entry) = self.index.get_mut(Slot::First, signature.exact_key()) {
            *entry |= SEEN;
            if *entry >= ONE {
                *entry -= ONE;
                return Verdict::AlreadyInTarget;
            }
        }
        self.by_claim(signature)
    }

    /// Judges a record that has no exact copy. A copy that differs only in timestamp may be its copy.
    fn by_claim(&mut self, signature: Signature) -> Verdict {
        let claims = self.index.get(Slot::More, signature.loose_key()).unwrap_or(0);
        match self.index.get_mut(Slot::Loose, signature.loose_key()) {
            Some(copies) if *copies > 0 => {
                if claims & OUTSIDE != 0 && *copies < claims / CLAIM {
                    return Verdict::Conflict;
                }
                *copies -= 1;
            }
            _ => return Verdict::New,
        }
        if let Some(claims) = self.index.get_mut(Slot::More, signature.loose_key()) {
            *claims = claims.saturating_sub(CLAIM);
        }
        Verdict::UnderAnotherTime
    }

    /// How many more copies the target holds than it needs. If records are counted, this is known only after the whole
    /// window `is_judged`; before that, it is 0.
    pub fn duplicates_in_target(&self, is_judged: bool) -> u64 {
        match self.way {
            Way::Contents | Way::AnyTime => self.doubles,
            Way::Counts | Way::CountsAnyTime if !is_judged => 0,
            Way::Counts | Way::CountsAnyTime => {
                let left = self.index.values(Slot::First).filter(|entry| entry & SEEN != 0);
                left.map(|entry| u64::from(entry / ONE)).sum()
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }
}

/// Mixes two hashes into one key.
fn mixed([first, second]: IdentityHash, other: u64) -> IdentityHash {
    // Multiplying by an odd number loses no information. The second half keeps the information that the product's low
    // bits lack.
    [first ^ other.wrapping_mul(0x9e37_79b9_7f4a_7c15), second.wrapping_add(other.rotate_left(32))]
}

#[cfg(test)]
mod tests;
