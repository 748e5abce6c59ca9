//! Two topics, a window, and how their records are compared.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use chrono::NaiveDate;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::again::again;
use super::common::{ConnectionArgs, PatienceArgs};
use super::heading;
use crate::base::error::{Error, Result};
use crate::base::interrupt::Interrupt;
use crate::base::json::Pointer;
use crate::base::time::{parse_date, parse_duration};
use crate::base::zone::{Tz, parse_zone};
use crate::job::event_time::EventTime;
use crate::job::identity::Identity;
use crate::job::schema::Schemas;
use crate::job::typed::TypedWindow;
use crate::job::window::{Window, WindowSpec};
use crate::job::{OnConflict, Rules, Selection, TargetScan};
use crate::kafka::given::{Given, GivenSide};
use crate::kafka::profile::Profile;
use crate::kafka::properties::Properties;
use crate::kafka::sides::{Side, Sides};

/// No window.
pub(super) const EVERYWHERE: WindowSpec = WindowSpec::Instants(Window { start: None, end: None });

/// The names of two topics.
#[derive(Clone, Debug, Args)]
pub struct NamesArgs {
    /// The topic that has the records [default: topicA]
    #[arg(long, value_name = "TOPIC", help_heading = heading::TOPICS)]
    source: Option<String>,
    /// The topic with the gap [default: topicB]
    #[arg(long, value_name = "TOPIC", help_heading = heading::TOPICS)]
    target: Option<String>,
}

impl NamesArgs {
    /// The names that are given, or those of the profile, or the usual ones.
    pub(super) fn of(&self, profile: Option<&Profile>) -> Sides<String> {
        let name = |given: &Option<String>, side: Side, usual: &str| {
            let given = given.as_deref().or_else(|| profile?.topics.of(side).as_deref());
            given.unwrap_or(usual).to_owned()
        };
        Sides {
            source: name(&self.source, Side::Source, "topicA"),
            target: name(&self.target, Side::Target, "topicB"),
        }
    }
}

/// Two topics, and how their records are compared.
#[derive(Clone, Debug, Args)]
pub struct TopicsArgs {
    #[command(flatten)]
    pub names: NamesArgs,
    /// The time zone of times of day, of days, and of the chart of `gaps`, as in Europe/Berlin
    #[arg(
        long,
        default_value = "UTC",
        value_name = "ZONE",
        value_parser = parse_zone,
        help_heading = heading::WINDOW,
        display_order = heading::LATE
    )]
    pub tz: Tz,
    /// Take the event time from this field of the value, as in /event/time
    ///
    /// By default the event time is the record's timestamp.
    #[arg(long, value_name = "POINTER", help_heading = heading::WINDOW, display_order = heading::LATE)]
    pub time_field: Option<Pointer>,
    /// Stop reading the source behind the window: no record is older than an earlier one by more than this, as in 10m
    ///
    /// Without it, each partition is read to its end, since a record of the window may stand anywhere. With it, a
    /// partition is left after 10,000 records in a row that are later than the window's end by this much. Records more
    /// than an hour in the future do not count. If a record breaks the promise, the command ends with an error, but it
    /// cannot see what it does not read. Each partition counts by itself.
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = parse_duration,
        help_heading = heading::WINDOW,
        display_order = heading::LATE
    )]
    pub max_out_of_orderness: Option<Duration>,
    /// Identify records by key, key+value, value, field:/pointer or record
    ///
    /// Records with the same identity count as the same record. Use `record` if keys are user or device ids: it counts
    /// equal records, with the same key, value, headers and timestamp.
    #[arg(long, default_value = "key", help_heading = heading::IDENTITY)]
    pub identity: Identity,
    /// How to handle records with the same identity but different contents
    #[arg(long, value_enum, default_value = "fail", help_heading = heading::IDENTITY)]
    pub on_conflict: OnConflict,
    /// Compare these records of the target
    #[arg(long, value_enum, default_value = "window", help_heading = heading::IDENTITY)]
    pub target_scan: TargetScan,
    #[command(flatten)]
    pub schemas: SchemaArgs,
    #[command(flatten)]
    pub clusters: ClustersArgs,
    /// Leave out records without an identity or an event time, and count them
    #[arg(long, help_heading = heading::SAFETY)]
    pub skip_invalid: bool,
    #[command(flatten)]
    pub patience: PatienceArgs,
    /// Memory for the index of identities, in MiB
    ///
    /// A fill takes 20 to 60 bytes for each record of the window. gaps and verify read topics more than once that do not
    /// fit.
    #[arg(
        long,
        default_value = "1024",
        value_name = "MIB",
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = heading::SPEED
    )]
    pub index_memory: u32,
}

impl TopicsArgs {
    /// The selection of these topics. Without a window, it is all of their records.
    pub fn selection(
        &self,
        typed: Option<&TypedWindow>,
        date: Option<NaiveDate>,
        interrupt: &Interrupt,
    ) -> Result<Selection> {
        // A moving window is resolved here, once, so that a run that starts up again keeps it.
        let now = chrono::Utc::now().timestamp_millis();
        let window = match typed {
            Some(typed) => typed.at(now, self.tz).map_err(Error::usage)?,
            None => EVERYWHERE,
        };
        match (window, date) {
            (WindowSpec::Instants(_), Some(_)) => {
                return Err(Error::usage(
                    "--date is for a window in times of day; this window has its own dates",
                ));
            }
            (window, Some(date)) => drop(window.on(date, self.tz).map_err(Error::usage)?),
            (_, None) => {}
        }
        if self.max_out_of_orderness.is_some() && !window.has_end() {
            return Err(Error::usage(
                "--max-out-of-orderness ends the reading of the source behind the window, so --window needs an end",
            ));
        }
        if let Some(day) = typed.and_then(TypedWindow::excluded_day) {
            tracing::info!("the window ends where {day} begins, so nothing of that day is in it");
        }
        let profile = self.clusters.connection.profile(interrupt)?;
        let Sides { source, target } = self.names.of(profile.as_ref());
        let properties = self.clusters.properties(profile.as_ref())?;
        let schemas = self.schemas.schemas()?;
        // Only now is it known that nothing on the command line is refused as a secret.
        if let Some(typed) = typed.filter(|typed| typed.is_relative()) {
            tracing::info!(
                "the window {typed} moves, so the same command takes another window later; this one takes exactly this \
                 window again:\n  {}",
                again(std::env::args_os().map(|word| word.to_string_lossy().into_owned()), &window)
            );
        }
        Ok(Selection {
            properties,
            source,
            target,
            window,
            date,
            zone: self.tz,
            event_time: self.time_field.clone().map_or(EventTime::Timestamp, EventTime::Field),
            schemas,
            rules: Rules {
                identity: self.identity.clone(),
                on_conflict: self.on_conflict,
                skip_invalid: self.skip_invalid,
                target_scan: self.target_scan,
            },
            index_memory: (self.index_memory as usize) << 20,
            patience: self.patience.patience,
            max_out_of_orderness: self.max_out_of_orderness,
        })
    }
}

/// How fields of values are read.
#[derive(Clone, Debug, Args)]
pub struct SchemaArgs {
    /// Read fields of Avro, Protobuf and JSON Schema values by this Schema Registry
    ///
    /// It is for values in Confluent's wire format, which name a schema by its id. Give a URL with a password in the
    /// environment, not as a flag; https://HOST:PORT?ca=FILE names the authority of its certificate. Copies have the bytes
    /// of their originals, so both clusters need one registry, or two with the same ids.
    #[arg(
        long,
        env = "REPLICATOR_SCHEMA_REGISTRY",
        hide_env_values = true,
        value_name = "URL",
        value_parser = NonEmptyStringValueParser::new(),
        help_heading = heading::IDENTITY
    )]
    schema_registry: Option<String>,
}

impl SchemaArgs {
    /// # Errors
    /// As [`Schemas::at`].
    pub(super) fn schemas(&self) -> Result<Schemas> {
        self.schema_registry.as_deref().map_or(Ok(Schemas::default()), Schemas::at)
    }
}

/// The cluster of the topics, or both.
#[derive(Clone, Debug, Args)]
pub struct ClustersArgs {
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
    /// Connect to these brokers for the source, if the topics are in two clusters
    ///
    /// Give --target-bootstrap-server too, and no --bootstrap-server. By default, the environment variables
    /// KAFKA_SOURCE_BOOTSTRAP_SERVERS and KAFKA_TARGET_BOOTSTRAP_SERVERS name two clusters, or bootstrap.servers in the
    /// files of --source-command-config and --target-command-config.
    #[arg(
        long,
        value_name = "HOSTS",
        value_parser = NonEmptyStringValueParser::new(),
        help_heading = heading::CONNECTION
    )]
    source_bootstrap_server: Option<String>,
    /// Connect to these brokers for the target, if the topics are in two clusters
    #[arg(
        long,
        value_name = "HOSTS",
        value_parser = NonEmptyStringValueParser::new(),
        help_heading = heading::CONNECTION
    )]
    target_bootstrap_server: Option<String>,
    /// Read client properties for the source cluster from this file
    #[arg(long, value_name = "FILE", help_heading = heading::CONNECTION)]
    source_command_config: Option<PathBuf>,
    /// Read client properties for the target cluster from this file
    #[arg(long, value_name = "FILE", help_heading = heading::CONNECTION)]
    target_command_config: Option<PathBuf>,
    /// The only side that the command reads.
    #[arg(skip)]
    pub(super) only: Option<Side>,
}

impl ClustersArgs {
    pub(super) fn properties(&self, profile: Option<&Profile>) -> Result<Sides<Properties>> {
        let given = Given {
            profile,
            source: GivenSide {
                bootstrap: self.source_bootstrap_server.as_deref(),
                file: self.source_command_config.as_deref(),
            },
            target: GivenSide {
                bootstrap: self.target_bootstrap_server.as_deref(),
                file: self.target_command_config.as_deref(),
            },
            only: self.only,
            ..self.connection.given()
        };
        given.sides(std::env::vars_os())
    }
}

/// Two topics and a window.
#[derive(Clone, Debug, Args)]
pub struct SelectionArgs {
    #[command(flatten)]
    pub topics: TopicsArgs,
    /// The time window of the gap, as in 11:00-13:00
    ///
    /// The end is exclusive. Other forms: 11-13, 11:00-, -13:00, 2021-04-14 for the whole day, 2021-04-14/2021-04-16
    /// for two days, 2h for the last two hours, -2h..-1h, 2021-04-14T11:00Z..now, and
    /// 2021-04-14T11:00Z/2021-04-14T13:00Z. Times are in UTC, unless --tz names another zone.
    #[arg(
        long,
        required = true,
        value_name = "WINDOW",
        allow_hyphen_values = true,
        help_heading = heading::WINDOW
    )]
    pub window: Option<TypedWindow>,
    /// The day of the window, if --window gives only times of day
    ///
    /// By default it is the day of the source's first and last records, if both are of one day.
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = parse_date, help_heading = heading::WINDOW)]
    pub date: Option<NaiveDate>,
}

impl SelectionArgs {
    pub fn selection(&self, interrupt: &Interrupt) -> Result<Selection> {
        let window = self
            .window
            .as_ref()
            .ok_or_else(|| Error::usage("--window is missing, as in --window 11:00-13:00"))?;
        self.topics.selection(Some(window), self.date, interrupt)
    }
}

/// Reads a window that does not move.
pub(super) fn parse_fixed(text: &str) -> std::result::Result<WindowSpec, String> {
    let typed: TypedWindow = text.parse()?;
    if typed.is_relative() {
        return Err("this window must stay the same whenever the command is run; give instants".to_owned());
    }
    typed.at(0, Tz::UTC)
}

pub(super) fn parse_address(text: &str) -> std::result::Result<SocketAddr, String> {
    text.parse().map_err(|_| "not an address and a port; write it as 127.0.0.1:8080".to_owned())
}
