//! `gaps` and `verify`.

use std::time::Duration;

use chrono::NaiveDate;
use clap::Args;

use super::common::Common;
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
    /// Where to look, as the fill takes it; by default in all of both topics
    #[arg(long, value_name = "WINDOW", allow_hyphen_values = true)]
    window: Option<WindowSpec>,
    /// The day of a window in times of day; by default the one that the source's first and last records are of
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = parse_date, requires = "window")]
    date: Option<NaiveDate>,
    /// Missing records that are closer together than this are one hole
    #[arg(long, default_value = "1m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub bucket: Duration,
}

impl GapsArgs {
    /// # Errors
    /// [`Error::Usage`] where the options contradict each other.
    pub fn selection(&self, common: &Common) -> Result<Selection> {
        let everywhere = WindowSpec::Instants(Window { start: None, end: None });
        self.topics.selection(common, self.window.unwrap_or(everywhere), self.date)
    }
}

#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// Another order or partition than the source's is a difference too
    #[arg(long)]
    pub strict_order: bool,
}

impl VerifyArgs {
    /// # Errors
    /// [`Error::Usage`] where the options contradict each other.
    pub fn comparison(&self, common: &Common) -> Result<Comparison> {
        Ok(Comparison { selection: self.selection.selection(common)?, strict_order: self.strict_order })
    }
}
