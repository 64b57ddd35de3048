//! One file for each controller: its fields of `linux.resources` become writes to its control files.

pub(super) mod blkio;
pub(super) mod cpu;
pub(super) mod cpuset;
pub(super) mod devices;
pub(super) mod hugetlb;
pub(super) mod memory;
pub(super) mod network;
pub(super) mod pids;
pub(super) mod rdma;
