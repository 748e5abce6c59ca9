//! A follow tells where it stands.

use std::net::SocketAddr;

use super::*;
use crate::observe;

/// The status and the body of an answer; `None` if nobody answers.
fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let (head, body) = observe::get(address, path)?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body))
}

#[test]
fn another_writer_is_counted_and_told() {
    let (stream, mut copies) = of_a_day(1, 2);
    let address = observe::free_address();
    let follower = stream.follow(&["--metrics-listen", &address.to_string()]);
    follower.until_says("following");
    // Its own records, markers and aborts are no stranger's.
    for round in 0..3 {
        copies.extend(later(50, 2, round));
        stream.produce(&later(50, 2, round));
        stream.until_holds(&[], &copies);
        std::thread::sleep(std::time::Duration::from_millis(1200));
    }
    let (status, body) = get(address, "/healthz").expect("an answer");
    assert_eq!((status, body.contains("\"follow\"")), (200, true), "{body}");
    let strange = record(0, DAY, "stranger", "{}");
    stream.to.produce(&stream.target, std::slice::from_ref(&strange));
    within_minutes(|| get(address, "/healthz").is_some_and(|(status, _)| status == 503));
    let (_, body) = get(address, "/healthz").expect("an answer");
    assert!(body.contains("somebody else has written"), "{body}");
    assert_eq!(get(address, "/livez").expect("an answer").0, 200);
    let (_, metrics) = get(address, "/metrics").expect("an answer");
    let has = |name: &str, value: &str| {
        metrics
            .lines()
            .any(|line| line.starts_with(&format!("{name}{{command=\"follow\",")) && line.ends_with(value))
    };
    assert!(has("replicator_foreign_offsets_total", "\"} 1"), "{metrics}");
    assert!(has("replicator_lag_offsets", "partition=\"1\"} 0"), "{metrics}");
    let answer = follower.stopped();
    assert!(answer["warnings"].to_string().contains("somebody else has written"), "{answer}");
    stream.assert_holds(&[strange], &copies);
}

#[test]
fn an_open_transaction_in_the_target_is_told() {
    let (stream, mut copies) = of_a_day(1, 1);
    let address = observe::free_address();
    let follower = stream.follow(&["--metrics-listen", &address.to_string(), "--patience", "2"]);
    follower.until_says("following");
    let open = stream.to.begin().send(&stream.target, &[record(0, DAY, "open", "{}")]);
    copies.extend(later(50, 1, 0));
    stream.produce(&later(50, 1, 0));
    within_minutes(|| get(address, "/healthz").is_some_and(|(_, body)| body.contains("has long been open")));
    assert_eq!(get(address, "/healthz").expect("an answer").0, 503);
    follower.until_says("see nothing from offset");
    // Its copies are behind the open transaction.
    open.abort();
    stream.until_holds(&[], &copies);
    within_minutes(|| get(address, "/healthz").is_some_and(|(_, body)| !body.contains("has long been open")));
    follower.stopped();
    stream.assert_holds(&[], &copies);
}

#[test]
fn lag_and_verify_agree_with_it() {
    let stream = Stream::new(2, 3, 3);
    let (records, before) = story(&stream, 3);
    let mut copies = from_eleven(&records);
    let follower = stream.follow(&[]);
    follower.until_says("following");
    copies.extend(later(300, 3, 1));
    stream.produce(&later(300, 3, 1));
    stream.until_holds(&before, &copies);
    let lag = || {
        let output = stream.command(&["lag", "--output", "json", "--max-lag", "0"]).output().expect("runs");
        (code(&output), receipt(&output)["lag"].clone())
    };
    within_minutes(|| lag() == (0, 0.into()));
    follower.stopped();
    // The keys are those of users, and some records are equal. Above the joint, each one counts.
    let verify = |window: &str| {
        stream.command(&["verify", "--window", window, "--output", "json"]).output().expect("runs")
    };
    let output = verify("2021-04-14T11:00Z/");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    stream.produce(&later(70, 3, 1));
    assert_eq!(lag(), (4, 70.into()));
    let output = verify("2021-04-14T11:00Z/");
    assert_eq!((code(&output), &receipt(&output)["missing"]), (4, &70.into()), "{}", stderr(&output));
}
