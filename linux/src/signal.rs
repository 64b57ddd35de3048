//! Signals of the calling process.
//!
//! # Safety
//! `signal(2)` is called only to restore a default disposition, which runs no code of ours.

#![allow(unsafe_code)]

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io;

/// Undoes what this program did to the signals that a program it executes inherits: the mask of [`block_all`], and the
/// ignored SIGPIPE of Rust's start-up code.
pub fn restore_defaults() -> io::Result<()> {
    // SAFETY: SIG_DFL is a disposition, not a handler: nothing of ours is called on this signal.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    Ok(sigprocmask(
        SigmaskHow::SIG_SETMASK,
        Some(&SigSet::empty()),
        None,
    )?)
}

/// Blocks every signal that can be blocked; they are read from the descriptor returned instead. For the calling thread,
/// and those it starts.
pub fn block_all() -> io::Result<SignalFd> {
    let all = SigSet::all();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&all), None)?;
    Ok(SignalFd::with_flags(
        &all,
        SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
    )?)
}
