//! The two clusters of a job: the source's and the target's. They may be one and the same.

use std::rc::Rc;

use crate::base::error::Result;
use crate::kafka::cluster::Cluster;
use crate::kafka::properties::Properties;

/// The part that a cluster has in a job of two clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Source,
    Target,
}

impl Side {
    pub(crate) const BOTH: [Side; 2] = [Side::Source, Side::Target];

    /// `source` or `target`: as in options, in the prefix of properties, and in messages.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Side::Source => "source",
            Side::Target => "target",
        }
    }
}

/// One thing of each side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sides<T> {
    pub source: T,
    pub target: T,
}

impl<T> Sides<T> {
    pub(crate) fn of(&self, side: Side) -> &T {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }
}

/// The connections to both clusters. With one cluster, both sides share them.
pub(crate) type Clusters = Sides<Rc<Cluster>>;

/// One cluster for both sides.
impl From<Properties> for Sides<Properties> {
    fn from(properties: Properties) -> Sides<Properties> {
        Sides { source: properties.clone(), target: properties }
    }
}

impl Sides<Properties> {
    /// Whether the job names two clusters. They may still be one, under two addresses.
    pub fn are_two(&self) -> bool {
        self.source.side().is_some()
    }

    /// Connects to the cluster, or to both.
    ///
    /// # Errors
    /// As [`Cluster::connect`].
    pub(crate) fn connect(&self, group: &str) -> Result<Clusters> {
        let source = Rc::new(Cluster::connect(&self.source, group)?);
        let target =
            if self.are_two() { Rc::new(Cluster::connect(&self.target, group)?) } else { source.clone() };
        Ok(Sides { source, target })
    }
}
