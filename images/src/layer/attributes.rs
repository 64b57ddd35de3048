//! Gives files the attributes of their archive entries.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::failure::{ApplyError, call};
use super::notes::Notes;
use super::plan::{XattrRule, xattr_rule};
use super::tar_stream::{Entry, Kind, lossy};

/// Owner, mode, extended attributes. In this order: chown(2) clears set-user-id bits and `security.capability`.
pub(super) fn set_attributes(entry: &Entry, fd: BorrowedFd<'_>, notes: &mut Notes) -> Result<(), ApplyError> {
    let (uid, gid) = (
        rustix::fs::Uid::from_raw(entry.uid),
        rustix::fs::Gid::from_raw(entry.gid),
    );
    rustix::fs::fchown(fd, Some(uid), Some(gid)).map_err(call(entry, "chown"))?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).map_err(call(entry, "chmod"))?;
    for (name, value) in &entry.xattrs {
        let left_out = match xattr_rule(name) {
            XattrRule::Set => match rustix::fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()) {
                // What the filesystem lacks, or the kernel does not take: losing it is better than refusing the image.
                Err(
                    Errno::NOTSUP | Errno::PERM | Errno::ACCESS | Errno::INVAL | Errno::RANGE | Errno::TOOBIG,
                ) => true,
                other => other.map(|()| false).map_err(call(entry, "setxattr"))?,
            },
            XattrRule::Label => false,
            XattrRule::LeaveOut => true,
        };
        if left_out {
            notes.add("extended attributes", || {
                format!("{} of {}", lossy(name), entry.name())
            });
        }
    }
    Ok(())
}

/// Owner, mode and times of what cannot be opened without side effects.
pub(super) fn set_node_attributes(entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Result<(), ApplyError> {
    let (uid, gid) = (
        rustix::fs::Uid::from_raw(entry.uid),
        rustix::fs::Gid::from_raw(entry.gid),
    );
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(call(entry, "chown"))?;
    if entry.kind != Kind::Symlink {
        // Follows links, but the name was just made by us and nobody else writes here.
        rustix::fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
            .map_err(call(entry, "chmod"))?;
    }
    rustix::fs::utimensat(parent, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(call(entry, "utimens"))
}

pub(super) fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
