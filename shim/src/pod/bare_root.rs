//! A mount namespace that holds nothing but one file system of ours.
//!
//! Used twice: for the pod's mount namespace, where shared mounts live, and for the pod's init. Whoever gets hold of such
//! a namespace finds no file of the host in it, and it keeps no mount of the host busy.

use std::io;
use std::os::fd::AsFd;

use coracle_linux::mount::{self, Change, Detached, Propagation};
use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;

/// Makes `root` the root of this process's mount namespace, which must be new (a copy of its own), and drops all other
/// mounts of it.
pub(crate) fn enter(root: Detached) -> io::Result<()> {
    let host = rustix::fs::open(
        "/",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    // Else the unmount below would spread to the host where its mounts are shared.
    let private = Change {
        propagation: Some(Propagation::Private),
        ..Change::default()
    };
    mount::change(host.as_fd(), &private, true)?;
    let root = root.attach(host.as_fd())?;
    rustix::process::fchdir(&root)?;
    // Both "." : the old root lands on top of the new one and is taken off from there (pivot_root(2), NOTES).
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}
