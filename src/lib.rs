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
//! [`mod@fill`] is the one loop and owns all branching; its `attempt` is the start-up order, which is the
//! proof. What it stands on, each told in one place:
//!
//! 1. One writer: `init_transactions` with an id made of the two topics alone ([`Selection::name`]) ends a
//!    dead run's transaction and fences a live run ([`kafka::producer`]).
//! 2. Records and the source's offsets are committed in one transaction, or neither is ([`kafka::producer`]).
//! 3. A committed offset counts only with a mark of this very job, and while nothing can have undone what the mark
//!    says ([`kafka::mark`]); else the run begins by time, and the scan of the target finds what is there.
//! 4. Ends are high watermarks, the target's before the source's, taken before anything is read, and all below them is
//!    decided before it is read ([`kafka::cluster`]).
//! 5. A partition is at its end when a position says so, never by a count or by silence ([`kafka::reader`]).
//! 6. One judge says whether the target holds a record, by identity, content and count ([`judge`]); one identity with
//!    two contents is an error, not a choice.
//! 7. After any failure of unknown outcome the producer, the readers and the judge are dropped, and the
//!    start-up is done again: there is no second way to recover ([`kafka::restart`]).
//! 8. Where instances share the partitions, each does all of this for the ones that the group gives it, and commits
//!    under the generation in which it was given them ([`kafka::member`]).
//!
//! Beside it, [`mod@sink`] reads topics into a [`store`], where they are queried; that is exactly once by other means.
//!
//! The rooms, from the ground up; each uses what stands left of it, and nothing else (`tests/rooms.rs`):
//! `base` ← `kafka` ← `job` ← `judge` ← {`fill`, `compare`, `load`, `sink`, `generate`} ← `dashboard` ← `lab` ← `cli`.
//!
//! Deliberately absent: a consumer that reads what a group assigns to it, an idle timeout as the end of a topic,
//! state on disk, and retries inside a transaction. The only unsafe code is in [`kafka::sys`] and its modules.

mod base;
mod cli;
mod compare;
mod dashboard;
mod fill;
mod generate;
mod job;
mod judge;
mod kafka;
#[cfg(feature = "lab")]
mod lab;
mod load;
mod sink;

// What main, the tests and the benchmarks use; of all else, the compiler says when nothing does.
pub use base::error::{Error, Reason, Result};
pub use base::interrupt::Interrupt;
pub use base::json::Pointer;
pub use base::progress::Progress;
pub use base::range::Range;
pub use base::time::rfc3339;
pub use cli::answer::{Found, Unread, asks_for_json};
pub use cli::common::{Common, Output};
pub use cli::{Cli, Command, FillArgs};
pub use compare::gaps::{Gaps, gaps};
pub use compare::verify::{Comparison, Findings, verify};
pub use dashboard::Dashboard;
pub use fill::consequences::{Consequences, Group};
pub use fill::receipt::Receipt;
pub use fill::{fill, metrics};
pub use generate::generate;
pub use job::event_time::{EventTime, of_json};
pub use job::identity::{Fingers, Identity};
pub use job::window::{Window, WindowSpec};
pub use job::{INDEX_MEMORY, Job, Mode, OnConflict, Rules, Selection, TargetScan};
pub use judge::{Judge, Mark};
pub use kafka::client::{Isolation, close};
pub use kafka::cluster::Cluster;
pub use kafka::delivery::{Origin, Told};
pub use kafka::pace::{Pace, TransactionLimits};
pub use kafka::partition;
pub use kafka::producer::{Position, Producer};
pub use kafka::properties::Properties;
pub use kafka::reader::{Reader, Reading};
pub use kafka::sys::{ConsumerQueue, Event, Message, Outgoing, OutgoingTopic, flush, memory};
#[cfg(feature = "lab")]
pub use lab::demo::demo;
#[cfg(feature = "lab")]
pub use lab::drill::{drill, proxy, topics};
#[cfg(feature = "lab")]
pub use lab::sandbox::{Backend, Extras, Sandbox};
pub use load::{Given, LoadReceipt, Loading, load, load_within};
pub use sink::{sink, store};
