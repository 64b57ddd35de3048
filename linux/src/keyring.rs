//! Session keyrings: `keyctl(2)`.
//!
//! # Safety
//! `keyctl` reads one string and otherwise takes numbers.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;

/// Gives this process a session keyring of this name: an existing one of that name that it may search, or a new one.
/// Its owner may search it afterwards, which the kernel's default does not allow (keyrings(7)).
///
/// # Errors
/// `ENOSYS` on kernels built without keys.
pub fn join_session(name: &CStr) -> io::Result<()> {
    // SAFETY: the name is NUL terminated and outlives the call; this request takes no other argument.
    let id = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    if id < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes two numbers: the serial number just returned, and permission bits.
    let done = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, id, POSSESSOR_ALL | USER_ALL) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
const KEYCTL_SETPERM: libc::c_int = 5;
const POSSESSOR_ALL: u32 = 0x3f00_0000;
/// View, read, write, search, link; not setattr.
const USER_ALL: u32 = 0x001f_0000;
