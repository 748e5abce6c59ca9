//! Reads the topics of a run.

use super::Run;
use crate::base::error::Result;
use crate::base::failpoint::{self, Rule};
use crate::base::range::Range;
use crate::job::Selection;
use crate::job::order::Order;
use crate::judge::{Look, Sighting};
use crate::kafka::client::Isolation;
use crate::kafka::reader::{Reader, Reading};
use crate::kafka::sides::Side;
use crate::kafka::sys::Message;

impl Run<'_> {
    /// Reads the committed records of the `ranges` of one side's topic, up to their ends.
    pub(super) fn read(
        &mut self,
        side: Side,
        group: &str,
        ranges: &[Range],
        bar: &indicatif::ProgressBar,
        mut each: impl FnMut(&mut Self, &Message) -> Result<()>,
    ) -> Result<()> {
        let reader = Reader::open(&self.reading(side, group), ranges)?;
        reader.for_each(self.interrupt, bar, |message, ()| each(self, message))
    }

    /// How to read the topic of this side. No reader joins `group`.
    pub(super) fn reading<'r>(&'r self, side: Side, group: &'r str) -> Reading<'r> {
        let Selection { properties, source, target, .. } = &self.job.selection;
        let (properties, topic) = match side {
            Side::Source => (&properties.source, source),
            Side::Target => (&properties.target, target),
        };
        Reading {
            properties,
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
        side: Side,
        group: &str,
        ranges: &[Range],
        look: impl Fn(&Message) -> Result<Sighting> + Send + 'static,
        each: impl FnMut(&Message, &Sighting) -> Result<()>,
    ) -> Result<()> {
        let reading = self.reading(side, group);
        let bar = self.progress.over(&format!("reading {}", reading.topic), ranges);
        Reader::looking(&reading, ranges, look)?.for_each(self.interrupt, &bar, each)
    }

    /// Reads the source's records of the window that can be copied, as far as there may be any in `ranges`.
    pub(super) fn read_window(
        &self,
        group: &str,
        look: &Look,
        ranges: &[Range],
        mut order: Order,
        mut each: impl FnMut(&Sighting) -> Result<()>,
    ) -> Result<()> {
        let reading = self.reading(Side::Source, group);
        let bar = self.progress.over(&format!("reading {}", reading.topic), ranges);
        let look = look.clone();
        let reader = Reader::looking(&reading, ranges, move |message| look.within(message))?;
        reader.for_each_until(self.interrupt, &bar, |message, seen| {
            let is_past = order.see(message, seen.time)?;
            if seen.is_in_window && seen.has_identity {
                each(seen)?;
            }
            Ok(is_past)
        })
    }
}
