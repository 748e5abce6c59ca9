//! Keeps two facts that the judge does not keep: the place of each record, and its number of copies.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use super::Judged;
use super::differences::{Kind, Unnamed};
use crate::base::error::{Error, Reason, Result};
use crate::compare::verify::Findings;
use crate::job::identity::IdentityHash;
use crate::job::{OnConflict, Rules, TargetScan};
use crate::judge::{Sighting, Signature, Verdict};
use crate::kafka::record::describe;
use crate::kafka::sys::Message;

/// A map whose keys are hashes already, so it does not hash them again.
pub(super) type ByHash<V> = HashMap<IdentityHash, V, BuildHasherDefault<AsItIs>>;

/// Uses the first word of an [`IdentityHash`] as its hash.
#[derive(Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }

    /// `Hash` writes the length of the array first. It is the same for all.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

pub(super) struct Pairing {
    skips_conflicts: bool,
    /// Whether timestamps are not compared.
    is_at_any_time: bool,
    bounds: Bounds,
    /// The target's records, by their whole content.
    slots: ByHash<Slot>,
    /// The target's records by content without timestamp. Empty if timestamps are compared.
    loose: ByHash<Loose>,
    /// The place of a record in the target, and of its original in the source.
    pairs: Vec<(Place, Place)>,
    /// The number of the source's records that conflict, by identity.
    conflicts: ByHash<u64>,
    found: Findings,
}

/// What a pairing may keep.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// The most different records of the target.
    pub slots: usize,
    /// Whether it keeps each pair, and so judges the order.
    pub keeps_order: bool,
    /// Whether it notes each difference for a list.
    pub lists: bool,
}

/// About how many bytes a slot takes in a map that grows.
pub(super) const SLOT_BYTES: usize = 256;

/// Equal records of the target.
struct Slot {
    identity: IdentityHash,
    loose: IdentityHash,
    /// The place of the first one.
    place: Place,
    is_in_window: bool,
    copies: u64,
    /// How many such records the source's window has shown.
    in_source: u64,
    /// Whether the source holds such a record anywhere, in the window or not.
    is_explained: bool,
}

/// Records of the target that differ only in timestamp.
#[derive(Default)]
struct Loose {
    slots: Vec<IdentityHash>,
    /// How many records of the source can be in the target only with another timestamp.
    wanted: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub partition: i32,
    pub offset: i64,
}

impl Place {
    pub(super) fn of(message: &Message) -> Place {
        Place { partition: message.partition(), offset: message.offset() }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "partition {} offset {}", self.partition, self.offset)
    }
}

impl Pairing {
    pub(super) fn new(rules: &Rules, bounds: Bounds) -> Pairing {
        Pairing {
            skips_conflicts: rules.on_conflict == OnConflict::Skip,
            is_at_any_time: rules.target_scan == TargetScan::All,
            bounds,
            slots: ByHash::default(),
            loose: ByHash::default(),
            pairs: Vec::new(),
            conflicts: ByHash::default(),
            found: Findings::default(),
        }
    }

    /// Takes a record of the target.
    ///
    /// # Errors
    /// [`Error::Failed`] if there are too many slots.
    pub(super) fn target(&mut self, message: &Message, seen: &Sighting) -> Result<()> {
        let Signature { identity, .. } = seen.signature;
        let (key, loose) = (seen.signature.exact_key(), seen.signature.loose_key());
        if self.is_at_any_time && !self.slots.contains_key(&key) {
            self.loose.entry(loose).or_default().slots.push(key);
        }
        let slot = self.slots.entry(key).or_insert_with(|| Slot {
            identity,
            loose,
            place: Place::of(message),
            is_in_window: seen.is_in_window,
            copies: 0,
            in_source: 0,
            is_explained: false,
        });
        slot.copies += 1;
        if self.slots.len() > self.bounds.slots {
            return Err(Error::failed(format!(
                "--index-memory has no room to compare {} records that share few identities; raise it",
                self.slots.len()
            ))
            .because(Reason::IndexMemory));
        }
        Ok(())
    }

    /// Takes a record of the source, in the window or not. Called before any record is judged, and only if timestamps
    /// are not compared.
    pub(super) fn explained(&mut self, seen: &Sighting) {
        if let Some(slot) = self.slots.get_mut(&seen.signature.exact_key()) {
            slot.is_explained = true;
        } else if let Some(loose) = self.loose.get_mut(&seen.signature.loose_key()) {
            loose.wanted += 1;
        }
    }

    /// Takes a record of the source's window.
    pub(super) fn source(&mut self, message: &Message, seen: &Sighting, judged: &Judged) {
        let verdict = match judged {
            Judged::LeftOut(why) => {
                self.found.invalid += 1;
                return self.found.example(why, || describe(message));
            }
            Judged::By(verdict) => *verdict,
        };
        match verdict {
            Verdict::AlreadyInTarget => self.pair(seen.signature.exact_key(), message),
            Verdict::UnderAnotherTime => {
                let Some(loose) = self.loose.get_mut(&seen.signature.loose_key()) else { return };
                loose.wanted = loose.wanted.saturating_sub(1);
                let is_left = |key: &&IdentityHash| {
                    self.slots
                        .get(*key)
                        .is_some_and(|slot| !slot.is_explained && slot.in_source < slot.copies)
                };
                if let Some(key) = loose.slots.iter().find(is_left).copied() {
                    self.pair(key, message);
                }
            }
            Verdict::DuplicateInSource => {
                let has_copy = self.slots.get_mut(&seen.signature.exact_key()).is_some_and(|slot| {
                    slot.in_source += 1;
                    slot.in_source <= slot.copies
                });
                self.found.duplicates_in_source += u64::from(!has_copy);
            }
            Verdict::New => {
                self.found.missing += 1;
                self.found.example("missing", || describe(message));
            }
            Verdict::Conflict => {
                *self.conflicts.entry(seen.signature.identity).or_default() += 1;
                let what = if self.skips_conflicts { "conflict, left out" } else { "other content" };
                self.found.example(what, || describe(message));
            }
        }
    }

    /// Notes that a record of the source is the target's record with this key.
    fn pair(&mut self, key: IdentityHash, message: &Message) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        slot.in_source += 1;
        if self.bounds.keeps_order && slot.in_source == 1 {
            self.pairs.push((slot.place, Place::of(message)));
        }
    }

    /// Counts what can be counted only after all records of both topics were read.
    pub(super) fn settle(mut self, keeps_partitions: bool) -> (Findings, Unnamed) {
        let mut unnamed = Unnamed::default();
        if self.bounds.keeps_order {
            self.order(keeps_partitions, &mut unnamed);
        }
        self.leftovers(&mut unnamed);
        let conflicts: u64 = self.conflicts.values().sum();
        if self.skips_conflicts {
            self.found.conflicts += conflicts;
        } else {
            self.found.missing += conflicts;
        }
        (self.found, unnamed)
    }

    /// Counts pairs out of order and pairs that changed the partition. Pairs of the same two partitions are in order if
    /// the source's offsets rise in the order of the target.
    fn order(&mut self, keeps_partitions: bool, unnamed: &mut Unnamed) {
        self.pairs.sort_unstable();
        let (mut reordered, mut moved) = (0, 0);
        let mut last: HashMap<(i32, i32), i64> = HashMap::new();
        for (target, source) in &self.pairs {
            let last = last.entry((source.partition, target.partition)).or_insert(-1);
            let is_behind = source.offset < *last;
            let is_moved = keeps_partitions && source.partition != target.partition;
            *last = source.offset.max(*last);
            reordered += u64::from(is_behind);
            moved += u64::from(is_moved);
            if is_behind || is_moved {
                let kind = if is_behind { Kind::Reordered } else { Kind::Moved };
                self.found.example(kind.shown(), || format!("target {target}"));
                if self.bounds.lists {
                    unnamed.at(*target, kind);
                }
            }
        }
        (self.found.reordered, self.found.moved) = (Some(reordered), Some(moved));
    }

    /// Counts the target's records that have no original in the source.
    fn leftovers(&mut self, unnamed: &mut Unnamed) {
        let Pairing { slots, loose, conflicts, found, bounds, .. } = self;
        let is_known = |slot: &Slot| slot.is_explained || slot.in_source > 0;
        let known: HashSet<IdentityHash> =
            slots.values().filter(|slot| is_known(slot)).map(|slot| slot.loose).collect();
        let mut slots: Vec<(&IdentityHash, &Slot)> = slots.iter().collect();
        slots.sort_unstable_by_key(|(_, slot)| slot.place);
        for (key, slot) in slots {
            let is_of_window = slot.is_in_window || slot.in_source > 0;
            found.in_target += if is_of_window { slot.copies } else { 0 };
            let mut left = slot.copies - slot.copies.min(slot.in_source);
            if slot.is_explained && slot.in_source == 0 {
                // These are the source's records outside of the window.
                continue;
            }
            if let Some(loose) = loose.get_mut(&slot.loose).filter(|_| !slot.is_explained) {
                // Some of these may be copies of records with another timestamp.
                let copies = left.min(loose.wanted);
                loose.wanted -= copies;
                left -= copies;
            }
            let is_double = slot.in_source > 0 || (self.is_at_any_time && known.contains(&slot.loose));
            if left == 0 || !(is_of_window || is_double) {
                continue;
            }
            let mut list = |kind, records| {
                if bounds.lists {
                    unnamed.last(*key, slot.copies - left, kind, records);
                }
            };
            if is_double {
                found.duplicated += left;
                found.example(Kind::Duplicated.shown(), || format!("target {}", slot.place));
                list(Kind::Duplicated, left);
                continue;
            }
            let changed = conflicts.get(&slot.identity).map_or(0, |conflicts| left.min(*conflicts));
            if !self.skips_conflicts {
                found.changed += changed;
                conflicts.entry(slot.identity).and_modify(|conflicts| *conflicts -= changed);
            }
            found.extra += left - changed;
            let kind = if changed > 0 { Kind::Changed } else { Kind::Extra };
            found.example(kind.shown(), || format!("target {}", slot.place));
            list(Kind::Changed, changed);
            list(Kind::Extra, left - changed);
        }
    }
}
