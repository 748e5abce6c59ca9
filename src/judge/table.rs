//! The hash table that holds the index's entries. It uses open addressing with linear probing, so that a look-up waits
//! for only one place in memory, and many look-ups can wait at once. Pure.

use crate::job::identity::IdentityHash;

/// 95 bits of an identity, and one bit that is set in every key. So a place that holds only zeros is free. If two
/// identities share their 95 bits by chance, their contents differ, and that is an error. A record is lost only if 125
/// bits are equal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key([u32; 3]);

impl Key {
    const NONE: Key = Key([0; 3]);

    #[expect(clippy::cast_possible_truncation, reason = "the bits that are left out are not needed")]
    pub(super) fn new([first, second]: IdentityHash) -> Key {
        Key([first as u32, (first >> 32) as u32, (second as u32) << 1 | 1])
    }

    /// The first place of this key among `places`. Places are in the order of keys, so a table grows by a copy from the
    /// front to the back.
    #[expect(clippy::cast_possible_truncation, reason = "less than `places`")]
    fn home(self, places: usize) -> usize {
        let first = u64::from(self.0[1]) << 32 | u64::from(self.0[0]);
        ((u128::from(first) * places as u128) >> 64) as usize
    }
}

#[derive(Clone, Copy)]
struct Place {
    key: Key,
    value: u32,
}

const FREE: Place = Place { key: Key::NONE, value: 0 };

#[derive(Default)]
pub(super) struct Table {
    places: Vec<Place>,
    len: usize,
}

impl Table {
    pub(super) const PLACE_BYTES: usize = size_of::<Place>();

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    /// The number of places for `len` keys. A third of them stay free, so that probes are short.
    pub(super) fn places_for(len: usize) -> usize {
        len.saturating_add(len / 2).saturating_add(4)
    }

    /// Whether the table must grow before it takes another key: a quarter of the places stays free.
    pub(super) fn is_full(&self) -> bool {
        self.len >= self.places.len() / 4 * 3
    }

    /// The value of `key`, to be read or changed.
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut u32> {
        let place = self.find(key)?;
        (self.places[place].key == key).then_some(&mut self.places[place].value)
    }

    pub(super) fn get(&self, key: Key) -> Option<u32> {
        let place = self.places[self.find(key)?];
        (place.key == key).then_some(place.value)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = u32> {
        self.places.iter().filter(|place| place.key != Key::NONE).map(|place| place.value)
    }

    /// Adds a key that is not there yet. The table must not be full.
    pub(super) fn insert(&mut self, key: Key, value: u32) {
        debug_assert!(!self.is_full() && self.get(key).is_none());
        if let Some(place) = self.find(key) {
            self.places[place] = Place { key, value };
            self.len += 1;
        }
    }

    /// Makes the processor fetch the first place of each key.
    pub(super) fn warm(&self, keys: impl Iterator<Item = Key>) {
        for key in keys {
            std::hint::black_box(self.places.get(key.home(self.places.len())).map(|place| place.value));
        }
    }

    /// Moves all entries into `places`, which are more than before.
    pub(super) fn grow(&mut self, places: usize) {
        let old = std::mem::replace(&mut self.places, vec![FREE; places]);
        self.len = 0;
        for place in old.into_iter().filter(|place| place.key != Key::NONE) {
            self.insert(place.key, place.value);
        }
    }

    /// The place of `key`, or the free place where it belongs; `None` if the table has no places.
    fn find(&self, key: Key) -> Option<usize> {
        let home = key.home(self.places.len());
        let (before, after) = self.places.split_at(home);
        let is_it = |place: &Place| place.key == key || place.key == Key::NONE;
        match after.iter().position(is_it) {
            Some(steps) => Some(home + steps),
            None => before.iter().position(is_it),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Uses few keys, some at the very end of the places, so that they collide and wrap around.
        #[test]
        fn is_a_map(steps in prop::collection::vec((0_u64..40, prop::bool::ANY, any::<u32>()), 0..200)) {
            let (mut table, mut model) = (Table::default(), HashMap::new());
            for (n, at_the_end, value) in steps {
                let identity = if at_the_end { [u64::MAX - n % 3, n] } else { [n << 58, n] };
                let key = Key::new(identity);
                prop_assert_eq!(table.get(key), model.get(&identity).copied());
                match table.get_mut(key) {
                    Some(old) => *old = value,
                    None => {
                        if table.is_full() {
                            table.grow(table.places() * 3 / 2 + 4);
                        }
                        table.insert(key, value);
                    }
                }
                model.insert(identity, value);
            }
            prop_assert_eq!(table.len(), model.len());
            prop_assert!(model.iter().all(|(identity, value)| table.get(Key::new(*identity)) == Some(*value)));
        }
    }
}
