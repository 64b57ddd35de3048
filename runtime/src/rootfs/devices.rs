//! /dev: device nodes, and the links of the specification (runtime-linux.md, "Dev symbolic links").

use super::RootfsError;
use crate::plan::{DeviceKind, DevicePlan};
use coracle_linux::beneath;
use coracle_linux::mount::Detached;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Makes the devices and the links. In a user namespace nodes cannot be made; the host's are bound.
pub(super) fn make(root: BorrowedFd<'_>, devices: &[DevicePlan], by_bind: bool) -> Result<(), RootfsError> {
    for device in devices {
        let made = if by_bind {
            bind(root, device)
        } else {
            make_node(root, device)
        };
        made.map_err(|source| RootfsError::Device {
            path: device.path.clone(),
            source,
        })?;
    }
    for (link, text) in LINKS {
        if *link == "/dev/core" && !Path::new(text).exists() {
            continue;
        }
        let made = make_link(root, Path::new(link), text);
        made.map_err(|source| RootfsError::Device {
            path: link.into(),
            source,
        })?;
    }
    Ok(())
}

fn make_node(root: BorrowedFd<'_>, device: &DevicePlan) -> io::Result<()> {
    let (parent, name) = beneath::ensure_parent(root, &device.path, 0o755)?;
    let (kind, number) = (file_type(device.kind), device_number(device));
    match rustix::fs::mknodat(&parent, name, kind, Mode::from_raw_mode(device.mode), number) {
        Ok(()) => {}
        Err(Errno::EXIST) => return keep_existing(parent.as_fd(), name, kind, number),
        // A container of a container: the device cgroup or a user namespace further out says no.
        Err(Errno::PERM) => return bind(root, device),
        Err(errno) => return Err(errno.into()),
    }
    if device.uid != 0 || device.gid != 0 {
        let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// An image's own node is as good, if it is the same device; anything else under that name is a trap.
fn keep_existing(parent: BorrowedFd<'_>, name: &OsStr, kind: FileType, number: u64) -> io::Result<()> {
    let found = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let same_kind = FileType::from_raw_mode(found.st_mode) == kind;
    if same_kind && (kind == FileType::Fifo || found.st_rdev == number) {
        return Ok(());
    }
    Err(Errno::EXIST.into())
}

/// The host's node of the same name, if it is this device.
fn bind(root: BorrowedFd<'_>, device: &DevicePlan) -> io::Result<()> {
    let (kind, number) = (file_type(device.kind), device_number(device));
    if kind == FileType::Fifo {
        let (parent, name) = beneath::ensure_parent(root, &device.path, 0o755)?;
        return match rustix::fs::mknodat(&parent, name, kind, Mode::from_raw_mode(device.mode), 0) {
            Err(Errno::EXIST) => keep_existing(parent.as_fd(), name, kind, 0),
            made => Ok(made?),
        };
    }
    let clone = Detached::clone_of(CWD, &device.path)?;
    let found = rustix::fs::fstat(clone.as_fd())?;
    if FileType::from_raw_mode(found.st_mode) != kind || found.st_rdev != number {
        return Err(Errno::NODEV.into());
    }
    let target = beneath::ensure_file(root, &device.path, 0o644)?;
    clone.attach(target.as_fd()).map(drop)
}

fn file_type(kind: DeviceKind) -> FileType {
    match kind {
        DeviceKind::Character => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
        DeviceKind::Fifo => FileType::Fifo,
    }
}

fn device_number(device: &DevicePlan) -> u64 {
    rustix::fs::makedev(device.major, device.minor)
}

fn make_link(root: BorrowedFd<'_>, link: &Path, text: &str) -> io::Result<()> {
    let (parent, name) = beneath::ensure_parent(root, link, 0o755)?;
    match rustix::fs::symlinkat(text, &parent, name) {
        Err(Errno::EXIST) if name == "ptmx" => replace_ptmx(parent, name, text),
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// An image's own /dev/ptmx would be the host's: it makes way.
fn replace_ptmx(parent: OwnedFd, name: &OsStr, text: &str) -> io::Result<()> {
    rustix::fs::unlinkat(&parent, name, AtFlags::empty())?;
    Ok(rustix::fs::symlinkat(text, &parent, name)?)
}

/// Opens a device of the container and makes sure it is the one it should be.
pub(super) fn open_checked(
    root: BorrowedFd<'_>,
    path: &Path,
    major: u32,
    minor: u32,
) -> io::Result<Option<OwnedFd>> {
    let fd = beneath::open(root, path, OFlags::PATH | OFlags::NOFOLLOW)?;
    let found = rustix::fs::fstat(&fd)?;
    let right = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice
        && found.st_rdev == rustix::fs::makedev(major, minor);
    Ok(right.then_some(fd))
}

const LINKS: &[(&str, &str)] = &[
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
    ("/dev/ptmx", "pts/ptmx"),
];
