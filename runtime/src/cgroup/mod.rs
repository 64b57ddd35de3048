//! Cgroups of containers: v1 and hybrid hosts (cgroup v2 alone: only without limits, so far).
//!
//! ```text
//! Spec --plan--> CgroupPlan --Cgroup::create--> Cgroup --join--> Join --(in the child) enter
//!                                                 |
//!                                                 +-- stats, oom, freeze, kill_all, remove
//! ```
//!
//! A container has one directory of the same path in every hierarchy. A process joins by itself: it is born in the
//! cgroup2 directory (`CLONE_INTO_CGROUP`) and writes `0` to the `tasks` file of each v1 hierarchy, which, unlike a
//! write to `cgroup.procs` by its parent, does not wait for an RCU grace period (decision 0001).

mod controllers;
mod create;
mod files;
mod freezer;
mod join;
mod kill;
mod layout;
mod oom;
mod plan;
mod remove;
mod setting;
mod stats;

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use freezer::FreezerState;
pub use join::Join;
pub use layout::{Hierarchy, Layout};
pub use oom::OomWatch;
pub use plan::{CgroupPlan, DEFAULT_PARENT, plan};
pub use remove::RemovalWait;
pub use stats::{BlockIo, Memory, Pids, Stats};

/// A container's (or a pod's) cgroup. Holds no descriptors; can be stored with the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// The path below each mount point, absolute.
    path: PathBuf,
    layout: Layout,
    /// How many leading components of `path` were there before; those after them are removed with the cgroup.
    kept: usize,
    /// What could not be honoured without being an error; for the log.
    #[serde(default)]
    warnings: Vec<String>,
    /// Hierarchies, by name, that are joined at a path below this cgroup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    joined_below: Vec<(String, PathBuf)>,
}

/// Why a cgroup operation failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// `linux.cgroupsPath` is not acceptable.
    #[error("linux.cgroupsPath: {path:?}: {reason}")]
    Path {
        /// As given.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// A value out of its range.
    #[error("{field}: {value}: {reason}")]
    Value {
        /// Path of the field in the specification.
        field: &'static str,
        /// The refused value.
        value: String,
        /// What is allowed.
        reason: &'static str,
    },
    /// A field this host or this version cannot honour.
    #[error("{field}: not supported: {reason}")]
    NotSupported {
        /// Path of the field in the specification.
        field: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// A limit needs a controller that no mounted hierarchy has.
    #[error("{field}: the {controller} controller is not mounted")]
    NoController {
        /// Path of the field in the specification.
        field: &'static str,
        /// The missing controller.
        controller: &'static str,
    },
    /// The directory is already in use by processes of somebody else.
    #[error("cgroup {0} is not empty: it holds processes already")]
    NotEmpty(PathBuf),
    /// A frozen cgroup would stop the container before it runs.
    #[error("cgroup {0} is frozen")]
    Frozen(PathBuf),
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
    #[error("{field}: write {value:?} to {file}")]
    Write {
        /// Path of the field in the specification.
        field: &'static str,
        /// The file.
        file: PathBuf,
        /// The value.
        value: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The kernel took another value than the one that was asked for.
    #[error("{field}: {file} took {taken} instead of {value}")]
    Clamped {
        /// Path of the field in the specification.
        field: &'static str,
        /// The file.
        file: PathBuf,
        /// The value.
        value: String,
        /// What the file holds now.
        taken: String,
    },
    /// The process could not enter one of its cgroups.
    #[error("join cgroup {file}")]
    Join {
        /// The `tasks` file or directory.
        file: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// kill(2).
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
            | CgroupError::Value { .. }
            | CgroupError::NotSupported { .. }
            | CgroupError::NoController { .. }
            | CgroupError::NotEmpty(_)
            | CgroupError::Frozen(_)
            | CgroupError::Remove { .. }
            | CgroupError::Clamped { .. }
            | CgroupError::Kill { .. } => false,
        }
    }
}

impl Cgroup {
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

    /// What could not be honoured without being an error, to be logged once.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
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

    /// The directory in the hierarchy of a v1 controller.
    fn dir(&self, controller: &str) -> Option<PathBuf> {
        self.layout
            .controller(controller)
            .map(|hierarchy| self.below(&hierarchy.mount_point))
    }

    /// The directory in the cgroup2 hierarchy.
    fn unified_dir(&self) -> Option<PathBuf> {
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
