//! What a round of `--follow` must have left behind.

use std::collections::HashSet;
use std::os::unix::process::ExitStatusExt;

use super::writers::{USER, Writers};
use super::{Live, copier};
use crate::base::error::Result;
use crate::kafka::sides::Side;
use crate::lab::drill::compare::Expected;
use crate::lab::drill::data::WINDOW;
use crate::lab::drill::report::Round;
use crate::lab::drill::round::flat;
use crate::lab::drill::run::Ended;
use crate::lab::drill::topics::{Log, Record};

/// Whether an instance of a follow may end like this after what happened to it. A cluster that is away must not end it
/// once it follows.
pub(in crate::lab::drill) fn may_end(ended: &Ended) -> bool {
    let suffered = ended.suffered;
    // It fills again if the group gives it a partition that nobody has filled yet.
    let is_following =
        ended.stderr.rfind("following ") > ended.stderr.rfind("this instance has the partitions");
    match (ended.status.code(), ended.status.signal()) {
        (Some(0), _) => suffered.terminated,
        // If a cluster is away when SIGTERM comes, it cannot know what became of its last transaction.
        (Some(1), _) => {
            suffered.troubled && suffered.terminated && ended.stderr.contains("outcome was unknown")
        }
        (Some(130), _) => suffered.terminated && !is_following,
        (_, Some(9)) => suffered.killed,
        // SIGTERM came before the instance could install its handler.
        (_, Some(15)) => suffered.terminated && ended.stderr.is_empty(),
        _ => false,
    }
}

impl Live<'_, '_> {
    pub(super) fn verdict(mut self) -> Result<Round> {
        let shape = self.play.shape;
        let (topics_of_source, topics) =
            (self.play.stage.topics(Side::Source), self.play.stage.topics(Side::Target));
        // These wait until all transactions have ended. One that hangs is a failure of the program or of a broker.
        let found = topics_of_source
            .logs(&self.play.job.source, shape.source_partitions)
            .and_then(|source| Ok((source, topics.logs(&self.play.job.target, shape.target_partitions)?)));
        let (source, target) = match found {
            Ok(found) => found,
            Err(err) => {
                self.play.wrong(err.to_string());
                return Ok(self.play.round);
            }
        };
        let (due_logs, source) = (self.due(&source), flat(&source));
        let due = flat(&due_logs);
        let live = source.iter().filter(|record| is_live(record)).count();
        let wrote = self.wrote;
        let aborted = self.writers.as_ref().map(Writers::aborted).unwrap_or_default();
        self.play.aborted.extend(aborted);
        let expected = Expected {
            source: &due,
            window: (i64::MIN, i64::MAX),
            others: &self.play.others,
            mirrored: &[],
            aborted: &self.play.aborted,
            same_partitions: shape.source_partitions == shape.target_partitions,
            by_count: true,
        };
        self.play.round.anomalies = match self.is_copier() {
            true => copier::compare(&expected, &flat(&target)),
            false => expected.compare(&flat(&target)),
        };
        self.play.round.records = due.len();
        if let Some(follow) = &mut self.play.round.follow {
            (follow.committed, follow.aborted) = (wrote.committed, wrote.aborted);
        }
        // The count alone would not show a confirmed transaction that is lost beside one that was taken for lost.
        let missing = self.writers.as_ref().map(|writers| writers.missing(&source)).unwrap_or_default();
        let confirmed = wrote.committed..=wrote.committed + wrote.unknown;
        let is_complete = missing.whole.is_empty() && missing.others == 0;
        if !is_complete || !confirmed.contains(&u64::try_from(live).unwrap_or(0)) {
            let told = format!(
                "the source holds {live} records of the writers, but they say {wrote:?}: {missing:?}"
            );
            // Nobody but the writers writes to a source cluster of its own. So if its only broker was restarted, that broker lost
            // what it had confirmed, or has committed what failed before its writer asked for the commit.
            let was_restarted = self.play.round.source_cluster.is_some_and(|cluster| cluster.bounces() > 0);
            let is_of_brokers = was_restarted && missing.others == 0;
            match is_of_brokers {
                true => self.play.note(told),
                false => self.play.wrong(told),
            }
        }
        self.play.check_watch(&due_logs, &target, true)?;
        for tail in std::mem::take(&mut self.tails) {
            self.play.check_tail(tail, &target)?;
        }
        self.play.source = source;
        if !self.is_copier() {
            self.play.audit()?;
        }
        if self.play.round.is_right() {
            self.play.clean_up()?;
        }
        Ok(self.play.round)
    }

    /// The records of the source that the target must hold.
    fn due(&self, source: &[Log]) -> Vec<Log> {
        let mut loaded = HashSet::new();
        let by_count = self.play.schedule.by_count;
        let mut is_due = |record: &Record| {
            is_live(record)
                || (record.time >= WINDOW.0
                    && (by_count || loaded.insert((record.key.clone(), record.value.clone()))))
        };
        let mut due = |log: &Log| log.iter().filter(|(_, record)| is_due(record)).cloned().collect();
        source.iter().map(&mut due).collect()
    }
}

/// Whether a writer wrote it.
fn is_live(record: &Record) -> bool {
    record.key.as_ref().is_some_and(|key| key.starts_with(USER))
}

#[cfg(test)]
mod tests {
    use std::process::ExitStatus;

    use rstest::rstest;

    use super::*;
    use crate::lab::drill::run::Suffered;

    const STARTING: &str = "this instance has the partitions {0}";
    const FOLLOWS: &str = "this instance has the partitions {0}\nfollowing a in the partitions [0]";
    const GIVEN_MORE: &str = "following a in the partitions []\nthis instance has the partitions {0}";

    /// The status is as `waitpid` gives it: the exit code times 256, or the signal.
    #[rstest]
    #[case::stopped(0, FOLLOWS, Suffered { terminated: true, ..Suffered::default() }, true)]
    #[case::ended_by_itself(0, FOLLOWS, Suffered { troubled: true, ..Suffered::default() }, false)]
    #[case::killed(9, FOLLOWS, Suffered { killed: true, ..Suffered::default() }, true)]
    #[case::died(9, FOLLOWS, Suffered { troubled: true, ..Suffered::default() }, false)]
    #[case::cluster_away(1 << 8, FOLLOWS, Suffered { troubled: true, ..Suffered::default() }, false)]
    #[case::cluster_away_at_first(1 << 8, STARTING, Suffered { troubled: true, ..Suffered::default() }, false)]
    #[case::failed_at_first(1 << 8, STARTING, Suffered::default(), false)]
    #[case::interrupted_fill(130 << 8, STARTING, Suffered { terminated: true, ..Suffered::default() }, true)]
    #[case::interrupted_fill_after_following_nothing(130 << 8, GIVEN_MORE, Suffered { terminated: true, ..Suffered::default() }, true)]
    #[case::interrupted(130 << 8, FOLLOWS, Suffered { terminated: true, ..Suffered::default() }, false)]
    #[case::fenced(5 << 8, FOLLOWS, Suffered { troubled: true, ..Suffered::default() }, false)]
    #[case::no_handler_yet(15, "", Suffered { terminated: true, ..Suffered::default() }, true)]
    #[case::no_handler(15, FOLLOWS, Suffered { terminated: true, ..Suffered::default() }, false)]
    fn an_instance_ends_only_for_a_reason(
        #[case] status: i32,
        #[case] stderr: &str,
        #[case] suffered: Suffered,
        #[case] wanted: bool,
    ) {
        let ended = Ended {
            number: 1,
            status: ExitStatus::from_raw(status),
            receipt: None,
            stderr: stderr.to_owned(),
            known: None,
            suffered,
        };
        assert_eq!(may_end(&ended), wanted);
    }
}
