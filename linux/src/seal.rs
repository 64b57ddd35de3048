//! Running from a program image that nobody can write (CVE-2019-5736).
//!
//! While our code runs inside a container's namespaces, before the payload replaces it, `/proc/PID/exe` there is our
//! own program file on the host. And a payload named `/proc/self/exe` makes the kernel run that file again as the
//! payload. So the running image must be one through which the host's file cannot be opened for writing.
//!
//! ```text
//! exec of /usr/bin/coracle -> reexec_sealed(): copy of the mount of /usr/bin, detached, read only
//!                          -> execveat(copy/coracle, same arguments) -> reexec_sealed(): sealed, goes on
//! ```
//! The copy costs 0.3 ms, nearly all of it the execve, and no memory: pages are shared with the file. As long as any
//! process held a descriptor of it, a user namespace inside the container could make it writable again (measured on
//! 6.18); ours is close-on-exec and the only one, so by the time anything of the program runs the copy is dissolved, and
//! nobody can change it any more. Where the mount cannot be copied, a read-only overlay of the directory does the same
//! for a little more. A copy of the program in a memfd would cost its size for every pod.

use crate::mount::{Attr, Change, Detached, FsContext};
use crate::process;
use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags};
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A failure to run from a sealed image.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// `/proc/self/exe` cannot be read.
    #[error("looking at our own program file through /proc/self/exe")]
    FindProgram(#[source] io::Error),
    /// The program's directory can neither be copied nor overlaid.
    #[error("making a read-only view of the directory of {path}")]
    Directory {
        /// The program's file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The sealed program cannot be run.
    #[error("running {path} from its read-only directory")]
    Execute {
        /// The program's file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes sure this process runs from an image that cannot be written, by running the program once more from a
/// read-only directory with the same arguments and environment. Call it first in `main`: what the process did before
/// is done again. Returns when the image is sealed, or when the caller lacks the privilege to mount (then it also
/// lacks the privilege to write to a host program it does not own).
pub fn reexec_sealed() -> Result<(), SealError> {
    if is_sealed()? || !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let path = std::fs::read_link("/proc/self/exe").map_err(SealError::FindProgram)?;
    let directory = match sealed_directory(&path) {
        Ok(directory) => directory,
        // Without CAP_SYS_ADMIN, as in a container of its own.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        Err(source) => return Err(SealError::Directory { path, source }),
    };
    let args: Vec<CString> = std::env::args_os()
        .filter_map(|arg| CString::new(arg.into_vec()).ok())
        .collect();
    let env: Vec<CString> = std::env::vars_os()
        .filter_map(|(key, value)| variable(&key, &value))
        .collect();
    let name = path
        .file_name()
        .map(OsStr::as_bytes)
        .and_then(|name| CString::new(name).ok())
        .unwrap_or_default();
    match process::execveat(directory.as_fd(), &name, &args, &env) {
        Err(source) => Err(SealError::Execute { path, source }),
        Ok(never) => match never {},
    }
}

/// Whether the image this process runs from lies on a file system that is mounted read only.
pub fn is_sealed() -> Result<bool, SealError> {
    let find = |errno: rustix::io::Errno| SealError::FindProgram(errno.into());
    let exe =
        rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(find)?;
    let flags = rustix::fs::fstatvfs(&exe).map_err(find)?.f_flag;
    Ok(flags.contains(StatVfsMountFlags::RDONLY))
}

/// A detached, read-only view of the directory in which the program `path` lies.
fn sealed_directory(path: &Path) -> io::Result<Detached> {
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    match Detached::clone_of(CWD, directory) {
        Ok(copy) => {
            copy.change(&Change {
                set: Attr::RDONLY,
                ..Change::default()
            })?;
            Ok(copy)
        }
        // It lies in another mount namespace, or on a mount that must not be seen without what covers it.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => overlay_of(directory),
        Err(error) => Err(error),
    }
}

/// A detached overlay without an upper directory, which wants two lower ones: the directory, and an empty one. They are
/// named by descriptor: option strings end at 256 bytes, and names with `:` or `,` need no escaping.
fn overlay_of(directory: &Path) -> io::Result<Detached> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty())?;
    let empty = FsContext::open("tmpfs")?.mount(Attr::RDONLY)?;
    let overlay = FsContext::open("overlay")?;
    let (directory, empty) = (directory.as_raw_fd(), empty.as_fd().as_raw_fd());
    overlay.set(
        "lowerdir",
        &format!("/proc/self/fd/{directory}:/proc/self/fd/{empty}"),
    )?;
    overlay.mount(Attr::RDONLY | Attr::NOSUID | Attr::NODEV)
}

fn variable(key: &OsStr, value: &OsStr) -> Option<CString> {
    CString::new([key.as_bytes(), b"=", value.as_bytes()].concat()).ok()
}
