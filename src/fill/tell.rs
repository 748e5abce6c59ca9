//! What a run tells: warnings and examples on the way, counts to who watches, and the receipt.

use super::{EXAMPLES, Run, Snapshot};
use crate::base::error::Result;
use crate::fill::metrics;
use crate::fill::preflight::Preflight;
use crate::fill::receipt::{Counts, DoneBefore, Receipt};
use crate::job::identity::Identity;
use crate::job::resolve;
use crate::job::window::Edges;
use crate::job::window::Window;
use crate::job::{Mode, OnConflict};
use crate::kafka::cluster::Cluster;
use crate::kafka::record::describe;
use crate::kafka::sys::Message;
use crate::kafka::topic::Topic;

impl Run<'_> {
    pub(super) fn warn_of_nothing(&mut self, cluster: &Cluster, source: &Topic, window: Window) {
        if self.counts.in_window == 0 {
            self.warn(resolve::nothing_in(window, cluster, &self.job.selection, source, self.interrupt));
        }
    }

    pub(super) fn foresee(
        &mut self,
        cluster: &Cluster,
        checked: &Preflight,
        snapshot: &Snapshot,
    ) -> Result<()> {
        if let Some(foresight) = self.foresight.take() {
            let counts = (self.counts.read, self.counts.written);
            let found = foresight.consequences(cluster, checked, &snapshot.target, counts, self.interrupt)?;
            self.consequences = Some(found);
        }
        Ok(())
    }

    pub(super) fn publish(&self, counts: Counts) {
        metrics::totals(counts, self.transactions, self.aborted_transactions, self.restarts.count);
    }

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

    pub(super) fn receipt(&self) -> Receipt {
        let mut counts = self.counts;
        counts.already_in_target = counts.already_in_target.saturating_sub(self.recounted);
        let to_write = (self.mode == Mode::Plan).then_some(counts.written);
        if to_write.is_some() {
            counts.written = 0;
        }
        Receipt {
            window: self.window.map(Edges::from),
            source: self.job.selection.source.clone(),
            target: self.job.selection.target.clone(),
            counts,
            to_write,
            command: self.window.filter(|_| self.mode == Mode::Plan).map(|window| {
                // A conflict is none between records that are told apart by all that is in them.
                let rules = &self.job.selection.rules;
                let has_conflicts = counts.conflicts > 0 && rules.on_conflict == OnConflict::Fail;
                let identity = if has_conflicts { &Identity::Record } else { &rules.identity };
                self.job.selection.command(window, identity)
            }),
            consequences: self.consequences.clone(),
            duplicates_in_target: self.duplicates_in_target,
            transactions: self.transactions,
            aborted_transactions: self.aborted_transactions,
            restarts: self.restarts.count,
            done_before: self.done_before.map(DoneBefore::from),
            elapsed_ms: 0,
            complete: false,
            warnings: self.warnings.clone(),
            examples: self.examples.clone(),
        }
    }
}
