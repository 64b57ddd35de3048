//! Removes a directory tree by descriptor, never following a link and never leaving it.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Removes `name` in `parent` with all it holds; absent is success. Depth is bounded by what the layer applier lets in.
pub(crate) fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            return absent_is_fine(rustix::fs::unlinkat(parent, name, AtFlags::empty()));
        }
        other => other?,
    };
    // Listed first, so that a level costs one descriptor and removal does not disturb the listing.
    for (child, kind) in children(&fd)? {
        match kind {
            FileType::Directory | FileType::Unknown => remove_tree(fd.as_fd(), &child)?,
            _ => absent_is_fine(rustix::fs::unlinkat(&fd, child.as_slice(), AtFlags::empty()))?,
        }
    }
    absent_is_fine(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR))
}

/// The names in a directory with their types.
pub(crate) fn children(directory: impl AsFd) -> Result<Vec<(Vec<u8>, FileType)>, Errno> {
    let mut children = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            children.push((name.to_vec(), entry.file_type()));
        }
    }
    Ok(children)
}

fn absent_is_fine(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}
