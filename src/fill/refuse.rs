//! Counts the records that the target's broker would refuse or delete, and ends writing before the first of them.

use super::copy::Copying;
use super::{Run, fill};
use crate::base::error::{Error, Reason, Result};
use crate::fill::preflight::Preflight;
use crate::fill::receipt::Counts;
use crate::job::limits::{Limits, Unfit};
use crate::job::window::Window;
use crate::job::{Job, Mode};
use crate::kafka::sys::Message;

impl Copying<'_, '_> {
    /// Counts a record that must not be written, and ends writing, so that nothing is written after it.
    pub(super) fn refuse(&mut self, message: &Message, unfit: Unfit) -> Result<()> {
        self.pending.refused += 1;
        *self.run.told.unfit.entry(unfit).or_default() += 1;
        self.run.told.example(unfit.name(), message);
        self.block_if(true)
    }
}

impl Run<'_> {
    /// If the window's timestamps cannot tell whether the target would delete the copies, this plans the fill, and so
    /// checks each record before the first one is written. For that, it reads both topics one more time.
    pub(super) fn foresee_deletion(&mut self, checked: &Preflight, window: Window) -> Result<()> {
        if self.mode == Mode::Plan || !checked.limits.are_of_records_alone(&self.job.selection, window) {
            return Ok(());
        }
        tracing::info!("checking whether {} would keep each record", checked.target.name);
        // Each of several instances plans the whole job: if one record is unfit, no instance writes.
        let job = Job { scale_out: false, ..self.job.clone() };
        let (planned, result) = fill(&job, Mode::Plan, self.progress, self.interrupt);
        if result.is_err() {
            self.told.counts = planned.counts;
            self.told.examples = planned.examples;
            self.told.duplicates_in_target = planned.duplicates_in_target;
        }
        self.publish(Counts::default());
        result
    }

    /// One sentence for each reason why records were not written.
    pub(super) fn unfit(&self, limits: &Limits) -> Vec<String> {
        self.told
            .unfit
            .iter()
            .map(|(unfit, count)| limits.sentence(*unfit, &unfit.of_records(*count)))
            .map(|told| self.job.selection.properties.target.says(Error::failed(told)).to_string())
            .collect()
    }

    pub(super) fn refusal(&self, text: String) -> Error {
        let is_written = self.mode == Mode::Fill && self.told.counts.written > 0;
        let error = if is_written { Error::failed(text) } else { Error::refused(text) };
        error.because(Reason::RefusedRecords)
    }
}
