//! The log file: opened for appending, one write(2) per batch, never a torn line.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::line::Batch;

/// What can fail about a log; a failing write is not an error but counted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// The directory of the log could not be made.
    #[error("make directory of log {path:?}")]
    MakeDirectory {
        /// The log's path.
        path: PathBuf,
        /// What mkdir(2) said.
        source: io::Error,
    },
    /// The file could not be opened or made.
    #[error("open log {path:?}")]
    Open {
        /// The log's path.
        path: PathBuf,
        /// What open(2) said.
        source: io::Error,
    },
    /// The container's output could not be watched.
    #[error("watch the container's output")]
    Watch(#[source] io::Error),
}

/// An open log file.
pub(crate) struct LogFile {
    file: File,
}

impl LogFile {
    /// Opens `path` for appending; makes it (0640) and its directories (0755) if they are missing.
    pub(crate) fn open(path: &Path) -> Result<Self, LogError> {
        if let Some(directory) = path.parent() {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(directory)
                .map_err(|source| LogError::MakeDirectory {
                    path: path.into(),
                    source,
                })?;
        }
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            // A path that is a fifo would block the shim.
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(|source| LogError::Open {
                path: path.into(),
                source,
            })?;
        Ok(Self { file })
    }

    /// Writes the batch and returns how many of its lines are in the file.
    pub(super) fn append(&self, batch: &Batch) -> u64 {
        let bytes = batch.bytes();
        let mut written = 0;
        while written < bytes.len() {
            match (&self.file).write(&bytes[written..]) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let (lines, whole) = batch.whole(written);
        if written > whole {
            self.untear((written - whole) as u64);
        }
        lines
    }

    /// Takes the last `bytes` away again. When that fails the reader meets one malformed line, and nothing else is lost.
    fn untear(&self, bytes: u64) {
        if let Ok(metadata) = self.file.metadata() {
            let _ = self.file.set_len(metadata.len().saturating_sub(bytes));
        }
    }
}
