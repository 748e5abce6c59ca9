//! Collects librdkafka's reports about a producer's records and connections. They come separately from the results of
//! calls.
//!
//! This code does not use the broker's own text for a record that it refuses (KIP-467): in librdkafka 2.12.1,
//! `rd_kafka_message_produce_errstr` points at memory that `rd_kafka_handle_Produce` has freed before the report is
//! served.

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
use crate::kafka::origin::Origin;
use crate::kafka::record;
use crate::kafka::sys::Outgoing;

/// librdkafka's reports about one producer.
#[derive(Default)]
pub struct Reports {
    /// The deliveries that failed. The transaction's own error does not give the reason.
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
    /// The producer itself refused the record, not the broker.
    is_local: bool,
    /// How many records the broker refused together, without saying which one is the cause.
    together: usize,
}

/// The oldest and the newest record of a transaction. A broker that refuses a timestamp refuses the whole batch, and
/// does not say which record it is. But if any timestamp is out of bounds, one of these two is.
#[derive(Default)]
pub struct Extremes(Cell<Option<[(i64, Origin); 2]>>);

impl Extremes {
    pub fn reset(&self) {
        self.0.set(None);
    }

    pub fn take(&self, record: &Outgoing<'_>) {
        let this = (record.timestamp, record.origin);
        // -1 means no timestamp. A broker always accepts it.
        if this.0 < 0 {
            return;
        }
        let [oldest, newest] = self.0.get().unwrap_or([this, this]);
        let older = if this.0 < oldest.0 { this } else { oldest };
        self.0.set(Some([older, if this.0 > newest.0 { this } else { newest }]));
    }

    /// The record of the two that a broker would refuse at `now`, in milliseconds since the epoch.
    fn refused(&self, now: i64) -> Option<Origin> {
        self.0.get().map(|[oldest, newest]| if newest.0 > now { newest.1 } else { oldest.1 })
    }
}

impl Failed {
    /// For a record that the producer refused.
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

    /// The failed delivery that shows the cause. A delivery that would fail again counts first: others may have failed
    /// only because they were in one batch with it.
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
            // For other codes, the broker says which record it is.
            _ => return Some(first.clone()),
        };
        Some(Failed { together: all.iter().filter(alike).count(), ..found.unwrap_or(first).clone() })
    }

    /// Whether the record would fail again, whoever sends it.
    pub fn is_hopeless(&self) -> bool {
        is_permanent(self.code) || denied(self.code).is_some()
    }

    /// Says which record it is, and why `target` refuses it. `source` is the topic or the file that it comes from.
    pub fn sentence(&self, source: &str, target: &str) -> String {
        let Failed { origin, partition, bytes, key, code, .. } = self;
        let origin = origin.within(source);
        let together = match self.together {
            1 => String::new(),
            n => format!(" (and {} others with it)", n - 1),
        };
        let record = format!("{origin}, key {key}, of {bytes} bytes{together}");
        match self.is_hopeless() {
            true if self.is_local => format!("the producer refuses {record}: {code}{}", self.way_out()),
            true => format!("{target}-{partition} refuses {record}: {code}{}", self.way_out()),
            false => format!("{record}, to {target}-{partition}: {code}"),
        }
    }

    fn way_out(&self) -> &'static str {
        match self.code {
            RDKafkaErrorCode::MessageSizeTooLarge if self.is_local => {
                "; raise its limit with -X message.max.bytes"
            }
            RDKafkaErrorCode::MessageSizeTooLarge => {
                "; raise the topic's max.message.bytes, or compress with -X compression.type=zstd, or if no record is \
                 that large, send smaller batches with -X batch.size"
            }
            RDKafkaErrorCode::MessageBatchTooLarge => {
                "; raise the topic's segment.bytes, or compress with -X compression.type=zstd, or if no record is \
                 that large, send smaller batches with -X batch.size"
            }
            RDKafkaErrorCode::InvalidTimestamp => {
                "; its timestamp is further from the broker's clock than the topic's message.timestamp.before.max.ms or \
                 message.timestamp.after.max.ms allows; raise that limit"
            }
            // If a batch holds several records, the broker's code does not say more than this.
            RDKafkaErrorCode::InvalidRecord if !self.has_key => "; a compacted topic takes no null key",
            RDKafkaErrorCode::InvalidRecord => {
                "; its timestamp is further from the broker's clock than the topic's message.timestamp.before.max.ms or \
                 message.timestamp.after.max.ms allows, or the broker checks what records hold; the broker's log says \
                 which it is"
            }
            _ => "",
        }
    }
}

/// Whether the same call would fail again, whoever makes it.
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

impl Reports {
    /// The delivery that shows why a transaction failed. `extremes` are of the records that it sent.
    pub fn failed(&self, extremes: &Extremes) -> Option<Failed> {
        let all = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        Failed::reason(&all, extremes, Utc::now().timestamp_millis())
    }

    /// Whether a delivery failed that would fail again. Waiting is then useless.
    pub fn is_hopeless(&self) -> bool {
        self.is_hopeless.load(Ordering::Acquire)
    }

    pub fn take_lost(&self) -> Option<String> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Reports {
    /// The thread that lost the connection calls this before it sends again the requests that were in flight there.
    fn log(&self, _level: RDKafkaLogLevel, fac: &str, message: &str) {
        tracing::debug!(target: "librdkafka", "{fac} {message}");
        // A connection that was never up had nothing in flight. And if `debug` is set, librdkafka also logs that it
        // closes the connection that it began with.
        let is_lost = message.contains("in state UP") && !message.contains("_DESTROY_BROKER");
        if fac == "FAIL" && is_lost {
            self.lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message.to_owned());
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", "{error}: {reason}");
    }
}

impl ProducerContext for Reports {
    /// [`Origin::as_opaque`].
    type DeliveryOpaque = usize;

    fn delivery(&self, delivery: &DeliveryResult<'_>, origin: usize) {
        let Err((error, message)) = delivery else { return };
        // These codes report the records that an abort threw away.
        let Some(code) = error
            .rdkafka_error_code()
            .filter(|code| !matches!(code, RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight))
        else {
            return;
        };
        let failed = Failed {
            code,
            origin: Origin::of_opaque(origin),
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
