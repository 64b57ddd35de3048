//! Who makes a container's cgroup: this process by writing to the cgroup file system, as every host allows, or one day
//! systemd on its behalf.
//!
//! A driver answers two calls. `create` makes a cgroup that must be empty and not frozen, `ensure` one that may be in
//! use (a pod's, that of the shims). Both take a [`CgroupPlan`](super::CgroupPlan), which is pure and of no driver, and
//! give a [`Created`]; when they fail, nothing is left behind. From there on a driver is not asked any more: entering,
//! freezing, emptying and removing a cgroup is the same whoever made it. A driver that has to wait for another process
//! must not do that inside of `create`, which is called between a clone and what it waits for: it is a step of the
//! container's creation that is asked again until it is done.

pub(super) mod cgroupfs;

use coracle_linux::cgroup::Cgroup;

/// A cgroup that was made.
#[derive(Debug)]
pub struct Created {
    /// The cgroup.
    pub cgroup: Cgroup,
    /// What could not be honoured without being an error, to be logged once.
    pub warnings: Vec<String>,
}
