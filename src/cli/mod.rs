//! The command line, which clap parses.

pub(crate) mod answer;
pub(crate) mod common;
mod compare;
mod fill;
mod heading;
#[cfg(feature = "lab")]
mod lab;
mod load;
mod metrics;
mod sink;
mod topics;

use clap::{Parser, Subcommand};

use self::common::Common;
use self::compare::{GapsArgs, LagArgs, VerifyArgs};
pub use self::fill::FillArgs;
use self::fill::FollowArgs;
#[cfg(feature = "lab")]
use self::lab::{DemoArgs, DrillArgs};
use self::load::{GenerateArgs, LoadArgs};
use self::sink::{DashboardArgs, SinkArgs};
use crate::base::error::Result;
use crate::job::Job;

/// Fills a time-window gap in one Kafka topic from another, exactly once, however often it runs.
#[derive(Debug, Parser)]
#[command(version, about, subcommand_negates_reqs = true, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    pub fill: FillArgs,
    #[command(flatten)]
    pub follow: FollowArgs,
    // Flattened last, so that its options come after the others.
    #[command(flatten)]
    pub common: Common,
    /// Also keep the receipt in this store, for the dashboard
    #[arg(
        long,
        env = "REPLICATOR_STORE",
        hide_env_values = true,
        value_name = "URL",
        help_heading = heading::OUTPUT,
        display_order = heading::LATE
    )]
    pub store: Option<String>,
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Cli {
    /// The main job.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::base::error::Error::Usage) if the options contradict each other.
    pub fn job(&self) -> Result<Job> {
        self.follow.of(self.fill.job(&self.common)?)
    }
}

const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  failed; it is safe to run again
    2  the command line is wrong
    3  refused, before anything was written
    4  verify found a difference, or lag more than --max-lag
    5  another run took over
  130  interrupted; the open transaction was aborted";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what a fill would do; it writes nothing and disturbs no running fill
    Plan(FillArgs),
    /// Find out when the target lacks records that the source has
    Gaps(GapsArgs),
    /// Compare every record of the window in both topics
    Verify(VerifyArgs),
    /// Show how far a run with --follow is behind its source
    Lag(LagArgs),
    /// Load a file of JSON events into a topic, each line exactly once
    Load(LoadArgs),
    /// Generate a file of events, as of an interactive music-video service
    Generate(GenerateArgs),
    /// Copy topics into a database, each record once, to query and to look at
    Sink(SinkArgs),
    /// Serve a web page that shows both topics, what is missing, and the last runs
    Dashboard(DashboardArgs),
    /// Start a broker and show everything on it: load, break, plan, fill, verify, fill again
    #[cfg(feature = "lab")]
    Demo(DemoArgs),
    /// Start a cluster, kill runs and brokers, and compare every record afterwards
    #[cfg(feature = "lab")]
    Drill(DrillArgs),
    /// Print the completions for a shell
    #[command(hide = true)]
    Completions { shell: clap_complete::Shell },
    /// Print the manual page of the program, or of a sub-command, as roff
    #[command(hide = true)]
    Man { command: Option<String> },
}
