//! The file of `--metrics-file`, in the format of the node exporter's textfile collector.

use std::path::Path;

use metrics_exporter_prometheus::PrometheusHandle;

use super::SUCCESS;
use crate::base::error::{Error, Result};
use crate::base::file::{beside, written_beside};

/// Checks that the file can be written, before the run does anything.
///
/// # Errors
/// [`Error::Refused`] if it cannot, or if the node exporter would not read it.
pub(super) fn check(file: &Path) -> Result<()> {
    let refused = |why: &str| Error::refused(format!("--metrics-file {}: {why}", file.display()));
    if file.extension().is_none_or(|extension| extension != "prom") {
        return Err(refused("the node exporter reads only files whose names end in .prom"));
    }
    if file.is_dir() {
        return Err(refused("that is a folder"));
    }
    beside(file, MODE)
        .map(drop)
        .map_err(|err| refused(&format!("{err}; name a file in a folder that this user may write to")))
}

/// The exporter is another user.
const MODE: u32 = 0o644;

/// Replaces the file in one step. A reader sees the old text or the new one.
///
/// # Errors
/// [`Error::Failed`] if it cannot be written; then the old text stays.
pub(super) fn write(file: &Path, text: &str) -> Result<()> {
    let new = written_beside(file, MODE, text);
    let kept = new.and_then(|new| new.persist(file).map_err(|err| err.error));
    kept.map(drop).map_err(|err| Error::io(format!("the metrics file {}", file.display()), err))
}

/// When an earlier run of this job last had success, in seconds since the epoch. `None` if the file does not say so, or is
/// of another job.
pub(super) fn last_success(file: &Path, handle: &PrometheusHandle) -> Option<f64> {
    let earlier = std::fs::read_to_string(file).ok()?;
    let own = handle.render();
    // The name and the labels, as this run writes them.
    let own = own.lines().find(|line| line.starts_with(SUCCESS))?.rsplit_once(' ')?.0;
    earlier.lines().find_map(|line| line.strip_prefix(own)?.strip_prefix(' ')?.parse().ok())
}
