//! The directory of one played pod: made, locked, and removed with everything in it.
//!
//! A memory volume and a subPath are mounts of the host, since a CRI mount names a path of the host. So a `play` that was
//! killed leaves its pod running and these mounts in place; `coraclectl down`, or the next `play` once the daemon has no
//! such pod any more, takes them away. The lock tells which directories have nobody.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use coracle_linux::mountinfo::MountInfo;
use coracle_linux::tree;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use thiserror::Error;

use super::super::plan::Place;

/// Why a pod's directory is not made or removed.
#[derive(Debug, Error)]
pub(crate) enum DirectoryError {
    #[error("make {}", path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("lock {}", path.display())]
    Lock { path: PathBuf, source: io::Error },
    #[error("read the mounts of this process")]
    Mounts { source: io::Error },
    #[error("unmount {}", path.display())]
    Unmount { path: PathBuf, source: io::Error },
    #[error("remove {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
    #[error("list {}", path.display())]
    List { path: PathBuf, source: io::Error },
}

/// A directory that this process holds.
#[derive(Debug)]
pub(crate) struct PodDirectory {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

impl PodDirectory {
    /// Makes the directory with its parts and takes its lock. Nobody but root looks inside.
    pub(crate) fn create(place: &Place) -> Result<PodDirectory, DirectoryError> {
        // A directory whose lock is not taken yet must not be taken for one that was left behind.
        let _guard = place.directory.parent().map(guard).transpose()?;
        for path in [
            &place.directory,
            &place.volumes(),
            &place.sub_paths(),
            &place.termination(),
            &place.logs(),
        ] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|source| DirectoryError::Make {
                path: path.clone(),
                source,
            })?;
        }
        let path = place.directory.clone();
        let lock = open_lock(&path, true).and_then(|mut lock| {
            rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            writeln!(lock, "{}", std::process::id())?;
            Ok(lock)
        });
        let lock = lock.map_err(|source| DirectoryError::Lock {
            path: path.clone(),
            source,
        })?;
        Ok(PodDirectory { path, _lock: lock })
    }

    /// Takes the lock of a directory whose `play` is gone; none when there is no directory or somebody holds it.
    pub(crate) fn take_over(path: &Path) -> Result<Option<PodDirectory>, DirectoryError> {
        let lock = match open_lock(path, false) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(DirectoryError::Lock {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(PodDirectory {
                path: path.to_owned(),
                _lock: lock,
            })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(DirectoryError::Lock {
                path: path.to_owned(),
                source: errno.into(),
            }),
        }
    }

    /// Unmounts what is mounted below and removes everything.
    pub(crate) fn remove(self) -> Result<(), DirectoryError> {
        unmount_below(&self.path)?;
        tree::remove(&self.path).map_err(|source| DirectoryError::Remove {
            path: self.path.clone(),
            source,
        })
    }
}

/// Keeps others from making or sweeping pod directories below `data`, which is made, as long as it lives.
pub(crate) fn guard(data: &Path) -> Result<File, DirectoryError> {
    let make = || {
        DirBuilder::new().recursive(true).mode(0o700).create(data)?;
        let directory = File::open(data)?;
        rustix::fs::flock(&directory, FlockOperation::LockExclusive)?;
        Ok(directory)
    };
    make().map_err(|source| DirectoryError::Lock {
        path: data.to_owned(),
        source,
    })
}

/// The process that plays the pod of this directory.
pub(crate) fn player(path: &Path) -> Option<rustix::process::Pid> {
    let text = fs::read_to_string(path.join(LOCK)).ok()?;
    rustix::process::Pid::from_raw(text.trim().parse().ok()?)
}

/// The pod directories below `data`, whether somebody holds them or not.
pub(crate) fn list(data: &Path) -> Result<Vec<PathBuf>, DirectoryError> {
    let failed = |source| DirectoryError::List {
        path: data.to_owned(),
        source,
    };
    let entries = match fs::read_dir(data) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        // Only what has our lock file is ours to look at.
        if path.join(LOCK).exists() {
            paths.push(path);
        }
    }
    Ok(paths)
}

const LOCK: &str = "play.lock";

fn open_lock(directory: &Path, create: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create).mode(0o600);
    options.open(directory.join(LOCK))
}

/// Lazily, so that a process that still has a file open there does not keep the mount in the host's table.
fn unmount_below(directory: &Path) -> Result<(), DirectoryError> {
    let source = |source| DirectoryError::Mounts { source };
    let directory = directory.canonicalize().map_err(source)?;
    let mountinfo = MountInfo::of_this_process().map_err(source)?;
    // Later ones may be mounted on earlier ones.
    for path in mountinfo.mounts().rev().map(|mount| mount.point()) {
        if !path.starts_with(&directory) {
            continue;
        }
        match unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // Unmounting one may have taken others with it.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => {
                return Err(DirectoryError::Unmount {
                    path,
                    source: errno.into(),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_taken_over_only_when_nobody_holds_it() {
        let data = tempfile::tempdir().unwrap();
        let place = Place::new(data.path(), "u");
        let held = PodDirectory::create(&place).unwrap();
        assert_eq!(list(data.path()).unwrap(), std::slice::from_ref(&place.directory));
        assert!(PodDirectory::take_over(&place.directory).unwrap().is_none());
        assert_eq!(player(&place.directory).unwrap(), rustix::process::getpid());
        drop(held);
        let taken = PodDirectory::take_over(&place.directory).unwrap().unwrap();
        taken.remove().unwrap();
        assert!(list(data.path()).unwrap().is_empty());
        assert!(list(&data.path().join("absent")).unwrap().is_empty());
    }
}
