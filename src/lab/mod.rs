//! Shows and tests the rest of the program: a sandbox of brokers, the demo, and the drills.

pub(crate) mod demo;
pub(crate) mod drill;
pub(crate) mod sandbox;
mod tidy;
