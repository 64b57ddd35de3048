//! Signals of the calling process.
//!
//! # Safety
//! `signal(2)` is called only to restore a default disposition, which runs no code of ours.

#![allow(unsafe_code)]

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io;

/// Gives a program that is executed next the signals it expects: none blocked, none ignored. execve(2) keeps what is
/// ignored: SIGPIPE since Rust's start-up code, SIGHUP below nohup(1), and whatever else our caller ignores.
pub fn restore_defaults() -> io::Result<()> {
    for number in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL is a disposition, not a handler: nothing of ours is called on this signal. What has none to
        // change (SIGKILL, SIGSTOP, the C library's own) is answered with an error and stays.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
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
