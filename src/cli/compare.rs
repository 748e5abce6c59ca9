//! `gaps`, `verify` and `lag`.

use std::time::Duration;

use chrono::NaiveDate;
use clap::Args;

use super::common::Common;
use super::heading;
use super::metrics::MetricsArgs;
use super::topics::{ClustersArgs, NamesArgs, SelectionArgs, TopicsArgs};
use crate::base::error::Result;
use crate::base::time::parse_date;
use crate::compare::verify::Comparison;
use crate::job::event_time::EventTime;
use crate::job::identity::Identity;
use crate::job::window::{Window, WindowSpec};
use crate::job::{INDEX_MEMORY, Rules, Selection};

const EVERYWHERE: WindowSpec = WindowSpec::Instants(Window { start: None, end: None });

#[derive(Clone, Debug, Args)]
pub struct GapsArgs {
    #[command(flatten)]
    topics: TopicsArgs,
    /// Look only in this window, in UTC, as in 11:00-13:00; by default everywhere
    ///
    /// The end is exclusive. Other forms: 11:00-, -13:00 and 2021-04-14T11:00Z/2021-04-14T13:00Z.
    #[arg(long, value_name = "WINDOW", allow_hyphen_values = true, help_heading = heading::WINDOW)]
    window: Option<WindowSpec>,
    /// The day of the window, if --window gives only times of day
    ///
    /// By default it is the day of the source's first and last records, if both are of one day.
    #[arg(
        long,
        value_name = "YYYY-MM-DD",
        value_parser = parse_date,
        requires = "window",
        help_heading = heading::WINDOW
    )]
    date: Option<NaiveDate>,
    /// Report missing records as one gap if they are closer together than this
    #[arg(
        long,
        default_value = "1m",
        value_parser = humantime::parse_duration,
        value_name = "DURATION",
        help_heading = heading::WINDOW
    )]
    pub bucket: Duration,
    #[command(flatten)]
    pub metrics: MetricsArgs,
}

impl GapsArgs {
    /// # Errors
    /// [`Error::Usage`](crate::base::error::Error::Usage) if the options contradict each other.
    pub fn selection(&self, common: &Common) -> Result<Selection> {
        self.topics.selection(common, self.window.unwrap_or(EVERYWHERE), self.date)
    }
}

#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// Count a different order or partition as a difference too
    #[arg(long, help_heading = heading::IDENTITY)]
    pub strict_order: bool,
    #[command(flatten)]
    pub metrics: MetricsArgs,
}

impl VerifyArgs {
    /// # Errors
    /// [`Error::Usage`](crate::base::error::Error::Usage) if the options contradict each other.
    pub fn comparison(&self, common: &Common) -> Result<Comparison> {
        Ok(Comparison { selection: self.selection.selection(common)?, strict_order: self.strict_order })
    }
}

#[derive(Clone, Debug, Args)]
pub struct LagArgs {
    #[command(flatten)]
    names: NamesArgs,
    #[command(flatten)]
    clusters: ClustersArgs,
    /// Exit with code 4 if more offsets than this are left, of all partitions together
    #[arg(long, value_name = "N", help_heading = heading::SAFETY)]
    pub max_lag: Option<u64>,
}

impl LagArgs {
    /// The topics and their clusters. The rest does not matter.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::base::error::Error::Usage) if the options contradict each other.
    pub fn selection(&self, common: &Common) -> Result<Selection> {
        Ok(Selection {
            properties: self.clusters.properties(common)?,
            source: self.names.source.clone(),
            target: self.names.target.clone(),
            window: EVERYWHERE,
            date: None,
            event_time: EventTime::Timestamp,
            rules: Rules::by(Identity::Key),
            index_memory: INDEX_MEMORY,
            patience: Duration::from_secs(90),
        })
    }
}
