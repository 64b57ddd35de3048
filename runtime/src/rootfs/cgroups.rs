//! The container's /sys/fs/cgroup.
//!
//! On cgroup v1 and hybrid there is no one file system to mount: a tmpfs with one directory per hierarchy does it. With
//! a cgroup namespace each directory is a mount of the hierarchy, whose root is then the container's own cgroup;
//! without, a bind mount of that cgroup's directory on the host. On pure v2 it is the one file system, or a bind.

use super::attach::{attach, failed};
use super::{RootfsError, target};
use crate::plan::{MountKind, MountPlan};
use coracle_linux::beneath;
use coracle_linux::cgroup::{Cgroup, Layout};
use coracle_linux::mount::{self, Attr, Change, Detached, FsContext};
use rustix::fs::CWD;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

pub(super) fn mount(
    root: BorrowedFd<'_>,
    plan: &MountPlan,
    cgroup: &Cgroup,
    own_namespace: bool,
) -> Result<(), RootfsError> {
    let target = target::directory(root, &plan.destination)?;
    if cgroup.layout().is_v2_only() {
        return unified(plan, cgroup, target.as_fd());
    }
    let wrong = |source| failed(plan, "cgroup", source);
    // Read only comes last: the directories are still to be made.
    let writable = MountPlan {
        destination: plan.destination.clone(),
        kind: MountKind::Cgroup,
        attributes: Change {
            set: plan.attributes.set.difference(Attr::RDONLY),
            ..plan.attributes
        },
        recursive: plan.recursive,
        propagation: None,
    };
    let tmpfs = FsContext::open("tmpfs").and_then(|context| {
        context.set("source", "tmpfs")?;
        context.set("mode", "755")?;
        context.mount(Attr::empty())
    });
    let top = attach(&writable, "cgroup", tmpfs.map_err(wrong)?, target.as_fd())?;
    let attributes = plan.attributes.set;
    for (name, host_path) in cgroup.paths().into_iter().filter(|(name, _)| !name.is_empty()) {
        let made = hierarchy(
            top.as_fd(),
            cgroup.layout(),
            &name,
            &host_path,
            attributes,
            own_namespace,
        );
        made.map_err(|source| failed(plan, &format!("cgroup {name}"), source))?;
    }
    if plan.attributes.set.contains(Attr::RDONLY) {
        let change = Change {
            set: Attr::RDONLY,
            ..Change::default()
        };
        mount::change(top.as_fd(), &change, false).map_err(wrong)?;
    }
    Ok(())
}

/// One hierarchy, and a link for each of its controllers when it has several.
fn hierarchy(
    top: BorrowedFd<'_>,
    layout: &Layout,
    name: &str,
    host_path: &Path,
    attributes: Attr,
    own_namespace: bool,
) -> io::Result<()> {
    // A hierarchy without controllers is called `name=systemd` and mounted at `systemd`.
    let name_of_dir = name.strip_prefix("name=").unwrap_or(name);
    let place = beneath::ensure_dir(top, Path::new(name_of_dir), 0o755)?;
    let own_view = own_namespace.then(|| hierarchy_of(layout, name)).flatten();
    let mounted: OwnedFd = match own_view {
        Some(controllers) => {
            let context = FsContext::open("cgroup")?;
            context.set("source", "cgroup")?;
            for controller in controllers {
                match controller.split_once('=') {
                    Some((key, value)) => context.set(key, value)?,
                    None => context.set_flag(controller)?,
                }
            }
            context.mount(attributes)?.attach(place.as_fd())?
        }
        None => {
            let clone = Detached::recursive_clone_of(CWD, host_path)?;
            clone.change_all(&Change {
                set: attributes,
                ..Change::default()
            })?;
            clone.attach(place.as_fd())?
        }
    };
    drop(mounted);
    for controller in name.split(',').filter(|controller| *controller != name) {
        match rustix::fs::symlinkat(name, top, controller) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn hierarchy_of<'l>(layout: &'l Layout, name: &str) -> Option<&'l [String]> {
    layout
        .v1
        .iter()
        .find(|hierarchy| hierarchy.name() == name)
        .map(|hierarchy| hierarchy.controllers.as_slice())
}

/// A container without the right to mount it (in a user namespace without a cgroup namespace) gets its own directory.
fn unified(plan: &MountPlan, cgroup: &Cgroup, target: BorrowedFd<'_>) -> Result<(), RootfsError> {
    let mounted = FsContext::open("cgroup2").and_then(|context| context.mount(Attr::empty()));
    let own = || {
        let paths = cgroup.paths();
        let path = paths
            .iter()
            .find(|(name, _)| name.is_empty())
            .map(|(_, path)| path.clone());
        Detached::recursive_clone_of(CWD, &path.ok_or(io::ErrorKind::NotFound)?)
    };
    let mounted = mounted
        .or_else(|_| own())
        .map_err(|source| failed(plan, "cgroup2", source))?;
    attach(plan, "cgroup2", mounted, target).map(drop)
}
