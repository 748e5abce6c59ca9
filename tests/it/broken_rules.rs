//! What the model finds for programs that break a rule (`docs/model.md`), replayed on a real broker: with the rule, and
//! without. Rules whose breach only chance would show are the drill's.

use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};

use rstest::rstest;

use crate::kit::*;

/// Runs the main job with a pause after the scan, and does something meanwhile.
fn meanwhile(pair: &Pair, broken: &str, meanwhile: impl FnOnce()) -> Output {
    let mut command = pair.command(100);
    command.arg("-v").env("FAILPOINTS", format!("{broken};after-scan=sleep(10000)"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut log = BufReader::new(child.stderr.take().expect("piped")).lines().map(|line| line.expect("text"));
    assert!(log.any(|line| line.contains("identities that count for the window")));
    meanwhile();
    log.for_each(drop);
    child.wait_with_output().expect("ends")
}

/// The mutants `InitAfterScan` and `OwnIds`.
#[rstest]
#[case::kept("off=return", 5, 178)]
#[case::take_over_after_the_scan("break-take-over-first=return", 1, 2 * 178)]
#[case::ids_of_their_own("break-one-id=return", 1, 2 * 178)]
#[ignore = "takes a minute"]
fn a_rival_does_all_after_the_scan(#[case] broken: &str, #[case] exit: i32, #[case] held: usize) {
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(600, 1));
    let output = meanwhile(&pair, broken, || assert_eq!(pair.filled().counts.written, 178));
    assert_eq!((code(&output), consume(&pair.b).len()), (exit, held));
}

/// The mutant `NoLookForOthers`.
#[rstest]
#[case::kept("off=return", 1)]
#[case::no_look("break-look-for-others=return", 0)]
#[ignore = "takes a minute"]
fn somebody_else_adds_some_after_the_scan(#[case] broken: &str, #[case] exit: i32) {
    let pair = Pair::new(1, 1);
    let records = day(600, 1);
    produce(&pair.a, &records);
    let output = meanwhile(&pair, broken, || produce(&pair.b, &window_of(&records)[..10]));
    assert_eq!((code(&output), consume(&pair.b).len()), (exit, 188));
}

/// The mutant `TrustOtherJobs`.
#[rstest]
#[case::kept("off=return", 178)]
#[case::marks_of_other_windows("break-own-marks=return", 0)]
fn a_larger_window_comes_after_a_smaller_one(#[case] broken: &str, #[case] held: usize) {
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(600, 1));
    for window in ["03:00-03:01", "11:00-13:00"] {
        let mut command = replicator(&["--window", window, "--source", &pair.a, "--target", &pair.b]);
        let output = command.env("FAILPOINTS", broken).output().expect("runs");
        assert_eq!(code(&output), 0, "{}", stderr(&output));
    }
    assert_eq!(consume(&pair.b).len(), held);
}

/// The mutants `SourceEndsStable` and `TargetEndsStable`.
#[rstest]
#[case::kept("off=return", true, 1, 0)]
#[case::kept("off=return", false, 1, 10)]
#[case::source_ends_at_what_is_readable("break-high-watermarks=return", true, 0, 168)]
#[case::target_ends_at_what_is_readable("break-high-watermarks=return", false, 1, 188)]
fn a_transaction_is_open_at_the_end(
    #[case] broken: &str,
    #[case] in_source: bool,
    #[case] exit: i32,
    #[case] held: usize,
) {
    let pair = Pair::new(1, 1);
    let records = day(600, 1);
    let window = window_of(&records);
    let (some, others) = window.split_at(10);
    produce(&pair.a, others);
    let open = if in_source {
        Foreign::begin().send(&pair.a, some)
    } else {
        produce(&pair.a, some);
        Foreign::begin().send(&pair.b, some)
    };
    let mut command = pair.command(100);
    let output = command.args(["--patience", "1"]).env("FAILPOINTS", broken).output().expect("runs");
    assert_eq!(code(&output), exit, "{}", stderr(&output));
    open.commit();
    assert_eq!(consume(&pair.b).len(), held);
    if broken == "off=return" {
        pair.filled();
        assert_eq!(consume(&pair.b).len(), 178);
    }
}
