//! What a cgroup uses, from the v1 control files.

use std::path::Path;

use serde::Serialize;

use super::files::{read, read_number};
use super::freezer::gone_is_none;
use super::{Cgroup, CgroupError};

/// Usage of a cgroup with all below it. A part is absent when its controller is not mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// CPU time used so far, in nanoseconds.
    pub cpu_usage_ns: Option<u64>,
    /// Memory.
    pub memory: Option<Memory>,
    /// Processes and threads.
    pub pids: Option<Pids>,
    /// Block devices that were used.
    pub block_io: Vec<BlockIo>,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// All that is charged, page cache included.
    pub usage: u64,
    /// Usage without inactive page cache: what the kubelet evicts by.
    pub working_set: u64,
    /// Anonymous memory.
    pub rss: u64,
    /// Page cache.
    pub cache: u64,
    /// The limit; absent when there is none.
    pub limit: Option<u64>,
    /// Page faults so far.
    pub page_faults: u64,
    /// Page faults that had to wait for a device.
    pub major_page_faults: u64,
    /// The highest usage so far.
    pub max_usage: u64,
    /// Swap in use; absent without swap accounting.
    pub swap: Option<u64>,
}

/// Processes and threads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pids {
    /// How many there are.
    pub current: u64,
    /// How many there may be; absent when there is no limit.
    pub limit: Option<u64>,
}

/// What went to and came from one block device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BlockIo {
    /// Device number.
    pub major: u32,
    /// Device number.
    pub minor: u32,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read requests.
    pub reads: u64,
    /// Write requests.
    pub writes: u64,
}

/// v1 shows "no limit" as the largest multiple of the page size; no machine has half of that.
const NO_LIMIT: u64 = 1 << 62;

impl Cgroup {
    /// The usage now. A cgroup that is gone uses nothing.
    ///
    /// # Errors
    /// A file exists and cannot be read.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        let mut stats = Stats::default();
        if let Some(dir) = self.dir("cpuacct") {
            stats.cpu_usage_ns = gone_is_none(read_number(&dir, "cpuacct.usage"))?.flatten();
        }
        if let Some(dir) = self.dir("memory") {
            stats.memory = gone_is_none(memory(&dir))?;
        }
        if let Some(dir) = self.dir("pids") {
            stats.pids = gone_is_none(pids(&dir))?;
        }
        if let Some(dir) = self.dir("blkio") {
            stats.block_io = gone_is_none(block_io(&dir))?.unwrap_or_default();
        }
        Ok(stats)
    }
}

/// The number after `name ` on a line of its own.
pub(super) fn value(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
}

fn memory(dir: &Path) -> Result<Memory, CgroupError> {
    let usage = read_number(dir, "memory.usage_in_bytes")?.unwrap_or_default();
    let stat = read(dir, "memory.stat")?;
    let of = |name| value(&stat, name).unwrap_or_default();
    let with_swap = gone_is_none(read_number(dir, "memory.memsw.usage_in_bytes"))?.flatten();
    Ok(Memory {
        usage,
        working_set: usage.saturating_sub(of("total_inactive_file")),
        rss: of("total_rss"),
        cache: of("total_cache"),
        limit: read_number(dir, "memory.limit_in_bytes")?.filter(|limit| *limit < NO_LIMIT),
        page_faults: of("total_pgfault"),
        major_page_faults: of("total_pgmajfault"),
        max_usage: read_number(dir, "memory.max_usage_in_bytes")?.unwrap_or_default(),
        swap: with_swap.map(|both| both.saturating_sub(usage)),
    })
}

fn pids(dir: &Path) -> Result<Pids, CgroupError> {
    let current = read_number(dir, "pids.current")?.unwrap_or_default();
    Ok(Pids {
        current,
        limit: read_number(dir, "pids.max")?,
    })
}

fn block_io(dir: &Path) -> Result<Vec<BlockIo>, CgroupError> {
    let mut devices = Vec::new();
    for (file, bytes) in [
        ("blkio.throttle.io_service_bytes_recursive", true),
        ("blkio.throttle.io_serviced_recursive", false),
    ] {
        for (major, minor, operation, count) in read(dir, file)?.lines().filter_map(io_line) {
            let device = device(&mut devices, major, minor);
            match (operation, bytes) {
                ("Read", true) => device.read_bytes = count,
                ("Read", false) => device.reads = count,
                ("Write", true) => device.write_bytes = count,
                ("Write", false) => device.writes = count,
                _ => {}
            }
        }
    }
    Ok(devices)
}

/// `8:0 Read 4096`
fn io_line(line: &str) -> Option<(u32, u32, &str, u64)> {
    let mut words = line.split(' ');
    let (major, minor) = words.next()?.split_once(':')?;
    Some((
        major.parse().ok()?,
        minor.parse().ok()?,
        words.next()?,
        words.next()?.parse().ok()?,
    ))
}

fn device(devices: &mut Vec<BlockIo>, major: u32, minor: u32) -> &mut BlockIo {
    let known = devices
        .iter()
        .position(|device| device.major == major && device.minor == minor);
    let at = known.unwrap_or_else(|| {
        devices.push(BlockIo {
            major,
            minor,
            ..BlockIo::default()
        });
        devices.len() - 1
    });
    &mut devices[at]
}
