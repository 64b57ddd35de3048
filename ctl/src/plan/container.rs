//! One container, from the manifest and from what is known once the sandbox runs.

use std::path::PathBuf;

use coracle_cri_api::runtime_v1::{
    Capability, ContainerConfig, ContainerMetadata, ImageSpec, Int64Value, KeyValue, LinuxContainerConfig,
    LinuxContainerResources, LinuxContainerSecurityContext, Mount,
};
use thiserror::Error;

use crate::manifest::{Container, EnvVar, ImagePullPolicy, Pod, PodField, Resources, expand};

use super::{Host, Place, SubPathPlan, environment, labels, security, volumes};

/// One container, as far as it can be planned before the sandbox runs.
#[derive(Clone, Debug)]
pub(crate) struct ContainerPlan {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) pull_policy: ImagePullPolicy,
    /// An init container that keeps running.
    pub(crate) sidecar: bool,
    pub(crate) sub_paths: Vec<SubPathPlan>,
    /// The file of its last words on the host.
    pub(crate) termination_file: PathBuf,
    /// All but what [`Facts`] decide.
    config: ContainerConfig,
    env: Vec<EnvVar>,
    command: Vec<String>,
    args: Vec<String>,
    non_root: bool,
    metadata: PodMetadata,
}

/// What the downward API can ask for, apart from the addresses.
#[derive(Clone, Debug)]
struct PodMetadata {
    pod: crate::manifest::Metadata,
    uid: String,
    node: String,
}

/// What is known only once the sandbox runs and the image is here.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// 0 the first time, one more with each restart.
    pub(crate) attempt: u32,
    pub(crate) pod_ips: Vec<String>,
    /// The image's id, which the reference stood for when it was looked up.
    pub(crate) image_ref: String,
    pub(crate) image_user: ImageUser,
}

/// The user an image's configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ImageUser {
    Id(i64),
    Name(String),
}

/// Why a container must not be created.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum PlanError {
    #[error("container {container}: runAsNonRoot is set and it would run as root")]
    Root { container: String },
    #[error(
        "container {container}: runAsNonRoot is set and the image names its user {user:?}, which may be root; set runAsUser"
    )]
    NamedUser { container: String, user: String },
}

impl ContainerPlan {
    pub(super) fn new(container: &Container, pod: &Pod, host: &Host, place: &Place) -> ContainerPlan {
        let (mounts, sub_paths) = volumes::mounts(container, pod, place);
        let termination_file = place.termination().join(&container.name);
        let security = &container.security;
        ContainerPlan {
            name: container.name.clone(),
            image: container.image.clone(),
            pull_policy: container.image_pull_policy,
            sidecar: container.sidecar,
            sub_paths,
            config: config(
                container,
                pod,
                host,
                place,
                with_termination(mounts, container, &termination_file),
            ),
            termination_file,
            env: container.env.clone(),
            command: container.command.clone(),
            args: container.args.clone(),
            non_root: security
                .run_as_non_root
                .or(pod.security.run_as_non_root)
                .unwrap_or(false),
            metadata: PodMetadata {
                pod: pod.metadata.clone(),
                uid: place.uid.clone(),
                node: host.name.clone(),
            },
        }
    }

    /// The request's configuration for one attempt.
    pub(crate) fn config(&self, facts: &Facts) -> Result<ContainerConfig, PlanError> {
        let mut config = self.config.clone();
        let env = environment(&self.env, |field| self.metadata.value(field, &facts.pod_ips));
        let known = env.iter().cloned().collect();
        let expand_all = |words: &[String]| words.iter().map(|word| expand(word, &known)).collect();
        config.metadata = Some(ContainerMetadata {
            name: self.name.clone(),
            attempt: facts.attempt,
        });
        config.image = Some(ImageSpec {
            image: facts.image_ref.clone(),
            user_specified_image: self.image.clone(),
            ..ImageSpec::default()
        });
        config.command = expand_all(&self.command);
        config.args = expand_all(&self.args);
        let key_value = |(key, value): (String, String)| KeyValue {
            key,
            value: value.into(),
        };
        config.envs = env.into_iter().map(key_value).collect();
        config.log_path = log_path(&self.name, facts.attempt);
        if let Some(security) = config
            .linux
            .as_mut()
            .and_then(|linux| linux.security_context.as_mut())
        {
            self.set_user(security, &facts.image_user)?;
        }
        Ok(config)
    }

    /// The user is the manifest's, else the image's, and `runAsNonRoot` is about whichever it is.
    fn set_user(
        &self,
        security: &mut LinuxContainerSecurityContext,
        image: &ImageUser,
    ) -> Result<(), PlanError> {
        if security.run_as_user.is_none() {
            match image {
                ImageUser::Id(id) => security.run_as_user = Some(Int64Value { value: *id }),
                ImageUser::Name(name) if self.non_root => {
                    return Err(PlanError::NamedUser {
                        container: self.name.clone(),
                        user: name.clone(),
                    });
                }
                ImageUser::Name(name) => security.run_as_username = name.clone(),
            }
        }
        if self.non_root && security.run_as_user.as_ref().is_some_and(|id| id.value == 0) {
            return Err(PlanError::Root {
                container: self.name.clone(),
            });
        }
        Ok(())
    }
}

/// Relative to the pod's log directory.
pub(crate) fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

impl PodMetadata {
    fn value(&self, field: &PodField, ips: &[String]) -> String {
        match field {
            PodField::Name => self.pod.name.clone(),
            PodField::Namespace => self.pod.namespace.clone(),
            PodField::Uid => self.uid.clone(),
            PodField::Label(key) => self.pod.labels.get(key).cloned().unwrap_or_default(),
            PodField::Annotation(key) => self.pod.annotations.get(key).cloned().unwrap_or_default(),
            PodField::NodeName => self.node.clone(),
            PodField::PodIp => ips.first().cloned().unwrap_or_default(),
            PodField::PodIps => ips.join(","),
        }
    }
}

fn config(
    container: &Container,
    pod: &Pod,
    host: &Host,
    place: &Place,
    mounts: Vec<Mount>,
) -> ContainerConfig {
    let mut labels: std::collections::HashMap<_, _> = labels::of_pod(pod, place).into_iter().collect();
    labels.insert("io.kubernetes.container.name".to_owned(), container.name.clone());
    ContainerConfig {
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts,
        labels,
        tty: container.tty,
        linux: Some(LinuxContainerConfig {
            resources: Some(resources(container, pod, host)),
            security_context: Some(security_context(container, pod)),
        }),
        ..ContainerConfig::default()
    }
}

/// The file for last words is a mount, unless the container mounts something there itself.
fn with_termination(mut mounts: Vec<Mount>, container: &Container, file: &std::path::Path) -> Vec<Mount> {
    let path = &container.termination_message_path;
    if !mounts
        .iter()
        .any(|mount| mount.container_path.trim_end_matches('/') == path)
    {
        mounts.push(Mount {
            container_path: path.clone(),
            host_path: file.display().to_string(),
            ..Mount::default()
        });
    }
    mounts
}

fn security_context(container: &Container, pod: &Pod) -> LinuxContainerSecurityContext {
    let own = &container.security;
    let id = |id: i64| Int64Value { value: id };
    let hidden = !own.unmasked_proc && !own.privileged;
    let paths = |paths: &[&str]| {
        if hidden {
            paths.iter().map(|path| (*path).to_owned()).collect()
        } else {
            Vec::new()
        }
    };
    LinuxContainerSecurityContext {
        capabilities: Some(Capability {
            add_capabilities: own.add_capabilities.clone(),
            drop_capabilities: own.drop_capabilities.clone(),
            ..Capability::default()
        }),
        privileged: own.privileged,
        namespace_options: Some(security::namespaces(pod)),
        run_as_user: own.run_as_user.or(pod.security.run_as_user).map(id),
        run_as_group: own.run_as_group.or(pod.security.run_as_group).map(id),
        readonly_rootfs: own.read_only_root,
        supplemental_groups: security::groups(pod),
        supplemental_groups_policy: security::groups_policy(pod),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(&MASKED_PATHS),
        readonly_paths: paths(&READ_ONLY_PATHS),
        seccomp: Some(security::seccomp(own.seccomp.or(pod.security.seccomp))),
        ..LinuxContainerSecurityContext::default()
    }
}

/// What `procMount: Default` hides, as kubelets send it.
const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

fn resources(container: &Container, pod: &Pod, host: &Host) -> LinuxContainerResources {
    let own = &container.resources;
    // cgroup v1's unit; a CPU is 1024. Without a request and a limit the kernel's own weight stays.
    let shares = own
        .cpu_request
        .or(own.cpu_limit)
        .map_or(0, |milli| (milli.saturating_mul(1024) / 1000).max(2));
    // Microseconds per period; less than 1 ms is refused by the kernel.
    let quota = own
        .cpu_limit
        .filter(|milli| *milli > 0)
        .map(|milli| (milli.saturating_mul(PERIOD) / 1000).max(1000));
    LinuxContainerResources {
        cpu_period: quota.map_or(0, |_| PERIOD),
        cpu_quota: quota.unwrap_or(0),
        cpu_shares: shares,
        memory_limit_in_bytes: own.memory_limit.unwrap_or(0),
        oom_score_adj: oom_score_adj(own, pod, host.memory),
        ..LinuxContainerResources::default()
    }
}

const PERIOD: i64 = 100_000;

/// The kubelet's rule: pods whose every container has limits equal to its requests die last, pods without any first,
/// and others by how much of the machine's memory they have not requested.
fn oom_score_adj(own: &Resources, pod: &Pod, machine_memory: u64) -> i64 {
    let all = || pod.all_containers().map(|container| &container.resources);
    if all().all(is_guaranteed) {
        return -997;
    }
    if all().all(|resources| *resources == Resources::default()) {
        return 1000;
    }
    let requested = own.memory_request.or(own.memory_limit).unwrap_or(0);
    let machine = i64::try_from(machine_memory.max(1)).unwrap_or(i64::MAX);
    let requested_share = 1000_i128 * i128::from(requested) / i128::from(machine);
    i64::try_from(1000 - requested_share).unwrap_or(3).clamp(3, 999)
}

fn is_guaranteed(own: &Resources) -> bool {
    let fixed = |limit: Option<i64>, request: Option<i64>| {
        limit.is_some() && request.is_none_or(|r| Some(r) == limit)
    };
    fixed(own.cpu_limit, own.cpu_request) && fixed(own.memory_limit, own.memory_request)
}
