//! A topic, as the cluster describes it.

use crate::base::error::{Error, Reason, Result};
use crate::kafka::sys::describe::Access;

/// A topic at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub name: String,
    /// The topic's id (KIP-516), in base64, as librdkafka prints it. Stores and marks keep it.
    pub id: String,
    /// What this principal may do with the topic, if the broker tells.
    pub access: Option<Access>,
    pub partitions: usize,
    /// The replicas of the partition that has the fewest.
    pub min_replicas: usize,
    /// The replicas in sync of the partition that has the fewest.
    pub min_in_sync: usize,
}

impl Topic {
    /// The topic's id as Kafka's own tools print it. It has only characters that a topic's name may have.
    pub(crate) fn url_safe_id(&self) -> String {
        url_safe(&self.id)
    }

    /// The name, and the number of partitions.
    pub(crate) fn extent(&self) -> (&str, usize) {
        (&self.name, self.partitions)
    }

    /// Checks that each partition takes writes if `min.insync.replicas` is `min`.
    ///
    /// # Errors
    /// [`Error::Refused`] if a partition has fewer than `min` replicas; [`Error::Failed`] if too few are in sync now.
    pub fn takes_writes(&self, min: usize) -> Result<()> {
        let Topic { name, min_replicas, min_in_sync, .. } = self;
        if *min_replicas < min {
            return Err(Error::refused(format!(
                "a partition of {name} has {min_replicas} replicas and min.insync.replicas={min}: it never takes a write; \
                 give it more replicas, or lower min.insync.replicas"
            ))
            .because(Reason::TopicConfiguration));
        }
        if *min_in_sync < min {
            return Err(Error::failed(format!(
                "a partition of {name} has {min_in_sync} replicas in sync and min.insync.replicas={min}: it takes no \
                 writes now; bring its brokers up and run again"
            ))
            .because(Reason::NotEnoughReplicas));
        }
        Ok(())
    }
}

/// The id in base64 that is safe in a URL, as Kafka's own tools print it. librdkafka prints the usual base64.
pub(crate) fn url_safe(id: &str) -> String {
    id.replace('+', "-").replace('/', "_")
}

/// Checks a topic's name by the rules of `org.apache.kafka.common.internals.Topic`. librdkafka refuses a longer name,
/// and then `rdkafka` panics.
pub(super) fn check_name(name: &str) -> Result<()> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !name.is_empty() && name.len() <= 249 && name.chars().all(is_legal) && name != "." && name != ".." {
        return Ok(());
    }
    Err(Error::usage(format!(
        "`{}` cannot be a topic's name: a name has 1 to 249 letters, digits, dots, underscores and hyphens",
        name.chars().take(60).flat_map(char::escape_debug).collect::<String>()
    )))
}
