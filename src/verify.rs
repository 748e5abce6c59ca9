//! Compares every record of the window in both topics.

use std::collections::HashMap;
use std::fmt;
use std::time::Instant;

use serde::Serialize;

use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::identity::{Fingers, IdentityHash};
use crate::interrupt::Interrupt;
use crate::job::Selection;
use crate::progress::Progress;
use crate::receipt::Edges;
use crate::record::describe;
use crate::side::Side;
use crate::sys::Message;
use crate::{preflight, resolve};

/// Two topics and the window in which they are to hold the same.
#[derive(Clone)]
pub struct Comparison {
    pub selection: Selection,
    /// Another order, or another partition, fails the comparison too.
    pub strict_order: bool,
}

/// What the comparison found; counts are of records.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Findings {
    pub window: Edges,
    pub source: String,
    pub target: String,
    pub in_source: u64,
    pub in_target: u64,
    /// In the source's window and not in the target's.
    pub missing: u64,
    /// Further copies in the target than the source holds itself.
    pub duplicated: u64,
    /// The same identity with another key, value, header or timestamp.
    pub changed: u64,
    /// In the target's window and not in the source's.
    pub extra: u64,
    /// Behind a record that stands after them in their partition of the source.
    pub reordered: u64,
    /// In another partition than in the source, where both have as many.
    pub moved: u64,
    /// Equal records that the source holds more than once; one in the target is enough.
    pub duplicates_in_source: u64,
    pub elapsed_ms: u64,
    pub examples: Vec<String>,
}

const EXAMPLES: usize = 10;

/// Reads both topics' windows, committed records only, up to their ends now.
///
/// # Errors
/// [`Error::Different`] with the findings beside it; as the exit codes otherwise.
pub fn verify(comparison: &Comparison, progress: Progress, interrupt: &Interrupt) -> (Findings, Result<()>) {
    let started = Instant::now();
    let mut findings = Findings {
        source: comparison.selection.source.clone(),
        target: comparison.selection.target.clone(),
        ..Findings::default()
    };
    let result = compare(comparison, progress, interrupt, &mut findings);
    findings.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    (findings, result)
}

fn compare(
    comparison: &Comparison,
    progress: Progress,
    interrupt: &Interrupt,
    findings: &mut Findings,
) -> Result<()> {
    let c = comparison;
    let cluster = Cluster::connect(&c.selection.properties, &c.selection.name())?;
    let (source, target) = preflight::topics(&cluster, &c.selection.source, &c.selection.target)?;
    let window = resolve::window(&cluster, &c.selection, &source, interrupt)?;
    findings.window = window.into();
    let same_partitions = source.partitions == target.partitions;
    let mut ledger = Ledger::default();
    let fingers = Fingers::new()?;
    let side = Side { selection: &c.selection, cluster: &cluster, window, progress, interrupt };

    side.read(&source, |message| {
        findings.in_source += 1;
        let slot = ledger.slot(c.identity_of(&fingers, message), fingers.content(message, true));
        slot.in_source += 1;
        if slot.in_source == 1 {
            (slot.partition, slot.offset) = (message.partition(), message.offset());
        } else {
            findings.duplicates_in_source += 1;
        }
    })?;

    let mut last = HashMap::new();
    side.read(&target, |message| {
        findings.in_target += 1;
        let slot = ledger.slot(c.identity_of(&fingers, message), fingers.content(message, true));
        slot.in_target += 1;
        if slot.in_source == 0 {
            slot.offset = message.offset();
            slot.partition = message.partition();
        } else if slot.in_target == 1 {
            // In order where, within a partition of either topic, the source's offsets only rise.
            let last = last.entry((slot.partition, message.partition())).or_insert(-1);
            let (is_behind, is_moved) =
                (slot.offset < *last, same_partitions && slot.partition != message.partition());
            *last = slot.offset.max(*last);
            findings.reordered += u64::from(is_behind);
            findings.moved += u64::from(is_moved);
            if is_behind || is_moved {
                findings.example(if is_behind { "reordered" } else { "moved" }, || describe(message));
            }
        }
    })?;
    ledger.settle(findings);
    findings.verdict(c.strict_order)
}

impl Comparison {
    /// A record without identity is known by its content.
    fn identity_of(&self, fingers: &Fingers, message: &Message) -> IdentityHash {
        fingers
            .identity(&self.selection.rules.identity, message)
            .unwrap_or_else(|| [fingers.content(message, true), 0])
    }
}

/// Every content that an identity was seen with; nearly always there is one.
#[derive(Default)]
struct Ledger(HashMap<IdentityHash, Contents>);

#[derive(Default)]
struct Contents {
    first: Option<Slot>,
    others: Vec<Slot>,
}

struct Slot {
    content: u64,
    in_source: u32,
    in_target: u32,
    partition: i32,
    offset: i64,
}

impl Ledger {
    fn slot(&mut self, identity: IdentityHash, content: u64) -> &mut Slot {
        let contents = self.0.entry(identity).or_default();
        let new = Slot { content, in_source: 0, in_target: 0, partition: 0, offset: 0 };
        let first = contents.first.get_or_insert(new);
        if first.content == content {
            return first;
        }
        let others = &mut contents.others;
        let at = others.iter().position(|slot| slot.content == content).unwrap_or_else(|| {
            others.push(Slot { content, in_source: 0, in_target: 0, partition: 0, offset: 0 });
            others.len() - 1
        });
        &mut others[at]
    }

    fn settle(&self, findings: &mut Findings) {
        for contents in self.0.values() {
            let slots = || contents.first.iter().chain(&contents.others);
            let missing = slots().filter(|s| s.in_target == 0).count() as u64;
            let extra: u64 = slots().filter(|s| s.in_source == 0).map(|s| u64::from(s.in_target)).sum();
            let changed = missing.min(extra);
            findings.changed += changed;
            findings.missing += missing - changed;
            findings.extra += extra - changed;
            for slot in slots() {
                if slot.in_source > 0 {
                    let more = u64::from(slot.in_target.saturating_sub(slot.in_source));
                    findings.duplicated += more;
                    if more > 0 {
                        findings.example("duplicated", || slot.place("source"));
                    } else if slot.in_target == 0 {
                        findings.example(if changed > 0 { "changed" } else { "missing" }, || {
                            slot.place("source")
                        });
                    }
                } else {
                    findings
                        .example(if changed > 0 { "changed to" } else { "extra" }, || slot.place("target"));
                }
            }
        }
    }
}

impl Slot {
    fn place(&self, topic: &str) -> String {
        format!("{topic} partition {} offset {}", self.partition, self.offset)
    }
}

impl Findings {
    fn example(&mut self, what: &str, example: impl Fn() -> String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("{what}: {}", example()));
        }
    }

    fn verdict(&self, strict_order: bool) -> Result<()> {
        let differences = self.missing + self.duplicated + self.changed + self.extra;
        let out_of_place = self.reordered + self.moved;
        if differences == 0 && (out_of_place == 0 || !strict_order) {
            return Ok(());
        }
        Err(Error::different(format!(
            "{} and {} differ in the window: {} missing, {} duplicated, {} changed, {} extra, {} reordered, {} moved",
            self.source,
            self.target,
            self.missing,
            self.duplicated,
            self.changed,
            self.extra,
            self.reordered,
            self.moved
        )))
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} = {} ?  {}", self.source, self.target, self.window)?;
        let mut line = |name: &str, count: u64| writeln!(f, "  {name:<22}{count:>12}");
        line("in source", self.in_source)?;
        line("in target", self.in_target)?;
        line("missing", self.missing)?;
        line("duplicated", self.duplicated)?;
        line("changed", self.changed)?;
        line("extra", self.extra)?;
        for (name, count) in [
            ("reordered", self.reordered),
            ("moved", self.moved),
            ("duplicates in source", self.duplicates_in_source),
        ] {
            if count > 0 {
                line(name, count)?;
            }
        }
        for example in &self.examples {
            writeln!(f, "  e.g. {example}")?;
        }
        let is_same = self.missing + self.duplicated + self.changed + self.extra == 0;
        write!(f, "  {}", if is_same { "the same records" } else { "DIFFERENT" })
    }
}
