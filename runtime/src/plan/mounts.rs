//! Mounts of a container, in the order in which they are made.

use super::mount_options::{MountOptions, propagation};
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
    Bind {
        source: PathBuf,
        recursive: bool,
        /// The source, an empty directory, first gets a copy of what it covers.
        copies: bool,
    },
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
    copied_up: &[PathBuf],
    warnings: &mut Vec<String>,
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
            None => plans.push(from_spec(index, mount, destination, bundle, warnings)?),
        }
    }
    plans.extend(detached.into_iter().flatten().map(attach));
    for plan in &mut plans {
        if let MountKind::Bind { copies, .. } = &mut plan.kind {
            *copies = copied_up.contains(&plan.destination);
        }
    }
    if plans.iter().any(MountPlan::is_shared) && !root_is_shared(spec) {
        keep_others_off_the_host(&mut plans);
    }
    Ok(plans)
}

fn root_is_shared(spec: &Spec) -> bool {
    let linux = spec.linux().as_ref();
    let name = linux.and_then(|linux| linux.rootfs_propagation().as_deref());
    matches!(name.and_then(propagation), Some((Propagation::Shared, _)))
}

/// Beside a shared volume the container's mounts stay peers of the host's (see `rootfs::root`): a volume whose propagation
/// is not given follows the host then, as it does everywhere else, and what is mounted on it stays in the container.
fn keep_others_off_the_host(plans: &mut [MountPlan]) {
    for plan in plans {
        if matches!(plan.kind, MountKind::Bind { .. }) && plan.propagation.is_none() {
            plan.propagation = Some((Propagation::Slave, true));
        }
    }
}

fn attach(mount: DetachedMount) -> MountPlan {
    let kind = MountKind::Detached(mount.mount);
    MountPlan {
        destination: mount.destination,
        kind,
        attributes: Change::default(),
        recursive: Change::default(),
        propagation: None,
    }
}

fn from_spec(
    index: usize,
    mount: &Mount,
    destination: PathBuf,
    bundle: &Path,
    warnings: &mut Vec<String>,
) -> Result<MountPlan, PlanError> {
    let field = |name: &str| format!("mounts[{index}].{name}");
    let mut options = MountOptions::parse(mount.options().as_deref().unwrap_or_default());
    refuse_unsupported(mount, &options, field)?;
    let fs_type = mount.typ().as_deref().unwrap_or_default();
    let bind = options.bind || fs_type == "bind";
    if options.copy_up && (bind || options.remount || fs_type != "tmpfs") {
        let why = "is an option of tmpfs alone";
        return Err(PlanError::invalid(field("options"), "tmpcopyup", why));
    }
    let kind = match fs_type {
        _ if options.remount => MountKind::Remount,
        _ if bind => self::bind(mount, &options, bundle, field, warnings)?,
        "cgroup" => MountKind::Cgroup,
        "" | "none" => return Err(PlanError::Missing { field: field("type") }),
        _ => filesystem(mount, fs_type, &mut options),
    };
    Ok(MountPlan {
        destination,
        kind,
        attributes: options.attributes,
        recursive: options.recursive,
        propagation: options.propagation,
    })
}

fn refuse_unsupported(
    mount: &Mount,
    options: &MountOptions,
    field: impl Fn(&str) -> String,
) -> Result<(), PlanError> {
    let refused = |name, value: &str| PlanError::NotSupported {
        field: field(name),
        value: value.to_owned(),
    };
    let mapped = [mount.uid_mappings(), mount.gid_mappings()];
    match &options.unsupported {
        Some(option) => Err(refused("options", option)),
        None if mapped.into_iter().flatten().any(|map| !map.is_empty()) => {
            Err(refused("uidMappings", "id-mapped mounts"))
        }
        None => Ok(()),
    }
}

fn bind(
    mount: &Mount,
    options: &MountOptions,
    bundle: &Path,
    field: impl Fn(&str) -> String,
    warnings: &mut Vec<String>,
) -> Result<MountKind, PlanError> {
    // As mount(2), which reads none of them: engines leave options of their own there (podman's `copy`).
    for (option, _) in &options.data {
        let field = field("options");
        warnings.push(format!(
            "{field}: {option:?} is no option of a bind mount: left out"
        ));
    }
    match mount.source() {
        Some(source) if !source.as_os_str().is_empty() => Ok(MountKind::Bind {
            source: bundle.join(source),
            recursive: options.recursive_bind,
            copies: false,
        }),
        _ => Err(PlanError::Missing {
            field: field("source"),
        }),
    }
}

fn filesystem(mount: &Mount, fs_type: &str, options: &mut MountOptions) -> MountKind {
    let source = mount.source().as_ref();
    MountKind::Filesystem {
        fs_type: fs_type.to_owned(),
        source: source.map(|source| source.to_string_lossy().into_owned()),
        data: std::mem::take(&mut options.data),
        copies: options.copy_up,
    }
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
    let destination = clean(given);
    if destination == Path::new("/") {
        let field = format!("mounts[{index}].destination");
        let why = "is the root itself, which root.path gives";
        return Err(PlanError::invalid(field, given.display(), why));
    }
    Ok(destination)
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
