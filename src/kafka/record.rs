//! Describes records for people.

use crate::base::time::rfc3339;
use crate::kafka::sys::Message;

/// A record's partition and offset, its time and the beginning of its key.
pub(crate) fn describe(message: &Message) -> String {
    format!(
        "partition {} offset {}, {}, key {}",
        message.partition(),
        message.offset(),
        rfc3339(message.timestamp().0),
        key(message.key())
    )
}

/// The beginning of a key.
pub(crate) fn key(key: Option<&[u8]>) -> String {
    key.map_or("null".to_owned(), |key| {
        String::from_utf8_lossy(key).chars().take(64).flat_map(char::escape_debug).collect()
    })
}
