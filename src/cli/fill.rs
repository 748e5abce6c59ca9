//! The main job, and the plan of it.

use std::net::SocketAddr;

use clap::Args;

use super::common::Common;
use super::topics::{SelectionArgs, parse_address};
use crate::base::error::Result;
use crate::job::Job;
use crate::job::rate::MaxRate;
use crate::kafka::pace::TransactionLimits;

#[derive(Clone, Debug, Args)]
pub struct FillArgs {
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// Fill a target that is compacted
    #[arg(long)]
    pub allow_compacted_target: bool,
    /// Records in a transaction, at most; it also ends after a second, or 256 MiB
    #[arg(long, default_value = "1000000", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub transaction_records: u32,
    /// Write no faster than this: records as 5000/s, or bytes as 10MB/s
    #[arg(long, value_name = "RATE")]
    pub max_rate: Option<MaxRate>,
    /// Stop after N records, at a committed point (exit 0, `complete: false`); without it, a run goes on from there
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Answer Prometheus here while it runs, as 127.0.0.1:9090
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    pub metrics_listen: Option<SocketAddr>,
}

impl FillArgs {
    /// # Errors
    /// [`Error::Usage`] where the options contradict each other.
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
