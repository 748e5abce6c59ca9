//! Tells Prometheus what a run is doing, and probes whether it is well. Keeps nothing if nobody listens.

#[cfg(test)]
mod board;
mod health;

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

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
use crate::fill::receipt::Counts;
use crate::fill::standing;
use crate::kafka::sides::Side;

/// The phase of a fill. Each new start-up begins again with [`Phase::Init`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Preflight,
    Init,
    Wait,
    Scan,
    Copy,
    Close,
    Follow,
}

const PHASES: [(Phase, &str); 7] = [
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

/// How often the server looks at the clock.
const STEP: Duration = Duration::from_secs(1);

static IS_SERVED: AtomicBool = AtomicBool::new(false);
static HEALTH: Mutex<Option<Health>> = Mutex::new(None);

/// Whether this process serves its metrics.
pub(crate) fn is_served() -> bool {
    IS_SERVED.load(Ordering::Relaxed)
}

/// Answers HTTP requests at `address`, until the process ends:
/// - `/metrics`: the metrics of this process, as text for Prometheus.
/// - `/healthz`: 503 if somebody must look at the run. A cluster has been away for longer than `patience`, a follow has
///   said nothing for so long, or the last [`Standing`](standing::Standing) has troubles. Else 200, also during a fill.
/// - `/livez`: 503 only if a follow has said nothing for longer than `patience`. Only then does a restart help.
///
/// The time that a cluster has been away does not count as silence: a restart does not bring the cluster back.
///
/// # Errors
/// [`Error::Refused`] if the address is taken, or is not an address of this machine.
pub fn serve(address: SocketAddr, patience: Duration) -> Result<()> {
    let refused = |err: &dyn Display| {
        Error::refused(format!(
            "--metrics-listen {address}: {err}; name an address of this machine and a port that is free"
        ))
    };
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().map_err(|err| refused(&err))?;
    let listener = runtime.block_on(async { serve::listen(address) }).map_err(|err| refused(&err))?;
    let handle = PrometheusBuilder::new().install_recorder().map_err(|err| refused(&err))?;
    *HEALTH.lock().unwrap_or_else(PoisonError::into_inner) = Some(Health::new(patience));
    describe();
    IS_SERVED.store(true, Ordering::Relaxed);
    phase(Phase::Preflight);
    let serving = async move {
        tokio::join!(serve::serve(listener, router(handle.clone())), keep(&handle));
    };
    let thread = std::thread::Builder::new().name("metrics".to_owned());
    thread.spawn(move || runtime.block_on(serving)).map_err(|err| refused(&err))?;
    Ok(())
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

/// Counts the time, and lets the exporter tidy up.
async fn keep(handle: &PrometheusHandle) {
    let mut last = Instant::now();
    loop {
        tokio::time::sleep(STEP).await;
        let now = Instant::now();
        health(|health| health.passed(now - last));
        last = now;
        handle.run_upkeep();
    }
}

fn health(tell: impl FnOnce(&mut Health)) {
    if let Some(health) = HEALTH.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        tell(health);
    }
}

/// Sets every total to zero, and says what each metric means.
fn describe() {
    for (name, what) in [
        ("replicator_read_total", "Records of the source that were read"),
        ("replicator_in_window_total", "Records read that are in the window"),
        ("replicator_already_in_target_total", "Records of the window that the target held already"),
        ("replicator_duplicates_in_source_total", "Records that the source holds more than once"),
        ("replicator_conflicts_total", "Records with the identity of a record that has other content"),
        ("replicator_invalid_total", "Records without identity or event time"),
        ("replicator_written_total", "Records written, in committed transactions"),
        ("replicator_transactions_total", "Transactions committed"),
        ("replicator_aborted_transactions_total", "Transactions aborted"),
        ("replicator_restarts_total", "Start-ups after a failure"),
    ] {
        describe_counter!(name, what);
        counter!(name).absolute(0);
    }
    describe_gauge!("replicator_phase", "1 for the phase that the run is in, else 0");
    describe_gauge!("replicator_source_position", "The offset reached in a partition of the source");
    describe_gauge!(
        "replicator_source_end",
        "The offset up to which the run reads now in a partition of the source"
    );
    standing::describe();
}

/// Says that the run has entered a phase.
pub(crate) fn phase(now: Phase) {
    health(|health| health.phase(now));
    for (phase, name) in PHASES {
        gauge!("replicator_phase", "phase" => name).set(if phase == now { 1.0 } else { 0.0 });
    }
}

/// Tells the probes whether the cluster of a side answered.
pub(super) fn up(side: Side, is_up: bool) {
    health(|health| health.up(side, is_up));
}

/// Tells the probes why a start-up of a follow failed.
pub(super) fn failed(why: &str) {
    health(|health| health.failed(why));
}

/// Tells the probes where a follow stands.
pub(super) fn stands(troubles: &[String]) {
    health(|health| health.stands(troubles));
}

/// Sets the totals of the run so far.
pub(crate) fn totals(counts: Counts, transactions: u64, aborted_transactions: u64, restarts: u64) {
    for (name, total) in [
        ("replicator_read_total", counts.read),
        ("replicator_in_window_total", counts.in_window),
        ("replicator_already_in_target_total", counts.already_in_target),
        ("replicator_duplicates_in_source_total", counts.duplicates_in_source),
        ("replicator_conflicts_total", counts.conflicts),
        ("replicator_invalid_total", counts.invalid),
        ("replicator_written_total", counts.written),
        ("replicator_transactions_total", transactions),
        ("replicator_aborted_transactions_total", aborted_transactions),
        ("replicator_restarts_total", restarts),
    ] {
        counter!(name).absolute(total);
    }
}

pub(crate) fn positions(positions: impl Iterator<Item = (i32, i64)>) {
    of_partitions("replicator_source_position", positions);
}

pub(crate) fn ends(ends: impl Iterator<Item = (i32, i64)>) {
    of_partitions("replicator_source_end", ends);
}

/// Leaves the value of a partition out from now on.
pub(super) fn forget(name: &'static str, partition: i32) {
    gauge!(name, "partition" => partition.to_string()).set(f64::NAN);
}

fn of_partitions(name: &'static str, offsets: impl Iterator<Item = (i32, i64)>) {
    for (partition, offset) in offsets {
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        gauge!(name, "partition" => partition.to_string()).set(offset as f64);
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
