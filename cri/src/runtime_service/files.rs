//! Removing directories that may already be gone.

use std::io;
use std::path::Path;

use super::Failure;

/// Removes a directory and all below it.
pub(super) fn remove_all(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Failure::Io {
            action: "remove",
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}
