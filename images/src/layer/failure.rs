//! Why a layer cannot be applied: which entry, and what about it.

use std::io;

use rustix::io::Errno;

use super::plan::Refusal;
use super::tar_stream::{Entry, TarError};
use super::walk::WalkError;

/// Why a layer archive is refused or could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The archive itself is damaged.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// An entry is refused.
    #[error("entry {entry:?}")]
    Refused {
        /// Name in the archive.
        entry: String,
        /// Why.
        #[source]
        refusal: Refusal,
    },
    /// The kernel refused an operation.
    #[error("entry {entry:?}: {call}")]
    Call {
        /// Name in the archive.
        entry: String,
        /// The system call.
        call: &'static str,
        /// Its error.
        #[source]
        errno: Errno,
    },
    /// Reading or writing an entry's data failed.
    #[error("entry {entry:?}: copy data")]
    Copy {
        /// Name in the archive.
        entry: String,
        /// The error.
        source: io::Error,
    },
}

pub(super) fn refused(entry: &Entry, refusal: Refusal) -> ApplyError {
    ApplyError::Refused {
        entry: entry.name(),
        refusal,
    }
}

pub(super) fn call(entry: &Entry, call: &'static str) -> impl FnOnce(Errno) -> ApplyError {
    let entry = entry.name();
    move |errno| ApplyError::Call { entry, call, errno }
}

pub(super) fn walked(entry: &Entry) -> impl FnOnce(WalkError) -> ApplyError {
    let name = entry.name();
    move |error| {
        let refusal = match error {
            WalkError::NotADirectory => Refusal::NotADirectory,
            WalkError::Loop => Refusal::Loop,
            WalkError::Depth => Refusal::Depth,
            WalkError::Errno(errno) => {
                return ApplyError::Call {
                    entry: name,
                    call: "open parent of",
                    errno,
                };
            }
        };
        ApplyError::Refused { entry: name, refusal }
    }
}
