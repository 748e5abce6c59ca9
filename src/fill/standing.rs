//! Tells Prometheus and the probes where a follow stands. Keeps nothing if nobody listens.

use std::sync::{Mutex, PoisonError};

use ::metrics::{counter, describe_counter, describe_gauge, gauge};

use super::metrics;
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
    /// Troubles that need a person: partitions that are not copied, another writer.
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

const LAG: &str = "replicator_follow_lag";
const HEADROOM: &str = "replicator_follow_headroom";

/// The partitions of the last [`Standing`].
static SHOWN: Mutex<Vec<i32>> = Mutex::new(Vec::new());

impl Standing {
    /// Call it about once a second while following, also if nothing has changed. `/livez` takes a longer silence for a
    /// hang.
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    pub(crate) fn publish(&self) {
        metrics::stands(&self.troubles);
        let partitions: Vec<i32> = self.partitions.iter().map(|of| of.partition).collect();
        let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
        // Another instance copies these now, and says how far it is. Two answers for one partition would mislead.
        for gone in shown.iter().filter(|partition| !partitions.contains(partition)) {
            metrics::forget(LAG, *gone);
            metrics::forget(HEADROOM, *gone);
        }
        *shown = partitions;
        for of in &self.partitions {
            let partition = of.partition.to_string();
            gauge!(LAG, "partition" => partition.clone()).set(of.lag() as f64);
            gauge!(HEADROOM, "partition" => partition).set((of.position - of.low) as f64);
        }
        gauge!("replicator_follow_behind_seconds").set(self.behind);
        if let Some(at) = self.last_commit {
            gauge!("replicator_follow_last_commit_seconds").set(at as f64 / 1000.0);
        }
        gauge!("replicator_follow_troubles").set(self.troubles.len() as f64);
        counter!("replicator_follow_foreign_total").absolute(self.foreign);
    }
}

/// Says whether the cluster of a side answered. Call it as soon as a start-up has reached the cluster, too: `/healthz`
/// counts the time from the first `false` up to the next `true`.
pub(crate) fn up(side: Side, is_up: bool) {
    metrics::up(side, is_up);
    gauge!("replicator_up", "cluster" => side.word()).set(if is_up { 1.0 } else { 0.0 });
}
