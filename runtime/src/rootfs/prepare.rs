//! What the maker does for a container whose user may not reach the files it is given: with a user namespace, the
//! first process is nobody on the host, and `/var/lib/...` is closed to it. The maker takes detached copies; the
//! process inherits their descriptors.

use super::RootfsError;
use crate::plan::{MountKind, MountPlan, Plan, RootSource};
use coracle_linux::mount::{Change, Detached, Propagation};
use rustix::fs::CWD;
use rustix::thread::{self, CapabilitySet};

/// Detached copies, one place per mount of the plan.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) root: Option<Detached>,
    pub(crate) binds: Vec<Option<Detached>>,
}

/// Takes the copies that are needed: without a user namespace none, and none when the maker may not take any. Then it is
/// no more than its container's root is, who binds what both can reach.
pub(crate) fn prepare(plan: &Plan) -> Result<Prepared, RootfsError> {
    if !(plan.namespaces.has_user() && may_mount()) {
        return Ok(Prepared {
            root: None,
            binds: plan.mounts.iter().map(|_| None).collect(),
        });
    }
    Ok(Prepared {
        root: root(plan)?,
        binds: plan.mounts.iter().map(bind).collect::<Result<_, _>>()?,
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
    } = &mount.kind
    else {
        return Ok(None);
    };
    let clone = if *recursive {
        Detached::recursive_clone_of(CWD, path)
    } else {
        Detached::clone_of(CWD, path)
    };
    clone.map(Some).map_err(|source| RootfsError::OpenSource {
        destination: mount.destination.clone(),
        path: path.clone(),
        source,
    })
}
