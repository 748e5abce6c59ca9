use std::collections::HashMap;

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::job::OnConflict;

fn rules(identity: Identity, target_scan: TargetScan) -> Rules {
    Rules { identity, on_conflict: OnConflict::Fail, skip_invalid: false, target_scan }
}

fn judge(identity: Identity, target_scan: TargetScan) -> Judge {
    Judge::new(&rules(identity, target_scan), 1 << 20)
}

/// Spread as hashes are.
fn hash(n: u64) -> u64 {
    let n = (n ^ n >> 31).wrapping_mul(0x7fb5_d329_728e_a185);
    (n ^ n >> 27).wrapping_mul(0x81da_def4_bc2d_d44d) ^ n >> 33
}

/// A record of an identity, a content and a time.
fn signature(identity: u64, content: u64, time: u64) -> Signature {
    let loose = hash(identity * 1_000_003 + content * 1009 + 7);
    Signature {
        identity: [hash(identity + 1), hash(identity + 77)],
        exact: hash(loose ^ hash(time + 13)),
        loose,
    }
}

fn seen(signature: Signature, is_in_window: bool) -> Sighting {
    Sighting { signature, is_in_window, has_identity: true, ..Sighting::default() }
}

#[rstest]
#[case(TargetScan::Window, signature(1, 1, 1), Verdict::AlreadyInTarget)]
#[case(TargetScan::Window, signature(1, 1, 2), Verdict::Conflict)]
#[case(TargetScan::Window, signature(1, 2, 1), Verdict::Conflict)]
#[case(TargetScan::Window, signature(2, 1, 1), Verdict::New)]
#[case(TargetScan::All, signature(1, 1, 1), Verdict::AlreadyInTarget)]
#[case(TargetScan::All, signature(1, 1, 2), Verdict::UnderAnotherTime)]
#[case(TargetScan::All, signature(1, 2, 1), Verdict::Conflict)]
#[case(TargetScan::All, signature(2, 1, 1), Verdict::New)]
fn against_the_target(#[case] scan: TargetScan, #[case] record: Signature, #[case] verdict: Verdict) {
    let mut judge = judge(Identity::Key, scan);
    judge.target(signature(1, 1, 1)).expect("room");
    judge.target(signature(1, 1, 1)).expect("room");
    assert_eq!(judge.duplicates_in_target(true), 1);
    assert_eq!(judge.holds(record), verdict == Verdict::AlreadyInTarget);
    assert_eq!(judge.source(record).expect("room"), verdict);
}

#[test]
fn within_the_source() {
    let mut judge = judge(Identity::Key, TargetScan::Window);
    assert_eq!(judge.source(signature(1, 1, 1)).expect("room"), Verdict::New);
    assert_eq!(judge.source(signature(1, 1, 1)).expect("room"), Verdict::DuplicateInSource);
    assert_eq!(judge.source(signature(1, 2, 1)).expect("room"), Verdict::Conflict);
    assert_eq!(judge.source(signature(2, 2, 1)).expect("room"), Verdict::New);
}

#[test]
fn each_of_the_contents_of_an_identity_is_found() {
    let mut judge = judge(Identity::Key, TargetScan::Window);
    (0..1000).for_each(|content| judge.target(signature(1, content, 1)).expect("room"));
    for content in (0..1000).rev() {
        assert_eq!(judge.source(signature(1, content, 1)).expect("room"), Verdict::AlreadyInTarget);
        assert_eq!(judge.source(signature(1, content, 1)).expect("room"), Verdict::DuplicateInSource);
    }
    assert_eq!(judge.source(signature(1, 1000, 1)).expect("room"), Verdict::Conflict);
}

#[test]
fn a_stamped_copy_stands_for_one_record_and_a_true_one_for_no_other() {
    let mut judge = judge(Identity::Key, TargetScan::All);
    judge.target(signature(1, 1, 10)).expect("room");
    judge.target(signature(2, 1, 99)).expect("room");
    judge.explain(&seen(signature(1, 1, 10), false)).expect("room");
    judge.explain(&seen(signature(2, 1, 12), true)).expect("room");
    assert_eq!(judge.source(signature(1, 1, 12)).expect("room"), Verdict::New);
    assert_eq!(judge.source(signature(2, 1, 12)).expect("room"), Verdict::UnderAnotherTime);
    assert_eq!(judge.source(signature(2, 1, 12)).expect("room"), Verdict::DuplicateInSource);
    assert_eq!(judge.source(signature(2, 1, 13)).expect("room"), Verdict::Conflict);
}

/// The source has one record in the window, and two outside of it that differ from it only in timestamp. The target's
/// copies have other timestamps.
#[rstest]
#[case::of_none(0, Verdict::New)]
#[case::of_one_of_them(1, Verdict::Conflict)]
#[case::of_two_of_them(2, Verdict::Conflict)]
#[case::of_all(3, Verdict::UnderAnotherTime)]
#[case::and_one_more(4, Verdict::UnderAnotherTime)]
fn whose_copies_they_are(
    #[case] copies: u64,
    #[case] wanted: Verdict,
    #[values(Identity::Key, Identity::Record)] identity: Identity,
) {
    let mut judge = judge(identity, TargetScan::All);
    (0..copies).for_each(|n| judge.target(signature(1, 1, 90 + n)).expect("room"));
    for (time, is_in_window) in [(10, false), (12, true), (14, false)] {
        judge.explain(&seen(signature(1, 1, time), is_in_window)).expect("room");
    }
    assert_eq!(judge.source(signature(1, 1, 12)).expect("room"), wanted);
}

#[test]
fn refuses_to_outgrow_its_memory() {
    let mut judge = judge(Identity::Key, TargetScan::Window);
    let outcome = (0..1 << 20).find_map(|n| judge.source(signature(n, n, n)).err());
    let message = outcome.expect("refused").to_string();
    assert!(message.contains("--index-memory"), "{message}");
}

#[test]
fn reserves_what_its_memory_allows() {
    let mut judge = Judge::new(&rules(Identity::Key, TargetScan::Window), 2 << 20);
    judge.reserve(usize::MAX);
    judge.reserve(50_000);
    (0..50_000).for_each(|n| assert!(judge.source(signature(n, n, n)).is_ok()));
}

type Plain = (u64, u64, u64);

/// How many of the source's records the target lacks, by definition.
fn lacking(target: &[Plain], source: &[Plain]) -> u64 {
    let mut left: HashMap<Plain, u64> = HashMap::new();
    target.iter().for_each(|record| *left.entry(*record).or_default() += 1);
    let lacks = |record: &&Plain| match left.get_mut(*record) {
        Some(copies) if *copies > 0 => {
            *copies -= 1;
            false
        }
        _ => true,
    };
    source.iter().filter(lacks).count() as u64
}

fn few_records() -> impl Strategy<Value = Vec<Plain>> {
    prop::collection::vec((0_u64..4, 0_u64..3, 0_u64..3), 0..30)
}

proptest! {
    #[test]
    fn counts_as_a_multiset_does(target in few_records(), source in few_records()) {
        let mut judge = judge(Identity::Record, TargetScan::Window);
        target.iter().for_each(|(i, c, t)| judge.target(signature(*i, *c, *t)).expect("room"));
        let new = source.iter().filter(|(i, c, t)| judge.source(signature(*i, *c, *t)).expect("room") == Verdict::New);
        prop_assert_eq!(new.count() as u64, lacking(&target, &source));
    }

    /// A fill stops at a conflict. After any other verdict, the target holds the record just once.
    #[test]
    fn what_is_in_the_target_is_found_and_nothing_else(target in few_records(), source in few_records()) {
        let mut judge = judge(Identity::Key, TargetScan::Window);
        target.iter().for_each(|(i, c, t)| judge.target(signature(*i, *c, *t)).expect("room"));
        let mut seen: Vec<Plain> = Vec::new();
        for record in &source {
            let verdict = judge.source(signature(record.0, record.1, record.2)).expect("room");
            let wanted = if seen.contains(record) {
                Verdict::DuplicateInSource
            } else if target.contains(record) {
                Verdict::AlreadyInTarget
            } else if target.iter().chain(&seen).any(|(identity, ..)| *identity == record.0) {
                Verdict::Conflict
            } else {
                Verdict::New
            };
            prop_assert_eq!(verdict, wanted);
            if wanted != Verdict::Conflict {
                seen.push(*record);
            }
        }
    }

    /// Each copy with another timestamp stands for one record, and never for a record that has an exact copy.
    #[test]
    fn stamped_copies_are_counted_once(stamps in prop::collection::vec((0_u64..3, 0_u64..2), 0..12), source in few_records()) {
        let mut judge = judge(Identity::Record, TargetScan::All);
        let stamped = stamps.iter().zip(100..).map(|((i, c), t)| (*i, *c, t));
        let all: Vec<Plain> = stamped.chain(source.iter().step_by(2).copied()).collect();
        all.iter().for_each(|(i, c, t)| judge.target(signature(*i, *c, *t)).expect("room"));
        source.iter().for_each(|(i, c, t)| judge.explain(&seen(signature(*i, *c, *t), true)).expect("room"));
        let mut left: HashMap<(u64, u64), u64> = HashMap::new();
        stamps.iter().for_each(|stamp| *left.entry(*stamp).or_default() += 1);
        let mut exact: HashMap<Plain, u64> = HashMap::new();
        source.iter().step_by(2).for_each(|record| *exact.entry(*record).or_default() += 1);
        for record in &source {
            let take = |copies: Option<&mut u64>| copies.filter(|n| **n > 0).map(|n| *n -= 1).is_some();
            let wanted = if take(exact.get_mut(record)) {
                Verdict::AlreadyInTarget
            } else if take(left.get_mut(&(record.0, record.1))) {
                Verdict::UnderAnotherTime
            } else {
                Verdict::New
            };
            prop_assert_eq!(judge.source(signature(record.0, record.1, record.2)).expect("room"), wanted);
        }
    }
}
