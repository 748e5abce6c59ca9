//! Wiring: parse, run, print, exit.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches};
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use replicator::cli::{Cli, Command, Common, Output};
use replicator::dashboard::Dashboard;
use replicator::demo::demo;
use replicator::drill::drill;
use replicator::error::{Error, Result};
use replicator::fill::{Mode, fill};
use replicator::generate::generate;
use replicator::interrupt::Interrupt;
use replicator::load::load;
use replicator::progress::Progress;
use replicator::sink::sink;
use replicator::store::keep_receipt;
use replicator::verify::verify;

fn main() -> ExitCode {
    let _failpoints = fail::FailScenario::setup();
    let matches = Cli::command().get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(err) => err.exit(),
    };
    start_logging(&cli.common);
    match misplaced_option(&matches).map_or_else(|| run(&cli), Err) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("replicator: {err}");
            ExitCode::from(err.exit_code())
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let common = &cli.common;
    let progress = Progress { quiet: common.quiet };
    let interrupt = Interrupt::install()?;
    match &cli.command {
        None => {
            let done = fill(&cli.fill.job(common)?, Mode::Fill, progress, &interrupt);
            if let Some(Err(err)) = cli.store.as_deref().map(|url| keep_receipt(url, &done.0)) {
                tracing::warn!("the receipt is not kept for the dashboard: {err}");
            }
            print(common, done)
        }
        Some(Command::Plan(args)) => {
            print(common, fill(&args.job(common)?, Mode::Plan, progress, &interrupt))
        }
        Some(Command::Verify(args)) => print(common, verify(&args.comparison(common)?, progress, &interrupt)),
        Some(Command::Load(args)) => {
            print_done(common, load(args, &common.properties()?, progress, &interrupt))
        }
        Some(Command::Generate(args)) => print_done(common, generate(args, progress, &interrupt)),
        Some(Command::Sink(args)) => print(common, sink(&args.sinking(common)?, progress, &interrupt)),
        Some(Command::Dashboard(args)) => {
            let page = Dashboard::open(&args.store, args.listen)?;
            tracing::info!("the page is at {}; Ctrl-C ends it", page.url());
            page.serve(&interrupt)
        }
        Some(Command::Demo(args)) => demo(args, common, progress, &interrupt),
        Some(Command::Drill(args)) => print(common, drill(args, common, &interrupt)),
    }
}

/// Prints what a command found out, also where it failed.
fn print<T: Serialize + std::fmt::Display>(common: &Common, (found, result): (T, Result<()>)) -> Result<()> {
    let text = match common.output {
        Output::Text => found.to_string(),
        Output::Json => serde_json::to_string(&found).map_err(|e| Error::io("the receipt", e))?,
    };
    // Not println!, which panics where the reader has gone; that is the reader's business.
    match writeln!(std::io::stdout(), "{text}") {
        Err(err) if err.kind() != std::io::ErrorKind::BrokenPipe => result.and(Err(Error::io("stdout", err))),
        _ => result,
    }
}

/// [`print`], for what is told only where it ended well.
fn print_done<T: Serialize + std::fmt::Display>(common: &Common, result: Result<T>) -> Result<()> {
    print(common, (result?, Ok(())))
}

/// An option of the main job before a sub-command would be passed over in silence.
fn misplaced_option(matches: &clap::ArgMatches) -> Option<Error> {
    let (command, _) = matches.subcommand()?;
    let globals = ["bootstrap_server", "property", "command_config", "output", "quiet", "verbose"];
    let misplaced = matches.ids().map(clap::Id::as_str).find(|id| {
        // The ids of groups, which clap names after types, are no flags.
        let is_flag = !id.starts_with(char::is_uppercase);
        is_flag && !globals.contains(id) && matches.value_source(id) == Some(ValueSource::CommandLine)
    })?;
    let flag = misplaced.replace('_', "-");
    Some(Error::Usage(format!("put --{flag} behind `{command}`")))
}

fn start_logging(common: &Common) {
    let default = match (common.quiet, common.verbose) {
        (true, _) => "replicator=error",
        (_, 0) => "replicator=info",
        (_, 1) => "replicator=debug",
        _ => "replicator=trace,librdkafka=debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    // It calls it an error that a consumer was closed before it was dropped.
    let closes = "rdkafka::consumer::base_consumer=off".parse();
    let filter = closes.map_or(filter.clone(), |closes| filter.add_directive(closes));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false)
        .compact()
        .init();
}
