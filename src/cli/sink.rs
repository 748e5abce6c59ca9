//! `sink` and `dashboard`: a store, and the page that shows it.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use super::common::Common;
use super::topics::{parse_address, patience};
use crate::base::error::Result;
use crate::dashboard::host;
use crate::sink::Sinking;

#[derive(Clone, Debug, Args)]
pub struct SinkArgs {
    /// A topic to keep; may be repeated
    #[arg(long, required = true, value_name = "TOPIC")]
    pub topic: Vec<String>,
    /// Where to: sqlite:FILE, postgres://USER@HOST/DATABASE or opensearch+https://HOST:PORT; a URL with a password goes
    /// into the environment
    #[arg(long, env = "REPLICATOR_STORE", hide_env_values = true, value_name = "URL")]
    pub store: String,
    /// Go on with what comes, until Ctrl-C
    #[arg(long)]
    pub follow: bool,
    /// Seconds to wait without progress, as on another producer's open transaction
    #[arg(long, default_value = "90", value_name = "SECONDS", value_parser = patience())]
    pub patience: u64,
}

impl SinkArgs {
    /// # Errors
    /// [`Error::Usage`] names the property that is refused.
    pub fn sinking(&self, common: &Common) -> Result<Sinking> {
        Ok(Sinking {
            properties: common.properties()?,
            topics: self.topic.clone(),
            store: self.store.clone(),
            follow: self.follow,
            patience: Duration::from_secs(self.patience),
        })
    }
}

#[derive(Clone, Debug, Args)]
pub struct DashboardArgs {
    /// The store that `sink` writes
    #[arg(
        long,
        env = "REPLICATOR_STORE",
        hide_env_values = true,
        default_value = "sqlite:replicator.db",
        value_name = "URL"
    )]
    pub store: String,
    /// Where the page is served; to other machines only where you say so, as with 0.0.0.0:8080
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS", value_parser = parse_address)]
    pub listen: SocketAddr,
    /// A name that the page may be asked for by, besides localhost and addresses; may be repeated
    #[arg(long, value_name = "NAME", value_parser = host::parse)]
    pub allowed_host: Vec<String>,
}
