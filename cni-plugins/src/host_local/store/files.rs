//! The files of a store.

use crate::failure::Coded;
use coracle_cni_protocol::Code;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// An owner's file that is being written, under the lock; no owner's name lacks a colon.
pub(super) const NEW: &str = "new";

/// The store failed.
#[derive(Debug, thiserror::Error)]
#[error("address store: {action} {path}")]
pub(crate) struct StoreError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Coded for StoreError {
    fn code(&self) -> Code {
        Code::IO_FAILURE
    }
}

/// The text of a file; none when it does not exist.
pub(super) fn read(path: &Path) -> Result<Option<String>, StoreError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed("read", path, source)),
    }
}

/// Writes a file in place.
pub(super) fn write(path: &Path, text: &str) -> Result<(), StoreError> {
    fs::write(path, text).map_err(|source| failed("write", path, source))
}

/// Writes a file completely or not at all. Whoever is killed here, or finds the disk full, leaves the old content: it says what a DEL has to free.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), StoreError> {
    let new = path.with_file_name(NEW);
    let written = write(&new, text);
    let replaced =
        written.and_then(|()| fs::rename(&new, path).map_err(|source| failed("rename", &new, source)));
    if replaced.is_err() {
        // The first failure is the one to tell; a DEL removes what stays.
        let _ = fs::remove_file(&new);
    }
    replaced
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(failed("remove", path, source)),
        _ => Ok(()),
    }
}

/// The entries of a directory; none when it does not exist.
pub(super) fn list(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|source| failed("list", dir, source))?,
    };
    entries
        .map(|entry| {
            entry
                .map(|e| e.path())
                .map_err(|source| failed("list", dir, source))
        })
        .collect()
}

/// A failure to do something with a file.
pub(super) fn failed(action: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError {
        action,
        path: path.to_owned(),
        source,
    }
}
