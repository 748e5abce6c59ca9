//! Gathers records by steps of event time. If there are too many steps, each becomes longer. Pure.

use std::collections::{BTreeMap, HashMap};

/// What the records of a step come to.
pub(super) trait Merge: Default {
    fn merge(&mut self, other: &Self);
}

pub(super) struct Steps<T> {
    /// Each step takes 2^shift milliseconds.
    shift: u32,
    most: usize,
    /// Records without event time have a step of their own.
    places: HashMap<Option<i64>, usize>,
    all: Vec<T>,
    /// The step of the last record: the next one is often of the same.
    last: Option<(Option<i64>, usize)>,
}

impl<T: Merge> Steps<T> {
    /// At most so many steps, of one millisecond each until there are more.
    pub(super) fn new(most: usize) -> Steps<T> {
        Steps { shift: 0, most, places: HashMap::new(), all: Vec::new(), last: None }
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
        &mut self.all[place]
    }

    fn place(&mut self, time: Option<i64>) -> usize {
        loop {
            let step = self.step(time);
            if let Some((_, at)) = self.last.filter(|(last, _)| *last == step) {
                return at;
            }
            if let Some(at) = self.places.get(&step) {
                self.last = Some((step, *at));
                return *at;
            }
            if self.places.len() < self.most {
                self.places.insert(step, self.all.len());
                self.all.push(T::default());
            } else {
                while self.places.len() >= self.most {
                    self.double();
                }
            }
        }
    }

    /// Makes each step 2^`shift` milliseconds long, unless it is longer.
    pub(super) fn lengthen(&mut self, shift: u32) {
        while self.shift < shift {
            self.double();
        }
    }

    fn double(&mut self) {
        self.shift += 1;
        self.last = None;
        let mut old: Vec<Option<T>> = std::mem::take(&mut self.all).into_iter().map(Some).collect();
        for (step, at) in std::mem::take(&mut self.places) {
            let Some(taken) = old[at].take() else { continue };
            let step = step.map(|step| step >> 1);
            match self.places.get(&step) {
                None => {
                    self.places.insert(step, self.all.len());
                    self.all.push(taken);
                }
                Some(into) => self.all[*into].merge(&taken),
            }
        }
    }

    pub(super) fn get(&self, time: Option<i64>) -> Option<&T> {
        self.places.get(&self.step(time)).map(|at| &self.all[*at])
    }

    /// All steps, in no order.
    pub(super) fn all(&self) -> &[T] {
        &self.all
    }

    /// All steps by their first milliseconds; the step of records without event time comes first.
    pub(super) fn by_start(&self) -> BTreeMap<Option<i64>, &T> {
        let start = |step: Option<i64>| step.map(|step| step << self.shift);
        self.places.iter().map(|(step, at)| (start(*step), &self.all[*at])).collect()
    }
}
