//! From a CreateContainerRequest to the runtime's plan, with what the pod shares filled in.

use std::io;
use std::path::PathBuf;

use coracle_linux::namespace::Namespaces;
use coracle_runtime::plan::kind_of;
use coracle_runtime::seccomp::Filter;
use coracle_runtime::{
    ContainerId, CreateOptions, CreateRequest, DetachedMount, Plan, PlanError, RootSource,
};
use coracle_shim_api::pod::{CreateContainerRequest, Overlay};
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};

use crate::call::Refused;
use crate::pod::{Membership, Pod, PodError, PodPlanError, absolute};
use crate::report;
use crate::streams::{self, Ends};

/// What is wrong with a request, or could not be opened for it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("id")]
    Id(#[from] coracle_runtime::IdError),
    #[error("spec")]
    Parse(#[from] serde_json::Error),
    #[error("spec.{0} is missing")]
    Missing(&'static str),
    #[error("spec.{0}: belongs to StartPod, not to a container of a pod")]
    OfPod(&'static str),
    #[error("spec.linux.cgroupsPath: {path:?} is not below the pod's {pod:?}")]
    Cgroup { path: PathBuf, pod: PathBuf },
    #[error(transparent)]
    Path(#[from] PodPlanError),
    #[error("overlay.lower: is empty")]
    NoLayer,
    #[error("share_shm: the pod has no /dev/shm of its own")]
    NoShm,
    #[error("spec")]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Pod(#[from] PodError),
    #[error("open the container's standard streams")]
    Streams(#[source] io::Error),
}

impl From<RequestError> for Refused {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Id(_)
            | RequestError::Parse(_)
            | RequestError::Missing(_)
            | RequestError::OfPod(_)
            | RequestError::Cgroup { .. }
            | RequestError::Path(_)
            | RequestError::NoLayer
            | RequestError::NoShm
            | RequestError::Plan(_) => Self::invalid(error),
            RequestError::Pod(_) | RequestError::Streams(_) => Self::failed(error),
        }
    }
}

/// A planned container and the shim's side of it.
pub(crate) struct Planned {
    pub(crate) plan: Plan,
    pub(crate) kept: Kept,
}

/// What the shim needs of a request once the container exists.
pub(crate) struct Kept {
    pub(crate) ends: Ends,
    pub(crate) log_path: Option<PathBuf>,
    pub(crate) seccomp: Option<Filter>,
}

/// Checks the request and opens what the container gets from the pod.
pub(crate) fn plan(
    id: ContainerId,
    request: CreateContainerRequest,
    pod: &Pod,
) -> Result<Planned, RequestError> {
    let loaded = coracle_runtime::spec::parse(request.spec)?;
    for warning in &loaded.warnings {
        report::log(&id, warning);
    }
    let mut spec = loaded.spec;
    check_spec(&spec, pod)?;
    let membership = pod.membership()?;
    leave_to_pod(&mut spec, &membership);
    let terminal = spec
        .process()
        .as_ref()
        .and_then(|process| process.terminal())
        .unwrap_or_default();
    let log_path = (!request.log_path.is_empty())
        .then(|| absolute("log_path", request.log_path))
        .transpose()?;
    let bundle = absolute("bundle", request.bundle)?;
    let root = root(request.overlay.into_option(), &spec, &bundle)?;
    let (stdio, ends) = streams::open(terminal, request.stdin).map_err(RequestError::Streams)?;
    let plan = coracle_runtime::plan(CreateRequest {
        id,
        bundle,
        spec,
        root,
        copied_up: request.copied_up.into_iter().map(PathBuf::from).collect(),
        detached: shared_mounts(request.share_shm, pod)?,
        stdio,
        join: membership.joined,
        options: CreateOptions {
            defers_lookup: true,
            ..CreateOptions::default()
        },
    })?;
    let seccomp = plan.seccomp().cloned();
    Ok(Planned {
        plan,
        kept: Kept {
            ends,
            log_path,
            seccomp,
        },
    })
}

fn check_spec(spec: &Spec, pod: &Pod) -> Result<(), RequestError> {
    let linux = spec.linux().as_ref().ok_or(RequestError::Missing("linux"))?;
    spec.process().as_ref().ok_or(RequestError::Missing("process"))?;
    if spec.hostname().as_ref().is_some_and(|name| !name.is_empty()) {
        return Err(RequestError::OfPod("hostname"));
    }
    if linux.sysctl().as_ref().is_some_and(|sysctls| !sysctls.is_empty()) {
        return Err(RequestError::OfPod("linux.sysctl"));
    }
    let path = linux
        .cgroups_path()
        .as_ref()
        .ok_or(RequestError::Missing("linux.cgroupsPath"))?;
    let below = path.starts_with(pod.cgroup_path()) && path != pod.cgroup_path();
    if below {
        Ok(())
    } else {
        Err(RequestError::Cgroup {
            path: path.clone(),
            pod: pod.cgroup_path().into(),
        })
    }
}

/// Takes out of the specification what the pod decides on.
fn leave_to_pod(spec: &mut Spec, membership: &Membership) {
    let Some(linux) = spec.linux_mut() else { return };
    let namespaces = linux.namespaces_mut().get_or_insert_default();
    namespaces.retain(|namespace| !membership.decides(kind_of(namespace.typ())));
    if membership.own.contains(Namespaces::PID) {
        let mut own = LinuxNamespace::default();
        own.set_typ(LinuxNamespaceType::Pid);
        namespaces.push(own);
    }
}

fn root(overlay: Option<Overlay>, spec: &Spec, bundle: &std::path::Path) -> Result<RootSource, RequestError> {
    let Some(overlay) = overlay else {
        let root = spec.root().as_ref().ok_or(RequestError::Missing("root"))?;
        return Ok(RootSource::Path(bundle.join(root.path())));
    };
    if overlay.lower.is_empty() {
        return Err(RequestError::NoLayer);
    }
    Ok(RootSource::Overlay {
        store: absolute("overlay.store", overlay.store)?,
        lower: overlay.lower.into_iter().map(PathBuf::from).collect(),
        upper: absolute("overlay.upper", overlay.upper)?,
        work: absolute("overlay.work", overlay.work)?,
    })
}

fn shared_mounts(wanted: bool, pod: &Pod) -> Result<Vec<DetachedMount>, RequestError> {
    if !wanted {
        return Ok(Vec::new());
    }
    let mount = pod.clone_shm()?.ok_or(RequestError::NoShm)?;
    Ok(vec![DetachedMount {
        destination: "/dev/shm".into(),
        mount,
    }])
}
