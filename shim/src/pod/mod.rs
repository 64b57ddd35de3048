//! The pod: what its containers share, held by the shim.
//!
//! ```text
//!  StartPod                                                            undone by remove(), in reverse, never stopping early
//!    cgroup      the pod's, parent of the containers'                    removed if it is ours
//!    namespaces  unshare(NEWNET|NEWIPC|NEWUTS): the shim itself moves,   end with the shim
//!                so its children inherit them and nothing is joined
//!    init        PID 1, only with pid mode POD; gets ready meanwhile     killed, and with it all of its namespace
//!    sysctls     lo up, host name, sysctls: written from inside
//!    netns       bind mount for CNI                                      unmounted, unlinked
//!    shm         mount namespace that holds /dev/shm                     ends with its descriptor
//!    init_ready  it cannot be looked into any more
//! ```

mod bare_root;
pub(crate) mod init;
mod netns;
mod shared_mounts;
mod sysctl;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use coracle_linux::link;
use coracle_linux::namespace::{self, Namespaces};
use coracle_linux::netlink::NetlinkError;
use coracle_runtime::cgroup::{Cgroup, CgroupError};
use coracle_shim_api::pod::{NamespaceMode, StartPodRequest};

use crate::call::Refused;
use crate::own_cgroup::{self, OwnCgroup, OwnCgroupError};
use crate::reaper::{Claim, Reaper};
use crate::trace::Trace;
use init::{Init, InitError};
use netns::{BoundNetns, NetnsError};
use shared_mounts::{SharedMounts, SharedMountsError};
use sysctl::{ApplyError, Sysctl, SysctlError};

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
    id: String,
    hostname: Option<String>,
    /// `None`: the host's network.
    netns_path: Option<PathBuf>,
    /// Bytes; `None`: the host's ipc namespace and /dev/shm.
    shm_size: Option<u64>,
    pid: PidMode,
    sysctls: Vec<Sysctl>,
    cgroup: PathBuf,
    remove_cgroup: bool,
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

/// Why a pod could not be started or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PodError {
    #[error("pod's cgroup")]
    MakeCgroup(#[from] OwnCgroupError),
    #[error("remove the pod's cgroup")]
    RemoveCgroup(#[source] CgroupError),
    #[error("make the pod's namespaces")]
    Unshare(#[source] io::Error),
    #[error("set the loopback interface up")]
    Loopback(#[from] NetlinkError),
    #[error("set the host name {name:?}")]
    Hostname { name: String, source: io::Error },
    #[error(transparent)]
    Sysctl(#[from] ApplyError),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Shared(#[from] SharedMountsError),
    #[error(transparent)]
    Init(#[from] InitError),
}

impl From<PodPlanError> for Refused {
    fn from(error: PodPlanError) -> Self {
        Self::invalid(error)
    }
}

impl From<PodError> for Refused {
    fn from(error: PodError) -> Self {
        Self::failed(error)
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
            .map(|(name, value)| Sysctl::plan(name, value, own));
        Ok(Self {
            hostname: hostname(request.hostname.clone())?,
            netns_path: netns_path(request.netns_path, network)?,
            shm_size: ipc.then_some(if request.shm_size == 0 {
                DEFAULT_SHM_SIZE
            } else {
                request.shm_size
            }),
            pid: pid_mode(request.pid.enum_value())?,
            sysctls: sysctls.collect::<Result<_, _>>()?,
            cgroup: absolute("pod_cgroup", request.pod_cgroup)?,
            remove_cgroup: request.remove_pod_cgroup,
            id: request.sandbox_id,
        })
    }
}

/// A pod, started or partly so.
pub(crate) struct Pod {
    plan: PodPlan,
    cgroup: Option<Cgroup>,
    init_cgroup: Option<Cgroup>,
    netns: Option<BoundNetns>,
    shared: Option<SharedMounts>,
    init: Option<Init>,
    init_claim: Option<Claim>,
}

impl Pod {
    /// Does all steps, or undoes those that were done.
    pub(crate) async fn start(plan: PodPlan, trace: &Trace) -> Result<Self, PodError> {
        let mut pod = Self {
            plan,
            cgroup: None,
            init_cgroup: None,
            netns: None,
            shared: None,
            init: None,
            init_claim: None,
        };
        match pod.steps(trace).await {
            Ok(()) => Ok(pod),
            Err(error) => {
                // What cannot be undone either has nothing to add to why it failed.
                let _ = pod.remove().await;
                Err(error)
            }
        }
    }

    async fn steps(&mut self, trace: &Trace) -> Result<(), PodError> {
        let id = self.plan.id.clone();
        {
            let _span = trace.span("StartPod.cgroup", &id);
            self.cgroup = Some(own_cgroup::make(&self.plan.cgroup)?);
        }
        {
            let _span = trace.span("StartPod.namespaces", &id);
            namespace::unshare(self.namespaces()).map_err(PodError::Unshare)?;
        }
        if self.plan.pid == PidMode::Pod {
            let _span = trace.span("StartPod.init", &id);
            self.spawn_init()?;
        }
        {
            let _span = trace.span("StartPod.sysctls", &id);
            self.set_up_namespaces()?;
        }
        if let Some(path) = &self.plan.netns_path {
            let _span = trace.span("StartPod.netns", &id);
            self.netns = Some(BoundNetns::bind(path)?);
        }
        if let Some(size) = self.plan.shm_size {
            let _span = trace.span("StartPod.shm", &id);
            self.shared = Some(SharedMounts::make(size)?);
        }
        if let Some(init) = &mut self.init {
            let _span = trace.span("StartPod.init_ready", &id);
            init.ready().await?;
        }
        Ok(())
    }

    /// Those that are the pod's own.
    pub(crate) fn namespaces(&self) -> Namespaces {
        let mut own = Namespaces::empty();
        own.set(Namespaces::NET, self.plan.netns_path.is_some());
        own.set(Namespaces::IPC, self.plan.shm_size.is_some());
        own.set(Namespaces::UTS, self.plan.hostname.is_some());
        own
    }

    pub(crate) fn pid_mode(&self) -> PidMode {
        self.plan.pid
    }

    pub(crate) fn cgroup_path(&self) -> &Path {
        &self.plan.cgroup
    }

    /// The host's id of the pod's PID 1, 0 without one.
    pub(crate) fn init_pid(&self) -> u32 {
        self.init
            .as_ref()
            .map_or(0, |init| init.pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Keeps the reaper's hands off the init, which has an owner.
    pub(crate) fn claim_init(&mut self, reaper: &Reaper) {
        self.init_claim = self.init.as_ref().map(|init| reaper.claim(init.pid));
    }

    /// The PID namespace that containers join; `None` unless the mode is POD.
    pub(crate) fn pid_namespace(&self) -> Result<Option<OwnedFd>, PodError> {
        Ok(self.init.as_ref().map(Init::namespace).transpose()?)
    }

    /// A clone of the pod's /dev/shm; `None` when it has none.
    pub(crate) fn clone_shm(&self) -> Result<Option<OwnedFd>, PodError> {
        Ok(self.shared.as_ref().map(SharedMounts::clone_shm).transpose()?)
    }

    /// Ends the pod's init. The containers have ended before.
    pub(crate) async fn stop(&mut self) -> Result<(), PodError> {
        if let Some(init) = self.init.take() {
            init.kill().await?;
        }
        self.init_claim = None;
        if let Some(cgroup) = self.init_cgroup.take() {
            own_cgroup::remove(&cgroup)
                .await
                .map_err(PodError::RemoveCgroup)?;
        }
        Ok(())
    }

    /// Undoes every step, in reverse; goes on after a failure and reports the first.
    pub(crate) async fn remove(&mut self) -> Result<(), PodError> {
        let stopped = self.stop().await;
        // `shared` ends with the shim, after its answer: to free a large /dev/shm takes long.
        let unbound = self
            .netns
            .take()
            .map_or(Ok(()), |netns| netns.remove().map_err(PodError::from));
        let removed = match self.cgroup.take().filter(|_| self.plan.remove_cgroup) {
            Some(cgroup) => own_cgroup::remove(&cgroup).await.map_err(PodError::RemoveCgroup),
            None => Ok(()),
        };
        stopped.and(unbound).and(removed)
    }

    fn set_up_namespaces(&self) -> Result<(), PodError> {
        if let Some(name) = &self.plan.hostname {
            rustix::system::sethostname(name.as_bytes()).map_err(|errno| PodError::Hostname {
                name: name.clone(),
                source: errno.into(),
            })?;
        }
        if self.plan.netns_path.is_some() {
            link::lo_up()?;
            for sysctl in Sysctl::of_every_network() {
                sysctl.apply()?;
            }
        }
        for sysctl in &self.plan.sysctls {
            sysctl.apply()?;
        }
        Ok(())
    }

    fn spawn_init(&mut self) -> Result<(), PodError> {
        let cgroup = OwnCgroup::make(&self.plan.cgroup.join(&self.plan.id))?;
        let init = Init::spawn(&cgroup);
        self.init_cgroup = Some(cgroup.into_cgroup());
        self.init = Some(init?);
        Ok(())
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
        .any(|part| part == std::path::Component::ParentDir);
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
