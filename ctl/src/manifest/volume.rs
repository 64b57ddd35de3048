//! `spec.volumes` and a container's `volumeMounts`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::field::{Field, FieldError, Object, Problem};
use super::metadata::label;
use super::quantity;

/// One entry of `spec.volumes`.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) source: VolumeSource,
}

/// Where a volume's files live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VolumeSource {
    /// A directory for the life of the pod; the pod is evicted when it holds more than the limit (bytes).
    EmptyDir { size_limit: Option<u64> },
    /// A tmpfs for the life of the pod; the limit (bytes) is the size of the file system.
    Memory { size_limit: Option<u64> },
    /// A path of the host.
    HostPath { path: PathBuf, kind: HostPathType },
}

/// `hostPath.type`: what must be there, or is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostPathType {
    /// No check.
    Unset,
    DirectoryOrCreate,
    Directory,
    FileOrCreate,
    File,
    Socket,
    CharDevice,
    BlockDevice,
}

/// One entry of a container's `volumeMounts`.
#[derive(Clone, Debug)]
pub(crate) struct VolumeMount {
    /// Name of the volume.
    pub(crate) volume: String,
    /// Where it appears in the container.
    pub(crate) mount_path: String,
    /// Part of the volume that is mounted: relative, without `..`.
    pub(crate) sub_path: Option<PathBuf>,
    pub(crate) read_only: bool,
    pub(crate) recursive_read_only: bool,
    pub(crate) propagation: MountPropagation,
}

/// `mountPropagation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MountPropagation {
    None,
    HostToContainer,
    Bidirectional,
}

impl Volume {
    pub(super) fn read(field: &Field<'_>) -> Result<Volume, FieldError> {
        let mut object = field.object()?;
        let name = label(&object.need("name")?)?;
        refuse_sources(&mut object)?;
        let empty_dir = object.take("emptyDir");
        let host_path = object.take("hostPath");
        let source = match (empty_dir, host_path) {
            (Some(field), None) => read_empty_dir(&field)?,
            (None, Some(field)) => read_host_path(&field)?,
            (Some(_), Some(_)) => return Err(field.error(Problem::Rule("has two sources; a volume has one"))),
            (None, None) => return Err(field.error(Problem::Rule("has no source: emptyDir or hostPath"))),
        };
        object.done()?;
        Ok(Volume { name, source })
    }
}

impl VolumeMount {
    /// The mounts of one container; each must name a volume of the pod and have a path of its own.
    pub(super) fn read_all(
        container: &mut Object<'_>,
        volumes: &[Volume],
    ) -> Result<Vec<VolumeMount>, FieldError> {
        let mut seen = BTreeMap::new();
        let mut mounts = Vec::new();
        for item in container.items("volumeMounts")? {
            let mount = VolumeMount::read(&item, volumes)?;
            item.note_unique(&mut seen, mount.mount_path.trim_end_matches('/'))?;
            mounts.push(mount);
        }
        Ok(mounts)
    }

    fn read(field: &Field<'_>, volumes: &[Volume]) -> Result<VolumeMount, FieldError> {
        let mut object = field.object()?;
        object.refuse(&[("subPathExpr", "use subPath")])?;
        let name = object.need("name")?;
        let volume = name.string()?;
        if !volumes.iter().any(|other| other.name == volume) {
            return Err(name.error(Problem::NoSuch {
                value: volume,
                list: "spec.volumes",
            }));
        }
        let read_only_field = object.take("readOnly");
        let read_only = read_only_field.map_or(Ok(false), |field| field.boolean())?;
        let propagation = object
            .take("mountPropagation")
            .map_or(Ok(MountPropagation::None), |field| {
                field.choice(&[
                    ("None", MountPropagation::None),
                    ("HostToContainer", MountPropagation::HostToContainer),
                    ("Bidirectional", MountPropagation::Bidirectional),
                ])
            })?;
        let mount = VolumeMount {
            volume,
            mount_path: read_mount_path(&object.need("mountPath")?)?,
            sub_path: object
                .take("subPath")
                .map(|field| read_sub_path(&field))
                .transpose()?
                .flatten(),
            read_only,
            recursive_read_only: read_recursive_read_only(&mut object, read_only, propagation)?,
            propagation,
        };
        object.done()?;
        Ok(mount)
    }
}

fn read_empty_dir(field: &Field<'_>) -> Result<VolumeSource, FieldError> {
    let mut object = field.object()?;
    let memory = object
        .take("medium")
        .map_or(Ok(false), |field| field.choice(&[("", false), ("Memory", true)]))?;
    // Kubernetes takes 0 as "no limit".
    let size_limit = object
        .take("sizeLimit")
        .map(|field| quantity::whole(&field))
        .transpose()?;
    let size_limit = size_limit.map(i64::unsigned_abs).filter(|limit| *limit > 0);
    object.done()?;
    Ok(if memory {
        VolumeSource::Memory { size_limit }
    } else {
        VolumeSource::EmptyDir { size_limit }
    })
}

fn read_host_path(field: &Field<'_>) -> Result<VolumeSource, FieldError> {
    let mut object = field.object()?;
    let path_field = object.need("path")?;
    let path = path_field.string()?;
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(path_field.invalid(&path, "must be an absolute path without '..'"));
    }
    let kind = object.take("type").map_or(Ok(HostPathType::Unset), |field| {
        field.choice(&[
            ("", HostPathType::Unset),
            ("DirectoryOrCreate", HostPathType::DirectoryOrCreate),
            ("Directory", HostPathType::Directory),
            ("FileOrCreate", HostPathType::FileOrCreate),
            ("File", HostPathType::File),
            ("Socket", HostPathType::Socket),
            ("CharDevice", HostPathType::CharDevice),
            ("BlockDevice", HostPathType::BlockDevice),
        ])
    })?;
    object.done()?;
    Ok(VolumeSource::HostPath {
        path: path.into(),
        kind,
    })
}

fn read_mount_path(field: &Field<'_>) -> Result<String, FieldError> {
    let path = field.string()?;
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") || path.trim_matches('/').is_empty()
    {
        return Err(field.invalid(&path, "must be an absolute path below / without '..'"));
    }
    Ok(path)
}

/// Empty means the whole volume.
fn read_sub_path(field: &Field<'_>) -> Result<Option<PathBuf>, FieldError> {
    let path = field.string()?;
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(field.invalid(&path, "must be a relative path without '..'"));
    }
    Ok((!path.trim_matches(['.', '/']).is_empty()).then(|| path.into()))
}

fn read_recursive_read_only(
    object: &mut Object<'_>,
    read_only: bool,
    propagation: MountPropagation,
) -> Result<bool, FieldError> {
    let Some(field) = object.take("recursiveReadOnly") else {
        return Ok(false);
    };
    let wanted = field.choice(&[("Disabled", false), ("Enabled", true), ("IfPossible", true)])?;
    if wanted && (!read_only || propagation != MountPropagation::None) {
        return Err(field.error(Problem::Rule("needs readOnly: true and no mountPropagation")));
    }
    Ok(wanted)
}

fn refuse_sources(object: &mut Object<'_>) -> Result<(), FieldError> {
    const NO_API: &str = "there is no API server to ask; volumes are emptyDir or hostPath";
    const ONLY: &str = "volumes are emptyDir or hostPath";
    let mut refused: Vec<(&str, &'static str)> = Vec::new();
    for name in [
        "configMap",
        "secret",
        "projected",
        "downwardAPI",
        "persistentVolumeClaim",
        "ephemeral",
        "csi",
    ] {
        refused.push((name, NO_API));
    }
    for name in [
        "awsElasticBlockStore",
        "azureDisk",
        "azureFile",
        "cephfs",
        "cinder",
        "fc",
        "flexVolume",
        "flocker",
        "gcePersistentDisk",
        "gitRepo",
        "glusterfs",
        "image",
        "iscsi",
        "nfs",
        "photonPersistentDisk",
        "portworxVolume",
        "quobyte",
        "rbd",
        "scaleIO",
        "storageos",
        "vsphereVolume",
    ] {
        refused.push((name, ONLY));
    }
    // Even an empty one asks for a volume, so nothing is let through here.
    for (name, reason) in refused {
        if let Some(field) = object.take(name) {
            return Err(field.error(Problem::Unsupported(reason)));
        }
    }
    Ok(())
}
