//! Cgroups as the kernel has them: found, made, entered, measured, emptied and removed. What a limit means, and which
//! are set, is not here: that is the matter of the OCI specification, and so of the runtime.
//!
//! ```text
//! MountInfo --> Layout --Cgroup::make--> Made --keep--> Cgroup --join--> Join --(in the child) enter
//!                  |                                      |
//!                  '----Cgroup::at, Cgroup::open----------+-- processes, freeze, kill_all, remove
//!                                                         '-- oom_kills, cpu_ns, memory
//! ```
//!
//! A cgroup has one directory of the same path in every hierarchy. A process joins by itself: it is born in the
//! cgroup2 directory (`CLONE_INTO_CGROUP`) and writes `0` to the `tasks` file of each v1 hierarchy, which, unlike a
//! write to `cgroup.procs` by its parent, does not wait for an RCU grace period (decision 0001).

pub mod files;
mod freezer;
mod join;
mod kill;
mod layout;
mod make;
mod oom;
mod path;
mod remove;
mod stats;

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use freezer::FreezerState;
pub use join::Join;
pub use layout::{Hierarchy, Layout};
pub use make::Made;
pub use path::absolute;
pub use remove::RemovalWait;
pub use stats::Memory;

/// One cgroup, in all hierarchies. Holds no descriptors; can be stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// The path below each mount point, absolute.
    path: PathBuf,
    layout: Layout,
    /// How many leading components of `path` were there before; those after them are removed with the cgroup.
    kept: usize,
    /// A level above it that goes with the last cgroup below it, whoever made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shared_parent: Option<PathBuf>,
    /// Hierarchies, by name, that are joined at a path below this cgroup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    joined_below: Vec<(String, PathBuf)>,
}

/// Why a cgroup operation failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A path that cannot be a cgroup's.
    #[error("{path:?}: {reason}")]
    Path {
        /// As given.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// There is neither a v1 freezer nor cgroup v2.
    #[error("the freezer controller is not mounted")]
    NoFreezer,
    /// mkdir(2).
    #[error("create cgroup {dir}")]
    Make {
        /// The directory.
        dir: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// rmdir(2).
    #[error("remove cgroup {dir}")]
    Remove {
        /// The directory.
        dir: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A control file cannot be read.
    #[error("read {file}")]
    Read {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A control file does not take a value.
    #[error("write {value:?} to {file}")]
    Write {
        /// The file.
        file: PathBuf,
        /// The value.
        value: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The process could not enter one of its cgroups.
    #[error("join cgroup {file}")]
    Join {
        /// The `tasks` file or directory.
        file: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A process could not be signalled.
    #[error("kill process {pid} of cgroup {dir}")]
    Kill {
        /// The process.
        pid: i32,
        /// Its cgroup.
        dir: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

impl CgroupError {
    /// Whether somebody removed the cgroup while it was used.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        match self {
            CgroupError::Make { source, .. }
            | CgroupError::Read { source, .. }
            | CgroupError::Write { source, .. }
            | CgroupError::Join { source, .. } => files::is_gone(source),
            CgroupError::Path { .. }
            | CgroupError::NoFreezer
            | CgroupError::Remove { .. }
            | CgroupError::Kill { .. } => false,
        }
    }
}

impl Cgroup {
    /// The cgroup of this path, whether it exists or not. To remove it leaves the levels above it.
    ///
    /// # Errors
    /// The path is not valid.
    pub fn at(layout: &Layout, path: &Path) -> Result<Self, CgroupError> {
        let path = absolute(path)?;
        Ok(Self {
            kept: path.components().count(),
            path,
            layout: layout.clone(),
            shared_parent: None,
            joined_below: Vec::new(),
        })
    }

    /// A cgroup of this host that somebody else made; `None` when it is in no hierarchy.
    ///
    /// # Errors
    /// The path is not valid, or the host's hierarchies cannot be found.
    pub fn open(path: &Path) -> Result<Option<Self>, CgroupError> {
        let cgroup = Self::at(Layout::detect()?, path)?;
        Ok(cgroup.exists().then_some(cgroup))
    }

    /// The same cgroup; if it is below `parent`, that is removed with it when nothing else is in it.
    #[must_use]
    pub fn sharing(mut self, parent: &Path) -> Self {
        if self.path != parent && self.path.starts_with(parent) {
            self.shared_parent = Some(parent.to_owned());
        }
        self
    }

    /// The path below each hierarchy's mount point, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The hierarchies it has a directory in.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether it is in any hierarchy.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.paths().iter().any(|(_, dir)| dir.is_dir())
    }

    /// Each hierarchy's name (`cpu,cpuacct`, `name=systemd`, empty for cgroup2) and the directory in it.
    #[must_use]
    pub fn paths(&self) -> Vec<(String, PathBuf)> {
        let v1 = self
            .layout
            .v1
            .iter()
            .map(|hierarchy| (hierarchy.name(), self.below(&hierarchy.mount_point)));
        let unified = self
            .layout
            .unified
            .iter()
            .map(|mount| (String::new(), self.below(mount)));
        v1.chain(unified).collect()
    }

    /// The directory where this controller is: in its v1 hierarchy, else in the cgroup2 hierarchy.
    #[must_use]
    pub fn directory(&self, controller: &str) -> Option<PathBuf> {
        self.v1_directory(controller).or_else(|| self.unified_directory())
    }

    /// The directory in the hierarchy of a v1 controller.
    #[must_use]
    pub fn v1_directory(&self, controller: &str) -> Option<PathBuf> {
        self.layout
            .controller(controller)
            .map(|hierarchy| self.below(&hierarchy.mount_point))
    }

    /// The directory in the cgroup2 hierarchy.
    #[must_use]
    pub fn unified_directory(&self) -> Option<PathBuf> {
        self.layout.unified.as_deref().map(|mount| self.below(mount))
    }

    fn below(&self, mount_point: &Path) -> PathBuf {
        mount_point.join(self.path.strip_prefix("/").unwrap_or(&self.path))
    }

    /// The same cgroup, joined at `relative` below it: in the hierarchy of these `controllers` (`cpu`, `cpu,cpuacct`,
    /// `name=systemd`), or in all without. What is there must exist when it is joined.
    ///
    /// # Errors
    /// The path leaves the cgroup, or there is no such hierarchy.
    pub fn joined_below(mut self, controllers: Option<&str>, relative: &Path) -> Result<Self, CgroupError> {
        let relative = relative.strip_prefix("/").unwrap_or(relative);
        let sound = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if !relative.components().all(sound) {
            let reason = "it is not below the container's cgroup";
            return Err(CgroupError::Path {
                path: relative.to_owned(),
                reason,
            });
        }
        let named = |name: &str| {
            let mut wanted = controllers
                .into_iter()
                .flat_map(|list| list.split(','))
                .peekable();
            wanted.peek().is_none() || wanted.all(|one| name.split(',').any(|controller| controller == one))
        };
        let names: Vec<String> = self
            .paths()
            .into_iter()
            .map(|(name, _)| name)
            .filter(|name| named(name))
            .collect();
        if names.is_empty() {
            let path = PathBuf::from(controllers.unwrap_or_default());
            return Err(CgroupError::Path {
                path,
                reason: "no hierarchy has these controllers",
            });
        }
        self.joined_below
            .extend(names.into_iter().map(|name| (name, relative.to_owned())));
        Ok(self)
    }

    /// Where a process enters the hierarchy of this name; `dir` is the cgroup's directory there.
    fn entrance(&self, name: &str, dir: &Path) -> PathBuf {
        let below = self.joined_below.iter().rev().find(|(below, _)| below == name);
        below.map_or_else(|| dir.to_owned(), |(_, path)| dir.join(path))
    }
}

#[cfg(test)]
mod tests;
