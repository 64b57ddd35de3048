//! Volumes and how containers mount them.

use std::path::PathBuf;

use coracle_cri_api::runtime_v1::{Mount, MountPropagation as CriPropagation};

use crate::manifest::{Container, HostPathType, MountPropagation, Pod, Volume, VolumeMount, VolumeSource};

use super::Place;

/// One volume to be made ready on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumePlan {
    pub(crate) name: String,
    /// The path that containers get.
    pub(crate) path: PathBuf,
    pub(crate) kind: VolumeKind,
}

/// What a volume is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VolumeKind {
    /// A directory of the pod's; `limit` bytes, or evicted.
    Directory { limit: Option<u64> },
    /// A tmpfs of the pod's of `size` bytes, or half of the machine's memory.
    Memory { size: Option<u64> },
    /// A path of the host.
    Host(HostPathType),
}

/// A part of a volume that is mounted at `target` first, so that the path a container gets cannot be changed by
/// another container of the pod with a symbolic link (CVE-2017-1002101, CVE-2021-25741).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubPathPlan {
    pub(crate) volume: PathBuf,
    /// Relative.
    pub(crate) sub_path: PathBuf,
    pub(crate) target: PathBuf,
}

impl VolumePlan {
    pub(super) fn new(volume: &Volume, place: &Place, memory_limit: Option<u64>) -> VolumePlan {
        let kind = match &volume.source {
            VolumeSource::EmptyDir { size_limit } => VolumeKind::Directory { limit: *size_limit },
            VolumeSource::Memory { size_limit } => VolumeKind::Memory {
                size: smaller(*size_limit, memory_limit),
            },
            VolumeSource::HostPath { kind, .. } => VolumeKind::Host(*kind),
        };
        VolumePlan {
            name: volume.name.clone(),
            path: path(volume, place),
            kind,
        }
    }
}

/// The mounts of one container and the sub paths they need.
pub(super) fn mounts(container: &Container, pod: &Pod, place: &Place) -> (Vec<Mount>, Vec<SubPathPlan>) {
    let mut mounts = Vec::new();
    let mut sub_paths = Vec::new();
    for (index, mount) in container.volume_mounts.iter().enumerate() {
        let Some(volume) = pod.volumes.iter().find(|volume| volume.name == mount.volume) else {
            continue; // The manifest has been checked.
        };
        let mut host_path = path(volume, place);
        if let Some(sub_path) = &mount.sub_path {
            let target = place.sub_paths().join(format!("{}-{index}", container.name));
            sub_paths.push(SubPathPlan {
                volume: host_path,
                sub_path: sub_path.clone(),
                target: target.clone(),
            });
            host_path = target;
        }
        mounts.push(cri_mount(mount, host_path));
    }
    (mounts, sub_paths)
}

fn path(volume: &Volume, place: &Place) -> PathBuf {
    match &volume.source {
        VolumeSource::HostPath { path, .. } => path.clone(),
        VolumeSource::EmptyDir { .. } | VolumeSource::Memory { .. } => place.volumes().join(&volume.name),
    }
}

fn cri_mount(mount: &VolumeMount, host_path: PathBuf) -> Mount {
    let propagation = match mount.propagation {
        MountPropagation::None => CriPropagation::PropagationPrivate,
        MountPropagation::HostToContainer => CriPropagation::PropagationHostToContainer,
        MountPropagation::Bidirectional => CriPropagation::PropagationBidirectional,
    };
    Mount {
        container_path: mount.mount_path.clone(),
        host_path: host_path.display().to_string(),
        readonly: mount.read_only,
        recursive_read_only: mount.recursive_read_only,
        propagation: propagation.into(),
        ..Mount::default()
    }
}

fn smaller(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
