//! The clusters that all rounds of a drill share: one, or one for each side of the job.

use super::Drilling;
use super::fault::Fault;
use super::proxy::Proxy;
use super::topics::Topics;
use crate::base::error::{Error, Result};
use crate::base::interrupt::Interrupt;
use crate::kafka::sides::Side;
use crate::lab::sandbox::{BackDoor, Backend, Extras, Sandbox};

/// The source cluster of `--clusters 2` has one broker, so that its loss takes the whole source away.
const SOURCE_BROKERS: usize = 1;

/// A cluster of the drill.
pub(super) struct Cluster {
    pub sandbox: Sandbox,
    /// One in front of each broker; none for a named cluster.
    pub proxies: Vec<Proxy>,
    /// One between each broker and the other brokers, if a fault needs them.
    pub between: Vec<Proxy>,
    pub topics: Topics,
}

impl Cluster {
    fn behind_proxies(sandbox: Sandbox) -> Result<Cluster> {
        tracing::info!("on Kafka at {} ({})", sandbox.bootstrap(), sandbox.backend());
        let start = |doors: &[BackDoor]| doors.iter().map(Proxy::start).collect::<std::io::Result<_>>();
        let proxies = start(sandbox.back_doors());
        let proxies = proxies.map_err(|e| Error::io("a proxy in front of the brokers", e))?;
        let between = start(&sandbox.doors_between());
        let between = between.map_err(|e| Error::io("a proxy between the brokers", e))?;
        let topics = Topics::new(sandbox.bootstrap());
        Ok(Cluster { sandbox, proxies, between, topics })
    }

    /// The addresses that runs connect to.
    pub(super) fn bootstrap(&self) -> String {
        match self.proxies.as_slice() {
            [] => self.sandbox.bootstrap().to_owned(),
            proxies => proxies.iter().map(Proxy::address).collect::<Vec<_>>().join(","),
        }
    }

    /// How many replicas a topic of this cluster gets.
    pub(super) fn replicas(&self) -> usize {
        self.sandbox.brokers().min(3)
    }
}

/// Everything that the rounds share.
pub(super) struct Stage<'a> {
    /// The cluster of both topics, or the source's cluster and the target's.
    clusters: Vec<Cluster>,
    pub interrupt: &'a Interrupt,
}

impl<'a> Stage<'a> {
    /// # Errors
    /// [`Error::Failed`] if a cluster cannot be started or reached.
    pub(super) fn open(drilling: &Drilling, interrupt: &'a Interrupt) -> Result<Stage<'a>> {
        let (brokers, faults) = (drilling.brokers, &drilling.faults);
        let has_clocks = faults.contains(&Fault::Clock);
        // The watch reads all positions in the end, and a broker that is eight days ahead would compact their log.
        let properties =
            if has_clocks { vec![("log.cleaner.enable", "false".to_owned())] } else { Vec::new() };
        let extras = Extras {
            is_apart: faults.is_empty() || faults.contains(&Fault::Apart),
            other_version: faults.contains(&Fault::Version),
            has_clocks,
            properties,
            ..Extras::default()
        };
        let sandboxes = match &drilling.cluster {
            Some(named) => Sandbox::connect(named).map(|named| vec![named]),
            None if drilling.clusters == 1 => Sandbox::start_own_with(brokers, &extras).map(|own| vec![own]),
            None => Sandbox::start_two_with(SOURCE_BROKERS, brokers, &extras).map(Vec::from),
        };
        let sandboxes = sandboxes.map_err(|e| Error::io("a cluster to drill on", format!("{e:#}")))?;
        let clusters = sandboxes.into_iter().map(Cluster::behind_proxies).collect::<Result<_>>()?;
        Ok(Stage { clusters, interrupt })
    }

    pub(super) fn of(&self, side: Side) -> &Cluster {
        &self.clusters[self.index(side)]
    }

    pub(super) fn of_mut(&mut self, side: Side) -> &mut Cluster {
        let index = self.index(side);
        &mut self.clusters[index]
    }

    fn index(&self, side: Side) -> usize {
        match side {
            Side::Source => 0,
            Side::Target => self.clusters.len() - 1,
        }
    }

    pub(super) fn topics(&self, side: Side) -> &Topics {
        &self.of(side).topics
    }

    pub(super) fn are_two(&self) -> bool {
        self.clusters.len() > 1
    }

    /// The proxies of one side, or of the one cluster.
    pub(super) fn proxies(&self, sides: &[Side]) -> impl Iterator<Item = &Proxy> {
        sides.iter().flat_map(|side| &self.of(*side).proxies)
    }

    /// The brokers of each cluster.
    pub(super) fn brokers(&self) -> Vec<usize> {
        self.clusters.iter().map(|cluster| cluster.sandbox.brokers()).collect()
    }

    pub(super) fn backend(&self) -> Backend {
        self.of(Side::Target).sandbox.backend()
    }
}
