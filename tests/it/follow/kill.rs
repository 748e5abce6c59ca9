//! A follow dies at each instant of the protocol, and the next one goes on.

use std::os::unix::process::ExitStatusExt;

use rstest::rstest;

use super::*;

/// The instants of a commit with the number 5 come after the joint.
#[rstest]
#[case::before_the_joint("before-joint", 1)]
#[case::after_the_joints_offsets("after-send-offsets", 2)]
#[case::after_a_record("after-send", 900)]
#[case::after_the_offsets("after-send-offsets", 5)]
#[case::after_a_commit("after-commit", 5)]
fn a_follow_that_dies(#[case] instant: &str, #[case] pass: usize) {
    let stream = Stream::new(1, 2, 2);
    let records = placed(day(600, 1), 2);
    stream.produce(&records);
    let mut copies = from_eleven(&records);
    let passes = if pass > 1 { format!("{}*off->", pass - 1) } else { String::new() };
    // Some of the users' records come before the joint, and a fill would take their keys for identities.
    let options = ["--identity", "record", "-X", "session.timeout.ms=6000"];
    let mut command = stream.follow_command(&options);
    let mut first = Follower::start(command.env("FAILPOINTS", format!("{instant}={passes}return")));
    let mut round = 0;
    within_minutes(|| {
        copies.extend(later(50, 2, round));
        stream.produce(&later(50, 2, round));
        round += 1;
        first.child.try_wait().expect("waits").is_some()
    });
    assert_eq!(first.child.wait().expect("ended").signal(), Some(9), "{}", first.stderr());
    let second = stream.follow(&options);
    second.until_says("following");
    stream.until_holds(&[], &copies);
    second.stopped();
    stream.assert_holds(&[], &copies);
}
