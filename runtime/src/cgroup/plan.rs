//! From `linux.cgroupsPath` and `linux.resources` to a checked list of directories and file writes. Pure.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{LinuxResources, Spec};

use super::CgroupError;
use super::controllers::{blkio, cpu, cpuset, devices, hugetlb, memory, network, pids, rdma};
use super::setting::Settings;
use crate::id::ContainerId;

/// Below it go containers whose cgroupsPath is absent or relative.
pub const DEFAULT_PARENT: &str = "/coracle";

/// What [`super::Cgroup::create`] will make.
#[derive(Clone, Debug)]
pub struct CgroupPlan {
    pub(super) path: PathBuf,
    pub(super) limits: Limits,
}

/// The checked form of `linux.resources`.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    pub(super) settings: Settings,
    pub(super) cpuset: cpuset::Cpuset,
    pub(super) devices: Option<devices::Devices>,
}

/// Checks the cgroup fields of `spec`.
///
/// # Errors
/// Names the field that cannot be honoured.
pub fn plan(spec: &Spec, id: &ContainerId) -> Result<CgroupPlan, CgroupError> {
    let linux = spec.linux().as_ref();
    let path = container_path(
        linux.and_then(|linux| linux.cgroups_path().as_deref()),
        id.as_str(),
    )?;
    let none = LinuxResources::default();
    let resources = linux
        .and_then(|linux| linux.resources().as_ref())
        .unwrap_or(&none);
    let mut limits = limits(resources)?;
    // Like runc, also without any rule: a container gets the devices of the default list and no others.
    limits.devices = Some(devices::plan(resources.devices().as_deref().unwrap_or_default())?);
    Ok(CgroupPlan { path, limits })
}

impl CgroupPlan {
    /// A cgroup that only groups: no device rules; it may exist and hold processes. `limits` apply to all below it.
    ///
    /// # Errors
    /// The path or a limit is not valid.
    pub fn group(path: &Path, resources: Option<&LinuxResources>) -> Result<Self, CgroupError> {
        let path = absolute(path)?;
        let limits = resources.map(limits).transpose()?.unwrap_or_default();
        Ok(Self { path, limits })
    }

    /// The path below each hierarchy's mount point, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

pub(super) fn limits(resources: &LinuxResources) -> Result<Limits, CgroupError> {
    let mut settings = Settings::default();
    let mut cpuset = cpuset::Cpuset::default();
    if resources
        .unified()
        .as_ref()
        .is_some_and(|unified| !unified.is_empty())
    {
        return Err(CgroupError::NotSupported {
            field: "linux.resources.unified",
            reason: "it needs cgroup v2",
        });
    }
    if let Some(memory) = resources.memory() {
        memory::plan(memory, &mut settings)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu::plan(cpu, &mut settings)?;
        cpuset = cpuset::plan(cpu)?;
    }
    if let Some(pids) = resources.pids() {
        pids::plan(pids, &mut settings);
    }
    if let Some(block_io) = resources.block_io() {
        blkio::plan(block_io, &mut settings)?;
    }
    hugetlb::plan(
        resources.hugepage_limits().as_deref().unwrap_or_default(),
        &mut settings,
    )?;
    if let Some(network) = resources.network() {
        network::plan(network, &mut settings)?;
    }
    if let Some(rdma) = resources.rdma() {
        rdma::plan(rdma, &mut settings)?;
    }
    Ok(Limits {
        settings,
        cpuset,
        devices: None,
    })
}

/// Absolute paths are as given; others, and none, are below [`DEFAULT_PARENT`] (runtime-spec config-linux,
/// "Cgroups Path": a relative path is interpreted relative to a place the runtime decides on).
fn container_path(given: Option<&Path>, id: &str) -> Result<PathBuf, CgroupError> {
    match given.filter(|path| !path.as_os_str().is_empty()) {
        None => absolute(&Path::new(DEFAULT_PARENT).join(id)),
        // join() takes an absolute second path as it is.
        Some(path) => absolute(&Path::new(DEFAULT_PARENT).join(path)),
    }
}

/// Refuses what could point anywhere but below a mount point, and the root cgroup itself.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, CgroupError> {
    let refuse = |reason| CgroupError::Path {
        path: path.to_owned(),
        reason,
    };
    if !path.is_absolute() {
        return Err(refuse("not absolute"));
    }
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) if is_sound(name) => clean.push(name),
            Component::Normal(_) => {
                return Err(refuse(
                    "a name of more than 255 bytes, or with a control character",
                ));
            }
            Component::ParentDir | Component::Prefix(_) => return Err(refuse("`..` is not allowed")),
        }
    }
    if clean == Path::new("/") {
        return Err(refuse("it is the root cgroup"));
    }
    Ok(clean)
}

fn is_sound(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    bytes.len() <= 255 && !bytes.iter().any(u8::is_ascii_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(given: Option<&str>) -> Result<PathBuf, String> {
        container_path(given.map(Path::new), "c1").map_err(|error| error.to_string())
    }

    #[test]
    fn the_path_is_absolute_or_below_the_default_parent() {
        assert_eq!(path(None).unwrap(), Path::new("/coracle/c1"));
        assert_eq!(path(Some("")).unwrap(), Path::new("/coracle/c1"));
        assert_eq!(path(Some("/a//b/./c")).unwrap(), Path::new("/a/b/c"));
        assert_eq!(path(Some("a/b")).unwrap(), Path::new("/coracle/a/b"));
    }

    #[test]
    fn paths_that_leave_their_place_are_refused() {
        for bad in ["/", "//", "/a/../b", "../x", "a/..", "/a\nb"] {
            assert!(
                path(Some(bad)).unwrap_err().contains("linux.cgroupsPath"),
                "{bad:?}"
            );
        }
        assert!(path(Some(&format!("/{}", "x".repeat(256)))).is_err());
    }

    #[test]
    fn unified_needs_cgroup_v2() {
        let resources = serde_json::from_str(r#"{"unified": {"memory.high": "1"}}"#).unwrap();
        assert!(
            limits(&resources)
                .unwrap_err()
                .to_string()
                .contains("linux.resources.unified")
        );
    }
}
