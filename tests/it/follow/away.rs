//! A cluster that is away never ends a follow.

use replicator::Sandbox;

use super::*;

#[test]
#[ignore = "takes a minute"]
fn a_cluster_that_is_away_is_waited_for() {
    let mut sandboxes = Sandbox::start_two(1, 1).expect("two brokers");
    let [from, to] = [0, 1].map(|n: usize| Side(sandboxes[n].bootstrap().to_owned()));
    let stream = Stream { from, to, source: unique("a"), target: unique("b") };
    stream.from.create(&stream.source, 2, &[]);
    stream.to.create(&stream.target, 2, &[]);
    let records = placed(day(300, 1), 2);
    stream.produce(&records);
    let mut copies = from_eleven(&records);
    // Its patience is over long before the cluster is back.
    let follower = stream.follow(&["--patience", "1"]);
    follower.until_says("following");
    for away in [0, 1] {
        sandboxes[away].stop(0).expect("stopped");
        follower.until_says(&format!("the {} cluster", ["source", "target"][away]));
        std::thread::sleep(std::time::Duration::from_secs(5));
        sandboxes[away].restart(0).expect("started");
        copies.extend(later(100, 2, away));
        stream.produce(&later(100, 2, away));
        stream.until_holds(&[], &copies);
    }
    // Nothing is pending, so it can be ended while the target is away.
    sandboxes[1].stop(0).expect("stopped");
    std::thread::sleep(std::time::Duration::from_secs(3));
    let answer = follower.stopped();
    assert_eq!(answer["followed"], 200, "{answer}");
    sandboxes[1].restart(0).expect("started");
    stream.assert_holds(&[], &copies);
}
