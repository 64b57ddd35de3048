//! Signals of a `run` in the foreground, as a descriptor.

use super::CliError;
use coracle_linux::pidfd;
use nix::sys::signalfd::SignalFd;
use std::os::fd::{AsFd, BorrowedFd};

/// All signals, blocked and queued.
#[derive(Debug)]
pub(super) struct Signals(SignalFd);

impl Signals {
    pub(super) fn block() -> Result<Self, CliError> {
        let blocked = coracle_linux::signal::block_all();
        blocked.map(Self).map_err(|source| CliError::Foreground {
            doing: "blocking signals",
            source,
        })
    }

    /// Passes what has come on to the container; says whether the window changed its size.
    pub(super) fn forward(&self, container: BorrowedFd<'_>) -> bool {
        let mut window_changed = false;
        while let Ok(Some(info)) = self.0.read_signal() {
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            window_changed |= number == libc::SIGWINCH;
            // The last two are about this process: its children, and its own sockets and pipes.
            if ![libc::SIGCHLD, libc::SIGURG, libc::SIGPIPE].contains(&number) {
                // It may have ended already; that is what the loop waits for.
                let _ = pidfd::send_signal_number(container, number);
            }
        }
        window_changed
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
