//! What StartPod asks for, checked.

use std::path::{Component, Path, PathBuf};

use coracle_shim_api::pod::{NamespaceMode, StartPodRequest};

use super::sysctl::{self, Sysctl, SysctlError};
use crate::call::Refused;

/// Which PID namespace the containers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PidMode {
    /// One for all, with the pod's init in it.
    Pod,
    /// Each its own.
    Container,
    /// The host's.
    Node,
}

/// A checked StartPodRequest.
#[derive(Debug)]
pub(crate) struct PodPlan {
    pub(super) id: String,
    pub(super) hostname: Option<String>,
    /// `None`: the host's network.
    pub(super) netns_path: Option<PathBuf>,
    /// Bytes; `None`: the host's ipc namespace and /dev/shm.
    pub(super) shm_size: Option<u64>,
    pub(super) pid: PidMode,
    pub(super) sysctls: Vec<Sysctl>,
    /// Of interfaces that are yet to be made.
    pub(super) interface_sysctls: Vec<Sysctl>,
    pub(super) cgroup: PathBuf,
    pub(super) remove_cgroup: bool,
}

/// What is wrong with a request; names its field.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PodPlanError {
    #[error("sandbox_id: this shim keeps {expected:?}, not {given:?}")]
    Id { expected: String, given: String },
    #[error("{field}: {value} is not a namespace mode that a pod can have there")]
    Mode { field: &'static str, value: i32 },
    #[error("{field}: {path:?} is not an absolute path without \"..\"")]
    Path { field: &'static str, path: String },
    #[error("netns_path: {0:?} is given, but the pod is on the host's network")]
    NetnsOfHost(String),
    #[error("hostname: longer than 64 bytes, or with characters that no host name has")]
    Hostname,
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
}

impl From<PodPlanError> for Refused {
    fn from(error: PodPlanError) -> Self {
        Self::invalid(error)
    }
}

impl PodPlan {
    /// Checks a request for the shim of sandbox `id`.
    pub(crate) fn new(request: StartPodRequest, id: &str) -> Result<Self, PodPlanError> {
        if request.sandbox_id != id {
            return Err(PodPlanError::Id {
                expected: id.into(),
                given: request.sandbox_id,
            });
        }
        let network = is_pod("network", request.network.enum_value())?;
        let ipc = is_pod("ipc", request.ipc.enum_value())?;
        let own = sysctl::Own {
            network,
            ipc,
            uts: !request.hostname.is_empty(),
        };
        let sysctls = request
            .sysctls
            .iter()
            .map(|(name, value)| Sysctl::plan(name, value, own))
            .collect::<Result<Vec<_>, _>>()?;
        let (interface_sysctls, sysctls) = sysctls.into_iter().partition(Sysctl::is_of_interface);
        Ok(Self {
            hostname: hostname(request.hostname.clone())?,
            netns_path: netns_path(request.netns_path, network)?,
            shm_size: ipc.then_some(if request.shm_size == 0 {
                DEFAULT_SHM_SIZE
            } else {
                request.shm_size
            }),
            pid: pid_mode(request.pid.enum_value())?,
            sysctls,
            interface_sysctls,
            cgroup: absolute("pod_cgroup", request.pod_cgroup)?,
            remove_cgroup: request.remove_pod_cgroup,
            id: request.sandbox_id,
        })
    }
}

/// Whether a namespace is the pod's; it can only be that or the host's.
fn is_pod(field: &'static str, mode: Result<NamespaceMode, i32>) -> Result<bool, PodPlanError> {
    match mode {
        Ok(NamespaceMode::NAMESPACE_MODE_POD) => Ok(true),
        Ok(NamespaceMode::NAMESPACE_MODE_NODE) => Ok(false),
        Ok(NamespaceMode::NAMESPACE_MODE_CONTAINER) => Err(PodPlanError::Mode { field, value: 1 }),
        Err(value) => Err(PodPlanError::Mode { field, value }),
    }
}

fn pid_mode(mode: Result<NamespaceMode, i32>) -> Result<PidMode, PodPlanError> {
    match mode {
        Ok(NamespaceMode::NAMESPACE_MODE_POD) => Ok(PidMode::Pod),
        Ok(NamespaceMode::NAMESPACE_MODE_CONTAINER) => Ok(PidMode::Container),
        Ok(NamespaceMode::NAMESPACE_MODE_NODE) => Ok(PidMode::Node),
        Err(value) => Err(PodPlanError::Mode { field: "pid", value }),
    }
}

fn hostname(name: String) -> Result<Option<String>, PodPlanError> {
    // 64 is __NEW_UTS_LEN (uts_namespaces(7)).
    let good = name.len() <= 64 && name.chars().all(|c| c.is_ascii_graphic());
    if good {
        Ok((!name.is_empty()).then_some(name))
    } else {
        Err(PodPlanError::Hostname)
    }
}

fn netns_path(path: String, network: bool) -> Result<Option<PathBuf>, PodPlanError> {
    match (network, path.is_empty()) {
        (true, _) => absolute("netns_path", path).map(Some),
        (false, true) => Ok(None),
        (false, false) => Err(PodPlanError::NetnsOfHost(path)),
    }
}

/// Checks a path that must mean the same to everybody.
pub(crate) fn absolute(field: &'static str, path: String) -> Result<PathBuf, PodPlanError> {
    let climbs = Path::new(&path)
        .components()
        .any(|part| part == Component::ParentDir);
    if path.starts_with('/') && !climbs && !path.contains('\0') {
        Ok(path.into())
    } else {
        Err(PodPlanError::Path { field, path })
    }
}

/// Bytes; what every CRI runtime gives a pod.
const DEFAULT_SHM_SIZE: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> StartPodRequest {
        StartPodRequest {
            sandbox_id: "s".into(),
            hostname: "h".into(),
            netns_path: "/run/netns/s".into(),
            pod_cgroup: "/coracle/s".into(),
            ..Default::default()
        }
    }

    #[test]
    fn the_defaults_are_a_pod_with_everything_of_its_own() {
        let plan = PodPlan::new(request(), "s").unwrap();
        assert_eq!((plan.pid, plan.shm_size), (PidMode::Pod, Some(64 << 20)));
    }

    #[test]
    fn each_bad_field_is_named() {
        type Spoil = fn(&mut StartPodRequest);
        let cases: [(Spoil, &str); 7] = [
            (|r| r.sandbox_id = "other".into(), "sandbox_id: "),
            (
                |r| r.network = NamespaceMode::NAMESPACE_MODE_CONTAINER.into(),
                "network: 1",
            ),
            (
                |r| r.network = NamespaceMode::NAMESPACE_MODE_NODE.into(),
                "netns_path: ",
            ),
            (|r| r.netns_path = "run/x".into(), "netns_path: \"run/x\""),
            (|r| r.pod_cgroup = "/a/../b".into(), "pod_cgroup: "),
            (|r| r.hostname = "a b".into(), "hostname: "),
            (
                |r| r.sysctls = [("vm.swappiness".into(), "1".into())].into(),
                "vm.swappiness",
            ),
        ];
        for (spoil, named) in cases {
            let mut spoiled = request();
            spoil(&mut spoiled);
            let error = PodPlan::new(spoiled, "s").unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
