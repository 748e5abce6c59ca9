//! `sink` and `dashboard`: a store, and the page that shows it.

use std::net::SocketAddr;

use clap::Args;

use super::common::{ConnectionArgs, PatienceArgs};
use super::heading;
use super::metrics::MetricsArgs;
use super::topics::{SchemaArgs, parse_address};
use crate::base::error::Result;
use crate::base::interrupt::Interrupt;
use crate::dashboard::host;
use crate::sink::Sinking;

#[derive(Clone, Debug, Args)]
pub struct SinkArgs {
    /// Copy this topic; may be repeated
    #[arg(long, required = true, value_name = "TOPIC", help_heading = heading::TOPICS)]
    pub topic: Vec<String>,
    /// Go on with new records until Ctrl-C
    #[arg(long, help_heading = heading::TOPICS)]
    pub follow: bool,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
    #[command(flatten)]
    pub patience: PatienceArgs,
    #[command(flatten)]
    pub(super) schemas: SchemaArgs,
    /// Copy into sqlite:FILE, postgres://USER@HOST/DATABASE, opensearch+https://HOST:PORT or elasticsearch+https://HOST:PORT
    ///
    /// Give a URL with a password in the environment, not as a flag. A store can hold topics of several clusters, also
    /// topics of one name: run a sink for each cluster.
    #[arg(
        long,
        env = "REPLICATOR_STORE",
        hide_env_values = true,
        value_name = "URL",
        help_heading = heading::OUTPUT
    )]
    pub store: String,
    #[command(flatten)]
    pub metrics: MetricsArgs,
}

impl SinkArgs {
    /// # Errors
    /// [`Error::Usage`](crate::base::error::Error::Usage) names the refused property.
    pub fn sinking(&self, interrupt: &Interrupt) -> Result<Sinking> {
        Ok(Sinking {
            properties: self.connection.properties(interrupt)?,
            topics: self.topic.clone(),
            store: self.store.clone(),
            schemas: self.schemas.schemas()?,
            follow: self.follow,
            patience: self.patience.patience,
        })
    }
}

#[derive(Clone, Debug, Args)]
pub struct DashboardArgs {
    /// Show this store, which `sink` writes
    #[arg(
        long,
        env = "REPLICATOR_STORE",
        hide_env_values = true,
        default_value = "sqlite:replicator.db",
        value_name = "URL",
        help_heading = heading::CONNECTION
    )]
    pub store: String,
    /// Serve the page at this address
    ///
    /// By default only this machine sees it. With 0.0.0.0:8080, other machines see it too.
    #[arg(
        long,
        default_value = "127.0.0.1:8080",
        value_name = "ADDRESS",
        value_parser = parse_address,
        help_heading = heading::CONNECTION
    )]
    pub listen: SocketAddr,
    /// Answer requests for this host name too, besides localhost and addresses; may be repeated
    #[arg(long, value_name = "NAME", value_parser = host::parse, help_heading = heading::CONNECTION)]
    pub allowed_host: Vec<String>,
}
