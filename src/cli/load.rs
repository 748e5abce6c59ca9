//! `load` and `generate`: files of events.

use std::path::PathBuf;

use chrono::NaiveDate;
use clap::Args;

use crate::base::json::Pointer;
use crate::base::time::parse_date;
use crate::generate::Generating;
use crate::job::window::WindowSpec;
use crate::load::{Given, Loading};

#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// JSON Lines or one JSON array, plain or gzipped
    pub file: PathBuf,
    /// The topic; made where it is missing
    #[arg(long)]
    pub topic: String,
    #[command(flatten)]
    pub fields: FieldArgs,
    /// Partitions of a topic that is made
    #[arg(long, default_value = "1", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub partitions: u16,
    /// Leave out the events of this window
    #[arg(long, value_name = "WINDOW", allow_hyphen_values = true)]
    pub except: Option<WindowSpec>,
    /// The day of --except; by default the one day that the file's events are of
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = parse_date)]
    pub date: Option<NaiveDate>,
    /// Leave out lines that are no event, and count them
    #[arg(long)]
    pub skip_invalid: bool,
}

impl LoadArgs {
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

/// Where an event's key and time are.
#[derive(Clone, Debug, Args)]
pub struct FieldArgs {
    /// The field that becomes the record's key; guessed where one is plain
    #[arg(long, value_name = "POINTER")]
    pub key_field: Option<Pointer>,
    /// The field that becomes the record's timestamp; guessed where one is plain
    #[arg(long, value_name = "POINTER")]
    pub time_field: Option<Pointer>,
}

impl FieldArgs {
    pub fn given(&self) -> Given {
        Given { key_field: self.key_field.clone(), time_field: self.time_field.clone() }
    }
}

#[derive(Clone, Debug, Args)]
pub struct GenerateArgs {
    #[arg(long, default_value = "30000", value_name = "N")]
    pub records: u64,
    /// The same seed gives the same bytes
    #[arg(long, default_value = "1")]
    pub seed: u64,
    /// Gzipped where it ends in .gz
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

impl GenerateArgs {
    pub fn generating(&self) -> Generating {
        Generating { records: self.records, seed: self.seed, out: self.out.clone() }
    }
}
