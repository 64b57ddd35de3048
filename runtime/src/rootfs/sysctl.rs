//! Kernel parameters, set through a procfs that no image and no other container can have tampered with: a new one,
//! attached nowhere (CVE-2025-52881).

use super::RootfsError;
use crate::plan::SysctlPlan;
use coracle_linux::beneath;
use coracle_linux::mount::{Attr, FsContext};
use rustix::fs::OFlags;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Sets the parameters of the namespaces this process is in.
pub(crate) fn set(sysctls: &[SysctlPlan]) -> Result<(), RootfsError> {
    if sysctls.is_empty() {
        return Ok(());
    }
    let proc = private_proc().map_err(|source| RootfsError::Sysctl {
        path: "/proc".into(),
        source,
    })?;
    for sysctl in sysctls {
        let failed = |source| RootfsError::Sysctl {
            path: sysctl.path.clone(),
            source,
        };
        write(proc.as_fd(), &sysctl.path, &sysctl.value).map_err(failed)?;
    }
    Ok(())
}

/// The root directory of a procfs that only this process has.
pub(crate) fn private_proc() -> io::Result<OwnedFd> {
    Ok(FsContext::open("proc")?
        .mount(Attr::NOSUID | Attr::NODEV | Attr::NOEXEC)?
        .into_fd())
}

fn write(proc: BorrowedFd<'_>, path: &Path, value: &str) -> io::Result<()> {
    let file = beneath::open_strict(proc, &Path::new("sys").join(path), OFlags::WRONLY)?;
    rustix::io::retry_on_intr(|| rustix::io::write(&file, value.as_bytes()))?;
    Ok(())
}
