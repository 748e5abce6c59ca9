//! Tells what a run does: warnings and examples on the way, counts for the metrics, and the receipt.

use std::collections::BTreeMap;

use super::{Run, Snapshot};
use crate::base::error::Result;
use crate::fill::consequences::Consequences;
use crate::fill::differences::Difference;
use crate::fill::preflight::Preflight;
use crate::fill::receipt::{Counts, DoneBefore, Receipt};
use crate::job::identity::Identity;
use crate::job::limits::Unfit;
use crate::job::names::Names;
use crate::job::resolve;
use crate::job::window::{Edges, OtherDays, Window};
use crate::job::{Mode, OnConflict};
use crate::kafka::cluster::Cluster;
use crate::kafka::mark::Done;
use crate::kafka::record::describe;
use crate::kafka::sys::Message;
use crate::kafka::topic::Topic;
use crate::telemetry::{self, Totals};

/// How many records the receipt shows as examples.
pub(super) const EXAMPLES: usize = 5;

/// The facts about a run that its receipt will show. Some of them also steer the run (`counts`, `transactions`).
#[derive(Default)]
pub(super) struct Told {
    pub(super) names: Names,
    pub(super) window: Option<Window>,
    pub(super) other_days: OtherDays,
    pub(super) warnings: Vec<String>,
    pub(super) examples: Vec<String>,
    /// How many records the target's broker would refuse or delete, by the reason.
    pub(super) unfit: BTreeMap<Unfit, u64>,
    /// The counts of committed transactions only.
    pub(super) counts: Counts,
    /// Records among `counts.written` that a later start-up counted again, because it found them in the target.
    pub(super) recounted: u64,
    pub(super) duplicates_in_target: u64,
    /// Copies with another timestamp, of records that the target also holds with the source's timestamp.
    pub(super) copies_at_other_times: u64,
    pub(super) transactions: u64,
    pub(super) aborted_transactions: u64,
    pub(super) consequences: Option<Consequences>,
    pub(super) differences: Vec<Difference>,
    /// The run that did the work, if nothing was left to do.
    pub(super) done_before: Option<Done>,
}

impl Told {
    pub(super) fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            tracing::warn!("{warning}");
            self.warnings.push(warning);
        }
    }

    pub(super) fn example(&mut self, what: &str, message: &Message) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("{what}: {}", describe(message)));
        }
    }
}

impl Run<'_> {
    pub(super) fn warn_of_nothing(&mut self, cluster: &Cluster, source: &Topic, window: Window) {
        if self.told.counts.in_window == 0 {
            self.told.warn(resolve::nothing_in(window, cluster, &self.job.selection, source, self.interrupt));
        }
    }

    pub(super) fn foresee(
        &mut self,
        cluster: &Cluster,
        checked: &Preflight,
        snapshot: &Snapshot,
    ) -> Result<()> {
        if let Some(foresight) = self.foresight.take() {
            let counts = (self.told.counts.read, self.told.counts.written);
            self.told.differences.clone_from(&checked.differences);
            let found = foresight.consequences(cluster, checked, &snapshot.target, counts, self.interrupt)?;
            self.told.consequences = Some(found);
        }
        Ok(())
    }

    /// Tells what the receipt would say now.
    pub(super) fn tell(&self) {
        if let Some(tell) = self.tell {
            tell(self.receipt());
        }
    }

    pub(super) fn publish(&self, counts: Counts) {
        // A plan writes nothing, and counts what a fill would write.
        let (written, written_bytes) = match self.mode {
            Mode::Fill => (counts.written, counts.written_bytes),
            Mode::Plan => (0, 0),
        };
        telemetry::totals(Totals {
            read: counts.read,
            in_window: counts.in_window,
            already_in_target: counts.already_in_target,
            duplicates_in_source: counts.duplicates_in_source,
            conflicts: counts.conflicts,
            invalid: counts.invalid,
            written,
            written_bytes,
            transactions: self.told.transactions,
            aborted_transactions: self.told.aborted_transactions,
            restarts: self.restarts.count,
        });
    }

    pub(super) fn receipt(&self) -> Receipt {
        let mut counts = self.told.counts;
        counts.already_in_target = counts.already_in_target.saturating_sub(self.told.recounted);
        let to_write = (self.mode == Mode::Plan).then_some(counts.written);
        if to_write.is_some() {
            counts.written = 0;
        }
        Receipt {
            window: self.told.window.map(Edges::from),
            names: self.told.names.clone(),
            counts,
            to_write,
            command: self.told.window.filter(|_| self.mode == Mode::Plan).map(|window| {
                // If the whole record is the identity, records cannot conflict.
                let rules = &self.job.selection.rules;
                let has_conflicts = counts.conflicts > 0 && rules.on_conflict == OnConflict::Fail;
                let identity = if has_conflicts { &Identity::Record } else { &rules.identity };
                self.job.selection.command(window, identity)
            }),
            consequences: self.told.consequences.clone(),
            differences: self.told.differences.clone(),
            duplicates_in_target: self.told.duplicates_in_target,
            transactions: self.told.transactions,
            aborted_transactions: self.told.aborted_transactions,
            restarts: self.restarts.count,
            done_before: self.told.done_before.map(DoneBefore::from),
            elapsed_ms: 0,
            assumed_max_out_of_orderness: self
                .job
                .selection
                .max_out_of_orderness
                .map(|bound| humantime::format_duration(bound).to_string()),
            complete: false,
            warnings: self.told.warnings.clone(),
            examples: self.told.examples.clone(),
        }
    }
}
