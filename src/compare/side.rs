//! One topic of a comparison, and how it is read.

use std::time::Duration;

use crate::base::error::Result;
use crate::base::interrupt::Interrupt;
use crate::base::progress::Progress;
use crate::base::range::Range;
use crate::job::Selection;
use crate::job::order::Order;
use crate::job::window::Window;
use crate::judge::Sighting;
use crate::kafka::client::Isolation;
use crate::kafka::cluster::Cluster;
use crate::kafka::reader::{Reader, Reading};
use crate::kafka::sys::Message;
use crate::kafka::topic::Topic;
use crate::kafka::watermarks::{Watermarks, ends};

/// Where a reading begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// The first record that may be in the window.
    Window,
    Beginning,
}

/// One topic, and where it began and ended when the comparison began.
pub(super) struct OpenSide<'a> {
    selection: &'a Selection,
    pub cluster: &'a Cluster,
    pub topic: Topic,
    watermarks: Vec<Watermarks>,
    /// Where the window begins. Asked for once: after a deletion, the broker would name a later place, and a reading from
    /// there would take the deleted records for absent.
    from_window: Vec<i64>,
    progress: Progress,
    interrupt: &'a Interrupt,
}

impl<'a> OpenSide<'a> {
    /// Asks for the ends and for the places where the window begins, and waits until all transactions below the ends are
    /// committed or aborted.
    pub(super) fn open(
        selection: &'a Selection,
        cluster: &'a Cluster,
        topic: Topic,
        window: Window,
        progress: Progress,
        interrupt: &'a Interrupt,
    ) -> Result<OpenSide<'a>> {
        let watermarks = cluster.watermarks(&topic)?;
        let patience: Duration = selection.patience;
        cluster.wait_until_stable(&topic, &ends(&watermarks), patience, interrupt)?;
        // A field of the value is not indexed by time, so the window may begin anywhere.
        let start = window.start.filter(|_| selection.event_time.is_indexed());
        let from_window = cluster.positions_from(&topic, start, &watermarks)?;
        Ok(OpenSide { selection, cluster, topic, watermarks, from_window, progress, interrupt })
    }

    /// The ranges from there to the end.
    pub(super) fn ranges(&self, from: Start) -> Vec<Range> {
        let starts = match from {
            Start::Window => self.from_window.clone(),
            Start::Beginning => self.watermarks.iter().map(|watermarks| watermarks.low).collect(),
        };
        Range::all(&starts, &ends(&self.watermarks))
    }

    /// Reads the committed records of [`OpenSide::ranges`].
    pub(super) fn read<T: Default + Send + 'static>(
        &self,
        from: Start,
        look: impl Fn(&Message) -> Result<T> + Send + 'static,
        each: impl FnMut(&Message, &T) -> Result<()>,
    ) -> Result<()> {
        self.read_ranges(&self.ranges(from), look, each)
    }

    /// [`OpenSide::read`], but each partition only as far as there may be records of the window.
    pub(super) fn read_window(
        &self,
        from: Start,
        mut order: Order,
        look: impl Fn(&Message) -> Result<Sighting> + Send + 'static,
        mut each: impl FnMut(&Message, &Sighting) -> Result<()>,
    ) -> Result<()> {
        self.read_until(&self.ranges(from), look, |message, seen| {
            let is_past = order.see(message, seen.time)?;
            each(message, seen).map(|()| is_past)
        })
    }

    pub(super) fn read_ranges<T: Default + Send + 'static>(
        &self,
        ranges: &[Range],
        look: impl Fn(&Message) -> Result<T> + Send + 'static,
        mut each: impl FnMut(&Message, &T) -> Result<()>,
    ) -> Result<()> {
        self.read_until(ranges, look, |message, seen| each(message, seen).map(|()| false))
    }

    /// Reads the committed records of the ranges. Leaves a partition when `each` says so.
    fn read_until<T: Default + Send + 'static>(
        &self,
        ranges: &[Range],
        look: impl Fn(&Message) -> Result<T> + Send + 'static,
        each: impl FnMut(&Message, &T) -> Result<bool>,
    ) -> Result<()> {
        let group = self.selection.name();
        let reading = Reading {
            properties: self.cluster.properties(),
            group: &group,
            topic: &self.topic.name,
            isolation: Isolation::ReadCommitted,
            patience: self.selection.patience,
        };
        let what = format!("reading {}", self.topic.name);
        let bar = self.progress.over(&what, ranges);
        Reader::looking(&reading, ranges, look)?.for_each_until(self.interrupt, &bar, each)
    }
}
