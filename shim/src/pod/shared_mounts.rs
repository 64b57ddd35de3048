//! What the containers of a pod share by mount: `/dev/shm`.
//!
//! ```text
//!   pod mount namespace (held by this descriptor alone)      container's mount namespace
//!     /        empty tmpfs, no host mount                       /dev/shm  <- move_mount(clone)
//!     /shm     tmpfs of shm_size  --open_tree(CLONE)--> clone ------^
//! ```
//! Only an attached mount can be cloned on 6.1, and only from within its namespace; so the shim enters the pod's mount
//! namespace for one call and comes back. Nothing is ever mounted on the host, and the shim keeps no copy of the host's
//! mount namespace.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use coracle_linux::mount::{Attr, Detached, FsContext};
use coracle_linux::namespace::{self, Namespaces};
use rustix::fs::{CWD, Mode, OFlags};

use super::bare_root;

/// The pod's mount namespace.
pub(crate) struct SharedMounts {
    namespace: OwnedFd,
}

/// What failed about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SharedMountsError {
    #[error("make the pod's mount namespace")]
    Make(#[source] io::Error),
    #[error("make /dev/shm of {size} bytes")]
    MakeShm { size: u64, source: io::Error },
    #[error("clone /dev/shm of the pod")]
    Clone(#[source] io::Error),
    /// From here on paths mean nothing any more.
    #[error("return to the host's mount namespace")]
    Return(#[source] io::Error),
}

impl SharedMounts {
    /// Makes the namespace with a `/dev/shm` of `shm_size` bytes in it.
    pub(crate) fn make(shm_size: u64) -> Result<Self, SharedMountsError> {
        let namespace = away(SharedMountsError::Make, || {
            namespace::unshare(Namespaces::MNT).map_err(SharedMountsError::Make)?;
            let namespace = namespace::open(OWN.as_ref()).map_err(SharedMountsError::Make)?;
            bare_root::enter(small_tmpfs().map_err(SharedMountsError::Make)?)
                .map_err(SharedMountsError::Make)?;
            make_shm(shm_size).map_err(|source| SharedMountsError::MakeShm {
                size: shm_size,
                source,
            })?;
            Ok(namespace)
        })?;
        Ok(Self { namespace })
    }

    /// A detached copy of the pod's /dev/shm, to be attached in a container.
    pub(crate) fn clone_shm(&self) -> Result<OwnedFd, SharedMountsError> {
        away(SharedMountsError::Clone, || {
            namespace::enter(self.namespace.as_fd(), Namespaces::MNT).map_err(SharedMountsError::Clone)?;
            let clone = Detached::clone_of(CWD, "/shm".as_ref()).map_err(SharedMountsError::Clone)?;
            Ok(clone.into_fd())
        })
    }
}

/// Runs `work`, which leaves the mount namespace, and comes back whatever happens.
fn away<T>(
    failed: impl FnOnce(io::Error) -> SharedMountsError,
    work: impl FnOnce() -> Result<T, SharedMountsError>,
) -> Result<T, SharedMountsError> {
    let host = namespace::open(OWN.as_ref()).map_err(failed)?;
    let result = work();
    namespace::enter(host.as_fd(), Namespaces::MNT).map_err(SharedMountsError::Return)?;
    result
}

/// A root with room for a few directories.
fn small_tmpfs() -> io::Result<Detached> {
    let tmpfs = FsContext::open("tmpfs")?;
    tmpfs.set("mode", "0755")?;
    tmpfs.set("nr_inodes", "8")?;
    tmpfs.mount(Attr::NOSUID | Attr::NODEV | Attr::NOEXEC)
}

fn make_shm(size: u64) -> io::Result<()> {
    rustix::fs::mkdir("/shm", Mode::RWXU)?;
    let at = rustix::fs::open(
        "/shm",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let tmpfs = FsContext::open("tmpfs")?;
    tmpfs.set("mode", "1777")?;
    tmpfs.set("size", &size.to_string())?;
    tmpfs.set("source", "shm")?;
    tmpfs
        .mount(Attr::NOSUID | Attr::NODEV | Attr::NOEXEC)?
        .attach(at.as_fd())?;
    Ok(())
}

const OWN: &str = "/proc/thread-self/ns/mnt";
