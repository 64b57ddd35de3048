//! What a plan takes from this machine.

use std::fs;
use std::io;

use super::super::plan::Host;

pub(super) fn read() -> io::Result<Host> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let resolv_conf = match fs::read_to_string("/etc/resolv.conf") {
        // A machine without one resolves nothing, and so does its pod.
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        other => other?,
    };
    Ok(Host {
        name: name.trim().to_owned(),
        resolv_conf,
        memory: memory(&fs::read_to_string("/proc/meminfo")?),
    })
}

/// A version 4 UUID from the kernel.
pub(super) fn new_uid() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/uuid")?
        .trim()
        .to_owned())
}

/// `MemTotal` in bytes (proc_meminfo(5) counts in kibibytes).
fn memory(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: Option<u64> = total.and_then(|total| total.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}
