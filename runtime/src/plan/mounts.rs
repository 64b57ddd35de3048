//! Mounts of a container, in the order in which they are made.

use super::mount_options::MountOptions;
use super::{DetachedMount, PlanError};
use coracle_linux::mount::{Change, Propagation};
use oci_spec::runtime::{Mount, Spec};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug)]
pub(crate) struct MountPlan {
    /// Where it goes, absolute in the container.
    pub(crate) destination: PathBuf,
    pub(crate) kind: MountKind,
    /// Attributes of this mount.
    pub(crate) attributes: Change,
    /// Attributes of this mount and all below.
    pub(crate) recursive: Change,
    pub(crate) propagation: Option<(Propagation, bool)>,
}

/// What is mounted.
#[derive(Debug)]
pub(crate) enum MountKind {
    /// A file or directory of the host.
    Bind { source: PathBuf, recursive: bool },
    /// A file system of its own.
    Filesystem {
        fs_type: String,
        source: Option<String>,
        data: Vec<(String, Option<String>)>,
        /// It begins with a copy of what it covers (`tmpcopyup`, a tmpfs only).
        copies: bool,
    },
    /// The container's view of the cgroup hierarchies.
    Cgroup,
    /// A mount that was made before.
    Detached(OwnedFd),
    /// Nothing: an existing mount changes its attributes.
    Remount,
}

impl MountPlan {
    /// Whether the mount must stay linked with the host's: then it is bound in one call, inside the namespace, since
    /// a detached copy misses what is mounted meanwhile.
    pub(crate) fn follows_host(&self) -> bool {
        matches!(
            self.propagation,
            Some((Propagation::Shared | Propagation::Slave, _))
        )
    }

    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.propagation, Some((Propagation::Shared, _)))
    }
}

pub(super) fn plan(
    spec: &Spec,
    bundle: &Path,
    detached: Vec<DetachedMount>,
) -> Result<Vec<MountPlan>, PlanError> {
    let mut detached: Vec<Option<DetachedMount>> = detached.into_iter().map(Some).collect();
    let mut plans = Vec::new();
    for (index, mount) in spec.mounts().as_deref().unwrap_or_default().iter().enumerate() {
        let destination = destination(index, mount)?;
        let replaced = detached
            .iter_mut()
            .find(|d| d.as_ref().is_some_and(|d| d.destination == destination));
        match replaced.and_then(Option::take) {
            Some(mount) => plans.push(attach(mount)),
            None => plans.push(from_spec(index, mount, destination, bundle)?),
        }
    }
    plans.extend(detached.into_iter().flatten().map(attach));
    Ok(plans)
}

fn attach(mount: DetachedMount) -> MountPlan {
    let kind = MountKind::Detached(mount.mount);
    let unchanged = Change::default();
    MountPlan {
        destination: mount.destination,
        kind,
        attributes: unchanged,
        recursive: unchanged,
        propagation: None,
    }
}

fn from_spec(
    index: usize,
    mount: &Mount,
    destination: PathBuf,
    bundle: &Path,
) -> Result<MountPlan, PlanError> {
    let field = |name: &str| format!("mounts[{index}].{name}");
    let options = MountOptions::parse(mount.options().as_deref().unwrap_or_default());
    if let Some(option) = options.unsupported {
        return Err(PlanError::NotSupported {
            field: field("options"),
            value: option,
        });
    }
    let mapped = |m: &Option<Vec<_>>| m.as_ref().is_some_and(|m: &Vec<_>| !m.is_empty());
    if mapped(mount.uid_mappings()) || mapped(mount.gid_mappings()) {
        let value = "id-mapped mounts".to_owned();
        return Err(PlanError::NotSupported {
            field: field("uidMappings"),
            value,
        });
    }
    let fs_type = mount.typ().as_deref().unwrap_or_default();
    let bind = options.bind || fs_type == "bind";
    if options.copy_up && (bind || options.remount || fs_type != "tmpfs") {
        return Err(PlanError::invalid(
            field("options"),
            "tmpcopyup",
            "is an option of tmpfs alone",
        ));
    }
    let kind = if options.remount {
        MountKind::Remount
    } else if bind {
        if let Some((key, _)) = options.data.first() {
            return Err(PlanError::invalid(
                field("options"),
                key,
                "is no option of a bind mount",
            ));
        }
        let source = mount
            .source()
            .as_ref()
            .filter(|source| !source.as_os_str().is_empty());
        let source = source.ok_or_else(|| PlanError::Missing {
            field: field("source"),
        })?;
        MountKind::Bind {
            source: bundle.join(source),
            recursive: options.recursive_bind,
        }
    } else if fs_type == "cgroup" {
        MountKind::Cgroup
    } else if fs_type.is_empty() || fs_type == "none" {
        return Err(PlanError::Missing { field: field("type") });
    } else {
        let source = mount
            .source()
            .as_ref()
            .map(|source| source.to_string_lossy().into_owned());
        MountKind::Filesystem {
            fs_type: fs_type.to_owned(),
            source,
            data: options.data,
            copies: options.copy_up,
        }
    };
    let MountOptions {
        attributes,
        recursive,
        propagation,
        ..
    } = options;
    Ok(MountPlan {
        destination,
        kind,
        attributes,
        recursive,
        propagation,
    })
}

/// Old bundles have relative destinations: they mean the root, as runc warns.
fn destination(index: usize, mount: &Mount) -> Result<PathBuf, PlanError> {
    use std::os::unix::ffi::OsStrExt;
    let given = mount.destination();
    if given.as_os_str().is_empty() {
        return Err(PlanError::Missing {
            field: format!("mounts[{index}].destination"),
        });
    }
    if given.as_os_str().as_bytes().contains(&0) {
        let field = format!("mounts[{index}].destination");
        return Err(PlanError::invalid(field, given.display(), "holds a NUL byte"));
    }
    Ok(clean(given))
}

/// The absolute path without `.`, `..` and doubled slashes.
pub(super) fn clean(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}
