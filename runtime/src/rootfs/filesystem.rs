//! One mount of the specification: bound, or a file system of its own.

use super::attach::{attach, change, failed};
use super::copy_up::copy_up;
use super::{RootfsError, long_options, target};
use crate::plan::{MountKind, MountPlan};
use coracle_linux::beneath;
use coracle_linux::mount::{Attr, Detached, FsContext};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::mount::MountFlags;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Makes the mount. `clone` is the detached copy that the maker took of a bind mount's source, or the file system that was
/// made for this container, if there is one.
pub(super) fn mount(
    root: BorrowedFd<'_>,
    plan: &MountPlan,
    clone: Option<Detached>,
) -> Result<(), RootfsError> {
    match &plan.kind {
        MountKind::Bind {
            source,
            recursive,
            copies,
        } => match clone {
            clone if *copies => copied_up(root, plan, source, clone),
            Some(clone) => attach_copy(root, plan, "bind", clone),
            None if plan.follows_host() => bind_linked(root, plan, source, *recursive),
            None => bind(root, plan, source, *recursive),
        },
        MountKind::Filesystem {
            fs_type,
            source,
            data,
            copies,
        } => match clone {
            Some(lent) => attach(plan, fs_type, lent, place(root, plan, fs_type)?.as_fd()).map(drop),
            None if long_options::are_needed(data) && !copies => {
                long_options::mount(root, plan, fs_type, source.as_deref(), data)
            }
            None => filesystem(root, plan, fs_type, source.as_deref(), data, *copies),
        },
        MountKind::Detached(mount) => {
            let copy = mount
                .try_clone()
                .map_err(|source| failed(plan, "detached", source))?;
            attach_copy(root, plan, "detached", Detached::from_fd(copy))
        }
        MountKind::Remount => remount(root, plan),
        MountKind::Cgroup => Ok(()),
    }
}

fn bind(root: BorrowedFd<'_>, plan: &MountPlan, source: &Path, recursive: bool) -> Result<(), RootfsError> {
    let clone = if recursive {
        Detached::recursive_clone_of(CWD, source)
    } else {
        Detached::clone_of(CWD, source)
    };
    let clone = clone.map_err(|error| no_source(plan, source, error))?;
    attach_copy(root, plan, "bind", clone)
}

fn attach_copy(
    root: BorrowedFd<'_>,
    plan: &MountPlan,
    what: &str,
    copy: Detached,
) -> Result<(), RootfsError> {
    let target = target_like(root, plan, copy.as_fd())?;
    attach(plan, what, copy, target.as_fd()).map(drop)
}

/// A volume of the image: what the image has there, owner and mode included, in a directory of the container's own.
fn copied_up(
    root: BorrowedFd<'_>,
    plan: &MountPlan,
    source: &Path,
    clone: Option<Detached>,
) -> Result<(), RootfsError> {
    let clone = clone.map_or_else(|| Detached::clone_of(CWD, source), Ok);
    let volume = clone.map_err(|error| no_source(plan, source, error))?;
    let target = target::directory(root, &plan.destination)?;
    fill(plan, volume.as_fd(), target.as_fd(), true)?;
    let mode = rustix::fs::fstat(&target).map(|found| Mode::from_raw_mode(found.st_mode & 0o7777));
    mode.and_then(|mode| rustix::fs::chmodat(&volume, c".", mode, AtFlags::empty()))
        .map_err(|errno| failed(plan, "bind", errno.into()))?;
    attach(plan, "bind", volume, target.as_fd()).map(drop)
}

/// A bind mount that stays linked with the host's mounts: made in one call, so that nothing mounted there meanwhile is
/// missed. Both ends are descriptors; mount(2) wants names for them.
fn bind_linked(
    root: BorrowedFd<'_>,
    plan: &MountPlan,
    source: &Path,
    recursive: bool,
) -> Result<(), RootfsError> {
    let opened = rustix::fs::open(source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let opened = opened.map_err(|errno| no_source(plan, source, errno.into()))?;
    let target = target_like(root, plan, opened.as_fd())?;
    let name = |fd: &OwnedFd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let flags = MountFlags::BIND
        | if recursive {
            MountFlags::REC
        } else {
            MountFlags::empty()
        };
    let bound = rustix::mount::mount(name(&opened), name(&target), c"", flags, None)
        .map_err(io::Error::from)
        .and_then(|()| bound_mount(root, plan, opened.as_fd()))
        .and_then(|mount| change(mount.as_fd(), plan));
    bound.map_err(|source| failed(plan, "bind", source))
}

/// The mount that was just made at the plan's destination: looked up again, and compared with what was bound, since
/// the name may lead elsewhere by now (CVE-2021-30465).
fn bound_mount(root: BorrowedFd<'_>, plan: &MountPlan, bound: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let found = target::existing(root, &plan.destination)?;
    let (a, b) = (rustix::fs::fstat(&found)?, rustix::fs::fstat(bound)?);
    let same = a.st_dev == b.st_dev && a.st_ino == b.st_ino;
    if same {
        Ok(found)
    } else {
        Err(io::ErrorKind::StaleNetworkFileHandle.into())
    }
}

fn filesystem(
    root: BorrowedFd<'_>,
    plan: &MountPlan,
    fs_type: &str,
    source: Option<&str>,
    data: &[(String, Option<String>)],
    copies: bool,
) -> Result<(), RootfsError> {
    let context = context(plan, fs_type, source, data)?;
    let keeps_mode = fs_type == "tmpfs" && !data.iter().any(|(key, _)| key == "mode");
    // A directory that is only made here has no mode to keep; the kernel's default is 1777.
    let keeps_mode = keeps_mode && target::existing(root, &plan.destination).is_ok();
    let target = place(root, plan, fs_type)?;
    if keeps_mode {
        keep_mode(&context, target.as_fd()).map_err(bad_option(plan, fs_type, "mode"))?;
    }
    let mount = context
        .mount(Attr::empty())
        .map_err(|source| failed(plan, fs_type, source))?;
    if copies {
        let keep_owner = !data.iter().any(|(key, _)| key == "uid" || key == "gid");
        fill(plan, mount.as_fd(), target.as_fd(), keep_owner)?;
    }
    attach(plan, fs_type, mount, target.as_fd()).map(drop)
}

fn place(root: BorrowedFd<'_>, plan: &MountPlan, fs_type: &str) -> Result<OwnedFd, RootfsError> {
    match fs_type {
        "proc" | "sysfs" => target::ordinary_directory(root, &plan.destination),
        _ => target::directory(root, &plan.destination),
    }
}

/// The file system with its options, to be mounted.
pub(super) fn context(
    plan: &MountPlan,
    fs_type: &str,
    source: Option<&str>,
    data: &[(String, Option<String>)],
) -> Result<FsContext, RootfsError> {
    let context = FsContext::open(fs_type).map_err(|source| failed(plan, fs_type, source))?;
    if let Some(source) = source {
        let set = context.set("source", source);
        set.map_err(bad_option(plan, fs_type, "source"))?;
    }
    for (key, value) in data {
        let set = match value {
            Some(value) => context.set(key, value),
            None => context.set_flag(key),
        };
        set.map_err(bad_option(plan, fs_type, key))?;
    }
    Ok(context)
}

fn bad_option(plan: &MountPlan, what: &str, option: &str) -> impl FnOnce(io::Error) -> RootfsError {
    let (destination, what, option) = (plan.destination.clone(), what.to_owned(), option.to_owned());
    move |source| RootfsError::Option {
        destination,
        what,
        option,
        source,
    }
}

/// Before the mount gets its attributes: it may become read only.
fn fill(
    plan: &MountPlan,
    empty: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    keep_owner: bool,
) -> Result<(), RootfsError> {
    copy_up(target, empty, keep_owner).map_err(|failed| RootfsError::CopyUp {
        destination: plan.destination.clone(),
        path: plan.destination.join(failed.path).components().collect(),
        source: failed.source,
    })
}

/// A tmpfs without a mode of its own has that of the directory it covers (`/tmp` stays 1777), as with runc.
fn keep_mode(context: &FsContext, target: BorrowedFd<'_>) -> io::Result<()> {
    let mode = rustix::fs::fstat(target)?.st_mode & 0o7777;
    context.set("mode", &format!("{mode:o}"))
}

fn remount(root: BorrowedFd<'_>, plan: &MountPlan) -> Result<(), RootfsError> {
    let changed = target::existing(root, &plan.destination).and_then(|mount| change(mount.as_fd(), plan));
    changed.map_err(|source| failed(plan, "remount", source))
}

/// The mount point for a copy of `source`: a directory for a directory, a file for anything else.
fn target_like(
    root: BorrowedFd<'_>,
    plan: &MountPlan,
    source: BorrowedFd<'_>,
) -> Result<OwnedFd, RootfsError> {
    match beneath::is_dir(source).map_err(|error| failed(plan, "bind", error))? {
        true => target::directory(root, &plan.destination),
        false => target::file(root, &plan.destination),
    }
}

fn no_source(plan: &MountPlan, path: &Path, source: io::Error) -> RootfsError {
    RootfsError::OpenSource {
        destination: plan.destination.clone(),
        path: path.to_owned(),
        source,
    }
}
