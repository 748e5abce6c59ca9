//! The tables of a judge. Together they keep to one limit of memory.

use super::table::{Key, Table};
use crate::base::error::{Error, Reason, Result};
use crate::job::identity::IdentityHash;

/// The tables, by the keys that they hold.
#[derive(Clone, Copy)]
pub(super) enum Slot {
    /// Identities with their first content; or records, if each record has a count.
    First,
    /// Further contents of identities; or records without their timestamp, with the number of claimants of copies.
    More,
    /// Records without their timestamp.
    Loose,
    /// Identities.
    Identity,
}

pub(super) struct Index {
    tables: [Table; 4],
    memory: usize,
}

impl Index {
    pub(super) fn new(memory: usize) -> Index {
        Index { tables: Default::default(), memory }
    }

    fn bytes(&self) -> usize {
        self.tables.iter().map(|table| table.places() * Table::PLACE_BYTES).sum()
    }

    pub(super) fn reserve(&mut self, expected: usize) {
        let places = Table::places_for(expected.min(self.memory));
        let first = &mut self.tables[Slot::First as usize];
        if places > first.places() && places.saturating_mul(Table::PLACE_BYTES) <= self.memory {
            first.grow(places);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.tables[Slot::First as usize].len()
    }

    pub(super) fn warm(&self, identities: impl Iterator<Item = IdentityHash>) {
        self.tables[Slot::First as usize].warm(identities.map(Key::new));
    }

    pub(super) fn get(&self, which: Slot, key: IdentityHash) -> Option<u32> {
        self.tables[which as usize].get(Key::new(key))
    }

    pub(super) fn get_mut(&mut self, which: Slot, key: IdentityHash) -> Option<&mut u32> {
        self.tables[which as usize].get_mut(Key::new(key))
    }

    pub(super) fn values(&self, which: Slot) -> impl Iterator<Item = u32> {
        self.tables[which as usize].values()
    }

    /// Sets bits of a value, if the key has one.
    pub(super) fn set(&mut self, which: Slot, key: IdentityHash, bits: u32) {
        if let Some(value) = self.get_mut(which, key) {
            *value |= bits;
        }
    }

    /// Adds to a value, which is 0 at first, and returns the sum.
    ///
    /// # Errors
    /// As [`Index::insert`].
    pub(super) fn add(&mut self, which: Slot, key: IdentityHash, more: u32) -> Result<u32> {
        if let Some(value) = self.get_mut(which, key) {
            *value = value.saturating_add(more);
            return Ok(*value);
        }
        self.insert(which, key, more)?;
        Ok(more)
    }

    /// Adds a key that is not there yet.
    ///
    /// # Errors
    /// [`Error::Failed`] when the tables would outgrow their memory.
    pub(super) fn insert(&mut self, which: Slot, key: IdentityHash, value: u32) -> Result<()> {
        if self.tables[which as usize].is_full() {
            self.grow(which, Table::places_for(self.tables[which as usize].places()))?;
        }
        self.tables[which as usize].insert(Key::new(key), value);
        Ok(())
    }

    /// Makes sure that `more` keys find room in the first table.
    ///
    /// # Errors
    /// As [`Index::insert`].
    pub(super) fn make_room(&mut self, more: usize) -> Result<()> {
        let places = Table::places_for(self.len().saturating_add(more));
        if places > self.tables[Slot::First as usize].places() {
            self.grow(Slot::First, places)
        } else {
            Ok(())
        }
    }

    fn grow(&mut self, which: Slot, places: usize) -> Result<()> {
        // Growing needs the old and the new places.
        let needed = self.bytes().saturating_add(places.saturating_mul(Table::PLACE_BYTES));
        if needed > self.memory {
            return Err(Error::failed(format!(
                "the index of identities would outgrow its --index-memory of {} MiB at {} records of the window; raise \
                 it to {} MiB or fill a smaller window at a time",
                self.memory >> 20,
                self.len(),
                (needed >> 20) + 1,
            ))
            .because(Reason::IndexMemory));
        }
        self.tables[which as usize].grow(places);
        Ok(())
    }
}
