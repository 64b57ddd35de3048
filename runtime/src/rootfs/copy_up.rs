//! A mount begins with a copy of the directory that it covers: a tmpfs with `tmpcopyup`, as runc and crun do it, and a
//! volume of the image.
//!
//! ```text
//! destination in the root --names, one level at a time--> detached mount --attributes (ro, ...)--> attached
//! ```
//! The copy is made while the mount is detached: nobody else sees it half made, and it can still be written to. In the
//! image everything is opened by one name in a directory held by descriptor, and no link is followed, so the copy cannot
//! reach beyond the directory. It crosses no mount either: what another mount put there is not the image's.
//!
//! Directories, files, links and FIFOs are copied with owners, modes and modification times; directories and files also
//! with their ACLs, file capabilities and `user.*` attributes. Left out are sockets, which nobody listens on, and device
//! nodes: those of a container are what `linux.devices` says. Names of one file (hard links) become files of their own.

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid};
use rustix::fs::{XattrFlags, openat, openat2};
use rustix::io::Errno;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Why, and at which path below the directory.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

/// Fills `empty`, the root of a mount with nothing in it, with what `covered` has. With `keep_owner` the root itself also
/// gets the owner of the directory; its mode is the caller's to set.
pub(super) fn copy_up(
    covered: BorrowedFd<'_>,
    empty: BorrowedFd<'_>,
    keep_owner: bool,
) -> Result<(), Failed> {
    let from = open_dir(covered, c".")?;
    let to = open_dir(empty, c".")?;
    let found = rustix::fs::fstat(&from)?;
    copy_names(from, to.as_fd(), 0)?;
    if keep_owner {
        let (owner, group) = owner(&found);
        rustix::fs::fchown(&to, owner, group)?;
    }
    Ok(rustix::fs::futimens(&to, &times(&found))?)
}

fn copy_names(from: OwnedFd, to: BorrowedFd<'_>, depth: usize) -> Result<(), Failed> {
    if depth > MAX_DEPTH {
        return Err(Errno::NAMETOOLONG.into());
    }
    let mut dir = Dir::new(from)?;
    let mut names = Vec::new();
    while let Some(entry) = dir.read() {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    for name in &names {
        copy_one(dir.fd()?, to, name, depth).map_err(|failed| failed.below(name))?;
    }
    Ok(())
}

fn copy_one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CString, depth: usize) -> Result<(), Failed> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
    let file = match openat2(from, name, flags, Mode::empty(), resolve) {
        // Another mount, or gone since: a volume may be shared with somebody.
        Err(Errno::XDEV | Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    let found = rustix::fs::fstat(&file)?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => copy_directory(file.as_fd(), &found, to, name, depth),
        FileType::RegularFile => Ok(copy_file(file.as_fd(), &found, to, name)?),
        FileType::Symlink => Ok(copy_link(file.as_fd(), &found, to, name)?),
        FileType::Fifo => Ok(copy_fifo(&found, to, name)?),
        _ => Ok(()),
    }
}

fn copy_directory(
    from: BorrowedFd<'_>,
    found: &Stat,
    to: BorrowedFd<'_>,
    name: &CStr,
    depth: usize,
) -> Result<(), Failed> {
    rustix::fs::mkdirat(to, name, Mode::RWXU)?;
    let copy = open_dir(to, name)?;
    let from = open_dir(from, c".")?;
    // The attributes come last: to be read they need the descriptor that the names are read with.
    let attributes = from.try_clone()?;
    copy_names(from, copy.as_fd(), depth + 1)?;
    Ok(copy_attributes(attributes.as_fd(), found, copy.as_fd())?)
}

fn copy_file(from: BorrowedFd<'_>, found: &Stat, to: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    // Known to be a regular file, and opened for reading only now: to open a device can have effects.
    let again = format!("/proc/self/fd/{}", from.as_raw_fd());
    let mut from = File::open(again)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut copy = File::from(openat(to, name, flags, Mode::RUSR | Mode::WUSR)?);
    io::copy(&mut from, &mut copy)?;
    copy_attributes(from.as_fd(), found, copy.as_fd())
}

fn copy_link(from: BorrowedFd<'_>, found: &Stat, to: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let text = rustix::fs::readlinkat(from, c"", Vec::new())?;
    rustix::fs::symlinkat(text.as_c_str(), to, name)?;
    let (user, group) = owner(found);
    rustix::fs::chownat(to, name, user, group, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(rustix::fs::utimensat(
        to,
        name,
        &times(found),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

fn copy_fifo(found: &Stat, to: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    rustix::fs::mknodat(to, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    let (user, group) = owner(found);
    rustix::fs::chownat(to, name, user, group, AtFlags::SYMLINK_NOFOLLOW)?;
    // By name, which nobody else can have changed: the file system is ours alone yet.
    rustix::fs::chmodat(to, name, mode(found), AtFlags::empty())?;
    Ok(rustix::fs::utimensat(
        to,
        name,
        &times(found),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

/// In this order: a change of the owner takes set-user-id bits and file capabilities away (chown(2)), and everything
/// changes times.
fn copy_attributes(from: BorrowedFd<'_>, found: &Stat, to: BorrowedFd<'_>) -> io::Result<()> {
    let (user, group) = owner(found);
    rustix::fs::fchown(to, user, group)?;
    rustix::fs::fchmod(to, mode(found))?;
    copy_xattrs(from, to)?;
    Ok(rustix::fs::futimens(to, &times(found))?)
}

fn copy_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let mut list = Vec::with_capacity(XATTR_MAX);
    match rustix::fs::flistxattr(from, rustix::buffer::spare_capacity(&mut list)) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        listed => listed?,
    };
    for name in list.split(|byte| *byte == 0).filter(|name| is_copied(name)) {
        let mut value = Vec::with_capacity(XATTR_MAX);
        match rustix::fs::fgetxattr(from, name, rustix::buffer::spare_capacity(&mut value)) {
            Err(Errno::NODATA) => continue,
            read => read?,
        };
        match rustix::fs::fsetxattr(to, name, &value, XattrFlags::empty()) {
            // tmpfs has `user.*` since 6.6, ACLs when they are compiled in.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Not `trusted.*`, which belongs to file systems of the host, nor labels, which the host's policy gives.
fn is_copied(name: &[u8]) -> bool {
    name == b"security.capability" || name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_")
}

fn open_dir(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

fn owner(found: &Stat) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(found.st_uid)),
        Some(Gid::from_raw(found.st_gid)),
    )
}

fn mode(found: &Stat) -> Mode {
    Mode::from_raw_mode(found.st_mode & 0o7777)
}

fn times(found: &Stat) -> Timestamps {
    let timespec = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: timespec(found.st_atime, found.st_atime_nsec),
        last_modification: timespec(found.st_mtime, found.st_mtime_nsec),
    }
}

impl Failed {
    fn below(self, name: &CStr) -> Self {
        let parent = Path::new(OsStr::from_bytes(name.to_bytes()));
        let path = if self.path.as_os_str().is_empty() {
            parent.to_owned()
        } else {
            parent.join(self.path)
        };
        Self { path, ..self }
    }
}

impl From<io::Error> for Failed {
    fn from(source: io::Error) -> Self {
        Self {
            path: PathBuf::new(),
            source,
        }
    }
}

impl From<Errno> for Failed {
    fn from(errno: Errno) -> Self {
        io::Error::from(errno).into()
    }
}

/// Four descriptors are held per level, and a process has often not more than 1024.
const MAX_DEPTH: usize = 100;

/// The size of the largest attribute, and of the longest list of their names (xattr(7)).
const XATTR_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_and_large_files_are_copied_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir_all(from.join("sub")).unwrap();
        std::fs::create_dir(&to).unwrap();
        let content: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        std::fs::write(from.join("sub/file"), &content).unwrap();
        for name in ["sub", "sub/file"] {
            rustix::fs::setxattr(from.join(name), c"user.note", b"kept", XattrFlags::empty()).unwrap();
        }
        let (covered, copy) = (File::open(&from).unwrap(), File::open(&to).unwrap());
        copy_up(covered.as_fd(), copy.as_fd(), true).unwrap();
        assert!(std::fs::read(to.join("sub/file")).unwrap() == content);
        for name in ["sub", "sub/file"] {
            let mut value = Vec::with_capacity(16);
            let spare = rustix::buffer::spare_capacity(&mut value);
            rustix::fs::getxattr(to.join(name), c"user.note", spare).unwrap();
            assert_eq!(value, b"kept", "{name}");
        }
    }
}
