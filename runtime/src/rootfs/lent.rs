//! File systems that show a joined namespace, for a container with a user namespace of its own: its root has no rights over
//! the namespace, and may not mount them (sysfs of a network, mqueue of an ipc, proc of a PID namespace). Somebody who may
//! makes them, as detached mounts.
//!
//! ```text
//!  maker                                  a process of an instant
//!   clone (born in the PID namespace) --> setns(network, ipc)
//!                                         fsopen, fsmount
//!   collects it  <----------------------- number of the mount, descriptor; or what failed
//! ```

use super::{RootfsError, filesystem};
use crate::plan::{MountKind, MountPlan, Plan};
use coracle_linux::mount::{Attr, Detached};
use coracle_linux::namespace::{self, Namespaces};
use coracle_linux::process::{self, Clone};
use coracle_linux::socket;
use std::error::Error;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The mounts of the plan that have to be lent, by their number in it.
pub(super) fn mounts(
    plan: &Plan,
    joined: &[(Namespaces, OwnedFd)],
) -> Result<Vec<(usize, Detached)>, RootfsError> {
    let wanted: Vec<usize> = (0..plan.mounts.len())
        .filter(|index| {
            shows(&plan.mounts[*index]).is_some_and(|kind| joined.iter().any(|(own, _)| *own == kind))
        })
        .collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |doing| move |source| RootfsError::Lend { doing, source };
    let (ours, theirs) = socket::message_pair().map_err(failed("a socket"))?;
    let visit = joined.iter().find(|(kind, _)| *kind == Namespaces::PID);
    let home = visit
        .map(|(_, other)| born_in(other.as_fd()))
        .transpose()
        .map_err(failed("entering the PID namespace"))?;
    let child = process::clone(&Clone::default(), || lend(plan, &wanted, joined, theirs.as_fd()));
    if let Some(home) = home {
        namespace::enter(home.as_fd(), Namespaces::PID).map_err(failed("leaving the PID namespace"))?;
    }
    let child = child.map_err(failed("making a process"))?;
    drop(theirs);
    process::wait(child.pidfd.as_fd()).map_err(failed("waiting for the process"))?;
    wanted
        .iter()
        .map(|index| received(*index, ours.as_fd()))
        .collect()
}

/// The kind of namespace that a file system shows.
fn shows(mount: &MountPlan) -> Option<Namespaces> {
    let MountKind::Filesystem { fs_type, .. } = &mount.kind else {
        return None;
    };
    match fs_type.as_str() {
        "sysfs" => Some(Namespaces::NET),
        "mqueue" => Some(Namespaces::IPC),
        "proc" => Some(Namespaces::PID),
        _ => None,
    }
}

/// Makes the next child one of this PID namespace; gives the own one.
fn born_in(other: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let home = namespace::open(Path::new("/proc/self/ns/pid"))?;
    namespace::enter(other, Namespaces::PID)?;
    Ok(home)
}

fn lend(plan: &Plan, wanted: &[usize], joined: &[(Namespaces, OwnedFd)], socket: BorrowedFd<'_>) -> u8 {
    let entered = joined
        .iter()
        .filter(|(kind, _)| [Namespaces::NET, Namespaces::IPC].contains(kind))
        .try_for_each(|(kind, fd)| namespace::enter(fd.as_fd(), *kind))
        .map_err(|source| RootfsError::Lend {
            doing: "entering a namespace",
            source,
        });
    let lent = entered.and_then(|()| {
        wanted
            .iter()
            .try_for_each(|index| lend_one(&plan.mounts[*index], socket))
    });
    if let Err(error) = &lent {
        let error: &(dyn Error + 'static) = error;
        let causes = std::iter::successors(Some(error), |&error| error.source());
        let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        let _ = socket::send(socket, text.as_bytes(), &[]);
    }
    u8::from(lent.is_err())
}

fn lend_one(plan: &MountPlan, socket: BorrowedFd<'_>) -> Result<(), RootfsError> {
    let MountKind::Filesystem {
        fs_type,
        source,
        data,
        ..
    } = &plan.kind
    else {
        return Ok(());
    };
    let mount = filesystem::context(plan, fs_type, source.as_deref(), data)?.mount(Attr::empty());
    let sent = mount.and_then(|mount| socket::send(socket, b"m", &[mount.as_fd()]));
    sent.map_err(|source| super::attach::failed(plan, fs_type, source))
}

fn received(index: usize, socket: BorrowedFd<'_>) -> Result<(usize, Detached), RootfsError> {
    let mut buffer = [0; 4096];
    let received = socket::receive(socket, &mut buffer, false).map_err(|source| RootfsError::Lend {
        doing: "its answer",
        source,
    })?;
    let mut fds = received.fds;
    match fds.pop() {
        Some(fd) => Ok((index, Detached::from_fd(fd))),
        None => {
            let text = buffer.get(..received.length).unwrap_or_default();
            Err(RootfsError::Lent(String::from_utf8_lossy(text).into_owned()))
        }
    }
}
