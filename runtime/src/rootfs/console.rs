//! The container's terminal: a pty of its own devpts, so that its name means the same inside.

use super::RootfsError;
use coracle_linux::beneath;
use coracle_linux::mount::Detached;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::termios::Winsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Both ends of a terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// The end of whoever looks at it.
    pub(crate) master: OwnedFd,
    /// The container's end.
    pub(crate) slave: OwnedFd,
}

/// Opens a new terminal of the devpts that is mounted in the container, of this size in rows and columns, and binds it
/// at /dev/console.
pub(crate) fn open(root: BorrowedFd<'_>, size: Option<(u16, u16)>) -> Result<Terminal, RootfsError> {
    let terminal = pair(root, size)?;
    bind_console(root, &terminal)?;
    Ok(terminal)
}

/// Opens a new terminal of the devpts that is mounted in the container.
pub(crate) fn pair(root: BorrowedFd<'_>, size: Option<(u16, u16)>) -> Result<Terminal, RootfsError> {
    let master = open_master(root)?;
    let failed = |doing| {
        move |errno: rustix::io::Errno| RootfsError::Console {
            doing,
            source: errno.into(),
        }
    };
    rustix::pty::unlockpt(&master).map_err(failed("unlocking it"))?;
    let flags =
        rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY | rustix::pty::OpenptFlags::CLOEXEC;
    // By descriptor, not by name: the names in /dev/pts are the image's to fake (CVE-2025-52565).
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).map_err(failed("opening its other end"))?;
    if let Some((rows, columns)) = size.filter(|(rows, columns)| *rows > 0 || *columns > 0) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&slave, size).map_err(failed("setting its size"))?;
    }
    Ok(Terminal { master, slave })
}

/// Opens the multiplexer of the devpts at `/dev/pts`. In a devpts that name means nothing else, and no link and no other
/// mount is followed to it: nothing that is not the multiplexer is opened, for that alone can have effects.
fn open_master(root: BorrowedFd<'_>) -> Result<OwnedFd, RootfsError> {
    let failed = |source| RootfsError::Console {
        doing: "opening /dev/pts/ptmx",
        source,
    };
    let errno = |errno: rustix::io::Errno| failed(errno.into());
    let dir = beneath::open(root, Path::new("/dev/pts"), OFlags::PATH | OFlags::DIRECTORY).map_err(failed)?;
    if rustix::fs::fstatfs(&dir).map_err(errno)?.f_type != DEVPTS_SUPER_MAGIC {
        return Err(RootfsError::FakePtmx);
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = match beneath::open_strict(dir.as_fd(), Path::new("ptmx"), flags) {
        Err(error) if error.raw_os_error() == Some(libc::EXDEV) => return Err(RootfsError::FakePtmx),
        opened => opened.map_err(failed)?,
    };
    let stat = rustix::fs::fstat(&master).map_err(errno)?;
    let is_ptmx = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_ino == PTMX_INODE
        && stat.st_rdev == rustix::fs::makedev(5, 2);
    is_ptmx.then_some(master).ok_or(RootfsError::FakePtmx)
}

fn bind_console(root: BorrowedFd<'_>, terminal: &Terminal) -> Result<(), RootfsError> {
    let failed = |source| RootfsError::Console {
        doing: "binding it at /dev/console",
        source,
    };
    let (parent, name) = beneath::ensure_parent(root, Path::new("/dev/console"), 0o755).map_err(failed)?;
    let errno = |errno: rustix::io::Errno| failed(errno.into());
    let flags = OFlags::CREATE
        | OFlags::RDONLY
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::NOCTTY
        | OFlags::CLOEXEC;
    match rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o600)) {
        // A device of the image cannot be opened, perhaps; it can be covered.
        Ok(_)
        | Err(
            rustix::io::Errno::NXIO
            | rustix::io::Errno::IO
            | rustix::io::Errno::ACCESS
            | rustix::io::Errno::PERM,
        ) => {}
        Err(other) => return Err(errno(other)),
    }
    let target = rustix::fs::openat(
        &parent,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let target = target.map_err(errno)?;
    let clone = Detached::clone_of(terminal.slave.as_fd(), Path::new("")).map_err(failed)?;
    clone.attach(target.as_fd()).map(drop).map_err(failed)
}

const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
/// `ptmx` is always the second inode of a devpts (fs/devpts/inode.c).
const PTMX_INODE: u64 = 2;
