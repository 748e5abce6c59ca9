//! Reads the time, the identity and the content of one record. It does not depend on other records.

use std::borrow::Cow;

use super::mixed;
use crate::base::error::Result;
use crate::job::event_time::EventTime;
use crate::job::identity::{Fingers, Identity, IdentityHash};
use crate::job::schema::{Decoded, Schemas};
use crate::job::window::Window;
use crate::job::{Selection, TargetScan};
use crate::kafka::sys::Message;

/// Looks at each record by itself, on the thread that polls.
#[derive(Clone)]
pub(crate) struct Look {
    fingers: Fingers,
    identity: Identity,
    event_time: EventTime,
    schemas: Schemas,
    reads_fields: bool,
    window: Window,
    scan: TargetScan,
    /// Equal records in two partitions are two different records.
    by_partition: bool,
}

/// The result of a look at a record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sighting {
    /// The event time, in milliseconds since the epoch.
    pub time: Option<i64>,
    /// Whether the record is in the window. A record without event time is in every window.
    pub is_in_window: bool,
    /// Whether the record has an identity of the kind that was asked for. If not, its content identifies it.
    pub has_identity: bool,
    pub signature: Signature,
}

/// A record's identity and content, as keyed hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    pub identity: IdentityHash,
    /// The hash of the content: key, value, headers and timestamp.
    pub exact: u64,
    /// The hash of the content without the timestamp.
    pub loose: u64,
}

impl Signature {
    /// A key for exactly this record.
    pub fn exact_key(&self) -> IdentityHash {
        mixed(self.identity, self.exact)
    }

    /// A key for this record with any timestamp.
    pub fn loose_key(&self) -> IdentityHash {
        mixed(self.identity, self.loose)
    }
}

impl Look {
    /// `keeps_partitions` says whether both topics have the same number of partitions.
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
            schemas: selection.schemas.clone(),
            reads_fields: selection.reads_fields(),
            window,
            scan: selection.rules.target_scan,
            by_partition: keeps_partitions && selection.rules.identity == Identity::Record,
        }
    }

    pub(crate) fn window(&self) -> Window {
        self.window
    }

    /// Looks at the whole record.
    ///
    /// # Errors
    /// As [`Schemas::json`].
    pub(crate) fn at(&self, message: &Message) -> Result<Sighting> {
        let json = self.json(message)?;
        let seen = self.without_mark(message, json.as_deref());
        Ok(self.marked(seen, message, json.as_deref()))
    }

    /// Looks at the whole record if it is in the window, and otherwise only at its time.
    ///
    /// # Errors
    /// As [`Schemas::json`].
    pub(crate) fn within(&self, message: &Message) -> Result<Sighting> {
        let (seen, json) = self.timed(message)?;
        if !seen.is_in_window {
            return Ok(seen);
        }
        let json = if self.event_time.is_indexed() { self.json(message)? } else { json };
        Ok(self.marked(seen, message, json.as_deref()))
    }

    /// Looks only at the record's time.
    ///
    /// # Errors
    /// As [`Schemas::json`].
    pub(crate) fn at_time(&self, message: &Message) -> Result<Sighting> {
        Ok(self.timed(message)?.0)
    }

    /// The record's time, and its value as JSON if a field of it gives the time. If none does, there is no need to decode
    /// the values outside of the window.
    fn timed<'m>(&self, message: &'m Message) -> Result<(Sighting, Option<Cow<'m, [u8]>>)> {
        let json = if self.event_time.is_indexed() { None } else { self.json(message)? };
        Ok((self.without_mark(message, json.as_deref()), json))
    }

    /// The value as JSON, if a field of it counts and it can be read.
    fn json<'m>(&self, message: &'m Message) -> Result<Option<Cow<'m, [u8]>>> {
        Ok(self.decoded(message)?.and_then(std::result::Result::ok))
    }

    fn decoded<'m>(&self, message: &'m Message) -> Result<Option<Decoded<'m>>> {
        message.value().filter(|_| self.reads_fields).map(|value| self.schemas.json(value)).transpose()
    }

    fn without_mark(&self, message: &Message, json: Option<&[u8]>) -> Sighting {
        let time = self.event_time.of(message, json);
        let is_in_window = time.is_none_or(|time| self.window.contains(time));
        Sighting { time, is_in_window, ..Sighting::default() }
    }

    fn marked(&self, seen: Sighting, message: &Message, json: Option<&[u8]>) -> Sighting {
        let (exact, loose) = self.fingers.contents(message);
        let identity = self.fingers.identity(&self.identity, message, json);
        let mut signature = Signature { identity: identity.unwrap_or([exact, 0]), exact, loose };
        if self.by_partition {
            signature.identity = mixed(signature.identity, u64::from(message.partition().unsigned_abs()) + 1);
        }
        Sighting { has_identity: identity.is_some(), signature, ..seen }
    }

    /// Whether a record of the target is compared with the window's records.
    pub(crate) fn is_compared(&self, seen: &Sighting) -> bool {
        seen.is_in_window || self.scan == TargetScan::All
    }

    /// Whether records outside of the window may be copies of the window's records, with another timestamp. They cannot
    /// be copies if a field holds the event time, or if the whole record is the identity: then a record with another
    /// time is another record. If all of the target is compared, no record counts as outside.
    pub(crate) fn has_outside(&self) -> bool {
        self.scan == TargetScan::Window
            && self.identity != Identity::Record
            && self.event_time.is_indexed()
            && (self.window.start.is_some() || self.window.end.is_some())
    }

    /// The reason why a record of the source's window cannot be copied, if there is one.
    ///
    /// # Errors
    /// As [`Schemas::json`].
    pub(crate) fn why_invalid(
        &self,
        message: &Message,
        seen: &Sighting,
        keeps_partitions: bool,
    ) -> Result<Option<Cow<'static, str>>> {
        let why = |none: &dyn Fn(Option<&[u8]>) -> &'static str| {
            Ok(Some(match self.decoded(message)? {
                Some(Err(why)) => Cow::Owned(format!("{}: {why}", none(None))),
                decoded => Cow::Borrowed(none(decoded.and_then(std::result::Result::ok).as_deref())),
            }))
        };
        if seen.time.is_none() {
            why(&|json| self.event_time.why_none(json))
        } else if message.timestamp().0 == 0 {
            // librdkafka would replace it with the time of the copy.
            Ok(Some(Cow::Borrowed("timestamp 0")))
        } else if !keeps_partitions && message.key().is_none() {
            Ok(Some(Cow::Borrowed("null key, and the partition counts differ")))
        } else if !seen.has_identity {
            why(&|json| self.identity.why_none(json))
        } else {
            Ok(None)
        }
    }
}
