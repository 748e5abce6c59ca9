//! The brokers that a place names: flags, the environment, files or a profile. Pure.

use std::fmt;

use super::sides::{Side, Sides};
use crate::base::error::{Error, Result};

/// The brokers that are named: of one cluster, or of two.
#[derive(PartialEq, Eq)]
pub(super) enum Brokers {
    Unnamed,
    One(String),
    Two(Sides<String>),
}

/// The same list of brokers in one way of writing it.
pub(crate) fn in_order(bootstrap: &str) -> String {
    let mut brokers: Vec<&str> = bootstrap.split(',').map(str::trim).filter(|at| !at.is_empty()).collect();
    brokers.sort_unstable();
    brokers.dedup();
    brokers.join(",")
}

impl Brokers {
    /// Whether they are the same ones, in whatever order.
    pub(super) fn are(&self, other: &Brokers) -> bool {
        match (self, other) {
            (Brokers::One(one), Brokers::One(other)) => in_order(one) == in_order(other),
            (Brokers::Two(two), Brokers::Two(other)) => {
                in_order(&two.source) == in_order(&other.source)
                    && in_order(&two.target) == in_order(&other.target)
            }
            _ => self == other,
        }
    }
}

impl fmt::Display for Brokers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Brokers::Unnamed => f.write_str("no brokers"),
            Brokers::One(brokers) => f.write_str(brokers),
            Brokers::Two(Sides { source, target }) => {
                write!(f, "{source} for the source and {target} for the target")
            }
        }
    }
}

/// The brokers that one place names.
pub(super) struct Named {
    pub(super) one: Option<String>,
    pub(super) sides: Sides<Option<String>>,
    pub(super) from: &'static str,
    /// The only side that the command reads. Its cluster stands for the other one.
    pub(super) only: Option<Side>,
}

impl Named {
    /// The variables that give this, if it is from the environment.
    pub(super) fn variables(&self) -> String {
        let given = [
            (&self.one, "KAFKA_BOOTSTRAP_SERVERS"),
            (&self.sides.source, "KAFKA_SOURCE_BOOTSTRAP_SERVERS"),
            (&self.sides.target, "KAFKA_TARGET_BOOTSTRAP_SERVERS"),
        ];
        let given = given.into_iter().filter(|(brokers, _)| brokers.is_some());
        given.map(|(_, name)| name).collect::<Vec<_>>().join(" and ")
    }

    /// # Errors
    /// [`Error::Usage`] if one cluster is named beside two, or only one of two.
    pub(super) fn brokers(self) -> Result<Brokers> {
        let given = |brokers: Option<String>| brokers.filter(|brokers| !brokers.trim().is_empty());
        let Named { one, sides, from, only } = self;
        let own = |side| given(sides.of(only.unwrap_or(side)).clone());
        match (given(one), own(Side::Source), own(Side::Target)) {
            (None, None, None) => Ok(Brokers::Unnamed),
            (Some(one), None, None) => Ok(Brokers::One(one)),
            (None, Some(source), Some(target)) => Ok(Brokers::Two(Sides { source, target })),
            (None, found, _) => {
                let (is, lacks) = if found.is_some() { ("source", "target") } else { ("target", "source") };
                Err(Error::usage(format!(
                    "the {is} cluster is named {from}, but not the {lacks} cluster: name both, with \
                     --{is}-bootstrap-server and --{lacks}-bootstrap-server"
                )))
            }
            (Some(_), ..) => Err(Error::usage(format!(
                "{from}, one cluster is named for both topics (--bootstrap-server, KAFKA_BOOTSTRAP_SERVERS or \
                 bootstrap.servers), and also a source or target cluster: leave out one or the other"
            ))),
        }
    }
}
