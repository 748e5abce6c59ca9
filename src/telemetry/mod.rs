//! Tells Prometheus what a run is doing, and probes whether it is well. Keeps nothing unless somebody asked for it.
//!
//! Each metric has the labels `command`, `source` and `target`. Names end in their unit, as in Prometheus' own rules.

#[cfg(test)]
mod board;
mod file;
mod health;
pub(crate) mod standing;

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use self::health::{Answer, Health};
use crate::base::error::{Error, Result};
use crate::base::serve;
use crate::kafka::sides::Side;

/// Who wants the metrics of a run.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Answer HTTP requests at this address.
    pub listen: Option<SocketAddr>,
    /// Write them to this file.
    pub file: Option<PathBuf>,
}

/// What a run is, in the labels of its metrics.
#[derive(Clone, Debug)]
pub struct About {
    pub command: &'static str,
    /// Topics, files and stores as people know them. They hold no secret.
    pub source: String,
    pub target: String,
}

/// The phase of a run. Each new start-up of a fill begins again with [`Phase::Init`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A command without phases, or a run that has not begun.
    Run,
    Preflight,
    Init,
    Wait,
    Scan,
    Copy,
    Close,
    Follow,
}

const PHASES: [(Phase, &str); 8] = [
    (Phase::Run, "run"),
    (Phase::Preflight, "preflight"),
    (Phase::Init, "init"),
    (Phase::Wait, "wait"),
    (Phase::Scan, "scan"),
    (Phase::Copy, "copy"),
    (Phase::Close, "close"),
    (Phase::Follow, "follow"),
];

impl Phase {
    fn word(self) -> &'static str {
        PHASES.iter().find(|(phase, _)| *phase == self).map_or("unknown", |(_, word)| word)
    }
}

/// How often the clock is looked at.
const STEP: Duration = Duration::from_secs(1);
/// How often the file is written during the run.
const WRITE: Duration = Duration::from_secs(15);

/// The metrics of this process, once somebody wants them.
struct Kept {
    handle: PrometheusHandle,
    file: Option<PathBuf>,
}

static KEPT: OnceLock<Kept> = OnceLock::new();
static HEALTH: Mutex<Option<Health>> = Mutex::new(None);

/// Whether this process keeps metrics.
pub(crate) fn is_kept() -> bool {
    KEPT.get().is_some()
}

/// Keeps the metrics of this process until it ends. [`end`] writes the last ones.
///
/// At the address, it answers:
/// - `/metrics`: the metrics, as text for Prometheus.
/// - `/healthz`: 503 if somebody must look at the run. A cluster has been away for longer than `patience`, a follow has
///   said nothing for so long, or the last [`Standing`](standing::Standing) has troubles. Else 200, also during a fill.
/// - `/livez`: 503 only if a follow has said nothing for longer than `patience`. Only then does a restart help.
///
/// The time that a cluster has been away does not count as silence: a restart does not bring the cluster back.
///
/// # Errors
/// [`Error::Refused`] if the address is taken, or is not an address of this machine; if the file cannot be written.
pub fn keep(wanted: &Wanted, about: &About, patience: Duration) -> Result<()> {
    if wanted.listen.is_none() && wanted.file.is_none() {
        return Ok(());
    }
    if let Some(file) = &wanted.file {
        file::check(file)?;
    }
    let refused = |err: &dyn Display| {
        let at = wanted.listen.map_or(String::new(), |address| format!(" {address}"));
        Error::refused(format!(
            "--metrics-listen{at}: {err}; name an address of this machine and a port that is free"
        ))
    };
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().map_err(|err| refused(&err))?;
    let listen = |address| runtime.block_on(async { serve::listen(address) }).map_err(|err| refused(&err));
    let listener = wanted.listen.map(listen).transpose()?;
    let handle = builder(about).install_recorder().map_err(|err| refused(&err))?;
    *HEALTH.lock().unwrap_or_else(PoisonError::into_inner) = Some(Health::new(patience));
    describe();
    begin();
    if let Some(before) = wanted.file.as_deref().and_then(|file| file::last_success(file, &handle)) {
        gauge!(SUCCESS).set(before);
    }
    // A second call in one process would have failed above: there is one recorder.
    let kept = KEPT.get_or_init(|| Kept { handle: handle.clone(), file: wanted.file.clone() });
    let serving = async move {
        let served = async {
            if let Some(listener) = listener {
                serve::serve(listener, router(handle)).await;
            }
        };
        tokio::join!(served, tick(kept));
    };
    let thread = std::thread::Builder::new().name("metrics".to_owned());
    thread.spawn(move || runtime.block_on(serving)).map_err(|err| refused(&err))?;
    Ok(())
}

/// Keeps how the run ended, with the numbers of records in its answer by their names there. Writes the file.
///
/// # Errors
/// [`Error::Failed`] if the file cannot be written.
pub fn end(exit_code: u8, answer: &serde_json::Value) -> Result<()> {
    let Some(kept) = KEPT.get() else { return Ok(()) };
    ended(exit_code, answer);
    kept.file.as_deref().map_or(Ok(()), |file| file::write(file, &rendered(&kept.handle)))
}

fn ended(exit_code: u8, answer: &serde_json::Value) {
    gauge!("replicator_run_end_timestamp_seconds").set(now());
    gauge!("replicator_run_exit_code").set(f64::from(exit_code));
    if exit_code == 0 {
        succeeded();
    }
    for (name, count) in answer.as_object().into_iter().flatten() {
        if let Some(count) = count.as_f64().filter(|_| RECORDS.contains(&name.as_str())) {
            gauge!("replicator_run_records", "count" => name.clone()).set(count);
        }
    }
}

/// The fields of answers that count records.
const RECORDS: [&str; 28] = [
    "read",
    "in_window",
    "already_in_target",
    "duplicates_in_source",
    "duplicates_in_target",
    "conflicts",
    "invalid",
    "refused",
    "written",
    "to_write",
    "followed",
    "in_source",
    "in_target",
    "missing",
    "duplicated",
    "changed",
    "extra",
    "reordered",
    "moved",
    "under_another_time",
    "doubled",
    "only_in_target",
    "left_out",
    "lines",
    "loaded",
    "already_loaded",
    "skipped_by_window",
    "without_key",
];

const POSITION: &str = "replicator_position_offset";
const END: &str = "replicator_end_offset";
const SUCCESS: &str = "replicator_last_success_timestamp_seconds";

/// The run has done all that it should do so far.
pub(crate) fn succeeded() {
    gauge!(SUCCESS).set(now());
}

/// Seconds since the epoch.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn builder(about: &About) -> PrometheusBuilder {
    PrometheusBuilder::new()
        .add_global_label("command", about.command)
        .add_global_label("source", &about.source)
        .add_global_label("target", &about.target)
}

fn router(handle: PrometheusHandle) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || probed(Health::healthz)))
        .route("/livez", get(async || probed(Health::livez)))
        .with_state(handle)
}

async fn metrics(State(handle): State<PrometheusHandle>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain")], rendered(&handle)).into_response()
}

/// The metrics that have a value. The exporter cannot forget a gauge; see [`forget`].
fn rendered(handle: &PrometheusHandle) -> String {
    handle.render().split_inclusive('\n').filter(|line| !line.ends_with(" NaN\n")).collect()
}

fn probed(ask: impl Fn(&Health) -> Answer) -> Response {
    let health = HEALTH.lock().unwrap_or_else(PoisonError::into_inner);
    health.as_ref().map(ask).map_or(StatusCode::SERVICE_UNAVAILABLE.into_response(), Answer::into_response)
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let is_well = self.troubles.is_empty();
        let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Json(self)).into_response()
    }
}

/// Counts the time, lets the exporter tidy up, and writes the file.
async fn tick(kept: &Kept) {
    let (mut last, mut written) = (Instant::now(), Instant::now());
    loop {
        tokio::time::sleep(STEP).await;
        let now = Instant::now();
        health(|health| health.passed(now - last));
        last = now;
        kept.handle.run_upkeep();
        if let Some(file) = kept.file.as_deref().filter(|_| written.elapsed() >= WRITE) {
            written = now;
            if let Err(err) = file::write(file, &rendered(&kept.handle)) {
                tracing::warn!("{err}");
            }
        }
    }
}

fn health(tell: impl FnOnce(&mut Health)) {
    if let Some(health) = HEALTH.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        tell(health);
    }
}

/// Says what each metric means.
fn describe() {
    for (name, what, _) in TOTALS {
        describe_counter!(name, what);
    }
    for (name, what) in [
        ("replicator_build_info", "1, with the version of the program"),
        ("replicator_run_start_timestamp_seconds", "When the run began, since the epoch"),
        ("replicator_run_end_timestamp_seconds", "When the run ended, since the epoch; absent before"),
        ("replicator_run_exit_code", "The exit code of the run; absent before it ended"),
        ("replicator_run_records", "A number of records in the answer of a run that ended"),
        (SUCCESS, "When the run, or an earlier one, last had done all that it should, since the epoch"),
        ("replicator_phase", "1 for the phase that the run is in, else 0"),
        (POSITION, "The offset reached in a partition of the source"),
        (END, "The offset up to which the run reads now in a partition of the source"),
    ] {
        describe_gauge!(name, what);
    }
    standing::describe();
}

/// Sets what is known from the start.
fn begin() {
    gauge!("replicator_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!("replicator_run_start_timestamp_seconds").set(now());
    // Until a run had success. This value is not shown; see `rendered`.
    gauge!(SUCCESS).set(f64::NAN);
}

/// Says that the run has entered a phase.
pub(crate) fn phase(now: Phase) {
    health(|health| health.phase(now));
    for (phase, name) in PHASES {
        gauge!("replicator_phase", "phase" => name).set(if phase == now { 1.0 } else { 0.0 });
    }
}

/// Tells the probes whether the cluster of a side answered.
fn up(side: Side, is_up: bool) {
    health(|health| health.up(side, is_up));
}

/// Tells the probes why a start-up of a follow failed.
pub(crate) fn failed(why: &str) {
    health(|health| health.failed(why));
}

/// Tells the probes where a follow stands.
fn stands(troubles: &[String]) {
    health(|health| health.stands(troubles));
}

/// The totals of a run so far. All but the last four are numbers of records.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub read: u64,
    pub in_window: u64,
    pub already_in_target: u64,
    pub duplicates_in_source: u64,
    pub conflicts: u64,
    pub invalid: u64,
    pub written: u64,
    /// Bytes of the keys and values among `written`.
    pub written_bytes: u64,
    pub transactions: u64,
    pub aborted_transactions: u64,
    pub restarts: u64,
}

const WRITTEN: &str = "replicator_written_records_total";
const WRITTEN_BYTES: &str = "replicator_written_bytes_total";
const RESTARTS: &str = "replicator_restarts_total";

/// The name of a total, its meaning, and where it is.
type Total = (&'static str, &'static str, fn(&Totals) -> u64);

#[rustfmt::skip]
const TOTALS: [Total; 11] = [
    ("replicator_read_records_total", "Records of the source that were read", |of| of.read),
    ("replicator_in_window_records_total", "Records read that are in the window", |of| of.in_window),
    ("replicator_already_in_target_records_total", "Records of the window that the target held already", |of| of.already_in_target),
    ("replicator_duplicates_in_source_records_total", "Records that the source holds more than once", |of| of.duplicates_in_source),
    ("replicator_conflicting_records_total", "Records with the identity of a record that has other content", |of| of.conflicts),
    ("replicator_invalid_records_total", "Records without identity or event time", |of| of.invalid),
    (WRITTEN, "Records written and committed", |of| of.written),
    (WRITTEN_BYTES, "Bytes of keys and values written and committed", |of| of.written_bytes),
    ("replicator_transactions_total", "Transactions committed", |of| of.transactions),
    ("replicator_aborted_transactions_total", "Transactions aborted", |of| of.aborted_transactions),
    (RESTARTS, "Start-ups after a failure", |of| of.restarts),
];

/// Sets the totals of a fill.
pub(crate) fn totals(totals: Totals) {
    for (name, _, total) in TOTALS {
        counter!(name).absolute(total(&totals));
    }
}

/// Sets the totals of one topic that a sink writes into its store.
pub(crate) fn sunk(topic: &str, records: u64, bytes: u64) {
    counter!(WRITTEN, "source" => topic.to_owned()).absolute(records);
    counter!(WRITTEN_BYTES, "source" => topic.to_owned()).absolute(bytes);
}

/// Counts a start-up after a failure.
pub(crate) fn restarted() {
    counter!(RESTARTS).increment(1);
}

pub(crate) fn positions(positions: impl Iterator<Item = (i32, i64)>) {
    positions.for_each(|(partition, offset)| of_partition(POSITION, None, partition, offset));
}

pub(crate) fn ends(ends: impl Iterator<Item = (i32, i64)>) {
    ends.for_each(|(partition, offset)| of_partition(END, None, partition, offset));
}

/// Sets the value of a partition: of this topic, or of the run's one source.
fn of_partition(name: &'static str, topic: Option<&str>, partition: i32, value: i64) {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    set(name, topic, partition, value as f64);
}

/// Leaves the value of a partition out from now on.
fn forget(name: &'static str, topic: Option<&str>, partition: i32) {
    set(name, topic, partition, f64::NAN);
}

fn set(name: &'static str, topic: Option<&str>, partition: i32, value: f64) {
    let partition = partition.to_string();
    match topic {
        Some(topic) => gauge!(name, "source" => topic.to_owned(), "partition" => partition).set(value),
        None => gauge!(name, "partition" => partition).set(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_fails_by_its_status() {
        let status = |troubles: &[&str]| {
            let troubles = troubles.iter().map(|text| (*text).to_owned()).collect();
            Answer { status: "any", phase: "follow", troubles }.into_response().status()
        };
        assert_eq!((status(&[]).as_u16(), status(&["another writer"]).as_u16()), (200, 503));
    }
}
