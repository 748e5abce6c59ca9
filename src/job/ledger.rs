//! The ledger: the topic whose offsets hold the source's positions.
//!
//! A transaction lives in one cluster, so the positions must be committed in the target's. There the group's
//! coordinator takes offsets only for a topic that exists. With one cluster, that topic is the source itself. With two,
//! it is an empty topic of the target's cluster, as wide as the source. It holds no record: commits and assignments work
//! even while all of its leaders are down.

use rdkafka::admin::{NewTopic, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;

use crate::base::error::{Error, Reason, Result};
use crate::base::interrupt::Interrupt;
use crate::job::Selection;
use crate::kafka::client::close;
use crate::kafka::cluster::Cluster;
use crate::kafka::create::{self, APPEARS};
use crate::kafka::lag::{self, LAG};
use crate::kafka::offsets;
use crate::kafka::properties::Properties;
use crate::kafka::sides::{Clusters, Sides};
use crate::kafka::topic::Topic;

/// The longest name of a topic.
const LONGEST: usize = 249;

/// Where a job keeps its positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// The name of the group, and of the transactional id. It depends only on the topics, so that a second run of the
    /// job fences the first. No topic's name contains a `/`.
    pub name: String,
    pub topic: String,
    /// As many as the source has.
    pub partitions: usize,
    /// Whether it is a topic of its own, and not the source.
    is_own: bool,
}

impl Ledger {
    /// The ledger of the job.
    ///
    /// # Errors
    /// As [`Cluster::topic`]; [`Error::Refused`] also if nobody can tell whether the clusters are one.
    pub(crate) fn of(selection: &Selection, clusters: &Clusters, source: &Topic) -> Result<Ledger> {
        let partitions = source.partitions;
        if !selection.properties.are_two() || are_one(clusters, source)? {
            let name = selection.name();
            return Ok(Ledger { name, topic: source.name.clone(), partitions, is_own: false });
        }
        let id = source.url_safe_id();
        Ok(Ledger {
            name: group(&id, &selection.source, &selection.target),
            topic: own_topic(&id, &source.name),
            partitions,
            is_own: true,
        })
    }

    /// Whether instances of the reversed job, which copies the target to the source, are at work in the source's cluster.
    /// A fill does not copy a copy back, since it compares. But two jobs in a circle are never what somebody wants. A
    /// single run of the reversed job cannot be seen.
    ///
    /// # Errors
    /// [`Error::Refused`] if this principal may not see the reversed job's ledger or group; [`Error::Restart`] if a broker
    /// does not answer.
    pub(crate) fn is_reversed_at_work(
        &self,
        clusters: &Clusters,
        (source, target): (&Topic, &Topic),
        interrupt: &Interrupt,
    ) -> Result<bool> {
        let id = target.url_safe_id();
        let (ledger, group) = match self.is_own {
            true => (own_topic(&id, &target.name), group(&id, &target.name, &source.name)),
            false => (target.name.clone(), group_of_one(&target.name, &source.name)),
        };
        if clusters.source.width(&ledger)?.is_none() {
            return Ok(false);
        }
        let client = clusters.source.of_group(&group)?;
        // Ask for the offsets first: this reports a missing permission, for which the list only lacks the group.
        let may_see = offsets::of(&client, &group, (&ledger, 1), interrupt);
        close(&client);
        may_see?;
        clusters.source.lists_members(&group)
    }

    /// The name of the topic, and how many partitions it has.
    pub(crate) fn extent(&self) -> (&str, usize) {
        (&self.topic, self.partitions)
    }

    /// Whether the ledger is the source itself.
    pub(crate) fn is_source(&self) -> bool {
        !self.is_own
    }

    /// Why a fill is refused once a follow has committed positions, and the way out.
    pub(crate) fn followed(&self, target: &Properties) -> String {
        format!(
            "a run with --follow has committed positions for these topics, and a fill would replace them: go on with \
             --follow; or, if nobody will, end all its instances, {}",
            self.forgetting(target)
        )
    }

    /// How to delete the positions of this job, as a clause.
    pub(crate) fn forgetting(&self, target: &Properties) -> String {
        format!(
            "and delete the job's offsets; if keys come again and again, then fill with --identity record:\n  {}",
            self.deletion(target)
        )
    }

    /// The command line that deletes the job's offsets, which are in the cluster of `target`.
    pub(crate) fn deletion(&self, target: &Properties) -> String {
        let words = ["--delete-offsets", "--group", &self.name, "--topic", &self.topic];
        target.tool("kafka-consumer-groups.sh", &words)
    }

    /// Makes sure that the ledger exists and is as wide as the source. Creates it or adds partitions if need be. An
    /// earlier run's ledger may have been deleted, also during a run. Then its positions are gone too, and the run
    /// scans the target.
    ///
    /// # Errors
    /// [`Error::Refused`] without permission, or if it has more partitions than the source; [`Error::Failed`] if the
    /// source got more partitions; [`Error::Restart`] if no broker answers, or the topic does not appear.
    pub(crate) fn ensure(&self, clusters: &Clusters, source: &Topic, interrupt: &Interrupt) -> Result<()> {
        if !self.is_own {
            return Ok(());
        }
        let cluster = &clusters.target;
        let says = |err| cluster.properties().says(err);
        let made = match cluster.width(&self.topic)? {
            Some(width) if width == self.partitions => return Ok(()),
            Some(width) if width > self.partitions => {
                return self.too_wide(clusters, source, width, interrupt);
            }
            Some(_) => self.grow(cluster),
            None => self.create(cluster),
        };
        // A broker that has just started may not know the topic yet, and a principal that need not create it may not.
        let limit = if made.is_ok() { APPEARS } else { LAG };
        let wide = lag::until(limit, || {
            interrupt.check()?;
            Ok(cluster.width(&self.topic)?.filter(|width| *width >= self.partitions))
        })?;
        if wide.is_some() {
            return Ok(());
        }
        made.map_err(says)?;
        let topic = &self.topic;
        Err(says(Error::restart(format!("the topic {topic} was created or widened, but does not appear"))))
    }

    /// Checks that the ledger is still there. Without it, the coordinator refuses positions only after a long time.
    ///
    /// # Errors
    /// [`Error::Restart`] if it is missing, or has another width. The next start-up mends that.
    pub(crate) fn check(&self, cluster: &Cluster) -> Result<()> {
        if !self.is_own || cluster.width(&self.topic)? == Some(self.partitions) {
            return Ok(());
        }
        let why = format!(
            "the topic {}, for whose partitions the run commits its positions, was deleted or changed",
            self.topic
        );
        Err(cluster.properties().says(Error::restart(why)))
    }

    fn create(&self, cluster: &Cluster) -> Result<()> {
        let (topic, partitions) = (&self.topic, i32::try_from(self.partitions).unwrap_or(i32::MAX));
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
        match create::topic(cluster.properties(), &new)? {
            Ok(()) => {
                tracing::info!(
                    "created the empty topic {topic}, for whose partitions the positions are committed"
                );
                Ok(())
            }
            // Another instance was first.
            Err(RDKafkaErrorCode::TopicAlreadyExists) => Ok(()),
            Err(RDKafkaErrorCode::TopicAuthorizationFailed) => Err(Error::refused(format!(
                "the run commits its positions as offsets of the empty topic {topic}, which is missing, and this \
                 principal may not create it: grant it Create on topic {topic}, or create the topic with\n  {}",
                cluster.properties().tool(
                    "kafka-topics.sh",
                    &["--create", "--topic", topic, "--partitions", &partitions.to_string()]
                )
            ))
            .because(Reason::NoPermission)),
            // Too few brokers are up now.
            Err(code @ RDKafkaErrorCode::InvalidReplicationFactor) => {
                Err(Error::restart(format!("creating topic {topic}: {code}")))
            }
            Err(code) => Err(Error::code(format!("creating topic {topic}"), code)),
        }
    }

    fn grow(&self, cluster: &Cluster) -> Result<()> {
        let Ledger { topic, partitions, .. } = self;
        let denied = format!(
            "the source got more partitions than {topic} has, and this principal may not add some there"
        );
        create::widen(cluster.properties(), topic, *partitions, &denied)
    }

    /// The source never gets fewer partitions. So either it got more since the run began, and another run has widened the
    /// ledger, or a broker of the source is behind, or somebody widened the ledger by hand.
    fn too_wide(
        &self,
        clusters: &Clusters,
        source: &Topic,
        width: usize,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let grown = lag::until(APPEARS, || {
            interrupt.check()?;
            Ok(clusters.source.width(&source.name)?.filter(|now| *now >= width))
        })?;
        if grown.is_some() {
            let grown = format!("{} was given more partitions; run again", source.name);
            let grown = Error::Grown(grown.into()).because(Reason::TopicChanged);
            return Err(clusters.source.properties().says(grown));
        }
        let Ledger { topic, partitions, .. } = self;
        let too_wide = Error::refused(format!(
            "the topic {topic}, for whose partitions the run commits its positions, has {width} partitions, but the \
             source has {partitions}; delete {topic}, so that the run creates it again: no record is lost with it, but \
             the run scans the target"
        ));
        Err(clusters.target.properties().says(too_wide.because(Reason::TopicConfiguration)))
    }
}

/// Whether both addresses are of one cluster. A topic with the source's id in the target's cluster is the source itself,
/// since topic ids are unique. Cluster ids are not: many clusters are made from the same configuration. But two ids are
/// of two clusters, so they decide if this principal may not see the source's name in the target's cluster.
fn are_one(clusters: &Clusters, source: &Topic) -> Result<bool> {
    match clusters.target.topic_id(&source.name) {
        Ok(found) => return Ok(found.is_some_and(|id| id == source.id)),
        Err(Error::Refused(why)) if why.reason() == Some(Reason::NoPermission) => {}
        Err(err) => return Err(err),
    }
    let (Some(of_source), Some(of_target)) = (clusters.source.id(), clusters.target.id()) else {
        return Err(
            Error::restart("a broker did not tell the id of its cluster").because(Reason::Unreachable)
        );
    };
    // A run between two clusters needs no permission on another topic of that name.
    if of_source != of_target {
        return Ok(false);
    }
    let unknown = Error::refused(format!(
        "this principal may not see whether there is a topic {name}, and both clusters have the id {of_target}, so the \
         run does not know whether they are one cluster: grant this principal Describe on topic {name}, or Read if \
         they are one; the topic need not exist",
        name = source.name
    ));
    Err(clusters.target.properties().says(unknown.because(Reason::NoPermission)))
}

/// The group of a job in one cluster.
pub(crate) fn group_of_one(source: &str, target: &str) -> String {
    format!("replicator/{source}/{target}")
}

fn group(id: &str, source: &str, target: &str) -> String {
    format!("replicator/{id}/{source}/{target}")
}

/// The topic's name: the source's id, and as much of its name as fits.
fn own_topic(id: &str, source: &str) -> String {
    let (head, tail) = (format!("replicator.{id}."), ".internal");
    let room = LONGEST - head.len() - tail.len();
    format!("{head}{}{tail}", &source[..source.len().min(room)])
}

/// Both topics of a job, and where it keeps its positions.
#[derive(Clone)]
pub(crate) struct Topics {
    pub sides: Sides<Topic>,
    pub ledger: Ledger,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_to_fit() {
        let id = "A-_Agwe0T5iIcbcTdrzf1g";
        assert_eq!(own_topic(id, "events"), "replicator.A-_Agwe0T5iIcbcTdrzf1g.events.internal");
        let longest = own_topic(id, &"e".repeat(LONGEST));
        assert_eq!(longest.len(), LONGEST);
        assert!(longest.ends_with("e.internal"));
    }
}
