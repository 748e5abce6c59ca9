//! Recovery drills: the real program as a child process, a real cluster, and faults on a seeded schedule;
//! then every record is compared.

mod compare;
mod data;
pub mod proxy;
mod report;
mod round;
mod run;
pub(crate) mod schedule;
mod tail;
pub mod topics;

use std::io::Write;
use std::time::{Duration, Instant};

use self::proxy::Proxy;
pub(crate) use self::report::Report;
use self::round::{Stage, play};
use self::schedule::{Fault, scenarios};
use self::topics::Topics;
use crate::base::error::{Error, Result};
use crate::base::interrupt::Interrupt;
use crate::lab::sandbox::{Backend, Sandbox};

/// What is to be drilled.
pub struct Drilling {
    /// A cluster that is not ours to break; else one is started.
    pub cluster: Option<String>,
    /// Of the cluster that is started: 1 or 3.
    pub brokers: usize,
    /// Of the source.
    pub records: usize,
    /// All, where none is named.
    pub faults: Vec<Fault>,
    /// Of the first round.
    pub seed: u64,
    /// How long to begin new rounds.
    pub duration: Duration,
    /// Whether each round is printed as it ends.
    pub tells_rounds: bool,
}

/// Plays rounds until the time is over, at least one.
///
/// # Errors
/// [`Error::Different`] where a round ended otherwise than it must; [`Error::Usage`] for a fault that cannot be
/// caused on a cluster that was named; [`Error::Failed`] where the drill itself fails.
pub fn drill(drilling: &Drilling, interrupt: &Interrupt) -> (Report, Result<()>) {
    let begun = Instant::now();
    let mut report = Report::default();
    let result = rounds(drilling, interrupt, begun, &mut report);
    report.elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let result =
        result.and_then(|()| if report.is_right() { Ok(()) } else { Err(Error::different(report.wrong())) });
    (report, result)
}

fn rounds(drilling: &Drilling, interrupt: &Interrupt, begun: Instant, report: &mut Report) -> Result<()> {
    let cluster = |e: anyhow::Error| Error::io("a cluster to drill on", format!("{e:#}"));
    let sandbox = drilling
        .cluster
        .as_deref()
        .map_or_else(|| Sandbox::start_own(drilling.brokers), Sandbox::connect)
        .map_err(cluster)?;
    tracing::info!("on Kafka at {} ({})", sandbox.bootstrap(), sandbox.backend());
    let is_ours = sandbox.backend() != Backend::Named;
    if let Some(fault) = drilling.faults.iter().find(|fault| !is_ours && !fault.is_of_clients()) {
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
    let scenarios = scenarios(&drilling.faults, is_ours);
    let duration = drilling.duration;
    for seed in drilling.seed.. {
        let turn = usize::try_from(seed).unwrap_or(0) % scenarios.len();
        let schedule = scenarios[turn].schedule(seed, drilling.records, report.brokers);
        let round = play(&mut stage, &schedule)?;
        if drilling.tells_rounds {
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
