//! Finds and makes the directory an archive entry lies in, never leaving the layer.
//!
//! Fast path: one openat2(2) that refuses symbolic links and anything above the layer. Only when that fails is the path walked one
//! component at a time with O_NOFOLLOW, symbolic links of the layer itself being followed as if the layer were `/` (an archive may
//! hold `lib -> usr/lib` and then `lib/x`).

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::whiteout::{OPAQUE_XATTR, is_whiteout};

/// Keeps removal and the walk within the process's descriptors; far beyond what images use.
pub(crate) const DEPTH_MAX: usize = 256;
const LINKS_MAX: usize = 40;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Why the walk stopped.
#[derive(Debug)]
pub(crate) enum WalkError {
    /// A component is neither a directory nor a link to one.
    NotADirectory,
    /// Too many symbolic links.
    Loop,
    /// More than DEPTH_MAX components.
    Depth,
    /// A system call failed.
    Errno(Errno),
}

impl From<Errno> for WalkError {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// The directory found: its descriptor and its path in the layer without symbolic links.
pub(crate) struct Parent {
    pub(crate) fd: OwnedFd,
    pub(crate) path: Vec<u8>,
}

/// Opens `path` (clean components, relative) beneath `root`, following the layer's own links. Missing directories are made and
/// noted in `implied`, or are ENOENT when `implied` is `None`.
pub(crate) fn open_directory(
    root: BorrowedFd<'_>,
    path: &[u8],
    implied: Option<&mut BTreeSet<Vec<u8>>>,
) -> Result<Parent, WalkError> {
    let fast = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let name = if path.is_empty() { b".".as_slice() } else { path };
    if path.split(|b| *b == b'/').count() > DEPTH_MAX {
        return Err(WalkError::Depth);
    }
    match rustix::fs::openat2(root, name, DIRECTORY, Mode::empty(), fast) {
        Ok(fd) => Ok(Parent {
            fd,
            path: path.to_vec(),
        }),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Walk::new(root)?.run(path, implied),
        Err(errno) => Err(errno.into()),
    }
}

struct Walk {
    /// The layer's root and the directories entered below it, with their names.
    stack: Vec<(Vec<u8>, OwnedFd)>,
    links: usize,
}

impl Walk {
    fn new(root: BorrowedFd<'_>) -> Result<Self, WalkError> {
        let fd = rustix::fs::openat(root, ".", DIRECTORY, Mode::empty())?;
        Ok(Self {
            stack: vec![(Vec::new(), fd)],
            links: 0,
        })
    }

    fn run(mut self, path: &[u8], mut implied: Option<&mut BTreeSet<Vec<u8>>>) -> Result<Parent, WalkError> {
        let mut rest: VecDeque<Vec<u8>> = components(path).collect();
        while let Some(component) = rest.pop_front() {
            if component == b".." {
                // Only out of a link's target: entry names with `..` are refused before. `/..` is `/`.
                self.stack.truncate(self.stack.len().saturating_sub(1).max(1));
                continue;
            }
            if let Some(target) = self.enter(component, implied.as_deref_mut())? {
                self.links += 1;
                if self.links > LINKS_MAX {
                    return Err(WalkError::Loop);
                }
                if target.starts_with(b"/") {
                    self.stack.truncate(1);
                }
                let mut spliced: VecDeque<Vec<u8>> = components(&target).collect();
                spliced.append(&mut rest);
                rest = spliced;
            }
        }
        let path = self.path();
        let (_, fd) = self.stack.pop().ok_or(WalkError::Errno(Errno::NOENT))?;
        Ok(Parent { fd, path })
    }

    fn path(&self) -> Vec<u8> {
        let names: Vec<&[u8]> = self
            .stack
            .iter()
            .skip(1)
            .map(|(name, _)| name.as_slice())
            .collect();
        names.join(&b'/')
    }

    /// Enters `name`, or returns the link's target if it is one.
    fn enter(
        &mut self,
        name: Vec<u8>,
        implied: Option<&mut BTreeSet<Vec<u8>>>,
    ) -> Result<Option<Vec<u8>>, WalkError> {
        if self.stack.len() > DEPTH_MAX {
            return Err(WalkError::Depth);
        }
        let (_, top) = self.stack.last().ok_or(WalkError::Errno(Errno::NOENT))?;
        let stat = match rustix::fs::statat(top, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(stat),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno.into()),
        };
        let deleted = stat.as_ref().is_some_and(is_whiteout);
        match stat.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Some(FileType::Directory) => {}
            Some(FileType::Symlink) => {
                return Ok(Some(
                    rustix::fs::readlinkat(top, name.as_slice(), Vec::new())?.into_bytes(),
                ));
            }
            Some(_) if !deleted => return Err(WalkError::NotADirectory),
            _ => {
                let implied = implied.ok_or(WalkError::Errno(Errno::NOENT))?;
                make(top.as_fd(), &name, deleted)?;
                let mut path = self.path();
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(&name);
                implied.insert(path);
            }
        }
        let (_, top) = self.stack.last().ok_or(WalkError::Errno(Errno::NOENT))?;
        let fd = rustix::fs::openat(top, name.as_slice(), DIRECTORY, Mode::empty())?;
        self.stack.push((name, fd));
        Ok(None)
    }
}

/// Makes a directory; where this layer deletes the name, the new directory hides what lies below.
pub(crate) fn make(parent: BorrowedFd<'_>, name: &[u8], deleted: bool) -> Result<(), Errno> {
    if deleted {
        rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
    }
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
    let fd = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755))?;
    if deleted { set_opaque(fd.as_fd()) } else { Ok(()) }
}

pub(crate) fn set_opaque(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::fs::fsetxattr(directory, OPAQUE_XATTR, b"y", rustix::fs::XattrFlags::empty())
}

/// Removes a name with all it holds.
pub(crate) fn remove_tree(parent: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    coracle_linux::tree::remove_at(parent.as_fd(), OsStr::from_bytes(name))
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn components(path: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    path.split(|b| *b == b'/')
        .filter(|c| !c.is_empty() && *c != b".")
        .map(<[u8]>::to_vec)
}
