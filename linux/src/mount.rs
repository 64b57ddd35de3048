//! The mount API by descriptor: `fsopen`, `fsconfig`, `fsmount`, `open_tree`, `mount_setattr`, `move_mount`.
//!
//! A [`Detached`] mount is one that nobody can see yet; dropping it dissolves it. Only what Linux 5.15 to 6.1 can do
//! is used: a detached mount is neither cloned nor mounted upon, and it gets its attributes before it is attached.
//!
//! # Safety
//! The only unsafe call is `mount_setattr(2)`, which rustix and nix lack.

#![allow(unsafe_code)]

use bitflags::bitflags;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

bitflags! {
    /// Attributes of one mount, as `mount_setattr(2)` spells them.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Attr: u64 {
        /// Read only.
        const RDONLY = 0x1;
        /// No set-user-id programs.
        const NOSUID = 0x2;
        /// No device nodes.
        const NODEV = 0x4;
        /// No programs.
        const NOEXEC = 0x8;
        /// Never update access times. Part of a three-valued field: clear [`Attr::ATIME_FIELD`] with it.
        const NOATIME = 0x10;
        /// Always update access times. Part of a three-valued field: clear [`Attr::ATIME_FIELD`] with it.
        const STRICTATIME = 0x20;
        /// No access times of directories.
        const NODIRATIME = 0x80;
        /// Do not follow symbolic links (5.14).
        const NOSYMFOLLOW = 0x0020_0000;
        /// The three-valued access time field; all of it zero means `relatime`.
        const ATIME_FIELD = 0x70;
    }
}

/// How mounts and unmounts spread between copies of a mount (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// Not at all.
    Private,
    /// Both ways.
    Shared,
    /// Only into this copy.
    Slave,
    /// Not at all, and it cannot be bound elsewhere.
    Unbindable,
}

/// A change of a mount's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    /// Attributes to set.
    pub set: Attr,
    /// Attributes to clear. Those another user namespace locked cannot be (`EPERM`).
    pub clear: Attr,
    /// The propagation to give it.
    pub propagation: Option<Propagation>,
}

impl Change {
    /// Whether nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A mount that is attached nowhere.
#[derive(Debug)]
pub struct Detached(OwnedFd);

impl Detached {
    /// Takes over a descriptor that is the root of a detached mount, for instance one received over a socket.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// A copy of the mount at `path` (relative to `dir`), without what is mounted below it.
    pub fn clone_of(dir: BorrowedFd<'_>, path: &Path) -> io::Result<Self> {
        Self::open_tree(dir, path, OpenTreeFlags::empty())
    }

    /// A copy of the mount at `path` (relative to `dir`) with everything mounted below it.
    pub fn recursive_clone_of(dir: BorrowedFd<'_>, path: &Path) -> io::Result<Self> {
        Self::open_tree(dir, path, OpenTreeFlags::AT_RECURSIVE)
    }

    /// Changes the attributes of this mount alone.
    pub fn change(&self, change: &Change) -> io::Result<()> {
        self::change(self.0.as_fd(), change, false)
    }

    /// Changes the attributes of this mount and all below it.
    pub fn change_all(&self, change: &Change) -> io::Result<()> {
        self::change(self.0.as_fd(), change, true)
    }

    /// Attaches it on top of the directory or file that `target` refers to. The descriptor returned is the root of
    /// the mount, now attached.
    pub fn attach(self, target: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        rustix::mount::move_mount(self.0.as_fd(), c"", target, c"", flags)?;
        Ok(self.0)
    }

    /// The descriptor of its root directory or file.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    fn open_tree(dir: BorrowedFd<'_>, path: &Path, flags: OpenTreeFlags) -> io::Result<Self> {
        let clone =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        Ok(Self(rustix::mount::open_tree(dir, path, clone | flags)?))
    }
}

impl AsFd for Detached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A file system that is being configured (`fsopen(2)`).
#[derive(Debug)]
pub struct FsContext(OwnedFd);

impl FsContext {
    /// Starts configuring a file system of this type.
    ///
    /// # Errors
    /// `ENODEV` when the kernel does not know the type.
    pub fn open(fs_type: &str) -> io::Result<Self> {
        Ok(Self(rustix::mount::fsopen(fs_type, FsOpenFlags::FSOPEN_CLOEXEC)?))
    }

    /// Sets `key=value`. The kernel takes at most 255 bytes of value.
    pub fn set(&self, key: &str, value: &str) -> io::Result<()> {
        self.explained(rustix::mount::fsconfig_set_string(self.0.as_fd(), key, value))
    }

    /// Sets the flag `key`.
    pub fn set_flag(&self, key: &str) -> io::Result<()> {
        self.explained(rustix::mount::fsconfig_set_flag(self.0.as_fd(), key))
    }

    /// Creates the file system (or finds the existing one of this configuration) and a detached mount of it.
    pub fn mount(self, attributes: Attr) -> io::Result<Detached> {
        self.explained(rustix::mount::fsconfig_create(self.0.as_fd()))?;
        let bits =
            u32::try_from(attributes.bits()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        let flags = MountAttrFlags::from_bits_retain(bits);
        Ok(Detached(rustix::mount::fsmount(
            self.0.as_fd(),
            FsMountFlags::FSMOUNT_CLOEXEC,
            flags,
        )?))
    }

    /// Adds to a failure what the kernel has to say about it.
    fn explained(&self, result: rustix::io::Result<()>) -> io::Result<()> {
        result.map_err(|errno| {
            let error = io::Error::from(errno);
            match self.message() {
                Some(message) => io::Error::new(
                    error.kind(),
                    Explained {
                        source: error,
                        message,
                    },
                ),
                None => error,
            }
        })
    }

    /// The last message the kernel left for this context, without its severity letter.
    fn message(&self) -> Option<String> {
        let mut last = None;
        let mut buffer = [0; 512];
        while let Ok(length) = rustix::io::read(self.0.as_fd(), &mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]);
            last = Some(text.trim().trim_start_matches(['e', 'w', 'i']).trim().to_owned());
        }
        last
    }
}

/// An error of the mount API with the kernel's own words.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Explained {
    source: io::Error,
    message: String,
}

/// Changes the attributes of the mount whose root `mount` is, with `all` also of every mount below it.
pub fn change(mount: BorrowedFd<'_>, change: &Change, all: bool) -> io::Result<()> {
    let attr = MountAttr {
        attr_set: change.set.bits(),
        attr_clr: change.clear.bits(),
        propagation: change.propagation.map_or(0, propagation_bits),
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if all { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the descriptor is borrowed for the call, the path is the empty NUL terminated string, and `attr` is a
    // valid struct mount_attr of the size given that outlives the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn propagation_bits(propagation: Propagation) -> u64 {
    match propagation {
        Propagation::Private => libc::MS_PRIVATE,
        Propagation::Shared => libc::MS_SHARED,
        Propagation::Slave => libc::MS_SLAVE,
        Propagation::Unbindable => libc::MS_UNBINDABLE,
    }
}

/// `struct mount_attr` of `linux/mount.h`.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}
