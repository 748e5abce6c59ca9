//! One topic's share of a comparison of two.

use crate::client::Isolation;
use crate::cluster::{Cluster, Topic, ends};
use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::job::Selection;
use crate::progress::Progress;
use crate::range::Range;
use crate::source::{Reader, Reading};
use crate::sys::Message;
use crate::window::Window;

/// How the topics of a comparison are read.
pub struct Side<'a> {
    pub selection: &'a Selection,
    pub cluster: &'a Cluster,
    pub window: Window,
    pub progress: Progress,
    pub interrupt: &'a Interrupt,
}

impl Side<'_> {
    /// Reads the committed records of the window, up to the topic's end now; one without event time is of every
    /// window.
    ///
    /// # Errors
    /// As [`Cluster::wait_until_stable`] and [`Reader::for_each`].
    pub fn read(&self, topic: &Topic, mut each: impl FnMut(&Message)) -> Result<()> {
        let selection = self.selection;
        let watermarks = self.cluster.watermarks(topic)?;
        let ends = ends(&watermarks);
        self.cluster.wait_until_stable(topic, &ends, selection.patience, self.interrupt)?;
        let start = self.window.start.filter(|_| selection.event_time.is_indexed());
        let starts = self.cluster.positions_from(topic, start, &watermarks)?;
        let ranges = Range::all(&starts, &ends);
        let group = selection.name();
        let reading = Reading {
            properties: &selection.properties,
            group: &group,
            topic: &topic.name,
            isolation: Isolation::ReadCommitted,
            patience: selection.patience,
        };
        let bar = self.progress.bar(&format!("reading {}", topic.name), ranges.iter().map(Range::len).sum());
        Reader::open(&reading, &ranges)?.for_each(self.interrupt, &bar, |message, ()| {
            if selection.event_time.of(message).is_none_or(|time| self.window.contains(time)) {
                each(message);
            }
            Ok(())
        })
    }
}
