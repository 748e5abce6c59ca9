//! Asks again for what a broker may only not know yet: metadata reach the brokers one after the other.

use std::time::Duration;

use crate::base::error::Result;

/// How long a broker may lag behind.
pub(crate) const LAG: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(100);

/// Asks until there is an answer, with pauses that make up `limit` together. `None` if there was none.
///
/// # Errors
/// As `ask`.
pub(crate) fn until<T>(limit: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<Option<T>> {
    for _ in 0..limit.as_millis() / PAUSE.as_millis() {
        if let Some(answer) = ask()? {
            return Ok(Some(answer));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(None)
}
