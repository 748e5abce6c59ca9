//! The worlds that are checked, and the tests that check them.

use std::time::Instant;

use rstest::rstest;
use stateright::{Checker, Model};

use super::{Seed, World};
use crate::job::Rules;
use crate::job::identity::Identity;
use crate::kafka::mark::Fingerprint;

use Seed::{Copy, Of, Open, OpenCopy};

/// All keys.
const ALL: u8 = u8::MAX;

impl World {
    /// Three records that the target lacks, and no fault.
    pub(super) fn new(identity: Identity) -> World {
        World {
            rules: Rules::by(identity),
            source: [&[Of(0), Of(1)], &[Of(2)]],
            target: [&[], &[]],
            windows: [ALL, ALL],
            runs: 1,
            crashes: 0,
            faults: 0,
            forgets: 0,
            live: &[],
            strangers: 0,
            has_kip_890: false,
            mutant: None,
            jobs: ["one", "other"].map(|job| Fingerprint::of(&[job.to_owned()])),
        }
    }

    pub(super) fn by_key() -> World {
        World::new(Identity::Key)
    }

    /// A run that copies two records.
    pub(super) fn two_records() -> World {
        World { source: [&[Of(0)], &[Of(2)]], ..World::by_key() }
    }

    /// Two runs that copy two records.
    pub(super) fn rivals() -> World {
        World { runs: 2, ..World::two_records() }
    }

    /// With equal records, one of which the target holds.
    pub(super) fn by_count() -> World {
        World {
            source: [&[Of(0), Of(0)], &[Of(0)]],
            target: [&[Copy(0, 0)], &[]],
            ..World::new(Identity::Record)
        }
    }

    /// Both topics have an open transaction of somebody else, who mirrors.
    pub(super) fn foreign(identity: Identity) -> World {
        World {
            source: [&[Of(0), Open(1)], &[Of(2)]],
            target: [&[OpenCopy(0, 0)], &[]],
            ..World::new(identity)
        }
    }

    /// While the run is at work, a record comes that equals an earlier one, and somebody else mirrors it.
    pub(super) fn mirrored(identity: Identity) -> World {
        World { source: [&[Of(0)], &[Of(2)]], live: &[(0, 0)], ..World::new(identity) }
    }

    /// The first run has a smaller window.
    pub(super) fn two_windows() -> World {
        World { windows: [0b101, ALL], runs: 2, ..World::by_key() }
    }
}

/// Checks a world to its end: without a counterexample, the checker stops only when it has seen all states.
fn check(world: World) {
    let began = Instant::now();
    let checker = world.checker().threads(2).spawn_dfs().join();
    let states = (checker.state_count(), checker.unique_state_count());
    println!(
        "{} states, {} distinct, depth {}, {:?}",
        states.0,
        states.1,
        checker.max_depth(),
        began.elapsed()
    );
    checker.assert_properties();
}

/// What a run does alone, whatever goes wrong once.
#[rstest]
#[case::by_key(World { crashes: 1, faults: 1, ..World::by_key() })]
#[case::by_count(World { crashes: 1, faults: 1, ..World::by_count() })]
#[case::kip_890(World { crashes: 1, faults: 1, has_kip_890: true, ..World::by_key() })]
#[case::foreign_transactions(World { crashes: 1, ..World::foreign(Identity::Key) })]
#[case::foreign_transactions_by_count(World { crashes: 1, ..World::foreign(Identity::Record) })]
#[case::mirrored(World { crashes: 1, ..World::mirrored(Identity::Key) })]
#[case::mirrored_by_count(World { crashes: 1, ..World::mirrored(Identity::Record) })]
#[case::forgotten(World { crashes: 1, forgets: 1, ..World::by_key() })]
#[case::strangers(World { crashes: 1, strangers: 1, ..World::by_key() })]
#[case::two_runs(World { runs: 2, ..World::by_key() })]
#[case::two_runs_by_count(World { runs: 2, ..World::by_count() })]
#[case::two_runs_mirrored(World { runs: 2, ..World::mirrored(Identity::Key) })]
#[case::two_windows(World::two_windows())]
fn holds(#[case] world: World) {
    check(world);
}

/// The full bound, and the others by themselves beside two runs, a crash and a fault.
#[rstest]
#[case::by_count(World { runs: 2, crashes: 2, faults: 1, ..World::by_count() })]
#[case::by_key(World { runs: 2, crashes: 2, faults: 1, ..World::by_key() })]
#[case::foreign_transactions(World { runs: 2, crashes: 1, faults: 1, ..World::foreign(Identity::Key) })]
#[case::forgotten(World { runs: 2, crashes: 1, faults: 1, forgets: 1, ..World::by_key() })]
#[case::kip_890(World { runs: 2, crashes: 1, faults: 1, has_kip_890: true, ..World::by_key() })]
#[case::mirrored(World { runs: 2, crashes: 1, faults: 1, ..World::mirrored(Identity::Key) })]
#[case::mirrored_by_count(World { runs: 2, crashes: 1, faults: 1, ..World::mirrored(Identity::Record) })]
#[case::two_windows(World { crashes: 1, faults: 1, ..World::two_windows() })]
#[ignore = "takes half an hour"]
fn holds_at_the_full_bound(#[case] world: World) {
    check(world);
}
