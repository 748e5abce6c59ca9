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
    assert!(!follower.stderr().contains("scanned the target"), "{}", follower.stderr());
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
    let is_classic = protocol.ends_with("classic");
    // With KIP-848, the broker sets the timeout, and it is longer than a test waits.
    let options: &[&str] = if is_classic { DIES_SOON } else { &["-X", &protocol] };
    let first = stream.follow(options);
    first.until_says("following");
    let second = stream.follow(options);
    second.until_says("following");
    for round in 0..4 {
        copies.extend(later(200, 6, round));
        stream.produce(&later(200, 6, round));
    }
    stream.until_holds(&before, &copies);
    // The one leaves well, and the other takes its partitions over.
    first.stopped();
    copies.extend(later(200, 6, 9));
    stream.produce(&later(200, 6, 9));
    stream.until_holds(&before, &copies);
    if is_classic {
        second.killed();
    } else {
        second.stopped();
    }
    copies.extend(later(200, 6, 10));
    stream.produce(&later(200, 6, 10));
    let third = stream.follow(options);
    stream.until_holds(&before, &copies);
    third.stopped();
    stream.assert_holds(&before, &copies);
}
