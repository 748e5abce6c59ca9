//! The options of every command.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::heading;
use crate::base::error::Result;
use crate::base::interrupt::Interrupt;
use crate::base::time::parse_duration;
use crate::kafka::given::Given;
use crate::kafka::profile::Profile;
use crate::kafka::properties::Properties;
#[cfg(feature = "lab")]
use crate::kafka::{given::GivenSide, properties::DEFAULT_BOOTSTRAP, sides::Sides};

/// The options of every command.
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

/// How to connect to a cluster.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConnectionArgs {
    /// Connect to these brokers first, given as host:port and separated by commas
    ///
    /// By default, the environment variable KAFKA_BOOTSTRAP_SERVERS names the brokers. If it is not set,
    /// bootstrap.servers in the file of -F names them, or the profile. Otherwise they are at localhost:9092.
    #[arg(
        short,
        long,
        visible_aliases = ["bootstrap-servers", "brokers"],
        value_name = "HOSTS",
        help_heading = heading::CONNECTION
    )]
    pub(super) bootstrap_server: Option<String>,
    /// Set a client property of librdkafka; may be repeated
    #[arg(short = 'X', value_name = "KEY=VALUE", help_heading = heading::CONNECTION)]
    pub(super) property: Vec<String>,
    /// Read client properties from this file
    ///
    /// The environment overrides the file, with REPLICATOR_SASL_PASSWORD for sasl.password, and -X overrides both. In a
    /// fill, plan, gaps or verify between two clusters, the prefix `source.` or `target.` makes a property one of that
    /// cluster alone, in all three.
    #[arg(short = 'F', long, value_name = "FILE", help_heading = heading::CONNECTION)]
    pub(super) command_config: Option<PathBuf>,
    /// Take brokers, client properties and topics from this profile of ~/.config/replicator/config.toml
    ///
    /// $XDG_CONFIG_HOME may name another folder than ~/.config. Flags and -F override the profile. If the environment
    /// contradicts it, a flag must decide. A secret in it is { env = "NAME" } or { command = "pass show kafka" }.
    #[arg(long, value_name = "NAME", help_heading = heading::CONNECTION)]
    pub(super) profile: Option<String>,
}

impl ConnectionArgs {
    /// Adds what was given before the sub-command.
    pub(super) fn inherit(&mut self, before: &ConnectionArgs) {
        self.bootstrap_server = self.bootstrap_server.take().or_else(|| before.bootstrap_server.clone());
        self.command_config = self.command_config.take().or_else(|| before.command_config.clone());
        self.profile = self.profile.take().or_else(|| before.profile.clone());
        self.property = [before.property.as_slice(), &self.property].concat();
    }

    /// The cluster that the flag names. Commands that write their own topics do not take the environment's cluster,
    /// which is too easily the wrong one.
    pub(super) fn cluster(&self) -> Option<&str> {
        self.bootstrap_server.as_deref().filter(|bootstrap| !bootstrap.trim().is_empty())
    }

    /// # Errors
    /// [`Error::Usage`](crate::base::error::Error::Usage) names the refused property; also as [`Profile::read`].
    pub(super) fn properties(&self, interrupt: &Interrupt) -> Result<Properties> {
        let profile = self.profile(interrupt)?;
        Given { profile: profile.as_ref(), ..self.given() }.one(std::env::vars_os())
    }

    /// The properties for a cluster that the command starts itself, unless a flag names one; or for two clusters. What the
    /// environment and a profile say is for the user's own clusters.
    ///
    /// # Errors
    /// As [`ConnectionArgs::properties`].
    #[cfg(feature = "lab")]
    pub(super) fn properties_of_own(
        &self,
        are_two: bool,
        interrupt: &Interrupt,
    ) -> Result<Sides<Properties>> {
        let is_own = self.cluster().is_none();
        if is_own && self.profile.is_some() {
            return Err(crate::base::error::Error::usage(
                "--profile is for clusters of yours, but this command starts brokers of its own: leave it out, or add -b",
            ));
        }
        let profile = self.profile(interrupt)?;
        let given = Given { profile: profile.as_ref(), ..self.given() };
        let given = if are_two {
            let own = GivenSide { bootstrap: Some(DEFAULT_BOOTSTRAP), file: None };
            Given { source: own, target: own, ..given }
        } else {
            Given { bootstrap: Some(self.cluster().unwrap_or(DEFAULT_BOOTSTRAP)), ..given }
        };
        given.sides(std::env::vars_os().filter(|_| !is_own))
    }

    /// # Errors
    /// As [`Profile::read`].
    pub(super) fn profile(&self, interrupt: &Interrupt) -> Result<Option<Profile>> {
        self.profile.as_deref().map(|name| Profile::read(name, interrupt)).transpose()
    }

    /// What the flags give, without the profile.
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
    /// Fail after this long without progress, as in 90s or 5m; a bare number is in seconds
    ///
    /// A common cause is the open transaction of another producer. A fill with --follow goes on waiting, and
    /// /healthz fails after this time.
    #[arg(
        long,
        default_value = "90s",
        value_name = "DURATION",
        value_parser = parse_patience,
        help_heading = heading::SAFETY
    )]
    pub patience: Duration,
}

/// At least one second, because a first wait of a few milliseconds must not end a run. At most a week, which is as good
/// as for ever.
fn parse_patience(text: &str) -> std::result::Result<Duration, String> {
    let patience = text.parse().map(Duration::from_secs).or_else(|_| parse_duration(text))?;
    if (Duration::from_secs(1)..=Duration::from_secs(604_800)).contains(&patience) {
        Ok(patience)
    } else {
        Err("the patience is 1s at least, and a week (7d) at most".to_owned())
    }
}
