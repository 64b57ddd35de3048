//! What the maker does for a container whose user may not reach the files it is given: with a user namespace, the
//! first process is nobody on the host, and `/var/lib/...` is closed to it. The maker takes detached copies; the
//! process inherits their descriptors.

use super::{RootfsError, lent};
use crate::plan::{MountKind, MountPlan, Plan, RootSource};
use coracle_linux::mount::{Change, Detached, Propagation};
use coracle_linux::namespace::Namespaces;
use rustix::fs::CWD;
use rustix::thread::{self, CapabilitySet};
use std::io;
use std::os::fd::OwnedFd;

/// Detached copies, one place per mount of the plan.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) root: Option<Detached>,
    pub(crate) mounts: Vec<Option<Detached>>,
}

/// Takes the copies that are needed: without a user namespace none, and none when the maker may not take any. Then it is
/// no more than its container's root is, who binds what both can reach.
/// `joined` are the namespaces that it will join.
pub(crate) fn prepare(plan: &Plan, joined: &[(Namespaces, OwnedFd)]) -> Result<Prepared, RootfsError> {
    if !(plan.namespaces.has_user() && may_mount()) {
        return Ok(Prepared {
            root: None,
            mounts: plan.mounts.iter().map(|_| None).collect(),
        });
    }
    let mut mounts = plan.mounts.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
    if plan.namespaces.new.contains(Namespaces::USER) {
        for (index, lent) in lent::mounts(plan, joined)? {
            mounts[index] = Some(lent);
        }
    }
    Ok(Prepared {
        root: root(plan)?,
        mounts,
    })
}

fn may_mount() -> bool {
    thread::capabilities(None).is_ok_and(|held| held.effective.contains(CapabilitySet::SYS_ADMIN))
}

fn root(plan: &Plan) -> Result<Option<Detached>, RootfsError> {
    let RootSource::Path(path) = &plan.root.source else {
        return Ok(None);
    };
    let failed = |source| RootfsError::AttachRoot {
        path: path.clone(),
        source,
    };
    let clone = Detached::recursive_clone_of(CWD, path).map_err(failed)?;
    cut_off(&clone).map_err(failed)?;
    clone
        .change(&Change {
            propagation: Some(Propagation::Private),
            ..Change::default()
        })
        .map_err(failed)?;
    Ok(Some(clone))
}

fn bind(mount: &MountPlan) -> Result<Option<Detached>, RootfsError> {
    let MountKind::Bind {
        source: path,
        recursive,
        ..
    } = &mount.kind
    else {
        return Ok(None);
    };
    let clone = if *recursive {
        Detached::recursive_clone_of(CWD, path)
    } else {
        Detached::clone_of(CWD, path)
    };
    let wrong = |source| RootfsError::OpenSource {
        destination: mount.destination.clone(),
        path: path.clone(),
        source,
    };
    let clone = clone.map_err(wrong)?;
    if mount.propagation.is_none() {
        cut_off(&clone).map_err(wrong)?;
    }
    Ok(Some(clone))
}

/// A copy of a shared mount (and systemd shares all of them) is a peer of the host's: what is mounted on it in the
/// container, as the cgroups are on a bound `/sys`, would appear on the host. It follows the host, as every bind mount
/// does whose propagation is not given.
fn cut_off(clone: &Detached) -> io::Result<()> {
    clone.change_all(&Change {
        propagation: Some(Propagation::Slave),
        ..Change::default()
    })
}
