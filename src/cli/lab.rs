//! `demo` and `drill`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::common::{Common, Output};
use super::heading;
use super::load::FieldArgs;
use crate::base::error::{Error, Result};
use crate::job::identity::Identity;
use crate::job::window::WindowSpec;
use crate::lab::demo::Showing;
use crate::lab::drill::Drilling;
use crate::lab::drill::schedule::Fault;

#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Use the events of this file; by default they are generated
    #[arg(long, value_name = "FILE", help_heading = heading::TOPICS)]
    pub data: Option<PathBuf>,
    /// Make the gap in this window, in UTC
    #[arg(
        long,
        default_value = "11:00-13:00",
        value_name = "WINDOW",
        allow_hyphen_values = true,
        help_heading = heading::WINDOW
    )]
    pub window: WindowSpec,
    #[command(flatten)]
    pub fields: FieldArgs,
    /// Identify records by key, key+value, value, field:/pointer or record
    ///
    /// Records with the same identity count as the same record. Use `record` if keys are user or device ids: it counts
    /// equal records, with the same key, value, headers and timestamp.
    #[arg(long, default_value = "key", help_heading = heading::IDENTITY)]
    pub identity: Identity,
    /// Start two clusters, and put each topic into one of its own
    #[arg(long, help_heading = heading::CONNECTION)]
    pub two_clusters: bool,
    /// Keep the broker running at the end, and print what to try on it
    #[arg(long, help_heading = heading::OUTPUT)]
    pub keep: bool,
    /// Open a browser with a page of both topics, and serve it until Ctrl-C
    #[arg(long, help_heading = heading::OUTPUT)]
    pub open: bool,
}

impl DemoArgs {
    /// # Errors
    /// [`Error::Usage`] names the refused property, or a cluster beside `--two-clusters`.
    pub fn showing(&self, common: &Common) -> Result<Showing> {
        if self.two_clusters && common.cluster().is_some() {
            return Err(Error::usage(
                "--two-clusters starts both clusters: leave out --bootstrap-server, or --two-clusters",
            ));
        }
        Ok(Showing {
            cluster: common.cluster().map(str::to_owned),
            two_clusters: self.two_clusters,
            properties: common.properties_of_own(self.two_clusters)?,
            data: self.data.clone(),
            given: self.fields.given(),
            window: self.window,
            identity: self.identity.clone(),
            keep: self.keep,
            open: self.open,
            on_stderr: common.output == Output::Json,
        })
    }
}

#[derive(Clone, Debug, Args)]
pub struct DrillArgs {
    /// Put this many records into the source
    #[arg(long, default_value = "10000", value_name = "N", help_heading = heading::TOPICS)]
    pub records: usize,
    /// Cause only these faults, separated by commas; by default all, in scenarios that take turns
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FAULTS", help_heading = heading::ROUNDS)]
    pub faults: Vec<Fault>,
    /// Drill --follow: runs copy what writers commit and abort in the source all the time
    #[arg(long, help_heading = heading::ROUNDS)]
    pub follow: bool,
    /// Seed of the first round; each next round takes the next number
    ///
    /// The same seed gives the same schedule.
    #[arg(long, default_value = "1", help_heading = heading::ROUNDS)]
    pub seed: u64,
    /// Begin new rounds for this long, as in 90s, 2m or 1h; at least one round is played
    #[arg(long, default_value = "2m", value_parser = humantime::parse_duration, help_heading = heading::ROUNDS)]
    pub duration: Duration,
    /// Use this many clusters: with 2, the source is in one and the target in the other
    #[arg(long, default_value = "1", value_parser = one_or("2", 2), help_heading = heading::CONNECTION)]
    pub clusters: usize,
    // This replaces the global option of the same name, whose alias `--brokers` means something else here.
    /// Drill on this cluster, without broker faults; by default a cluster is started
    #[arg(short, long, value_name = "HOSTS", help_heading = heading::CONNECTION)]
    bootstrap_server: Option<String>,
    /// Start a cluster of this many brokers
    ///
    /// With --clusters 2, the target's cluster has this many brokers, and the source's has one.
    #[arg(long, default_value = "3", value_parser = one_or("3", 3), help_heading = heading::CONNECTION)]
    pub brokers: usize,
}

impl DrillArgs {
    /// # Errors
    /// [`Error::Usage`] if client properties are given.
    pub fn drilling(&self, common: &Common) -> Result<Drilling> {
        if !common.property.is_empty() || common.command_config.is_some() {
            return Err(Error::usage(
                "a drill takes no client properties: leave out -X and -F, and name a plaintext cluster",
            ));
        }
        if self.clusters > 1 && common.cluster().is_some() {
            return Err(Error::usage(
                "--clusters 2 starts both clusters: leave out --bootstrap-server, or drill on the named cluster alone",
            ));
        }
        Ok(Drilling {
            cluster: common.cluster().map(str::to_owned),
            clusters: self.clusters,
            brokers: self.brokers,
            records: self.records,
            faults: self.faults.clone(),
            follow: self.follow,
            seed: self.seed,
            duration: self.duration,
            tells_rounds: common.output == Output::Text,
        })
    }
}

fn one_or(other: &'static str, number: usize) -> impl TypedValueParser<Value = usize> {
    PossibleValuesParser::new(["1", other]).map(move |given| if given == "1" { 1 } else { number })
}
