//! Tells Prometheus and the probes where a follow or a sink stands.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use ::metrics::{counter, describe_counter, describe_gauge, gauge};

use crate::kafka::sides::Side;

/// Where a run stands, as it last asked the clusters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// The topic that this is about, if the run has several sources.
    pub topic: Option<String>,
    pub partitions: Vec<PartitionStanding>,
    /// How old the oldest record that is left may be, in seconds since it became readable; 0 if nothing is left. NaN if
    /// nobody knows; then it is not shown.
    pub behind: f64,
    /// The time of the last commit in milliseconds since the epoch.
    pub last_commit: Option<i64>,
    /// How many records and markers of the target's partitions came from nobody of this job. `None` if nobody counts them.
    pub foreign: Option<u64>,
    /// Troubles that need a person: partitions that are not copied, another writer.
    pub troubles: Vec<String>,
}

/// One partition that this instance reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartitionStanding {
    pub partition: i32,
    /// The committed position.
    pub position: i64,
    /// Where the source ends: for a follow the last stable offset, for a sink the high watermark. The lag is the distance from the position up to here.
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

pub(super) const LAG: &str = "replicator_lag_offsets";
pub(super) const HEADROOM: &str = "replicator_headroom_offsets";
const BEHIND: &str = "replicator_behind_seconds";
const COMMIT: &str = "replicator_last_commit_timestamp_seconds";

pub(super) fn describe() {
    for (name, what) in [
        (LAG, "Offsets of a partition of the source that are left to copy"),
        (HEADROOM, "Offsets from the source's low watermark up to the position"),
        (BEHIND, "For how long something has been left to copy"),
        (COMMIT, "When the run last committed, since the epoch"),
        ("replicator_troubles", "How many things a person must look at"),
        ("replicator_cluster_up", "1 if the cluster of a side answered the last time, else 0"),
    ] {
        describe_gauge!(name, what);
    }
    describe_counter!("replicator_foreign_offsets_total", "Offsets of the target that others have taken");
}

/// The partitions of the last [`Standing`], by topic.
static SHOWN: LazyLock<Mutex<HashMap<Option<String>, Vec<i32>>>> = LazyLock::new(Mutex::default);

impl Standing {
    /// Call it about once a second while following, also if nothing has changed. `/livez` takes a longer silence for a
    /// hang.
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    pub(crate) fn publish(&self) {
        super::stands(&self.troubles);
        self.show();
        gauge!("replicator_troubles").set(self.troubles.len() as f64);
        if let Some(foreign) = self.foreign {
            counter!("replicator_foreign_offsets_total").absolute(foreign);
        }
        // A run with several sources says so itself, once it is through with all.
        if self.topic.is_none() && self.troubles.is_empty() {
            super::succeeded();
        }
    }

    /// Shows how far the partitions are: for somebody who looks at a job from outside.
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    pub(crate) fn show(&self) {
        let topic = self.topic.as_deref();
        let partitions: Vec<i32> = self.partitions.iter().map(|of| of.partition).collect();
        let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let before = shown.insert(self.topic.clone(), partitions.clone()).unwrap_or_default();
        // Another instance copies these now, and says how far it is. Two answers for one partition would mislead.
        for gone in before.iter().filter(|partition| !partitions.contains(partition)) {
            super::forget(LAG, topic, *gone);
            super::forget(HEADROOM, topic, *gone);
        }
        for of in &self.partitions {
            super::of_partition(super::POSITION, topic, of.partition, of.position);
            super::of_partition(super::END, topic, of.partition, of.end);
            super::of_partition(LAG, topic, of.partition, of.lag());
            super::of_partition(HEADROOM, topic, of.partition, of.position - of.low);
        }
        // A topic of several sources has values of its own.
        let of_topic = |name: &'static str| match topic {
            Some(topic) => gauge!(name, "source" => topic.to_owned()),
            None => gauge!(name),
        };
        of_topic(BEHIND).set(self.behind);
        if let Some(at) = self.last_commit {
            of_topic(COMMIT).set(at as f64 / 1000.0);
        }
    }
}

/// Says whether the cluster of a side answered. Call it as soon as a start-up has reached the cluster, too: `/healthz`
/// counts the time from the first `false` up to the next `true`.
pub(crate) fn up(side: Side, is_up: bool) {
    super::up(side, is_up);
    gauge!("replicator_cluster_up", "cluster" => side.word()).set(if is_up { 1.0 } else { 0.0 });
}
