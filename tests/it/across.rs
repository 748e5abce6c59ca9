//! A source and a target in two clusters, and the program that runs between them.

use std::process::Command;

use super::{
    Record, Side, assert_holds, code, receipt, replicator, side_a, side_b, stderr, unique, window_of,
};

/// A source topic in one cluster, and a target topic in another one.
pub(crate) struct Across {
    pub from: Side,
    pub to: Side,
    pub source: String,
    pub target: String,
}

impl Across {
    /// Topics of different names, in the tests' first and second cluster.
    pub(crate) fn new(a_partitions: i32, b_partitions: i32) -> Across {
        let (a, b) = (unique("a"), unique("b"));
        Across { from: side_a(), to: side_b(), source: a, target: b }.create(a_partitions, b_partitions)
    }

    /// Two topics of one name, in the tests' first and second cluster.
    pub(crate) fn same_name(a_partitions: i32, b_partitions: i32) -> Across {
        Across::between(side_a(), side_b(), a_partitions, b_partitions)
    }

    /// Two topics of one name, in these clusters.
    pub(crate) fn between(from: Side, to: Side, a_partitions: i32, b_partitions: i32) -> Across {
        let name = unique("both");
        Across { from, to, source: name.clone(), target: name }.create(a_partitions, b_partitions)
    }

    fn create(self, a_partitions: i32, b_partitions: i32) -> Across {
        self.from.create(&self.source, a_partitions, &[]);
        self.to.create(&self.target, b_partitions, &[]);
        self
    }

    /// The program with these arguments and both clusters and topics. The environment names no cluster.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = replicator(arguments);
        command.env_remove("KAFKA_BOOTSTRAP_SERVERS");
        command.args(["--source-bootstrap-server", &self.from.0, "--target-bootstrap-server", &self.to.0]);
        command.args(["--source", &self.source, "--target", &self.target]);
        command
    }

    /// The main job, which prints JSON.
    pub(crate) fn job(&self) -> Command {
        self.command(&["--window", "11:00-13:00", "--date", "2021-04-14", "--output", "json"])
    }

    /// Runs the main job, expects success, and returns how many records it wrote.
    pub(crate) fn filled(&self) -> u64 {
        let output = self.job().output().expect("runs");
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let receipt = receipt(&output);
        assert_eq!(receipt["complete"], true, "{receipt:?}");
        receipt["written"].as_u64().expect("a count")
    }

    pub(crate) fn consume_source(&self) -> Vec<Record> {
        self.from.consume(&self.source)
    }

    pub(crate) fn consume_target(&self) -> Vec<Record> {
        self.to.consume(&self.target)
    }

    /// Asserts what [`super::Pair::assert_filled`] asserts, and that nothing was written to the source.
    pub(crate) fn assert_filled(&self, before: &[Record]) {
        let source = self.consume_source();
        let window = window_of(&source);
        assert_holds(&self.consume_target(), before, &window);
        for _ in 0..2 {
            assert_eq!(self.filled(), 0, "a further run writes nothing");
        }
        assert_holds(&self.consume_target(), before, &window);
        assert!(self.consume_source() == source, "the source is as it was");
        let verified = self.command(&["verify", "--window", "11:00-13:00", "--date", "2021-04-14"]).output();
        let verified = verified.expect("runs");
        assert_eq!(code(&verified), 0, "verify agrees: {}", stderr(&verified));
    }
}
