//! File systems with options longer than fsconfig(2) takes (an overlay's `lowerdir`, NFS, CIFS, FUSE): its values end at
//! 255 bytes, where mount(2) takes a page of options in all.
//!
//! Here the mount is visible at once, so its attributes go with the call. The target is a descriptor; mount(2) wants a name
//! for it, which procfs has.

use super::attach::{change, failed};
use super::{RootfsError, target};
use crate::plan::MountPlan;
use coracle_linux::mount::{Attr, Change};
use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};
use rustix::mount::MountFlags;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// fs/fsopen.c: strndup_user(_value, 256), its end included.
const FSCONFIG_MAX: usize = 255;

/// Whether an option is too long for fsconfig(2).
pub(super) fn are_needed(data: &[(String, Option<String>)]) -> bool {
    let values = data.iter().filter_map(|(_, value)| value.as_ref());
    values.map(String::len).any(|length| length > FSCONFIG_MAX)
}

/// Makes the mount.
pub(super) fn mount(
    root: BorrowedFd<'_>,
    plan: &MountPlan,
    fs_type: &str,
    source: Option<&str>,
    data: &[(String, Option<String>)],
) -> Result<(), RootfsError> {
    let options = options(plan, data)?;
    let target = target::directory(root, &plan.destination)?;
    let name = PathBuf::from(format!("/proc/self/fd/{}", target.as_raw_fd()));
    let flags = flags(plan.attributes.set);
    rustix::mount::mount(
        source.unwrap_or(fs_type),
        &name,
        fs_type,
        flags,
        options.as_c_str(),
    )
    .map_err(io::Error::from)
    .and_then(|()| change_the_rest(root, plan, &target))
    .map_err(|source| failed(plan, fs_type, source))
}

fn options(plan: &MountPlan, data: &[(String, Option<String>)]) -> Result<CString, RootfsError> {
    let one = |(key, value): &(String, Option<String>)| match value {
        Some(value) => format!("{key}={value}"),
        None => key.clone(),
    };
    let text = data.iter().map(one).collect::<Vec<_>>().join(",");
    let most = rustix::param::page_size() - 1;
    if text.len() > most {
        return Err(RootfsError::LongOptions {
            destination: plan.destination.clone(),
            length: text.len(),
            most,
        });
    }
    CString::new(text).map_err(|error| failed(plan, "options", error.into()))
}

fn flags(attributes: Attr) -> MountFlags {
    let table = [
        (Attr::RDONLY, MountFlags::RDONLY),
        (Attr::NOSUID, MountFlags::NOSUID),
        (Attr::NODEV, MountFlags::NODEV),
        (Attr::NOEXEC, MountFlags::NOEXEC),
        (Attr::NOATIME, MountFlags::NOATIME),
        (Attr::STRICTATIME, MountFlags::STRICTATIME),
        (Attr::NODIRATIME, MountFlags::NODIRATIME),
        (Attr::NOSYMFOLLOW, MountFlags::from_bits_retain(MS_NOSYMFOLLOW)),
    ];
    let set = table
        .into_iter()
        .filter(|(attribute, _)| attributes.contains(*attribute));
    set.map(|(_, flag)| flag).collect()
}

/// What mount(2) does not do in the same call. The name may lead elsewhere by now (CVE-2021-30465): what is changed is the
/// root of a mount, and not of the one that was covered.
fn change_the_rest(root: BorrowedFd<'_>, plan: &MountPlan, target: &OwnedFd) -> io::Result<()> {
    if plan.propagation.is_none() && plan.recursive == Change::default() {
        return Ok(());
    }
    let found = target::existing(root, &plan.destination)?;
    let seen = rustix::fs::statx(&found, c"", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    let (new, covered) = (
        rustix::fs::fstat(&found)?.st_dev,
        rustix::fs::fstat(target)?.st_dev,
    );
    if !seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) || new == covered {
        return Err(io::ErrorKind::StaleNetworkFileHandle.into());
    }
    change(std::os::fd::AsFd::as_fd(&found), plan)
}

/// linux/mount.h; rustix has no name for it.
const MS_NOSYMFOLLOW: u32 = 256;
