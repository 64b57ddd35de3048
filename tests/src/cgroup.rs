//! The host's cgroup hierarchies.

use std::path::{Path, PathBuf};

/// Where the v1 hierarchy with this controller is mounted.
#[must_use]
pub fn hierarchy(controller: &str) -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let has = |line: &&str| {
        line.contains(" - cgroup ")
            && line
                .rsplit(' ')
                .next()
                .is_some_and(|all| all.split(',').any(|one| one == controller))
    };
    mounts.lines().find(has).map(mount_point)
}

/// The directories of a cgroup in all hierarchies that have it.
#[must_use]
pub fn directories(cgroup: &str) -> Vec<PathBuf> {
    let below = cgroup.trim_start_matches('/');
    // The test's thread may have a mount namespace of its own.
    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let hierarchies = mounts.lines().filter(|line| line.contains(" - cgroup"));
    hierarchies
        .map(|line| mount_point(line).join(below))
        .filter(|dir| dir.is_dir())
        .collect()
}

/// Removes what a program that was told to use this cgroup has left of it.
pub fn remove(cgroup: &str) {
    for dir in directories(cgroup) {
        crate::wait::wait_until(&format!("{} to be free", dir.display()), || {
            remove_tree(&dir);
            !dir.exists()
        });
    }
}

/// Control files cannot be removed, directories can.
fn remove_tree(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    // The last attempt succeeds.
    let _ = std::fs::remove_dir(dir);
}

fn mount_point(line: &str) -> PathBuf {
    PathBuf::from(line.split(' ').nth(4).unwrap())
}
