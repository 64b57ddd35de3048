//! How a process gets into a cgroup: by itself, through descriptors its parent opened before the clone.
//!
//! A thread that writes `0` into `tasks` moves itself alone and takes no thread group lock; a parent that writes a pid
//! into `cgroup.procs` waits for an RCU grace period, up to 40 ms. So the child must have one thread when it enters.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::{Cgroup, CgroupError};

/// Open descriptors of one cgroup in every hierarchy, all close-on-exec.
#[derive(Debug)]
pub struct Join {
    /// The cgroup2 directory, for `CLONE_INTO_CGROUP`: with it the child is there from birth.
    pub into: Option<OwnedFd>,
    /// The v1 hierarchies, but for the one that counts processes.
    others: Vec<Tasks>,
    /// The v1 hierarchy that counts processes.
    pids: Option<Tasks>,
}

/// The `tasks` file of a v1 hierarchy; the child writes `0` to it.
#[derive(Debug)]
struct Tasks {
    file: OwnedFd,
    path: PathBuf,
}

impl Cgroup {
    /// Opens what a child needs to enter.
    ///
    /// # Errors
    /// A directory or file of the cgroup cannot be opened.
    pub fn join(&self) -> Result<Join, CgroupError> {
        let mut join = Join {
            into: None,
            others: Vec::new(),
            pids: None,
        };
        for (name, dir) in self.paths() {
            let dir = self.entrance(&name, &dir);
            if name.is_empty() {
                join.into = Some(open(&dir, OFlags::PATH | OFlags::DIRECTORY)?);
                continue;
            }
            let path = dir.join("tasks");
            let file = open(&path, OFlags::WRONLY)?;
            match name.split(',').any(|controller| controller == "pids") {
                true => join.pids = Some(Tasks { file, path }),
                false => join.others.push(Tasks { file, path }),
            }
        }
        Ok(join)
    }

    /// Moves this process, which has one thread, into the cgroup in every hierarchy.
    ///
    /// # Errors
    /// One of the hierarchies refuses it; those before it are entered.
    pub fn enter(&self) -> Result<(), CgroupError> {
        self.join()?.enter()?;
        match self.unified_directory() {
            Some(dir) => {
                super::files::put(&dir.join("cgroup.procs"), "0").map_err(|source| CgroupError::Join {
                    file: dir.join("cgroup.procs"),
                    source,
                })
            }
            None => Ok(()),
        }
    }
}

impl Join {
    /// Enters the v1 hierarchies; called by the child, before it has a second thread.
    ///
    /// # Errors
    /// A hierarchy refuses the process: ENOSPC for an empty cpuset, EAGAIN beyond a pids limit in some kernels.
    pub fn enter(&self) -> Result<(), CgroupError> {
        self.enter_others()?;
        self.enter_pids()
    }

    /// The first half of [`enter`](Self::enter), for a process that is going to clone: in a full cgroup that fails for
    /// whoever is counted, while entering it never does.
    ///
    /// # Errors
    /// As of [`enter`](Self::enter).
    pub fn enter_others(&self) -> Result<(), CgroupError> {
        self.others.iter().try_for_each(Tasks::enter)
    }

    /// The second half, for what it has cloned.
    ///
    /// # Errors
    /// As of [`enter`](Self::enter).
    pub fn enter_pids(&self) -> Result<(), CgroupError> {
        self.pids.iter().try_for_each(Tasks::enter)
    }

    /// What [`enter_pids`](Self::enter_pids) needs to stay open.
    #[must_use]
    pub fn pids_fd(&self) -> Option<BorrowedFd<'_>> {
        self.pids.as_ref().map(|tasks| tasks.file.as_fd())
    }
}

impl Tasks {
    fn enter(&self) -> Result<(), CgroupError> {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&self.file, b"0"));
        written.map(drop).map_err(|errno| CgroupError::Join {
            file: self.path.clone(),
            source: errno.into(),
        })
    }
}

fn open(path: &Path, flags: OFlags) -> Result<OwnedFd, CgroupError> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()).map_err(|errno| {
        CgroupError::Join {
            file: path.to_owned(),
            source: errno.into(),
        }
    })
}
