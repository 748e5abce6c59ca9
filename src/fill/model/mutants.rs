//! Programs that break one rule of the protocol. The checker finds for each how it goes wrong.

use std::time::Instant;

use rstest::rstest;
use stateright::{Checker, HasDiscoveries, Model};

use super::properties::{DONE, IN_ORDER, INVARIANTS, NO_WAIT, NOTHING_EXTRA, NOTHING_TWICE, POSITIONS, TOLD};
use super::{Action, World};
use crate::job::identity::Identity;

/// A step that is left out, moved, or done wrongly. Behind the dash is what replays it on a real broker, if something does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutant {
    /// Takes the transactional id over only before the copy — `Rule::TakeOverFirst`.
    InitAfterScan,
    /// Asks for the positions before it takes the id over.
    PositionsBeforeInit,
    /// Takes the target's ends before it takes the id over.
    TargetEndsBeforeInit,
    /// Takes the source's ends before the target's — `Rule::TargetEndsFirst`.
    SourceEndsFirst,
    /// Takes the target's last stable offsets for its ends — `Rule::HighWatermarks`.
    TargetEndsStable,
    /// Takes the source's last stable offsets for its ends — `Rule::HighWatermarks`.
    SourceEndsStable,
    /// Scans only what is readable, instead of waiting for the rest.
    TargetNotStable,
    /// Copies only what is readable, instead of waiting for the rest.
    SourceNotStable,
    /// Takes records for held that are not committed — `Rule::ReadCommitted`.
    ReadUncommittedTarget,
    /// Copies records that are not committed — `Rule::ReadCommitted`.
    ReadUncommittedSource,
    /// Each run has a transactional id of its own — `Rule::OneId`.
    OwnIds,
    /// Commits positions before the transaction — `Rule::OffsetsInTransaction`.
    OffsetsOutside,
    /// Keeps positions in the source's cluster — `Rule::PositionsInTarget`.
    PositionsInSource,
    /// Takes committed positions without waiting for those of open transactions.
    UnstablePositions,
    /// Goes on behind a commit that got no answer — `Rule::ResumeFromCommitted`.
    ResumeFromDoubt,
    /// Keeps a producer that lost a connection — `Rule::ReplaceProducer`.
    KeepProducer,
    /// Writes what the target holds — `Rule::Dedup`.
    NoDedup,
    /// Does not scan the target — `Rule::ScanWithoutMark`.
    NoScanWithoutMark,
    /// Trusts the marks of a job with another window — `Rule::OwnMarks`.
    TrustOtherJobs,
    /// Takes an open mark at the end for done.
    TrustOpenMarks,
    /// Is done before its last records are readable.
    NotReadable,
    /// Is done without a look for records of others — `Rule::LookForOthers`.
    NoLookForOthers,
}

use Mutant::*;

/// A short way to break one of the properties.
fn finds(mutant: Mutant, world: World, properties: &[&'static str]) -> Option<Vec<Action>> {
    let began = Instant::now();
    let world = World { mutant: Some(mutant), ..world };
    let checker = world
        .checker()
        .finish_when(HasDiscoveries::AnyOf(properties.iter().copied().collect()))
        .spawn_bfs()
        .join();
    let states = checker.unique_state_count();
    let found = properties.iter().find_map(|property| Some(checker.discovery(property)?.into_actions()));
    let length = found.as_ref().map(Vec::len);
    println!("{mutant:?}: {length:?} steps, {states} states, {:?}: {found:?}", began.elapsed());
    found
}

/// What a mutant must not break.
const SAFETY: &[&str] = &[NOTHING_TWICE, NOTHING_EXTRA, IN_ORDER, POSITIONS, DONE, TOLD, INVARIANTS, NO_WAIT];

#[rstest]
#[case(InitAfterScan, World::rivals(), NOTHING_TWICE)]
#[case(TargetEndsBeforeInit, World { runs: 2, ..World::by_count() }, NOTHING_TWICE)]
#[case(SourceEndsFirst, World::mirrored(Identity::Record), DONE)]
#[case(TargetEndsStable, World::foreign(Identity::Key), NOTHING_TWICE)]
#[case(SourceEndsStable, World::foreign(Identity::Key), DONE)]
#[case(TargetNotStable, World::foreign(Identity::Key), NOTHING_TWICE)]
#[case(SourceNotStable, World::foreign(Identity::Key), DONE)]
#[case(ReadUncommittedTarget, World::foreign(Identity::Key), DONE)]
#[case(ReadUncommittedSource, World::foreign(Identity::Key), NOTHING_EXTRA)]
#[case(OwnIds, World::rivals(), NOTHING_TWICE)]
#[case(OffsetsOutside, World::by_key(), POSITIONS)]
#[case(PositionsInSource, World::by_key(), POSITIONS)]
#[case(ResumeFromDoubt, World { faults: 1, ..World::by_key() }, POSITIONS)]
#[case(KeepProducer, World { faults: 1, crashes: 1, ..World::by_key() }, POSITIONS)]
#[case(NoDedup, World::by_count(), NOTHING_TWICE)]
#[case(NoScanWithoutMark, World { crashes: 1, forgets: 1, ..World::by_key() }, NOTHING_TWICE)]
#[case(TrustOtherJobs, World::two_windows(), DONE)]
#[case(TrustOpenMarks, World { crashes: 1, ..World::mirrored(Identity::Key) }, TOLD)]
#[case(NotReadable, World { strangers: 1, ..World::by_key() }, DONE)]
#[case(NoLookForOthers, World::mirrored(Identity::Record), TOLD)]
fn is_found(#[case] mutant: Mutant, #[case] world: World, #[case] property: &'static str) {
    assert!(finds(mutant, world, &[property]).is_some());
}

/// The scan of the target makes up for these in a fill. They cost a second reading at most.
#[rstest]
#[case(PositionsBeforeInit, World::rivals())]
#[case(UnstablePositions, World::rivals())]
fn does_no_harm(#[case] mutant: Mutant, #[case] world: World) {
    assert_eq!(finds(mutant, world, SAFETY), None);
}

/// With KIP-890 a delayed request ends no later transaction.
#[test]
fn kip_890_replaces_a_rule() {
    let world = World { faults: 1, crashes: 1, has_kip_890: true, ..World::by_key() };
    assert_eq!(finds(KeepProducer, world, SAFETY), None);
}
