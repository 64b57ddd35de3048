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
//!    (sysctls of interfaces come later, when a network has been attached: SetInterfaceSysctls)
//!    init_ready  it cannot be looked into any more
//! ```

mod bare_root;
pub(crate) mod init;
mod namespaces;
mod netns;
mod plan;
mod shared_mounts;
mod sysctl;

use std::os::fd::OwnedFd;
use std::path::Path;

use coracle_linux::cgroup::{Cgroup, CgroupError};

use crate::call::Refused;
use crate::own_cgroup::{self, OwnCgroup, OwnCgroupError};
use crate::reaper::{Claim, Reaper};
use crate::trace::Trace;
use init::{Init, InitError};
pub(crate) use namespaces::Membership;
use namespaces::NamespacesError;
use netns::{BoundNetns, NetnsError};
pub(crate) use plan::{PidMode, PodPlan, PodPlanError, absolute};
use shared_mounts::{SharedMounts, SharedMountsError};

/// Why a pod could not be started or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PodError {
    #[error("pod's cgroup")]
    MakeCgroup(#[from] OwnCgroupError),
    #[error("remove the pod's cgroup")]
    RemoveCgroup(#[source] CgroupError),
    #[error(transparent)]
    Namespaces(#[from] NamespacesError),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Shared(#[from] SharedMountsError),
    #[error(transparent)]
    Init(#[from] InitError),
}

impl From<PodError> for Refused {
    fn from(error: PodError) -> Self {
        Self::failed(error)
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
        let begin = |step| trace.begin("StartPod", step, &id);
        let step = begin("cgroup");
        self.cgroup = Some(step.end(own_cgroup::make(&self.plan.cgroup))?);
        let step = begin("namespaces");
        step.end(namespaces::make(&self.plan))?;
        if self.plan.pid == PidMode::Pod {
            let step = begin("init");
            step.end(self.spawn_init())?;
        }
        let step = begin("sysctls");
        step.end(namespaces::set_up(&self.plan))?;
        if let Some(path) = &self.plan.netns_path {
            let step = begin("netns");
            self.netns = Some(step.end(BoundNetns::bind(path))?);
        }
        if let Some(size) = self.plan.shm_size {
            let step = begin("shm");
            self.shared = Some(step.end(SharedMounts::make(size))?);
        }
        if let Some(init) = &mut self.init {
            let step = begin("init_ready");
            step.end(init.ready().await)?;
        }
        Ok(())
    }

    pub(crate) fn has_interface_sysctls(&self) -> bool {
        !self.plan.interface_sysctls.is_empty()
    }

    /// Once somebody has made the pod's interfaces.
    pub(crate) fn set_interface_sysctls(&self) -> Result<(), PodError> {
        Ok(namespaces::set_up_interfaces(&self.plan)?)
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

    /// How a container comes into the pod's namespaces.
    pub(crate) fn membership(&self) -> Result<Membership, PodError> {
        Ok(Membership::of(&self.plan, self.init.as_ref())?)
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

    fn spawn_init(&mut self) -> Result<(), PodError> {
        let cgroup = OwnCgroup::make(&self.plan.cgroup.join(&self.plan.id))?;
        let init = Init::spawn(&cgroup);
        self.init_cgroup = Some(cgroup.into_cgroup());
        self.init = Some(init?);
        Ok(())
    }
}
