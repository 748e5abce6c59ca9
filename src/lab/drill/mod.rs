//! Recovery drills. They run the real program as a child process on a real cluster, cause faults by a seeded schedule, and
//! then compare every record.

mod anomalies;
mod compare;
mod data;
pub(crate) mod fault;
mod follow;
mod groups;
pub mod proxy;
mod readings;
mod report;
mod round;
mod run;
mod schedule;
mod stage;
mod tail;
pub mod topics;
pub mod watch;
mod wire;

use std::io::Write;
use std::time::{Duration, Instant};

use self::fault::Fault;
pub(crate) use self::report::Report;
use self::round::play;
use self::schedule::scenarios;
use self::stage::Stage;
use crate::base::error::{Error, Result};
use crate::base::interrupt::Interrupt;
use crate::base::time::millis;
use crate::kafka::properties::Properties;
use crate::lab::sandbox::Backend;
use crate::lab::tidy;

/// The options of a drill.
pub struct Drilling {
    /// Somebody else's cluster, whose brokers must not be broken. Without it, the drill starts a cluster.
    pub cluster: Option<String>,
    /// One cluster for both topics, or two: one for each.
    pub clusters: usize,
    /// The brokers of the cluster that the drill starts, or of the target's cluster: 1 or 3.
    pub brokers: usize,
    /// The records of the source.
    pub records: usize,
    /// The faults to cause; all of them if the list is empty.
    pub faults: Vec<Fault>,
    /// Whether the runs follow the source, and writers write to it all the time.
    pub follow: bool,
    /// Somebody else's copier, which is drilled as a follow: its program and its arguments, with placeholders for the topics
    /// and the brokers. Empty for this program.
    pub copier: Vec<String>,
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
    let mut report = Report { command: drilling.copier.first().cloned(), ..Report::default() };
    let result = rounds(drilling, interrupt, begun, &mut report);
    report.elapsed_ms = millis(begun.elapsed());
    let result =
        result.and_then(|()| if report.is_right() { Ok(()) } else { Err(Error::different(report.wrong())) });
    (report, result)
}

/// Removes what the round of `seed` left on a named cluster.
fn remove_from(cluster: &Option<String>, seed: u64) -> Result<()> {
    let properties = Properties::new(cluster.as_deref(), None, std::iter::empty(), &[])?;
    let (source, target) = topics_of(seed);
    tidy::remove(&properties, &[&source, &target])
}

/// The names of the source and the target of the round of `seed`.
fn topics_of(seed: u64) -> (String, String) {
    let suffix = format!("{seed}-{}", std::process::id());
    // MirrorMaker puts such a prefix before the source's name, and can only copy to this name in the same cluster.
    (format!("drill-{suffix}"), format!("copy.drill-{suffix}"))
}

fn rounds(drilling: &Drilling, interrupt: &Interrupt, begun: Instant, report: &mut Report) -> Result<()> {
    let name = |fault: &Fault| {
        clap::ValueEnum::to_possible_value(fault).map_or(String::new(), |value| value.get_name().to_owned())
    };
    let is_copier = !drilling.copier.is_empty();
    let follows = drilling.follow || is_copier;
    if let Some(fault) = follow::unfit(&drilling.faults, is_copier).filter(|_| follows) {
        let what = if is_copier { "of a command" } else { "with --follow" };
        return Err(Error::usage(format!("--faults {}: a drill {what} does not cause it", name(&fault))));
    }
    let mut stage = Stage::open(drilling, interrupt)?;
    let is_ours = stage.backend() != Backend::Named;
    if let Some(fault) = drilling.faults.iter().find(|fault| !is_ours && !fault.is_of_clients()) {
        return Err(Error::usage(format!(
            "--faults {}: a drill does not break the brokers of a named cluster; leave out --bootstrap-server",
            name(fault)
        )));
    }
    let brokers = stage.brokers();
    report.clusters = brokers.len();
    report.brokers = brokers.iter().sum();
    report.backend = stage.backend().to_string();
    let scenarios = scenarios(&drilling.faults, is_ours, report.clusters);
    let of_follow = follow::scenarios(&drilling.faults, is_ours, is_copier);
    let duration = drilling.duration;
    for seed in drilling.seed.. {
        let turn = usize::try_from(seed).unwrap_or(0);
        let round = if follows {
            let plan = of_follow[turn % of_follow.len()].plan(seed, drilling.records, &brokers);
            let plan = if is_copier { plan.of_copier() } else { plan };
            follow::play(&mut stage, &plan, &drilling.copier)
        } else {
            let schedule = scenarios[turn % scenarios.len()].schedule(seed, drilling.records, &brokers);
            play(&mut stage, &schedule)
        };
        if !is_ours {
            // Topics of a round that went wrong too: the same seed makes them again.
            remove_from(&drilling.cluster, seed)
                .unwrap_or_else(|err| tracing::warn!("topics and groups are left there: {err}"));
        }
        let round = round?;
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
