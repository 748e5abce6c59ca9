//! `--follow`: closes the gap, and keeps it closed.

mod away;
mod expiry;
mod grow;
mod kill;
mod live;
mod loud;
mod watch;

use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use replicator::topics::Topics;
use serde_json::Value;

use crate::kit::*;

/// A source and a target, in one cluster or in two.
struct Stream {
    from: Side,
    to: Side,
    source: String,
    target: String,
}

/// A follow at work.
struct Follower {
    child: Child,
    stdout: File,
    stderr: File,
}

impl Stream {
    fn new(clusters: usize, a_partitions: i32, b_partitions: i32) -> Stream {
        let (from, to) = (side_a(), if clusters == 2 { side_b() } else { side_a() });
        let stream = Stream { from, to, source: unique("a"), target: unique("b") };
        stream.from.create(&stream.source, a_partitions, &[]);
        stream.to.create(&stream.target, b_partitions, &[]);
        stream
    }

    /// The program with these arguments, and both topics.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = replicator(arguments);
        command.env_remove("KAFKA_BOOTSTRAP_SERVERS").args([
            "--source",
            &self.source,
            "--target",
            &self.target,
        ]);
        if self.from.0 == self.to.0 {
            command.args(["--bootstrap-server", &self.from.0]);
        } else {
            command.args(["--source-bootstrap-server", &self.from.0]);
            command.args(["--target-bootstrap-server", &self.to.0]);
        }
        command
    }

    fn follow_command(&self, options: &[&str]) -> Command {
        let mut command =
            self.command(&["--window", "2021-04-14T11:00Z/", "--follow", "--output", "json", "-v"]);
        command.args(options);
        command
    }

    fn follow(&self, options: &[&str]) -> Follower {
        Follower::start(&mut self.follow_command(options))
    }

    fn produce(&self, records: &[Record]) {
        self.from.produce(&self.source, records);
    }

    fn found(&self) -> Vec<Record> {
        self.to.consume(&self.target)
    }

    /// Waits until the target holds so many records.
    fn until_holds(&self, before: &[Record], copies: &[Record]) {
        let count = before.len() + copies.iter().filter(|record| !before.contains(record)).count();
        // The target may be getting partitions, or its broker may be away.
        let topics = Topics::new(&self.to.0);
        let found = || topics.consume(&self.target, topics.leaders(&self.target)?.len());
        within_minutes(|| found().is_ok_and(|found| found.len() >= count));
    }

    /// Asserts that the target holds `before` and all of `copies` once each, in their order within each partition.
    fn assert_holds(&self, before: &[Record], copies: &[Record]) {
        assert_holds(&self.found(), before, copies);
    }
}

impl Follower {
    fn start(command: &mut Command) -> Follower {
        let (stdout, stderr) = (tempfile::tempfile().expect("a file"), tempfile::tempfile().expect("a file"));
        let copy = |file: &File| Stdio::from(file.try_clone().expect("a file"));
        let child = command.stdout(copy(&stdout)).stderr(copy(&stderr)).spawn().expect("starts");
        Follower { child, stdout, stderr }
    }

    fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Waits until the log says so.
    fn until_says(&self, words: &str) {
        within_minutes(|| self.stderr().contains(words));
    }

    fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// The exit code and the answer, once the process has ended by itself.
    fn ended(mut self) -> (i32, Value, String) {
        let mut status = None;
        within_minutes(|| {
            status = self.child.try_wait().expect("waits");
            status.is_some()
        });
        let answer = serde_json::from_str(&read(&self.stdout)).unwrap_or_default();
        (status.and_then(|status| status.code()).unwrap_or(-1), answer, self.stderr())
    }

    /// Ends it as an operator does, and expects success.
    fn stopped(self) -> Value {
        self.signal("-TERM");
        let (code, answer, stderr) = self.ended();
        assert_eq!(code, 0, "{stderr}");
        assert_eq!(answer["complete"], true, "{answer}");
        answer
    }

    fn killed(mut self) {
        self.signal("-KILL");
        self.child.wait().expect("ends");
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.stderr());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `condition` holds. A loaded machine may need minutes for brokers, sessions and new clients.
fn within_minutes(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(180), "it did not come");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn read(mut file: &File) -> String {
    let mut text = String::new();
    file.rewind().and_then(|()| file.read_to_string(&mut text)).expect("reads");
    text
}

/// A source of 300 records, an empty target, and the records that a follow from 11:00 on must copy.
fn of_a_day(clusters: usize, partitions: i32) -> (Stream, Vec<Record>) {
    let stream = Stream::new(clusters, partitions, partitions);
    let records = placed(day(300, 1), partitions);
    stream.produce(&records);
    (stream, from_eleven(&records))
}

/// A source whose target lacks most of 11:00-16:45: the source's records, and the target's.
fn story(stream: &Stream, partitions: i32) -> (Vec<Record>, Vec<Record>) {
    let records = placed(day(3000, 1), partitions);
    stream.produce(&records);
    let some = |(n, record): (usize, &Record)| (record.time < WINDOW.0 || n % 5 == 0).then(|| record.clone());
    let before: Vec<Record> = records.iter().enumerate().filter_map(some).collect();
    stream.to.produce(&stream.target, &before);
    (records, before)
}

/// Records that come later: the keys are those of users, so they come again and again, and some records are equal.
fn later(count: usize, partitions: i32, round: usize) -> Vec<Record> {
    let records = (0..count).map(|n| {
        let value = if n % 7 == 0 {
            "{\"same\":true}".to_owned()
        } else {
            format!("{{\"round\":{round},\"n\":{n}}}")
        };
        record(0, DAY + 20 * HOUR, &format!("user-{}", n % 10), &value)
    });
    placed(records.collect(), partitions)
}

/// The records of the window, which has no end.
fn from_eleven(records: &[Record]) -> Vec<Record> {
    records.iter().filter(|record| record.time >= WINDOW.0).cloned().collect()
}
