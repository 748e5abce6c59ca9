//! `gaps`, `verify` and `lag`.

use std::path::PathBuf;
use std::time::Duration;

use chrono::NaiveDate;
use clap::Args;

use super::heading;
use super::metrics::{MetricsArgs, MetricsFileArgs};
use super::topics::{ClustersArgs, EVERYWHERE, NamesArgs, SelectionArgs, TopicsArgs};
use crate::base::error::Result;
use crate::base::interrupt::Interrupt;
use crate::base::time::{parse_date, parse_duration};
use crate::base::zone::Tz;
use crate::compare::summary::Half;
use crate::compare::verify::Comparison;
use crate::job::event_time::EventTime;
use crate::job::identity::Identity;
use crate::job::schema::Schemas;
use crate::job::typed::TypedWindow;
use crate::job::{INDEX_MEMORY, Rules, Selection};
use crate::kafka::sides::{Side, Sides};

#[derive(Clone, Debug, Args)]
pub struct GapsArgs {
    #[command(flatten)]
    pub(super) topics: TopicsArgs,
    /// Look only in this window, as in 11:00-13:00; by default everywhere
    ///
    /// The end is exclusive. Other forms: 11-13, 11:00-, -13:00, 2021-04-14 for the whole day, 2021-04-14/2021-04-16
    /// for two days, 2h for the last two hours, -2h..-1h, 2021-04-14T11:00Z..now, and
    /// 2021-04-14T11:00Z/2021-04-14T13:00Z. Times are in UTC, unless --tz names another zone.
    #[arg(long, value_name = "WINDOW", allow_hyphen_values = true, help_heading = heading::WINDOW)]
    window: Option<TypedWindow>,
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
        value_parser = parse_duration,
        value_name = "DURATION",
        help_heading = heading::WINDOW
    )]
    pub bucket: Duration,
    #[command(flatten)]
    pub differences: DifferencesArgs,
    #[command(flatten)]
    pub metrics: MetricsArgs,
    /// Exit with code 4 if the target lacks records
    #[arg(long, help_heading = heading::OUTPUT, display_order = heading::LATE)]
    pub exit_code: bool,
}

impl GapsArgs {
    /// # Errors
    /// [`Error::Usage`](crate::base::error::Error::Usage) if the options contradict each other.
    pub fn selection(&self, interrupt: &Interrupt) -> Result<Selection> {
        self.topics.selection(self.window.as_ref(), self.date, interrupt)
    }
}

#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// Count a different order or partition as a difference too
    #[arg(long, help_heading = heading::IDENTITY)]
    pub strict_order: bool,
    /// Compare only the last record of each key, for topics that are compacted
    ///
    /// A key counts if its last record in the source lies in the window. A deletion need not be in the target.
    #[arg(long, conflicts_with_all = ["strict_order", "identity", "target_scan", "max_out_of_orderness"], help_heading = heading::IDENTITY)]
    latest_only: bool,
    #[command(flatten)]
    differences: DifferencesArgs,
    /// Write sums of the source's window to this new file, and read no target
    ///
    /// `verify --against FILE` compares a target with it, also on a machine that cannot reach the source, and after the
    /// source's records are gone. The file holds the key of its hash, so its mode is 0600: keep it secret.
    #[arg(long, value_name = "FILE", help_heading = heading::OUTPUT, display_order = heading::LATE)]
    summary: Option<PathBuf>,
    /// Compare the target with this file of --summary, and read no source
    ///
    /// The window and the event time are those of the file. Equal records are counted, as by --identity record. A
    /// difference goes unseen with odds of at most 2^-64, by chance and against anybody who cannot read the file. Who can
    /// read it can make another topic with the same sums.
    #[arg(long, value_name = "FILE", help_heading = heading::TOPICS)]
    against: Option<PathBuf>,
    #[command(flatten)]
    pub metrics: MetricsArgs,
}

#[derive(Clone, Debug, Args)]
pub struct DifferencesArgs {
    /// List each record that differs in this file, as JSON Lines
    #[arg(
        long = "differences",
        value_name = "FILE",
        help_heading = heading::OUTPUT,
        display_order = heading::LATE
    )]
    pub file: Option<PathBuf>,
}

impl VerifyArgs {
    /// The topic and the file, if only one topic is read.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::base::error::Error::Usage) if the options contradict each other.
    pub fn half(&self, interrupt: &Interrupt) -> Result<Option<Half>> {
        let (file, side) = match (&self.summary, &self.against) {
            (Some(file), _) => (file.clone(), Side::Source),
            (None, Some(file)) => (file.clone(), Side::Target),
            (None, None) => return Ok(None),
        };
        let mut given = self.selection.clone();
        given.topics.clusters.only = Some(side);
        let selection = match side {
            Side::Source => given.selection(interrupt)?,
            Side::Target => given.topics.selection(None, None, interrupt)?,
        };
        Ok(Some(Half { selection, file, side }))
    }

    /// # Errors
    /// [`Error::Usage`](crate::base::error::Error::Usage) if the options contradict each other.
    pub fn comparison(&self, interrupt: &Interrupt) -> Result<Comparison> {
        Ok(Comparison {
            selection: self.selection.selection(interrupt)?,
            strict_order: self.strict_order,
            list: self.differences.file.clone(),
            latest_only: self.latest_only,
        })
    }
}

#[derive(Clone, Debug, Args)]
pub struct LagArgs {
    #[command(flatten)]
    names: NamesArgs,
    #[command(flatten)]
    pub(super) clusters: ClustersArgs,
    /// Exit with code 4 if more offsets than this are left, of all partitions together
    #[arg(long, value_name = "N", help_heading = heading::SAFETY)]
    pub max_lag: Option<u64>,
    #[command(flatten)]
    pub metrics: MetricsFileArgs,
}

impl LagArgs {
    /// The topics and their clusters. The rest does not matter.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::base::error::Error::Usage) if the options contradict each other.
    pub fn selection(&self, interrupt: &Interrupt) -> Result<Selection> {
        let profile = self.clusters.connection.profile(interrupt)?;
        let Sides { source, target } = self.names.of(profile.as_ref());
        Ok(Selection {
            properties: self.clusters.properties(profile.as_ref())?,
            source,
            target,
            window: EVERYWHERE,
            date: None,
            zone: Tz::UTC,
            event_time: EventTime::Timestamp,
            schemas: Schemas::default(),
            rules: Rules::by(Identity::Key),
            index_memory: INDEX_MEMORY,
            patience: Duration::from_secs(90),
            max_out_of_orderness: None,
        })
    }
}
