//! CPU and memory of a cgroup, from v1 controllers or the unified hierarchy (kernel: Documentation/admin-guide/cgroup-v1,
//! cgroup-v2.rst).

use std::path::Path;

use crate::cgroup::Hierarchies;

/// v1 says "no limit" with the largest multiple of a page.
const UNLIMITED: u64 = 1 << 62;

/// Bytes, and counts since the cgroup was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) usage: u64,
    pub(super) inactive_file: u64,
    pub(super) rss: u64,
    pub(super) page_faults: u64,
    pub(super) major_page_faults: u64,
    pub(super) swap: u64,
    pub(super) limit: Option<u64>,
}

/// Nanoseconds of CPU time, of the cgroup and all below it.
pub(super) fn cpu_ns(hierarchies: &Hierarchies, cgroup: &str) -> Option<u64> {
    if let Some(directory) = hierarchies.v1_directory("cpuacct", cgroup) {
        return number(&directory, "cpuacct.usage");
    }
    let directory = hierarchies.directory("cpu", cgroup)?;
    let text = std::fs::read_to_string(directory.join("cpu.stat")).ok()?;
    Some(field(&text, "usage_usec")?.saturating_mul(1000))
}

/// Memory of the cgroup and all below it.
pub(super) fn memory(hierarchies: &Hierarchies, cgroup: &str) -> Option<Memory> {
    if let Some(directory) = hierarchies.v1_directory("memory", cgroup) {
        return memory_v1(&directory);
    }
    memory_v2(&hierarchies.directory("memory", cgroup)?)
}

fn memory_v1(directory: &Path) -> Option<Memory> {
    let text = std::fs::read_to_string(directory.join("memory.stat")).ok()?;
    let of = |name: &str| field(&text, name).unwrap_or(0);
    Some(Memory {
        usage: number(directory, "memory.usage_in_bytes")?,
        inactive_file: of("total_inactive_file"),
        rss: of("total_rss"),
        page_faults: of("total_pgfault"),
        major_page_faults: of("total_pgmajfault"),
        swap: of("total_swap"),
        limit: number(directory, "memory.limit_in_bytes").filter(|limit| *limit < UNLIMITED),
    })
}

fn memory_v2(directory: &Path) -> Option<Memory> {
    let text = std::fs::read_to_string(directory.join("memory.stat")).ok()?;
    let of = |name: &str| field(&text, name).unwrap_or(0);
    Some(Memory {
        usage: number(directory, "memory.current")?,
        inactive_file: of("inactive_file"),
        rss: of("anon"),
        page_faults: of("pgfault"),
        major_page_faults: of("pgmajfault"),
        swap: number(directory, "memory.swap.current").unwrap_or(0),
        // "max" is not a number: no limit.
        limit: number(directory, "memory.max"),
    })
}

fn number(directory: &Path, name: &str) -> Option<u64> {
    std::fs::read_to_string(directory.join(name))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_and_v2_files_give_the_same_figures() {
        let v1 = tempfile::tempdir().unwrap();
        let stat = "rss 1\ntotal_inactive_file 10\ntotal_rss 20\ntotal_pgfault 3\ntotal_pgmajfault 1\n";
        std::fs::write(v1.path().join("memory.stat"), stat).unwrap();
        std::fs::write(v1.path().join("memory.usage_in_bytes"), "100\n").unwrap();
        std::fs::write(v1.path().join("memory.limit_in_bytes"), "9223372036854771712\n").unwrap();
        let v2 = tempfile::tempdir().unwrap();
        std::fs::write(
            v2.path().join("memory.stat"),
            "anon 20\ninactive_file 10\npgfault 3\npgmajfault 1\n",
        )
        .unwrap();
        std::fs::write(v2.path().join("memory.current"), "100\n").unwrap();
        std::fs::write(v2.path().join("memory.max"), "max\n").unwrap();
        let figures = memory_v1(v1.path()).unwrap();
        assert_eq!(figures.limit, None);
        assert_eq!(Some(figures), memory_v2(v2.path()));
    }
}
