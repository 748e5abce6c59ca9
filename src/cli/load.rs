//! `load` and `generate`: files of events.

use std::path::PathBuf;

use chrono::NaiveDate;
use clap::Args;

use super::common::ConnectionArgs;
use super::heading;
use super::metrics::MetricsArgs;
use super::topics::parse_fixed;
use crate::base::error::Result;
use crate::base::interrupt::Interrupt;
use crate::base::json::Pointer;
use crate::base::time::parse_date;
use crate::generate::Generating;
use crate::job::window::WindowSpec;
use crate::kafka::properties::Properties;
use crate::load::{Given, Loading};

#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// A file of JSON Lines or of one JSON array, plain or gzipped
    pub file: PathBuf,
    /// Load into this topic; create it if it does not exist
    #[arg(long, help_heading = heading::TOPICS)]
    pub topic: String,
    /// Create a missing topic with N partitions
    #[arg(
        long,
        default_value = "1",
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..),
        help_heading = heading::TOPICS
    )]
    pub partitions: u16,
    /// Leave out the events of this window, in UTC, as in 11:00-13:00
    #[arg(
        long,
        value_name = "WINDOW",
        value_parser = parse_fixed,
        allow_hyphen_values = true,
        help_heading = heading::WINDOW
    )]
    pub except: Option<WindowSpec>,
    /// The day of --except; by default the day of the events, if all are of one day
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = parse_date, help_heading = heading::WINDOW)]
    pub date: Option<NaiveDate>,
    #[command(flatten)]
    pub fields: FieldArgs,
    /// Leave out lines that are not events, and count them
    #[arg(long, help_heading = heading::SAFETY)]
    pub skip_invalid: bool,
    #[command(flatten)]
    pub metrics: MetricsArgs,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

impl LoadArgs {
    /// # Errors
    /// [`Error::Usage`](crate::base::error::Error::Usage) names the refused property.
    pub fn properties(&self, interrupt: &Interrupt) -> Result<Properties> {
        self.connection.properties(interrupt)
    }

    pub fn loading(&self) -> Loading {
        Loading {
            file: self.file.clone(),
            topic: self.topic.clone(),
            given: self.fields.given(),
            partitions: self.partitions,
            except: self.except,
            date: self.date,
            skip_invalid: self.skip_invalid,
        }
    }
}

/// The fields of an event's key and time.
#[derive(Clone, Debug, Args)]
pub struct FieldArgs {
    /// Make this field the record's timestamp, as in /event/time; guessed if one field is clearly the time
    #[arg(long, value_name = "POINTER", help_heading = heading::WINDOW)]
    pub time_field: Option<Pointer>,
    /// Make this field the record's key, as in /id; guessed if one field is clearly the key
    #[arg(long, value_name = "POINTER", help_heading = heading::IDENTITY)]
    pub key_field: Option<Pointer>,
}

impl FieldArgs {
    pub fn given(&self) -> Given {
        Given { key_field: self.key_field.clone(), time_field: self.time_field.clone() }
    }
}

#[derive(Clone, Debug, Args)]
pub struct GenerateArgs {
    /// Write to this file, gzipped if its name ends in .gz
    #[arg(long, value_name = "FILE", help_heading = heading::OUTPUT)]
    pub out: PathBuf,
    /// Generate this many events
    #[arg(long, default_value = "30000", value_name = "N", help_heading = heading::OUTPUT)]
    pub records: u64,
    /// Seed of the random numbers; the same seed gives the same bytes
    #[arg(long, default_value = "1", help_heading = heading::OUTPUT)]
    pub seed: u64,
}

impl GenerateArgs {
    pub fn generating(&self) -> Generating {
        Generating { records: self.records, seed: self.seed, out: self.out.clone() }
    }
}
