//! Positions that the brokers would forget.

use replicator::{Extras, Sandbox};

use super::*;

/// A broker forgets an offset that was not committed for `offsets.retention.minutes`. With KIP-848 it does so as soon as
/// the group is empty. A follow commits idle partitions too, so a later one goes on there without a scan.
#[test]
#[ignore = "takes a minute"]
fn idle_partitions_keep_their_positions() {
    let properties = [("offsets.retention.minutes", "1"), ("offsets.retention.check.interval.ms", "1000")];
    let properties = properties.map(|(key, value)| (key, value.to_owned())).to_vec();
    let sandbox = Sandbox::start_own_with(1, &Extras { properties, ..Extras::default() }).expect("a broker");
    let side = || Side(sandbox.bootstrap().to_owned());
    let stream = Stream { from: side(), to: side(), source: unique("a"), target: unique("b") };
    stream.from.create(&stream.source, 2, &[]);
    stream.to.create(&stream.target, 2, &[]);
    let records = placed(day(300, 1), 2);
    stream.produce(&records);
    let mut copies = from_eleven(&records);
    let options = ["-X", "group.protocol=consumer"];
    let follower = stream.follow(&options);
    follower.until_says("following");
    let began = Instant::now();
    for n in 0.. {
        if began.elapsed() > Duration::from_secs(75) {
            break;
        }
        let busy = record(0, DAY, "busy", &n.to_string());
        stream.produce(std::slice::from_ref(&busy));
        copies.push(busy);
        std::thread::sleep(Duration::from_secs(1));
    }
    stream.until_holds(&[], &copies);
    follower.stopped();
    // Whatever is older than its retention goes now.
    std::thread::sleep(Duration::from_secs(5));
    let group = format!("replicator/{}/{}", stream.source, stream.target);
    let committed = stream.to.committed(&group, &stream.source);
    assert!(committed.iter().all(|(_, mark)| mark.contains(" follow ")), "{committed:?}");
    let follower = stream.follow(&options);
    let idle = record(1, DAY, "idle", "no more");
    stream.produce(std::slice::from_ref(&idle));
    copies.push(idle);
    stream.until_holds(&[], &copies);
    assert!(!follower.stderr().contains("scanning the target"), "{}", follower.stderr());
    follower.stopped();
    stream.assert_holds(&[], &copies);
}
