//! Flags that tell a loop to stop: Ctrl-C or SIGTERM came, or the group moved partitions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::error::{Error, Result};

/// Clones share the same flags.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<Flags>);

#[derive(Default)]
struct Flags {
    signal: AtomicBool,
    reassigned: AtomicBool,
}

impl Interrupt {
    /// Catches SIGINT, SIGTERM and SIGHUP from here on. A second signal ends the process at once with exit code 1;
    /// the broker or the next run then aborts the open transaction.
    ///
    /// # Errors
    /// [`Error::Failed`] if the handler cannot be set, for example because it is already set.
    pub fn install() -> Result<Interrupt> {
        let interrupt = Interrupt::default();
        let flag = interrupt.clone();
        let on_signal = move || {
            if flag.0.signal.swap(true, Ordering::Relaxed) {
                std::process::exit(1);
            }
        };
        ctrlc::set_handler(on_signal).map_err(|e| Error::io("the signal handler", e))?;
        Ok(interrupt)
    }

    /// Does what a signal does.
    pub fn set(&self) {
        self.0.signal.store(true, Ordering::Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.0.signal.load(Ordering::Relaxed)
    }

    /// Notes that the group assigns other partitions to this process, now or soon (`kafka::member`).
    pub fn reassign(&self) {
        self.0.reassigned.store(true, Ordering::SeqCst);
    }

    /// Clears [`Interrupt::is_reassigned`]. The caller then looks up the newest assignment; if the group changes the
    /// assignment meanwhile, the flag is set again.
    pub fn forget_reassigned(&self) {
        self.0.reassigned.store(false, Ordering::SeqCst);
    }

    pub fn is_reassigned(&self) -> bool {
        self.0.reassigned.load(Ordering::SeqCst)
    }

    /// # Errors
    /// [`Error::Interrupted`] after a signal; [`Error::Reassigned`] after the group moved partitions.
    pub fn check(&self) -> Result<()> {
        if self.is_set() {
            Err(Error::Interrupted)
        } else if self.is_reassigned() {
            Err(Error::Reassigned)
        } else {
            Ok(())
        }
    }
}
