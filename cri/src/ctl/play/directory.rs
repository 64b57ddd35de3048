//! The directory of one played pod: made, locked, and removed with everything in it.
//!
//! A memory volume and a subPath are mounts of the host, since a CRI mount names a path of the host. So a `play` that was
//! killed leaves its pod running and these mounts in place; `coraclectl down`, or the next `play` once the daemon has no
//! such pod any more, takes them away. The lock tells which directories have nobody.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use coracle_linux::beneath;
use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags};
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
        remove_tree(&self.path).map_err(|source| DirectoryError::Remove {
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
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").map_err(source)?;
    // Later lines may be mounted on earlier ones.
    for path in mountinfo.lines().rev().filter_map(mount_point) {
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

/// The fifth field of a line of mountinfo (proc_pid_mountinfo(5)), in which blanks are octal.
fn mount_point(line: &str) -> Option<PathBuf> {
    let field = line.split(' ').nth(4)?;
    let mut path = String::new();
    let mut parts = field.split('\\');
    path.push_str(parts.next()?);
    for part in parts {
        let code = u8::from_str_radix(part.get(..3)?, 8).ok()?;
        path.push(char::from(code));
        path.push_str(part.get(3..)?);
    }
    Some(path.into())
}

/// Removes a tree that containers have written, whatever they made of it: by descriptor, never through a symbolic link
/// or into another mount, and at any depth, since a directory found inside another is moved up before it is looked into.
fn remove_tree(path: &Path) -> io::Result<()> {
    let root = match rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Err(Errno::NOENT) => return Ok(()),
        root => root?,
    };
    let mut pending = empty(root.as_fd(), Path::new("."), |child| Ok(PathBuf::from(child)))?;
    let mut moved = 0_u64;
    while let Some(name) = pending.pop() {
        let directory = beneath::open_strict(root.as_fd(), &name, OFlags::PATH | OFlags::DIRECTORY)?;
        pending.extend(empty(root.as_fd(), &name, |child| {
            move_up(directory.as_fd(), child, root.as_fd(), &mut moved)
        })?);
        rustix::fs::unlinkat(&root, &name, AtFlags::REMOVEDIR)?;
    }
    fs::remove_dir(path)
}

/// Removes what can be removed from one directory; the rest, directories that hold something, are given to `keep`.
fn empty(
    root: BorrowedFd<'_>,
    name: &Path,
    mut keep: impl FnMut(&OsStr) -> io::Result<PathBuf>,
) -> io::Result<Vec<PathBuf>> {
    let directory = beneath::open_strict(root, name, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let entries: Vec<_> = Dir::read_from(&directory)?.collect::<Result<_, _>>()?;
    let mut kept = Vec::new();
    for entry in entries {
        let child = OsStr::from_bytes(entry.file_name().to_bytes());
        if child == "." || child == ".." {
            continue;
        }
        if kind(&directory, &entry)? != FileType::Directory {
            rustix::fs::unlinkat(&directory, child, AtFlags::empty())?;
        } else if rustix::fs::unlinkat(&directory, child, AtFlags::REMOVEDIR).is_err() {
            kept.push(keep(child)?);
        }
    }
    Ok(kept)
}

/// Gives `child` a new name in the root.
fn move_up(
    from: BorrowedFd<'_>,
    child: &OsStr,
    root: BorrowedFd<'_>,
    moved: &mut u64,
) -> io::Result<PathBuf> {
    loop {
        let up = PathBuf::from(format!(".removed-{moved}"));
        *moved += 1;
        match rustix::fs::renameat_with(from, child, root, &up, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(up),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Some file systems leave the kind out of a listing.
fn kind(directory: impl AsFd, entry: &rustix::fs::DirEntry) -> io::Result<FileType> {
    if entry.file_type() != FileType::Unknown {
        return Ok(entry.file_type());
    }
    let stat = rustix::fs::statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_tree_of_any_depth_goes_and_what_links_point_to_stays() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "x").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::create_dir(tree.join(".removed-0")).unwrap();
        fs::write(tree.join(".removed-0/f"), "x").unwrap();
        symlink(outside.path(), tree.join("a/link")).unwrap();
        // Deeper than any path or descriptor table.
        let mut at = rustix::fs::open(&tree, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "deeper", Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, "deeper", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        drop(at);
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert!(outside.path().join("kept").exists());
        remove_tree(&tree).unwrap();
    }

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

    #[test]
    fn mount_points_are_unescaped() {
        let line = "36 35 98:0 / /a\\040b\\134c rw shared:1 - ext4 /dev/root rw";
        assert_eq!(mount_point(line).unwrap(), PathBuf::from("/a b\\c"));
    }
}
