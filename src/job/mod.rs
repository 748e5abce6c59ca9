//! One job, validated once: what every later part may rely on.

pub(crate) mod checks;
pub(crate) mod event_time;
pub(crate) mod identity;
pub(crate) mod limits;
pub(crate) mod rate;
pub(crate) mod resolve;
pub(crate) mod window;

use std::time::Duration;

use chrono::NaiveDate;

use crate::job::event_time::EventTime;
use crate::job::identity::Identity;
use crate::job::rate::MaxRate;
use crate::job::window::{Window, WindowSpec};
use crate::kafka::pace::TransactionLimits;
use crate::kafka::properties::{DEFAULT_BOOTSTRAP, Properties};

/// Which records of which topics, and how to tell them apart.
#[derive(Clone)]
pub struct Selection {
    pub properties: Properties,
    pub source: String,
    pub target: String,
    pub window: WindowSpec,
    pub date: Option<NaiveDate>,
    pub event_time: EventTime,
    pub rules: Rules,
    /// Bytes that the index of identities may take.
    pub index_memory: usize,
    /// How long to wait without progress before giving up.
    pub patience: Duration,
}

impl Selection {
    /// The name of the transactional id and of the group. It depends on the topics alone, so that a second
    /// run of the job fences the first; `/` is in no topic's name.
    pub fn name(&self) -> String {
        format!("replicator/{}/{}", self.source, self.target)
    }

    /// The command line of a fill of `window`, with these topics and rules but by `identity`.
    pub fn command(&self, window: Window, identity: &Identity) -> String {
        let mut command = "replicator".to_owned();
        if self.properties.bootstrap() != DEFAULT_BOOTSTRAP {
            command += &format!(" --bootstrap-server {}", self.properties.bootstrap());
        }
        command += &format!(" --window {window} --source {} --target {}", self.source, self.target);
        if let EventTime::Field(pointer) = &self.event_time {
            command += &format!(" --time-field '{}'", pointer.as_str());
        }
        if *identity != Identity::Key {
            command += &format!(" --identity '{identity}'");
        }
        if self.rules.on_conflict == OnConflict::Skip {
            command += " --on-conflict skip";
        }
        if self.rules.skip_invalid {
            command += " --skip-invalid";
        }
        if self.rules.target_scan == TargetScan::All {
            command += " --target-scan all";
        }
        command
    }
}

/// [`Selection::index_memory`] of the command line.
pub const INDEX_MEMORY: usize = 1 << 30;

/// How a record is told from others, and what becomes of those that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub identity: Identity,
    pub on_conflict: OnConflict,
    /// Leave out records without identity or event time, and count them.
    pub skip_invalid: bool,
    pub target_scan: TargetScan,
}

impl Rules {
    /// Whether a run may begin where an earlier one was. Where copies are counted, or their timestamps not compared, a
    /// record of the target stands for only one of the source: a run that begins in the middle could not know which
    /// copies are taken.
    pub fn can_resume(&self) -> bool {
        self.target_scan == TargetScan::Window && self.identity != Identity::Record
    }

    /// The rules with the defaults of the command line.
    pub fn by(identity: Identity) -> Rules {
        Rules {
            identity,
            on_conflict: OnConflict::Fail,
            skip_invalid: false,
            target_scan: TargetScan::Window,
        }
    }
}

/// A fill of a window of the target from the source.
#[derive(Clone)]
pub struct Job {
    pub selection: Selection,
    pub allow_compacted_target: bool,
    pub limits: TransactionLimits,
    pub max_rate: Option<MaxRate>,
    /// Records to write before the run stops, complete or not.
    pub limit: Option<u64>,
    /// Share the source's partitions with other instances of the same job.
    pub scale_out: bool,
}

impl Job {
    /// The job with the defaults of the command line.
    pub fn new(selection: Selection) -> Job {
        Job {
            selection,
            allow_compacted_target: false,
            limits: TransactionLimits::default(),
            max_rate: None,
            limit: None,
            scale_out: false,
        }
    }
}

/// Whether a run writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Fill,
    /// The same way up to the producer, which it never makes: a plan must not fence a live fill.
    Plan,
}

/// What to do where one identity has two contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnConflict {
    /// Write nothing from the first one on, count all, and fail
    Fail,
    /// Keep what stands in the target, else what is read first
    Skip,
}

/// Which records of the target are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TargetScan {
    /// Those whose event time lies in the window
    Window,
    /// All, whatever their timestamps: for a target whose copies were stamped anew
    All,
}
