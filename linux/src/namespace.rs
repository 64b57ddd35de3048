//! Entering and leaving namespaces: `setns(2)`, `unshare(2)`, `/proc/PID/ns`.
//!
//! # Safety
//! `unshare` and `setns` are unsafe only where they would take a thread's descriptor table or file system
//! attributes away from under its siblings; neither is among [`Namespaces`].

#![allow(unsafe_code)]

pub use crate::process::Namespaces;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Opens a namespace file (`/proc/PID/ns/KIND` or a bind mount of one).
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    Ok(rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Moves this process into the namespace that `file` refers to, or, when `file` is a pidfd, into those namespaces of
/// that process which `kinds` names.
///
/// # Errors
/// `EINVAL` when the namespace is of another kind; for user, mount and time namespaces also when there are threads.
pub fn enter(file: BorrowedFd<'_>, kinds: Namespaces) -> io::Result<()> {
    let flags =
        libc::c_int::try_from(kinds.bits()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: takes no pointers; the descriptor is borrowed for the call. It changes what names mean for this
    // process, not memory or descriptors.
    let done = unsafe { libc::setns(file.as_raw_fd(), flags) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Gives this process new namespaces of these kinds. A new PID or time namespace is for its children.
pub fn unshare(kinds: Namespaces) -> io::Result<()> {
    let flags =
        libc::c_int::try_from(kinds.bits()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: takes no pointers, and no flag that Namespaces can hold unshares memory or descriptors.
    let done = unsafe { libc::unshare(flags) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The kind of namespace that `file` refers to (`NS_GET_NSTYPE`), or `None` when it is none.
pub fn kind(file: BorrowedFd<'_>) -> Option<Namespaces> {
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    // SAFETY: this request takes no argument and returns a number; on other files it fails with ENOTTY.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE as _) };
    u64::try_from(kind).ok().and_then(Namespaces::from_bits)
}
