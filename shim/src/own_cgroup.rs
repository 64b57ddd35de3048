//! Cgroups that hold a process of Coracle's own: the shim, the pod's init. They set no limit.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_runtime::cgroup::{Cgroup, CgroupError, CgroupPlan, Join, RemovalWait};

/// A cgroup that a process is about to enter.
pub(crate) struct OwnCgroup {
    cgroup: Cgroup,
    join: Join,
}

/// Why a cgroup of ours is not there.
#[derive(Debug, thiserror::Error)]
#[error("make cgroup {path:?}")]
pub(crate) struct OwnCgroupError {
    path: PathBuf,
    source: CgroupError,
}

impl OwnCgroup {
    /// Makes the cgroup at `path`, absolute below the root of each hierarchy, and the ones above it. One that exists is
    /// used as it is.
    pub(crate) fn make(path: &Path) -> Result<Self, OwnCgroupError> {
        let failed = |source| OwnCgroupError {
            path: path.into(),
            source,
        };
        let cgroup = make(path)?;
        let join = cgroup.join().map_err(failed)?;
        Ok(Self { cgroup, join })
    }

    /// The directory for CLONE_INTO_CGROUP.
    pub(crate) fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.join.into.as_ref().map(AsFd::as_fd)
    }

    /// Moves the calling process, which has one thread, into the cgroup of each v1 hierarchy.
    pub(crate) fn enter(&self) -> Result<(), CgroupError> {
        self.join.enter()
    }

    /// What is left when nobody is to enter any more.
    pub(crate) fn into_cgroup(self) -> Cgroup {
        self.cgroup
    }
}

/// Makes a cgroup without limits, which may exist and be in use.
pub(crate) fn make(path: &Path) -> Result<Cgroup, OwnCgroupError> {
    let plan = CgroupPlan::group(path, None);
    let made = plan.and_then(|plan| Cgroup::ensure(&plan));
    made.map_err(|source| OwnCgroupError {
        path: path.into(),
        source,
    })
}

/// Removes a cgroup and all below it, waiting for processes that are about to be gone.
pub(crate) async fn remove(cgroup: &Cgroup) -> Result<(), CgroupError> {
    let mut wait = RemovalWait::default();
    while !cgroup.try_remove()? {
        tokio::time::sleep(wait.next(cgroup)?).await;
    }
    Ok(())
}

/// Kills everything in a cgroup until nothing is left; gives up after some seconds (a process in an uninterruptible sleep
/// ends when it wakes).
pub(crate) async fn sweep(cgroup: &Cgroup) -> Result<(), CgroupError> {
    let mut pause = Duration::from_micros(200);
    let end = tokio::time::Instant::now() + SWEEP_PATIENCE;
    while cgroup.kill_all()? > 0 && tokio::time::Instant::now() < end {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    Ok(())
}

const SWEEP_PATIENCE: Duration = Duration::from_secs(5);
