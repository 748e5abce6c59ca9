//! The command line, as clap sees it.

pub(crate) mod answer;
pub(crate) mod common;
mod compare;
mod fill;
#[cfg(feature = "lab")]
mod lab;
mod load;
mod sink;
mod topics;

use clap::{Parser, Subcommand};

use self::common::Common;
use self::compare::{GapsArgs, VerifyArgs};
pub use self::fill::FillArgs;
#[cfg(feature = "lab")]
use self::lab::{DemoArgs, DrillArgs};
use self::load::{GenerateArgs, LoadArgs};
use self::sink::{DashboardArgs, SinkArgs};
use crate::base::error::{Error, Result};
use crate::job::identity::Identity;
use crate::job::{Job, TargetScan};

/// Fills a time-window gap in one Kafka topic from another, exactly once, however often it runs.
#[derive(Debug, Parser)]
#[command(version, about, subcommand_negates_reqs = true, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub fill: FillArgs,
    /// Keep the receipt in this store too, for the dashboard
    #[arg(long, env = "REPLICATOR_STORE", hide_env_values = true, value_name = "URL")]
    pub store: Option<String>,
    /// Share the partitions with other instances of this very command, on any machines; each ends when all is done
    #[arg(long)]
    pub scale_out: bool,
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Cli {
    /// The main job.
    ///
    /// # Errors
    /// [`Error::Usage`] where the options contradict each other.
    pub fn job(&self) -> Result<Job> {
        let job = self.fill.job(&self.common)?;
        if !self.scale_out {
            return Ok(job);
        }
        if !matches!(job.selection.rules.identity, Identity::Key | Identity::KeyAndValue | Identity::Record) {
            return Err(Error::usage(
                "--scale-out goes with --identity key, key+value or record: of others, no instance could know what the \
                 others write",
            ));
        }
        if job.selection.rules.target_scan == TargetScan::All || job.limit.is_some() {
            return Err(Error::usage("--scale-out goes without --target-scan all and --limit"));
        }
        Ok(Job { scale_out: true, ..job })
    }
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 failed, safe to run again; 2 usage; 3 refused before anything was written;
4 verify found a difference; 5 another run took over; 130 interrupted, the transaction was aborted.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what a fill would do; writes nothing and disturbs no running fill
    Plan(FillArgs),
    /// Find the holes: when does the target lack records that the source has?
    Gaps(GapsArgs),
    /// Compare every record of the window in both topics
    Verify(VerifyArgs),
    /// Load a file of JSON events into a topic, each line exactly once
    Load(LoadArgs),
    /// Make a file of events of an interactive music-video service
    Generate(GenerateArgs),
    /// Keep topics in a database, each record once, to be queried and looked at
    Sink(SinkArgs),
    /// Serve a page that shows what the store holds: both topics, what is missing, the last runs
    Dashboard(DashboardArgs),
    /// Show it all on a broker started for it: load, break, plan, fill, verify, fill again
    #[cfg(feature = "lab")]
    Demo(DemoArgs),
    /// Kill runs and brokers on a cluster started for it, and compare every record afterwards
    #[cfg(feature = "lab")]
    Drill(DrillArgs),
    /// Print the completions of a shell
    #[command(hide = true)]
    Completions { shell: clap_complete::Shell },
    /// Print the manual's page of the program, or of a sub-command, as roff
    #[command(hide = true)]
    Man { command: Option<String> },
}
