//! Gathers records by steps of event time. If there are too many steps, each becomes longer. Pure.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, hash_map};
use std::hash::{BuildHasher, Hasher};

/// What the records of a step come to.
pub(super) trait Merge: Default {
    fn merge(&mut self, other: &Self);
}

pub(super) struct Steps<T> {
    /// Each step takes 2^shift milliseconds.
    shift: u32,
    most: usize,
    /// Records without event time have a step of their own.
    places: HashMap<Option<i64>, usize, ahash::RandomState>,
    /// The step at each place, and what its records come to.
    all: Vec<(Option<i64>, T)>,
    /// The place of the last record. The next one is often of the same step, or of the one behind it.
    last: Cell<usize>,
}

impl<T: Merge> Steps<T> {
    /// At most so many steps, of one millisecond each until there are more.
    pub(super) fn new(most: usize) -> Steps<T> {
        // Who wrote the records has chosen their times, and must not be able to choose times of one hash.
        let random = || hash_map::RandomState::new().build_hasher().finish();
        let keyed = ahash::RandomState::with_seeds(random(), random(), random(), random());
        Steps { shift: 0, most, places: HashMap::with_hasher(keyed), all: Vec::new(), last: Cell::new(0) }
    }

    pub(super) fn shift(&self) -> u32 {
        self.shift
    }

    fn step(&self, time: Option<i64>) -> Option<i64> {
        time.map(|time| time >> self.shift)
    }

    /// The step of records of this time; an empty one if it is new.
    pub(super) fn at(&mut self, time: Option<i64>) -> &mut T {
        let place = self.place(time);
        &mut self.all[place].1
    }

    fn place(&mut self, time: Option<i64>) -> usize {
        loop {
            let step = self.step(time);
            if let Some(place) = self.find(step) {
                return place;
            }
            if self.all.len() < self.most {
                self.places.insert(step, self.all.len());
                self.all.push((step, T::default()));
            } else {
                while self.all.len() >= self.most {
                    self.double();
                }
            }
        }
    }

    fn find(&self, step: Option<i64>) -> Option<usize> {
        let last = self.last.get();
        let is_at = |place: &usize| self.all.get(*place).is_some_and(|(at, _)| *at == step);
        let found = [last, last + 1].into_iter().find(is_at).or_else(|| self.places.get(&step).copied());
        found.inspect(|place| self.last.set(*place))
    }

    /// Makes each step 2^`shift` milliseconds long, unless it is longer.
    pub(super) fn lengthen(&mut self, shift: u32) {
        while self.shift < shift {
            self.double();
        }
    }

    /// Also sorts the steps by time.
    fn double(&mut self) {
        self.shift += 1;
        self.all.sort_unstable_by_key(|(step, _)| *step);
        for (step, _) in &mut self.all {
            *step = step.map(|step| step >> 1);
        }
        self.all.dedup_by(|(step, of), (kept, into)| {
            let is_same = step == kept;
            if is_same {
                into.merge(of);
            }
            is_same
        });
        self.places.clear();
        self.places.extend(self.all.iter().zip(0..).map(|((step, _), place)| (*step, place)));
    }

    pub(super) fn get(&self, time: Option<i64>) -> Option<&T> {
        self.find(self.step(time)).map(|place| &self.all[place].1)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// All steps, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = &T> {
        self.all.iter().map(|(_, of)| of)
    }

    /// All steps by their first milliseconds; the step of records without event time comes first.
    pub(super) fn by_start(&self) -> BTreeMap<Option<i64>, &T> {
        let start = |step: Option<i64>| step.map(|step| step << self.shift);
        self.all.iter().map(|(step, of)| (start(*step), of)).collect()
    }
}
