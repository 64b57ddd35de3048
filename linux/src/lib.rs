//! Turns kernel interfaces into safe, typed Rust; the only crate where unsafe code is allowed.
//!
//! One module per kernel interface, named with the kernel's word. What rustix or nix wrap already is used from
//! there; this crate adds what they lack (clone3, mount_setattr, close_range, execveat) and the few compositions
//! that must be right in one place: lookups beneath a root, descriptors over sockets, the sealed program image.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod beneath;
pub mod bump;
pub mod cgroup;
pub mod inherit;
pub mod keyring;
pub mod link;
pub mod mount;
pub mod mountinfo;
pub mod namespace;
pub mod netlink;
pub mod pidfd;
pub mod prctl;
pub mod process;
pub mod scheduler;
pub mod seal;
pub mod seccomp;
pub mod shared_page;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod tree;
