//! Control groups: which layout, which controllers.

use coracle_linux::cgroup::Layout;
use coracle_linux::mountinfo::MountInfo;

use super::Host;
use super::finding::Finding;

const AREA: &str = "cgroups";
/// Whether pods cannot be limited without it, or only something smaller does not work.
const CONTROLLERS: &[(&str, bool)] = &[
    ("cpu", true),
    ("memory", true),
    ("pids", true),
    ("cpuset", true),
    ("devices", true),
    ("freezer", true),
    ("blkio", false),
    ("hugetlb", false),
];

pub(super) fn look(host: &Host) -> Vec<Finding> {
    let text = host.read("/proc/self/mountinfo").unwrap_or_default();
    let layout = Layout::of(&MountInfo::from_text(text));
    let mend = "boot with systemd.unified_cgroup_hierarchy=0 on the kernel's command line";
    if layout.is_v2_only() {
        let says = "cgroup v2 alone: limits cannot be set there yet";
        return vec![Finding::broken(AREA, "layout", says, mend)];
    }
    if layout.v1.is_empty() {
        let says = "no hierarchy is mounted";
        return vec![Finding::broken(
            AREA,
            "layout",
            says,
            "mount the hierarchies (Debian: package cgroupfs-mount)",
        )];
    }
    let says = match layout.unified {
        Some(_) => "hybrid: v1 controllers, and cgroup v2 beside them",
        None => "v1",
    };
    let mut findings = vec![Finding::good(AREA, "layout", says)];
    for (name, needed) in CONTROLLERS {
        findings.push(controller(&layout, name, *needed));
    }
    findings
}

fn controller(layout: &Layout, name: &str, needed: bool) -> Finding {
    if let Some(found) = layout.controller(name) {
        return Finding::good(AREA, name, found.mount_point.display().to_string());
    }
    let mend = format!(
        "mount it: mkdir -p /sys/fs/cgroup/{name} && mount -t cgroup -o {name} {name} /sys/fs/cgroup/{name}"
    );
    match needed {
        true => Finding::broken(AREA, name, "not mounted: pods are limited with it", mend),
        false => Finding::degraded(AREA, name, "not mounted: limits of this kind are refused", mend),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::super::tests::{host, state_of};
    use super::*;

    fn found(mounts: &str) -> Vec<Finding> {
        let (_directory, host) = host(&[("/proc/self/mountinfo", mounts)]);
        look(&host)
    }

    #[test]
    fn each_layout_is_known_and_each_controller_looked_for() {
        let hybrid = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                      33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let findings = found(hybrid);
        assert_eq!(state_of(&findings, "layout"), State::Good);
        assert_eq!(state_of(&findings, "memory"), State::Good);
        assert_eq!(state_of(&findings, "pids"), State::Broken);
        assert_eq!(state_of(&findings, "hugetlb"), State::Degraded);
        let unified = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(state_of(&found(unified), "layout"), State::Broken);
        assert_eq!(state_of(&found(""), "layout"), State::Broken);
    }
}
