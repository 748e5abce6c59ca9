//! Takes notes for a plan while it reads both topics.

use std::collections::HashMap;
use std::time::Instant;

use super::{Consequences, groups};
use crate::base::error::Result;
use crate::base::interrupt::Interrupt;
use crate::base::range::index;
use crate::base::time::millis;
use crate::fill::preflight::Preflight;
use crate::job::Job;
use crate::job::identity::{Fingers, Identity};
use crate::job::window::Window;
use crate::kafka::client::TRANSACTION_TIMEOUT;
use crate::kafka::cluster::Cluster;
use crate::kafka::sys::Message;
use crate::kafka::watermarks::Watermarks;

/// The most bytes that a key takes in a table that has just grown.
const KEY_BYTES: usize = 64;

/// A plan's notes. The keys take at most an eighth of the index's memory; keys that do not fit are left out.
pub(crate) struct Foresight<'a> {
    job: &'a Job,
    window: Window,
    fingers: Fingers,
    started: Instant,
    read: u64,
    /// The latest time of each key of the target, by the key's hash.
    newest: HashMap<u64, Newest>,
    is_full: bool,
    /// The broker gave records its own time, which says nothing about their age.
    is_stamped: bool,
    keys: u64,
    bytes: u64,
    marks: Vec<Marks>,
}

struct Newest {
    time: i64,
    is_counted: bool,
}

/// Where the window ends in a partition of the target.
#[derive(Clone, Copy, Default)]
struct Marks {
    /// The offset after the window's last record.
    end: Option<i64>,
    /// The offset of the first record that is later than the window.
    later: Option<i64>,
}

impl<'a> Foresight<'a> {
    /// # Errors
    /// As [`Fingers::new`].
    pub(crate) fn new(job: &'a Job, window: Window, target_partitions: usize) -> Result<Foresight<'a>> {
        Ok(Foresight {
            job,
            window,
            fingers: Fingers::new()?,
            started: Instant::now(),
            read: 0,
            newest: HashMap::new(),
            is_full: false,
            is_stamped: false,
            keys: 0,
            bytes: 0,
            marks: vec![Marks::default(); target_partitions],
        })
    }

    fn key(&self, message: &Message) -> Option<u64> {
        self.fingers.identity_of(&Identity::Key, message.key(), None).map(|[hash, _]| hash)
    }

    /// Notes a record of the target, with its event time.
    pub(crate) fn look_at(&mut self, message: &Message, time: Option<i64>) {
        self.read += 1;
        let is_by_timestamp = self.job.selection.event_time.is_indexed();
        self.is_stamped |= is_by_timestamp && message.timestamp().1;
        let Some(time) = time else { return };
        let marks = &mut self.marks[index(message.partition())];
        if self.window.contains(time) {
            marks.end = Some(message.next_position());
        } else if self.window.end.is_some_and(|end| time >= end) && marks.later.is_none() {
            marks.later = Some(message.offset());
        }
        // A record older than the window is not newer than any record that would be written.
        if self.window.start.is_some_and(|start| time < start) {
            return;
        }
        let Some(key) = self.key(message) else { return };
        if let Some(newest) = self.newest.get_mut(&key) {
            newest.time = newest.time.max(time);
        } else if self.newest.len() < self.job.selection.index_memory / 8 / KEY_BYTES {
            self.newest.insert(key, Newest { time, is_counted: false });
        } else {
            self.is_full = true;
        }
    }

    /// Notes a record that the fill would write, with its event time.
    pub(crate) fn write(&mut self, message: &Message, time: Option<i64>) {
        self.bytes +=
            [message.key(), message.value()].iter().flatten().map(|part| part.len() as u64).sum::<u64>();
        let Some(time) = time else { return };
        let Some(newest) = self.key(message).and_then(|key| self.newest.get_mut(&key)) else { return };
        if newest.time > time && !std::mem::replace(&mut newest.is_counted, true) {
            self.keys += 1;
        }
    }

    /// The consequences, after the plan has read both topics: `read` records of the source, of which it would write
    /// `to_write`. This asks the cluster for its consumer groups.
    ///
    /// # Errors
    /// Only [`crate::base::error::Error::Interrupted`]. If something cannot be found out, the plan says so.
    pub(crate) fn consequences(
        &self,
        cluster: &Cluster,
        checked: &Preflight,
        ends: &[Watermarks],
        (read, to_write): (u64, u64),
        interrupt: &Interrupt,
    ) -> Result<Consequences> {
        let took = self.started.elapsed().as_secs_f64();
        let read = self.read + read;
        let target = &checked.target;
        let mut not_known = Vec::new();
        if self.is_stamped {
            not_known.push(format!(
                "which keys have newer records in {}, because the broker replaced timestamps there with its own time",
                target.name
            ));
        }
        if checked.target_is_compacted.is_none() {
            not_known.push(format!(
                "whether {} is compacted; grant this principal DescribeConfigs on it",
                target.name
            ));
        }
        let past = |partition: usize| -> Option<i64> {
            let marks = self.marks.get(partition)?;
            marks.end.or(marks.later)
        };
        let groups = groups::of(cluster, target, ends, past, &mut not_known, interrupt)?;
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let rate = read as f64 / took.max(0.001);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an estimate"
        )]
        let estimated_ms = ((took + to_write as f64 / rate.max(1.0)) * 1000.0) as u64;
        Ok(Consequences {
            keys_with_newer_records: (!self.is_stamped).then_some(self.keys),
            keys_are_exact: !self.is_full && !self.is_stamped,
            target_is_compacted: checked.target_is_compacted,
            groups,
            bytes_to_write: self.bytes,
            compression: checked.producing.codec().unwrap_or("none").to_owned(),
            ledger: (!checked.ledger.is_source()).then(|| checked.ledger.topic.clone()),
            group: checked.ledger.name.clone(),
            estimated_ms,
            estimate_basis: format!(
                "this plan read {read} records of both topics in {took:.1} s; the fill reads them again, and writing a \
                 record is assumed to take as long as reading one"
            ),
            transaction_ms: millis(self.job.limits.time),
            transaction_timeout_ms: millis(TRANSACTION_TIMEOUT),
            not_known,
        })
    }
}
