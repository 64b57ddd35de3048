//! Which cgroup hierarchies this host has, and where they are mounted.
//!
//! A v1 hierarchy carries one or several controllers, or none but a name (`name=systemd`); there can be one cgroup2
//! mount besides them ("hybrid") or alone. All of it is read from `/proc/self/mountinfo`, nothing is assumed about
//! `/sys/fs/cgroup`.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::mountinfo::{Mount, MountInfo};
use serde::{Deserialize, Serialize};

use super::CgroupError;

/// The controllers of cgroup v1; other mount options of a hierarchy are not controllers.
const CONTROLLERS: &[&str] = &[
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "rdma",
    "misc",
    "debug",
];

/// One mounted cgroup v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// Its controllers, or one entry `name=...` for a hierarchy without any.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount_point: PathBuf,
}

impl Hierarchy {
    /// The controllers as `/proc/PID/cgroup` and mount options write them: `cpu,cpuacct`.
    #[must_use]
    pub fn name(&self) -> String {
        self.controllers.join(",")
    }
}

/// All hierarchies of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The v1 hierarchies, in mount order.
    pub v1: Vec<Hierarchy>,
    /// The cgroup2 mount.
    pub unified: Option<PathBuf>,
}

impl Layout {
    /// The layout of this host, read once in the life of the process: hierarchies do not come and go.
    ///
    /// # Errors
    /// mountinfo cannot be read.
    pub fn detect() -> Result<&'static Self, CgroupError> {
        static FOUND: OnceLock<Layout> = OnceLock::new();
        if let Some(layout) = FOUND.get() {
            return Ok(layout);
        }
        let file = Path::new("/proc/self/mountinfo");
        let mounts = MountInfo::of_this_process().map_err(|source| CgroupError::Read {
            file: file.to_owned(),
            source,
        })?;
        Ok(FOUND.get_or_init(|| Self::of(&mounts)))
    }

    /// The cgroup mounts among these.
    #[must_use]
    pub fn of(mounts: &MountInfo) -> Self {
        let mut layout = Self::default();
        for mount in mounts.mounts() {
            if mount.is("cgroup2") && layout.unified.is_none() {
                layout.unified = Some(mount.point());
            } else if mount.is("cgroup") {
                layout.add_v1(&mount);
            }
        }
        layout
    }

    fn add_v1(&mut self, mount: &Mount<'_>) {
        let is_controller = |option: &&str| CONTROLLERS.contains(option) || option.starts_with("name=");
        let controllers: Vec<String> = mount
            .super_options()
            .filter(is_controller)
            .map(str::to_owned)
            .collect();
        // The same hierarchy may be mounted at several places; the first is the usual one.
        let known = self.v1.iter().any(|known| known.controllers == controllers);
        if !controllers.is_empty() && !known {
            self.v1.push(Hierarchy {
                controllers,
                mount_point: mount.point(),
            });
        }
    }

    /// Where they are mounted.
    pub(super) fn mount_points(&self) -> Vec<PathBuf> {
        let v1 = self.v1.iter().map(|hierarchy| &hierarchy.mount_point);
        v1.chain(&self.unified).cloned().collect()
    }

    /// Leaves the hierarchy that is mounted there out.
    pub(super) fn remove(&mut self, mount_point: &Path) {
        self.v1.retain(|hierarchy| hierarchy.mount_point != mount_point);
        self.unified.take_if(|unified| unified == mount_point);
    }

    /// The v1 hierarchy that has this controller.
    #[must_use]
    pub fn controller(&self, name: &str) -> Option<&Hierarchy> {
        self.v1
            .iter()
            .find(|hierarchy| hierarchy.controllers.iter().any(|controller| controller == name))
    }

    /// Whether only cgroup v2 is there.
    #[must_use]
    pub fn is_v2_only(&self) -> bool {
        self.unified.is_some()
            && !self
                .v1
                .iter()
                .any(|hierarchy| !hierarchy.name().starts_with("name="))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(mountinfo: &str) -> Layout {
        Layout::of(&MountInfo::from_text(mountinfo))
    }

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/my\\040set rw,relatime - cgroup cgroup rw,cpuset,clone_children
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 31 0:31 / /elsewhere rw,relatime - cgroup cgroup rw,cpuset,clone_children
";

    #[test]
    fn a_hybrid_host_has_v1_hierarchies_and_a_unified_one() {
        let layout = of(HYBRID);
        let names: Vec<_> = layout.v1.iter().map(Hierarchy::name).collect();
        assert_eq!(names, ["cpu,cpuacct", "cpuset", "name=systemd"]);
        assert_eq!(
            layout.unified.as_deref(),
            Some(Path::new("/sys/fs/cgroup/unified"))
        );
        assert_eq!(
            layout.controller("cpuacct").unwrap().mount_point,
            Path::new("/sys/fs/cgroup/cpu,cpuacct")
        );
        assert_eq!(
            layout.controller("cpuset").unwrap().mount_point,
            Path::new("/sys/fs/cgroup/my set")
        );
        assert!(layout.controller("memory").is_none());
        assert!(!layout.is_v2_only());
    }

    #[test]
    fn a_v2_host_and_a_host_without_cgroups_are_told_apart() {
        assert!(of("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n").is_v2_only());
        assert_eq!(
            of("1 1 0:1 / / rw - ext4 /dev/vda rw\ngarbage\n"),
            Layout::default()
        );
    }
}
