//! The controllers cpu and memory of cgroup v2 (kernel: Documentation/admin-guide/cgroup-v2.rst).

use std::path::Path;

use super::super::CgroupError;
use super::super::files::{gone_is_none, read, read_number, value};
use super::Memory;

pub(super) fn cpu_ns(dir: &Path) -> Result<Option<u64>, CgroupError> {
    let stat = read(dir, "cpu.stat")?;
    Ok(value(&stat, "usage_usec").map(|microseconds| microseconds.saturating_mul(1000)))
}

pub(super) fn memory(dir: &Path) -> Result<Memory, CgroupError> {
    let stat = read(dir, "memory.stat")?;
    let of = |name| value(&stat, name).unwrap_or_default();
    Ok(Memory {
        usage: read_number(dir, "memory.current")?.unwrap_or_default(),
        inactive_file: of("inactive_file"),
        rss: of("anon"),
        page_faults: of("pgfault"),
        major_page_faults: of("pgmajfault"),
        // Absent without swap accounting.
        swap: gone_is_none(read_number(dir, "memory.swap.current"))?
            .flatten()
            .unwrap_or_default(),
        limit: read_number(dir, "memory.max")?,
    })
}
