//! Two topics, a window, and how records are told apart.

use std::net::SocketAddr;
use std::time::Duration;

use chrono::NaiveDate;
use clap::Args;
use clap::builder::TypedValueParser;

use super::common::Common;
use crate::base::error::{Error, Result};
use crate::base::json::Pointer;
use crate::base::time::parse_date;
use crate::job::event_time::EventTime;
use crate::job::identity::Identity;
use crate::job::window::WindowSpec;
use crate::job::{OnConflict, Rules, Selection, TargetScan};

/// Two topics, and what their records are compared by.
#[derive(Clone, Debug, Args)]
pub struct TopicsArgs {
    /// The topic that has the records
    #[arg(long, default_value = "topicA", value_name = "TOPIC")]
    pub source: String,
    /// The topic with the gap
    #[arg(long, default_value = "topicB", value_name = "TOPIC")]
    pub target: String,
    /// Take the event time from this field of the JSON value, not from the record's timestamp
    #[arg(long, value_name = "POINTER")]
    pub time_field: Option<Pointer>,
    /// What makes two records the same one: key, key+value, value or field:/pointer; or record, which counts equal
    /// records (key, value, headers and timestamp), and fits where keys are user or device ids
    #[arg(long, default_value = "key")]
    pub identity: Identity,
    /// What to do where one identity has two contents
    #[arg(long, value_enum, default_value = "fail")]
    pub on_conflict: OnConflict,
    /// Leave out records without identity or event time, and count them
    #[arg(long)]
    pub skip_invalid: bool,
    /// Which records of the target are compared
    #[arg(long, value_enum, default_value = "window")]
    pub target_scan: TargetScan,
    /// MiB that the index of identities may take (20 to 60 bytes each)
    #[arg(long, default_value = "1024", value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    pub index_memory: u32,
    /// Seconds to wait without progress, as on another producer's open transaction
    #[arg(long, default_value = "90", value_name = "SECONDS", value_parser = patience())]
    pub patience: u64,
}

impl TopicsArgs {
    pub fn selection(
        &self,
        common: &Common,
        window: WindowSpec,
        date: Option<NaiveDate>,
    ) -> Result<Selection> {
        match (window, date) {
            (WindowSpec::Instants(_), Some(_)) => {
                return Err(Error::usage(
                    "--date goes with a window in times of day; this one has its dates",
                ));
            }
            (window, Some(date)) => drop(window.on(date).map_err(Error::usage)?),
            (_, None) => {}
        }
        Ok(Selection {
            properties: common.properties()?,
            source: self.source.clone(),
            target: self.target.clone(),
            window,
            date,
            event_time: self.time_field.clone().map_or(EventTime::Timestamp, EventTime::Field),
            rules: Rules {
                identity: self.identity.clone(),
                on_conflict: self.on_conflict,
                skip_invalid: self.skip_invalid,
                target_scan: self.target_scan,
            },
            index_memory: (self.index_memory as usize) << 20,
            patience: Duration::from_secs(self.patience),
        })
    }
}

/// Which records of which topics.
#[derive(Clone, Debug, Args)]
pub struct SelectionArgs {
    #[command(flatten)]
    pub topics: TopicsArgs,
    /// The gap, half-open and in UTC: 11:00-13:00, 11:00-, -13:00 or 2021-04-14T11:00Z/2021-04-14T13:00Z
    #[arg(long, required = true, value_name = "WINDOW", allow_hyphen_values = true)]
    pub window: Option<WindowSpec>,
    /// The day of a window in times of day; by default the one that the source's first and last records are of
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = parse_date)]
    pub date: Option<NaiveDate>,
}

impl SelectionArgs {
    pub fn selection(&self, common: &Common) -> Result<Selection> {
        let window =
            self.window.ok_or_else(|| Error::usage("--window is missing, as in --window 11:00-13:00"))?;
        self.topics.selection(common, window, self.date)
    }
}

/// With no patience at all, the first wait of a few milliseconds would end a run. Who would wait for ever says a week.
pub(super) fn patience() -> impl TypedValueParser<Value = u64> {
    clap::value_parser!(u64).range(1..=604_800)
}

pub(super) fn parse_address(text: &str) -> std::result::Result<SocketAddr, String> {
    text.parse().map_err(|_| "not an address and a port; write 127.0.0.1:8080".to_owned())
}
