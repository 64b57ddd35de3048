//! From `linux.cgroupsPath` and `linux.resources` to a checked list of directories and file writes. Pure.

use std::path::{Path, PathBuf};

use coracle_linux::cgroup::absolute;
use oci_spec::runtime::{LinuxResources, Spec};

use super::SetupError;
use super::controllers::{self, Limits, devices};
use crate::id::ContainerId;

/// Below it go containers whose cgroupsPath is absent or relative.
pub const DEFAULT_PARENT: &str = "/coracle";

const PATH: &str = "linux.cgroupsPath";

/// What [`super::create`] will make.
#[derive(Clone, Debug)]
pub struct CgroupPlan {
    pub(super) path: PathBuf,
    pub(super) limits: Limits,
}

/// Checks the cgroup fields of `spec`.
///
/// # Errors
/// Names the field that cannot be honoured.
pub fn plan(spec: &Spec, id: &ContainerId) -> Result<CgroupPlan, SetupError> {
    let linux = spec.linux().as_ref();
    let path = container_path(
        linux.and_then(|linux| linux.cgroups_path().as_deref()),
        id.as_str(),
    )?;
    let none = LinuxResources::default();
    let resources = linux
        .and_then(|linux| linux.resources().as_ref())
        .unwrap_or(&none);
    let mut limits = controllers::v1(resources)?;
    // Like runc, also without any rule: a container gets the devices of the default list and no others.
    limits.devices = Some(devices::v1(resources.devices().as_deref().unwrap_or_default())?);
    Ok(CgroupPlan { path, limits })
}

impl CgroupPlan {
    /// A cgroup that only groups: no device rules; it may exist and hold processes. `limits` apply to all below it.
    ///
    /// # Errors
    /// The path or a limit is not valid.
    pub fn group(path: &Path, resources: Option<&LinuxResources>) -> Result<Self, SetupError> {
        let path = absolute(path).map_err(SetupError::of(PATH))?;
        let limits = resources.map(controllers::v1).transpose()?.unwrap_or_default();
        Ok(Self { path, limits })
    }

    /// The path below each hierarchy's mount point, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Absolute paths are as given; others, and none, are below [`DEFAULT_PARENT`] (runtime-spec config-linux,
/// "Cgroups Path": a relative path is interpreted relative to a place the runtime decides on).
fn container_path(given: Option<&Path>, id: &str) -> Result<PathBuf, SetupError> {
    let given = given.filter(|path| !path.as_os_str().is_empty());
    // join() takes an absolute second path as it is.
    let path = Path::new(DEFAULT_PARENT).join(given.unwrap_or_else(|| Path::new(id)));
    absolute(&path).map_err(SetupError::of(PATH))
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
            controllers::v1(&resources)
                .unwrap_err()
                .to_string()
                .contains("linux.resources.unified")
        );
    }
}
