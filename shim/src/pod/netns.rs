//! The pod's network namespace: held by the shim, which lives in it, and bound to a path for CNI plugins and tools. That
//! path is the only mount of a pod on the host.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use coracle_linux::mount::Detached;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::UnmountFlags;

/// The path of a network namespace.
pub(crate) struct BoundNetns {
    path: PathBuf,
}

/// What failed about the path.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetnsError {
    #[error("make directory of {path:?}")]
    MakeDirectory { path: PathBuf, source: io::Error },
    #[error("make file {path:?} for the network namespace")]
    MakeFile { path: PathBuf, source: io::Error },
    #[error("bind the network namespace to {path:?}")]
    Bind { path: PathBuf, source: io::Error },
    #[error("unmount {path:?}")]
    Unmount { path: PathBuf, source: io::Error },
    #[error("remove {path:?}")]
    Remove { path: PathBuf, source: io::Error },
}

impl BoundNetns {
    /// Binds the network namespace of this process to `path`, which must not exist.
    pub(crate) fn bind(path: &Path) -> Result<Self, NetnsError> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(|source| NetnsError::MakeDirectory {
                path: path.into(),
                source,
            })?;
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::RUSR).map_err(|errno| NetnsError::MakeFile {
            path: path.into(),
            source: errno.into(),
        })?;
        let bound = Self { path: path.into() };
        let attach = || Detached::clone_of(CWD, "/proc/thread-self/ns/net".as_ref())?.attach(file.as_fd());
        match attach() {
            Ok(_) => Ok(bound),
            Err(source) => {
                bound.remove()?;
                Err(NetnsError::Bind {
                    path: path.into(),
                    source,
                })
            }
        }
    }

    /// Takes the path away; one that is gone already is fine.
    pub(crate) fn remove(&self) -> Result<(), NetnsError> {
        use rustix::io::Errno;
        match rustix::mount::unmount(&self.path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // EINVAL: not a mount point.
            Ok(()) | Err(Errno::NOENT | Errno::INVAL) => {}
            Err(errno) => {
                return Err(NetnsError::Unmount {
                    path: self.path.clone(),
                    source: errno.into(),
                });
            }
        }
        match rustix::fs::unlink(&self.path) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(NetnsError::Remove {
                path: self.path.clone(),
                source: errno.into(),
            }),
        }
    }
}
