//! Keeps the receipt of a run that is at work, so that people see the run before it ends, and also if it was killed.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::{Store, new_owner, now_ms, open};
use crate::base::error::{Error, Result};
use crate::base::time::rfc3339;

/// When the first sign of life is kept. A run that is over sooner keeps only its receipt.
const FIRST: Duration = Duration::from_secs(1);
/// How often a sign of life is kept from then on. The page takes a multiple of this for silence.
const EVERY: Duration = Duration::from_secs(5);
/// How long the end of a run waits for the store.
const LAST: Duration = Duration::from_secs(60);

/// Keeps one receipt in a store: while the run is at work with `status` `running` and the time of its last sign of life
/// as `at`, and in the end the last one in its place. A thread of its own does it, since a store may be slow.
///
/// A run that was killed stays there as `running`, with an `at` that gets old. So does one whose store cannot be reached
/// any more. Clocks of two machines may differ.
pub struct Keeping {
    latest: Arc<Mutex<Option<Value>>>,
    last: Sender<Value>,
    kept: Receiver<Result<()>>,
}

impl Keeping {
    /// Keeps nothing until [`Keeping::tell`] is called.
    ///
    /// # Errors
    /// [`Error::Failed`] if the system gives no random number or no thread.
    pub fn start(url: &str) -> Result<Keeping> {
        let latest = Arc::new(Mutex::new(None));
        let (last, receiver) = channel();
        let mut keeper = Keeper {
            url: url.to_owned(),
            store: None,
            run: new_owner()?,
            started: rfc3339(now_ms()),
            host: host(),
            latest: latest.clone(),
        };
        let (done, kept) = channel();
        let thread = std::thread::Builder::new().name("receipt".to_owned());
        let keep = move || drop(done.send(keeper.until_last(&receiver)));
        thread.spawn(keep).map_err(|e| Error::io("the receipt's thread", e))?;
        Ok(Keeping { latest, last, kept })
    }

    /// What the receipt would say now. It waits for nothing.
    pub fn tell(&self, receipt: &impl Serialize) {
        // A receipt is always JSON.
        if let Ok(receipt) = serde_json::to_value(receipt) {
            *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(receipt);
        }
    }

    /// Keeps the last receipt. It waits for the store, but no longer than a minute.
    ///
    /// # Errors
    /// As [`open()`] and [`Store::keep_receipt`].
    pub fn end(self, receipt: Value) -> Result<()> {
        let ended = || Error::failed("the thread that keeps the receipt ended by a fault");
        self.last.send(receipt).map_err(|_| ended())?;
        self.kept.recv_timeout(LAST).unwrap_or_else(|why| match why {
            RecvTimeoutError::Disconnected => Err(ended()),
            RecvTimeoutError::Timeout => {
                Err(Error::failed(format!("the store did not keep the receipt within {} s", LAST.as_secs())))
            }
        })
    }
}

struct Keeper {
    url: String,
    store: Option<Box<dyn Store>>,
    run: String,
    started: String,
    host: Option<String>,
    latest: Arc<Mutex<Option<Value>>>,
}

impl Keeper {
    fn until_last(&mut self, last: &Receiver<Value>) -> Result<()> {
        let (mut wait, mut has_warned) = (FIRST, false);
        loop {
            match last.recv_timeout(wait) {
                Ok(receipt) => {
                    let had_store = self.store.is_some();
                    // If the server was gone for a while, the old connection fails for ever.
                    return match self.keep(receipt.clone()) {
                        Err(_) if had_store => self.keep(receipt),
                        kept => kept,
                    };
                }
                // The run ended before it had a receipt.
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => wait = EVERY,
            }
            let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let Some(mut receipt) = latest else { continue };
            if let Some(receipt) = receipt.as_object_mut() {
                // Only the end knows these.
                receipt.retain(|name, _| !["elapsed_ms", "complete"].contains(&name.as_str()));
                receipt.insert("status".to_owned(), "running".into());
            }
            if let Err(err) = self.keep(receipt)
                && !std::mem::replace(&mut has_warned, true)
            {
                tracing::warn!("the dashboard does not show that this run is at work: {err}");
            }
        }
    }

    /// Only a store that has kept it is used again.
    fn keep(&mut self, mut receipt: Value) -> Result<()> {
        receipt["at"] = rfc3339(now_ms()).into();
        receipt["started"] = self.started.clone().into();
        if let Some(host) = &self.host {
            receipt["host"] = host.clone().into();
        }
        let mut store = match self.store.take() {
            Some(store) => store,
            None => open(&self.url)?,
        };
        store.keep_receipt(&self.run, &receipt)?;
        self.store = Some(store);
        Ok(())
    }
}

/// The name of this machine, if it is easily known.
fn host() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::env::var("HOSTNAME"));
    name.ok().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty())
}
