//! Fills a time-window gap in one Kafka topic from another, exactly once, however often it runs.
//!
//! The way of a record:
//!
//! ```text
//! source ── poll thread ──► window ──► judge ──► transaction ──► target
//!              │                         ▲            │
//!         end snapshot            scan of the     offsets, in the
//!                                    target       same transaction
//! ```
//!
//! [`fill`] is the one loop and owns all branching; its `attempt` is the start-up order, which is the
//! proof. What it stands on, each told in one place:
//!
//! 1. One writer: `init_transactions` with an id made of the two topics alone ([`job::Selection::name`]) ends a
//!    dead run's transaction and fences a live run ([`txn`]).
//! 2. Records and the source's offsets are committed in one transaction, or neither is ([`txn`]).
//! 3. A committed offset counts only with a mark of this very job, and while nothing can have undone what the mark
//!    says ([`mark`]); else the run begins by time, and the scan of the target finds what is there.
//! 4. Ends are high watermarks, the target's before the source's, taken before anything is read, and all below them is
//!    decided before it is read ([`cluster`]).
//! 5. A partition is at its end when a position says so, never by a count or by silence ([`source`]).
//! 6. One judge says whether the target holds a record, by identity, content and count ([`judge`]); one identity with
//!    two contents is an error, not a choice.
//! 7. After any failure of unknown outcome the producer, the readers and the judge are dropped, and the
//!    start-up is done again: there is no second way to recover ([`restart`]).
//! 8. Where instances share the partitions, each does all of this for the ones that the group gives it, and commits
//!    under the generation in which it was given them ([`member`]).
//!
//! Beside it, [`sink`] reads topics into a [`store`], where they are queried; that is exactly once by other means.
//!
//! Deliberately absent: a consumer that reads what a group assigns to it, an idle timeout as the end of a topic,
//! state on disk, and retries inside a transaction. The only unsafe code is in [`sys`] and its modules.

pub mod answer;
pub mod chart;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod compare;
pub mod consequences;
pub mod dashboard;
pub mod delivery;
pub mod demo;
pub mod drill;
pub mod error;
pub mod event_time;
pub mod failpoint;
pub mod fill;
pub mod gaps;
pub mod generate;
pub mod identity;
pub mod interrupt;
pub mod job;
pub mod json;
pub mod judge;
pub mod limits;
pub mod load;
pub mod mark;
pub mod member;
pub mod metrics;
pub mod offsets;
pub mod pace;
pub mod partition;
pub mod patience;
pub mod preflight;
pub mod progress;
pub mod range;
pub mod rate;
pub mod receipt;
pub mod record;
pub mod resolve;
pub mod restart;
pub mod sandbox;
pub mod sink;
pub mod source;
pub mod store;
pub mod sys;
pub mod txn;
pub mod verify;
pub mod window;
