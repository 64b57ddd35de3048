//! What a cgroup with all below it uses, from the v1 controllers or from cgroup v2.

mod v1;
mod v2;

use super::files::gone_is_none;
use super::{Cgroup, CgroupError};

/// Memory, in bytes, and counts since the cgroup was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All that is charged, page cache included.
    pub usage: u64,
    /// Page cache that was not used lately: without it, `usage` is what the kubelet evicts by.
    pub inactive_file: u64,
    /// Anonymous memory.
    pub rss: u64,
    /// Page faults so far.
    pub page_faults: u64,
    /// Page faults that had to wait for a device.
    pub major_page_faults: u64,
    /// Swap in use; 0 without swap accounting.
    pub swap: u64,
    /// The limit; absent when there is none.
    pub limit: Option<u64>,
}

impl Cgroup {
    /// CPU time used so far, in nanoseconds. `None` when the cgroup is gone or its use is not counted.
    ///
    /// # Errors
    /// A file exists and cannot be read.
    pub fn cpu_ns(&self) -> Result<Option<u64>, CgroupError> {
        match (self.v1_directory("cpuacct"), self.unified_directory()) {
            (Some(dir), _) => Ok(gone_is_none(v1::cpu_ns(&dir))?.flatten()),
            (None, Some(dir)) => Ok(gone_is_none(v2::cpu_ns(&dir))?.flatten()),
            (None, None) => Ok(None),
        }
    }

    /// Memory now. `None` when the cgroup is gone or its memory is not counted.
    ///
    /// # Errors
    /// A file exists and cannot be read.
    pub fn memory(&self) -> Result<Option<Memory>, CgroupError> {
        match (self.v1_directory("memory"), self.unified_directory()) {
            (Some(dir), _) => gone_is_none(v1::memory(&dir)),
            (None, Some(dir)) => gone_is_none(v2::memory(&dir)),
            (None, None) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_and_v2_files_give_the_same_figures() {
        let base = std::env::temp_dir().join(format!("coracle-cgroup-stats-{}", std::process::id()));
        let (old, new) = (base.join("v1"), base.join("v2"));
        let files = [
            (
                &old,
                "memory.stat",
                "rss 1\ntotal_inactive_file 10\ntotal_rss 20\ntotal_pgfault 3\ntotal_pgmajfault 1\ntotal_swap 5\n",
            ),
            (&old, "memory.usage_in_bytes", "100\n"),
            (&old, "memory.limit_in_bytes", "9223372036854771712\n"),
            (&old, "cpuacct.usage", "7000\n"),
            (
                &new,
                "memory.stat",
                "anon 20\ninactive_file 10\npgfault 3\npgmajfault 1\n",
            ),
            (&new, "memory.current", "100\n"),
            (&new, "memory.max", "max\n"),
            (&new, "memory.swap.current", "5\n"),
            (&new, "cpu.stat", "usage_usec 7\nuser_usec 3\n"),
        ];
        for (dir, file, text) in files {
            std::fs::create_dir_all(dir).unwrap();
            std::fs::write(dir.join(file), text).unwrap();
        }
        let (from_v1, from_v2) = (v1::memory(&old), v2::memory(&new));
        let (cpu_v1, cpu_v2) = (v1::cpu_ns(&old), v2::cpu_ns(&new));
        let gone = gone_is_none(v2::memory(&base));
        std::fs::remove_dir_all(&base).unwrap();
        let expected = Memory {
            usage: 100,
            inactive_file: 10,
            rss: 20,
            page_faults: 3,
            major_page_faults: 1,
            swap: 5,
            limit: None,
        };
        assert_eq!((from_v1.unwrap(), from_v2.unwrap()), (expected.clone(), expected));
        assert_eq!((cpu_v1.unwrap(), cpu_v2.unwrap()), (Some(7000), Some(7000)));
        assert_eq!(gone.unwrap(), None);
    }
}
