//! How a process gets into a cgroup: by itself, through descriptors its parent opened before the clone.
//!
//! A thread that writes `0` into `tasks` moves itself alone and takes no thread group lock; a parent that writes a pid
//! into `cgroup.procs` waits for an RCU grace period, up to 40 ms. So the child must have one thread when it enters.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::{Cgroup, CgroupError};

/// Open descriptors of one cgroup in every hierarchy, all close-on-exec.
#[derive(Debug)]
pub struct Join {
    /// The cgroup2 directory, for `CLONE_INTO_CGROUP`: with it the child is there from birth.
    pub into: Option<OwnedFd>,
    /// The `tasks` file of each v1 hierarchy; the child writes `0` to each.
    pub tasks: Vec<OwnedFd>,
    /// The files behind `tasks`, for errors.
    paths: Vec<PathBuf>,
}

impl Cgroup {
    /// Opens what a child needs to enter.
    ///
    /// # Errors
    /// A directory or file of the cgroup cannot be opened.
    pub fn join(&self) -> Result<Join, CgroupError> {
        let mut join = Join {
            into: None,
            tasks: Vec::new(),
            paths: Vec::new(),
        };
        for (name, dir) in self.paths() {
            let dir = self.entrance(&name, &dir);
            if name.is_empty() {
                join.into = Some(open(&dir, OFlags::PATH | OFlags::DIRECTORY)?);
                continue;
            }
            let tasks = dir.join("tasks");
            join.tasks.push(open(&tasks, OFlags::WRONLY)?);
            join.paths.push(tasks);
        }
        Ok(join)
    }

    /// Moves this process, which has one thread, into the cgroup in every hierarchy.
    ///
    /// # Errors
    /// One of the hierarchies refuses it; those before it are entered.
    pub fn enter(&self) -> Result<(), CgroupError> {
        self.join()?.enter()?;
        match self.unified_dir() {
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
        for (tasks, path) in self.tasks.iter().zip(&self.paths) {
            rustix::io::retry_on_intr(|| rustix::io::write(tasks, b"0")).map_err(|errno| {
                CgroupError::Join {
                    file: path.clone(),
                    source: errno.into(),
                }
            })?;
        }
        Ok(())
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
