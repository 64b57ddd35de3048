//! RemovePodSandbox: stops what runs, removes the containers, forgets the pod. A pod that is not known is removed.

use std::sync::Arc;

use coracle_cri_api::runtime_v1::{RemovePodSandboxRequest, RemovePodSandboxResponse};

use super::request::{if_there, known_sandbox};
use super::{Failure, files, remove_container, stop_pod_sandbox};
use crate::daemon::Daemon;
use crate::pods::Sandbox;
use crate::steps::{Operation, Step};
use crate::store::{SandboxPhase, SandboxRecord};

pub(super) const OPERATION: Operation<Work, Failure> = Operation {
    name: "remove_pod_sandbox",
    steps: &[
        Step {
            name: "record",
            run: |w| Box::pin(w.save_record()),
            undo: None,
        },
        Step {
            name: "stop",
            run: |w| Box::pin(w.stop()),
            undo: None,
        },
        Step {
            name: "containers",
            run: |w| Box::pin(w.remove_containers()),
            undo: None,
        },
        Step {
            name: "directories",
            run: |w| Box::pin(w.remove_directories()),
            undo: None,
        },
        Step {
            name: "forget",
            run: |w| Box::pin(w.forget()),
            undo: None,
        },
    ],
};

/// A pod that will be forgotten.
pub(super) struct Work {
    daemon: Arc<Daemon>,
    sandbox: Arc<Sandbox>,
}

pub(super) async fn remove_pod_sandbox(
    daemon: Arc<Daemon>,
    request: RemovePodSandboxRequest,
) -> Result<RemovePodSandboxResponse, Failure> {
    let found = known_sandbox(&daemon, &request.pod_sandbox_id)?;
    if_there(found, async move |sandbox| finish(&daemon, &sandbox).await).await?;
    Ok(RemovePodSandboxResponse {})
}

/// Removes the pod, wherever an earlier attempt ended.
pub(crate) async fn finish(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>) -> Result<(), Failure> {
    let _alone = sandbox.hold_to_end().await;
    // Somebody else may have removed it while we waited.
    if daemon.pods.sandbox(&sandbox.id).is_none() {
        return Ok(());
    }
    let mut work = Work {
        daemon: Arc::clone(daemon),
        sandbox: Arc::clone(sandbox),
    };
    daemon.runner.run(&OPERATION, &sandbox.id, &mut work).await
}

impl Work {
    async fn save_record(&mut self) -> Result<(), Failure> {
        let removing = |record: &mut SandboxRecord| record.set_phase(SandboxPhase::Removing);
        self.sandbox.save(&self.daemon.store, removing)?;
        Ok(())
    }

    async fn stop(&mut self) -> Result<(), Failure> {
        stop_pod_sandbox::stop(&self.daemon, &self.sandbox).await
    }

    async fn remove_containers(&mut self) -> Result<(), Failure> {
        for container in self.daemon.pods.containers_of(&self.sandbox.id) {
            remove_container::remove(&self.daemon, &container).await?;
        }
        Ok(())
    }

    async fn remove_directories(&mut self) -> Result<(), Failure> {
        files::remove_all(&self.daemon.pod_directory(&self.sandbox.id)).await
    }

    async fn forget(&mut self) -> Result<(), Failure> {
        self.sandbox.forget(&self.daemon.store)?;
        self.daemon.pods.remove_sandbox(&self.sandbox.id);
        Ok(())
    }
}
