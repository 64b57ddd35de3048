//! Processes by descriptor: no id that could by now belong to somebody else.
//!
//! # Safety
//! The only unsafe call is `pidfd_send_signal(2)` by number, for signals that rustix has no names for.

#![allow(unsafe_code)]

use rustix::event::{PollFd, PollFlags, Timespec};
pub use rustix::process::{Pid, Signal};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
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

/// Sends the signal of this number, which may be a real-time one (some programs want to be stopped with such).
///
/// # Errors
/// `EINVAL` when there is no such signal; `ESRCH` when the process has ended and been collected.
pub fn send_signal_number(pidfd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is borrowed for the call and the pointer may be null (pidfd_send_signal(2)). A signal
    // changes nothing in this process unless it sends it to itself, and then its handler runs as for any other sender.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, no_info, 0) };
    if sent == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
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
