//! Topics that live on while they are followed.

use rstest::rstest;

use super::*;

/// The group soon misses an instance that died.
const DIES_SOON: &[&str] = &["-X", "session.timeout.ms=6000"];

#[rstest]
#[case::one_cluster(1)]
#[case::two_clusters(2)]
fn it_closes_the_gap_and_keeps_it_closed(#[case] clusters: usize) {
    let stream = Stream::new(clusters, 3, 3);
    let (records, before) = story(&stream, 3);
    let mut copies = from_eleven(&records);

    let follower = stream.follow(&[]);
    follower.until_says("following");
    stream.assert_holds(&before, &copies);
    copies.extend(later(500, 3, 1));
    stream.produce(&later(500, 3, 1));
    stream.until_holds(&before, &copies);
    let answer = follower.stopped();
    assert_eq!(answer["followed"], 500, "{answer}");
    stream.assert_holds(&before, &copies);

    // While it is away, more comes. The same command goes on without a scan and without the window's date.
    copies.extend(later(500, 3, 2));
    stream.produce(&later(500, 3, 2));
    let follower = stream.follow(&[]);
    stream.until_holds(&before, &copies);
    assert!(!follower.stderr().contains("scanning the target"), "{}", follower.stderr());
    assert_eq!(follower.stopped()["written"], 500);
    stream.assert_holds(&before, &copies);
}

#[rstest]
#[case::classic("classic")]
#[case::kip_848("consumer")]
fn instances_share_it_and_take_over(#[case] protocol: &str) {
    let stream = Stream::new(1, 6, 6);
    let (records, before) = story(&stream, 6);
    let mut copies = from_eleven(&records);
    let protocol = format!("group.protocol={protocol}");
    // With KIP-848, the broker sets the timeout.
    let options: &[&str] = if protocol.ends_with("classic") { DIES_SOON } else { &["-X", &protocol] };
    let first = stream.follow(options);
    first.until_says("following");
    let second = stream.follow(options);
    // It follows nothing until the group has moved partitions.
    let follows_some = |rest: &str| rest.starts_with(|first: char| first.is_ascii_digit());
    within_minutes(|| second.stderr().split("in the partitions [").skip(1).any(follows_some));
    for round in 0..4 {
        copies.extend(later(200, 6, round));
        stream.produce(&later(200, 6, round));
    }
    stream.until_holds(&before, &copies);
    // The one leaves well, and the other takes its partitions over.
    let followed = first.stopped()["followed"].as_u64();
    assert!((1..800).contains(&followed.unwrap_or(0)), "both had a share: {followed:?}");
    copies.extend(later(200, 6, 9));
    stream.produce(&later(200, 6, 9));
    stream.until_holds(&before, &copies);
    second.killed();
    copies.extend(later(200, 6, 10));
    stream.produce(&later(200, 6, 10));
    let third = stream.follow(options);
    stream.until_holds(&before, &copies);
    third.stopped();
    stream.assert_holds(&before, &copies);
}
