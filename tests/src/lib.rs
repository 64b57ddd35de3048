//! What the black-box tests share.

pub mod bundle;
pub mod busybox;
pub mod cgroup;
pub mod process;
pub mod program;
pub mod wait;
