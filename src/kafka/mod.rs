//! Everything that talks to a cluster: its clients, their requests, reading and writing.

pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod create;
pub(crate) mod delivery;
mod environment;
pub(crate) mod follow_mark;
pub(crate) mod given;
pub(crate) mod lag;
pub(crate) mod mark;
pub(crate) mod member;
pub(crate) mod offsets;
pub(crate) mod origin;
pub(crate) mod pace;
pub mod partition;
pub(crate) mod position;
pub(crate) mod producer;
pub(crate) mod properties;
pub(crate) mod reader;
pub(crate) mod record;
pub(crate) mod restart;
mod rules;
pub(crate) mod sides;
pub(crate) mod stable;
pub(crate) mod sys;
pub(crate) mod topic;
pub(crate) mod truncation;
pub(crate) mod watermarks;
