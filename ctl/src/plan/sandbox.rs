//! The pod sandbox.

use coracle_cri_api::runtime_v1::{
    Int64Value, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, PodSandboxConfig, PodSandboxMetadata,
    PortMapping, Protocol as CriProtocol,
};

use crate::manifest::{Pod, Port, Protocol};

use super::labels::{self, GRACE_ANNOTATION};
use super::{Host, Place, dns, security};

pub(super) fn config(pod: &Pod, host: &Host, place: &Place) -> PodSandboxConfig {
    let mut labels: std::collections::HashMap<_, _> = pod.metadata.labels.clone().into_iter().collect();
    labels.extend(labels::of_pod(pod, place));
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

fn linux(pod: &Pod) -> LinuxPodSandboxConfig {
    let own = &pod.security;
    let user = |id: i64| Int64Value { value: id };
    let security_context = LinuxSandboxSecurityContext {
        namespace_options: Some(security::namespaces(pod)),
        run_as_user: own.run_as_user.map(user),
        // CRI: a group needs a user.
        run_as_group: own.run_as_user.and(own.run_as_group).map(user),
        supplemental_groups: security::groups(pod),
        supplemental_groups_policy: security::groups_policy(pod),
        privileged: pod
            .all_containers()
            .any(|container| container.security.privileged),
        seccomp: Some(security::seccomp(own.seccomp)),
        ..LinuxSandboxSecurityContext::default()
    };
    LinuxPodSandboxConfig {
        security_context: Some(security_context),
        sysctls: own.sysctls.clone().into_iter().collect(),
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
