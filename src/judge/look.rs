//! What a record says of itself, whatever came before it.

use super::mixed;
use crate::job::event_time::EventTime;
use crate::job::identity::{Fingers, Identity, IdentityHash};
use crate::job::window::Window;
use crate::job::{Selection, TargetScan};
use crate::kafka::sys::Message;

/// Looks at records by themselves, on whichever thread polls them.
#[derive(Clone)]
pub(crate) struct Look {
    fingers: Fingers,
    identity: Identity,
    event_time: EventTime,
    window: Window,
    scan: TargetScan,
    /// Equal records of two partitions are two.
    by_partition: bool,
}

/// What was seen in a record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sighting {
    /// The event time, in milliseconds since the epoch.
    pub time: Option<i64>,
    /// Whether it is of the window; one without event time is of every window.
    pub is_in_window: bool,
    /// Whether it has an identity of the kind that was asked for. If not, it is known by its content.
    pub has_identity: bool,
    pub mark: Mark,
}

/// A record's identity and content, as keyed hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    pub identity: IdentityHash,
    /// Of the content: key, value, headers and timestamp.
    pub exact: u64,
    /// Of the content without the timestamp.
    pub loose: u64,
}

impl Mark {
    /// Of the very record.
    pub fn exact_key(&self) -> IdentityHash {
        mixed(self.identity, self.exact)
    }

    /// Of the record, whatever its timestamp.
    pub fn loose_key(&self) -> IdentityHash {
        mixed(self.identity, self.loose)
    }
}

impl Look {
    /// `keeps_partitions` where the topics have as many.
    pub(crate) fn new(
        fingers: Fingers,
        selection: &Selection,
        window: Window,
        keeps_partitions: bool,
    ) -> Look {
        Look {
            fingers,
            identity: selection.rules.identity.clone(),
            event_time: selection.event_time.clone(),
            window,
            scan: selection.rules.target_scan,
            by_partition: keeps_partitions && selection.rules.identity == Identity::Record,
        }
    }

    /// All that is to be seen in a record.
    pub(crate) fn at(&self, message: &Message) -> Sighting {
        let seen = self.without_mark(message);
        self.marked(seen, message)
    }

    /// The same, but that of a record outside of the window nothing more is looked at.
    pub(crate) fn within(&self, message: &Message) -> Sighting {
        let seen = self.without_mark(message);
        if seen.is_in_window { self.marked(seen, message) } else { seen }
    }

    fn without_mark(&self, message: &Message) -> Sighting {
        let time = self.event_time.of(message);
        let is_in_window = time.is_none_or(|time| self.window.contains(time));
        Sighting { time, is_in_window, ..Sighting::default() }
    }

    fn marked(&self, seen: Sighting, message: &Message) -> Sighting {
        let (exact, loose) = self.fingers.contents(message);
        let identity = self.fingers.identity(&self.identity, message);
        let mut mark = Mark { identity: identity.unwrap_or([exact, 0]), exact, loose };
        if self.by_partition {
            mark.identity = mixed(mark.identity, u64::from(message.partition().unsigned_abs()) + 1);
        }
        Sighting { has_identity: identity.is_some(), mark, ..seen }
    }

    /// Whether a record of the target is compared with the window's.
    pub(crate) fn is_compared(&self, seen: &Sighting) -> bool {
        seen.is_in_window || self.scan == TargetScan::All
    }

    /// Whether records outside of the window may be copies of the window's that bear another timestamp. A time in a
    /// field is part of the content, and by all of a record its time is too, so one of another time is another record;
    /// and where all of the target is compared, nothing is outside.
    pub(crate) fn has_outside(&self) -> bool {
        self.scan == TargetScan::Window
            && self.identity != Identity::Record
            && self.event_time.is_indexed()
            && (self.window.start.is_some() || self.window.end.is_some())
    }

    /// Why a record of the source's window cannot be copied, if it cannot.
    pub(crate) fn why_invalid(
        &self,
        message: &Message,
        seen: &Sighting,
        keeps_partitions: bool,
    ) -> Option<&'static str> {
        if seen.time.is_none() {
            Some(self.event_time.why_none(message))
        } else if message.timestamp().0 == 0 {
            // librdkafka would write the time of the copy in its place.
            Some("timestamp 0")
        } else if !keeps_partitions && message.key().is_none() {
            Some("null key, and the partition counts differ")
        } else if !seen.has_identity {
            Some(self.identity.why_none(message))
        } else {
            None
        }
    }
}
