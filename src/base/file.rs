//! Writes a file in one step, so that nobody finds a half of it.

use std::io::{Result, Write};
use std::path::Path;

use tempfile::NamedTempFile;

/// A new file in the same folder, under a name that says whose it is. The file is removed if nobody keeps it. `mode` is that
/// of Unix.
pub(crate) fn beside(file: &Path, mode: u32) -> Result<NamedTempFile> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut builder = tempfile::Builder::new();
    builder.prefix(".replicator-").suffix(".tmp");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    #[cfg(not(unix))]
    let _ = mode;
    builder.tempfile_in(folder.unwrap_or(Path::new(".")))
}

/// [`beside`], with this text. The disk has it.
pub(crate) fn written_beside(file: &Path, mode: u32, text: &str) -> Result<NamedTempFile> {
    let mut new = beside(file, mode)?;
    new.write_all(text.as_bytes())?;
    new.as_file().sync_all()?;
    Ok(new)
}
