//! Whether a run needs somebody's help, and whether it needs a restart. Pure.

use std::time::Duration;

use serde::Serialize;

use super::Phase;
use crate::base::patience::Patience;
use crate::kafka::sides::Side;

/// What the run said of itself, and for how long it has said nothing. Time in which the process was stopped does not
/// count.
#[derive(Debug)]
pub(super) struct Health {
    limit: Duration,
    phase: Phase,
    /// By side: for how long its cluster has been away.
    away: [Option<Patience>; 2],
    /// For how long the run has said nothing, while it followed and both clusters answered.
    silence: Patience,
    /// Why start-ups have failed since the run last said where it stands, and for how long.
    failing: Option<(String, Patience)>,
    /// The troubles of the last [`Standing`](super::standing::Standing).
    troubles: Vec<String>,
}

/// The answer to a probe: `{"status":"ok","phase":"follow"}`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Answer {
    pub status: &'static str,
    pub phase: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
}

impl Health {
    /// `limit` is how long a cluster may be away, and how long a follow may say nothing.
    pub(super) fn new(limit: Duration) -> Health {
        let silence = Patience::new(limit);
        Health { limit, phase: Phase::Run, away: [None; 2], silence, failing: None, troubles: Vec::new() }
    }

    /// The run has entered a phase.
    pub(super) fn phase(&mut self, now: Phase) {
        self.phase = now;
        self.silence.progress();
        // A start-up looks at everything anew.
        if now != Phase::Follow {
            self.troubles.clear();
        }
    }

    /// The cluster of a side answered, or it did not.
    pub(super) fn up(&mut self, side: Side, is_up: bool) {
        self.silence.progress();
        let away = &mut self.away[side as usize];
        if is_up {
            *away = None;
        } else {
            away.get_or_insert(Patience::new(self.limit));
        }
    }

    /// A start-up has failed, and the run tries another one.
    pub(super) fn failed(&mut self, why: &str) {
        self.silence.progress();
        let limit = self.limit;
        self.failing.get_or_insert_with(|| (String::new(), Patience::new(limit))).0 = why.to_owned();
    }

    /// The run has said where it stands.
    pub(super) fn stands(&mut self, troubles: &[String]) {
        self.silence.progress();
        self.failing = None;
        self.troubles = troubles.to_vec();
    }

    /// Time has passed, in a step as the clock measured it.
    pub(super) fn passed(&mut self, step: Duration) {
        for away in self.away.iter_mut().flatten() {
            away.wait(step);
        }
        if let Some((_, failing)) = &mut self.failing {
            failing.wait(step);
        }
        // A run that waits for a cluster may be inside one call for long. A restart would not bring the cluster back.
        if self.phase == Phase::Follow && self.away.iter().all(Option::is_none) {
            self.silence.wait(step);
        }
    }

    /// Answers `/healthz`: whether somebody must look at the run.
    pub(super) fn healthz(&self) -> Answer {
        let away = Side::BOTH.into_iter().filter_map(|side| {
            let away = self.away[side as usize].filter(Patience::is_over)?;
            Some(format!("the {} cluster has not answered for {} s", side.word(), away.waited().as_secs()))
        });
        let failing = self.failing.iter().filter(|(_, failing)| failing.is_over()).map(|(why, failing)| {
            format!("nothing could be copied for {} s: {why}", failing.waited().as_secs())
        });
        self.answer(away.chain(failing).chain(self.hang()).chain(self.troubles.iter().cloned()).collect())
    }

    /// Answers `/livez`: whether only a restart of the process can help.
    pub(super) fn livez(&self) -> Answer {
        self.answer(self.hang().into_iter().collect())
    }

    fn hang(&self) -> Option<String> {
        let silence = self.silence;
        silence.is_over().then(|| {
            format!("the run has not said for {} s where it stands: it hangs", silence.waited().as_secs())
        })
    }

    fn answer(&self, troubles: Vec<String>) -> Answer {
        let status = if troubles.is_empty() { "ok" } else { "unhealthy" };
        Answer { status, phase: self.phase.word(), troubles }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const LIMIT: u64 = 60;

    fn following() -> Health {
        let mut health = Health::new(Duration::from_secs(LIMIT));
        health.phase(Phase::Follow);
        health
    }

    fn wait(health: &mut Health, seconds: u64) {
        for _ in 0..seconds * 4 {
            health.passed(Duration::from_millis(250));
        }
    }

    /// The troubles by `/healthz`, and by `/livez`.
    fn seen(health: &Health) -> (Vec<String>, Vec<String>) {
        let (healthz, livez) = (health.healthz(), health.livez());
        for answer in [&healthz, &livez] {
            assert_eq!(answer.status == "ok", answer.troubles.is_empty(), "{answer:?}");
        }
        (healthz.troubles, livez.troubles)
    }

    const NOTHING: (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());

    #[test]
    fn a_fill_may_say_nothing_for_hours() {
        let mut health = Health::new(Duration::from_secs(LIMIT));
        for phase in
            [Phase::Run, Phase::Preflight, Phase::Init, Phase::Wait, Phase::Scan, Phase::Copy, Phase::Close]
        {
            health.phase(phase);
            wait(&mut health, 3600);
            assert_eq!(seen(&health), NOTHING, "{phase:?}");
            assert_eq!(health.healthz().phase, phase.word());
        }
        // The time of the fill does not count against the follow.
        health.phase(Phase::Follow);
        wait(&mut health, LIMIT - 1);
        assert_eq!(seen(&health), NOTHING);
    }

    #[rstest]
    fn a_cluster_that_is_away_for_too_long(
        #[values(Side::Source, Side::Target)] side: Side,
        #[values(true, false)] says_so_each_second: bool,
    ) {
        let mut health = following();
        health.up(side, false);
        for second in 0..10 * LIMIT {
            let is_over = second >= LIMIT;
            let (healthz, livez) = seen(&health);
            assert_eq!(healthz.len(), usize::from(is_over), "after {second} s: {healthz:?}");
            let begin = format!("the {} cluster", side.word());
            assert!(
                healthz.iter().all(|text| text.starts_with(&begin) && text.contains(&second.to_string()))
            );
            assert_eq!(livez, [""; 0], "a restart does not help");
            if says_so_each_second {
                health.up(side, false);
            }
            wait(&mut health, 1);
        }
        // Another start-up waits for the same cluster.
        health.phase(Phase::Init);
        assert_eq!(seen(&health).0.len(), 1);
        health.up(side, true);
        assert_eq!(seen(&health), NOTHING);
        health.up(side, false);
        assert_eq!(seen(&health), NOTHING, "the time counts from zero again");
    }

    #[test]
    fn troubles_until_the_run_says_that_they_are_gone() {
        let mut health = following();
        let troubles = ["partition 3 is not copied".to_owned(), "another writer".to_owned()];
        health.stands(&troubles);
        assert_eq!(seen(&health), (troubles.to_vec(), Vec::new()));
        health.stands(&[]);
        assert_eq!(seen(&health), NOTHING);
    }

    #[test]
    fn a_start_up_forgets_the_troubles_of_the_one_before() {
        let mut health = following();
        health.stands(&["partition 3 is not copied".to_owned()]);
        health.phase(Phase::Init);
        assert_eq!(seen(&health), NOTHING);
    }

    #[test]
    fn a_follow_that_says_nothing_hangs() {
        let mut health = following();
        for _ in 0..3 {
            health.stands(&[]);
            wait(&mut health, LIMIT - 1);
            assert_eq!(seen(&health), NOTHING);
        }
        wait(&mut health, 1);
        let (healthz, livez) = seen(&health);
        assert!(livez.len() == 1 && healthz == livez, "{healthz:?} {livez:?}");
        health.stands(&[]);
        assert_eq!(seen(&health), NOTHING);
    }

    #[test]
    fn time_in_which_the_process_was_stopped_does_not_count() {
        let mut health = following();
        health.passed(Duration::from_secs(3600));
        health.up(Side::Target, false);
        health.passed(Duration::from_secs(3600));
        assert_eq!(seen(&health), NOTHING);
    }

    #[test]
    fn the_answers_as_json() {
        let mut health = following();
        let json = |health: &Health| serde_json::to_string(&health.healthz()).expect("JSON");
        assert_eq!(json(&health), r#"{"status":"ok","phase":"follow"}"#);
        health.stands(&["another writer".to_owned()]);
        assert_eq!(json(&health), r#"{"status":"unhealthy","phase":"follow","troubles":["another writer"]}"#);
    }
}
