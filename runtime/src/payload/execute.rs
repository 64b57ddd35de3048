//! The last step: the process becomes its program.

use super::{LastWords, PayloadError};
use crate::identity::Confine;
use crate::seccomp::Filter;
use coracle_linux::process::Execve;
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;

/// An execve that needs nothing but itself: it can be prepared before a filter is loaded that allows no other call.
#[derive(Debug)]
pub(crate) struct Execute<'a> {
    execve: Execve<'a>,
    program: String,
    /// What an error begins with.
    doing: String,
    words: &'a LastWords,
}

impl<'a> Execute<'a> {
    pub(crate) fn prepare(
        program: &'a CStr,
        args: &'a [CString],
        env: &'a [CString],
        words: &'a LastWords,
    ) -> Self {
        let name = program.to_string_lossy().into_owned();
        Self {
            execve: Execve::prepare(program, args, env),
            doing: format!("exec {name:?}"),
            program: name,
            words,
        }
    }

    /// Returns only on failure.
    pub(crate) fn run(self) -> Result<Infallible, PayloadError> {
        Err(PayloadError::Exec {
            source: self.execve.call(),
            program: self.program,
        })
    }

    /// The same where a filter may deny everything else. A failure is in the last words then.
    pub(crate) fn run_filtered(self) -> Result<Infallible, PayloadError> {
        self.words.denied(&self.doing, &self.execve.call());
        // Not to be dropped: to free memory may take a system call.
        std::mem::forget(self);
        Err(PayloadError::Said)
    }
}

/// Loads the filter. From here on an error can only be in the last words.
pub(crate) fn confine(
    confine: &Confine,
    filter: &Filter,
    words: &LastWords,
    hand_over: impl FnOnce(OwnedFd) -> io::Result<()>,
) -> Result<(), PayloadError> {
    confine.load(filter, hand_over)?;
    confine.give_privilege_up().map_err(|error| {
        words.denied("process.capabilities: give CAP_SYS_ADMIN up", &error);
        PayloadError::Said
    })
}
