//! The v1 controllers cpuacct and memory (kernel: Documentation/admin-guide/cgroup-v1).

use std::path::Path;

use super::super::CgroupError;
use super::super::files::{read, read_number, value};
use super::Memory;

/// v1 shows "no limit" as the largest multiple of the page size; no machine has half of that.
const NO_LIMIT: u64 = 1 << 62;

pub(super) fn cpu_ns(dir: &Path) -> Result<Option<u64>, CgroupError> {
    read_number(dir, "cpuacct.usage")
}

pub(super) fn memory(dir: &Path) -> Result<Memory, CgroupError> {
    let stat = read(dir, "memory.stat")?;
    let of = |name| value(&stat, name).unwrap_or_default();
    Ok(Memory {
        usage: read_number(dir, "memory.usage_in_bytes")?.unwrap_or_default(),
        inactive_file: of("total_inactive_file"),
        rss: of("total_rss"),
        page_faults: of("total_pgfault"),
        major_page_faults: of("total_pgmajfault"),
        swap: of("total_swap"),
        limit: read_number(dir, "memory.limit_in_bytes")?.filter(|limit| *limit < NO_LIMIT),
    })
}
