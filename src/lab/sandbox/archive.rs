//! Keeps an archive of Kafka's classes for Java's class data sharing. It halves the time that a broker takes to start.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;

use super::java::Java;
use super::{Extras, Sandbox};

/// How a JVM uses the archive of classes.
pub(super) enum Archive {
    Use(PathBuf),
    /// The JVM writes the archive when it ends, but only if it ends cleanly.
    Write(PathBuf),
    None,
}

impl Archive {
    /// The variables that [`super::config::LAUNCH`] reads.
    pub(super) fn variables(&self) -> [(&'static str, String); 2] {
        let (format, broker) = match self {
            Archive::Use(path) => {
                let option = format!("-XX:SharedArchiveFile={}", path.display());
                (option.clone(), option)
            }
            Archive::Write(path) => (String::new(), format!("-XX:ArchiveClassesAtExit={}", path.display())),
            Archive::None => (String::new(), String::new()),
        };
        [("FORMAT_OPTION", format), ("BROKER_OPTION", broker)]
    }
}

/// The archive for this Java and these jars. The first call makes it. A JVM does without an archive that does not fit,
/// so an error here only makes the start slower.
pub(super) fn ready(java: &Java, libs: &Path) -> Archive {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _held = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);

    let path = libs.with_file_name(format!("java-{}.jsa", java.version));
    if path.exists() {
        return Archive::Use(path);
    }
    match write(java, libs, &path) {
        Ok(()) => Archive::Use(path),
        Err(err) => {
            tracing::debug!("no archive of Kafka's classes: {err:#}");
            Archive::None
        }
    }
}

/// Writes the archive by running a broker once and stopping it cleanly.
fn write(java: &Java, libs: &Path, path: &Path) -> Result<()> {
    // Another process may be writing an archive too. Because of the rename, each archive appears only when it is
    // complete.
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let written = Sandbox::local_with(1, &Extras::default(), java, libs, Archive::Write(part.clone()))
        .and_then(|mut sandbox| sandbox.stop(0))
        .and_then(|()| Ok(fs::rename(&part, path)?));
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}
