//! Counts the records that were added to the target beyond those of the source. Pure.

use super::index::{Index, Slot};
use super::{Sighting, Signature};
use crate::base::error::Result;
use crate::job::identity::{Identity, IdentityHash};
use crate::job::{Rules, TargetScan};

/// A flag beside a count: the source's window holds a record like it.
const OF_WINDOW: u32 = 1 << 31;

/// Counts in bounded memory, as a judge does: each added record takes 16 bytes, so 21 to 32 bytes of the table.
pub(crate) struct Tally {
    index: Index,
    /// Equal records are counted (`--identity record`). Otherwise one record of an identity is enough.
    is_by_count: bool,
    is_at_any_time: bool,
}

impl Tally {
    /// The table takes at most `memory` bytes. It has room for `expected` records from the start, if that allows it.
    pub(crate) fn new(rules: &Rules, memory: usize, expected: usize) -> Tally {
        let mut index = Index::new(memory);
        index.reserve(expected);
        Tally {
            index,
            is_by_count: rules.identity == Identity::Record,
            is_at_any_time: rules.target_scan == TargetScan::All,
        }
    }

    fn key(&self, signature: Signature) -> IdentityHash {
        match (self.is_by_count, self.is_at_any_time) {
            (true, true) => signature.loose_key(),
            (true, false) => signature.exact_key(),
            (false, _) => signature.identity,
        }
    }

    /// Counts a record that was added.
    ///
    /// # Errors
    /// [`crate::base::error::Error::Failed`] when the table would outgrow its memory.
    pub(crate) fn add(&mut self, signature: Signature) -> Result<()> {
        self.index.add(Slot::First, self.key(signature), 1).map(drop)
    }

    /// Counts a record that was in the target before, if one like it was added.
    pub(crate) fn was_there(&mut self, signature: Signature) {
        if let Some(count) = self.index.get_mut(Slot::First, self.key(signature)) {
            *count += 1;
        }
    }

    /// Takes a record of the source, after all records of the target.
    pub(crate) fn source(&mut self, seen: &Sighting) {
        let is_by_count = self.is_by_count;
        if let Some(count) = self.index.get_mut(Slot::First, self.key(seen.signature)) {
            if is_by_count && *count & !OF_WINDOW > 0 {
                *count -= 1;
            }
            if seen.is_in_window {
                *count |= OF_WINDOW;
            }
        }
    }

    fn left(&self, count: u32) -> u32 {
        // If records are not counted and timestamps are compared, all compared records are of the window.
        let is_of_window = count & OF_WINDOW != 0 || !(self.is_by_count || self.is_at_any_time);
        let enough = u32::from(!self.is_by_count);
        if is_of_window { (count & !OF_WINDOW).saturating_sub(enough) } else { 0 }
    }

    /// How many records are left over.
    pub(crate) fn left_over(&self) -> u64 {
        self.index.values(Slot::First).map(|count| u64::from(self.left(count))).sum()
    }

    /// Whether the record is left over. For records that are alike, only the first call returns true.
    pub(crate) fn take_left_over(&mut self, signature: Signature) -> bool {
        let key = self.key(signature);
        let is_left = self.index.get(Slot::First, key).is_some_and(|count| self.left(count) > 0);
        if let Some(count) = self.index.get_mut(Slot::First, key).filter(|_| is_left) {
            *count = 0;
        }
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::Reason;

    fn signature(n: u64) -> Signature {
        // Spread as hashes are.
        let n = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Signature { identity: [n, n.rotate_left(29)], exact: n, loose: n }
    }

    fn rules() -> Rules {
        Rules::by(Identity::Record)
    }

    fn seen(n: u64, is_in_window: bool) -> Sighting {
        Sighting { signature: signature(n), is_in_window, ..Sighting::default() }
    }

    #[test]
    fn what_the_source_does_not_have_is_left_over() {
        let mut tally = Tally::new(&rules(), 1 << 20, 0);
        // Record 1 was there and was added again. Record 2 was added twice. Record 3 was added once, and the source has
        // it twice. Record 5 is not the source's.
        for n in [1, 2, 2, 3, 5] {
            tally.add(signature(n)).expect("room");
        }
        [1, 4].into_iter().for_each(|n| tally.was_there(signature(n)));
        [1, 2, 3, 3, 4].into_iter().for_each(|n| tally.source(&seen(n, true)));
        assert_eq!(tally.left_over(), 2);
        let left: Vec<u64> =
            [1, 2, 2, 3, 4].into_iter().filter(|n| tally.take_left_over(signature(*n))).collect();
        assert_eq!(left, [1, 2], "each once");
    }

    #[test]
    fn one_of_an_identity_is_enough() {
        let mut rules = Rules::by(Identity::Key);
        for scan in [TargetScan::Window, TargetScan::All] {
            rules.target_scan = scan;
            let mut tally = Tally::new(&rules, 1 << 20, 0);
            [1, 1, 1, 2, 3, 3].into_iter().for_each(|n| tally.add(signature(n)).expect("room"));
            [(1, true), (2, true), (3, false)].into_iter().for_each(|(n, of)| tally.source(&seen(n, of)));
            // If timestamps are not compared, a record outside of the window may be added any number of times.
            assert_eq!(tally.left_over(), if scan == TargetScan::All { 2 } else { 3 });
        }
    }

    #[test]
    fn it_refuses_what_does_not_fit() {
        let mut tally = Tally::new(&rules(), 1 << 20, 0);
        let err = (0..1_000_000).find_map(|n| tally.add(signature(n)).err()).expect("it is bounded");
        assert_eq!(err.reason(), Reason::IndexMemory);
    }

    #[test]
    fn room_for_what_is_expected_is_there_at_once() {
        let expected = 40_000;
        let mut tally = Tally::new(&rules(), 1 << 20, expected);
        (0..expected as u64).for_each(|n| tally.add(signature(n)).expect("room"));
    }
}
