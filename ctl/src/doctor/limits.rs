//! Limits of the node that many pods run into, and swap.

use super::Host;
use super::finding::Finding;

const AREA: &str = "limits";

/// A limit, what it holds up, and the least that a dense node wants.
const LIMITS: &[(&str, &str, u64, &str)] = &[
    (
        "fs.inotify.max_user_instances",
        "/proc/sys/fs/inotify/max_user_instances",
        512,
        "programs that watch files fail in the later pods",
    ),
    (
        "fs.inotify.max_user_watches",
        "/proc/sys/fs/inotify/max_user_watches",
        65_536,
        "programs that watch many files fail",
    ),
    (
        "kernel.pid_max",
        "/proc/sys/kernel/pid_max",
        65_536,
        "the node runs out of process numbers",
    ),
    (
        "user.max_user_namespaces",
        "/proc/sys/user/max_user_namespaces",
        1024,
        "containers with a user namespace are refused",
    ),
];

pub(super) fn look(host: &Host) -> Vec<Finding> {
    let mut findings: Vec<Finding> = LIMITS.iter().map(|limit| one(host, limit)).collect();
    findings.push(swap(host));
    findings
}

fn one(host: &Host, (what, file, least, meaning): &(&str, &str, u64, &str)) -> Finding {
    match host.number(file) {
        Some(value) if value >= *least => Finding::good(AREA, *what, value.to_string()),
        found => {
            let found = found.map_or_else(|| "not there".to_owned(), |value| value.to_string());
            let says = format!("{found}, a dense node wants {least}: {meaning}");
            let mend =
                format!("sysctl -w {what}={least}; echo {what}={least} >> /etc/sysctl.d/90-coracle.conf");
            Finding::degraded(AREA, *what, says, mend)
        }
    }
}

/// The kubelet refuses to start with it unless it is told to (failSwapOn).
fn swap(host: &Host) -> Finding {
    let lines = host.read("/proc/swaps").unwrap_or_default().lines().count();
    if lines <= 1 {
        return Finding::good(AREA, "swap", "off");
    }
    let says = "on: a kubelet does not start unless its configuration has failSwapOn: false";
    Finding::degraded(AREA, "swap", says, "swapoff -a, and take it out of /etc/fstab")
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::super::tests::{host, state_of};
    use super::*;

    #[test]
    fn small_limits_and_swap_are_told() {
        let (_directory, host) = host(&[
            ("/proc/sys/fs/inotify/max_user_instances", "128\n"),
            ("/proc/sys/kernel/pid_max", "4194304\n"),
            (
                "/proc/swaps",
                "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n",
            ),
        ]);
        let findings = look(&host);
        assert_eq!(
            state_of(&findings, "fs.inotify.max_user_instances"),
            State::Degraded
        );
        assert_eq!(state_of(&findings, "kernel.pid_max"), State::Good);
        assert_eq!(state_of(&findings, "user.max_user_namespaces"), State::Degraded);
        assert_eq!(state_of(&findings, "swap"), State::Degraded);
    }
}
