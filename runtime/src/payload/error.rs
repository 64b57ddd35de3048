//! A step between a clone and the execve that failed.

use super::LookupError;
use crate::hooks::HookError;
use crate::identity::IdentityError;
use crate::rootfs::RootfsError;
use coracle_linux::cgroup::CgroupError;
use coracle_linux::netlink::NetlinkError;
use std::error::Error;
use std::io;

/// Why a process does not get as far as its payload.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PayloadError {
    #[error("{doing}")]
    Step { doing: &'static str, source: io::Error },
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Hook(#[from] HookError),
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("setting the loopback interface up")]
    Loopback(#[source] NetlinkError),
    #[error("exec {program:?}")]
    Exec { program: String, source: io::Error },
    /// Nothing is left to be told, and perhaps no way to tell it.
    #[error("said in its last words")]
    Said,
}

impl PayloadError {
    /// It and its causes as one line: what is told to the maker, or through the exec fifo to `start`, which cannot be
    /// given the values themselves.
    pub(crate) fn chain(&self) -> String {
        let error: &(dyn Error + 'static) = self;
        let causes = std::iter::successors(Some(error), |&error| error.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }
}

/// Names a step in the errors of its calls.
pub(crate) fn step<E: Into<io::Error>>(doing: &'static str) -> impl Fn(E) -> PayloadError {
    move |error| PayloadError::Step {
        doing,
        source: error.into(),
    }
}
