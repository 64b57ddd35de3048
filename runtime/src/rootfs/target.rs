//! Where mounts go: looked up, made if missing, and checked, beneath the root.

use super::RootfsError;
use crate::plan::{MountKind, MountPlan};
use coracle_linux::beneath;
use rustix::fs::{OFlags, ResolveFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The mount point of a directory.
pub(super) fn directory(root: BorrowedFd<'_>, destination: &Path) -> Result<OwnedFd, RootfsError> {
    let failed = |source| RootfsError::MountPoint {
        destination: destination.to_owned(),
        source,
    };
    checked(
        beneath::ensure_dir(root, destination, 0o755).map_err(failed)?,
        destination,
    )
}

/// The mount point of a file.
pub(super) fn file(root: BorrowedFd<'_>, destination: &Path) -> Result<OwnedFd, RootfsError> {
    let failed = |source| RootfsError::MountPoint {
        destination: destination.to_owned(),
        source,
    };
    checked(
        beneath::ensure_file(root, destination, 0o644).map_err(failed)?,
        destination,
    )
}

/// The mount point of procfs or sysfs. Through a link it would land elsewhere, and what is then found at /proc is the
/// image's (CVE-2019-16884, CVE-2019-19921, CVE-2023-27561).
pub(super) fn ordinary_directory(root: BorrowedFd<'_>, destination: &Path) -> Result<OwnedFd, RootfsError> {
    let relative = destination.strip_prefix("/").unwrap_or(destination);
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat2(root, relative, flags, rustix::fs::Mode::empty(), resolve) {
        Ok(found) => Ok(found),
        Err(Errno::LOOP | Errno::NOTDIR) => Err(RootfsError::NotOrdinary(destination.to_owned())),
        Err(_) => directory(root, destination),
    }
}

/// What is at `destination` now, which must exist.
pub(super) fn existing(root: BorrowedFd<'_>, destination: &Path) -> io::Result<OwnedFd> {
    beneath::open(root, destination, OFlags::PATH)
}

/// Whether the container's /dev is somebody else's, where nothing is to be made.
pub(super) fn is_bind_of_dev(mount: &MountPlan) -> bool {
    mount.destination == Path::new("/dev") && matches!(mount.kind, MountKind::Bind { .. })
}

/// Refuses mount points in procfs but those of a few files that tools like lxcfs replace. It is the descriptor that is
/// asked where it lies, not its name: a link of the image can lead there from anywhere.
fn checked(target: OwnedFd, destination: &Path) -> Result<OwnedFd, RootfsError> {
    let failed = |errno: Errno| RootfsError::MountPoint {
        destination: destination.to_owned(),
        source: errno.into(),
    };
    let in_proc = rustix::fs::fstatfs(&target).map_err(failed)?.f_type == PROC_SUPER_MAGIC;
    if in_proc && !is_root_of_mount(target.as_fd()) && !may_be_replaced(destination) {
        return Err(RootfsError::InsideProc(destination.to_owned()));
    }
    Ok(target)
}

/// Mounting over all of /proc is allowed: a second procfs, or the one of the host bound.
fn is_root_of_mount(target: BorrowedFd<'_>) -> bool {
    use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};
    let found = rustix::fs::statx(target, c"", AtFlags::EMPTY_PATH, StatxFlags::empty());
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn may_be_replaced(destination: &Path) -> bool {
    const FILES: &[&str] = &[
        "cpuinfo",
        "diskstats",
        "loadavg",
        "meminfo",
        "slabinfo",
        "stat",
        "swaps",
        "uptime",
        "sys/crypto/fips_enabled",
        "sys/kernel/ns_last_pid",
    ];
    FILES
        .iter()
        .any(|file| PathBuf::from("/proc").join(file) == destination)
}

const PROC_SUPER_MAGIC: i64 = 0x9fa0;
