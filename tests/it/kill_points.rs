//! A run dies at each instant of the protocol, and the next run completes the fill.

use std::os::unix::process::ExitStatusExt;
use std::process::Output;

use rstest::rstest;

use crate::kit::*;

/// How many transactions the copy of [`a_run_that_dies`] takes. The mark at its end takes one more.
const TRANSACTIONS: usize = 6;

#[rstest]
#[case::before_init("before-init", 1)]
#[case::after_init("after-init", 1)]
#[case::after_the_committed_offsets("after-committed", 1)]
#[case::after_the_snapshot("after-snapshot", 1)]
#[case::after_the_wait("after-wait", 1)]
#[case::after_the_scan("after-scan", 1)]
#[case::before_the_first_begin("before-begin", 1)]
#[case::after_the_first_begin("after-begin", 1)]
#[case::before_the_first_send("before-send", 1)]
#[case::after_the_first_send("after-send", 1)]
#[case::in_mid_transaction("after-send", 150)]
#[case::before_the_last_send_of_a_transaction("before-send", 200)]
#[case::after_the_last_send_of_a_transaction("after-send", 200)]
#[case::before_send_offsets("before-send-offsets", 1)]
#[case::after_send_offsets("after-send-offsets", 1)]
#[case::after_the_first_commit("after-commit", 1)]
#[case::before_the_next_begin("before-begin", 2)]
#[case::after_the_next_begin("after-begin", 2)]
#[case::before_later_offsets("before-send-offsets", 3)]
#[case::after_later_offsets("after-send-offsets", 3)]
#[case::after_a_later_commit("after-commit", 3)]
#[case::after_the_last_commit("after-commit", TRANSACTIONS)]
#[case::after_the_copy("after-copy", 1)]
#[case::after_the_close("after-close", 1)]
#[case::before_the_mark_is_begun("before-begin", TRANSACTIONS + 1)]
#[case::after_the_mark_is_begun("after-begin", TRANSACTIONS + 1)]
#[case::before_the_mark("before-send-offsets", TRANSACTIONS + 1)]
#[case::after_the_mark_before_its_commit("after-send-offsets", TRANSACTIONS + 1)]
#[case::after_the_mark("after-commit", TRANSACTIONS + 1)]
fn a_run_that_dies(#[case] instant: &str, #[case] pass: usize) {
    let pair = Pair::new(2, 2);
    let records = day(2000, 2);
    produce(&pair.a, &records);
    let before: Vec<Record> = [&outside_of(&records)[..100], &window_of(&records)[..40]].concat();
    produce(&pair.b, &before);

    let passes = if pass > 1 { format!("{}*off->", pass - 1) } else { String::new() };
    let run = || {
        let mut command = pair.command(100);
        command.env("FAILPOINTS", format!("{instant}={passes}return")).output().expect("runs")
    };
    let killed = |output: &Output| output.status.signal() == Some(9);
    let first = run();
    assert!(killed(&first), "it passes this instant: {}", stderr(&first));
    // The first run may have left too little work for the second one to reach this instant again.
    let second = run();
    assert!(killed(&second) || second.status.success(), "{}", stderr(&second));
    let output = pair.command(100).output().expect("runs");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    pair.assert_filled(&before);
}
