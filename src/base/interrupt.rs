//! Why a loop is to stop where it is: Ctrl-C and SIGTERM, or other partitions. Flags that the loops look at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::error::{Error, Result};

/// Set once by a signal; a clone sees the same flags.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<Flags>);

#[derive(Default)]
struct Flags {
    signal: AtomicBool,
    reassigned: AtomicBool,
}

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
            if flag.0.signal.swap(true, Ordering::Relaxed) {
                std::process::exit(1);
            }
        };
        ctrlc::set_handler(on_signal).map_err(|e| Error::io("the signal handler", e))?;
        Ok(interrupt)
    }

    /// As a signal would.
    pub fn set(&self) {
        self.0.signal.store(true, Ordering::Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.0.signal.load(Ordering::Relaxed)
    }

    /// Other partitions are, or will be, assigned to this process ([`crate::kafka::member`]).
    pub fn reassign(&self) {
        self.0.reassigned.store(true, Ordering::SeqCst);
    }

    /// What is looked up from here on is of the newest assignment, or [`Interrupt::is_reassigned`] again.
    pub fn forget_reassigned(&self) {
        self.0.reassigned.store(false, Ordering::SeqCst);
    }

    pub fn is_reassigned(&self) -> bool {
        self.0.reassigned.load(Ordering::SeqCst)
    }

    /// # Errors
    /// [`Error::Interrupted`], once a signal came; [`Error::Reassigned`], once the group moved partitions.
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
