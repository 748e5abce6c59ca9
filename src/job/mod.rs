//! A job: the topics, the window, and the rules of a run. The command line checks it once, and all later code relies on
//! that.

pub(crate) mod checks;
pub(crate) mod event_time;
pub(crate) mod identity;
pub(crate) mod ledger;
pub(crate) mod limits;
pub(crate) mod names;
pub(crate) mod order;
pub(crate) mod rate;
pub(crate) mod resolve;
pub(crate) mod schema;
pub(crate) mod typed;
pub(crate) mod window;

use std::time::Duration;

use chrono::NaiveDate;

use crate::base::shell::line;
use crate::base::time::shown_duration;
use crate::base::zone::Tz;
use crate::job::event_time::EventTime;
use crate::job::identity::Identity;
use crate::job::rate::MaxRate;
use crate::job::schema::Schemas;
use crate::job::window::{Window, WindowSpec};
use crate::kafka::pace::TransactionLimits;
use crate::kafka::properties::Properties;
use crate::kafka::sides::Sides;

/// Which records of which topics, and how to tell them apart.
#[derive(Clone)]
pub struct Selection {
    /// The properties of both clusters.
    pub properties: Sides<Properties>,
    pub source: String,
    pub target: String,
    pub window: WindowSpec,
    pub date: Option<NaiveDate>,
    /// The zone of times of day and of days.
    pub zone: Tz,
    pub event_time: EventTime,
    /// How fields of a value are read.
    pub schemas: Schemas,
    pub rules: Rules,
    /// The most bytes that the index of identities may take.
    pub index_memory: usize,
    /// How long to wait without progress before giving up.
    pub patience: Duration,
    /// The user's promise about each partition of the source: no record is older than an earlier one by more than this.
    pub max_out_of_orderness: Option<Duration>,
}

impl Selection {
    /// The name of the transactional id and of the group, if both topics are in one cluster (see [`ledger`]).
    pub fn name(&self) -> String {
        ledger::group_of_one(&self.source, &self.target)
    }

    /// The source's name, for the beginning of a sentence. With two clusters, it says which cluster.
    pub(crate) fn named_source(&self) -> String {
        self.properties
            .source
            .place()
            .map_or_else(|| self.source.clone(), |place| format!("{place}: {}", self.source))
    }

    /// The source, for sentences that name both topics. With two clusters, both may have one name.
    pub(crate) fn shown_source(&self) -> String {
        shown(&self.source, &self.properties.source)
    }

    /// The target, for sentences that name both topics.
    pub(crate) fn shown_target(&self) -> String {
        shown(&self.target, &self.properties.target)
    }

    /// The registry by which fields are read, without secrets; `None` if no field counts.
    pub(crate) fn registry_that_counts(&self) -> Option<String> {
        self.schemas.shown().filter(|_| self.reads_fields())
    }

    /// Whether a field of the value gives the event time or the identity.
    pub(crate) fn reads_fields(&self) -> bool {
        !self.event_time.is_indexed() || matches!(self.rules.identity, Identity::Field(_))
    }

    /// The command line for a shell that fills `window` for these topics and by these rules, but with `identity` in place
    /// of their own.
    pub fn command(&self, window: Window, identity: &Identity) -> String {
        let mut words = vec!["--window".to_owned(), window.to_string()];
        if let Some(bound) = self.max_out_of_orderness.filter(|_| window.end.is_some()) {
            words.extend(["--max-out-of-orderness".to_owned(), shown_duration(bound)]);
        }
        self.line(&words.iter().map(String::as_str).collect::<Vec<_>>(), identity)
    }

    /// The command line for a shell that does `command` with these topics in these clusters, by these rules, but with
    /// `identity` in place of their own.
    pub(crate) fn line(&self, command: &[&str], identity: &Identity) -> String {
        let Sides { source, target } = &self.properties;
        let (of_source, of_target) = (source.option("bootstrap-server"), target.option("bootstrap-server"));
        let mut connection = vec![of_source.as_str(), source.bootstrap()];
        if self.properties.are_two() {
            connection.extend([of_target.as_str(), target.bootstrap()]);
        }
        connection.extend(source.options().iter().map(String::as_str));
        let (identity, mut rules) = (identity.to_string(), Vec::new());
        if let EventTime::Field(pointer) = &self.event_time {
            rules.extend(["--time-field", pointer.as_str()]);
        }
        if let Some(url) = self.schemas.flag() {
            rules.extend(["--schema-registry", url]);
        }
        if identity != Identity::Key.to_string() {
            rules.extend(["--identity", &identity]);
        }
        if self.rules.on_conflict == OnConflict::Skip {
            rules.extend(["--on-conflict", "skip"]);
        }
        if self.rules.skip_invalid {
            rules.push("--skip-invalid");
        }
        if self.rules.target_scan == TargetScan::All {
            rules.extend(["--target-scan", "all"]);
        }
        command_line(command, &connection, &self.source, &self.target, &rules)
    }
}

/// The command line for a shell that does `command` with two topics. `connection` are the options that name the brokers, or
/// none if whoever runs it must name them; `rules` are options too.
pub(crate) fn command_line(
    command: &[&str],
    connection: &[&str],
    source: &str,
    target: &str,
    rules: &[&str],
) -> String {
    line(&[&["replicator"], command, connection, &["--source", source, "--target", target], rules].concat())
}

fn shown(topic: &str, properties: &Properties) -> String {
    properties.place().map_or_else(|| topic.to_owned(), |place| format!("{topic} of {place}"))
}

/// The command line's default for [`Selection::index_memory`].
pub const INDEX_MEMORY: usize = 1 << 30;

/// How a run tells records apart, and what it does with records for which that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub identity: Identity,
    pub on_conflict: OnConflict,
    /// Leave out records without identity or event time, and count them.
    pub skip_invalid: bool,
    pub target_scan: TargetScan,
}

impl Rules {
    /// Whether a run may begin where an earlier run stopped. If copies are counted, or their timestamps are not
    /// compared, each record of the target counts as the copy of only one record of the source. A run that begins in
    /// the middle could not know which copies are already taken.
    pub fn can_resume(&self) -> bool {
        self.target_scan == TargetScan::Window && self.identity != Identity::Record
    }

    /// The rules with `identity` and the command line's defaults.
    pub fn by(identity: Identity) -> Rules {
        Rules {
            identity,
            on_conflict: OnConflict::Fail,
            skip_invalid: false,
            target_scan: TargetScan::Window,
        }
    }
}

/// Fills a window of the target from the source.
#[derive(Clone)]
pub struct Job {
    pub selection: Selection,
    pub allow_compacted_target: bool,
    pub limits: TransactionLimits,
    pub max_rate: Option<MaxRate>,
    /// The run stops after it has written this many records, even if the window is not complete.
    pub limit: Option<u64>,
    /// Share the source's partitions with other instances of the same job.
    pub scale_out: bool,
    /// Go on copying after the fill, until somebody ends the run.
    pub follow: Option<Follow>,
}

/// How a run goes on after its fill.
#[derive(Clone, Debug)]
pub struct Follow {
    /// How long a record waits for its commit at most, unless the run is behind.
    pub commit_interval: Duration,
    /// Give the target as many partitions as the source has.
    pub create_partitions: bool,
    /// Follow even if nobody can see whether a reversed job is at work.
    pub allow_unchecked_loop: bool,
}

impl Job {
    /// The job with the command line's defaults.
    pub fn new(selection: Selection) -> Job {
        Job {
            selection,
            allow_compacted_target: false,
            limits: TransactionLimits::default(),
            max_rate: None,
            limit: None,
            scale_out: false,
            follow: None,
        }
    }
}

/// Whether a run writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Fill,
    /// Does the same as a fill, but never creates the producer: a plan must not fence a live fill.
    Plan,
}

/// What to do if one identity has two contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnConflict {
    /// Stop writing at the first conflict, count all conflicts, and fail
    Fail,
    /// Keep the record that the target holds, or else the one that is read first
    Skip,
}

/// Which records of the target are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TargetScan {
    /// Records whose event time lies in the window
    Window,
    /// All records, whatever their timestamps: for a target whose copies got new timestamps
    All,
}
