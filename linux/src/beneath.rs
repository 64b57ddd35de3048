//! Paths of a tree that is not trusted: looked up, and made, without ever leaving it.
//!
//! A container's image decides what is a symbolic link in it, and with a shared volume another container can change
//! that while we look. So no path inside a root is ever used as a string twice: it becomes a descriptor once, and
//! everything is done to that descriptor (CVE-2019-19921, CVE-2021-30465, CVE-2024-45310).
//!
//! Links are resolved as if the tree were the whole world: `..` at the top stays there, `/` in a link is the top.

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

/// Opens `path` beneath `root` with these flags (close-on-exec is added).
///
/// # Errors
/// What `openat2(2)` gives: `ENOENT`, `ELOOP` for a magic link of procfs, and so on.
pub fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    open_with(
        root,
        path,
        flags,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Opens `path` beneath `root`; a link or `..` that leads out of it is refused, not taken as one within.
///
/// # Errors
/// `EXDEV` when the path leaves `root`; else as [`open`].
pub fn open_within(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    open_with(root, path, flags, Mode::empty(), within)
}

/// Opens `path` beneath `root` and refuses every symbolic link and every other mount on the way. For trees of the
/// kernel (procfs, cgroupfs), where a link or a mount is a trap.
pub fn open_strict(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let strict = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    open_with(root, path, flags, Mode::empty(), strict)
}

/// The directory `path` beneath `root` as an `O_PATH` descriptor; what is missing is made with `mode`.
///
/// # Errors
/// `ENOTDIR` when the path ends at something else.
pub fn ensure_dir(root: BorrowedFd<'_>, path: &Path, mode: u32) -> io::Result<OwnedFd> {
    match open(root, path, OFlags::PATH | OFlags::DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => walk(root, path, mode),
        done => done,
    }
}

/// The file `path` beneath `root` as an `O_PATH` descriptor; when missing it is made, empty, with its directories.
/// It may be a file of any kind except a directory.
///
/// # Errors
/// `EISDIR` when it is a directory.
pub fn ensure_file(root: BorrowedFd<'_>, path: &Path, mode: u32) -> io::Result<OwnedFd> {
    match open(root, path, OFlags::PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Ok(found) if is_dir(found.as_fd())? => return Err(Errno::ISDIR.into()),
        done => return done,
    }
    let (parent, name) = ensure_parent(root, path, 0o755)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(mode)) {
        // A dangling link: nothing is made through it.
        Ok(_) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(rustix::fs::openat(
        &parent,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// The directory that `path` lies in, made if missing, and the last name of `path`.
///
/// # Errors
/// `EINVAL` when `path` has no last name (`/`, `..`).
pub fn ensure_parent<'p>(
    root: BorrowedFd<'_>,
    path: &'p Path,
    mode: u32,
) -> io::Result<(OwnedFd, &'p OsStr)> {
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let parent = path.parent().unwrap_or_else(|| Path::new("/"));
    Ok((ensure_dir(root, parent, mode)?, name))
}

/// Whether the descriptor is a directory.
pub fn is_dir(file: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode) == FileType::Directory)
}

/// `openat2` with the retry that IN_ROOT and BENEATH need: the kernel answers `EAGAIN` when something was renamed
/// anywhere on the machine while it looked at a `..` (openat2(2)).
fn open_with(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let path = match path.strip_prefix("/") {
        Ok(rest) if rest.as_os_str().is_empty() => Path::new("."),
        Ok(rest) => rest,
        Err(_) => path,
    };
    let mut attempts = 0;
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN) if attempts < 128 => attempts += 1,
            result => return Ok(result?),
        }
    }
}

/// Walks to a directory one name at a time, making what is missing. Each step opens one name in the directory held
/// so far and follows nothing; links are read and their text walked in turn, `..` returns to the directory we came
/// through, never to one that somebody moved the tree under.
fn walk(root: BorrowedFd<'_>, path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let mut came_through: Vec<OwnedFd> = vec![root.try_clone_to_owned()?];
    let mut todo: VecDeque<Step> = steps(path).collect();
    let mut links = 0;
    while let Some(step) = todo.pop_front() {
        let name = match step {
            Step::Top => {
                came_through.truncate(1);
                continue;
            }
            Step::Up => {
                if came_through.len() > 1 {
                    came_through.pop();
                }
                continue;
            }
            Step::Into(name) => name,
        };
        let Some(here) = came_through.last() else {
            return Err(Errno::NOENT.into());
        };
        match step_into(here.as_fd(), &name, mode)? {
            Found::Dir(dir) => came_through.push(dir),
            Found::Link(text) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                for step in steps(Path::new(&text)).collect::<Vec<_>>().into_iter().rev() {
                    todo.push_front(step);
                }
            }
        }
    }
    came_through.pop().ok_or_else(|| Errno::NOENT.into())
}

enum Step {
    Top,
    Up,
    Into(OsString),
}

enum Found {
    Dir(OwnedFd),
    Link(OsString),
}

fn steps(path: &Path) -> impl Iterator<Item = Step> + '_ {
    path.components().filter_map(|component| match component {
        Component::RootDir => Some(Step::Top),
        Component::ParentDir => Some(Step::Up),
        Component::Normal(name) => Some(Step::Into(name.to_owned())),
        Component::CurDir | Component::Prefix(_) => None,
    })
}

fn step_into(here: BorrowedFd<'_>, name: &OsStr, mode: u32) -> io::Result<Found> {
    use std::os::unix::ffi::OsStringExt;
    match rustix::fs::mkdirat(here, name, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => {}
        // A directory that exists on a read-only file system is reported as such, not as existing.
        Err(Errno::ROFS | Errno::ACCESS | Errno::PERM)
            if rustix::fs::statat(here, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = rustix::fs::openat(here, name, flags, Mode::empty())?;
    match FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) {
        FileType::Directory => Ok(Found::Dir(found)),
        FileType::Symlink => {
            let text = rustix::fs::readlinkat(&found, c"", Vec::new())?;
            Ok(Found::Link(OsString::from_vec(text.into_bytes())))
        }
        _ => Err(Errno::NOTDIR.into()),
    }
}

/// As many links as the kernel follows in one path (path_resolution(7)).
const MAX_LINKS: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Tree(std::path::PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("coracle-beneath-{name}-{}", std::process::id()));
            std::fs::create_dir_all(dir.join("root")).unwrap();
            Self(dir)
        }

        fn root(&self) -> OwnedFd {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(self.0.join("root"), flags, Mode::empty()).unwrap()
        }

        fn at(&self, path: &str) -> std::path::PathBuf {
            self.0.join("root").join(path)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn missing_directories_are_made() {
        let tree = Tree::new("made");
        ensure_dir(tree.root().as_fd(), Path::new("/a/b/c"), 0o755).unwrap();
        assert!(tree.at("a/b/c").is_dir());
    }

    #[test]
    fn links_out_of_the_tree_end_inside() {
        let tree = Tree::new("inside");
        symlink("/etc", tree.at("abs")).unwrap();
        symlink("../../../../etc", tree.at("rel")).unwrap();
        ensure_dir(tree.root().as_fd(), Path::new("abs/one"), 0o755).unwrap();
        ensure_dir(tree.root().as_fd(), Path::new("rel/two"), 0o755).unwrap();
        ensure_file(tree.root().as_fd(), Path::new("/../../abs/three"), 0o644).unwrap();
        assert!(tree.at("etc/one").is_dir());
        assert!(tree.at("etc/two").is_dir());
        assert!(tree.at("etc/three").is_file());
        assert!(!Path::new("/etc/one").exists() && !Path::new("/etc/three").exists());
    }

    #[test]
    fn endless_links_are_refused() {
        let tree = Tree::new("loop");
        symlink("b", tree.at("a")).unwrap();
        symlink("a", tree.at("b")).unwrap();
        let error = ensure_dir(tree.root().as_fd(), Path::new("a/x"), 0o755).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::LOOP.raw_os_error()));
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let tree = Tree::new("way");
        std::fs::write(tree.at("file"), "").unwrap();
        let error = ensure_dir(tree.root().as_fd(), Path::new("file/x"), 0o755).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::NOTDIR.raw_os_error()));
        std::fs::create_dir(tree.at("dir")).unwrap();
        let error = ensure_file(tree.root().as_fd(), Path::new("dir"), 0o644).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::ISDIR.raw_os_error()));
    }

    #[test]
    fn strict_lookups_follow_nothing() {
        let tree = Tree::new("strict");
        std::fs::create_dir(tree.at("dir")).unwrap();
        symlink("dir", tree.at("link")).unwrap();
        assert!(open_strict(tree.root().as_fd(), Path::new("dir"), OFlags::PATH).is_ok());
        assert!(open_strict(tree.root().as_fd(), Path::new("link"), OFlags::PATH).is_err());
        assert!(open_strict(tree.root().as_fd(), Path::new("../root"), OFlags::PATH).is_err());
    }
}
