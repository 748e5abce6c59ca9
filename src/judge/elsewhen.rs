//! Finds copies with another timestamp: records of the target outside of the window that differ only in timestamp from
//! a record that the source holds in the window. A copier that stamps its own time leaves such copies, and so does a
//! repair by hand.
//!
//! While a run scans the target, a small filter notes the records outside of the window. If a record of the window hits
//! the filter, a second look decides exactly: it reads the target's records outside of the window again, and then the
//! source's records. If a target record equals some source record, timestamp included, it is no copy of another record.
//!
//! If very many records are outside of the window, the filter would be full, and each record of the window would hit it.
//! Then the run reads the source's window first, and the filter notes only those records that look like one of it.

use std::collections::HashMap;

use super::filter::Filter;
use super::{Sighting, Signature};
use crate::base::error::{Error, Reason, Result};
use crate::job::identity::IdentityHash;

/// The target's records outside of the window, without their timestamps.
pub(crate) struct Outside {
    found: Filter,
    /// The source's records of the window, without their timestamps, if only records like them count.
    wanted: Option<Filter>,
    is_suspicious: bool,
}

impl Outside {
    /// For `expected` records. It takes at most an eighth of the `index_memory`, in bytes, and as much again if only
    /// records like those of the source's window count.
    pub(crate) fn new(expected: u64, index_memory: usize) -> Outside {
        Outside { found: filter(expected, index_memory), wanted: None, is_suspicious: false }
    }

    /// Whether the memory suffices to tell that many records apart from those of the window.
    pub(crate) fn has_room(expected: u64, index_memory: usize) -> bool {
        Filter::bytes(size(expected)) <= most(index_memory)
    }

    /// From now on, only records count that look like one of the source's window. The caller wants all of those, at most
    /// `expected`, before it inserts the first record of the target.
    pub(crate) fn only_wanted(&mut self, expected: u64, index_memory: usize) {
        self.wanted = Some(filter(expected, index_memory));
    }

    /// Takes a record of the source's window.
    pub(crate) fn want(&mut self, signature: Signature) {
        if let Some(wanted) = &mut self.wanted {
            wanted.insert(signature.loose_key());
        }
    }

    /// Adds some records, and empties their list.
    pub(crate) fn take_in(&mut self, signatures: &mut Vec<Signature>) {
        let first = self.wanted.as_ref().unwrap_or(&self.found);
        first.warm(signatures.iter().map(Signature::loose_key));
        signatures.drain(..).for_each(|signature| self.insert(signature));
    }

    pub(crate) fn insert(&mut self, signature: Signature) {
        let key = signature.loose_key();
        if self.wanted.as_ref().is_none_or(|wanted| wanted.may_hold(key)) {
            self.found.insert(key);
            self.is_suspicious |= self.wanted.is_some();
        }
    }

    /// Frees what only insertions need.
    pub(crate) fn end(&mut self) {
        self.wanted = None;
    }

    /// Whether it is time for a second look: the target holds a record that looks like one of the source's window.
    /// Unknown, so false, if all records count.
    pub(crate) fn is_suspicious(&self) -> bool {
        self.is_suspicious
    }

    /// Makes the processor fetch the places of many records at once, so that the next look-ups do not wait.
    pub(crate) fn warm(&self, signatures: impl Iterator<Item = Signature>) {
        self.found.warm(signatures.map(|signature| signature.loose_key()));
    }

    /// Whether the target may hold a copy outside of the window. Only a second look can decide.
    pub(crate) fn may_hold(&self, signature: Signature) -> bool {
        self.found.may_hold(signature.loose_key())
    }
}

fn filter(expected: u64, index_memory: usize) -> Filter {
    Filter::new(size(expected), most(index_memory))
}

fn size(expected: u64) -> usize {
    usize::try_from(expected).unwrap_or(usize::MAX)
}

/// The most bytes that one filter takes.
fn most(index_memory: usize) -> usize {
    index_memory / 8
}

/// A second look. The caller shows it the source's records of the window that hit the filter, then the target's records
/// outside of the window, then all records of the source.
pub(crate) struct SecondLook {
    suspects: HashMap<IdentityHash, Suspect>,
    /// Records of the target, each with the suspect that it may be a copy of.
    evidence: HashMap<IdentityHash, Unexplained>,
    /// The records that were found to be copies, with their number.
    copies: Vec<(IdentityHash, u64)>,
    /// The most bytes that both maps may take together.
    memory: usize,
}

/// Records of the source's window that differ only in timestamp.
#[derive(Clone, Copy, Default)]
struct Suspect {
    /// How many of these records the target lacks.
    lacking: u64,
    is_settled: bool,
}

struct Unexplained {
    suspect: IdentityHash,
    copies: u64,
}

/// About how many bytes an entry takes in a map that has just grown.
const ENTRY_BYTES: usize = 80;

/// The result of a second look, in numbers of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StampedCopies {
    /// Records of the target that are copies of the window's records, with another timestamp.
    pub copies: u64,
    /// Records of the source's window that the target lacks, unless such a copy counts.
    pub lacking: u64,
}

impl StampedCopies {
    /// A sentence, if there are copies.
    pub(crate) fn sentence(self, source: &str, target: &str) -> Option<String> {
        (self.copies > 0).then(|| {
            format!(
                "{} records of {target} outside of the window differ only in timestamp from records of {source} in the \
                 window, and no record of {source} equals them exactly",
                self.copies
            )
        })
    }
}

impl SecondLook {
    /// It takes at most a quarter of the `index_memory`, in bytes.
    pub(crate) fn new(index_memory: usize) -> SecondLook {
        SecondLook {
            suspects: HashMap::new(),
            evidence: HashMap::new(),
            copies: Vec::new(),
            memory: index_memory / 4,
        }
    }

    /// Whether this look has decided about such a record, or will decide about it.
    pub(crate) fn knows(&self, signature: Signature) -> bool {
        self.suspects.contains_key(&signature.loose_key())
    }

    /// Decides about all suspects. `target` reads the target's records of the first scan; `source` reads all of the
    /// source, and runs only if the target shows evidence.
    ///
    /// # Errors
    /// As [`SecondLook::suspect`], and as the readings.
    pub(crate) fn decide(
        &mut self,
        target: impl FnOnce(&mut dyn FnMut(&Sighting) -> Result<()>) -> Result<()>,
        source: impl FnOnce(&mut dyn FnMut(&Sighting) -> Result<()>) -> Result<()>,
    ) -> Result<StampedCopies> {
        if self.suspects.is_empty() {
            return Ok(StampedCopies::default());
        }
        target(&mut |seen| self.target(seen))?;
        if !self.evidence.is_empty() {
            source(&mut |seen| {
                self.source(seen);
                Ok(())
            })?;
        }
        Ok(self.settle())
    }

    /// The copies that were found so far: the key of each record, with timestamp, and how often the target holds it.
    pub(crate) fn copies(&self) -> impl Iterator<Item = (IdentityHash, u64)> {
        self.copies.iter().copied()
    }

    fn check_memory(&self) -> Result<()> {
        let entries = self.suspects.len() + self.evidence.len();
        if entries < self.memory / ENTRY_BYTES {
            return Ok(());
        }
        Err(Error::failed(format!(
            "too many records look like copies with another timestamp: --index-memory has no room for more than \
             {entries}; raise it, fill a smaller window at a time, or use --identity record, for which a record with \
             another timestamp is another record"
        ))
        .because(Reason::IndexMemory))
    }

    /// Adds a record of the source's window. Does nothing if an earlier look has settled it.
    ///
    /// # Errors
    /// [`Error::Failed`] if the memory does not suffice.
    pub(crate) fn suspect(&mut self, signature: Signature, is_in_target: bool) -> Result<()> {
        self.check_memory()?;
        let suspect = self.suspects.entry(signature.loose_key()).or_default();
        if !suspect.is_settled {
            suspect.lacking += u64::from(!is_in_target);
        }
        Ok(())
    }

    /// Adds a record of the target.
    ///
    /// # Errors
    /// As [`SecondLook::suspect`].
    fn target(&mut self, seen: &Sighting) -> Result<()> {
        let suspect = seen.signature.loose_key();
        if seen.is_in_window || self.suspects.get(&suspect).is_none_or(|suspect| suspect.is_settled) {
            return Ok(());
        }
        self.check_memory()?;
        let evidence = Unexplained { suspect, copies: 0 };
        self.evidence.entry(seen.signature.exact_key()).or_insert(evidence).copies += 1;
        Ok(())
    }

    /// Takes a record of the source. It explains the target's records that equal it.
    fn source(&mut self, seen: &Sighting) {
        self.evidence.remove(&seen.signature.exact_key());
    }

    /// Counts the records that no source record explained, and settles all suspects.
    fn settle(&mut self) -> StampedCopies {
        let mut found = StampedCopies::default();
        for (record, Unexplained { suspect, copies }) in std::mem::take(&mut self.evidence) {
            found.copies += copies;
            self.copies.push((record, copies));
            if let Some(suspect) = self.suspects.get_mut(&suspect) {
                found.lacking += std::mem::take(&mut suspect.lacking);
            }
        }
        self.suspects.values_mut().for_each(|suspect| suspect.is_settled = true);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(identity: u64, time: u64) -> Sighting {
        let signature = Signature { identity: [identity, 0], exact: identity * 1000 + time, loose: identity };
        Sighting { signature, ..Sighting::default() }
    }

    #[test]
    fn a_record_that_the_source_explains_is_no_copy_of_another() {
        let mut look = SecondLook::new(1 << 20);
        for (identity, is_in_target) in [(1, false), (2, false), (3, true)] {
            look.suspect(seen(identity, 12).signature, is_in_target).expect("room");
        }
        for (identity, time) in [(1, 10), (1, 14), (2, 10), (2, 99), (3, 98), (3, 99), (4, 10)] {
            look.target(&seen(identity, time)).expect("room");
        }
        for (identity, time) in [(1, 10), (1, 14), (2, 10), (3, 10)] {
            look.source(&seen(identity, time));
        }
        assert_eq!(look.settle(), StampedCopies { copies: 3, lacking: 1 });
        assert!(look.knows(seen(1, 77).signature) && !look.knows(seen(4, 10).signature));
        look.target(&seen(2, 97)).expect("room");
        assert_eq!(look.settle(), StampedCopies::default(), "each is reported once");
    }

    #[test]
    fn the_few_of_the_window_are_told_apart_from_very_many_outside() {
        let signature = |n: u64| {
            let spread = |n: u64| (n ^ n >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
            let [first, second] = [2 * n + 1, 2 * n + 2].map(|n| spread(spread(spread(n))));
            Signature { identity: [first, second], ..Signature::default() }
        };
        let many = 100_000;
        assert!(Outside::has_room(many, 8 << 20) && !Outside::has_room(many, 1 << 20));
        for copies in [0, 3] {
            let mut outside = Outside::new(many, 64 << 10);
            outside.only_wanted(many, 64 << 10);
            (0..500).for_each(|n| outside.want(signature(n)));
            outside.take_in(&mut (500 - copies..many).map(signature).collect());
            outside.end();
            assert_eq!(outside.is_suspicious(), copies > 0);
            let hits = (0..500).filter(|n| outside.may_hold(signature(*n))).count();
            assert_eq!(hits as u64, copies);
        }
    }

    #[test]
    fn refuses_to_outgrow_its_memory() {
        let mut look = SecondLook::new(4 * 100 * ENTRY_BYTES);
        let outcome =
            (0..200).find_map(|n| look.suspect(seen(n, 1).signature, false).err()).expect("refused");
        assert!(outcome.to_string().contains("--index-memory"), "{outcome}");
    }
}
