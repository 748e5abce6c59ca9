//! A record, for people.

use crate::sys::Message;
use crate::window::rfc3339;

/// Where a record stands, its time and the beginning of its key.
pub fn describe(message: &Message) -> String {
    let key = message.key().map_or("null".to_owned(), |key| {
        String::from_utf8_lossy(key).chars().take(64).flat_map(char::escape_debug).collect()
    });
    format!(
        "partition {} offset {}, {}, key {key}",
        message.partition(),
        message.offset(),
        rfc3339(message.timestamp().0)
    )
}
