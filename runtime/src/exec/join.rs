//! What the caller does around the clone, and undoes after it.

use super::ExecError;
use coracle_linux::namespace::{self, Namespaces};
use coracle_linux::pidfd::{self, Pid};
use coracle_linux::prctl;
use rustix::process::{DumpableBehavior, dumpable_behavior};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

const KINDS: [(Namespaces, &str); 8] = [
    (Namespaces::USER, "user"),
    (Namespaces::MNT, "mnt"),
    (Namespaces::PID, "pid"),
    (Namespaces::NET, "net"),
    (Namespaces::IPC, "ipc"),
    (Namespaces::UTS, "uts"),
    (Namespaces::CGROUP, "cgroup"),
    (Namespaces::TIME, "time"),
];

/// The kinds of which `pid` has another namespace than the caller. Only those are entered: a user namespace cannot be
/// entered twice, and a kernel may lack a kind.
pub(super) fn different(pid: Pid, pidfd: BorrowedFd<'_>) -> Result<Namespaces, ExecError> {
    let raw = pid.as_raw_nonzero().get();
    let failed = |source| ExecError::Namespaces { pid: raw, source };
    let mut found = Namespaces::empty();
    for (kind, name) in KINDS {
        let own = match rustix::fs::stat(format!("/proc/self/ns/{name}")) {
            Ok(own) => own,
            Err(rustix::io::Errno::NOENT) => continue,
            Err(errno) => return Err(failed(errno.into())),
        };
        match rustix::fs::stat(format!("/proc/{raw}/ns/{name}")) {
            Ok(other) if other.st_ino == own.st_ino && other.st_dev == own.st_dev => {}
            Ok(_) => found |= kind,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::SRCH) => return Err(ExecError::NotRunning),
            Err(errno) => return Err(failed(errno.into())),
        }
    }
    // The id was still this process's if it has not ended by now.
    match pidfd::wait_end(pidfd, Some(Duration::ZERO)).map_err(failed)? {
        true => Err(ExecError::NotRunning),
        false => Ok(found),
    }
}

/// The caller, and what it clones, cannot be traced or looked into while this lasts.
pub(super) struct Hidden {
    was_dumpable: bool,
}

impl Hidden {
    pub(super) fn from_ptrace() -> Result<Self, ExecError> {
        let doing = "hiding from ptrace";
        let failed = |source| ExecError::Caller { doing, source };
        let was_dumpable =
            dumpable_behavior().map_err(|errno| failed(errno.into()))? == DumpableBehavior::Dumpable;
        if was_dumpable {
            prctl::set_dumpable(false).map_err(failed)?;
        }
        Ok(Self { was_dumpable })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if self.was_dumpable {
            // Setting a flag of its own: there is nothing to fail, and nothing to be done if it did.
            let _ = prctl::set_dumpable(true);
        }
    }
}

/// The caller's children are born in the container's PID namespace while this lasts.
pub(super) struct PidNamespaceVisit {
    home: Option<OwnedFd>,
}

impl PidNamespaceVisit {
    pub(super) fn enter(pidfd: BorrowedFd<'_>, different: Namespaces) -> Result<Self, ExecError> {
        if !different.contains(Namespaces::PID) {
            return Ok(Self { home: None });
        }
        let failed = |source: io::Error| match source.raw_os_error() {
            Some(libc::ESRCH) => ExecError::NotRunning,
            _ => ExecError::Caller {
                doing: "visiting the container's PID namespace",
                source,
            },
        };
        let home = namespace::open(Path::new("/proc/self/ns/pid")).map_err(failed)?;
        namespace::enter(pidfd, Namespaces::PID).map_err(failed)?;
        Ok(Self { home: Some(home) })
    }

    pub(super) fn leave(self) -> Result<(), ExecError> {
        let Some(home) = self.home else { return Ok(()) };
        namespace::enter(home.as_fd(), Namespaces::PID).map_err(|source| ExecError::Caller {
            doing: "leaving the container's PID namespace",
            source,
        })
    }
}
