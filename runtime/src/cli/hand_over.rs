//! Handing a descriptor to whoever listens at a unix socket (`--console-socket`, `--pidfd-socket`).

use super::CliError;
use coracle_linux::socket;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

pub(super) fn send(path: &Path, name: &[u8], fd: BorrowedFd<'_>) -> Result<(), CliError> {
    let sent = socket::connect(path).and_then(|socket| socket::send(socket.as_fd(), name, &[fd]));
    sent.map_err(|source| CliError::HandOver {
        path: path.to_owned(),
        source,
    })
}
