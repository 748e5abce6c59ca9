//! Topics that get more partitions while they are followed.

use rstest::rstest;

use super::*;

#[rstest]
#[case::one_cluster(1)]
#[case::two_clusters(2)]
fn new_partitions_are_followed_from_their_beginning(#[case] clusters: usize) {
    let (stream, mut copies) = of_a_day(clusters, 2);
    let follower = stream.follow(&["--create-partitions", "-X", "topic.metadata.refresh.interval.ms=1000"]);
    follower.until_says("following");
    stream.from.grow(&stream.source, 4);
    // A record that is older than the window: after the joint, all is copied.
    let old = Record { partition: 3, time: DAY, ..record(3, DAY, "old", "{}") };
    copies.push(old.clone());
    stream.produce(&[old]);
    for round in 0..3 {
        copies.extend(later(100, 4, round));
        stream.produce(&later(100, 4, round));
    }
    stream.until_holds(&[], &copies);
    follower.stopped();
    stream.assert_holds(&[], &copies);
    assert_eq!(stream.to.watermarks(&stream.target).len(), 4);
    // Another run goes on in all four.
    let follower = stream.follow(&[]);
    copies.extend(later(100, 4, 7));
    stream.produce(&later(100, 4, 7));
    stream.until_holds(&[], &copies);
    assert!(!follower.stderr().contains("scanning the target"), "{}", follower.stderr());
    follower.stopped();
    stream.assert_holds(&[], &copies);
}

#[test]
fn without_a_partition_of_the_target_the_others_go_on() {
    let (stream, mut copies) = of_a_day(1, 1);
    let options = ["-X", "topic.metadata.refresh.interval.ms=1000"];
    let follower = stream.follow(&options);
    follower.until_says("following");
    stream.from.grow(&stream.source, 2);
    let (here, there) = (record(0, DAY, "a", "here"), record(1, DAY, "b", "there"));
    stream.produce(&[here.clone(), there.clone()]);
    copies.push(here);
    stream.until_holds(&[], &copies);
    follower.until_says("are not copied");
    stream.assert_holds(&[], &copies);
    // Once the target has the partition, nothing is missing.
    stream.to.grow(&stream.target, 2);
    copies.push(there);
    stream.until_holds(&[], &copies);
    follower.stopped();
    stream.assert_holds(&[], &copies);
}

/// The keys of the records before are placed by another number of partitions. Two instances share the work.
#[test]
fn partitions_that_were_added_while_nobody_followed_are_followed_too() {
    let (stream, mut copies) = of_a_day(1, 2);
    let follower = stream.follow(&[]);
    follower.until_says("following");
    follower.stopped();
    stream.from.grow(&stream.source, 3);
    stream.to.grow(&stream.target, 3);
    copies.extend(later(100, 3, 0));
    stream.produce(&later(100, 3, 0));
    let followers = [stream.follow(&[]), stream.follow(&[])];
    stream.until_holds(&[], &copies);
    copies.extend(later(100, 3, 1));
    stream.produce(&later(100, 3, 1));
    stream.until_holds(&[], &copies);
    followers.into_iter().for_each(|follower| drop(follower.stopped()));
    stream.assert_holds(&[], &copies);
}

/// No known partitioner placed the keys, so two instances could both fill a record. One can, and then others may join it.
#[test]
fn one_instance_fills_whatever_places_the_keys() {
    let stream = Stream::new(1, 2, 2);
    let records = day(300, 2);
    stream.produce(&records);
    let mut copies = from_eleven(&records);
    let first = stream.follow(&[]);
    first.until_says("following");
    let second = stream.follow(&[]);
    second.until_says("following");
    copies.extend(later(100, 2, 0));
    stream.produce(&later(100, 2, 0));
    stream.until_holds(&[], &copies);
    first.stopped();
    second.stopped();
    stream.assert_holds(&[], &copies);
}
