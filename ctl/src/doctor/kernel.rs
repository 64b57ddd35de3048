//! The kernel: its version, and what it was built with.

use super::Host;
use super::finding::Finding;

const AREA: &str = "kernel";
/// The mount API that containers are assembled with: mount_setattr(2) is of 5.12, what else is used of 5.15.
const OLDEST: (u32, u32) = (5, 15);
/// CLONE_INTO_CGROUP and the rest are older; the namespaces are asked for one by one.
const NAMESPACES: &[(&str, bool)] = &[
    ("mnt", true),
    ("pid", true),
    ("net", true),
    ("ipc", true),
    ("uts", true),
    ("cgroup", false),
    ("user", false),
    ("time", false),
];

pub(super) fn look(host: &Host) -> Vec<Finding> {
    let mut findings = vec![version(host)];
    findings.extend(
        NAMESPACES
            .iter()
            .map(|(name, needed)| namespace(host, name, *needed)),
    );
    findings.push(overlay(host));
    findings.push(seccomp(host));
    findings
}

fn version(host: &Host) -> Finding {
    let text = host.read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = text
        .split(['.', '-'])
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found >= OLDEST {
        return Finding::good(AREA, "version", text);
    }
    let says = format!("{text:?}: containers are assembled with mount calls of 5.15");
    Finding::broken(AREA, "version", says, "boot a kernel of 5.15 or later")
}

fn namespace(host: &Host, name: &str, needed: bool) -> Finding {
    let what = format!("{name} namespaces");
    // A link that leads nowhere in the file system.
    if host
        .path(&format!("/proc/self/ns/{name}"))
        .symlink_metadata()
        .is_ok()
    {
        return Finding::good(AREA, what, "there");
    }
    let mend = "boot a kernel that has them (CONFIG_NAMESPACES and below)";
    match needed {
        true => Finding::broken(AREA, what, "missing: a pod is made of them", mend),
        false => Finding::degraded(
            AREA,
            what,
            "missing: containers that ask for one are refused",
            mend,
        ),
    }
}

fn overlay(host: &Host) -> Finding {
    let known = host.read("/proc/filesystems").unwrap_or_default();
    if known
        .lines()
        .any(|line| line.split_whitespace().last() == Some("overlay"))
    {
        return Finding::good(AREA, "overlayfs", "there");
    }
    Finding::broken(
        AREA,
        "overlayfs",
        "not loaded: images are mounted with it",
        "modprobe overlay; echo overlay > /etc/modules-load.d/coracle.conf",
    )
}

fn seccomp(host: &Host) -> Finding {
    let actions = host
        .read("/proc/sys/kernel/seccomp/actions_avail")
        .unwrap_or_default();
    if actions.split_whitespace().any(|action| action == "errno") {
        return Finding::good(AREA, "seccomp", actions);
    }
    let mend = "boot a kernel with CONFIG_SECCOMP_FILTER";
    Finding::degraded(
        AREA,
        "seccomp",
        "missing: containers with a profile are refused",
        mend,
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::super::tests::{host, state_of};
    use super::*;

    #[test]
    fn old_kernels_and_missing_parts_are_told() {
        for (release, state) in [
            ("6.1.0-18-amd64\n", State::Good),
            ("5.15.0\n", State::Good),
            ("5.10.205\n", State::Broken),
            ("garbage\n", State::Broken),
        ] {
            let (_directory, host) = host(&[("/proc/sys/kernel/osrelease", release)]);
            assert_eq!(state_of(&look(&host), "version"), state, "{release}");
        }
        let (_directory, host) = host(&[
            ("/proc/filesystems", "nodev\tsysfs\nnodev\toverlay\n"),
            (
                "/proc/sys/kernel/seccomp/actions_avail",
                "kill_process trap errno log allow\n",
            ),
            ("/proc/self/ns/net", ""),
        ]);
        let findings = look(&host);
        assert_eq!(state_of(&findings, "overlayfs"), State::Good);
        assert_eq!(state_of(&findings, "seccomp"), State::Good);
        assert_eq!(state_of(&findings, "net namespaces"), State::Good);
        assert_eq!(state_of(&findings, "pid namespaces"), State::Broken);
        assert_eq!(state_of(&findings, "time namespaces"), State::Degraded);
    }
}
