//! Processes by descriptor: no id that could by now belong to somebody else.

use rustix::event::{PollFd, PollFlags, Timespec};
pub use rustix::process::{Pid, Signal};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

/// A descriptor of the process with this id.
///
/// # Errors
/// `ESRCH` when there is none.
pub fn open(pid: Pid) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(
        pid,
        rustix::process::PidfdFlags::empty(),
    )?)
}

/// Sends a signal.
///
/// # Errors
/// `ESRCH` when the process has ended and been collected.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    Ok(rustix::process::pidfd_send_signal(pidfd, signal)?)
}

/// Waits until the process has ended, at most `timeout`; says whether it has. It need not be a child, and a process
/// that nobody has collected yet counts as ended.
pub fn wait_end(pidfd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    let deadline = timeout.map(|timeout| std::time::Instant::now() + timeout);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(std::time::Instant::now()));
        let left = left
            .map(Timespec::try_from)
            .transpose()
            .map_err(io::Error::other)?;
        let mut poll = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
        match rustix::event::poll(&mut poll, left.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
