//! What the black-box tests share.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Only tests use this: what goes wrong here is a failed test.

pub mod bundle;
pub mod busybox;
pub mod cgroup;
pub mod process;
pub mod program;
pub mod wait;
