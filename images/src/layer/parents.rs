//! Gives directories that a layer only implies the attributes of the lower layers.
//!
//! A layer may hold `tmp/x` without an entry for `tmp`. Unpacked on top of the others, `tmp` would keep its mode; unpacked alone it is
//! new, and as the upper one it would hide the real mode. And where the lower `lib` is a link to `usr/lib`, `lib/x` belongs in
//! `usr/lib`. Both are repaired here, once the layers below are known.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Timestamps};
use rustix::io::Errno;

use super::walk::remove_tree;
use crate::lookup::{Found, Merged};

/// Repairs the directories `implied` (parents first) of the layer at `root`, seen on top of `lower`.
pub(crate) fn adopt_parents(root: BorrowedFd<'_>, lower: &Merged, implied: &[Vec<u8>]) -> Result<(), Errno> {
    let mut moved: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for path in implied {
        let mut path = path.clone();
        for (from, to) in &moved {
            if let Some(rest) = path
                .strip_prefix(from.as_slice())
                .filter(|rest| rest.starts_with(b"/"))
            {
                path = [to, rest].concat();
            }
        }
        let (real, found) = lower.find(&path)?;
        let Found::Directory(parts) = found else { continue };
        if real == path {
            copy_attributes(&parts, &open(root, &path)?)?;
        } else {
            relocate(root, lower, &path, &real)?;
            moved.push((path, real));
        }
    }
    Ok(())
}

fn open(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let name = if path.is_empty() { b".".as_slice() } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, name, flags, Mode::empty(), resolve)
}

fn copy_attributes(lower: &[OwnedFd], directory: &OwnedFd) -> Result<(), Errno> {
    let Some(upper) = lower.first() else { return Ok(()) };
    let stat = rustix::fs::fstat(upper)?;
    let (uid, gid) = (
        rustix::fs::Uid::from_raw(stat.st_uid),
        rustix::fs::Gid::from_raw(stat.st_gid),
    );
    rustix::fs::fchown(directory, Some(uid), Some(gid))?;
    rustix::fs::fchmod(directory, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let time = rustix::fs::Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: stat.st_mtime_nsec.try_into().unwrap_or_default(),
    };
    rustix::fs::futimens(
        directory,
        &Timestamps {
            last_access: time,
            last_modification: time,
        },
    )
}

/// Moves what this layer holds in `from` to `to`, which it makes with the lower layers' attributes.
fn relocate(root: BorrowedFd<'_>, lower: &Merged, from: &[u8], to: &[u8]) -> Result<(), Errno> {
    let mut prefix: Vec<u8> = Vec::new();
    for component in to.split(|b| *b == b'/').filter(|c| !c.is_empty()) {
        let parent = open(root, &prefix)?;
        if !prefix.is_empty() {
            prefix.push(b'/');
        }
        prefix.extend_from_slice(component);
        match rustix::fs::mkdirat(&parent, component, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => continue,
            other => other?,
        }
        if let (_, Found::Directory(parts)) = lower.find(&prefix)? {
            copy_attributes(&parts, &open(root, &prefix)?)?;
        }
    }
    merge(&open(root, from)?, &open(root, to)?)?;
    let (parent, name) = match from.iter().rposition(|b| *b == b'/') {
        Some(slash) => (
            from.get(..slash).unwrap_or_default(),
            from.get(slash + 1..).unwrap_or_default(),
        ),
        None => (&b""[..], from),
    };
    rustix::fs::unlinkat(open(root, parent)?, name, AtFlags::REMOVEDIR)
}

/// Moves all children of `from` into `to`; directories on both sides are merged, other namesakes replaced.
fn merge(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    for name in names(from)? {
        let name = name.as_slice();
        match rustix::fs::renameat_with(from, name, to, name, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            other => {
                other?;
                continue;
            }
        }
        let directory = |fd: &OwnedFd| -> Result<bool, Errno> {
            let stat = rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
        };
        if directory(from)? && directory(to)? {
            merge(&open(from.as_fd(), name)?, &open(to.as_fd(), name)?)?;
            rustix::fs::unlinkat(from, name, AtFlags::REMOVEDIR)?;
        } else {
            remove_tree(to, name)?;
            rustix::fs::renameat(from, name, to, name)?;
        }
    }
    Ok(())
}

fn names(directory: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}
