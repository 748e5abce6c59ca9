//! The command line, which clap parses.

mod again;
pub(crate) mod answer;
pub(crate) mod common;
mod compare;
mod fill;
mod half;
mod heading;
pub(crate) mod help;
#[cfg(feature = "lab")]
mod lab;
mod load;
mod metrics;
mod misplaced;
mod sink;
mod topics;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{ArgMatches, FromArgMatches, Parser, Subcommand};

use self::common::{Common, ConnectionArgs};
use self::compare::{GapsArgs, LagArgs, VerifyArgs};
use self::fill::PlanArgs;
pub use self::fill::{FillArgs, RunArgs};
#[cfg(feature = "lab")]
use self::lab::{DemoArgs, DrillArgs};
use self::load::{GenerateArgs, LoadArgs};
use self::sink::{DashboardArgs, SinkArgs};
use crate::job::schema::Schemas;
use crate::sink::store::check_flag;

/// Fills a time-window gap in one Kafka topic from another, exactly once, however often it runs.
#[derive(Debug, Parser)]
#[command(version, about, subcommand_negates_reqs = true)]
pub struct Cli {
    #[command(flatten)]
    pub fill: FillArgs,
    // Flattened last, so that its options come after the others.
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Cli {
    /// Reads a command line, whose first word is the program.
    ///
    /// # Errors
    /// What clap says about it; also a secret in a flag, or an option at a place where nobody heeds it.
    pub fn read(arguments: impl Iterator<Item = OsString>) -> std::result::Result<Cli, clap::Error> {
        let arguments: Vec<OsString> = arguments.collect();
        let matches = help::command()
            .try_get_matches_from(&arguments)
            .map_err(|err| misplaced::closer(err, &arguments))?;
        check_secrets(&matches)?;
        misplaced::check(&matches)?;
        half::check(&matches)?;
        let mut cli = Cli::from_arg_matches(&matches)?;
        if let Some(command) = &mut cli.command {
            command.inherit(&cli.fill.selection.topics.clusters.connection);
        }
        Ok(cli)
    }
}

/// Refuses a flag whose URL holds a password, for the main job and for the sub-command.
fn check_secrets(matches: &ArgMatches) -> std::result::Result<(), clap::Error> {
    let of_command = matches.subcommand().map(|(_, matches)| matches);
    for matches in [Some(matches), of_command].into_iter().flatten() {
        let typed = |id: &str| {
            matches.try_get_one::<String>(id).ok().flatten().filter(|_| misplaced::is_typed(matches, id))
        };
        let store = typed("store").map(|url| check_flag(url));
        let registry = typed("schema_registry").map(|url| Schemas::check_flag(url));
        for checked in [store, registry].into_iter().flatten() {
            checked.map_err(|err| help::command().error(ErrorKind::ValueValidation, err))?;
        }
    }
    Ok(())
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fill the gap; the same as without a sub-command
    Fill(Box<FillArgs>),
    /// Show what a fill would do; it writes nothing and disturbs no running fill
    Plan(Box<PlanArgs>),
    /// Find out when the target lacks records that the source has
    Gaps(GapsArgs),
    /// Compare every record of the window in both topics
    Verify(VerifyArgs),
    /// Show how far a run with --follow is behind its source
    Lag(LagArgs),
    /// Load a file of JSON events into a topic, each line exactly once
    Load(LoadArgs),
    /// Generate a file of events, as of an interactive music-video service
    Generate(GenerateArgs),
    /// Copy topics into a database, each record once, to query and to look at
    Sink(SinkArgs),
    /// Serve a web page that shows both topics, what is missing, and the last runs
    Dashboard(DashboardArgs),
    /// Start a broker and show everything on it: load, break, plan, fill, verify, fill again
    #[cfg(feature = "lab")]
    Demo(DemoArgs),
    /// Start a cluster, kill runs and brokers, and compare every record afterwards
    #[cfg(feature = "lab")]
    Drill(DrillArgs),
    /// Print the completions for a shell
    Completions { shell: clap_complete::Shell },
    /// Print the manual page of the program, or of a sub-command, as roff
    Man { command: Option<String> },
}

impl Command {
    /// Adds the options for a connection that were given before the sub-command.
    fn inherit(&mut self, before: &ConnectionArgs) {
        let connection = match self {
            Command::Fill(args) => &mut args.selection.topics.clusters.connection,
            Command::Plan(args) => &mut args.selection.topics.clusters.connection,
            Command::Gaps(args) => &mut args.topics.clusters.connection,
            Command::Verify(args) => &mut args.selection.topics.clusters.connection,
            Command::Lag(args) => &mut args.clusters.connection,
            Command::Load(args) => &mut args.connection,
            Command::Sink(args) => &mut args.connection,
            #[cfg(feature = "lab")]
            Command::Demo(args) => &mut args.connection,
            #[cfg(feature = "lab")]
            Command::Drill(args) => {
                args.bootstrap_server = args.bootstrap_server.take().or(before.bootstrap_server.clone());
                return;
            }
            Command::Generate(_)
            | Command::Dashboard(_)
            | Command::Completions { .. }
            | Command::Man { .. } => {
                return;
            }
        };
        connection.inherit(before);
    }
}
