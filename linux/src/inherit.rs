//! Descriptors that a program was started with, by their agreed number.
//!
//! # Safety
//! A number becomes an `OwnedFd` at most once in the life of the process, and only a number that no code of this process
//! can have opened: see [`descriptor`].

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Takes over descriptor `number` (3 to 63), which whoever started this program left open on purpose.
///
/// Call it before anything else opens a descriptor: a number that was not left open could by then be somebody's.
///
/// # Errors
/// `EBADF` when it is not open, is close-on-exec (so it cannot have been inherited), or was taken before.
pub fn descriptor(number: u8) -> io::Result<OwnedFd> {
    let bad = || io::Error::from_raw_os_error(libc::EBADF);
    if !(3..64).contains(&number) {
        return Err(bad());
    }
    let bit = 1 << number;
    if TAKEN.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
        return Err(bad());
    }
    // SAFETY: borrowed for one fcntl only, which reports a number that is not open as EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(i32::from(number)) };
    let flags = rustix::io::fcntl_getfd(borrowed)?;
    if flags.contains(rustix::io::FdFlags::CLOEXEC) {
        return Err(bad());
    }
    // SAFETY: it is open, and nobody in this process owns it: all descriptors made here are close-on-exec, this one is
    // not, and TAKEN lets each number through once.
    let owned = unsafe { OwnedFd::from_raw_fd(i32::from(number)) };
    rustix::io::fcntl_setfd(&owned, rustix::io::FdFlags::CLOEXEC)?;
    Ok(owned)
}

static TAKEN: AtomicU64 = AtomicU64::new(0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_that_cannot_have_been_inherited_is_refused() {
        assert!(descriptor(2).is_err());
        // A shell may have left some of its own open, often 63.
        let open = |number: &u8| {
            std::path::Path::new("/proc/self/fd")
                .join(number.to_string())
                .exists()
        };
        let closed = (3..64).rev().find(|number| !open(number)).unwrap();
        assert!(descriptor(closed).is_err());
        assert!(descriptor(closed).is_err());
    }
}
