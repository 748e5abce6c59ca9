//! Errors, named by what the caller is to do next.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use serde::Serialize;

/// Why a command did not end well. Each variant but the last two has an exit code of its own.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line contradicts itself or names something that cannot be.
    #[error("{0}")]
    Usage(Told),
    /// Found before anything was written; nothing was.
    #[error("{0}")]
    Refused(Told),
    /// Failed on the way. What was committed is right; safe to run again.
    #[error("{0}")]
    Failed(Told),
    /// `verify` found a difference.
    #[error("{0}")]
    Different(Told),
    /// Another run with the same transactional id took over.
    #[error("{0}")]
    Fenced(Told),
    /// Ctrl-C or SIGTERM; the open transaction, if any, was aborted.
    #[error("interrupted; what was committed is right, and the same command goes on from there")]
    Interrupted,
    /// The group gives this instance other partitions: the open transaction was aborted, and the start-up is done
    /// for the new ones. Never leaves [`crate::fill`].
    #[error("the group moved this instance's partitions")]
    Reassigned,
    /// A record of the window may stand in the target under another time: the open transaction was aborted, and the
    /// start-up is done again, to decide that before anything is written. Never leaves [`crate::fill`].
    #[error("a record may stand in the target under another time")]
    LookAgain,
    /// The outcome of a transaction is unknown, or its producer is no longer to be trusted: drop every
    /// client and the index, and do the start-up again. Never leaves [`crate::fill`] as such.
    #[error("{why}")]
    Restart {
        why: Told,
        /// A call was given up on, so the old producer may still do something later.
        abandoned: bool,
    },
}

pub type Result<T> = std::result::Result<T, Error>;

/// A sentence for people, and why for machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub text: String,
    reason: Option<Reason>,
}

impl Told {
    pub fn reason(&self) -> Option<Reason> {
        self.reason
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl<T: Into<String>> From<T> for Told {
    fn from(text: T) -> Told {
        Told { text: text.into(), reason: None }
    }
}

/// Why a command did not end well, as `error.reason` of its JSON has it. Scripts match these words, so they stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The command line is wrong.
    Usage,
    /// Nothing was written, and none of the closer words fits.
    Refused,
    /// It failed on the way, and none of the closer words fits.
    Failed,
    /// Two topics, or a drill's result, are not as they must be.
    Different,
    /// Another run took over, or is at work.
    Fenced,
    /// Ctrl-C or SIGTERM ended it.
    Interrupted,
    /// This principal may not do what the command has to, or the brokers do not let this client in.
    NoPermission,
    /// No broker, or not the one that is needed, answered in time.
    Unreachable,
    /// The brokers answer, and for as long as `--patience` allows nothing moved.
    NoProgress,
    /// A partition has fewer replicas in sync than `min.insync.replicas`, and takes no writes until they are back.
    NotEnoughReplicas,
    /// Another producer's transaction stayed open for as long as `--patience` allows.
    HangingTransaction,
    /// The brokers are too old for what the promise needs.
    UnsupportedBroker,
    /// There is no topic of that name.
    MissingTopic,
    /// A topic was deleted, made anew or given partitions meanwhile, or is another one than before.
    TopicChanged,
    /// A topic's or the brokers' configuration would break the promise: retention, compaction, timestamps, sizes.
    TopicConfiguration,
    /// The broker deleted records that the command needs.
    RecordsDeleted,
    /// A partition ends below what was committed or written: its leader lost a part of its log.
    LogLost,
    /// The target's keys are placed as no known partitioner does.
    UnknownPlacement,
    /// The window has no date, and the topic or file does not tell one.
    AmbiguousDate,
    /// One identity has two contents.
    Conflicts,
    /// Records without identity, event time or a place to go to, or a file with lines that are no events.
    InvalidRecords,
    /// The broker does not take a record.
    RefusedRecords,
    /// The target's copies bear other timestamps than the source's records.
    OtherTimestamps,
    /// Somebody else added some of the window's records to the target meanwhile.
    DoubledByOthers,
    /// The identities do not fit into `--index-memory`.
    IndexMemory,
}

impl Error {
    /// The process's exit code, as documented in the README.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Failed(_) | Error::Reassigned | Error::LookAgain | Error::Restart { .. } => 1,
            Error::Usage(_) => 2,
            Error::Refused(_) => 3,
            Error::Different(_) => 4,
            Error::Fenced(_) => 5,
            Error::Interrupted => 130,
        }
    }

    /// [`Error::exit_code`] in a word, as `status` of a command's JSON has it; `done` where there is no error.
    pub fn status(&self) -> &'static str {
        match self {
            Error::Failed(_) | Error::Reassigned | Error::LookAgain | Error::Restart { .. } => "failed",
            Error::Usage(_) => "usage",
            Error::Refused(_) => "refused",
            Error::Different(_) => "different",
            Error::Fenced(_) => "fenced",
            Error::Interrupted => "interrupted",
        }
    }

    pub fn usage(told: impl Into<Told>) -> Error {
        Error::Usage(told.into())
    }

    pub fn refused(told: impl Into<Told>) -> Error {
        Error::Refused(told.into())
    }

    pub fn failed(told: impl Into<Told>) -> Error {
        Error::Failed(told.into())
    }

    pub fn different(told: impl Into<Told>) -> Error {
        Error::Different(told.into())
    }

    pub fn fenced(told: impl Into<Told>) -> Error {
        Error::Fenced(told.into())
    }

    /// The same error, with a closer reason than its kind.
    #[must_use]
    pub fn because(mut self, because: Reason) -> Error {
        match &mut self {
            Error::Usage(told)
            | Error::Refused(told)
            | Error::Failed(told)
            | Error::Different(told)
            | Error::Fenced(told)
            | Error::Restart { why: told, .. } => told.reason = Some(because),
            Error::Interrupted | Error::Reassigned | Error::LookAgain => {}
        }
        self
    }

    pub fn reason(&self) -> Reason {
        match self {
            Error::Usage(told) => told.reason.unwrap_or(Reason::Usage),
            Error::Refused(told) => told.reason.unwrap_or(Reason::Refused),
            Error::Failed(told) | Error::Restart { why: told, .. } => told.reason.unwrap_or(Reason::Failed),
            Error::Different(told) => told.reason.unwrap_or(Reason::Different),
            Error::Fenced(told) => told.reason.unwrap_or(Reason::Fenced),
            Error::Interrupted => Reason::Interrupted,
            Error::Reassigned | Error::LookAgain => Reason::Failed,
        }
    }

    pub fn restart(why: impl Into<Told>) -> Error {
        Error::Restart { why: why.into(), abandoned: false }
    }

    /// For errors of the machine we run on: files, pipes, threads.
    pub fn io(what: impl std::fmt::Display, err: impl std::fmt::Display) -> Error {
        Error::failed(format!("{what}: {err}"))
    }

    /// For a call to Kafka outside of a transaction: a missing permission is refused by name, what may pass
    /// is for another start-up, anything else fails. `what` is a noun phrase: "the end offsets of topic a".
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

    /// [`Error::code`], for what needs `operations` on `topic`.
    pub fn topic(
        what: impl std::fmt::Display,
        operations: &str,
        topic: &str,
        code: RDKafkaErrorCode,
    ) -> Error {
        match code {
            RDKafkaErrorCode::TopicAuthorizationFailed => Error::refused(format!(
                "{what}: no permission; grant this principal {operations} on topic {topic}"
            ))
            .because(Reason::NoPermission),
            code => Error::code(what, code),
        }
    }

    /// [`Error::kafka`], for a bare error code.
    pub fn code(what: impl std::fmt::Display, code: RDKafkaErrorCode) -> Error {
        match denied(code) {
            Some(acl) => Error::refused(format!("{what}: no permission; grant this principal {acl}"))
                .because(Reason::NoPermission),
            None if is_transient(code) => {
                Error::restart(format!("{what}: {code}")).because(Reason::Unreachable)
            }
            None => Error::failed(format!("{what}: {code}")),
        }
    }
}

/// Whether it may be gone once the cluster has found itself again, as after a broker's death: what Kafka's
/// `Errors.java` calls retriable, and librdkafka's own words for connections and for brokers it just learnt of.
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

/// The access control entry that is missing where `code` says that one is.
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
