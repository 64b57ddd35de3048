//! What the shim is asked for a pod.

use coracle_cri_api::runtime_v1::{NamespaceMode, PodSandboxConfig};
use coracle_shim_api::pod::{NamespaceMode as ShimMode, StartPodRequest};

use crate::spec;
use crate::store::SandboxRecord;

/// As the record says.
pub(super) fn pod_request(record: &SandboxRecord) -> StartPodRequest {
    let options = spec::namespace_options(&record.config);
    let linux = record.config.linux.clone().unwrap_or_default();
    let own_network = !record.netns_path.is_empty();
    StartPodRequest {
        sandbox_id: record.id.clone(),
        // A pod on the host's network has the host's name: no UTS namespace.
        hostname: if own_network {
            hostname(&record.config)
        } else {
            String::new()
        },
        network: shim_mode(options.network).into(),
        pid: shim_mode(options.pid).into(),
        ipc: shim_mode(options.ipc).into(),
        netns_path: record.netns_path.clone(),
        sysctls: linux.sysctls,
        pod_cgroup: record.cgroup_parent.clone(),
        // One that other pods may use is removed when the last of them has left it.
        remove_pod_cgroup: record.has_private_cgroup(),
        ..StartPodRequest::default()
    }
}

fn shim_mode(mode: i32) -> ShimMode {
    match NamespaceMode::try_from(mode) {
        Ok(NamespaceMode::Node) => ShimMode::NAMESPACE_MODE_NODE,
        Ok(NamespaceMode::Container) => ShimMode::NAMESPACE_MODE_CONTAINER,
        _ => ShimMode::NAMESPACE_MODE_POD,
    }
}

/// The name in the pod's UTS namespace: as asked, else the node's.
pub(super) fn hostname(config: &PodSandboxConfig) -> String {
    if config.hostname.is_empty() {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    } else {
        config.hostname.clone()
    }
}
