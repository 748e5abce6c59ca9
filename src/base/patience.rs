//! How long to wait without progress. Pure.

use std::time::Duration;

/// Counts how long this process waited without progress. Time in which the process itself was stopped (SIGSTOP, a
/// machine that slept) does not count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub limit: Duration,
    waited: Duration,
}

/// A step counts as this much at most. Most callers wait in far shorter steps, so a longer one means that the process
/// was stopped meanwhile. A sink waits in rounds, and a failed round counts as one such step.
const LONGEST_STEP: Duration = Duration::from_secs(1);

impl Patience {
    pub(crate) fn new(limit: Duration) -> Patience {
        Patience { limit, waited: Duration::ZERO }
    }

    /// Adds one step of waiting, as the clock measured it.
    pub(crate) fn wait(&mut self, step: Duration) {
        self.waited += step.min(LONGEST_STEP);
    }

    /// Starts again from zero, because there was progress.
    pub(crate) fn progress(&mut self) {
        self.waited = Duration::ZERO;
    }

    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }

    pub(crate) fn is_over(&self) -> bool {
        self.waited >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_after_many_steps_without_progress() {
        let mut patience = Patience::new(Duration::from_secs(60));
        for step in 1..=600 {
            assert!(!patience.is_over(), "step {step}");
            patience.wait(Duration::from_millis(100));
        }
        assert!(patience.is_over());
        patience.progress();
        assert!(!patience.is_over());
    }

    // Found by a drill: a run that had been stopped for a minute blamed the broker.
    #[test]
    fn time_in_which_the_process_was_stopped_does_not_count() {
        let mut patience = Patience::new(Duration::from_secs(60));
        patience.wait(Duration::from_secs(3600));
        assert!(!patience.is_over());
    }
}
