//! Signals of a `run` in the foreground, as a descriptor.

use super::CliError;
use coracle_linux::pidfd;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// All signals, blocked and queued.
#[derive(Debug)]
pub(super) struct Signals(SignalFd);

/// Those of them that are a request to end: also while there is no container yet that they could be passed on to.
#[derive(Debug)]
pub(super) struct Ending(SignalFd);

impl Ending {
    /// Waits until there is something to be read, for a request to end, which is returned, or for `patience`.
    pub(super) fn wait_readable(
        &self,
        fd: BorrowedFd<'_>,
        patience: Option<Duration>,
    ) -> Result<Option<Signal>, CliError> {
        let timeout = patience.map(|patience| patience.try_into().unwrap_or_default());
        let mut ready = [
            PollFd::from_borrowed_fd(fd, PollFlags::IN),
            PollFd::new(&self.0, PollFlags::IN),
        ];
        retry_on_intr(|| poll(&mut ready, timeout.as_ref())).map_err(|errno| CliError::Foreground {
            doing: "waiting for the container's first process",
            source: errno.into(),
        })?;
        if ready[1].revents().is_empty() {
            return Ok(None);
        }
        let signal = self.0.read_signal().ok().flatten();
        let number = signal.and_then(|signal| i32::try_from(signal.ssi_signo).ok());
        Ok(number.and_then(|number| Signal::try_from(number).ok()))
    }
}

impl Signals {
    pub(super) fn block() -> Result<Self, CliError> {
        let blocked = coracle_linux::signal::block_all();
        blocked.map(Self).map_err(|source| CliError::Foreground {
            doing: "blocking signals",
            source,
        })
    }

    /// The requests to end among them.
    pub(super) fn ending(&self) -> Result<Ending, CliError> {
        let ending = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP];
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let made = SignalFd::with_flags(&SigSet::from_iter(ending), flags);
        made.map(Ending).map_err(|errno| CliError::Foreground {
            doing: "reading signals",
            source: errno.into(),
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
