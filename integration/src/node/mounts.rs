//! The mounts of a node: what it has from the machine, and what is its own.

use std::collections::BTreeSet;
use std::fs;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Mounts by what each keeps for life.
#[derive(Debug)]
pub(super) struct Mounts(BTreeSet<String>);

impl Mounts {
    /// Those of the calling thread's namespace.
    pub(super) fn of_this_thread() -> Mounts {
        let table = fs::read_to_string("/proc/thread-self/mountinfo").expect("read mountinfo");
        Mounts(table.lines().map(|line| identity(line).to_owned()).collect())
    }

    /// Whether the mount of this line of mountinfo is one of them.
    pub(super) fn contains(&self, line: &str) -> bool {
        self.0.contains(identity(line))
    }
}

/// A mount namespace like the machine's, in which a node's programs disturb nothing and find nothing of earlier ones.
pub(super) fn make_private() {
    let nothing = None::<&str>;
    let attach = |source: Option<&str>, target: &str, kind: Option<&str>, flags: MsFlags| {
        mount(source, target, kind, flags, nothing).unwrap_or_else(|error| panic!("mount {target}: {error}"));
    };
    attach(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    for folder in ["/run", "/var/lib", "/var/log"] {
        attach(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty());
    }
    // A sysfs shows the links of the network namespace it was mounted in. The cgroup tree moves onto the new one.
    fs::create_dir("/run/cgroup").expect("make /run/cgroup");
    attach(
        Some("/sys/fs/cgroup"),
        "/run/cgroup",
        nothing,
        MsFlags::MS_BIND | MsFlags::MS_REC,
    );
    // Covered mounts would still stand in mountinfo.
    umount2("/sys", MntFlags::MNT_DETACH).expect("unmount /sys");
    attach(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty());
    attach(Some("/run/cgroup"), "/sys/fs/cgroup", nothing, MsFlags::MS_MOVE);
    fs::remove_dir("/run/cgroup").expect("remove /run/cgroup");
}

/// What a mount keeps for life of its line in mountinfo, proc_pid_mountinfo(5): its number, which alone is given again, its
/// parent's, the device, the root, the mount point.
fn identity(mount: &str) -> &str {
    mount
        .match_indices(' ')
        .nth(4)
        .map_or(mount, |(end, _)| &mount[..end])
}
