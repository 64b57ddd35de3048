//! StopPodSandbox: ends every container, gives back the network, lets the shim go. Can be repeated; a pod that is not
//! known is stopped.

use std::sync::Arc;
use std::time::Duration;

use coracle_cri_api::runtime_v1::{StopPodSandboxRequest, StopPodSandboxResponse};
use coracle_shim_api::RpcError;

use super::Failure;
use super::request::{if_there, known_sandbox};
use crate::daemon::Daemon;
use crate::network::HostLinks;
use crate::pods::Sandbox;
use crate::shims::{self, dead};
use crate::steps::{Operation, Step};
use crate::store::SandboxPhase;

/// Processes that were killed leave at once, unless the kernel holds them.
const LEAVE: Duration = Duration::from_secs(10);

pub(super) const OPERATION: Operation<Work, Failure> = Operation {
    name: "stop_pod_sandbox",
    steps: &[
        Step {
            name: "record",
            run: |w| Box::pin(w.save_record()),
            undo: None,
        },
        Step {
            name: "containers",
            run: |w| Box::pin(w.end_containers()),
            undo: None,
        },
        Step {
            name: "network",
            run: |w| Box::pin(w.detach()),
            undo: None,
        },
        Step {
            name: "shim",
            run: |w| Box::pin(w.end_shim()),
            undo: None,
        },
    ],
};

/// A pod on its way out.
pub(super) struct Work {
    daemon: Arc<Daemon>,
    sandbox: Arc<Sandbox>,
    /// What has to go with the network namespace.
    links: Option<HostLinks>,
}

pub(super) async fn stop_pod_sandbox(
    daemon: Arc<Daemon>,
    request: StopPodSandboxRequest,
) -> Result<StopPodSandboxResponse, Failure> {
    let found = known_sandbox(&daemon, &request.pod_sandbox_id)?;
    if_there(found, async move |sandbox| {
        let _alone = sandbox.hold_to_end().await;
        stop(&daemon, &sandbox).await
    })
    .await?;
    Ok(StopPodSandboxResponse {})
}

/// The caller holds the sandbox alone.
pub(super) async fn stop(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>) -> Result<(), Failure> {
    let nothing_left =
        sandbox.with_record(|record| record.phase() != SandboxPhase::Ready && !record.attached);
    if nothing_left && sandbox.shim().is_none() {
        return Ok(());
    }
    let mut work = Work {
        daemon: Arc::clone(daemon),
        sandbox: Arc::clone(sandbox),
        links: None,
    };
    daemon.runner.run(&OPERATION, &sandbox.id, &mut work).await
}

impl Work {
    async fn end_containers(&mut self) -> Result<(), Failure> {
        let Some(shim) = self.sandbox.shim() else {
            return Ok(());
        };
        match shim.client.stop_pod().await {
            Ok(()) => {}
            // It died under our hands; whoever watches it waits for the lock that we hold.
            Err(RpcError::Closed(_)) => self.daemon.shims.end_containers(&self.sandbox).await,
            // It hangs, and does not only wait for a process that the kernel holds: the pod ends without it.
            Err(RpcError::Silent { .. }) if shim.client.state().await.is_err() => {
                tracing::warn!(
                    sandbox = self.sandbox.id,
                    pid = shim.pid,
                    "the shim is silent; killing it"
                );
                shims::kill(shim.pid);
                self.daemon.shims.end_containers(&self.sandbox).await;
            }
            Err(error) => return Err(error.into()),
        }
        for container in self.daemon.pods.containers_of(&self.sandbox.id) {
            if tokio::time::timeout(LEAVE, container.ended()).await.is_err() {
                return Err(Failure::StillRunning {
                    id: container.id.clone(),
                });
            }
        }
        Ok(())
    }

    /// Before what can fail: a pod that has begun to end is not ready, whether its containers and its network go or not.
    async fn save_record(&mut self) -> Result<(), Failure> {
        Ok(self.sandbox.save_not_ready(&self.daemon.store)?)
    }

    async fn detach(&mut self) -> Result<(), Failure> {
        let record = self.sandbox.record();
        if !record.attached {
            return Ok(());
        }
        self.links = Some(HostLinks::of(&record));
        self.daemon.network.detach(&record).await?;
        self.sandbox
            .save(&self.daemon.store, |record| record.attached = false)?;
        Ok(())
    }

    async fn end_shim(&mut self) -> Result<(), Failure> {
        let record = self.sandbox.record();
        let left = match self.sandbox.take_shim() {
            Some(shim) => shims::shut_down(&shim).await,
            None => false,
        };
        if !left {
            self.daemon.shims.end_containers(&self.sandbox).await;
            self.daemon.shims.clean_up(&record).await;
        }
        dead::unbind(&record.netns_path);
        self.daemon.shims.release_cgroups(&record);
        if let Some(links) = self.links.take() {
            tokio::spawn(links.gone());
        }
        Ok(())
    }
}
