//! Reads the topics of a run.

use super::Run;
use crate::base::error::Result;
use crate::base::failpoint::{self, Rule};
use crate::base::range::Range;
use crate::judge::Sighting;
use crate::kafka::client::Isolation;
use crate::kafka::reader::{Reader, Reading};
use crate::kafka::sys::Message;

impl Run<'_> {
    /// Reads the committed records of a topic's `ranges`, up to their ends.
    pub(super) fn read(
        &mut self,
        topic: &str,
        ranges: &[Range],
        bar: &indicatif::ProgressBar,
        mut each: impl FnMut(&mut Self, &Message) -> Result<()>,
    ) -> Result<()> {
        let name = self.job.selection.name();
        let reader = Reader::open(&self.reading(topic, &name), ranges)?;
        reader.for_each(self.interrupt, bar, |message, ()| each(self, message))
    }

    pub(super) fn reading<'r>(&'r self, topic: &'r str, group: &'r str) -> Reading<'r> {
        Reading {
            properties: &self.job.selection.properties,
            group,
            topic,
            isolation: if failpoint::breaks(Rule::ReadCommitted) {
                Isolation::ReadUncommitted
            } else {
                Isolation::ReadCommitted
            },
            patience: self.job.selection.patience,
        }
    }

    pub(super) fn read_looking(
        &self,
        topic: &str,
        ranges: &[Range],
        look: impl Fn(&Message) -> Sighting + Send + 'static,
        each: impl FnMut(&Message, &Sighting) -> Result<()>,
    ) -> Result<()> {
        let name = self.job.selection.name();
        let bar = self.progress.bar(&format!("reading {topic}"), ranges.iter().map(Range::len).sum());
        Reader::looking(&self.reading(topic, &name), ranges, look)?.for_each(self.interrupt, &bar, each)
    }
}
