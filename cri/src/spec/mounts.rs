//! What a container finds mounted: the kernel's file systems, the pod's files, the volumes.

use std::path::{Path, PathBuf};

use coracle_cri_api::runtime_v1::{ContainerConfig, MountPropagation, NamespaceMode, NamespaceOption};
use serde_json::{Value, json};

use super::{PlanError, Request, invalid, mode};

pub(crate) use super::volume::{Look, Volume, VolumeError};

const SHM: &str = "/dev/shm";

/// Checks config.mounts.
pub(super) fn volumes(config: &ContainerConfig) -> Result<Vec<Volume>, PlanError> {
    let mut volumes = Vec::with_capacity(config.mounts.len());
    for (index, mount) in config.mounts.iter().enumerate() {
        let field = |name: &str| format!("config.mounts[{index}].{name}");
        if mount.image.as_ref().is_some_and(|image| !image.image.is_empty()) {
            return Err(PlanError::Unsupported {
                field: field("image"),
            });
        }
        if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
            return Err(PlanError::Unsupported {
                field: field("uidMappings"),
            });
        }
        let host_path = PathBuf::from(&mount.host_path);
        if !host_path.is_absolute() {
            return Err(invalid(
                &field("host_path"),
                &mount.host_path,
                "not an absolute path",
            ));
        }
        let propagation = MountPropagation::try_from(mount.propagation).map_err(|_| {
            invalid(
                &field("propagation"),
                &mount.propagation.to_string(),
                "no such propagation",
            )
        })?;
        if mount.recursive_read_only
            && !(mount.readonly && propagation == MountPropagation::PropagationPrivate)
        {
            let wants = "needs readonly and private propagation";
            return Err(invalid(&field("recursive_read_only"), "true", wants));
        }
        volumes.push(Volume {
            index,
            host_path,
            container_path: container_path(&field("container_path"), &mount.container_path)?,
            readonly: mount.readonly,
            recursive_read_only: mount.recursive_read_only,
            propagation,
        });
    }
    Ok(volumes)
}

/// All mounts: the kernel's, the pod's files, the volumes. A volume takes the place of what it names.
pub(super) fn plan(
    request: &Request<'_>,
    volumes: &[Volume],
    sandbox: &NamespaceOption,
    privileged: bool,
) -> Vec<Value> {
    let mut mounts = kernel_mounts(privileged);
    mounts.push(match mode(sandbox.ipc) {
        NamespaceMode::Node => bind(Path::new(SHM), SHM, &["rbind", "rprivate", "rw"]),
        // Its place in the order: the shim attaches the pod's instead.
        NamespaceMode::Pod | NamespaceMode::Container | NamespaceMode::Target => {
            kernel_mount(SHM, "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777"])
        }
    });
    for name in ["hosts", "hostname", "resolv.conf"] {
        let mode = if request.security().readonly_rootfs {
            "ro"
        } else {
            "rw"
        };
        mounts.push(bind(
            &request.pod_files.join(name),
            &format!("/etc/{name}"),
            &["rbind", "rprivate", mode],
        ));
    }
    let taken = |mount: &Value| {
        volumes
            .iter()
            .any(|volume| mount["destination"] == path(&volume.container_path))
    };
    mounts.retain(|mount| !taken(mount));
    mounts.extend(volumes.iter().map(volume_mount));
    mounts
}

/// What lies higher is mounted first, so that a volume at /etc does not hide the pod's /etc/hosts; at the same height the
/// order stays.
pub(super) fn sort(mounts: &mut [Value]) {
    mounts.sort_by_key(|mount| {
        let destination = mount["destination"].as_str().unwrap_or_default();
        Path::new(destination).components().count()
    });
}

/// Whether the pod's /dev/shm is attached: not with the host's IPC namespace, and not below a volume of that name.
pub(super) fn shares_shm(volumes: &[Volume], sandbox: &NamespaceOption) -> bool {
    let of_volume = volumes
        .iter()
        .any(|volume| volume.container_path == Path::new(SHM));
    mode(sandbox.ipc) != NamespaceMode::Node && !of_volume
}

/// A volume that exchanges mounts with the host needs a root that does.
pub(super) fn root_propagation(volumes: &[Volume]) -> Option<&'static str> {
    let any = |wanted| volumes.iter().any(|volume| volume.propagation == wanted);
    if any(MountPropagation::PropagationBidirectional) {
        Some("rshared")
    } else if any(MountPropagation::PropagationHostToContainer) {
        Some("rslave")
    } else {
        None
    }
}

fn kernel_mounts(privileged: bool) -> Vec<Value> {
    let system = if privileged { "rw" } else { "ro" };
    let mount = kernel_mount;
    vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", system]),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", system],
        ),
    ]
}

fn kernel_mount(destination: &str, kind: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": kind, "options": options })
}

fn volume_mount(volume: &Volume) -> Value {
    let propagation = match volume.propagation {
        MountPropagation::PropagationPrivate => "rprivate",
        MountPropagation::PropagationHostToContainer => "rslave",
        MountPropagation::PropagationBidirectional => "rshared",
    };
    let access = match (volume.readonly, volume.recursive_read_only) {
        (true, true) => "rro",
        (true, false) => "ro",
        _ => "rw",
    };
    bind(
        &volume.host_path,
        &path(&volume.container_path),
        &["rbind", propagation, access],
    )
}

pub(super) fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": "bind", "source": source, "options": options })
}

fn container_path(field: &str, text: &str) -> Result<PathBuf, PlanError> {
    let absolute = Path::new("/").join(text);
    let climbs = absolute
        .components()
        .any(|part| part == std::path::Component::ParentDir);
    let clean: PathBuf = absolute.components().collect();
    if text.is_empty() || climbs || clean == Path::new("/") || text.contains('\0') {
        return Err(invalid(field, text, "not a path below the container's root"));
    }
    Ok(clean)
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
