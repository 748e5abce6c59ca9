//! `gaps` and `verify`.

use std::time::Duration;

use chrono::NaiveDate;
use clap::Args;

use super::common::Common;
use super::heading;
use super::topics::{SelectionArgs, TopicsArgs};
use crate::base::error::Result;
use crate::base::time::parse_date;
use crate::compare::verify::Comparison;
use crate::job::Selection;
use crate::job::window::{Window, WindowSpec};

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
}

impl GapsArgs {
    /// # Errors
    /// [`Error::Usage`](crate::base::error::Error::Usage) if the options contradict each other.
    pub fn selection(&self, common: &Common) -> Result<Selection> {
        let everywhere = WindowSpec::Instants(Window { start: None, end: None });
        self.topics.selection(common, self.window.unwrap_or(everywhere), self.date)
    }
}

#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// Count a different order or partition as a difference too
    #[arg(long, help_heading = heading::IDENTITY)]
    pub strict_order: bool,
}

impl VerifyArgs {
    /// # Errors
    /// [`Error::Usage`](crate::base::error::Error::Usage) if the options contradict each other.
    pub fn comparison(&self, common: &Common) -> Result<Comparison> {
        Ok(Comparison { selection: self.selection.selection(common)?, strict_order: self.strict_order })
    }
}
