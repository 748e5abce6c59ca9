//! Code that asks no cluster: errors, flags, time, JSON, connections over HTTP.

pub(crate) mod error;
pub(crate) mod failpoint;
pub(crate) mod file;
pub(crate) mod http;
pub(crate) mod interrupt;
pub(crate) mod invariant;
pub(crate) mod json;
pub(crate) mod patience;
pub(crate) mod progress;
pub(crate) mod range;
pub(crate) mod serve;
pub(crate) mod shell;
pub(crate) mod time;
pub(crate) mod tls;
pub(crate) mod url;
pub(crate) mod zone;
