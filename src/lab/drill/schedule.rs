//! Makes the schedule of a round's faults from its seed. Pure.

use clap::ValueEnum;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::data::Shape;

/// A fault of a run, of the cluster, or of the network between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// Kill the run with kill -9
    Kill,
    /// Send SIGTERM to the run
    Terminate,
    /// Send SIGSTOP to the run, and SIGCONT a moment later
    Freeze,
    /// Send SIGSTOP for longer than a transaction may be open, then SIGCONT
    Outlive,
    /// Kill or stop one broker, and start it again
    Broker,
    /// Stop and start all brokers, one after the other
    Rolling,
    /// Cut all connections
    Cut,
    /// Delay all requests and responses
    Slow,
    /// Hold back all requests, all responses, or both
    Silent,
    /// Deliver a commit long after its sender has given up on it
    LateCommit,
    /// Start a second run of the same job
    Rival,
    /// Open another producer's transaction in the target
    Foreign,
    /// Add records of the window to the source
    Append,
    /// Delete the committed offsets between two runs
    Forget,
}

impl Fault {
    /// Whether a drill can cause it on a named cluster, without breaking brokers.
    pub fn is_of_clients(self) -> bool {
        use Fault::*;
        matches!(self, Kill | Terminate | Freeze | Outlive | Rival | Foreign | Append | Forget)
    }
}

/// When an act begins, counted from the end of the act before or from the start of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    Millis(u64),
    /// Once this many more records are readable in the target.
    Records(usize),
}

/// The broker that a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Number(usize),
    TransactionCoordinator,
    GroupCoordinator,
    SourceLeader,
    TargetLeader,
}

/// A fault with all its details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    Kill,
    Terminate,
    Freeze { millis: u64 },
    Broker { which: Which, hard: bool, millis: u64, run_too: bool },
    Rolling,
    Cut,
    Slow { delay_millis: u64, millis: u64 },
    Silent { requests: bool, responses: bool, millis: u64, then_cut: bool },
    LateCommit { millis: u64 },
    Rival,
    Foreign { records: usize, millis: u64, commits: bool },
    Append { records: usize },
    Forget,
}

/// The plan of one round: its topics, and the faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub seed: u64,
    pub scenario: &'static str,
    pub shape: Shape,
    pub transaction_records: usize,
    pub acts: Vec<(Moment, Act)>,
}

/// A kind of round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Scenario {
    pub name: &'static str,
    #[serde(skip)]
    faults: Vec<Fault>,
    #[serde(skip)]
    acts: usize,
    /// Partitions of the source and the target, and the number of records, which are then all in the window.
    #[serde(skip)]
    shape: Option<(usize, usize, usize)>,
}

/// In milliseconds. This is longer than a transaction may be open, and leaves the coordinator time to notice.
const OUTLIVES: u64 = 64_000;

/// The scenarios, which take turns. The last two are those of Kafka's own `transactions_test.py`.
pub(crate) fn scenarios(chosen: &[Fault], is_ours: bool) -> Vec<Scenario> {
    use Fault::*;
    let scenario =
        |name, faults: &[Fault], acts, shape| Scenario { name, faults: faults.to_vec(), acts, shape };
    if !chosen.is_empty() {
        return vec![scenario("chosen", chosen, 8, None)];
    }
    let bounces = [Kill, Broker, Kill, Terminate, Broker, Kill, Kill];
    let mut all = vec![
        scenario("runs killed", &[Kill, Kill, Kill, Kill, Kill, Kill, Terminate], 45, None),
        scenario("runs frozen", &[Freeze, Kill, Freeze, Kill, Terminate], 10, None),
        scenario("runs outlived", &[Outlive, Kill, Kill], 3, None),
        scenario("brokers bounced", &[Broker, Kill, Broker, Kill, Kill], 10, None),
        scenario("network", &[Cut, Kill, Slow, Silent, LateCommit, Kill, Kill], 12, None),
        scenario("rivals", &[Rival, Kill, Foreign, Kill], 12, None),
        scenario("moving ground", &[Append, Kill, Forget, Kill], 14, None),
        scenario(
            "everything",
            &[
                Kill, Kill, Terminate, Freeze, Broker, Rolling, Cut, Slow, Silent, LateCommit, Rival,
                Foreign, Append, Forget,
            ],
            16,
            None,
        ),
        scenario("transactions_test", &bounces, 12, Some((2, 3, 100_000))),
        scenario("check_order", &bounces, 12, Some((1, 1, 33_333))),
    ];
    all.retain(|scenario| is_ours || scenario.faults.iter().all(|fault| fault.is_of_clients()));
    all
}

impl Scenario {
    /// `records` is the size of the source, unless the scenario sets its own size.
    pub(crate) fn schedule(&self, seed: u64, records: usize, brokers: usize) -> Schedule {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let shape = match self.shape {
            Some((source_partitions, target_partitions, records)) => {
                Shape { source_partitions, target_partitions, records, whole: true }
            }
            None => {
                let (source_partitions, target_partitions) =
                    *[(1, 1), (2, 2), (3, 3), (3, 3), (2, 3), (3, 1)].choose(&mut rng).unwrap_or(&(1, 1));
                Shape { source_partitions, target_partitions, records, whole: false }
            }
        };
        // About how many records a fill must write. Transactions are small enough that many faults hit an open one.
        let to_write = if shape.whole { shape.records } else { shape.records / 4 };
        let transactions = rng.random_range(10..60);
        let transaction_records = (to_write / transactions).max(5);
        let mut acts = Vec::new();
        let mut outlived = false;
        for number in 0..self.acts {
            // Each fault comes once, and then by chance.
            let fault = match self.faults.get(number) {
                Some(fault) => *fault,
                None => *self.faults.choose(&mut rng).unwrap_or(&Fault::Kill),
            };
            let moment = match rng.random_range(0..10) {
                0..4 => Moment::Millis(rng.random_range(0..900)),
                _ => Moment::Records(rng.random_range(1..(to_write / self.acts).max(2))),
            };
            let act = act(fault, brokers, &mut rng, &mut outlived);
            acts.push((moment, act));
        }
        Schedule { seed, scenario: self.name, shape, transaction_records, acts }
    }
}

fn act(fault: Fault, brokers: usize, rng: &mut ChaCha8Rng, outlived: &mut bool) -> Act {
    match fault {
        Fault::Kill => Act::Kill,
        Fault::Terminate => Act::Terminate,
        // Once is enough, because it takes a minute.
        Fault::Outlive if !*outlived => {
            *outlived = true;
            Act::Freeze { millis: OUTLIVES }
        }
        Fault::Freeze | Fault::Outlive => Act::Freeze { millis: rng.random_range(50..2000) },
        Fault::Broker => Act::Broker {
            which: match rng.random_range(0..6) {
                0 => Which::TransactionCoordinator,
                1 => Which::GroupCoordinator,
                2 => Which::SourceLeader,
                3 => Which::TargetLeader,
                _ => Which::Number(rng.random_range(0..brokers)),
            },
            hard: rng.random_bool(0.5),
            millis: rng.random_range(0..2500),
            run_too: rng.random_bool(0.4),
        },
        Fault::Rolling => Act::Rolling,
        Fault::Cut => Act::Cut,
        Fault::Slow => {
            Act::Slow { delay_millis: rng.random_range(5..150), millis: rng.random_range(500..3000) }
        }
        Fault::Silent => {
            let way = rng.random_range(0..3);
            Act::Silent {
                requests: way != 0,
                responses: way != 1,
                millis: rng.random_range(500..5000),
                then_cut: rng.random_bool(0.5),
            }
        }
        Fault::LateCommit => Act::LateCommit { millis: rng.random_range(500..4000) },
        Fault::Rival => Act::Rival,
        Fault::Foreign => Act::Foreign {
            records: rng.random_range(1..20),
            millis: rng.random_range(100..2500),
            commits: rng.random_bool(0.5),
        },
        Fault::Append => Act::Append { records: rng.random_range(1..500) },
        Fault::Forget => Act::Forget,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_schedule() {
        for (seed, scenario) in (0..).zip(scenarios(&[], true)) {
            assert_eq!(scenario.schedule(seed, 10_000, 3), scenario.schedule(seed, 10_000, 3));
            assert_ne!(scenario.schedule(seed, 10_000, 3).acts, scenario.schedule(seed + 1, 10_000, 3).acts);
        }
    }

    #[test]
    fn no_broker_of_others_is_broken() {
        let scenarios = scenarios(&[], false);
        assert!(scenarios.iter().any(|scenario| scenario.name == "rivals"));
        for scenario in scenarios {
            for (_, act) in scenario.schedule(1, 10_000, 3).acts {
                assert!(!matches!(act, Act::Broker { .. } | Act::Rolling | Act::Cut | Act::Silent { .. }));
            }
        }
    }

    #[test]
    fn each_chosen_fault_is_caused() {
        let scenario = &scenarios(&[Fault::Cut, Fault::Rival], true)[0];
        let acts = scenario.schedule(7, 10_000, 3).acts;
        assert!(
            acts.iter().any(|(_, act)| *act == Act::Cut) && acts.iter().any(|(_, act)| *act == Act::Rival)
        );
    }
}
