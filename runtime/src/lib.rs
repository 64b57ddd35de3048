//! The OCI runtime as a library: a bundle becomes a container.
//!
//! ```text
//! CreateRequest --plan()--> Plan --spawn()--> Creating --step()...--> Container --start()--> Starting --step()...
//! ```
//! `plan` is pure: everything that can be wrong with a request is found there, and the error names the field. `spawn`
//! makes the container's first process and returns at once; nothing after it blocks either: a caller polls the
//! descriptor of what it holds ([`Creating`], [`Starting`], [`HookRun`]) and calls `step` when it is readable, until that
//! is [`Poll::Ready`](std::task::Poll::Ready). The command line does that with poll(2), the shim with its executor.
//!
//! The calling process must have a single thread: making a container is a fork.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod cgroup;
pub mod create;
pub mod exec;
pub mod features;
pub mod hooks;
mod id;
mod identity;
mod payload;
pub mod plan;
mod rootfs;
pub mod seccomp;
pub mod spec;
pub mod state;

pub use create::{Container, CreateError, Creating, StartError, Starting, spawn};
pub use hooks::HookRun;
pub use id::{ContainerId, IdError};
pub use identity::IdentityError;
pub use plan::{
    CreateOptions, CreateRequest, DetachedMount, Gate, Plan, PlanError, RootSource, Stdio, plan, root_path,
};
pub use rootfs::RootfsError;
