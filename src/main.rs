//! Wiring: parse, run, print, exit.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::builder::Styles;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches};
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use replicator::cli::{Cli, Command, Common, FillArgs, Output};
use replicator::dashboard::Dashboard;
use replicator::demo::demo;
use replicator::drill::drill;
use replicator::error::{Error, Result};
use replicator::fill::fill;
use replicator::gaps::gaps;
use replicator::generate::generate;
use replicator::interrupt::Interrupt;
use replicator::job::{Job, Mode};
use replicator::load::load;
use replicator::metrics;
use replicator::progress::Progress;
use replicator::receipt::Receipt;
use replicator::sink::sink;
use replicator::store::keep_receipt;
use replicator::sys::memory;
use replicator::verify::verify;

fn main() -> ExitCode {
    memory::keep_freed();
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
            match cli.common.log_format {
                Output::Text => eprintln!("replicator: {err}"),
                Output::Json => tracing::error!(exit_code = err.exit_code(), "{err}"),
            }
            ExitCode::from(err.exit_code())
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let common = &cli.common;
    let progress = Progress { quiet: common.quiet || common.log_format == Output::Json };
    let interrupt = Interrupt::install()?;
    match &cli.command {
        None => {
            let done = run_fill(&cli.job()?, &cli.fill, Mode::Fill, progress, &interrupt)?;
            if let Some(Err(err)) = cli.store.as_deref().map(|url| keep_receipt(url, &done.0)) {
                tracing::warn!("the receipt is not kept for the dashboard: {err}");
            }
            print(common, done)
        }
        Some(Command::Plan(args)) => {
            print(common, run_fill(&args.job(common)?, args, Mode::Plan, progress, &interrupt)?)
        }
        Some(Command::Gaps(args)) => {
            print_done(common, gaps(&args.selection(common)?, args.bucket, progress, &interrupt))
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
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "replicator", &mut script);
            write_out(&script)
        }
        Some(Command::Man { command }) => man(command.as_deref()),
    }
}

fn run_fill(
    job: &Job,
    args: &FillArgs,
    mode: Mode,
    progress: Progress,
    interrupt: &Interrupt,
) -> Result<(Receipt, Result<()>)> {
    if let Some(address) = args.metrics_listen {
        metrics::serve(address)?;
    }
    Ok(fill(job, mode, progress, interrupt))
}

fn man(name: Option<&str>) -> Result<()> {
    let mut program = Cli::command().styles(Styles::plain());
    program.build();
    let command = match name {
        None => Some(&program),
        Some(name) => program.find_subcommand(name),
    };
    let command = command.ok_or_else(|| Error::usage("there is no such sub-command".to_owned()))?;
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page).map_err(|e| Error::io("the page", e))?;
    write_out(&page)
}

/// Prints what a command found out, also where it failed.
fn print<T: Serialize + std::fmt::Display>(common: &Common, (found, result): (T, Result<()>)) -> Result<()> {
    let text = match common.output {
        Output::Text => found.to_string(),
        Output::Json => serde_json::to_string(&found).map_err(|e| Error::io("the receipt", e))?,
    };
    let printed = write_out(format!("{text}\n").as_bytes());
    result.and(printed)
}

/// Not println!, which panics where the reader has gone; that is the reader's business.
fn write_out(bytes: &[u8]) -> Result<()> {
    match std::io::stdout().write_all(bytes) {
        Err(err) if err.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::io("stdout", err)),
        _ => Ok(()),
    }
}

/// [`print`], for what is told only where it ended well.
fn print_done<T: Serialize + std::fmt::Display>(common: &Common, result: Result<T>) -> Result<()> {
    print(common, (result?, Ok(())))
}

/// An option of the main job before a sub-command would be passed over in silence.
fn misplaced_option(matches: &clap::ArgMatches) -> Option<Error> {
    let (command, _) = matches.subcommand()?;
    let globals =
        ["bootstrap_server", "property", "command_config", "output", "quiet", "verbose", "log_format"];
    let misplaced = matches.ids().map(clap::Id::as_str).find(|id| {
        // The ids of groups, which clap names after types, are no flags.
        let is_flag = !id.starts_with(char::is_uppercase);
        is_flag && !globals.contains(id) && matches.value_source(id) == Some(ValueSource::CommandLine)
    })?;
    let flag = misplaced.replace('_', "-");
    let takes = Cli::command();
    let mut taken = takes.find_subcommand(command).into_iter().flat_map(clap::Command::get_arguments);
    Some(Error::usage(if taken.any(|argument| argument.get_id() == misplaced) {
        format!("put --{flag} behind `{command}`")
    } else {
        format!("`{command}` takes no --{flag}")
    }))
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
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if common.log_format == Output::Json {
        return log.json().flatten_event(true).init();
    }
    log.with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false)
        .compact()
        .init();
}
