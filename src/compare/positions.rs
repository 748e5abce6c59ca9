//! Reads what a job has committed: its positions in the source, and the marks of a follow beside them.

use rdkafka::consumer::BaseConsumer;

use crate::base::error::Result;
use crate::base::interrupt::Interrupt;
use crate::job::ledger::Ledger;
use crate::kafka::client::{Listener, close};
use crate::kafka::cluster::Cluster;
use crate::kafka::follow_mark::FollowMark;
use crate::kafka::offsets;
use crate::kafka::sides::{Clusters, Sides};
use crate::kafka::topic::Topic;

/// A client that reads the offsets of the job's group. It joins nothing, and waits for no transaction: it sees all that
/// is committed, and nothing of what is about to be.
pub(super) struct Positions<'a> {
    cluster: &'a Cluster,
    ledger: &'a Ledger,
    client: BaseConsumer<Listener>,
}

impl Drop for Positions<'_> {
    fn drop(&mut self) {
        close(&self.client);
    }
}

/// A committed position in a partition of the source.
pub(super) struct Position {
    pub offset: i64,
    pub mark: Mark,
}

/// What stands beside a committed position.
pub(super) enum Mark {
    Follow(FollowMark),
    /// The mark of a follow between other topics. One of the two names was given to another topic since then.
    OfOtherTopics,
    /// A fill's mark, or none.
    Other,
}

impl<'a> Positions<'a> {
    /// # Errors
    /// [`crate::base::error::Error::Usage`] if librdkafka refuses a property.
    pub(super) fn of(clusters: &'a Clusters, ledger: &'a Ledger) -> Result<Positions<'a>> {
        let cluster = &clusters.target;
        Ok(Positions { cluster, ledger, client: cluster.of_group(&ledger.name)? })
    }

    /// The position in each partition of the source.
    ///
    /// # Errors
    /// [`crate::base::error::Error::Restart`] if the group's coordinator does not answer;
    /// [`crate::base::error::Error::Refused`] without permission.
    pub(super) fn read(&self, topics: &Sides<Topic>, interrupt: &Interrupt) -> Result<Vec<Option<Position>>> {
        let job = FollowMark::job(&topics.source.id, &topics.target.id);
        let committed = offsets::of(&self.client, &self.ledger.name, self.ledger.extent(), interrupt)
            .map_err(|err| self.cluster.properties().says(err))?;
        let read = |metadata: &str| match FollowMark::parse(metadata) {
            Some(mark) if mark.job == job => Mark::Follow(mark),
            Some(_) => Mark::OfOtherTopics,
            None => Mark::Other,
        };
        let each = committed.into_iter();
        Ok(each.map(|at| at.map(|at| Position { offset: at.position, mark: read(&at.metadata) })).collect())
    }
}
