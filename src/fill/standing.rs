//! Tells Prometheus where a follow stands. Keeps nothing if nobody listens.

use metrics::{describe_counter, describe_gauge, gauge};

use crate::kafka::sides::Side;

/// Where a follow stands, as it last asked both clusters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    pub partitions: Vec<PartitionStanding>,
    /// How old the oldest record that is left may be, in seconds since it became readable; 0 if nothing is left.
    pub behind: f64,
    /// The time of the last commit in milliseconds since the epoch.
    pub last_commit: Option<i64>,
    /// How many records and markers of the target's partitions came from nobody of this job.
    pub foreign: u64,
    /// What a person must look at: partitions that are not copied, another writer.
    pub troubles: Vec<String>,
}

/// One partition of the source that this instance copies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartitionStanding {
    pub partition: i32,
    /// The committed position.
    pub position: i64,
    /// The source's last stable offset. The lag is the distance from the position up to here.
    pub end: i64,
    /// The source's low watermark. The headroom is the distance from here up to the position.
    pub low: i64,
}

impl PartitionStanding {
    /// How many offsets are left to copy. Markers and aborted records count too.
    pub(crate) fn lag(self) -> i64 {
        (self.end - self.position).max(0)
    }
}

pub(super) fn describe() {
    describe_gauge!("replicator_follow_lag", "Offsets of a partition of the source that are left to copy");
    describe_gauge!(
        "replicator_follow_headroom",
        "Offsets from the source's low watermark up to the position"
    );
    describe_gauge!("replicator_follow_behind_seconds", "For how long something has been left to copy");
    describe_gauge!("replicator_follow_last_commit_seconds", "The time of the last commit, since the epoch");
    describe_gauge!("replicator_follow_troubles", "How many things a person must look at");
    describe_counter!("replicator_follow_foreign_total", "Offsets of the target that others have taken");
    describe_gauge!("replicator_up", "1 if the cluster of a side answered the last time, else 0");
}

impl Standing {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    pub(crate) fn publish(&self) {
        for of in &self.partitions {
            let partition = of.partition.to_string();
            gauge!("replicator_follow_lag", "partition" => partition.clone()).set(of.lag() as f64);
            gauge!("replicator_follow_headroom", "partition" => partition).set((of.position - of.low) as f64);
        }
        gauge!("replicator_follow_behind_seconds").set(self.behind);
        if let Some(at) = self.last_commit {
            gauge!("replicator_follow_last_commit_seconds").set(at as f64 / 1000.0);
        }
        gauge!("replicator_follow_troubles").set(self.troubles.len() as f64);
        metrics::counter!("replicator_follow_foreign_total").absolute(self.foreign);
    }
}

/// Says whether the cluster of a side answered.
pub(crate) fn up(side: Side, is_up: bool) {
    gauge!("replicator_up", "cluster" => side.word()).set(if is_up { 1.0 } else { 0.0 });
}
