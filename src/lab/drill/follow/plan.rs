//! Makes the plan of a round of `--follow` from its seed. Pure.

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::lab::drill::data::Shape;
use crate::lab::drill::fault::Fault;
use crate::lab::drill::schedule::{Act, Moment, Schedule, Sides, Step, act};

/// How long the group waits for a member that is silent, in milliseconds.
pub(super) const SESSION: u64 = 6000;

/// The faults that a follow must survive.
const FAULTS: [Fault; 17] = {
    use Fault::*;
    [
        Kill, Terminate, Freeze, Outlive, Broker, Rolling, Cut, Slow, Silent, LateCommit, Grow, Stall,
        Reassign, Apart, Version, Disk, Clock,
    ]
};

/// A kind of round.
pub(in crate::lab::drill) struct Scenario {
    name: &'static str,
    faults: Vec<Fault>,
    acts: usize,
}

/// The plan of one round.
pub(in crate::lab::drill) struct Plan {
    pub(super) schedule: Schedule,
    pub(super) writers: usize,
    /// Whether the faults begin only once each partition is followed.
    pub(super) begins_level: bool,
    pub(super) is_kip_848: bool,
}

/// The scenarios, which take turns. Somebody else's copier has those that add no partitions.
pub(in crate::lab::drill) fn scenarios(chosen: &[Fault], is_ours: bool, is_copier: bool) -> Vec<Scenario> {
    use Fault::*;
    let scenario = |name, faults: &[Fault], acts| Scenario { name, faults: faults.to_vec(), acts };
    if !chosen.is_empty() {
        return vec![scenario("chosen", chosen, chosen.len().max(4))];
    }
    let mut all = vec![
        scenario("instances killed", &[Kill, Kill, Terminate, Kill], 7),
        scenario("instances frozen", &[Outlive, Freeze, Kill], 5),
        scenario("brokers bounced", &[Broker, Broker, Kill, Broker], 7),
        scenario("network", &[Cut, Silent, Slow, LateCommit, Kill], 7),
        scenario("brokers stalled", &[Stall, Kill, Apart, Stall, Reassign], 7),
        scenario("partitions added", &[Grow, Kill, Terminate, Grow, Broker], 6),
        scenario(
            "everything",
            &[Kill, Broker, Outlive, Grow, Silent, Terminate, LateCommit, Cut, Rolling, Slow, Freeze],
            11,
        ),
    ];
    all.retain(|scenario| is_ours || scenario.faults.iter().all(|fault| fault.is_of_clients()));
    all.retain(|scenario| unfit(&scenario.faults, is_copier).is_none());
    all
}

/// The first of these faults that no round of `--follow` has, or none of a copier.
pub(in crate::lab::drill) fn unfit(chosen: &[Fault], is_copier: bool) -> Option<Fault> {
    let is_fit = |fault| FAULTS.contains(fault) && !(is_copier && *fault == Fault::Grow);
    chosen.iter().find(|fault| !is_fit(fault)).copied()
}

impl Scenario {
    /// `records` is what the source holds before the writers begin. `brokers` is how many each cluster has.
    pub(in crate::lab::drill) fn plan(&self, seed: u64, records: usize, brokers: &[usize]) -> Plan {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let grows = self.faults.contains(&Fault::Grow);
        // With `--identity key`, a record of the writers would be a conflict below the joint.
        let by_count = grows || rng.random_bool(0.7);
        let (source_partitions, target_partitions) =
            *[(1, 1), (2, 2), (3, 3), (6, 6), (2, 3), (3, 1)].choose(&mut rng).unwrap_or(&(1, 1));
        let target_partitions = if by_count { source_partitions } else { target_partitions };
        let shape =
            Shape { source_partitions, target_partitions, records, whole: false, is_keyed: !by_count };
        let instances = rng.random_range(1..=3);
        let mut outlived = true;
        let steps = (0..self.acts).map(|number| {
            let fault = match self.faults.get(number) {
                Some(fault) => *fault,
                None => *self.faults.choose(&mut rng).unwrap_or(&Fault::Kill),
            };
            let moment = match rng.random_range(0..10) {
                0..3 => Moment::Millis(rng.random_range(0..3000)),
                _ => Moment::Records(rng.random_range(1..500)),
            };
            let sides = match brokers {
                [_, _] if fault != Fault::LateCommit => Sides::choose(&mut rng),
                _ => Sides::Target,
            };
            let act = match act(fault, brokers.last().copied().unwrap_or(1), &mut rng, &mut outlived) {
                Act::Freeze { .. } if fault == Fault::Outlive => {
                    Act::Freeze { millis: SESSION + rng.random_range(1000..6000) }
                }
                // Now and then, longer than a run that does not follow would wait.
                Act::Broker { which, hard, run_too, .. } if rng.random_bool(0.1) => {
                    let millis = 1000 * (PATIENCE + rng.random_range(2..8));
                    Act::Broker { which, hard, millis, run_too }
                }
                act => act,
            };
            Step { moment, sides, act }
        });
        let schedule = Schedule {
            seed,
            scenario: self.name,
            shape,
            transaction_records: 0,
            instances,
            by_count,
            steps: steps.collect(),
        };
        let transaction_records = *[20, 200, 5000].choose(&mut rng).unwrap_or(&200);
        Plan {
            schedule: Schedule { transaction_records, ..schedule },
            writers: rng.random_range(1..=3),
            begins_level: !by_count || rng.random_bool(0.85),
            is_kip_848: rng.random_bool(0.3),
        }
    }
}

impl Plan {
    /// The same faults for a copier that is alone, knows no window, and does not look into the target: it finds all records
    /// in the source and none in the target, and each of them is in the partition of its key.
    pub(in crate::lab::drill) fn of_copier(mut self) -> Plan {
        let Schedule { shape, instances, by_count, transaction_records, .. } = &mut self.schedule;
        (*instances, *by_count, *transaction_records) = (1, true, 0);
        *shape = Shape { target_partitions: shape.source_partitions, whole: true, is_keyed: true, ..*shape };
        self
    }
}

/// The `--patience` of the instances, in seconds.
pub(in crate::lab::drill) const PATIENCE: u64 = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_plan() {
        for (seed, scenario) in (0..).zip(scenarios(&[], true, false)) {
            let schedule = |seed| scenario.plan(seed, 10_000, &[1, 3]).schedule;
            assert_eq!(schedule(seed), schedule(seed));
            assert_ne!(schedule(seed), schedule(seed + 1));
        }
    }

    #[test]
    fn topics_grow_only_if_records_keep_their_partition() {
        let everything = &scenarios(&[], true, false)[6];
        for seed in 0..20 {
            let Schedule { shape, by_count, .. } = everything.plan(seed, 10_000, &[3]).schedule;
            assert!(by_count && shape.source_partitions == shape.target_partitions, "{seed}");
        }
    }

    #[test]
    fn it_knows_what_a_follow_can_suffer() {
        assert_eq!(unfit(&[Fault::Kill, Fault::Rival], false), Some(Fault::Rival));
        assert_eq!(unfit(&[Fault::Kill, Fault::Grow], true), Some(Fault::Grow));
        assert_eq!(scenarios(&[], true, false).len(), 7);
        let of_copier = scenarios(&[], true, true);
        assert_eq!(of_copier.len(), 5);
        assert!(of_copier.iter().all(|scenario| !scenario.faults.contains(&Fault::Grow)));
    }
}
