//! The main job and its plan.

use std::net::SocketAddr;

use clap::Args;

use super::common::Common;
use super::heading;
use super::topics::{SelectionArgs, parse_address};
use crate::base::error::Result;
use crate::job::Job;
use crate::job::rate::MaxRate;
use crate::kafka::pace::TransactionLimits;

#[derive(Clone, Debug, Args)]
pub struct FillArgs {
    #[command(flatten)]
    pub selection: SelectionArgs,
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
    /// Write no faster than this: 5000/s for records, or 10MB/s for bytes
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
    /// Serve Prometheus metrics at this address during the run, as in 127.0.0.1:9090
    #[arg(
        long,
        value_name = "ADDRESS",
        value_parser = parse_address,
        help_heading = heading::OUTPUT,
        display_order = heading::LATE
    )]
    pub metrics_listen: Option<SocketAddr>,
}

impl FillArgs {
    /// # Errors
    /// [`Error::Usage`](crate::base::error::Error::Usage) if the options contradict each other.
    pub fn job(&self, common: &Common) -> Result<Job> {
        Ok(Job {
            selection: self.selection.selection(common)?,
            allow_compacted_target: self.allow_compacted_target,
            limits: TransactionLimits {
                records: self.transaction_records as usize,
                ..TransactionLimits::default()
            },
            max_rate: self.max_rate,
            limit: self.limit,
            scale_out: false,
        })
    }
}
