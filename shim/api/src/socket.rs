//! Unix sockets whose path may be longer than `sun_path` (108 bytes, unix(7)): the directory is opened and the socket
//! named through `/proc/self/fd/N`, which is always short.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Why a socket's path could not be used.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path has no file name, or the name alone is longer than `sun_path` leaves room for.
    #[error("socket path {path:?} has no usable file name (1 to {NAME_MAX} bytes)")]
    Name {
        /// The path as given.
        path: PathBuf,
    },
    /// The directory that holds the socket.
    #[error("open directory {path:?}")]
    OpenDirectory {
        /// The directory.
        path: PathBuf,
        /// What open(2) said.
        source: io::Error,
    },
    /// The socket could not be made there.
    #[error("bind socket {path:?}")]
    Bind {
        /// The path as given.
        path: PathBuf,
        /// What bind(2) or listen(2) said.
        source: io::Error,
    },
}

/// Makes a listening socket at `path`. A file that is already there is an error (EADDRINUSE).
///
/// The daemon hands it to the shim as descriptor 3 and closes its own copy.
pub fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let short = ShortPath::open(path)?;
    UnixListener::bind(short.path()).map_err(|source| SocketError::Bind {
        path: path.into(),
        source,
    })
}

/// `/proc/self/fd/N/name`, usable as long as this lives.
pub(crate) struct ShortPath {
    /// Keeps the number in `path` valid.
    _directory: File,
    path: PathBuf,
}

impl ShortPath {
    pub(crate) fn open(path: &Path) -> Result<Self, SocketError> {
        let name = path
            .file_name()
            .filter(|name| name.as_bytes().len() <= NAME_MAX)
            .ok_or_else(|| SocketError::Name { path: path.into() })?;
        let parent = parent_of(path);
        let directory = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(O_PATH)
            .open(parent)
            .map_err(|source| SocketError::OpenDirectory {
                path: parent.into(),
                source,
            })?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
        Ok(Self {
            _directory: directory,
            path,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str() != OsStr::new("") => parent,
        _ => Path::new("."),
    }
}

/// 108 bytes less the final NUL and `/proc/self/fd/` with a ten-digit number and a slash.
const NAME_MAX: usize = 82;

/// open(2); the same number on all Linux architectures that Rust names but alpha, parisc and sparc.
const O_PATH: i32 = 0o10000000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_longer_than_sun_path_can_be_bound_and_connected() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("shim.sock");
        let _listener = bind(&path).unwrap();
        let short = ShortPath::open(&path).unwrap();
        std::os::unix::net::UnixStream::connect(short.path()).unwrap();
    }

    #[test]
    fn a_name_that_cannot_fit_is_refused_by_name() {
        let error = bind(Path::new("/").join("n".repeat(NAME_MAX + 1)).as_path()).unwrap_err();
        assert!(error.to_string().contains("nnn"), "{error}");
    }
}
