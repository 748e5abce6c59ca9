//! What every command takes.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::base::error::Result;
use crate::kafka::properties::Properties;

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// The brokers to ask first, as host:port, separated by commas [default: those of KAFKA_BOOTSTRAP_SERVERS in the
    /// environment, else of the file for -F, else localhost:9092; demo and drill start their own]
    #[arg(
        short,
        long,
        global = true,
        visible_aliases = ["bootstrap-servers", "brokers"],
        value_name = "HOSTS"
    )]
    pub bootstrap_server: Option<String>,
    /// A client property of librdkafka, as key=value; may be repeated
    #[arg(short = 'X', value_name = "KEY=VALUE", global = true)]
    pub property: Vec<String>,
    /// A file of client properties; REPLICATOR_SASL_PASSWORD and the like in the environment beat it
    #[arg(short = 'F', long, value_name = "FILE", global = true)]
    pub command_config: Option<PathBuf>,
    /// How the result is printed on stdout
    #[arg(short, long, value_enum, default_value = "text", global = true)]
    pub output: Output,
    /// No progress, and only errors on stderr
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// More on stderr; twice, librdkafka's own log too
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// How the log is written on stderr; json is one object a line
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT", global = true)]
    pub log_format: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

impl Common {
    /// The cluster that is named by flag, if one is: for what writes topics of its own, the environment's is too easily
    /// the wrong one.
    pub fn cluster(&self) -> Option<&str> {
        self.bootstrap_server.as_deref().filter(|bootstrap| !bootstrap.trim().is_empty())
    }

    /// # Errors
    /// [`Error::Usage`] names the property that is refused.
    pub fn properties(&self) -> Result<Properties> {
        Properties::new(self.cluster(), self.command_config.as_deref(), std::env::vars_os(), &self.property)
    }
}
