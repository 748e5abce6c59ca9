//! Errors, named after what the caller must do next.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use serde::Serialize;

/// Why a command failed. The last four variants steer a run from inside; each of the others has its own exit code.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line contradicts itself or names something impossible.
    #[error("{0}")]
    Usage(Why),
    /// The command found a problem before it wrote anything.
    #[error("{0}")]
    Refused(Why),
    /// The command failed. Everything committed is right, and it is safe to run again.
    #[error("{0}")]
    Failed(Why),
    /// `verify` found a difference.
    #[error("{0}")]
    Different(Why),
    /// Another run with the same transactional id took over.
    #[error("{0}")]
    Fenced(Why),
    /// Ctrl-C or SIGTERM. The open transaction, if any, was aborted.
    #[error("interrupted; everything committed is right, and the same command continues from there")]
    Interrupted,
    /// The group assigned other partitions to this instance. The open transaction was aborted, and the run starts up
    /// again for the new partitions. Never leaves `fill`.
    #[error("the group moved this instance's partitions")]
    Reassigned,
    /// The target may hold a record of the window with another timestamp. The open transaction was aborted, and the
    /// run starts up again to decide this before it writes more. Never leaves `fill`.
    #[error("the target may hold a record of the window with another timestamp")]
    LookAgain,
    /// A topic got more partitions. A follow starts up again with them; any other run ends. Never leaves `fill`.
    #[error("{0}")]
    Grown(Why),
    /// A transaction's outcome is unknown, its producer can no longer be trusted, or a call failed that may succeed
    /// later. A fill, a load or a sink drops its clients and starts up again. Never leaves `fill`, `load` and `sink` as
    /// such.
    #[error("{why}")]
    Restart {
        why: Why,
        /// The caller gave up waiting for a call, so the old producer may still act later.
        abandoned: bool,
    },
}

pub type Result<T> = std::result::Result<T, Error>;

/// A sentence for people, and a reason for machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    pub text: String,
    reason: Option<Reason>,
}

impl Why {
    pub fn reason(&self) -> Option<Reason> {
        self.reason
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl<T: Into<String>> From<T> for Why {
    fn from(text: T) -> Why {
        Why { text: text.into(), reason: None }
    }
}

/// Why a command failed: the `error.reason` of its JSON. Scripts match these words, so they must not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The command line is wrong.
    Usage,
    /// The command wrote nothing, and no more specific reason fits.
    Refused,
    /// The command failed, and no more specific reason fits.
    Failed,
    /// Two topics differ, or a drill's result is wrong.
    Different,
    /// Another run took over, or is running.
    Fenced,
    /// Ctrl-C or SIGTERM ended the command.
    Interrupted,
    /// This principal lacks a permission that the command needs, or the brokers reject this client.
    NoPermission,
    /// The command that a profile names for a secret failed, or printed nothing.
    NoSecret,
    /// No broker answered in time, or the broker that the command needs did not.
    Unreachable,
    /// The brokers answer, but the command made no progress within `--patience`.
    NoProgress,
    /// The Schema Registry does not answer, or the URL names something else.
    SchemaRegistry,
    /// A partition has fewer replicas in sync than `min.insync.replicas`, and accepts no writes until they are back.
    NotEnoughReplicas,
    /// Another producer's transaction stayed open longer than `--patience` allows.
    HangingTransaction,
    /// The brokers are too old: they lack what the promise needs.
    UnsupportedBroker,
    /// No topic has that name.
    MissingTopic,
    /// The source and the target are one and the same topic.
    SameTopic,
    /// Instances of the reversed job, which copies the target to the source, are at work.
    ReversedJob,
    /// A topic was deleted, recreated or given more partitions during the run, or it is not the topic of an earlier run.
    TopicChanged,
    /// A topic's or the brokers' configuration would break the promise: retention, compaction, timestamps, sizes.
    TopicConfiguration,
    /// The broker deleted records that the command needs.
    RecordsDeleted,
    /// No run of the job has committed a position.
    NoPosition,
    /// More offsets are left to copy than `--max-lag` allows.
    Lagging,
    /// A partition ends below a committed or written offset: its leader lost a part of its log.
    LogLost,
    /// A run with `--follow` has positions for these topics, which a fill would replace.
    Followed,
    /// No known partitioner places keys as the target does.
    UnknownPlacement,
    /// The window has no date, and the topic or file does not show one.
    AmbiguousDate,
    /// One identity has two contents.
    Conflicts,
    /// Records have no identity, event time or target partition, or a file has lines that are not events.
    InvalidRecords,
    /// The broker refuses a record.
    RefusedRecords,
    /// The target's copies have other timestamps than the source's records.
    OtherTimestamps,
    /// Records are further out of order than `--max-out-of-orderness` promises.
    OutOfOrder,
    /// During the run, somebody else added records of the window to the target.
    DoubledByOthers,
    /// The identities do not fit into `--index-memory`.
    IndexMemory,
}

impl Error {
    /// The process's exit code, as documented in the README.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Failed(_)
            | Error::Reassigned
            | Error::LookAgain
            | Error::Grown(_)
            | Error::Restart { .. } => 1,
            Error::Usage(_) => 2,
            Error::Refused(_) => 3,
            Error::Different(_) => 4,
            Error::Fenced(_) => 5,
            Error::Interrupted => 130,
        }
    }

    /// [`Error::exit_code`] as a word: the `status` of a command's JSON. Without an error, the status is `done`.
    pub fn status(&self) -> &'static str {
        match self {
            Error::Failed(_)
            | Error::Reassigned
            | Error::LookAgain
            | Error::Grown(_)
            | Error::Restart { .. } => "failed",
            Error::Usage(_) => "usage",
            Error::Refused(_) => "refused",
            Error::Different(_) => "different",
            Error::Fenced(_) => "fenced",
            Error::Interrupted => "interrupted",
        }
    }

    pub fn usage(told: impl Into<Why>) -> Error {
        Error::Usage(told.into())
    }

    pub fn refused(told: impl Into<Why>) -> Error {
        Error::Refused(told.into())
    }

    pub fn failed(told: impl Into<Why>) -> Error {
        Error::Failed(told.into())
    }

    pub fn different(told: impl Into<Why>) -> Error {
        Error::Different(told.into())
    }

    pub fn fenced(told: impl Into<Why>) -> Error {
        Error::Fenced(told.into())
    }

    fn why(&mut self) -> Option<&mut Why> {
        match self {
            Error::Usage(told)
            | Error::Refused(told)
            | Error::Failed(told)
            | Error::Different(told)
            | Error::Fenced(told)
            | Error::Grown(told)
            | Error::Restart { why: told, .. } => Some(told),
            Error::Interrupted | Error::Reassigned | Error::LookAgain => None,
        }
    }

    /// The same error with a more specific reason.
    #[must_use]
    pub fn because(mut self, because: Reason) -> Error {
        if let Some(told) = self.why() {
            told.reason = Some(because);
        }
        self
    }

    /// The same error, with its sentence beginning with `place`, the cluster that it is about.
    #[must_use]
    pub(crate) fn within(mut self, place: &str) -> Error {
        if let Some(told) = self.why() {
            told.text = placed(place, std::mem::take(&mut told.text));
        }
        self
    }

    pub fn reason(&self) -> Reason {
        match self {
            Error::Usage(told) => told.reason.unwrap_or(Reason::Usage),
            Error::Refused(told) => told.reason.unwrap_or(Reason::Refused),
            Error::Failed(told) | Error::Grown(told) | Error::Restart { why: told, .. } => {
                told.reason.unwrap_or(Reason::Failed)
            }
            Error::Different(told) => told.reason.unwrap_or(Reason::Different),
            Error::Fenced(told) => told.reason.unwrap_or(Reason::Fenced),
            Error::Interrupted => Reason::Interrupted,
            Error::Reassigned | Error::LookAgain => Reason::Failed,
        }
    }

    pub fn restart(why: impl Into<Why>) -> Error {
        Error::Restart { why: why.into(), abandoned: false }
    }

    /// An error of this machine: files, pipes, threads.
    pub fn io(what: impl std::fmt::Display, err: impl std::fmt::Display) -> Error {
        Error::failed(format!("{what}: {err}"))
    }

    /// For a call to Kafka outside of a transaction. A missing permission gives [`Error::Refused`] with its name, a
    /// transient error gives [`Error::Restart`], and any other gives [`Error::Failed`]. `what` is a noun phrase: "the
    /// end offsets of topic a".
    pub fn kafka(what: impl std::fmt::Display, err: KafkaError) -> Error {
        let code = match err {
            KafkaError::AdminOp(code) => Some(code),
            _ => err.rdkafka_error_code(),
        };
        match code {
            Some(code) => Error::code(what, code),
            None => Error::failed(format!("{what}: {err}")),
        }
    }

    /// [`Error::code`], for a call that needs `operations` on `topic`.
    pub fn topic(
        what: impl std::fmt::Display,
        operations: &str,
        topic: &str,
        code: RDKafkaErrorCode,
    ) -> Error {
        match code {
            RDKafkaErrorCode::TopicAuthorizationFailed => {
                Error::lacking(what, &format!("{operations} on topic {topic}"))
            }
            code => Error::code(what, code),
        }
    }

    /// For a call that needs a permission which this principal lacks: `Read on topic a`.
    pub(crate) fn lacking(what: impl std::fmt::Display, permission: &str) -> Error {
        Error::refused(format!("{what}: no permission; grant this principal {permission}"))
            .because(Reason::NoPermission)
    }

    /// [`Error::kafka`], for a call that needs `operations` on `topic`.
    pub(crate) fn on_topic(
        what: impl std::fmt::Display,
        operations: &str,
        topic: &str,
        err: KafkaError,
    ) -> Error {
        match err.rdkafka_error_code() {
            Some(code) => Error::topic(what, operations, topic, code),
            None => Error::kafka(what, err),
        }
    }

    /// [`Error::on_topic`], for a call about the offsets that `group` committed for `topic`.
    pub(crate) fn of_group(what: impl std::fmt::Display, group: &str, topic: &str, err: KafkaError) -> Error {
        match err.rdkafka_error_code() {
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => {
                Error::lacking(what, &format!("Read on the group {group}"))
            }
            _ => Error::on_topic(what, "Read", topic, err),
        }
    }

    /// [`Error::kafka`], for a bare error code.
    pub fn code(what: impl std::fmt::Display, code: RDKafkaErrorCode) -> Error {
        match denied(code) {
            Some(permission) => Error::lacking(what, permission),
            None if is_transient(code) => {
                Error::restart(format!("{what}: {code}")).because(Reason::Unreachable)
            }
            None => Error::failed(format!("{what}: {code}")),
        }
    }
}

/// The sentence, beginning with `place`, the cluster that it is about. Another layer may have said so already.
pub(crate) fn placed(place: &str, sentence: String) -> String {
    if sentence.starts_with(place) { sentence } else { format!("{place}: {sentence}") }
}

/// Whether the error may disappear when the cluster recovers, for example from a broker's death. These are the codes
/// that Kafka's `Errors.java` calls retriable, and librdkafka's own codes for connections and for brokers that it has
/// just discovered.
fn is_transient(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::*;
    matches!(
        code,
        AllBrokersDown
            | BrokerNotAvailable
            | BrokerTransportFailure
            | CoordinatorLoadInProgress
            | CoordinatorNotAvailable
            | DestroyBroker
            | FencedLeaderEpoch
            | KafkaStorageError
            | LeaderNotAvailable
            | NetworkException
            | NotController
            | NotCoordinator
            | NotEnoughReplicas
            | NotEnoughReplicasAfterAppend
            | NotLeaderForPartition
            | OffsetNotAvailable
            | OperationTimedOut
            | ReplicaNotAvailable
            | RequestTimedOut
            | TimedOutQueue
            | UnknownLeaderEpoch
            | UnknownPartition
            | UnknownTopicOrPartition
            | WaitingForCoordinator
    )
}

/// The missing access control entry, if `code` says that one is missing.
pub(crate) fn denied(code: RDKafkaErrorCode) -> Option<&'static str> {
    use RDKafkaErrorCode::*;
    Some(match code {
        TopicAuthorizationFailed => "Read on the source, and Read and Write on the target topic",
        GroupAuthorizationFailed => "Read on the group (its name begins with `replicator/`)",
        TransactionalIdAuthorizationFailed => {
            "Write on the transactional id (its name begins with `replicator/`)"
        }
        ClusterAuthorizationFailed => "IdempotentWrite on the cluster, or Write on the transactional id",
        SaslAuthenticationFailed => "valid credentials (sasl.username, sasl.password, sasl.mechanism)",
        _ => return None,
    })
}
