//! One job, validated once: what every later part may rely on.

use std::time::Duration;

use chrono::NaiveDate;

use crate::client::Properties;
use crate::event_time::EventTime;
use crate::identity::Identity;
use crate::window::WindowSpec;

/// A fill of a window of `target` from `source`.
#[derive(Clone)]
pub struct Job {
    pub properties: Properties,
    pub source: String,
    pub target: String,
    pub window: WindowSpec,
    pub date: Option<NaiveDate>,
    pub event_time: EventTime,
    pub identity: Identity,
    pub on_conflict: OnConflict,
    /// Leave out records without identity or event time, and count them.
    pub skip_invalid: bool,
    pub target_scan: TargetScan,
    pub allow_compacted_target: bool,
    pub limits: TransactionLimits,
    /// Bytes that the index of identities may take.
    pub index_memory: usize,
    /// How long to wait without progress before giving up.
    pub patience: Duration,
}

impl Job {
    /// The name of the transactional id and of the group. It depends on the topics alone, so that a second
    /// run of the job fences the first; `/` is in no topic's name.
    pub fn name(&self) -> String {
        format!("replicator/{}/{}", self.source, self.target)
    }
}

/// What to do where one identity has two contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnConflict {
    /// Write none of them, count all, and fail
    Fail,
    /// Keep what stands in the target, else what is read first
    Skip,
}

/// Which records of the target are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TargetScan {
    /// Those whose event time lies in the window, and a minute around it
    Window,
    /// All, whatever their timestamps: for a target whose copies were stamped anew
    All,
}

/// A transaction is committed when it reaches any of these.
#[derive(Clone, Copy, Debug)]
pub struct TransactionLimits {
    pub records: usize,
    pub bytes: usize,
    pub time: Duration,
}

impl Default for TransactionLimits {
    /// Measured: larger transactions gain little, smaller ones cost a commit of a few milliseconds each.
    fn default() -> TransactionLimits {
        TransactionLimits { records: 50_000, bytes: 64 << 20, time: Duration::from_secs(1) }
    }
}
