//! The pod sandbox.

use coracle_cri_api::runtime_v1::{
    Int64Value, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
    PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol as CriProtocol, SupplementalGroupsPolicy,
};

use crate::manifest::{Pod, Port, Protocol};

use super::{GRACE_ANNOTATION, Host, PLAYED_LABEL, Place, container, dns};

pub(super) fn config(pod: &Pod, host: &Host, place: &Place) -> PodSandboxConfig {
    let mut labels: std::collections::HashMap<_, _> = pod.metadata.labels.clone().into_iter().collect();
    labels.extend(own_labels(pod, place));
    let mut annotations: std::collections::HashMap<_, _> =
        pod.metadata.annotations.clone().into_iter().collect();
    annotations.insert(
        GRACE_ANNOTATION.to_owned(),
        pod.termination_grace_period.as_secs().to_string(),
    );
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: pod.metadata.name.clone(),
            uid: place.uid.clone(),
            namespace: pod.metadata.namespace.clone(),
            attempt: 0,
        }),
        hostname: hostname(pod, host),
        log_directory: place.logs().display().to_string(),
        dns_config: Some(dns::config(pod.dns_policy, &pod.dns_config, &host.resolv_conf)),
        port_mappings: if pod.host_network {
            Vec::new()
        } else {
            port_mappings(pod)
        },
        labels,
        annotations,
        linux: Some(linux(pod)),
        ..PodSandboxConfig::default()
    }
}

/// The labels a kubelet sets, which tools look for, and ours.
pub(super) fn own_labels(pod: &Pod, place: &Place) -> [(String, String); 4] {
    [
        ("io.kubernetes.pod.name".to_owned(), pod.metadata.name.clone()),
        (
            "io.kubernetes.pod.namespace".to_owned(),
            pod.metadata.namespace.clone(),
        ),
        ("io.kubernetes.pod.uid".to_owned(), place.uid.clone()),
        (PLAYED_LABEL.to_owned(), "true".to_owned()),
    ]
}

/// How the pod's namespaces relate, the same for the sandbox and each container.
pub(super) fn namespaces(pod: &Pod) -> NamespaceOption {
    let node_or = |node: bool, other: NamespaceMode| if node { NamespaceMode::Node } else { other }.into();
    let pid = if pod.share_process_namespace {
        NamespaceMode::Pod
    } else {
        NamespaceMode::Container
    };
    NamespaceOption {
        network: node_or(pod.host_network, NamespaceMode::Pod),
        pid: node_or(pod.host_pid, pid),
        ipc: node_or(pod.host_ipc, NamespaceMode::Pod),
        ..NamespaceOption::default()
    }
}

pub(super) fn groups_policy(pod: &Pod) -> i32 {
    if pod.security.strict_groups {
        SupplementalGroupsPolicy::Strict
    } else {
        SupplementalGroupsPolicy::Merge
    }
    .into()
}

/// The pod's supplementary groups; fsGroup is one of them.
pub(super) fn groups(pod: &Pod) -> Vec<i64> {
    pod.security
        .supplemental_groups
        .iter()
        .copied()
        .chain(pod.security.fs_group)
        .collect()
}

fn linux(pod: &Pod) -> LinuxPodSandboxConfig {
    let security = &pod.security;
    let user = |id: i64| Int64Value { value: id };
    let security_context = LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        run_as_user: security.run_as_user.map(user),
        // CRI: a group needs a user.
        run_as_group: security.run_as_user.and(security.run_as_group).map(user),
        supplemental_groups: groups(pod),
        supplemental_groups_policy: groups_policy(pod),
        privileged: pod
            .all_containers()
            .any(|container| container.security.privileged),
        seccomp: Some(container::seccomp(security.seccomp)),
        ..LinuxSandboxSecurityContext::default()
    };
    LinuxPodSandboxConfig {
        security_context: Some(security_context),
        sysctls: security.sysctls.clone().into_iter().collect(),
        ..LinuxPodSandboxConfig::default()
    }
}

/// `spec.hostname`, else the pod's name; on the host's network the host's name. At most 63 characters (hostname(7)).
fn hostname(pod: &Pod, host: &Host) -> String {
    if pod.host_network {
        return host.name.clone();
    }
    let name = pod.hostname.as_ref().unwrap_or(&pod.metadata.name);
    let cut: String = name.chars().take(63).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    let ports = pod.all_containers().flat_map(|container| &container.ports);
    ports
        .filter(|port| port.host_port != 0)
        .map(port_mapping)
        .collect()
}

fn port_mapping(port: &Port) -> PortMapping {
    let protocol = match port.protocol {
        Protocol::Tcp => CriProtocol::Tcp,
        Protocol::Udp => CriProtocol::Udp,
        Protocol::Sctp => CriProtocol::Sctp,
    };
    PortMapping {
        protocol: protocol.into(),
        container_port: port.container_port.into(),
        host_port: port.host_port.into(),
        host_ip: port.host_ip.clone().unwrap_or_default(),
    }
}
