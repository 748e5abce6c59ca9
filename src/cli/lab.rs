//! `demo` and `drill`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::common::{Common, ConnectionArgs, Output};
use super::heading;
use super::load::FieldArgs;
use super::topics::parse_fixed;
use crate::base::error::{Error, Result};
use crate::base::interrupt::Interrupt;
use crate::base::time::parse_duration;
use crate::job::identity::Identity;
use crate::job::window::WindowSpec;
use crate::lab::demo::Showing;
use crate::lab::drill::Drilling;
use crate::lab::drill::fault::Fault;
use crate::lab::sandbox::version::{self, parse as parse_version};

/// The version of the brokers that a command starts.
#[derive(Clone, Debug, Args)]
pub struct VersionArgs {
    /// Start brokers of this version of Apache Kafka, 3.3.1 or newer
    ///
    /// If it is not given, it is the one that REPLICATOR_KAFKA_VERSION names in the environment, or else 4.3.1.
    #[arg(
        long,
        value_name = "VERSION",
        value_parser = parse_version,
        conflicts_with = "bootstrap_server",
        help_heading = heading::CONNECTION
    )]
    pub kafka_version: Option<String>,
}

impl VersionArgs {
    fn choose(&self) {
        self.kafka_version.iter().for_each(|version| version::choose(version));
    }
}

#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Use the events of this file; by default they are generated
    #[arg(long, value_name = "FILE", help_heading = heading::TOPICS)]
    pub data: Option<PathBuf>,
    /// Make the gap in this window, in UTC
    #[arg(
        long,
        default_value = "11:00-13:00",
        value_name = "WINDOW",
        value_parser = parse_fixed,
        allow_hyphen_values = true,
        help_heading = heading::WINDOW
    )]
    pub window: WindowSpec,
    #[command(flatten)]
    pub fields: FieldArgs,
    /// Identify records by key, key+value, value, field:/pointer or record
    ///
    /// Records with the same identity count as the same record. Use `record` if keys are user or device ids: it counts
    /// equal records, with the same key, value, headers and timestamp.
    #[arg(long, default_value = "key", help_heading = heading::IDENTITY)]
    pub identity: Identity,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
    /// Start two clusters, and put each topic into one of its own
    #[arg(long, help_heading = heading::CONNECTION)]
    pub two_clusters: bool,
    #[command(flatten)]
    pub version: VersionArgs,
    /// Keep the broker running at the end, and print what to try on it
    #[arg(long, help_heading = heading::OUTPUT)]
    pub keep: bool,
    /// Open a browser with a page of both topics, and serve it until Ctrl-C
    #[arg(long, help_heading = heading::OUTPUT)]
    pub open: bool,
}

impl DemoArgs {
    /// # Errors
    /// [`Error::Usage`] names the refused property, or a cluster beside `--two-clusters`.
    pub fn showing(&self, common: &Common, interrupt: &Interrupt) -> Result<Showing> {
        if self.two_clusters && self.connection.cluster().is_some() {
            return Err(Error::usage(
                "--two-clusters starts both clusters: leave out --bootstrap-server, or --two-clusters",
            ));
        }
        tell_of_environment(self.connection.cluster());
        self.version.choose();
        Ok(Showing {
            cluster: self.connection.cluster().map(str::to_owned),
            two_clusters: self.two_clusters,
            properties: self.connection.properties_of_own(self.two_clusters, interrupt)?,
            data: self.data.clone(),
            given: self.fields.given(),
            window: self.window,
            identity: self.identity.clone(),
            keep: self.keep,
            open: self.open,
            on_stderr: common.output == Output::Json,
        })
    }
}

#[derive(Clone, Debug, Args)]
pub struct DrillArgs {
    /// Put this many records into the source
    #[arg(long, default_value = "10000", value_name = "N", help_heading = heading::TOPICS)]
    pub records: usize,
    /// Cause only these faults, separated by commas; by default all, in scenarios that take turns
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FAULTS", help_heading = heading::ROUNDS)]
    pub faults: Vec<Fault>,
    /// Drill --follow: runs copy what writers commit and abort in the source all the time
    #[arg(long, help_heading = heading::ROUNDS)]
    pub follow: bool,
    /// Seed of the first round; each next round takes the next number
    ///
    /// The same seed gives the same schedule.
    #[arg(long, default_value = "1", help_heading = heading::ROUNDS)]
    pub seed: u64,
    /// Begin new rounds for this long, as in 90s, 2m or 1h; at least one round is played
    #[arg(long, default_value = "2m", value_parser = parse_duration, help_heading = heading::ROUNDS)]
    pub duration: Duration,
    /// Use this many clusters: with 2, the source is in one and the target in the other
    #[arg(long, default_value = "1", value_parser = one_or("2", 2), help_heading = heading::CONNECTION)]
    pub clusters: usize,
    /// Drill on this cluster, without broker faults; by default a cluster is started
    ///
    /// KAFKA_BOOTSTRAP_SERVERS is ignored, because it may name production. Topics and groups of the drill are removed at
    /// its end.
    #[arg(short, long, value_name = "HOSTS", help_heading = heading::CONNECTION)]
    pub(super) bootstrap_server: Option<String>,
    /// Start a cluster of this many brokers
    ///
    /// With --clusters 2, the target's cluster has this many brokers, and the source's has one.
    #[arg(long, default_value = "3", value_parser = one_or("3", 3), help_heading = heading::CONNECTION)]
    pub brokers: usize,
    #[command(flatten)]
    pub version: VersionArgs,
    /// Drill this copier instead: it must copy all records of {source} to {target}, and go on until SIGTERM
    ///
    /// The words {source}, {target} and {bootstrap}, or {source-bootstrap} and {target-bootstrap} with --clusters 2, become
    /// the topics and the brokers. The copier is started again whenever it ends.
    #[arg(last = true, value_name = "COMMAND")]
    pub copier: Vec<String>,
}

impl DrillArgs {
    /// # Errors
    /// [`Error::Usage`] for a cluster beside `--clusters 2`, a version beside `--faults version`, or a command that does not
    /// name its topics and brokers.
    pub fn drilling(&self, common: &Common) -> Result<Drilling> {
        self.check_copier()?;
        let cluster = self.bootstrap_server.as_deref().filter(|hosts| !hosts.trim().is_empty());
        if self.clusters > 1 && cluster.is_some() {
            return Err(Error::usage(
                "--clusters 2 starts both clusters: leave out --bootstrap-server, or drill on the named cluster alone",
            ));
        }
        if self.faults.contains(&Fault::Version)
            && (self.version.kafka_version.is_some() || version::is_named())
        {
            return Err(Error::usage(
                "--faults version chooses both versions itself: leave out --kafka-version and REPLICATOR_KAFKA_VERSION",
            ));
        }
        tell_of_environment(cluster);
        self.version.choose();
        Ok(Drilling {
            cluster: cluster.map(str::to_owned),
            clusters: self.clusters,
            brokers: self.brokers,
            records: self.records,
            faults: self.faults.clone(),
            follow: self.follow,
            copier: self.copier.clone(),
            seed: self.seed,
            duration: self.duration,
            tells_rounds: common.output == Output::Text,
        })
    }

    /// A copier that does not name the round's topics would copy others.
    fn check_copier(&self) -> Result<()> {
        if self.copier.is_empty() {
            return Ok(());
        }
        let brokers: &[&str] =
            if self.clusters > 1 { &["{source-bootstrap}", "{target-bootstrap}"] } else { &["{bootstrap}"] };
        let missing = ["{source}", "{target}"]
            .iter()
            .chain(brokers)
            .find(|name| !self.copier.iter().any(|word| word.contains(**name)));
        match missing {
            Some(name) => Err(Error::usage(format!(
                "the command has no {name}: write it where it needs the {} of the drill",
                if name.contains("bootstrap") { "brokers" } else { "topic" }
            ))),
            None => Ok(()),
        }
    }
}

/// The environment may name production's cluster, so only a flag makes this command write to a cluster that is there.
fn tell_of_environment(cluster: Option<&str>) {
    let mut named = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.to_str().filter(|_| !value.is_empty())?.to_owned();
        (name.starts_with("KAFKA_") && name.ends_with("BOOTSTRAP_SERVERS")).then_some(name)
    });
    if let (Some(name), None) = (named.next(), cluster) {
        tracing::info!(
            "the environment's {name} is ignored: this starts brokers of its own; only -b makes it use a cluster of yours"
        );
    }
}

fn one_or(other: &'static str, number: usize) -> impl TypedValueParser<Value = usize> {
    PossibleValuesParser::new(["1", other]).map(move |given| if given == "1" { 1 } else { number })
}
