//! From a checked manifest to what CRI is asked: pure functions, no files, no calls.
//!
//! ```text
//! Pod + Host + Place -> PodPlan { PodSandboxConfig, VolumePlan..., ContainerPlan... }
//! ContainerPlan + Facts (known once the sandbox runs) -> ContainerConfig
//! ```
//!
//! Where Kubernetes leaves a choice to the kubelet, the plan does what the kubelet does.

mod container;
mod dns;
mod labels;
mod sandbox;
mod security;
mod volumes;

use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_cri_api::runtime_v1::PodSandboxConfig;

use super::manifest::{Container, EnvVar, Pod, RestartPolicy};

pub(crate) use container::{ContainerPlan, Facts, ImageUser, PlanError, log_path};
pub(crate) use labels::{GRACE_ANNOTATION, PLAYED_LABEL};
pub(crate) use volumes::{SubPathPlan, VolumeKind, VolumePlan};

/// What the plan takes from the machine.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    /// Content of /etc/resolv.conf.
    pub(crate) resolv_conf: String,
    /// Bytes of memory.
    pub(crate) memory: u64,
}

/// Where one played pod keeps what is its own; everything below is removed with it.
///
/// ```text
/// DIR/UID/play.lock                      held while coraclectl plays the pod; holds its process id
/// DIR/UID/volumes/VOLUME/                emptyDir, or the mount of a memory volume
/// DIR/UID/sub-paths/CONTAINER-N          mount of one subPath
/// DIR/UID/termination/CONTAINER          last words
/// DIR/UID/logs/CONTAINER/ATTEMPT.log     written by the pod's shim
/// ```
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) uid: String,
    pub(crate) directory: PathBuf,
}

impl Place {
    pub(crate) fn new(data: &Path, uid: &str) -> Place {
        Place {
            uid: uid.to_owned(),
            directory: data.join(uid),
        }
    }

    pub(crate) fn volumes(&self) -> PathBuf {
        self.directory.join("volumes")
    }

    pub(crate) fn sub_paths(&self) -> PathBuf {
        self.directory.join("sub-paths")
    }

    pub(crate) fn termination(&self) -> PathBuf {
        self.directory.join("termination")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.directory.join("logs")
    }
}

/// One pod, ready to be played.
#[derive(Clone, Debug)]
pub(crate) struct PodPlan {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) place: Place,
    pub(crate) sandbox: PodSandboxConfig,
    pub(crate) volumes: Vec<VolumePlan>,
    /// Owner group of the emptyDir volumes.
    pub(crate) fs_group: Option<u32>,
    pub(crate) init: Vec<ContainerPlan>,
    pub(crate) main: Vec<ContainerPlan>,
    pub(crate) restart_policy: RestartPolicy,
    pub(crate) grace: Duration,
    pub(crate) deadline: Option<Duration>,
}

/// Plans `pod` for this machine and this directory.
pub(crate) fn plan(pod: &Pod, host: &Host, place: Place) -> PodPlan {
    let memory_limit = pod_memory_limit(pod);
    let container = |container: &Container| ContainerPlan::new(container, pod, host, &place);
    PodPlan {
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        sandbox: sandbox::config(pod, host, &place),
        volumes: pod
            .volumes
            .iter()
            .map(|volume| VolumePlan::new(volume, &place, memory_limit))
            .collect(),
        fs_group: pod.security.fs_group.and_then(|group| u32::try_from(group).ok()),
        init: pod.init_containers.iter().map(container).collect(),
        main: pod.containers.iter().map(container).collect(),
        restart_policy: pod.restart_policy,
        grace: pod.termination_grace_period,
        deadline: pod.active_deadline,
        place,
    }
}

impl PodPlan {
    /// Init containers first.
    pub(crate) fn all_containers(&self) -> impl Iterator<Item = &ContainerPlan> {
        self.init.iter().chain(&self.main)
    }
}

/// The most the pod's containers may use together, if each has a limit: a memory volume cannot usefully be larger.
fn pod_memory_limit(pod: &Pod) -> Option<u64> {
    let limits = pod
        .all_containers()
        .map(|container| container.resources.memory_limit);
    limits.map(|limit| limit.map(i64::unsigned_abs)).sum()
}

/// The environment in the order of the manifest, references expanded.
fn environment(
    variables: &[EnvVar],
    value_of: impl Fn(&super::manifest::PodField) -> String,
) -> Vec<(String, String)> {
    use super::manifest::{EnvSource, expand};
    let mut known = std::collections::BTreeMap::new();
    let mut result: Vec<(String, String)> = Vec::new();
    for variable in variables {
        let value = match &variable.source {
            EnvSource::Value(text) => expand(text, &known),
            EnvSource::Field(field) => value_of(field),
        };
        known.insert(variable.name.clone(), value.clone());
        // A name that is there twice keeps its last value, as in the API server's merge.
        result.retain(|(name, _)| *name != variable.name);
        result.push((variable.name.clone(), value));
    }
    result
}

#[cfg(test)]
mod tests;
