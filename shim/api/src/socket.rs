//! The socket between daemon and shim. Its path may be longer than `sun_path` (108 bytes, unix(7)).

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use coracle_linux::socket;

/// A socket that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("bind socket {path:?}")]
pub struct BindError {
    /// The path as given.
    pub path: PathBuf,
    /// What bind(2) or listen(2) said.
    pub source: io::Error,
}

/// A shim that could not be connected to.
#[derive(Debug, thiserror::Error)]
#[error("connect to shim {path:?}")]
pub struct ConnectError {
    /// The socket's path.
    pub path: PathBuf,
    /// What connect(2) said. Nobody listens (ENOENT, ECONNREFUSED: the shim is gone), or the listener's queue is full
    /// (EAGAIN).
    pub source: io::Error,
}

/// Makes a listening socket at `path`. A file that is already there is an error (EADDRINUSE).
///
/// The daemon hands it to the shim as descriptor 3 and closes its own copy.
pub fn bind(path: &Path) -> Result<UnixListener, BindError> {
    let listener = socket::listen(path, BACKLOG).map_err(|source| BindError {
        path: path.into(),
        source,
    })?;
    Ok(listener.into())
}

/// Connects, without waiting, to the shim that listens at `path`; the socket is nonblocking.
pub(crate) fn connect(path: &Path) -> Result<UnixStream, ConnectError> {
    let stream = socket::connect_at_once(path).map_err(|source| ConnectError {
        path: path.into(),
        source,
    })?;
    Ok(stream.into())
}

/// Connections that wait for the shim to accept them; the kernel takes the smaller of this and net.core.somaxconn.
const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn a_path_longer_than_sun_path_can_be_bound_and_connected() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("shim.sock");
        let _listener = bind(&path).unwrap();
        connect(&path).unwrap();
    }

    #[test]
    fn what_the_kernel_said_is_behind_the_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shim.sock");
        let said = |error: &dyn Error| error.source().unwrap().to_string();
        let nobody = connect(&path).unwrap_err();
        assert!(said(&nobody).contains("os error 2"), "{}", said(&nobody));
        drop(bind(&path).unwrap());
        let gone = connect(&path).unwrap_err();
        assert!(said(&gone).contains("os error 111"), "{}", said(&gone));
        let there = bind(&path).unwrap_err();
        assert!(said(&there).contains("os error 98"), "{}", said(&there));
        for error in [&nobody as &dyn Error, &gone, &there] {
            assert!(!error.to_string().contains("os error"), "{error}");
        }
    }
}
