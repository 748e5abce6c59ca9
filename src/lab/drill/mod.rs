//! Recovery drills. They run the real program as a child process on a real cluster, cause faults by a seeded schedule, and
//! then compare every record.

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
use crate::base::time::millis;
use crate::lab::sandbox::{Backend, Sandbox};

/// The options of a drill.
pub struct Drilling {
    /// Somebody else's cluster, whose brokers must not be broken. Without it, the drill starts a cluster.
    pub cluster: Option<String>,
    /// The brokers of the cluster that the drill starts: 1 or 3.
    pub brokers: usize,
    /// The records of the source.
    pub records: usize,
    /// The faults to cause; all of them if the list is empty.
    pub faults: Vec<Fault>,
    /// The seed of the first round.
    pub seed: u64,
    /// For how long to begin new rounds.
    pub duration: Duration,
    /// Whether to print each round when it ends.
    pub tells_rounds: bool,
}

/// Plays rounds until the time is over, at least one.
///
/// # Errors
/// [`Error::Different`] if something went wrong in a round; [`Error::Usage`] if a fault cannot be caused on the named
/// cluster; [`Error::Failed`] if the drill itself fails.
pub fn drill(drilling: &Drilling, interrupt: &Interrupt) -> (Report, Result<()>) {
    let begun = Instant::now();
    let mut report = Report::default();
    let result = rounds(drilling, interrupt, begun, &mut report);
    report.elapsed_ms = millis(begun.elapsed());
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
            "--faults {}: a drill does not break the brokers of a named cluster; leave out --bootstrap-server",
            clap::ValueEnum::to_possible_value(fault)
                .map_or(String::new(), |value| value.get_name().to_owned())
        )));
    }
    let proxies = sandbox
        .back_doors()
        .iter()
        .map(Proxy::start)
        .collect::<std::io::Result<_>>()
        .map_err(|e| Error::io("a proxy in front of the brokers", e))?;
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
            // println! would panic if the reader is gone.
            let _ = writeln!(std::io::stdout(), "{round}\n");
        }
        report.rounds.push(round);
        if begun.elapsed() >= duration {
            break;
        }
    }
    Ok(())
}
