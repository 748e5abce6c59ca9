//! Ctrl-C and SIGTERM, as a flag that the loops look at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// Set once by a signal; a clone sees the same flag.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches SIGINT, SIGTERM and SIGHUP from here on. A second signal ends the process at once, as a
    /// failure: the broker, or the next run, then aborts what is open.
    ///
    /// # Errors
    /// [`Error::Failed`] where the handler cannot be set, as when it is set twice.
    pub fn install() -> Result<Interrupt> {
        let interrupt = Interrupt::default();
        let flag = interrupt.clone();
        let on_signal = move || {
            if flag.0.swap(true, Ordering::Relaxed) {
                std::process::exit(1);
            }
        };
        ctrlc::set_handler(on_signal).map_err(|e| Error::io("the signal handler", e))?;
        Ok(interrupt)
    }

    /// As a signal would.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// # Errors
    /// [`Error::Interrupted`], once a signal came.
    pub fn check(&self) -> Result<()> {
        if self.is_set() { Err(Error::Interrupted) } else { Ok(()) }
    }
}
