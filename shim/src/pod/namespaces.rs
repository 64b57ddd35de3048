//! The namespaces of the pod, and how a container comes into them.
//!
//! ```text
//!   net, ipc, uts         inherited: the shim has moved into the pod's (or has stayed in the host's) and is the
//!                         container's parent. Nothing is opened or joined for a container: the fast way.
//!   pid, mode POD         joined, by a descriptor of the init's
//!       mode CONTAINER    the container's own
//!       mode NODE         inherited: the host's
//! ```
//! A pod with a user namespace of its own cannot go the fast way: its net, ipc and uts namespaces must belong to that user
//! namespace (user_namespaces(7), "Interaction of user namespaces and other types of namespaces"), in which the shim does
//! not live. Its containers join them as they join the init's: [`Membership`] says for each kind which way it is.

use std::io;
use std::os::fd::OwnedFd;

use coracle_linux::link;
use coracle_linux::namespace::{self, Namespaces};
use coracle_linux::netlink::NetlinkError;

use super::init::{Init, InitError};
use super::plan::{PidMode, PodPlan};
use super::sysctl::{ApplyError, Sysctl};

/// Why the pod has no namespaces.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NamespacesError {
    #[error("make the pod's namespaces")]
    Unshare(#[source] io::Error),
    #[error("set the loopback interface up")]
    Loopback(#[source] NetlinkError),
    #[error("set the host name {name:?}")]
    Hostname { name: String, source: io::Error },
    #[error(transparent)]
    Sysctl(#[from] ApplyError),
}

/// How a container gets each kind of namespace that the pod decides on.
pub(crate) struct Membership {
    /// It has them by its birth, as a child of the shim.
    pub(crate) inherited: Namespaces,
    /// It enters these.
    pub(crate) joined: Vec<(Namespaces, OwnedFd)>,
    /// They are made for it alone.
    pub(crate) own: Namespaces,
}

impl Membership {
    /// Of a container of the pod with this init.
    pub(super) fn of(plan: &PodPlan, init: Option<&Init>) -> Result<Self, InitError> {
        let mut membership = Self {
            inherited: Namespaces::NET | Namespaces::IPC | Namespaces::UTS,
            joined: Vec::new(),
            own: Namespaces::empty(),
        };
        match (plan.pid, init) {
            (PidMode::Pod, Some(init)) => membership.joined.push((Namespaces::PID, init.namespace()?)),
            // Its init is there for as long as a container can be made.
            (PidMode::Pod, None) => return Err(InitError::Ended),
            (PidMode::Container, _) => membership.own |= Namespaces::PID,
            (PidMode::Node, _) => membership.inherited |= Namespaces::PID,
        }
        Ok(membership)
    }

    /// Whether the container's specification has no say in this kind.
    pub(crate) fn decides(&self, kind: Namespaces) -> bool {
        let joined = self.joined.iter().map(|(kind, _)| *kind);
        joined
            .fold(self.inherited | self.own, |all, kind| all | kind)
            .contains(kind)
    }
}

/// Moves the shim into new namespaces of the kinds that are the pod's own.
pub(super) fn make(plan: &PodPlan) -> Result<(), NamespacesError> {
    let mut own = Namespaces::empty();
    own.set(Namespaces::NET, plan.netns_path.is_some());
    own.set(Namespaces::IPC, plan.shm_size.is_some());
    own.set(Namespaces::UTS, plan.hostname.is_some());
    namespace::unshare(own).map_err(NamespacesError::Unshare)
}

/// Sets them up, from inside.
pub(super) fn set_up(plan: &PodPlan) -> Result<(), NamespacesError> {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).map_err(|errno| NamespacesError::Hostname {
            name: name.clone(),
            source: errno.into(),
        })?;
    }
    if plan.netns_path.is_some() {
        link::lo_up().map_err(NamespacesError::Loopback)?;
        for sysctl in Sysctl::of_every_network() {
            sysctl.apply()?;
        }
    }
    for sysctl in &plan.sysctls {
        sysctl.apply()?;
    }
    Ok(())
}

/// Those of interfaces, from inside too.
pub(super) fn set_up_interfaces(plan: &PodPlan) -> Result<(), NamespacesError> {
    for sysctl in &plan.interface_sysctls {
        sysctl.apply()?;
    }
    Ok(())
}
