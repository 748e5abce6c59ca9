//! What librdkafka tells of a producer's records and connections, beside the results of calls.
//!
//! The broker's own text for a record that it refuses (KIP-467) is not used: by librdkafka 2.12.1,
//! `rd_kafka_message_produce_errstr` points at what `rd_kafka_handle_Produce` has freed before the report is served.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use chrono::Utc;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::ProducerContext;

use crate::base::error::denied;
use crate::kafka::record;
use crate::kafka::sys::Outgoing;

/// Where a record comes from, as small as librdkafka carries it with a message: the low 48 bits are an offset or a
/// line, the others one more than the partition. 0 where it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin(usize);

const BITS: u32 = 48;

impl Origin {
    pub fn record(partition: i32, offset: i64) -> Origin {
        let partition = u16::try_from(partition).ok().and_then(|partition| partition.checked_add(1));
        Origin::packed(partition.map(u64::from), u64::try_from(offset).ok())
    }

    /// A line of a file, of which the first is 1.
    pub fn line(line: u64) -> Origin {
        Origin::packed(Some(0), Some(line))
    }

    fn packed(high: Option<u64>, low: Option<u64>) -> Origin {
        let low = low.filter(|low| low >> BITS == 0);
        let both = high.zip(low).and_then(|(high, low)| usize::try_from(high << BITS | low).ok());
        Origin(both.unwrap_or(0))
    }

    pub fn as_opaque(self) -> usize {
        self.0
    }

    /// In the topic or the file of this name.
    fn within(self, name: &str) -> String {
        let (high, low) = (self.0 as u64 >> BITS, self.0 as u64 & ((1 << BITS) - 1));
        match (high, low) {
            (0, 0) => format!("a record of {name}"),
            (0, line) => format!("line {line} of {name}"),
            (partition, offset) => format!("{name}-{}@{offset}", partition - 1),
        }
    }
}

/// What librdkafka tells beside the results of calls.
#[derive(Default)]
pub struct Told {
    /// The deliveries that failed: the transaction's own error does not tell the reason.
    failed: Mutex<Vec<Failed>>,
    is_hopeless: AtomicBool,
    /// The first connection that was lost since the transaction began.
    lost: Mutex<Option<String>>,
}

/// A record that was not delivered.
#[derive(Clone)]
pub struct Failed {
    pub code: RDKafkaErrorCode,
    origin: Origin,
    partition: i32,
    bytes: usize,
    key: String,
    has_key: bool,
    /// By the producer itself, not by the broker.
    is_local: bool,
    /// So many records were refused together, and the broker did not say for which one.
    together: usize,
}

/// The oldest and the newest record of a transaction. A broker refuses a timestamp with its whole batch and does not say
/// whose it is, but if any is out of its bounds, one of these is.
#[derive(Default)]
pub struct Extremes(Cell<Option<[(i64, Origin); 2]>>);

impl Extremes {
    pub fn reset(&self) {
        self.0.set(None);
    }

    pub fn take(&self, record: &Outgoing<'_>) {
        let this = (record.timestamp, record.origin);
        // -1 is no timestamp, and is always taken.
        if this.0 < 0 {
            return;
        }
        let [oldest, newest] = self.0.get().unwrap_or([this, this]);
        let older = if this.0 < oldest.0 { this } else { oldest };
        self.0.set(Some([older, if this.0 > newest.0 { this } else { newest }]));
    }

    /// The one that a broker would refuse, at `now` in milliseconds since the epoch.
    fn refused(&self, now: i64) -> Option<Origin> {
        self.0.get().map(|[oldest, newest]| if newest.0 > now { newest.1 } else { oldest.1 })
    }
}

impl Failed {
    /// Of a record that the producer did not take.
    pub fn local(code: RDKafkaErrorCode, record: &Outgoing<'_>) -> Failed {
        let bytes = [record.key, record.value].into_iter().flatten().map(<[u8]>::len).sum();
        Failed {
            code,
            origin: record.origin,
            partition: record.partition,
            bytes,
            key: record::key(record.key),
            has_key: record.key.is_some(),
            is_local: true,
            together: 1,
        }
    }

    /// Of deliveries that failed, the one that tells why: one that would fail again counts before those that failed
    /// since they were beside it.
    fn reason(all: &[Failed], extremes: &Extremes, now: i64) -> Option<Failed> {
        let Some(first) = all.iter().find(|failed| failed.is_hopeless()) else { return all.first().cloned() };
        let alike = |failed: &&Failed| (failed.code, failed.partition) == (first.code, first.partition);
        let found = match first.code {
            RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::MessageBatchTooLarge => {
                all.iter().filter(alike).max_by_key(|failed| failed.bytes)
            }
            RDKafkaErrorCode::InvalidTimestamp => {
                let origin = extremes.refused(now);
                all.iter().filter(alike).find(|failed| Some(failed.origin) == origin)
            }
            // The broker says whose it is.
            _ => return Some(first.clone()),
        };
        Some(Failed { together: all.iter().filter(alike).count(), ..found.unwrap_or(first).clone() })
    }

    /// Whether it would fail again, whoever sent it.
    pub fn is_hopeless(&self) -> bool {
        is_permanent(self.code) || denied(self.code).is_some()
    }

    /// Which record it is, and why `target` does not take it. `source` is the topic or the file that it is of.
    pub fn sentence(&self, source: &str, target: &str) -> String {
        let Failed { origin, partition, bytes, key, code, .. } = self;
        let origin = origin.within(source);
        let together = match self.together {
            1 => String::new(),
            n => format!(" (and refuses {} with it)", n - 1),
        };
        let record = format!("{origin}, key {key}, of {bytes} bytes{together}");
        match self.is_hopeless() {
            true if self.is_local => format!("the producer does not take {record}: {code}{}", self.way_out()),
            true => format!("{target}-{partition} does not take {record}: {code}{}", self.way_out()),
            false => format!("{record}, to {target}-{partition}: {code}"),
        }
    }

    fn way_out(&self) -> &'static str {
        match self.code {
            RDKafkaErrorCode::MessageSizeTooLarge if self.is_local => "; raise it with -X message.max.bytes",
            RDKafkaErrorCode::MessageSizeTooLarge => {
                "; raise the topic's max.message.bytes, or compress with -X compression.type=zstd, or where no record is as \
                 large send smaller batches with -X batch.size"
            }
            RDKafkaErrorCode::MessageBatchTooLarge => {
                "; raise the topic's segment.bytes, or compress with -X compression.type=zstd, or where no record is as \
                 large send smaller batches with -X batch.size"
            }
            RDKafkaErrorCode::InvalidTimestamp => {
                "; its timestamp is further from the broker's clock than the topic's message.timestamp.before.max.ms or \
                 message.timestamp.after.max.ms allows; raise that"
            }
            // Of several records of one batch the code does not say more.
            RDKafkaErrorCode::InvalidRecord if !self.has_key => "; a compacted topic takes no null key",
            RDKafkaErrorCode::InvalidRecord => {
                "; its timestamp is further from the broker's clock than the topic's message.timestamp.before.max.ms or \
                 message.timestamp.after.max.ms allows, or the broker looks into its records; the broker's log says which"
            }
            _ => "",
        }
    }
}

/// Whether the same call would fail again whoever made it.
pub(crate) fn is_permanent(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::*;
    matches!(
        code,
        MessageSizeTooLarge
            | MessageBatchTooLarge
            | InvalidMessageSize
            | InvalidRecord
            | InvalidTimestamp
            | PolicyViolation
            | UnsupportedForMessageFormat
            | UnsupportedVersion
            | InvalidRequiredAcks
    )
}

impl Told {
    /// The delivery that tells why a transaction failed, which sent `extremes`.
    pub fn failed(&self, extremes: &Extremes) -> Option<Failed> {
        let all = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        Failed::reason(&all, extremes, Utc::now().timestamp_millis())
    }

    /// Whether a delivery failed that would fail again: nothing is to be waited for.
    pub fn is_hopeless(&self) -> bool {
        self.is_hopeless.load(Ordering::Acquire)
    }

    pub fn take_lost(&self) -> Option<String> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Told {
    /// Called by the thread that lost the connection, before it sends again what was in flight there.
    fn log(&self, _level: RDKafkaLogLevel, fac: &str, message: &str) {
        tracing::debug!(target: "librdkafka", "{fac} {message}");
        // One that was never up had nothing in flight, and with `debug` set, the one that it began with is told as
        // well when it is closed.
        let is_lost = message.contains("in state UP") && !message.contains("_DESTROY_BROKER");
        if fac == "FAIL" && is_lost {
            self.lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message.to_owned());
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", "{error}: {reason}");
    }
}

impl ProducerContext for Told {
    /// [`Origin::as_opaque`].
    type DeliveryOpaque = usize;

    fn delivery(&self, delivery: &DeliveryResult<'_>, origin: usize) {
        let Err((error, message)) = delivery else { return };
        // A purge reports what an abort threw away.
        let Some(code) = error
            .rdkafka_error_code()
            .filter(|code| !matches!(code, RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight))
        else {
            return;
        };
        let failed = Failed {
            code,
            origin: Origin(origin),
            partition: message.partition(),
            bytes: message.key_len() + message.payload_len(),
            key: record::key(message.key()),
            has_key: message.key().is_some(),
            is_local: false,
            together: 1,
        };
        if failed.is_hopeless() {
            self.is_hopeless.store(true, Ordering::Release);
        }
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).push(failed);
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Origin::record(0, 0), "a-0@0")]
    #[case(Origin::record(7, 123), "a-7@123")]
    #[case(Origin::record(65_534, (1 << 48) - 1), "a-65534@281474976710655")]
    #[case(Origin::record(65_535, 0), "a record of a")]
    #[case(Origin::record(0, 1 << 48), "a record of a")]
    #[case(Origin::record(-1, -1), "a record of a")]
    #[case(Origin::line(1), "line 1 of a")]
    #[case(Origin::line(u64::MAX), "a record of a")]
    fn origins(#[case] origin: Origin, #[case] text: &str) {
        assert_eq!(Origin(origin.as_opaque()).within("a"), text);
    }

    fn failed(code: RDKafkaErrorCode, line: u64, bytes: usize) -> Failed {
        Failed { bytes, is_local: false, ..Failed::local(code, &sent(0, line)) }
    }

    fn sent(timestamp: i64, line: u64) -> Outgoing<'static> {
        let origin = Origin::line(line);
        Outgoing { partition: 0, key: None, value: None, timestamp, headers_of: None, origin }
    }

    #[rstest]
    #[case::beside_it(&[(RDKafkaErrorCode::InvalidDifferentRecord, 9), (RDKafkaErrorCode::InvalidRecord, 1)], 2, 1)]
    #[case::in_time(&[(RDKafkaErrorCode::MessageTimedOut, 9), (RDKafkaErrorCode::MessageTimedOut, 1)], 1, 1)]
    #[case::largest(&[(RDKafkaErrorCode::MessageSizeTooLarge, 1), (RDKafkaErrorCode::MessageSizeTooLarge, 9)], 2, 2)]
    #[case::newest(&[(RDKafkaErrorCode::InvalidTimestamp, 1), (RDKafkaErrorCode::InvalidTimestamp, 1)], 2, 2)]
    fn the_record_that_tells_why(
        #[case] all: &[(RDKafkaErrorCode, usize)],
        #[case] line: u64,
        #[case] together: usize,
    ) {
        let extremes = Extremes::default();
        let all: Vec<Failed> =
            (1..).zip(all).map(|(line, (code, bytes))| failed(*code, line, *bytes)).collect();
        for (timestamp, line) in [(5, 1), (-1, 9), (20, 2)] {
            extremes.take(&sent(timestamp, line));
        }
        let found = Failed::reason(&all, &extremes, 10).expect("one");
        assert_eq!((found.origin, found.together), (Origin::line(line), together));
        assert_eq!(extremes.refused(20), Some(Origin::line(1)));
    }
}
