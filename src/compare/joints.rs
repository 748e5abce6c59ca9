//! Finds the joints of a follow. From the joint of a partition of the source on, the follow has copied each record,
//! equal ones too.

use super::positions::{Mark, Position, Positions};
use crate::base::error::{Error, Result};
use crate::base::interrupt::Interrupt;
use crate::base::range::index;
use crate::job::Selection;
use crate::job::identity::Identity;
use crate::job::ledger::Ledger;
use crate::kafka::sides::{Clusters, Sides};
use crate::kafka::sys::Message;
use crate::kafka::topic::Topic;

/// The joint of each partition of the source; none if no follow has marked it.
pub(super) struct Joints {
    each: Vec<Option<i64>>,
    /// Why nobody could ask for the joints, if so.
    pub unread: Option<String>,
    /// Why a fill of these topics is refused, if a follow has committed positions.
    pub refusal: Option<String>,
}

impl Joints {
    /// The joints of the job between these topics. Without a permission on its group and its ledger, or if the group's
    /// coordinator does not answer, there are none, and [`Joints::unread`] says why.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub(super) fn of(
        selection: &Selection,
        clusters: &Clusters,
        topics: &Sides<Topic>,
        interrupt: &Interrupt,
    ) -> Result<Joints> {
        // If the whole record is the identity, each record needs a copy of its own in any case.
        let matter = selection.rules.identity != Identity::Record;
        match positions(selection, clusters, topics, interrupt) {
            Ok((ledger, positions)) => {
                let joint = |at: Option<Position>| match at?.mark {
                    Mark::Follow(mark) => Some(mark.joint),
                    Mark::OfOtherTopics | Mark::Other => None,
                };
                let each: Vec<Option<i64>> = positions.into_iter().map(joint).collect();
                let is_followed = each.iter().any(Option::is_some);
                let refusal = is_followed.then(|| ledger.followed(clusters.target.properties()));
                Ok(Joints { each: if matter { each } else { Vec::new() }, unread: None, refusal })
            }
            Err(err @ Error::Interrupted) => Err(err),
            Err(err) => {
                let unread = matter.then(|| err.to_string());
                Ok(Joints { each: Vec::new(), unread, refusal: None })
            }
        }
    }

    pub(super) fn are_there(&self) -> bool {
        self.each.iter().any(Option::is_some)
    }

    pub(super) fn of_partition(&self, partition: usize) -> Option<i64> {
        self.each.get(partition).copied().flatten()
    }

    /// Whether a record of the source is at or above its joint.
    pub(super) fn are_below(&self, message: &Message) -> bool {
        self.of_partition(index(message.partition())).is_some_and(|joint| message.offset() >= joint)
    }
}

fn positions(
    selection: &Selection,
    clusters: &Clusters,
    topics: &Sides<Topic>,
    interrupt: &Interrupt,
) -> Result<(Ledger, Vec<Option<Position>>)> {
    let ledger = Ledger::of(selection, clusters, &topics.source)?;
    let positions = match clusters.target.width(&ledger.topic)? {
        Some(_) => Positions::of(clusters, &ledger)?.read(topics, interrupt)?,
        None => Vec::new(),
    };
    Ok((ledger, positions))
}
