//! The root file system of a container, assembled in its own mount namespace.
//!
//! ```text
//! maker:
//!     prepare()   only with a user namespace: copies of what the container's user may not reach
//! first process:
//!     "/" of the copied namespace stops telling the host about its mounts
//!     the root is attached at root.path        <- from here on only descriptors beneath it are used
//!     mounts in order, devices, console        <- each made detached, attributes set, then attached
//!     hooks of the runtime, hooks of the container
//!     pivot(): it becomes "/", the host's tree is let go
//!     finish(): names in /proc and /sys are masked or made read only, the root too if it is to be
//! ```
//! Every target is looked up once, beneath the root, into a descriptor; see [`coracle_linux::beneath`].

mod attach;
mod cgroups;
pub(crate) mod console;
mod copy_up;
mod devices;
mod error;
mod filesystem;
mod lent;
mod long_options;
mod mask;
mod prepare;
mod root;
pub(crate) mod sysctl;
mod target;

pub use error::RootfsError;
pub(crate) use prepare::{Prepared, prepare};
pub(crate) use root::Root;
