//! Recovery drills: the real program as a child process, a real cluster, and faults on a seeded schedule;
//! then every record is compared.

mod compare;
mod data;
pub mod proxy;
mod report;
mod round;
mod run;
pub mod schedule;
mod tail;
pub mod topics;

use std::io::Write;
use std::time::Instant;

use self::proxy::Proxy;
pub use self::report::Report;
use self::round::{Stage, play};
use self::schedule::scenarios;
use self::topics::Topics;
use crate::cli::{Common, DrillArgs, Output};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::sandbox::{Backend, Sandbox};

/// Plays rounds until the time is over, at least one. In text, each round is printed as it ends.
///
/// # Errors
/// [`Error::Different`] where a round ended otherwise than it must; [`Error::Usage`] for a fault that cannot be
/// caused on a cluster that was named; [`Error::Failed`] where the drill itself fails.
pub fn drill(args: &DrillArgs, common: &Common, interrupt: &Interrupt) -> (Report, Result<()>) {
    let begun = Instant::now();
    let mut report = Report::default();
    let result = rounds(args, common, interrupt, begun, &mut report);
    report.elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let result =
        result.and_then(|()| if report.is_right() { Ok(()) } else { Err(Error::different(report.wrong())) });
    (report, result)
}

fn rounds(
    args: &DrillArgs,
    common: &Common,
    interrupt: &Interrupt,
    begun: Instant,
    report: &mut Report,
) -> Result<()> {
    if !common.property.is_empty() || common.command_config.is_some() {
        let sentence =
            "a drill takes no client properties: leave out -X and -F, and name a plaintext cluster";
        return Err(Error::usage(sentence.to_owned()));
    }
    let cluster = |e: anyhow::Error| Error::io("a cluster to drill on", format!("{e:#}"));
    let sandbox = common
        .cluster()
        .map_or_else(|| Sandbox::start_own(args.brokers), Sandbox::connect)
        .map_err(cluster)?;
    tracing::info!("on Kafka at {} ({})", sandbox.bootstrap(), sandbox.backend());
    let is_ours = sandbox.backend() != Backend::Named;
    if let Some(fault) = args.faults.iter().find(|fault| !is_ours && !fault.is_of_clients()) {
        return Err(Error::usage(format!(
            "--faults {}: not on a cluster that is not ours to break; leave out --bootstrap-server",
            clap::ValueEnum::to_possible_value(fault)
                .map_or(String::new(), |value| value.get_name().to_owned())
        )));
    }
    let proxies = sandbox
        .back_doors()
        .iter()
        .map(Proxy::start)
        .collect::<std::io::Result<_>>()
        .map_err(|e| Error::io("a proxy before the brokers", e))?;
    report.brokers = sandbox.brokers();
    report.backend = sandbox.backend().to_string();
    let topics = Topics::new(sandbox.bootstrap());
    let mut stage = Stage { sandbox, proxies, topics, interrupt };
    let scenarios = scenarios(&args.faults, is_ours);
    let duration = args.duration;
    for seed in args.seed.. {
        let turn = usize::try_from(seed).unwrap_or(0) % scenarios.len();
        let schedule = scenarios[turn].schedule(seed, args.records, report.brokers);
        let round = play(&mut stage, &schedule)?;
        if common.output == Output::Text {
            // Not println!, which panics where the reader has gone.
            let _ = writeln!(std::io::stdout(), "{round}\n");
        }
        report.rounds.push(round);
        if begun.elapsed() >= duration {
            break;
        }
    }
    Ok(())
}
