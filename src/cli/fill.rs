//! The main job and its plan.

use std::time::Duration;

use clap::Args;

use super::heading;
use super::metrics::MetricsArgs;
use super::topics::SelectionArgs;
use crate::base::error::{Error, Result};
use crate::base::interrupt::Interrupt;
use crate::base::time::parse_duration;
use crate::job::identity::Identity;
use crate::job::rate::MaxRate;
use crate::job::typed::TypedWindow;
use crate::job::{Follow, Job, TargetScan};
use crate::kafka::pace::TransactionLimits;

/// The options of the main job.
#[derive(Clone, Debug, Args)]
pub struct FillArgs {
    #[command(flatten)]
    pub selection: SelectionArgs,
    #[command(flatten)]
    pub follow: FollowArgs,
    #[command(flatten)]
    pub run: RunArgs,
    /// Limit write throughput: 5000/s for records, or 10MB/s for bytes
    #[arg(long, value_name = "RATE", help_heading = heading::SPEED)]
    pub max_rate: Option<MaxRate>,
    /// Commit after N records at the latest
    ///
    /// A transaction also ends after one second, or at 256 MiB.
    #[arg(
        long,
        default_value = "1000000",
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = heading::SPEED
    )]
    pub transaction_records: u32,
    /// Also keep the receipt in this store, for the dashboard
    ///
    /// The page shows the run from its start on, and if it was killed, when it gave its last sign.
    #[arg(
        long,
        env = "REPLICATOR_STORE",
        hide_env_values = true,
        value_name = "URL",
        help_heading = heading::OUTPUT,
        display_order = heading::LATE
    )]
    pub store: Option<String>,
}

impl FillArgs {
    /// # Errors
    /// [`Error::Usage`] if the options contradict each other.
    pub fn job(&self, interrupt: &Interrupt) -> Result<Job> {
        let limits =
            TransactionLimits { records: self.transaction_records as usize, ..TransactionLimits::default() };
        let moves = self.selection.window.as_ref().is_some_and(TypedWindow::is_relative);
        if self.follow.follow && moves {
            return Err(Error::usage(
                "--follow may need its window again in days to come, so its start must be an instant, as in \
                 --window 2021-04-14T11:00Z/",
            ));
        }
        if self.follow.scale_out && moves {
            return Err(Error::usage(
                "--scale-out needs the same window in each instance, but this one moves: give instants, as in --window \
                 2021-04-14T11:00Z/2021-04-14T13:00Z",
            ));
        }
        self.follow.of(Job { limits, max_rate: self.max_rate, ..self.run.job(&self.selection, interrupt)? })
    }
}

#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub selection: SelectionArgs,
    #[command(flatten)]
    pub run: RunArgs,
}

impl PlanArgs {
    /// # Errors
    /// [`Error::Usage`] if the options contradict each other.
    pub fn job(&self, interrupt: &Interrupt) -> Result<Job> {
        self.run.job(&self.selection, interrupt)
    }
}

/// What a plan and the main job share.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Fill a target even if it is compacted
    ///
    /// In a compacted topic, an old value that is written after a newer one becomes the latest.
    #[arg(long, help_heading = heading::SAFETY)]
    pub allow_compacted_target: bool,
    /// Stop once N records are written and committed
    ///
    /// Use it to try a fill on a few records. The run ends with exit code 0 and `complete: false`. The same command
    /// without --limit goes on from there.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = heading::SAFETY)]
    pub limit: Option<u64>,
    #[command(flatten)]
    pub metrics: MetricsArgs,
}

impl RunArgs {
    fn job(&self, selection: &SelectionArgs, interrupt: &Interrupt) -> Result<Job> {
        Ok(Job {
            allow_compacted_target: self.allow_compacted_target,
            limit: self.limit,
            ..Job::new(selection.selection(interrupt)?)
        })
    }
}

/// What the main job does after the window, and with whom.
#[derive(Clone, Debug, Args)]
pub struct FollowArgs {
    /// Go on copying new records after the fill, until somebody ends the run
    ///
    /// Fills the window up to the present first, then copies all that the source commits. --window must have no end, and a date.
    /// Several instances of one command share the partitions. After the fill, SIGTERM and Ctrl-C end the run with exit
    /// code 0.
    #[arg(long, conflicts_with = "max_out_of_orderness", help_heading = heading::FOLLOW)]
    pub follow: bool,
    /// With --follow, commit this often, as in 200ms or 1s
    ///
    /// Readers of the target see a record after its commit. A run that is behind commits less often.
    #[arg(
        long,
        requires = "follow",
        default_value = "200ms",
        value_name = "DURATION",
        value_parser = parse_interval,
        help_heading = heading::FOLLOW
    )]
    pub commit_interval: Duration,
    /// With --follow, give the target a partition for each one that the source gets
    #[arg(long, requires = "follow", help_heading = heading::FOLLOW)]
    pub create_partitions: bool,
    /// Follow even if this principal cannot see whether another run copies the target back to the source
    ///
    /// Two runs that follow each other would copy each record round and round.
    #[arg(long, requires = "follow", help_heading = heading::FOLLOW)]
    pub allow_unchecked_loop: bool,
    /// Share the partitions with other instances of the same command, on any machine
    ///
    /// Each instance ends when all partitions are done. With --follow, instances share them in any case.
    #[arg(long, help_heading = heading::SPEED)]
    pub scale_out: bool,
}

impl FollowArgs {
    /// The job with these options.
    ///
    /// # Errors
    /// [`Error::Usage`] if they contradict the others.
    pub fn of(&self, job: Job) -> Result<Job> {
        if !self.scale_out && !self.follow {
            return Ok(job);
        }
        let (flag, rules) = (if self.follow { "--follow" } else { "--scale-out" }, &job.selection.rules);
        if !matches!(rules.identity, Identity::Key | Identity::KeyAndValue | Identity::Record) {
            return Err(Error::usage(format!(
                "{flag} needs --identity key, key+value or record: with another one, an instance cannot know what the \
                 others write"
            )));
        }
        if rules.target_scan == TargetScan::All || job.limit.is_some() {
            return Err(Error::usage(format!("{flag} cannot be used with --target-scan all or --limit")));
        }
        if self.follow && job.selection.window.has_end() {
            return Err(Error::usage(
                "--follow goes on for good, so --window must have no end, as in --window 2021-04-14T11:00Z/",
            ));
        }
        if self.follow && job.selection.window.needs_date() && job.selection.date.is_none() {
            return Err(Error::usage(
                "--follow needs a start with a date, because it may need its window again in days to come: write \
                 --window 2021-04-14T11:00Z/, or add --date 2021-04-14",
            ));
        }
        let follow = self.follow.then_some(Follow {
            commit_interval: self.commit_interval,
            create_partitions: self.create_partitions,
            allow_unchecked_loop: self.allow_unchecked_loop,
        });
        Ok(Job { scale_out: true, follow, ..job })
    }
}

/// Less than the time that a transaction may be open.
const LONGEST_INTERVAL: Duration = Duration::from_secs(10);

/// Shorter, a record would have a transaction of its own, and each commit takes longer than that.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(5);

fn parse_interval(text: &str) -> std::result::Result<Duration, String> {
    let interval = parse_duration(text)?;
    if interval > LONGEST_INTERVAL {
        return Err(format!("a run commits at least every {} s", LONGEST_INTERVAL.as_secs()));
    }
    if interval < SHORTEST_INTERVAL {
        return Err(format!("a run commits every {} ms at most", SHORTEST_INTERVAL.as_millis()));
    }
    Ok(interval)
}
