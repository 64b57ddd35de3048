//! Cgroups of containers: v1 and hybrid hosts (cgroup v2 alone: only without limits, so far).
//!
//! ```text
//! Spec --plan--> CgroupPlan --create--> Created { Cgroup, warnings }
//!                    |          |
//!                    |          '-- driver/: who makes the directories and sets the limits
//!                    '-- controllers/: what a field of linux.resources becomes
//! ```
//!
//! How a cgroup is made, entered, emptied and removed is [`coracle_linux::cgroup`]; here is what the specification
//! wants of it.

mod controllers;
mod driver;
mod error;
mod plan;
mod setting;

pub use driver::Created;
pub use driver::cgroupfs::{create, ensure};
pub use error::SetupError;
pub use plan::{CgroupPlan, DEFAULT_PARENT, plan};

#[cfg(test)]
mod tests;
