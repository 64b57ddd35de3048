//! What the network plugins need of the kernel.

use super::Host;
use super::finding::Finding;

const AREA: &str = "network";

pub(super) fn look(host: &Host) -> Vec<Finding> {
    let module = |name: &str, needed: bool, says: &str| module(host, name, needed, says);
    vec![
        module("nf_tables", true, "masquerade and host ports are its rules"),
        module("bridge", true, "the bridge plugin joins pods with it"),
        module("veth", true, "pods are plugged in with it"),
        module("vxlan", false, "pods of several hosts would talk through it"),
        forwarding(host),
        bridge_filter(host),
    ]
}

/// Loaded, or built in, which modules.builtin of the running kernel says.
fn module(host: &Host, name: &str, needed: bool, says: &str) -> Finding {
    let release = host.read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let builtin = host
        .read(&format!("/lib/modules/{release}/modules.builtin"))
        .unwrap_or_default();
    let file = format!("/{name}.ko");
    let is_builtin = builtin.lines().any(|line| line.ends_with(&file));
    if is_builtin || host.path(&format!("/sys/module/{name}")).is_dir() {
        return Finding::good(AREA, name, "there");
    }
    if !release.is_empty() && !host.path("/proc/modules").exists() {
        return Finding::good(AREA, name, "built in if at all: this kernel loads no modules");
    }
    let says = format!("not loaded: {says}; the kernel may load it when it is first used");
    let mend = format!("modprobe {name}; echo {name} >> /etc/modules-load.d/coracle.conf");
    match needed && release.is_empty() {
        // Without a kernel to be asked there is none that could load it.
        true => Finding::broken(AREA, name, says, mend),
        false => Finding::degraded(AREA, name, says, mend),
    }
}

fn forwarding(host: &Host) -> Finding {
    let what = "ip_forward";
    if host.number("/proc/sys/net/ipv4/ip_forward") == Some(1) {
        return Finding::good(AREA, what, "on");
    }
    let says = "off: pods reach nobody outside of the node until a plugin has turned it on";
    let mend = "sysctl -w net.ipv4.ip_forward=1; echo net.ipv4.ip_forward=1 > /etc/sysctl.d/90-coracle.conf";
    Finding::degraded(AREA, what, says, mend)
}

/// kube-proxy wants packets of a bridge to pass iptables; without a kubelet nobody needs it.
fn bridge_filter(host: &Host) -> Finding {
    let what = "br_netfilter";
    match host.number("/proc/sys/net/bridge/bridge-nf-call-iptables") {
        Some(1) => Finding::good(AREA, what, "on"),
        Some(_) => Finding::degraded(
            AREA,
            what,
            "loaded and off: services of Kubernetes do not reach pods of the same node",
            "sysctl -w net.bridge.bridge-nf-call-iptables=1",
        ),
        None => Finding::degraded(
            AREA,
            what,
            "not loaded: needed under a kubelet with kube-proxy, else not",
            "modprobe br_netfilter; echo br_netfilter >> /etc/modules-load.d/coracle.conf",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::super::tests::{host, state_of};
    use super::*;

    #[test]
    fn modules_are_found_loaded_or_built_in() {
        let (_directory, host) = host(&[
            ("/proc/sys/kernel/osrelease", "6.1.0\n"),
            (
                "/lib/modules/6.1.0/modules.builtin",
                "kernel/net/bridge/bridge.ko\nkernel/drivers/net/veth.ko\n",
            ),
            ("/sys/module/nf_tables/refcnt", "1"),
            ("/proc/modules", ""),
            ("/proc/sys/net/ipv4/ip_forward", "1\n"),
            ("/proc/sys/net/bridge/bridge-nf-call-iptables", "0\n"),
        ]);
        let findings = look(&host);
        for (what, state) in [
            ("nf_tables", State::Good),
            ("bridge", State::Good),
            ("veth", State::Good),
            ("vxlan", State::Degraded),
            ("ip_forward", State::Good),
            ("br_netfilter", State::Degraded),
        ] {
            assert_eq!(state_of(&findings, what), state, "{what}");
        }
    }
}
