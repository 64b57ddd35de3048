//! Directory trees that somebody else has filled: measured and removed whatever they hold.
//!
//! A container may nest a directory in a directory as often as it likes, and rename them while we look. So a tree is
//! walked with two descriptors and no recursion: one for where it starts, one for where we are. Down goes by name, never
//! through a symbolic link or into another mount; up goes by `..`, and what that opens must be the directory we came from
//! (device and inode), since a directory that was moved meanwhile has another parent, perhaps outside the tree.
//!
//! ```text
//!  levels:  start   a     b          pending: names of directories still to be visited, of each level
//!             |     |     |
//!  enter(c)   '-----'-----'--- c     leave(): open "..", compare; when it is another directory, go down again from the
//!                                    start as far as names still lead to the directories that we know
//! ```

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// Entries looked at between two pauses of a measurement.
const BATCH: u32 = 256;

/// Disk space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Allocated bytes.
    pub bytes: u64,
    /// Files, directories, links; the directory that was named is one.
    pub inodes: u64,
}

/// Measures a directory tree without following links or leaving its mount; a file with several names counts once. Blocks:
/// it looks at no more than `entries_per_second`, so that a sample of a large layer does not compete with its container.
/// What vanishes meanwhile is not counted, what is moved meanwhile may be missed.
///
/// # Errors
/// The directory cannot be opened, or something in it cannot be read.
pub fn measure(directory: &Path, entries_per_second: u32) -> io::Result<Usage> {
    let pause = Duration::from_secs(1) / entries_per_second.max(1);
    let mut walk = Walk::start(open_directory(directory)?)?;
    let mut measured = Measured::default();
    measured.count(&rustix::fs::fstat(&walk.start)?);
    let mut seen = measured.list(&mut walk)?;
    loop {
        if seen >= BATCH {
            std::thread::sleep(pause * seen);
            seen = 0;
        }
        match walk.next() {
            Some(name) => match walk.enter(name) {
                // It is gone, has become something else, or is another mount: not part of this tree.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {}
                entered => {
                    entered?;
                    seen += measured.list(&mut walk)?;
                }
            },
            None => {
                if walk.leave()?.is_none() {
                    return Ok(measured.usage);
                }
            }
        }
    }
}

/// Removes what is at `path` with all it holds; that nothing is there is success. A symbolic link is removed, not
/// followed. What can be removed is removed, also when something else cannot.
///
/// # Errors
/// The first that was met: `EXDEV` for another mount in the tree, which is left as it is.
pub fn remove(path: &Path) -> io::Result<()> {
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(parent, flags, Mode::empty()) {
        Err(Errno::NOENT) => Ok(()),
        opened => remove_at(opened?.as_fd(), name),
    }
}

/// [`remove`] of a name in a directory.
///
/// # Errors
/// As of [`remove`].
pub fn remove_at(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let mut first_error = None;
    match enter(parent, name) {
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(unlink(parent, name, AtFlags::empty())?),
        entered => empty(entered?, &mut first_error)?,
    }
    let removed = unlink(parent, name, AtFlags::REMOVEDIR);
    // That the directory is not empty is only what follows from the first error.
    match first_error {
        Some(errno) => Err(errno.into()),
        None => Ok(removed?),
    }
}

/// Removes everything below a directory.
fn empty(start: OwnedFd, first_error: &mut Option<Errno>) -> io::Result<()> {
    let mut keep_first = |result: Result<(), Errno>| {
        if let Err(errno) = result {
            first_error.get_or_insert(errno);
        }
    };
    let mut walk = Walk::start(start)?;
    walk.remove_entries(&mut keep_first);
    loop {
        if let Some(name) = walk.next() {
            match walk.enter(name) {
                Ok(()) => walk.remove_entries(&mut keep_first),
                Err(Errno::NOENT) => {}
                Err(errno) => keep_first(Err(errno)),
            }
        } else {
            match walk.leave()? {
                Some(name) => keep_first(unlink(walk.at.as_fd(), &name, AtFlags::REMOVEDIR)),
                None => return Ok(()),
            }
        }
    }
}

/// A place in a tree.
struct Walk {
    start: OwnedFd,
    at: OwnedFd,
    /// From the start to where we are.
    levels: Vec<Level>,
}

struct Level {
    /// In the directory above; unused for the start.
    name: OsString,
    identity: (u64, u64),
    pending: Vec<OsString>,
}

impl Walk {
    fn start(start: OwnedFd) -> Result<Self, Errno> {
        let at = rustix::io::fcntl_dupfd_cloexec(&start, 0)?;
        let level = Level {
            name: OsString::new(),
            identity: identity(&start)?,
            pending: Vec::new(),
        };
        Ok(Self {
            start,
            at,
            levels: vec![level],
        })
    }

    /// A directory in the present one that was not visited yet.
    fn next(&mut self) -> Option<OsString> {
        self.levels.last_mut()?.pending.pop()
    }

    fn later(&mut self, name: OsString) {
        if let Some(level) = self.levels.last_mut() {
            level.pending.push(name);
        }
    }

    fn enter(&mut self, name: OsString) -> Result<(), Errno> {
        let inside = enter(self.at.as_fd(), &name)?;
        self.levels.push(Level {
            identity: identity(&inside)?,
            name,
            pending: Vec::new(),
        });
        self.at = inside;
        Ok(())
    }

    /// Goes up and gives the name of what was left; none at the start.
    fn leave(&mut self) -> Result<Option<OsString>, Errno> {
        let left = self.levels.pop();
        let (Some(left), Some(level)) = (left, self.levels.last()) else {
            return Ok(None);
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.at, "..", flags, Mode::empty()) {
            Ok(above) if identity(&above)? == level.identity => self.at = above,
            Ok(_) | Err(Errno::NOENT) => return self.find_again(left.name).map(Some),
            Err(errno) => return Err(errno),
        }
        Ok(Some(left.name))
    }

    /// Somebody moved a directory that we were in. Goes down from the start as far as that still works, and gives the name of
    /// what is left with that: `left`, or a directory above it.
    fn find_again(&mut self, left: OsString) -> Result<OsString, Errno> {
        self.at = rustix::io::fcntl_dupfd_cloexec(&self.start, 0)?;
        let mut reached = 1;
        while let Some(level) = self.levels.get(reached) {
            match enter(self.at.as_fd(), &level.name) {
                Ok(inside) if identity(&inside)? == level.identity => self.at = inside,
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => break,
                Err(errno) => return Err(errno),
            }
            reached += 1;
        }
        let lost = self.levels.drain(reached..).next();
        Ok(lost.map_or(left, |level| level.name))
    }

    /// Removes files and empty directories; directories that hold something are left for later.
    fn remove_entries(&mut self, keep_first: &mut impl FnMut(Result<(), Errno>)) {
        let entries = match entries(&self.at) {
            Ok(entries) => entries,
            Err(errno) => return keep_first(Err(errno)),
        };
        for (name, kind) in entries {
            let mut removed = match kind {
                FileType::Directory => Err(Errno::ISDIR),
                _ => unlink(self.at.as_fd(), &name, AtFlags::empty()),
            };
            if removed == Err(Errno::ISDIR) {
                removed = unlink(self.at.as_fd(), &name, AtFlags::REMOVEDIR);
            }
            match removed {
                Err(Errno::NOTEMPTY | Errno::EXIST) => self.later(name),
                other => keep_first(other),
            }
        }
    }
}

#[derive(Default)]
struct Measured {
    usage: Usage,
    /// Files with several names, by device and inode.
    linked: HashSet<(u64, u64)>,
}

impl Measured {
    fn count(&mut self, stat: &Stat) {
        self.usage.inodes += 1;
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
        self.usage.bytes = self.usage.bytes.saturating_add(blocks.saturating_mul(512));
    }

    /// Counts what is in the present directory, and gives the number of entries.
    fn list(&mut self, walk: &mut Walk) -> Result<u32, Errno> {
        let device = rustix::fs::fstat(&walk.at)?.st_dev;
        let mut seen = 0;
        for (name, _) in entries(&walk.at)? {
            seen += 1;
            let stat = match rustix::fs::statat(&walk.at, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let counted_before =
                !is_directory && stat.st_nlink > 1 && !self.linked.insert((stat.st_dev, stat.st_ino));
            // Of another device is what is mounted there.
            if stat.st_dev != device || counted_before {
                continue;
            }
            self.count(&stat);
            if is_directory {
                walk.later(name);
            }
        }
        Ok(seen)
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

fn enter(directory: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let strict = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(directory, name, flags, Mode::empty(), strict)
}

fn identity(directory: impl AsFd) -> Result<(u64, u64), Errno> {
    let stat = rustix::fs::fstat(directory)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn entries(directory: impl AsFd) -> Result<Vec<(OsString, FileType)>, Errno> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            entries.push((OsStr::from_bytes(name).to_owned(), entry.file_type()));
        }
    }
    Ok(entries)
}

/// Success also when somebody else was faster.
fn unlink(directory: BorrowedFd<'_>, name: &OsStr, flags: AtFlags) -> Result<(), Errno> {
    match rustix::fs::unlinkat(directory, name, flags) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    /// A directory of the test's own, removed at its end by the code under test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("coracle-tree-{test}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            remove(&self.0).unwrap();
        }
    }

    /// A chain of directories in `directory`, deeper than any path or descriptor table, with a file at its end.
    fn nest(directory: &Path, depth: usize) {
        let mut at = open_directory(directory).unwrap();
        for _ in 0..depth {
            rustix::fs::mkdirat(&at, "deeper", Mode::RWXU).unwrap();
            at = enter(at.as_fd(), OsStr::new("deeper")).unwrap();
        }
        let flags = OFlags::WRONLY | OFlags::CREATE;
        let file = rustix::fs::openat(&at, "file", flags, Mode::RUSR).unwrap();
        rustix::io::write(&file, &[1; 10_000]).unwrap();
    }

    #[test]
    fn a_tree_is_measured_once_per_file() {
        let scratch = Scratch::new("measure");
        let root = &scratch.0;
        fs::create_dir(root.join("a")).unwrap();
        fs::write(root.join("a/file"), vec![1; 10_000]).unwrap();
        fs::hard_link(root.join("a/file"), root.join("link")).unwrap();
        symlink("/", root.join("a/outside")).unwrap();
        let usage = measure(root, 1_000_000).unwrap();
        assert_eq!(usage.inodes, 4);
        assert!((12_288..64_000).contains(&usage.bytes), "{usage:?}");
        measure(&root.join("absent"), 1_000_000).unwrap_err();
    }

    #[test]
    fn depth_hides_nothing_and_keeps_nothing() {
        let scratch = Scratch::new("depth");
        let tree = scratch.0.join("tree");
        fs::create_dir(&tree).unwrap();
        nest(&tree, 3000);
        fs::create_dir(tree.join("beside")).unwrap();
        let usage = measure(&tree, 1_000_000).unwrap();
        assert_eq!(usage.inodes, 3003);
        assert!(usage.bytes >= 10_000, "{usage:?}");
        remove(&tree).unwrap();
        assert!(!tree.exists());
        remove(&tree).unwrap();
    }

    #[test]
    fn what_links_point_to_stays() {
        let scratch = Scratch::new("links");
        let kept = scratch.0.join("kept");
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "x").unwrap();
        let tree = scratch.0.join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        symlink(&kept, tree.join("a/link")).unwrap();
        symlink(&kept, scratch.0.join("tree-link")).unwrap();
        remove(&scratch.0.join("tree-link")).unwrap();
        remove(&tree).unwrap();
        assert!(kept.join("file").exists() && !tree.exists() && !scratch.0.join("tree-link").exists());
    }

    #[test]
    fn a_directory_that_moves_meanwhile_leads_nowhere_else() {
        let scratch = Scratch::new("move");
        fs::create_dir_all(scratch.0.join("tree/a/b/c")).unwrap();
        fs::create_dir_all(scratch.0.join("outside/victim")).unwrap();
        let mut walk = Walk::start(open_directory(&scratch.0.join("tree")).unwrap()).unwrap();
        for name in ["a", "b", "c"] {
            walk.enter(name.into()).unwrap();
        }
        fs::rename(scratch.0.join("tree/a/b"), scratch.0.join("outside/b")).unwrap();
        // From c to b, which was moved with it; from b not to outside, but back to a.
        assert_eq!(walk.leave().unwrap(), Some("c".into()));
        assert_eq!(walk.leave().unwrap(), Some("b".into()));
        assert_eq!(
            identity(&walk.at).unwrap(),
            identity(open_directory(&scratch.0.join("tree/a")).unwrap()).unwrap()
        );
        assert_eq!(walk.leave().unwrap(), Some("a".into()));
        assert_eq!(walk.leave().unwrap(), None);
    }

    #[test]
    fn another_mount_is_neither_measured_nor_emptied() {
        let scratch = Scratch::new("mount");
        let (tree, other) = (scratch.0.join("tree"), scratch.0.join("other"));
        fs::create_dir_all(tree.join("point")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("file"), vec![1; 10_000]).unwrap();
        fs::write(tree.join("file"), "x").unwrap();
        // The same file system: only the mount tells that it is another place.
        rustix::mount::mount_bind(&other, tree.join("point")).unwrap();
        let measured = measure(&tree, 1_000_000);
        let removed = remove(&tree);
        rustix::mount::unmount(tree.join("point"), rustix::mount::UnmountFlags::DETACH).unwrap();
        assert_eq!(measured.unwrap().inodes, 3);
        assert!(matches!(
            removed.unwrap_err().raw_os_error().map(Errno::from_raw_os_error),
            Some(Errno::XDEV | Errno::BUSY)
        ));
        assert!(other.join("file").exists() && !tree.join("file").exists());
    }
}
