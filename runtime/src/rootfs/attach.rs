//! The last steps of every mount: attributes while nobody sees it, then its place.

use super::RootfsError;
use crate::plan::MountPlan;
use coracle_linux::mount::{self, Change, Detached};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Gives a detached mount its attributes and attaches it.
pub(super) fn attach(
    plan: &MountPlan,
    what: &str,
    mount: Detached,
    target: BorrowedFd<'_>,
) -> Result<OwnedFd, RootfsError> {
    let attached = change(mount.as_fd(), plan).and_then(|()| mount.attach(target));
    attached.map_err(|source| failed(plan, what, source))
}

/// Gives a mount the attributes and the propagation of its plan.
pub(super) fn change(mount: BorrowedFd<'_>, plan: &MountPlan) -> io::Result<()> {
    let propagation = |all| {
        plan.propagation
            .filter(|(_, recursive)| *recursive == all)
            .map(|(kind, _)| kind)
    };
    let this = Change {
        propagation: propagation(false),
        ..plan.attributes
    };
    let all = Change {
        propagation: propagation(true),
        ..plan.recursive
    };
    if !this.is_empty() {
        mount::change(mount, &this, false)?;
    }
    if !all.is_empty() {
        mount::change(mount, &all, true)?;
    }
    Ok(())
}

pub(super) fn failed(plan: &MountPlan, what: &str, source: io::Error) -> RootfsError {
    RootfsError::Mount {
        destination: plan.destination.clone(),
        what: what.to_owned(),
        source,
    }
}
