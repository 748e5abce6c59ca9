//! Fills a time-window gap in one Kafka topic from another, exactly once, however often it runs.
//!
//! The path of a record:
//!
//! ```text
//! source ── poll thread ──► window ──► judge ──► transaction ──► target
//!              │                         ▲            │
//!         end snapshot            scan of the     offsets, in the
//!                                    target       same transaction
//! ```
//!
//! [`mod@fill`] is the only loop, and it decides about each record. Its function `attempt` holds the start-up order,
//! and that order is the proof. The proof rests on these invariants. Each is kept in one place of the code. Debug
//! builds and tests check those that a program can check ([`base::invariant`]).
//!
//! 1. **One writer.** The transactional id is made of the two topics alone ([`job::ledger`]). So
//!    `init_transactions` ends the transaction of a dead run, and fences a run that lives ([`kafka::producer`]).
//! 2. **One transaction.** It commits the records and the source's positions together, or neither ([`kafka::producer`]).
//!    If the topics are in two clusters, the positions are offsets of a topic of the target's ([`job::ledger`]). It
//!    commits only while both topics have the ids that it began with ([`mod@fill`]).
//! 3. **Marks.** A run trusts a committed offset only if this very job left its mark there, and if nothing can have
//!    undone what the mark says ([`kafka::mark`]). Otherwise the run begins by time, and the scan of the target finds
//!    what is there. Checked: `a_mark_reads_back`.
//! 4. **Ends.** The ends of both topics are high watermarks. The run takes the target's ends before the source's, and
//!    both before it reads ([`kafka::watermarks`]). It reads only after every transaction below them is committed or
//!    aborted ([`kafka::stable`]). Checked: `ends_never_move`, `no_position_passes_an_end`.
//! 5. **Positions.** A partition is read to its end only when the reader's position is there. A count of records or a
//!    silent broker proves nothing ([`kafka::reader`]). Only the user's promise of an order ends it earlier
//!    ([`job::order`]). Checked: `positions_only_rise`, `done_is_at_the_ends`.
//! 6. **One judge** says whether the target holds a record: by identity, content and count ([`judge`]). If one identity
//!    has two contents, the run fails instead of choosing. Checked: `each_record_has_one_fate`.
//! 7. **One way to recover.** After a failure of unknown outcome, the run drops the producer, the readers and the judge,
//!    and starts up again ([`kafka::restart`]). Checked for the producer: `nothing_is_left`.
//! 8. **Shares.** If instances share the partitions, each does all of this for the partitions that the group gives it. It
//!    commits under the generation in which it got them ([`kafka::member`]). Checked: `a_share_commits_its_own`.
//! 9. **Follow.** A follow begins at a joint that a fill has reached, so above it nothing need be compared
//!    (`fill/follow`). Its marks hold while topics live, and only a log that was cut makes them void
//!    ([`kafka::follow_mark`]). Checked: `a_mark_reads_back`.
//!
//! [`mod@sink`] reads topics into a [`store`], where people query them. It is exactly once in another way: a SQL
//! database stores the records and the positions in one transaction of its own. OpenSearch and Elasticsearch store each
//! record under an id of its own, so that storing it again changes nothing.
//!
//! The rooms, lowest first. Each room uses only rooms to its left (`tests/rooms.rs`):
//! `base` ← `kafka` ← `telemetry` ← `job` ← `judge` ← {`fill`, `compare`, `load`, `sink`, `generate`} ← `dashboard` ← `lab` ← `cli`.
//!
//! Deliberately absent: a consumer that reads what a group assigns to it, an idle timeout as the end of a topic, state on
//! disk, and retries inside a transaction. [`kafka::sys`] and its modules hold all unsafe code.

#![allow(
    rustdoc::private_intra_doc_links,
    reason = "these pages are for readers of the code: --document-private-items"
)]

mod base;
mod cli;
mod compare;
mod dashboard;
mod fill;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod generate;
mod job;
mod judge;
mod kafka;
#[cfg(feature = "lab")]
mod lab;
mod load;
mod sink;
mod telemetry;

// Main, the tests and the benchmarks use these items. The compiler warns of every other item that nothing uses.
pub use base::error::{Error, Reason, Result};
pub use base::interrupt::Interrupt;
pub use base::json::Pointer;
pub use base::progress::Progress;
pub use base::range::Range;
pub use base::time::rfc3339;
pub use base::zone::Tz;
pub use cli::answer::{Found, Unread, asks_for_json};
pub use cli::common::{Common, Output};
pub use cli::help::{command, manual};
pub use cli::{Cli, Command, FillArgs, RunArgs};
pub use compare::gaps::{Gaps, gaps};
pub use compare::lag::{Lag, lag};
pub use compare::summary::{Agreement, Half, Summarized, agreement, summarize};
pub use compare::verify::{Comparison, Findings, verify};
pub use dashboard::Dashboard;
pub use fill::consequences::{Consequences, Group};
pub use fill::differences::Difference;
pub use fill::receipt::Receipt;
pub use fill::{fill, fill_telling};
pub use generate::generate;
pub use job::event_time::{EventTime, of_json};
pub use job::identity::{Fingers, Identity};
pub use job::names::Names;
pub use job::schema::Schemas;
pub use job::window::{Window, WindowSpec};
pub use job::{INDEX_MEMORY, Job, Mode, OnConflict, Rules, Selection, TargetScan};
pub use judge::{Judge, Signature};
pub use kafka::client::{Isolation, close};
pub use kafka::cluster::Cluster;
pub use kafka::delivery::Reports;
pub use kafka::origin::Origin;
pub use kafka::pace::{Pace, TransactionLimits};
pub use kafka::partition;
pub use kafka::position::Position;
pub use kafka::producer::Producer;
pub use kafka::properties::Properties;
pub use kafka::reader::{Reader, Reading};
pub use kafka::sides::{Side, Sides};
pub use kafka::sys::{ConsumerQueue, Event, Message, Outgoing, OutgoingTopic, flush, memory, names};
#[cfg(feature = "lab")]
pub use lab::demo::demo;
#[cfg(feature = "lab")]
pub use lab::drill::{drill, proxy, topics, watch};
#[cfg(feature = "lab")]
pub use lab::sandbox::{Backend, Extras, KAFKA_VERSION, Sandbox};
pub use load::{Given, LoadReceipt, Loading, PATIENCE, load, load_within};
pub use sink::{sink, store};
pub use telemetry::{About, Wanted, end as end_metrics, keep as keep_metrics};
