//! The options of every command.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::TypedValueParser;
use clap::{Args, ValueEnum};

use super::heading;
use crate::base::error::Result;
use crate::kafka::given::Given;
use crate::kafka::properties::Properties;
#[cfg(feature = "lab")]
use crate::kafka::{given::GivenSide, properties::DEFAULT_BOOTSTRAP, sides::Sides};

#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Print the result on stdout as text, or as one JSON object
    #[arg(short, long, value_enum, default_value = "text", global = true, help_heading = heading::OUTPUT)]
    pub output: Output,
    /// Show no progress, and only errors on stderr
    #[arg(short, long, global = true, help_heading = heading::OUTPUT)]
    pub quiet: bool,
    /// Log more on stderr; -vv adds librdkafka's own log
    #[arg(short, long, action = clap::ArgAction::Count, global = true, help_heading = heading::OUTPUT)]
    pub verbose: u8,
    /// Write the log on stderr as text, or as one JSON object a line
    #[arg(
        long,
        value_enum,
        default_value = "text",
        value_name = "FORMAT",
        global = true,
        help_heading = heading::OUTPUT
    )]
    pub log_format: Output,
    /// Connect to these brokers first, given as host:port and separated by commas
    ///
    /// By default, the environment variable KAFKA_BOOTSTRAP_SERVERS names the brokers. If it is not set,
    /// bootstrap.servers in the file of -F names them. Otherwise they are at localhost:9092. `demo` and `drill` start
    /// their own brokers.
    #[arg(
        short,
        long,
        global = true,
        visible_aliases = ["bootstrap-servers", "brokers"],
        value_name = "HOSTS",
        help_heading = heading::CONNECTION
    )]
    pub bootstrap_server: Option<String>,
    /// Set a client property of librdkafka; may be repeated
    #[arg(short = 'X', value_name = "KEY=VALUE", global = true, help_heading = heading::CONNECTION)]
    pub property: Vec<String>,
    /// Read client properties from this file
    ///
    /// The environment overrides the file, with REPLICATOR_SASL_PASSWORD for sasl.password, and -X overrides both. In a
    /// fill, plan, gaps or verify between two clusters, the prefix `source.` or `target.` makes a property one of that
    /// cluster alone, in all three.
    #[arg(short = 'F', long, value_name = "FILE", global = true, help_heading = heading::CONNECTION)]
    pub command_config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

impl Common {
    /// The cluster that the flag names. Commands that write their own topics do not take the environment's cluster,
    /// which is too easily the wrong one.
    pub fn cluster(&self) -> Option<&str> {
        self.bootstrap_server.as_deref().filter(|bootstrap| !bootstrap.trim().is_empty())
    }

    /// # Errors
    /// [`Error::Usage`](crate::base::error::Error::Usage) names the refused property.
    pub fn properties(&self) -> Result<Properties> {
        self.given().one(std::env::vars_os())
    }

    /// The properties for a cluster that the command starts itself, unless a flag names one; or for two clusters.
    ///
    /// # Errors
    /// As [`Common::properties`].
    #[cfg(feature = "lab")]
    pub(super) fn properties_of_own(&self, are_two: bool) -> Result<Sides<Properties>> {
        let given = if are_two {
            let own = GivenSide { bootstrap: Some(DEFAULT_BOOTSTRAP), file: None };
            Given { source: own, target: own, ..self.given() }
        } else {
            Given { bootstrap: Some(self.cluster().unwrap_or(DEFAULT_BOOTSTRAP)), ..self.given() }
        };
        given.sides(std::env::vars_os())
    }

    pub(super) fn given(&self) -> Given<'_> {
        Given {
            bootstrap: self.cluster(),
            file: self.command_config.as_deref(),
            flags: &self.property,
            ..Given::default()
        }
    }
}

/// How long a command waits.
#[derive(Clone, Debug, Args)]
pub struct PatienceArgs {
    /// Fail after this many seconds without progress
    ///
    /// A common cause is the open transaction of another producer. With --follow, a run goes on waiting, and /healthz
    /// fails after this time.
    #[arg(
        long,
        default_value = "90",
        value_name = "SECONDS",
        value_parser = patience(),
        help_heading = heading::SAFETY
    )]
    pub patience: u64,
}

impl PatienceArgs {
    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.patience)
    }
}

/// At least one second, because a first wait of a few milliseconds must not end a run. At most a week, which is as good
/// as for ever.
fn patience() -> impl TypedValueParser<Value = u64> {
    clap::value_parser!(u64).range(1..=604_800)
}
