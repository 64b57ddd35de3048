//! Which namespaces of the container the process has to enter.

use super::ExecError;
use coracle_linux::namespace::Namespaces;
use coracle_linux::pidfd::{self, Pid};
use std::os::fd::BorrowedFd;
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

/// The kinds of which `pid` has another namespace than the maker. Only those are entered: a user namespace cannot be
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
