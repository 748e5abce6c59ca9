//! The faults that a drill can cause.

use clap::ValueEnum;

/// A fault of a run, of the cluster, or of the network between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// Kill the run with kill -9
    Kill,
    /// Send SIGTERM to the run
    Terminate,
    /// Send SIGSTOP to the run, and SIGCONT a moment later
    Freeze,
    /// Send SIGSTOP for longer than a transaction may be open, then SIGCONT
    Outlive,
    /// Kill or stop one broker, and start it again
    Broker,
    /// Stop and start all brokers, one after the other
    Rolling,
    /// Send SIGSTOP to one broker, and SIGCONT a few seconds later
    Stall,
    /// Hold back all that the other brokers send to one broker
    Apart,
    /// Let one broker's disk be full until the broker ends, and start it again; needs Java and Linux
    Disk,
    /// Set one broker's clock wrong, and right again; needs Java and libfaketime
    Clock,
    /// Start brokers by another version of Kafka, one after the other, and back; needs Java
    Version,
    /// Let a replica lead the target that lacks what the brokers had acknowledged
    Unclean,
    /// Move replicas and leaders of the topics, and of the brokers' own topics
    Reassign,
    /// Cut all connections
    Cut,
    /// Delay all requests and responses
    Slow,
    /// Hold back all requests, all responses, or both
    Silent,
    /// Deliver a commit long after its sender has given up on it
    LateCommit,
    /// Start a second run of the same job
    Rival,
    /// Open another producer's transaction in the target
    Foreign,
    /// Add records of the window to the source
    Append,
    /// Delete the committed offsets between two runs
    Forget,
    /// Delete a topic under a run, and create it again
    Anew,
    /// Delete the topic whose offsets hold the positions under a run
    Ledger,
    /// Delete the source's oldest records under a run
    Trim,
    /// Give both topics a partition more under a run, one topic after the other
    Grow,
    /// Copy new records to the target as a mirror does, records that equal earlier ones
    Mirror,
    /// Let two or three instances share the work with --scale-out, and let one of them leave
    ScaleOut,
}

impl Fault {
    /// Whether a drill can cause it on a named cluster, without breaking brokers.
    pub fn is_of_clients(self) -> bool {
        use Fault::*;
        !matches!(
            self,
            Broker
                | Rolling
                | Stall
                | Apart
                | Disk
                | Clock
                | Version
                | Unclean
                | Reassign
                | Cut
                | Slow
                | Silent
                | LateCommit
        )
    }
}
