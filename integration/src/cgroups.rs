//! The cgroup directories of a test, in every hierarchy that is mounted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::wait;

/// Every directory below `path` (absolute, as cgroups name themselves) in any hierarchy, itself too, deepest first.
#[must_use]
pub fn directories(path: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for hierarchy in hierarchies() {
        collect(&hierarchy.join(path.trim_start_matches('/')), &mut found);
    }
    found.sort_by_key(|directory| std::cmp::Reverse(directory.components().count()));
    found
}

/// Makes the directory `path` in every hierarchy.
///
/// # Errors
/// What the kernel says about the first that cannot be made.
pub fn create(path: &str) -> io::Result<()> {
    for hierarchy in hierarchies() {
        let mut directory = hierarchy;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let parent = directory.clone();
            directory.push(name);
            fs::create_dir_all(&directory)?;
            // A v1 cpuset starts empty, and nothing can run in an empty one, nor in one below.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = fs::read_to_string(parent.join(file)) {
                    fs::write(directory.join(file), value)?;
                }
            }
        }
    }
    Ok(())
}

/// Processor time used so far by everything that ran in the cgroup `path` or below, the dead included.
///
/// # Panics
/// When no hierarchy accounts for it.
#[must_use]
pub fn cpu_time(path: &str) -> Duration {
    let base = Path::new("/sys/fs/cgroup");
    let path = path.trim_start_matches('/');
    let v1 = fs::read_to_string(base.join("cpuacct").join(path).join("cpuacct.usage"));
    let nanoseconds = v1.ok().and_then(|text| text.trim().parse().ok()).or_else(|| {
        let stat = fs::read_to_string(base.join(path).join("cpu.stat")).ok()?;
        let line = stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
        Some(line.parse::<u64>().ok()? * 1000)
    });
    Duration::from_nanos(nanoseconds.unwrap_or_else(|| panic!("nobody accounts for the time of {path}")))
}

/// Lets frozen processes below `path` run again: a frozen process does not even die.
pub fn thaw(path: &str) {
    for directory in directories(path) {
        let _ = fs::write(directory.join("freezer.state"), "THAWED");
    }
}

/// Removes the directories below `path`, waiting for the dead in them to be gone.
///
/// # Errors
/// The directories that stay, with the processes that keep them.
pub fn remove(path: &str) -> Result<(), String> {
    wait::until(wait::SOON, || {
        for directory in directories(path) {
            let _ = fs::remove_dir(directory);
        }
        let left = directories(path);
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("cgroups stay: {left:?}, processes {:?}", processes(path)))
        }
    })
}

/// The processes in any cgroup at or below `path`.
#[must_use]
pub fn processes(path: &str) -> Vec<u32> {
    let mut pids: Vec<u32> = directories(path)
        .iter()
        .filter_map(|directory| fs::read_to_string(directory.join("cgroup.procs")).ok())
        .flat_map(|text| {
            text.lines()
                .filter_map(|line| line.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// Where each hierarchy is mounted.
#[must_use]
pub fn hierarchies() -> Vec<PathBuf> {
    let base = Path::new("/sys/fs/cgroup");
    if base.join("cgroup.controllers").exists() {
        return vec![base.to_path_buf()];
    }
    let Ok(entries) = fs::read_dir(base) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        // `cpu` and `cpuacct` can be links to one directory.
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .filter(|path| path.join("cgroup.procs").exists())
        .collect();
    found.sort();
    found
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    found.push(directory.to_path_buf());
    for entry in entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    {
        collect(&entry.path(), found);
    }
}
