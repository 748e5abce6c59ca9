//! A follow that ends says why.

use super::*;

#[test]
fn a_fill_does_not_replace_the_positions_of_a_follow() {
    let stream = Stream::new(1, 3, 3);
    let (_, before) = story(&stream, 3);
    let follower = stream.follow(&[]);
    follower.until_says("following");
    follower.stopped();
    for options in [&["--scale-out"][..], &[]] {
        let mut fill = stream.command(&["--window", "11:00-13:00", "--output", "json"]);
        let fill = fill.args(options).output().expect("runs");
        assert_eq!(code(&fill), 3, "{}", stderr(&fill));
        assert_eq!(receipt(&fill)["error"]["reason"], "followed");
    }
    stream.produce(&later(20, 3, 0));
    for (arguments, told) in [
        (&["plan", "--window", "11:00-13:00"][..], "a run would be refused: a run with --follow has"),
        (&["gaps"], "a fill would be refused: a run with --follow has"),
        (&["gaps", "--identity", "record"], "a fill would be refused: a run with --follow has"),
    ] {
        let output = stream.command(arguments).args(["--output", "json"]).output().expect("runs");
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert!(receipt(&output)["warnings"].to_string().contains(told), "{}", stderr(&output));
    }
    let records = stream.from.consume(&stream.source);
    let follower = stream.follow(&[]);
    stream.until_holds(&before, &from_eleven(&records));
    follower.stopped();
    stream.assert_holds(&before, &from_eleven(&records));
}

#[test]
fn a_record_that_the_target_refuses_is_named_and_all_before_it_is_there() {
    let (stream, mut copies) = of_a_day(1, 1);
    stream.to.alter(&stream.target, "max.message.bytes", "20000");
    let follower = stream.follow(&[]);
    follower.until_says("following");
    copies.extend(later(40, 1, 0));
    let large = record(0, DAY, "large", &"x".repeat(30_000));
    stream.produce(&[later(40, 1, 0), vec![large], later(40, 1, 1)].concat());
    let (code, answer, stderr) = follower.ended();
    assert_eq!((code, &answer["error"]["reason"]), (1, &"refused-records".into()), "{stderr}");
    let place = format!("{}-0@340", stream.source);
    assert!(stderr.contains(&place), "{place}: {stderr}");
    stream.assert_holds(&[], &copies);
    // Once the target takes it, the same command goes on.
    stream.to.alter(&stream.target, "max.message.bytes", "2000000");
    let follower = stream.follow(&[]);
    copies.push(record(0, DAY, "large", &"x".repeat(30_000)));
    copies.extend(later(40, 1, 1));
    stream.until_holds(&[], &copies);
    follower.stopped();
    stream.assert_holds(&[], &copies);
}

#[test]
fn a_record_that_no_copy_can_equal_is_named_and_all_before_it_is_there() {
    let (stream, mut copies) = of_a_day(1, 1);
    let follower = stream.follow(&[]);
    follower.until_says("following");
    copies.extend(later(40, 1, 0));
    stream.produce(&later(40, 1, 0));
    crate::raw::produce_at(&stream.source, 0, "of 1970", "{}");
    stream.produce(&later(40, 1, 1));
    let (code, answer, stderr) = follower.ended();
    assert_eq!((code, &answer["error"]["reason"]), (1, &"invalid-records".into()), "{stderr}");
    assert!(stderr.contains("partition 0 offset 340") && stderr.contains("--skip-invalid"), "{stderr}");
    stream.assert_holds(&[], &copies);
    let follower = stream.follow(&["--skip-invalid"]);
    copies.extend(later(40, 1, 1));
    stream.until_holds(&[], &copies);
    assert_eq!(follower.stopped()["invalid"], 1);
    stream.assert_holds(&[], &copies);
}

#[test]
fn a_topic_that_is_made_anew_ends_it() {
    for is_source in [true, false] {
        let stream = Stream::new(2, 1, 1);
        stream.produce(&placed(day(300, 1), 1));
        let follower = stream.follow(&[]);
        follower.until_says("following");
        let (side, topic) =
            if is_source { (&stream.from, &stream.source) } else { (&stream.to, &stream.target) };
        side.delete(topic);
        side.create(topic, 1, &[]);
        stream.produce(&later(20, 1, 0));
        let (code, answer, stderr) = follower.ended();
        assert_eq!((code, &answer["error"]["reason"]), (1, &"topic-changed".into()), "{stderr}");
    }
}

#[test]
fn records_that_were_deleted_before_they_were_copied_end_it() {
    let stream = Stream::new(1, 1, 1);
    stream.produce(&placed(day(300, 1), 1));
    let follower = stream.follow(&[]);
    follower.until_says("following");
    follower.stopped();
    // The window itself may be gone: it is filled.
    stream.from.trim(&stream.source, 0, 300);
    let follower = stream.follow(&[]);
    follower.until_says("following");
    follower.stopped();
    stream.produce(&later(20, 1, 0));
    stream.from.trim(&stream.source, 0, 310);
    let (code, answer, stderr) = stream.follow(&[]).ended();
    assert_eq!((code, &answer["error"]["reason"]), (1, &"records-deleted".into()), "{stderr}");
    assert!(stderr.contains("--delete-offsets"), "{stderr}");
}

#[test]
fn a_reversed_job_is_refused() {
    for clusters in [1, 2] {
        let stream = Stream::new(clusters, 1, 1);
        stream.produce(&placed(day(300, 1), 1));
        let follower = stream.follow(&[]);
        follower.until_says("following");
        let back = Stream {
            from: stream.to.clone(),
            to: stream.from.clone(),
            source: stream.target.clone(),
            target: stream.source.clone(),
        };
        let (code, answer, stderr) = back.follow(&[]).ended();
        assert_eq!((code, &answer["error"]["reason"]), (3, &"reversed-job".into()), "{stderr}");
        follower.stopped();
        let records = stream.from.consume(&stream.source);
        assert_eq!(records.len(), 300, "no copy came back");
        stream.assert_holds(&[], &from_eleven(&records));
    }
}

#[test]
fn what_contradicts_it_is_refused() {
    for (arguments, fix) in [
        (&["--window", "11:00-13:00", "--follow"][..], "must have no end"),
        (&["--window", "11:00-", "--follow"], "a start with a date"),
        (&["--window", "11:00-", "--follow", "--limit", "5"], "--limit"),
        (&["--window", "11:00-", "--follow", "--target-scan", "all"], "--target-scan"),
        (&["--window", "11:00-", "--follow", "--identity", "value"], "--identity key"),
        (&["--window", "11:00-", "--follow", "--max-out-of-orderness", "1m"], "--max-out-of-orderness"),
        (&["--window", "11:00-", "--max-out-of-orderness", "1m"], "needs an end"),
        (&["--window", "11:00-13:00", "--max-out-of-orderness", "soon"], "200ms"),
        (&["--window", "11:00-", "--commit-interval", "1s"], "--follow"),
        (&["--window", "11:00-", "--follow", "--commit-interval", "1h"], "at least every 10 s"),
        (&["--window", "11:00-", "--follow", "--commit-interval", "soon"], "200ms"),
    ] {
        let output = replicator(arguments).output().expect("runs");
        assert_eq!(code(&output), 2, "{}", stderr(&output));
        assert!(stderr(&output).contains(fix), "{}", stderr(&output));
    }
}
