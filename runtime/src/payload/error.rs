//! A step between a clone and the execve that failed.

use super::LookupError;
use crate::cgroup::CgroupError;
use crate::hooks::HookError;
use crate::identity::IdentityError;
use crate::rootfs::RootfsError;
use coracle_linux::netlink::NetlinkError;
use std::io;

/// Why a process does not get as far as its payload.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChildError {
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
}

/// Names a step in the errors of its calls.
pub(crate) fn step<E: Into<io::Error>>(doing: &'static str) -> impl Fn(E) -> ChildError {
    move |error| ChildError::Step {
        doing,
        source: error.into(),
    }
}
