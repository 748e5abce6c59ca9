//! Makes the schedule of a round's faults from its seed. Pure.

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::data::Shape;
use super::fault::Fault;
use crate::kafka::sides::Side;

/// The sides that a fault hits, in this order. With one cluster, this is the target's side, unless a topic is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sides {
    Source,
    Target,
    SourceFirst,
    TargetFirst,
}

impl Sides {
    /// Chooses for a fault that one cluster can suffer alone, or both.
    pub(super) fn choose(rng: &mut ChaCha8Rng) -> Sides {
        match rng.random_range(0..10) {
            0..4 => Sides::Source,
            4..8 => Sides::Target,
            8 => Sides::SourceFirst,
            _ => Sides::TargetFirst,
        }
    }

    pub fn each(self) -> &'static [Side] {
        match self {
            Sides::Source => &[Side::Source],
            Sides::Target => &[Side::Target],
            Sides::SourceFirst => &[Side::Source, Side::Target],
            Sides::TargetFirst => &[Side::Target, Side::Source],
        }
    }

    /// The only or first side.
    pub fn first(self) -> Side {
        self.each()[0]
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
    Freeze {
        millis: u64,
    },
    Broker {
        which: Which,
        hard: bool,
        millis: u64,
        run_too: bool,
    },
    Rolling,
    Stall {
        which: Which,
        millis: u64,
    },
    Apart {
        which: Which,
        millis: u64,
    },
    /// Each log may grow by so many bytes more than the longest one has.
    Disk {
        which: Which,
        bytes: u64,
        millis: u64,
    },
    /// The clock differs by so many seconds from the others'.
    Clock {
        which: Which,
        seconds: i64,
        millis: u64,
    },
    Version {
        which: Which,
    },
    /// Says which broker's records are lost.
    Unclean {
        turn: usize,
    },
    /// Each partition gets this many replicas, and `turn` says on which brokers.
    Reassign {
        turn: usize,
        replicas: usize,
    },
    Cut,
    Slow {
        delay_millis: u64,
        millis: u64,
    },
    Silent {
        requests: bool,
        responses: bool,
        millis: u64,
        then_cut: bool,
    },
    LateCommit {
        millis: u64,
    },
    Rival,
    Foreign {
        records: usize,
        millis: u64,
        commits: bool,
    },
    Append {
        records: usize,
    },
    Forget,
    /// The new topic has so many records, in percent of the records that the source had at first.
    Anew {
        percent: usize,
    },
    Ledger,
    /// Each partition loses so many percent of its log.
    Trim {
        percent: usize,
    },
    Grow {
        millis: u64,
    },
    Mirror {
        records: usize,
    },
    Leave,
}

/// One fault of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub moment: Moment,
    pub sides: Sides,
    pub act: Act,
}

/// The plan of one round: its topics, and the faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub seed: u64,
    pub scenario: &'static str,
    pub shape: Shape,
    /// 0 if the drill does not know.
    pub transaction_records: usize,
    /// How many runs share the work.
    pub instances: usize,
    /// Whether runs count equal records (`--identity record`). Otherwise a record is its key.
    pub by_count: bool,
    pub steps: Vec<Step>,
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

/// How far a clock is set, in seconds: past a transaction's timeout, and past the eight days in which Kafka forgets the positions of a
/// group, a transactional id and a producer's sequence numbers.
const CLOCKS: [i64; 5] = [-1800, -70, 70, 3600, 8 * 24 * 3600];

/// The scenarios, which take turns. The last two of one cluster are those of Kafka's own `transactions_test.py`.
pub(crate) fn scenarios(chosen: &[Fault], is_ours: bool, clusters: usize) -> Vec<Scenario> {
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
        scenario("brokers stalled", &[Stall, Kill, Stall, Broker, Kill], 8, None),
        scenario("brokers apart", &[Apart, Kill, Apart, Broker, Kill], 8, None),
        scenario("replicas moved", &[Reassign, Kill, Reassign, Kill, Broker, Terminate], 14, None),
        scenario("records deleted", &[Trim, Kill, Append, Trim, Kill, Terminate], 8, None),
        scenario("disks full", &[Disk, Kill, Disk, Kill, Broker, Terminate], 8, None),
        scenario("transactions_test", &bounces, 12, Some((2, 3, 100_000))),
        scenario("check_order", &bounces, 12, Some((1, 1, 33_333))),
    ];
    if clusters > 1 {
        all.extend([
            scenario("topics made anew", &[Anew, Kill, Anew, Broker, Append], 6, None),
            scenario("ledger deleted", &[Ledger, Kill, Ledger, Broker, Kill, Terminate], 9, None),
            scenario("partitions added", &[Grow, Kill, Broker, Grow, Kill], 7, None),
            scenario("instances", &[ScaleOut, Kill, ScaleOut, Broker, Kill, Freeze, Cut], 12, None),
            scenario("live mirror", &[Mirror, Kill, Mirror, Freeze, Broker], 9, None),
            scenario(
                "everything on both sides",
                &[Kill, Broker, Cut, Foreign, Silent, LateCommit, Forget, Ledger, Anew, Append, Kill, Broker],
                15,
                None,
            ),
        ]);
    }
    all.retain(|scenario| is_ours || scenario.faults.iter().all(|fault| fault.is_of_clients()));
    all
}

impl Scenario {
    /// `records` is the size of the source, unless the scenario sets its own size. `brokers` is how many each cluster has:
    /// the one cluster, or the source's and the target's.
    pub(crate) fn schedule(&self, seed: u64, records: usize, brokers: &[usize]) -> Schedule {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // A generator of their own, so that one cluster and two get the same schedule.
        let mut of_sides = ChaCha8Rng::seed_from_u64(!seed);
        let has = |fault| self.faults.contains(&fault);
        let instances = if has(Fault::ScaleOut) { of_sides.random_range(2..=3) } else { 1 };
        let by_count = has(Fault::Mirror) || (instances > 1 && of_sides.random_bool(0.5));
        let mut shape = match self.shape {
            Some((source_partitions, target_partitions, records)) => {
                Shape { source_partitions, target_partitions, records, whole: true, is_keyed: false }
            }
            None => {
                let (source_partitions, target_partitions) =
                    *[(1, 1), (2, 2), (3, 3), (3, 3), (2, 3), (3, 1)].choose(&mut rng).unwrap_or(&(1, 1));
                Shape { source_partitions, target_partitions, records, whole: false, is_keyed: false }
            }
        };
        // Instances that count equal records refuse different numbers of partitions. So does a topic that grew, because
        // its keys are then placed in two ways.
        if (instances > 1 && by_count) || has(Fault::Grow) {
            shape.target_partitions = shape.source_partitions;
        }
        shape.is_keyed = shape.source_partitions != shape.target_partitions || (instances > 1 && !by_count);
        // About how many records a fill must write. Transactions are small enough that many faults hit an open one.
        let to_write = if shape.whole { shape.records } else { shape.records / 4 };
        let transactions = rng.random_range(10..60);
        let transaction_records = (to_write / transactions).max(5);
        let mut steps = Vec::new();
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
            // A run takes the topics' ends soon after its start.
            let moment =
                if fault == Fault::Mirror { Moment::Millis(rng.random_range(0..900)) } else { moment };
            let sides = match (brokers, fault) {
                (_, Fault::Anew | Fault::Grow | Fault::Reassign) | ([_, _], Fault::Foreign) => {
                    *[Sides::Source, Sides::Target].choose(&mut of_sides).unwrap_or(&Sides::Target)
                }
                ([_, _], fault) if fault != Fault::LateCommit => Sides::choose(&mut of_sides),
                _ => Sides::Target,
            };
            let act = act(fault, brokers.last().copied().unwrap_or(1), &mut rng, &mut outlived);
            steps.push(Step { moment, sides, act });
        }
        Schedule { seed, scenario: self.name, shape, transaction_records, instances, by_count, steps }
    }
}

pub(super) fn act(fault: Fault, brokers: usize, rng: &mut ChaCha8Rng, outlived: &mut bool) -> Act {
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
            which: which(brokers, rng),
            hard: rng.random_bool(0.5),
            millis: rng.random_range(0..2500),
            run_too: rng.random_bool(0.4),
        },
        Fault::Rolling => Act::Rolling,
        // Now and then longer than a broker's session, so that others take over.
        Fault::Stall => Act::Stall { which: which(brokers, rng), millis: rng.random_range(200..9000) },
        Fault::Apart => Act::Apart { which: which(brokers, rng), millis: rng.random_range(200..9000) },
        Fault::Disk => Act::Disk {
            which: which(brokers, rng),
            bytes: rng.random_range(1..5000),
            millis: rng.random_range(0..2500),
        },
        Fault::Clock => Act::Clock {
            which: which(brokers, rng),
            seconds: *CLOCKS.choose(rng).unwrap_or(&0),
            millis: rng.random_range(1500..6000),
        },
        Fault::Unclean => Act::Unclean { turn: rng.random_range(0..brokers) },
        Fault::Version => Act::Version { which: which(brokers, rng) },
        Fault::Reassign => Act::Reassign {
            turn: rng.random_range(0..brokers),
            replicas: rng.random_range(2..=3).min(brokers),
        },
        Fault::Trim => Act::Trim { percent: rng.random_range(1..100) },
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
        Fault::Anew => Act::Anew { percent: rng.random_range(40..160) },
        Fault::Ledger => Act::Ledger,
        Fault::Grow => Act::Grow { millis: rng.random_range(0..1500) },
        Fault::Mirror => Act::Mirror { records: rng.random_range(1..30) },
        Fault::ScaleOut => Act::Leave,
    }
}

fn which(brokers: usize, rng: &mut ChaCha8Rng) -> Which {
    match rng.random_range(0..6) {
        0 => Which::TransactionCoordinator,
        1 => Which::GroupCoordinator,
        2 => Which::SourceLeader,
        3 => Which::TargetLeader,
        _ => Which::Number(rng.random_range(0..brokers)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_schedule() {
        for (seed, scenario) in (0..).zip(scenarios(&[], true, 2)) {
            let steps = |seed| scenario.schedule(seed, 10_000, &[1, 3]).steps;
            assert_eq!(steps(seed), steps(seed));
            assert_ne!(steps(seed), steps(seed + 1));
        }
    }

    #[test]
    fn each_side_is_hit() {
        let hit: Vec<Sides> = scenarios(&[Fault::Broker], true, 2)[0]
            .schedule(3, 10_000, &[1, 3])
            .steps
            .iter()
            .map(|step| step.sides)
            .collect();
        assert!(hit.contains(&Sides::Source) && hit.contains(&Sides::Target), "{hit:?}");
        let one = scenarios(&[Fault::Broker], true, 1)[0].schedule(3, 10_000, &[3]);
        assert!(one.steps.iter().all(|step| step.sides == Sides::Target));
    }

    #[test]
    fn no_broker_of_others_is_broken() {
        let scenarios = scenarios(&[], false, 1);
        assert!(scenarios.iter().any(|scenario| scenario.name == "rivals"));
        for scenario in scenarios {
            for step in scenario.schedule(1, 10_000, &[3]).steps {
                assert!(!matches!(
                    step.act,
                    Act::Broker { .. } | Act::Rolling | Act::Cut | Act::Silent { .. }
                ));
            }
        }
    }

    #[test]
    fn each_chosen_fault_is_caused() {
        let scenario = &scenarios(&[Fault::Cut, Fault::Rival], true, 1)[0];
        let steps = scenario.schedule(7, 10_000, &[3]).steps;
        for act in [Act::Cut, Act::Rival] {
            assert!(steps.iter().any(|step| step.act == act), "{act:?}");
        }
    }
}
