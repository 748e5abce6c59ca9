//! What shows and proves the rest: a sandbox of brokers, the demo, the drills.

pub(crate) mod demo;
pub(crate) mod drill;
pub(crate) mod sandbox;
