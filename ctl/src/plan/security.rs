//! What the sandbox and each of its containers are told alike: namespaces, groups, seccomp.

use coracle_cri_api::runtime_v1::{
    NamespaceMode, NamespaceOption, SecurityProfile, SupplementalGroupsPolicy, security_profile::ProfileType,
};

use crate::manifest::{Pod, SeccompProfile};

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

pub(super) fn seccomp(profile: Option<SeccompProfile>) -> SecurityProfile {
    // No profile means none, as with a kubelet that has no default one.
    let kind = match profile {
        Some(SeccompProfile::RuntimeDefault) => ProfileType::RuntimeDefault,
        Some(SeccompProfile::Unconfined) | None => ProfileType::Unconfined,
    };
    SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: String::new(),
    }
}
