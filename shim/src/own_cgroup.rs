//! Cgroups that hold a process of Coracle's own: the shim, the pod's init. They set no limit.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use coracle_linux::cgroup::{Cgroup, CgroupError, Join, RemovalWait};
use coracle_runtime::cgroup::{self, CgroupPlan, SetupError};

/// A cgroup that a process is about to enter.
pub(crate) struct OwnCgroup {
    cgroup: Cgroup,
    join: Join,
}

/// Why a cgroup of ours is not there.
#[derive(Debug, thiserror::Error)]
#[error("cgroup {path:?}")]
pub(crate) struct OwnCgroupError {
    path: PathBuf,
    source: SetupError,
}

impl OwnCgroup {
    /// Makes the cgroup at `path`, absolute below the root of each hierarchy, and the ones above it. One that exists is
    /// used as it is.
    pub(crate) fn make(path: &Path) -> Result<Self, OwnCgroupError> {
        let failed = |source: CgroupError| OwnCgroupError {
            path: path.into(),
            source: source.into(),
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

/// Moves the calling process, which has one thread, into the cgroup at `path`, made for it if need be.
///
/// The daemon removes the shims' cgroup with the last shim, and that may come between making and entering it. Then it is
/// made again; a hierarchy that is entered keeps its directory, so there is less to lose each time.
pub(crate) fn enter_shared(path: &Path) -> Result<(), OwnCgroupError> {
    let enter = || {
        let cgroup = OwnCgroup::make(path)?;
        cgroup.enter().map_err(|source| OwnCgroupError {
            path: path.into(),
            source: source.into(),
        })
    };
    let end = Instant::now() + ENTER_PATIENCE;
    loop {
        match enter() {
            Err(error) if error.source.is_gone() && Instant::now() < end => {}
            entered => return entered,
        }
    }
}

const ENTER_PATIENCE: Duration = Duration::from_secs(5);

/// Makes a cgroup without limits, which may exist and be in use.
pub(crate) fn make(path: &Path) -> Result<Cgroup, OwnCgroupError> {
    let plan = CgroupPlan::group(path, None);
    let made = plan.and_then(|plan| cgroup::ensure(&plan));
    made.map(|created| created.cgroup)
        .map_err(|source| OwnCgroupError {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn a_cgroup_that_is_removed_again_and_again_is_entered_all_the_same() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let path = PathBuf::from(format!("/coracle-shim-test-{}", std::process::id()));
        let directories: Vec<PathBuf> = make(&path)
            .unwrap()
            .paths()
            .into_iter()
            .map(|(_, dir)| dir)
            .collect();
        let remove = || {
            directories
                .iter()
                .filter(|dir| std::fs::remove_dir(dir).is_ok() || !dir.exists())
                .count()
        };
        let done = AtomicBool::new(false);
        let failed = thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    remove();
                }
            });
            // A thread enters alone, and leaves by its end.
            let entered: Vec<_> = (0..50)
                .map(|_| thread::scope(|scope| scope.spawn(|| enter_shared(&path)).join()))
                .collect();
            done.store(true, Ordering::Relaxed);
            let failed = entered
                .into_iter()
                .filter(|entered| !matches!(entered, Ok(Ok(()))));
            failed.collect::<Vec<_>>()
        });
        let end = Instant::now() + SWEEP_PATIENCE;
        while remove() < directories.len() && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
        assert!(failed.is_empty(), "{failed:?}");
        assert_eq!(remove(), directories.len());
    }
}
