//! Wiring: parse, run, print, exit.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use replicator::store::{self, Keeping};
use replicator::{
    About, Cli, Command, Common, Dashboard, Error, FillArgs, Found, Half, Interrupt, Job, Mode, Output,
    PATIENCE, Progress, Receipt, Result, RunArgs, Side, Unread, Wanted, agreement, asks_for_json, command,
    end_metrics, fill_telling, gaps, generate, keep_metrics, lag, load, manual, memory, names, sink,
    summarize, verify,
};
#[cfg(feature = "lab")]
use replicator::{demo, drill};

fn main() -> ExitCode {
    memory::keep_freed();
    names::keep_to_files_and_dns();
    #[cfg(feature = "lab")]
    let _failpoints = fail::FailScenario::setup();
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(err) => return unparsed(&err),
    };
    start_logging(&cli.common);
    let mut found = None;
    let result = run(&cli, &mut found);
    if let Err(err) = keep_last(found.as_deref(), &result) {
        tracing::warn!("{err}");
    }
    match print(&cli, found, result) {
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

/// Prints clap's message: the reason why it refuses the command line, or the text of `--help` or `--version`.
fn unparsed(err: &clap::Error) -> ExitCode {
    // err.exit() would print no JSON object. If stderr is closed, the exit code still tells the caller.
    let _ = err.print();
    if err.use_stderr() && asks_for_json(std::env::args_os()) {
        let told = err.render().to_string();
        let sentence = told.split("\n\nUsage:").next().and_then(|told| told.split("\n\nFor more").next());
        let sentence = sentence.unwrap_or(&told).trim().trim_start_matches("error: ");
        let answer = Unread::default().json(&Err(Error::usage(sentence)));
        let _ = answer.and_then(|answer| write_out(format!("{answer}\n").as_bytes()));
    }
    ExitCode::from(u8::try_from(err.exit_code()).unwrap_or(2))
}

/// Runs the command, and puts its findings into `found`, even if it failed.
fn run(cli: &Cli, found: &mut Option<Box<dyn Found>>) -> Result<()> {
    let common = &cli.common;
    let progress = Progress { quiet: common.quiet || common.log_format == Output::Json };
    let interrupt = Interrupt::install()?;
    match &cli.command {
        None => fill_window(&cli.fill, progress, &interrupt, found),
        Some(Command::Fill(args)) => fill_window(args, progress, &interrupt, found),
        Some(Command::Plan(args)) => {
            let (told, result) =
                run_fill(&args.job(&interrupt)?, &args.run, Mode::Plan, progress, &interrupt, None)?;
            *found = Some(told);
            result
        }
        Some(Command::Gaps(args)) => {
            let selection = args.selection(&interrupt)?;
            keep_metrics(&args.metrics.wanted(), &About::topics("gaps", &selection), selection.patience)?;
            match gaps(&selection, args.bucket, args.differences.file.as_deref(), progress, &interrupt) {
                Ok(gaps) => {
                    let result = if args.exit_code { gaps.lacks_nothing() } else { Ok(()) };
                    *found = Some(Box::new(gaps));
                    result
                }
                Err(err) => {
                    *found = Some(Box::new(Unread::from(selection)));
                    Err(err)
                }
            }
        }
        Some(Command::Verify(args)) => {
            if let Some(half) = args.half(&interrupt)? {
                return verify_half(&half, &args.metrics.wanted(), progress, &interrupt, found);
            }
            let comparison = args.comparison(&interrupt)?;
            let selection = &comparison.selection;
            keep_metrics(&args.metrics.wanted(), &About::topics("verify", selection), selection.patience)?;
            let (findings, result) = verify(&comparison, progress, &interrupt);
            // The counts of an unfinished comparison say nothing.
            *found = Some(match &result {
                Ok(()) | Err(Error::Different(_)) => Box::new(findings),
                Err(_) => Box::new(Unread::from(findings)),
            });
            result
        }
        Some(Command::Lag(args)) => {
            let selection = args.selection(&interrupt)?;
            keep_metrics(&args.metrics.wanted(), &About::topics("lag", &selection), selection.patience)?;
            let (told, result) = lag(&selection, args.max_lag, &interrupt);
            *found = Some(match told {
                Some(told) => Box::new(told),
                None => Box::new(Unread::from(selection)),
            });
            result
        }
        Some(Command::Load(args)) => {
            let (loading, properties) = (args.loading(), args.properties(&interrupt)?);
            let source = loading.file.display().to_string();
            let about = About { command: "load", source, target: loading.topic.clone() };
            keep_metrics(&args.metrics.wanted(), &about, PATIENCE)?;
            let (receipt, result) = load(&loading, &properties, progress, &interrupt);
            *found = receipt.map(|receipt| Box::new(receipt) as Box<dyn Found>);
            result
        }
        Some(Command::Generate(args)) => {
            found_if_done(found, generate(&args.generating(), progress, &interrupt))
        }
        Some(Command::Sink(args)) => {
            let sinking = args.sinking(&interrupt)?;
            let target = store::shown(&sinking.store);
            let about = About { command: "sink", source: sinking.topics.join(","), target };
            keep_metrics(&args.metrics.wanted(), &about, sinking.patience)?;
            let (receipt, result) = sink(&sinking, progress, &interrupt);
            if result.is_ok() || receipt.written > 0 {
                *found = Some(Box::new(receipt));
            }
            result
        }
        Some(Command::Dashboard(args)) => {
            let page = Dashboard::open(&args.store, args.listen, &args.allowed_host)?;
            tracing::info!("the page is at {}; press Ctrl-C to end it", page.url());
            page.serve(&interrupt)
        }
        #[cfg(feature = "lab")]
        Some(Command::Demo(args)) => demo(&args.showing(common, &interrupt)?, progress, &interrupt),
        #[cfg(feature = "lab")]
        Some(Command::Drill(args)) => {
            let (report, result) = drill(&args.drilling(common)?, &interrupt);
            if !report.rounds.is_empty() {
                *found = Some(Box::new(report));
            }
            result
        }
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut command(), "replicator", &mut script);
            write_out(&script)
        }
        Some(Command::Man { command }) => write_out(&manual(command.as_deref())?),
    }
}

/// Writes the sums of the source's window to a file, or compares the target with them.
fn verify_half(
    half: &Half,
    metrics: &Wanted,
    progress: Progress,
    interrupt: &Interrupt,
    found: &mut Option<Box<dyn Found>>,
) -> Result<()> {
    let (selection, file) = (&half.selection, half.file.display().to_string());
    let (source, target) = match half.side {
        Side::Source => (selection.source.clone(), file),
        Side::Target => (file, selection.target.clone()),
    };
    keep_metrics(metrics, &About { command: "verify", source, target }, selection.patience)?;
    match half.side {
        Side::Source => found_if_done(found, summarize(half, progress, interrupt)),
        Side::Target => {
            let agreement = agreement(half, progress, interrupt)?;
            let verdict = agreement.verdict();
            *found = Some(Box::new(agreement));
            verdict
        }
    }
}

/// The main job.
fn fill_window(
    args: &FillArgs,
    progress: Progress,
    interrupt: &Interrupt,
    found: &mut Option<Box<dyn Found>>,
) -> Result<()> {
    let job = args.job(interrupt)?;
    let keeping = args.store.as_deref().map(Keeping::start).transpose()?;
    let tell = |receipt| keeping.iter().for_each(|keeping| keeping.tell(&receipt));
    let tell = keeping.is_some().then_some(&tell as &dyn Fn(Receipt));
    let (told, result) = run_fill(&job, &args.run, Mode::Fill, progress, interrupt, tell)?;
    if let Some(Err(err)) = keeping.map(|keeping| keep(keeping, &*told, &result)) {
        tracing::warn!("the receipt was not kept for the dashboard: {err}");
    }
    *found = Some(told);
    result
}

/// The findings of a run, and how it ended.
type Ended = (Box<dyn Found>, Result<()>);

fn run_fill(
    job: &Job,
    args: &RunArgs,
    mode: Mode,
    progress: Progress,
    interrupt: &Interrupt,
    tell: Option<&dyn Fn(Receipt)>,
) -> Result<Ended> {
    let command = match mode {
        Mode::Plan => "plan",
        Mode::Fill if job.follow.is_some() => "follow",
        Mode::Fill => "fill",
    };
    keep_metrics(&args.metrics.wanted(), &About::topics(command, &job.selection), job.selection.patience)?;
    let (receipt, result) = fill_telling(job, mode, progress, interrupt, tell);
    let told: Box<dyn Found> =
        if receipt.has_read(&result) { Box::new(receipt) } else { Box::new(Unread::from(receipt)) };
    Ok((told, result))
}

/// Keeps in the metrics how the command ended, and what it found out.
fn keep_last(found: Option<&dyn Found>, result: &Result<()>) -> Result<()> {
    let answer = found.and_then(|found| serde_json::from_str(&found.json(result).ok()?).ok());
    let exit_code = result.as_ref().map_or_else(Error::exit_code, |()| 0);
    end_metrics(exit_code, &answer.unwrap_or_default())
}

/// Keeps the object that `--output json` prints.
fn keep(keeping: Keeping, found: &dyn Found, result: &Result<()>) -> Result<()> {
    keeping.end(serde_json::from_str(&found.json(result)?).map_err(|e| Error::io("the answer", e))?)
}

/// For commands that have a result only if they succeed.
fn found_if_done(found: &mut Option<Box<dyn Found>>, result: Result<impl Found + 'static>) -> Result<()> {
    *found = Some(Box::new(result?));
    Ok(())
}

/// Prints what the command found out. JSON also says how it ended.
fn print(cli: &Cli, found: Option<Box<dyn Found>>, result: Result<()>) -> Result<()> {
    let has_printed = matches!(cli.command, Some(Command::Completions { .. } | Command::Man { .. }));
    let text = match cli.common.output {
        Output::Text => found.map_or(String::new(), |found| found.to_string()),
        Output::Json if has_printed && result.is_ok() => return result,
        Output::Json => found.unwrap_or_else(|| Box::new(Unread::default())).json(&result)?,
    };
    let printed = if text.is_empty() { Ok(()) } else { write_out(format!("{text}\n").as_bytes()) };
    result.and(printed)
}

/// println! would panic if the reader is gone, as in `replicator … | head`. A gone reader is not an error.
fn write_out(bytes: &[u8]) -> Result<()> {
    match std::io::stdout().write_all(bytes) {
        Err(err) if err.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::io("stdout", err)),
        _ => Ok(()),
    }
}

fn start_logging(common: &Common) {
    let default = match (common.quiet, common.verbose) {
        (true, _) => "replicator=error",
        (_, 0) => "replicator=info",
        (_, 1) => "replicator=debug",
        _ => "replicator=trace,librdkafka=debug",
    };
    let given = std::env::var("RUST_LOG").ok().filter(|given| !given.is_empty());
    let filter =
        given.and_then(|given| EnvFilter::try_new(given).ok()).unwrap_or_else(|| EnvFilter::new(default));
    // rdkafka logs an error if a consumer was closed before it was dropped.
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
