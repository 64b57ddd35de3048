//! A pod's volumes on the host: made before the sandbox runs, removed with the pod's directory.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use coracle_linux::beneath;
use coracle_linux::mount::{Attr, Detached, FsContext};
use rustix::fs::{Mode, OFlags};
use thiserror::Error;

use super::super::manifest::HostPathType;
use super::super::plan::{PodPlan, SubPathPlan, VolumeKind, VolumePlan};

/// Why a volume is not ready.
#[derive(Debug, Error)]
pub(crate) enum VolumeError {
    #[error("volume {name}: make {}", path.display())]
    Make {
        name: String,
        path: PathBuf,
        source: io::Error,
    },
    #[error("volume {name}: mount a tmpfs at {}", path.display())]
    Tmpfs {
        name: String,
        path: PathBuf,
        source: io::Error,
    },
    #[error("volume {name}: {} is not {wanted}", path.display())]
    HostPath {
        name: String,
        path: PathBuf,
        wanted: &'static str,
    },
    #[error("container {container}: subPath {} of {}", sub_path.display(), volume.display())]
    SubPath {
        container: String,
        volume: PathBuf,
        sub_path: PathBuf,
        source: SubPathError,
    },
    #[error("container {container}: make {}", path.display())]
    Termination {
        container: String,
        path: PathBuf,
        source: io::Error,
    },
}

/// Why a part of a volume cannot be used.
#[derive(Debug, Error)]
pub(crate) enum SubPathError {
    #[error("a link leads out of the volume")]
    Leaves,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Errno(#[from] rustix::io::Errno),
}

/// Makes every volume of the pod, then the sub paths of its containers.
pub(super) fn prepare(plan: &PodPlan) -> Result<(), VolumeError> {
    for volume in &plan.volumes {
        match volume.kind {
            VolumeKind::Directory { .. } => make_directory(volume, plan.fs_group)?,
            VolumeKind::Memory { size } => make_tmpfs(volume, size, plan.fs_group)?,
            VolumeKind::Host(kind) => check_host_path(volume, kind)?,
        }
    }
    for container in plan.all_containers() {
        for sub_path in &container.sub_paths {
            bind_sub_path(sub_path).map_err(|source| VolumeError::SubPath {
                container: container.name.clone(),
                volume: sub_path.volume.clone(),
                sub_path: sub_path.sub_path.clone(),
                source,
            })?;
        }
    }
    Ok(())
}

/// An empty file for the last words of a container, writable for whatever user it runs as.
pub(super) fn make_termination_file(container: &str, path: &Path) -> Result<(), VolumeError> {
    let make = || {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o666)
            .open(path)?;
        file.set_permissions(Permissions::from_mode(0o666))
    };
    make().map_err(|source| VolumeError::Termination {
        container: container.to_owned(),
        path: path.to_owned(),
        source,
    })
}

fn make_directory(volume: &VolumePlan, fs_group: Option<u32>) -> Result<(), VolumeError> {
    let make = || {
        DirBuilder::new().mode(0o777).create(&volume.path)?;
        own(&volume.path, fs_group)
    };
    make().map_err(|source| VolumeError::Make {
        name: volume.name.clone(),
        path: volume.path.clone(),
        source,
    })
}

/// Open to every user of the pod; with fsGroup also owned by it, and what is made inside, too.
fn own(path: &Path, fs_group: Option<u32>) -> io::Result<()> {
    if let Some(group) = fs_group {
        chown(path, None, Some(group))?;
    }
    // The process' umask has cut the mode.
    fs::set_permissions(
        path,
        Permissions::from_mode(if fs_group.is_some() { 0o2777 } else { 0o777 }),
    )
}

fn make_tmpfs(volume: &VolumePlan, size: Option<u64>, fs_group: Option<u32>) -> Result<(), VolumeError> {
    let mount = || {
        DirBuilder::new().mode(0o700).create(&volume.path)?;
        let tmpfs = FsContext::open("tmpfs")?;
        if let Some(size) = size {
            tmpfs.set("size", &size.to_string())?;
        }
        let target = open_directory(&volume.path)?;
        tmpfs.mount(Attr::default())?.attach(target.as_fd())?;
        own(&volume.path, fs_group)
    };
    mount().map_err(|source| VolumeError::Tmpfs {
        name: volume.name.clone(),
        path: volume.path.clone(),
        source,
    })
}

/// What `hostPath.type` promises is there, or made where the type says so.
fn check_host_path(volume: &VolumePlan, kind: HostPathType) -> Result<(), VolumeError> {
    let path = &volume.path;
    let there = fs::metadata(path).ok();
    let is = |test: fn(&fs::FileType) -> bool| there.as_ref().is_some_and(|there| test(&there.file_type()));
    let failed = |source| VolumeError::Make {
        name: volume.name.clone(),
        path: path.clone(),
        source,
    };
    match kind {
        HostPathType::DirectoryOrCreate if there.is_none() => {
            return DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(path)
                .map_err(failed);
        }
        HostPathType::FileOrCreate if there.is_none() => {
            let create = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o644)
                .open(path);
            return create.map(drop).map_err(failed);
        }
        _ => {}
    }
    let (holds, wanted) = match kind {
        HostPathType::Unset => (true, ""),
        HostPathType::Directory | HostPathType::DirectoryOrCreate => {
            (is(fs::FileType::is_dir), "a directory")
        }
        HostPathType::File | HostPathType::FileOrCreate => (is(fs::FileType::is_file), "a file"),
        HostPathType::Socket => (is(FileTypeExt::is_socket), "a socket"),
        HostPathType::CharDevice => (is(FileTypeExt::is_char_device), "a character device"),
        HostPathType::BlockDevice => (is(FileTypeExt::is_block_device), "a block device"),
    };
    if holds {
        Ok(())
    } else {
        Err(VolumeError::HostPath {
            name: volume.name.clone(),
            path: path.clone(),
            wanted,
        })
    }
}

/// The part of the volume is looked up once, without leaving the volume, and what was found is what gets mounted.
fn bind_sub_path(plan: &SubPathPlan) -> Result<(), SubPathError> {
    let volume = open_directory(&plan.volume)?;
    let found = match beneath::open_within(volume.as_fd(), &plan.sub_path, OFlags::PATH) {
        // The kubelet's rule: a link may lead about within the volume, not out of it.
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => return Err(SubPathError::Leaves),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // As the kubelet does: missing directories are made, open as the volume itself.
            beneath::ensure_dir(volume.as_fd(), &plan.sub_path, 0o777)?
        }
        found => found?,
    };
    let directory = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode).is_dir();
    if directory {
        DirBuilder::new().mode(0o700).create(&plan.target)?;
    } else {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&plan.target)?;
    }
    let target = rustix::fs::open(
        &plan.target,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    Detached::recursive_clone_of(found.as_fd(), Path::new(""))?.attach(target.as_fd())?;
    Ok(())
}

fn open_directory(path: &Path) -> io::Result<std::os::fd::OwnedFd> {
    Ok(rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}
