//! Masked and read-only paths.
//!
//! A masked file is covered by the container's /dev/null, once that has been seen to be the null device (an image could
//! have put a link there: CVE-2025-31133), a masked directory by one empty read-only tmpfs. Paths that are missing are
//! left out. All of them are descriptors beneath the root, so no link leads out of it.

use super::{RootfsError, devices};
use coracle_linux::beneath;
use coracle_linux::mount::{Attr, Change, Detached, FsContext};
use rustix::fs::OFlags;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Covers these paths.
pub(super) fn mask(root: BorrowedFd<'_>, paths: &[PathBuf]) -> Result<(), RootfsError> {
    let mut null = None;
    let mut empty = None;
    for path in paths {
        let failed = |source| RootfsError::Mask {
            doing: "masking",
            path: path.clone(),
            source,
        };
        let Some(target) = open(root, path).map_err(failed)? else {
            continue;
        };
        if beneath::is_dir(target.as_fd()).map_err(failed)? {
            empty = Some(cover_directory(empty.take(), target.as_fd()).map_err(failed)?);
            continue;
        }
        let null = match &mut null {
            Some(null) => null,
            none => none.insert(open_null(root)?),
        };
        let clone = Detached::clone_of(null.as_fd(), Path::new(""));
        clone
            .and_then(|clone| clone.attach(target.as_fd()))
            .map_err(failed)?;
    }
    Ok(())
}

/// Makes these paths, with what is mounted below them, read only.
pub(super) fn make_readonly(root: BorrowedFd<'_>, paths: &[PathBuf]) -> Result<(), RootfsError> {
    for path in paths {
        let failed = |source| RootfsError::Mask {
            doing: "making read only",
            path: path.clone(),
            source,
        };
        let Some(target) = open(root, path).map_err(failed)? else {
            continue;
        };
        let readonly = Change {
            set: Attr::RDONLY,
            ..Change::default()
        };
        let clone = Detached::recursive_clone_of(target.as_fd(), Path::new("")).map_err(failed)?;
        clone
            .change(&readonly)
            .and_then(|()| clone.attach(target.as_fd()))
            .map_err(failed)?;
    }
    Ok(())
}

/// The first directory gets the tmpfs itself; a detached mount cannot be copied (6.1), an attached one can.
fn cover_directory(empty: Option<OwnedFd>, target: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let cover = match &empty {
        Some(first) => Detached::clone_of(first.as_fd(), Path::new(""))?,
        None => {
            let context = FsContext::open("tmpfs")?;
            context.set("source", "tmpfs")?;
            context.set("nr_inodes", "1")?;
            context.set("mode", "755")?;
            context.mount(Attr::RDONLY | Attr::NOSUID | Attr::NODEV | Attr::NOEXEC)?
        }
    };
    let attached = cover.attach(target)?;
    Ok(empty.unwrap_or(attached))
}

fn open_null(root: BorrowedFd<'_>) -> Result<OwnedFd, RootfsError> {
    let path = Path::new("/dev/null");
    let failed = |source| RootfsError::Device {
        path: path.to_owned(),
        source,
    };
    devices::open_checked(root, path, 1, 3)
        .map_err(failed)?
        .ok_or(RootfsError::FakeNull)
}

fn open(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<OwnedFd>> {
    match beneath::open(root, path, OFlags::PATH) {
        Ok(found) => Ok(Some(found)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
