//! Starts a run up, as often as it takes.

use std::rc::Rc;
use std::time::Duration;

use super::state::{Added, Run};
use crate::base::error::{Error, Reason, Result, Why};
use crate::fill::preflight::{self, Preflight};
use crate::fill::receipt::Counts;
use crate::job::Mode;
use crate::job::ledger::{Ledger, Topics};
use crate::job::resolve;
use crate::job::window::Window;
use crate::kafka::cluster::Cluster;
use crate::kafka::restart::{self, StartUp};
use crate::kafka::sides::Clusters;
use crate::kafka::topic::Topic;
use crate::telemetry;

/// How long a follow waits before it asks once more for its topics.
const PAUSE: Duration = Duration::from_secs(1);

/// The start-ups of a run, all for the same two topics.
pub(super) struct StartUps<'r, 'a> {
    pub(super) run: &'r mut Run<'a>,
    pub(super) topics: Topics,
    /// The checks and the window. The first start-up that gets this far prepares them for all.
    pub(super) prepared: Option<(Preflight, Option<Window>)>,
}

impl Run<'_> {
    pub(super) fn until_done(&mut self) -> Result<()> {
        // This is not part of a start-up, which would try for minutes to reach a cluster that never answered. But a cluster
        // that is away never ends a follow.
        let (clusters, topics) = loop {
            match self.find_topics() {
                Err(Error::Restart { why, .. }) if self.job.follow.is_some() => {
                    tracing::warn!("waiting: {why}");
                    telemetry::failed(&why.text);
                    self.interrupt.check()?;
                    std::thread::sleep(PAUSE);
                }
                result => break result?,
            }
        };
        restart::until_done(&mut StartUps { run: self, topics, prepared: None }, clusters)
    }

    fn find_topics(&mut self) -> Result<(Clusters, Topics)> {
        let selection = &self.job.selection;
        let mut clusters = selection.properties.connect(&selection.name())?;
        let sides = resolve::topics(&clusters, selection)?;
        self.told.names.found(&sides);
        let ledger = Ledger::of(selection, &clusters, &sides.source)?;
        if !ledger.is_source() {
            clusters.target = Rc::new(Cluster::connect(&selection.properties.target, &ledger.name)?);
        }
        Ok((clusters, Topics { sides, ledger }))
    }

    /// Makes the checks, and finds the window unless only a follow is left to do.
    fn prepare(
        &mut self,
        clusters: &Clusters,
        topics: &Topics,
        needs_window: bool,
    ) -> Result<(Preflight, Option<Window>)> {
        let window = needs_window.then(|| self.find_window(clusters, &topics.sides.source));
        let (checked, window) =
            preflight::check(clusters, self.job, topics.clone(), self.mode, window, self.interrupt)?;
        for warning in &checked.warnings {
            self.told.warn(warning.clone());
        }
        self.written = vec![Added::default(); checked.target.partitions];
        if let Some(window) = window {
            self.foresee_deletion(&checked, window)?;
        }
        Ok((checked, window))
    }

    fn find_window(&mut self, clusters: &Clusters, source: &Topic) -> Result<Window> {
        let resolved = resolve::window(&clusters.source, &self.job.selection, source, self.interrupt)?;
        self.told.window = Some(resolved.window);
        self.told.other_days = resolved.other_days;
        resolved.warning.into_iter().for_each(|warning| self.told.warn(warning));
        self.tell();
        Ok(resolved.window)
    }
}

impl StartUps<'_, '_> {
    fn once(&mut self, clusters: &Clusters) -> Result<()> {
        // The share is asked for below, so an older assignment must end nothing here.
        self.run.interrupt.forget_reassigned();
        let mut needs_window = true;
        if let Some(follow) = &self.run.job.follow {
            self.keep_up(clusters)?;
            needs_window = !self.is_followed(clusters, follow)?;
            self.run.live.is_joined |= !needs_window;
        }
        let run = &mut *self.run;
        if std::mem::take(&mut run.live.is_stale) {
            self.prepared = None;
        }
        if std::mem::take(&mut run.live.needs_window) {
            (self.prepared, needs_window) = (None, true);
        }
        let (checked, window) = match &self.prepared {
            Some(prepared) => prepared,
            None => self.prepared.insert(run.prepare(clusters, &self.topics, needs_window)?),
        };
        if run.mode == Mode::Fill {
            checked.ledger.ensure(clusters, &checked.source, run.interrupt)?;
        }
        if run.job.scale_out {
            run.attempt_share(clusters, checked, *window)
        } else {
            run.attempt(clusters, checked, *window, None).map(drop)
        }
    }
}

impl StartUp for StartUps<'_, '_> {
    type Connection = Clusters;

    fn connect(&self) -> Result<Clusters> {
        self.run.job.selection.properties.connect(&self.topics.ledger.name)
    }

    fn attempt(&mut self, clusters: &Clusters) -> Result<()> {
        loop {
            let result = self.once(clusters);
            let run = &mut *self.run;
            match result {
                Err(Error::Reassigned) => {}
                Err(Error::Grown(why)) if run.job.follow.is_some() => {
                    tracing::info!("starting up again: {why}");
                    // A broker of the other topic may be behind.
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(Error::LookAgain) => {
                    run.is_suspicious = true;
                    if run.told.transactions == 0 {
                        (run.told.counts, run.told.examples) = (Counts::default(), Vec::new());
                    }
                }
                result => return result,
            }
        }
    }

    fn take(&mut self, result: Result<()>) -> Option<Result<()>> {
        let committed = self.run.told.transactions;
        let run = &mut self.run;
        // Nothing is pending, so somebody who ends a follow need not know that a cluster is away.
        let is_ended = run.live.is_joined && run.in_doubt.is_none() && run.interrupt.is_set();
        if is_ended && matches!(result, Err(Error::Interrupted | Error::Restart { .. })) {
            return Some(Ok(()));
        }
        let result = match result {
            Err(Error::Failed(why)) if run.job.follow.is_some() && passes(&why) => Err(Error::restart(why)),
            result => result,
        };
        if let (Err(Error::Restart { why, .. }), Some(_)) = (&result, &run.job.follow) {
            telemetry::failed(&why.text);
        }
        run.restarts.take(result, committed, run.interrupt)
    }

    fn has_written(&self) -> bool {
        let run = &self.run;
        run.mode == Mode::Fill && (run.told.counts.written > 0 || run.in_doubt.is_some())
    }
}

/// Whether a failure is a state of a cluster that passes. A follow waits for its end.
fn passes(why: &Why) -> bool {
    use Reason::{HangingTransaction, NoProgress, NotEnoughReplicas, Unreachable};
    matches!(why.reason(), Some(HangingTransaction | NoProgress | NotEnoughReplicas | Unreachable))
}
