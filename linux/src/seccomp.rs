//! System call filters: `seccomp(2)` with `SECCOMP_SET_MODE_FILTER`.
//!
//! # Safety
//! The kernel copies and checks the program; a bad one is refused. A filter takes system calls away from this
//! process, memory stays as it is.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// Installs a filter for this process and all it will start, with `SECCOMP_FILTER_FLAG_*` bits in `flags`. Gives the
/// notification descriptor (close-on-exec) when the flags ask for one.
///
/// # Errors
/// `EACCES` without `CAP_SYS_ADMIN` and without no_new_privs; `EINVAL` for a program or flag the kernel refuses;
/// `EBUSY` when a listener exists already.
pub fn install(program: &[libc::sock_filter], flags: u64) -> io::Result<Option<OwnedFd>> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let filter = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `filter` describes the borrowed slice exactly and both outlive the call; the kernel only reads it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const filter,
        )
    };
    let done = i32::try_from(done).map_err(|_| io::Error::from_raw_os_error(libc::EPROTO))?;
    match done {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        fd if flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 => {
            // SAFETY: with NEW_LISTENER a positive result is a new descriptor that nobody else owns.
            Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
        }
        // With TSYNC alone a positive result is the id of a thread that could not follow (seccomp(2)).
        _ => Err(io::Error::from_raw_os_error(libc::ESRCH)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_the_kernel_cannot_verify_is_refused() {
        let endless = [libc::sock_filter {
            code: 0x05,
            jt: 0,
            jf: 0,
            k: 0,
        }];
        assert!(install(&endless, 0).is_err());
        assert!(install(&[], 0).is_err());
    }
}
