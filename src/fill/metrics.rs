//! Tells Prometheus what a fill is doing. Keeps nothing if nobody listens.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::base::error::{Error, Result};
use crate::fill::receipt::Counts;
use crate::fill::standing;

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

static IS_SERVED: AtomicBool = AtomicBool::new(false);

/// Whether this process serves its metrics.
pub(crate) fn is_served() -> bool {
    IS_SERVED.load(Ordering::Relaxed)
}

/// Answers HTTP requests at `address` with the metrics of this process, until the process ends.
///
/// # Errors
/// [`Error::Refused`] if the address is taken, or is not an address of this machine.
pub fn serve(address: SocketAddr) -> Result<()> {
    PrometheusBuilder::new().with_http_listener(address).install().map_err(|err| {
        Error::refused(format!(
            "--metrics-listen {address}: {err}; name an address of this machine and a port that is free"
        ))
    })?;
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
    describe_gauge!("replicator_source_end", "The offset at which the run ends in a partition of the source");
    standing::describe();
    IS_SERVED.store(true, Ordering::Relaxed);
    phase(Phase::Preflight);
    Ok(())
}

pub(crate) fn phase(now: Phase) {
    for (phase, name) in PHASES {
        gauge!("replicator_phase", "phase" => name).set(if phase == now { 1.0 } else { 0.0 });
    }
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

fn of_partitions(name: &'static str, offsets: impl Iterator<Item = (i32, i64)>) {
    for (partition, offset) in offsets {
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        gauge!(name, "partition" => partition.to_string()).set(offset as f64);
    }
}
