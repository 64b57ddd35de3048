//! From CRI's ContainerConfig to the OCI config.json: a pure plan, checked field by field.
//!
//! ```text
//!   ContainerConfig ---+
//!   image defaults  ---+--> plan() --> Plan { config.json, host paths to look at, stop signal, log path ... }
//!   PodSandboxConfig --+
//!   Host (what the daemon holds)
//! ```
//!
//! What needs the host's file system (missing volume paths, symlinks, devices) is listed in the plan and done by the
//! steps of CreateContainer; nothing is touched before every field has been looked at.

mod capabilities;
mod default_seccomp;
mod devices;
mod host;
mod image_volumes;
mod mounts;
mod namespaces;
mod process;
mod resources;
mod seccomp;
mod signal;
mod volume;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use coracle_cri_api::runtime_v1::{
    ContainerConfig, LinuxContainerSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig,
};
use oci_spec::runtime::Spec;
use serde_json::{Value, json};
use tonic::Code;

pub(crate) use host::Host;
pub(crate) use image_volumes::ImageVolume;
pub(crate) use mounts::{Look, Volume, VolumeError};
pub(crate) use namespaces::check_user_namespace;
pub(crate) use process::ImageDefaults;
pub(crate) use signal::from_cri as signal_from_cri;

use crate::config::UnsetSeccompProfile;

/// Version of the specification that the config.json is written to.
const OCI_VERSION: &str = "1.0.2";

/// An empty directory of the container's own: where the root is attached in its mount namespace.
pub(crate) const ROOTFS: &str = "rootfs";

/// Everything that a plan is made from.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) id: &'a str,
    pub(crate) sandbox_id: &'a str,
    pub(crate) config: &'a ContainerConfig,
    pub(crate) sandbox: &'a PodSandboxConfig,
    pub(crate) image: ImageDefaults<'a>,
    pub(crate) identity: Identity,
    pub(crate) host: &'a Host,
    pub(crate) cgroup: &'a str,
    /// Name in the UTS namespace.
    pub(crate) hostname: &'a str,
    /// Directory of the pod's hosts, hostname and resolv.conf.
    pub(crate) pod_files: &'a Path,
    /// The container's own, for its writable layer, the place its root is attached at, and the image's volumes.
    pub(crate) directory: &'a Path,
    pub(crate) unset_seccomp_profile: UnsetSeccompProfile,
}

/// Who the first process is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// A container that can be made.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) spec: Spec,
    /// Volumes; their sources are looked at before the spec is used.
    pub(crate) volumes: Vec<Volume>,
    /// The image's own; they have to be made.
    pub(crate) image_volumes: Vec<ImageVolume>,
    pub(crate) share_shm: bool,
    /// Absolute; empty: no log.
    pub(crate) log_path: PathBuf,
    /// The kernel's number.
    pub(crate) stop_signal: i32,
}

/// Why a container cannot be made as asked; every message names the field.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("{field}: not supported yet")]
    Unsupported { field: String },
    #[error("{field}: {value:?}: {wants}")]
    Invalid {
        field: String,
        value: String,
        wants: &'static str,
    },
    #[error("config.command: empty, and the image has neither ENTRYPOINT nor CMD")]
    NoCommand,
    #[error("config.linux.security_context.privileged: the sandbox is not privileged")]
    SandboxNotPrivileged,
    #[error("{field}: read {path}")]
    Read {
        field: &'static str,
        path: String,
        source: std::io::Error,
    },
    #[error("{field}")]
    Json {
        field: &'static str,
        source: serde_json::Error,
    },
}

impl PlanError {
    /// Its code for clients.
    pub(crate) fn code(&self) -> Code {
        match self {
            PlanError::Unsupported { .. } => Code::Unimplemented,
            PlanError::Invalid { .. }
            | PlanError::NoCommand
            | PlanError::SandboxNotPrivileged
            | PlanError::Read { .. }
            | PlanError::Json { .. } => Code::InvalidArgument,
        }
    }
}

/// Checks the request and turns it into a plan.
pub(crate) fn plan(request: &Request<'_>) -> Result<Plan, PlanError> {
    check_what_is_not_there_yet(request.config)?;
    let security = request.security();
    let privileged = security.privileged;
    let sandbox_security = request
        .sandbox
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.as_ref());
    if privileged && !sandbox_security.is_some_and(|sandbox| sandbox.privileged) {
        return Err(PlanError::SandboxNotPrivileged);
    }
    let sandbox_modes = namespace_options(request.sandbox);
    let namespaces = namespaces::plan(&security, &sandbox_modes, request.host)?;
    let volumes = mounts::volumes(request.config)?;
    let mut mounts = mounts::plan(request, &volumes, &sandbox_modes, privileged);
    let image_volumes = image_volumes::plan(request, &mounts);
    mounts.extend(image_volumes.iter().map(image_volumes::ImageVolume::mount));
    mounts::sort(&mut mounts);
    let process = process::plan(request, &security)?;
    let devices = devices::plan(request.config, privileged, request.host)?;
    let resources = resources::plan(request.config, devices.rules)?;
    let seccomp = seccomp::plan(&security, request)?;
    let masks = |paths: &Vec<String>| if privileged { Vec::new() } else { paths.clone() };
    let mut linux = json!({
        "cgroupsPath": request.cgroup,
        "namespaces": namespaces,
        "devices": devices.nodes,
        "resources": resources,
        "maskedPaths": masks(&security.masked_paths),
        "readonlyPaths": masks(&security.readonly_paths),
    });
    set(
        &mut linux,
        "rootfsPropagation",
        mounts::root_propagation(&volumes).map(Value::from),
    );
    set(&mut linux, "seccomp", seccomp);
    let spec = json!({
        "ociVersion": OCI_VERSION,
        "process": process,
        "root": { "path": request.directory.join(ROOTFS), "readonly": security.readonly_rootfs },
        "mounts": mounts,
        "annotations": annotations(request),
        "linux": linux,
    });
    let spec = serde_json::from_value(spec).map_err(|source| PlanError::Json {
        field: "config",
        source,
    })?;
    Ok(Plan {
        spec,
        share_shm: mounts::shares_shm(&volumes, &sandbox_modes),
        volumes,
        image_volumes,
        log_path: log_path(request),
        stop_signal: signal::plan(request.config, request.image.stop_signal)?,
    })
}

impl Request<'_> {
    fn security(&self) -> LinuxContainerSecurityContext {
        let linux = self.config.linux.as_ref();
        linux
            .and_then(|linux| linux.security_context.clone())
            .unwrap_or_default()
    }
}

/// What this version cannot do is refused by name, never ignored.
fn check_what_is_not_there_yet(config: &ContainerConfig) -> Result<(), PlanError> {
    let unsupported = |field: &str| {
        Err(PlanError::Unsupported {
            field: field.to_owned(),
        })
    };
    if !config.cdi_devices.is_empty() {
        return unsupported("config.CDI_devices");
    }
    if config
        .annotations
        .keys()
        .any(|key| key.starts_with("cdi.k8s.io/"))
    {
        return unsupported("config.annotations: cdi.k8s.io/");
    }
    if config.windows.is_some() {
        return unsupported("config.windows");
    }
    Ok(())
}

/// `log_directory` of the pod joined with `log_path`; either empty: no log.
fn log_path(request: &Request<'_>) -> PathBuf {
    let (directory, path) = (&request.sandbox.log_directory, &request.config.log_path);
    if directory.is_empty() || path.is_empty() {
        PathBuf::new()
    } else {
        Path::new(directory).join(path)
    }
}

/// The container's own, and what hooks of node software look for.
fn annotations(request: &Request<'_>) -> HashMap<String, String> {
    let mut annotations = request.config.annotations.clone();
    let metadata = request.config.metadata.clone().unwrap_or_default();
    let pod = request.sandbox.metadata.clone().unwrap_or_default();
    let ours = [
        ("container-type", "container".to_owned()),
        ("sandbox-id", request.sandbox_id.to_owned()),
        ("container-name", metadata.name),
        ("sandbox-name", pod.name),
        ("sandbox-namespace", pod.namespace),
        ("sandbox-uid", pod.uid),
    ];
    annotations.extend(ours.map(|(key, value)| (format!("io.kubernetes.cri.{key}"), value)));
    annotations
}

fn invalid(field: &str, value: &str, wants: &'static str) -> PlanError {
    PlanError::Invalid {
        field: field.to_owned(),
        value: value.to_owned(),
        wants,
    }
}

fn set(object: &mut Value, key: &str, value: Option<Value>) {
    if let (Some(object), Some(value)) = (object.as_object_mut(), value) {
        object.insert(key.to_owned(), value);
    }
}

/// The mode of a namespace as the sandbox was asked for it.
fn mode(number: i32) -> NamespaceMode {
    NamespaceMode::try_from(number).unwrap_or(NamespaceMode::Pod)
}

/// Network mode of a pod.
pub(crate) fn network_mode(config: &PodSandboxConfig) -> NamespaceMode {
    mode(namespace_options(config).network)
}

/// The namespaces a pod was asked for.
pub(crate) fn namespace_options(config: &PodSandboxConfig) -> NamespaceOption {
    let security = config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.as_ref());
    security
        .and_then(|security| security.namespace_options.clone())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
