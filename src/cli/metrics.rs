//! Who wants the metrics of a run, and what they are called there.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::heading;
use super::topics::parse_address;
use crate::job::Selection;
use crate::job::names::Names;
use crate::telemetry::{About, Wanted};

#[derive(Clone, Debug, Args)]
pub struct MetricsArgs {
    /// Serve Prometheus metrics at this address during the run, as in 127.0.0.1:9090
    #[arg(
        long,
        value_name = "ADDRESS",
        value_parser = parse_address,
        help_heading = heading::OUTPUT,
        display_order = heading::LATE
    )]
    pub metrics_listen: Option<SocketAddr>,
    #[command(flatten)]
    pub file: MetricsFileArgs,
}

impl MetricsArgs {
    pub fn wanted(&self) -> Wanted {
        Wanted { listen: self.metrics_listen, ..self.file.wanted() }
    }
}

/// For a command that is over before anybody asks it.
#[derive(Clone, Debug, Args)]
pub struct MetricsFileArgs {
    /// Write Prometheus metrics to this file, as in /var/lib/node_exporter/replicator.prom
    ///
    /// The node exporter's textfile collector reads it. It is written every 15 seconds, and when the run ends, also if the
    /// run failed. Each job needs a file of its own.
    #[arg(long, value_name = "FILE", help_heading = heading::OUTPUT, display_order = heading::LATE)]
    pub metrics_file: Option<PathBuf>,
}

impl MetricsFileArgs {
    pub fn wanted(&self) -> Wanted {
        Wanted { listen: None, file: self.metrics_file.clone() }
    }
}

impl About {
    /// A command about two topics. With two clusters, the labels name them, as those of the page do.
    pub fn topics(command: &'static str, selection: &Selection) -> About {
        let names = Names::from(selection);
        let label = |topic: String, address: Option<String>| match address {
            Some(address) => format!("{topic}@{address}"),
            None => topic,
        };
        About {
            command,
            source: label(names.source, names.source_bootstrap_server),
            target: label(names.target, names.target_bootstrap_server),
        }
    }
}
