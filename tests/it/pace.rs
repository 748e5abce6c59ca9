//! Rate limits, and trials of a few records. Whenever the run ends, the written records are right.

use std::process::{Output, Stdio};

use rstest::rstest;

use crate::kit::*;

fn wanted() -> usize {
    window_of(&day(2000, 2)).len()
}

fn pair() -> (Pair, Vec<Record>) {
    let pair = Pair::new(2, 2);
    let records = day(2000, 2);
    produce(&pair.a, &records);
    let before = outside_of(&records);
    produce(&pair.b, &before);
    (pair, before)
}

fn with(pair: &Pair, arguments: &[&str]) -> Output {
    pair.command(50_000).args(arguments).output().expect("runs")
}

#[rstest]
#[case::one("1", 1)]
#[case::some("100", 100)]
#[case::more_than_there_are("100000", 592)]
fn a_trial_stops_at_its_limit_and_a_run_without_it_goes_on(#[case] limit: &str, #[case] written: usize) {
    let (pair, before) = pair();
    assert_eq!(wanted(), 592);
    let output = with(&pair, &["--limit", limit]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let trial = receipt(&output);
    assert_eq!(trial["written"], written);
    assert_eq!(trial["complete"], written == wanted());
    assert_eq!(stderr(&output).contains("--limit"), written < wanted(), "{}", stderr(&output));
    assert_eq!(consume(&pair.b).len(), before.len() + written);
    if written < wanted() {
        assert_eq!(pair.verify().1.expect_err("not all is there").exit_code(), 4);
    }
    let rest = with(&pair, &[]);
    assert_eq!(code(&rest), 0, "{}", stderr(&rest));
    assert_eq!(receipt(&rest)["written"], wanted() - written);
    assert_eq!(receipt(&rest)["complete"], true);
    pair.assert_filled(&before);
}

#[test]
fn trials_one_after_the_other_fill_all() {
    let (pair, before) = pair();
    let mut left = wanted();
    while left > 0 {
        let output = pair.command(60).args(["--limit", "250"]).output().expect("runs");
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert_eq!(receipt(&output)["written"], left.min(250));
        left -= left.min(250);
    }
    pair.assert_filled(&before);
}

#[test]
fn a_plan_of_a_trial() {
    let (pair, _) = pair();
    let arguments =
        ["plan", "--window", "11:00-13:00", "--source", &pair.a, "--target", &pair.b, "--limit", "10"];
    let output = replicator(&arguments).args(["--output", "json"]).output().expect("runs");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(receipt(&output)["to_write"], 10);
}

/// A run that reaches its limit before the conflict succeeds. A run that gets to the conflict reports it.
#[test]
fn a_trial_before_a_conflict() {
    let pair = Pair::new(1, 1);
    let mut records = day(600, 1);
    let twice = Record { value: Some(b"other".to_vec()), ..window_of(&records)[5].clone() };
    records.push(twice);
    produce(&pair.a, &records);
    let output = with(&pair, &["--limit", "3"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(receipt(&output)["written"], 3);
    assert_eq!(code(&with(&pair, &["--limit", "1000"])), 1);
}

#[rstest]
#[case::records("2000/s")]
#[case::bytes("40kB/s")]
fn a_rate_changes_nothing_but_the_time(#[case] rate: &str) {
    let (pair, before) = pair();
    let output = with(&pair, &["--max-rate", rate]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(receipt(&output)["written"], wanted());
    pair.assert_filled(&before);
}

/// At this rate a run takes a minute, in transactions of a second. So the test can end it on the way.
#[rstest]
#[case::killed(nix::sys::signal::Signal::SIGKILL, None)]
#[case::interrupted(nix::sys::signal::Signal::SIGINT, Some(130))]
fn a_slow_run_that_is_ended_has_committed_and_the_next_goes_on(
    #[case] signal: nix::sys::signal::Signal,
    #[case] wanted_code: Option<i32>,
) {
    let (pair, before) = pair();
    let mut command = pair.command(50_000);
    command.args(["--max-rate", "10/s"]).stderr(Stdio::piped()).stdout(Stdio::piped());
    let child = command.spawn().expect("starts");
    let stable = || last_stable_offsets(&pair.b).iter().sum::<i64>();
    let without = i64::try_from(before.len()).expect("fits");
    until(|| stable() > without + 5);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a number"));
    nix::sys::signal::kill(pid, signal).expect("signalled");
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), wanted_code, "{}", stderr(&output));
    let rest = with(&pair, &[]);
    assert_eq!(code(&rest), 0, "{}", stderr(&rest));
    let written = receipt(&rest)["written"].as_u64().expect("a number");
    let all = wanted() as u64;
    assert!(0 < written && written < all, "{written} of {all}");
    pair.assert_filled(&before);
}

#[rstest]
#[case(&["--max-rate", "fast"])]
#[case(&["--max-rate", "0/s"])]
#[case(&["--limit", "0"])]
fn refused(#[case] arguments: &[&str]) {
    let output = replicator(&[&["--window", "11:00-13:00"], arguments].concat()).output().expect("runs");
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(stderr(&output).contains(arguments[0]), "{}", stderr(&output));
}

/// The limit does not count an aborted transaction. It counts the records that the run then writes again.
#[rstest]
#[case("abort=2*off->1*return->off")]
#[case("abort=4*off->1*return->off")]
fn a_trial_that_starts_up_again_keeps_to_its_limit(#[case] faults: &str) {
    let (pair, before) = pair();
    let mut command = pair.command(20);
    let output = command.args(["--limit", "100"]).env("FAILPOINTS", faults).output().expect("runs");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let trial = receipt(&output);
    assert_eq!((&trial["restarts"], &trial["aborted_transactions"]), (&1.into(), &1.into()), "{trial:?}");
    assert_eq!((&trial["written"], &trial["complete"]), (&100.into(), &false.into()));
    assert_eq!(consume(&pair.b).len(), before.len() + 100);
    assert_eq!(pair.filled().counts.written, wanted() as u64 - 100);
    pair.assert_filled(&before);
}
