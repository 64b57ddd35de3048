//! StartContainer: lets a created container execute its program.

use std::sync::Arc;
use std::time::Duration;

use coracle_cri_api::runtime_v1::{StartContainerRequest, StartContainerResponse};

use super::Failure;
use super::request::{find_container, to_the_end};
use crate::daemon::Daemon;
use crate::pods::{Container, Progress};
use crate::steps::{Operation, Step};

/// How long the end of a container may take whose program could not be executed.
const END: Duration = Duration::from_secs(2);

pub(super) const OPERATION: Operation<Work, Failure> = Operation {
    name: "start_container",
    steps: &[
        Step {
            name: "start",
            run: |w| Box::pin(w.start()),
            undo: None,
        },
        Step {
            name: "record",
            run: |w| Box::pin(w.save_record()),
            undo: None,
        },
    ],
};

/// A container that is about to run. Nothing has to be undone: a program that could not be executed has ended, and that
/// is its state.
pub(super) struct Work {
    daemon: Arc<Daemon>,
    container: Arc<Container>,
    started_at: i64,
}

pub(super) async fn start_container(
    daemon: Arc<Daemon>,
    request: StartContainerRequest,
) -> Result<StartContainerResponse, Failure> {
    let container = find_container(&daemon, &request.container_id)?;
    to_the_end(async move {
        let _shared = container.sandbox.lifecycle.read().await;
        let _alone = container.lifecycle.lock().await;
        match container.progress() {
            _ if container.is_being_removed() => return Err(wrong_state(&container, "created")),
            Progress::Created => {}
            // The same request again, after its answer was lost.
            Progress::Running { .. } => return Ok(StartContainerResponse {}),
            Progress::Exited => return Err(wrong_state(&container, "created")),
        }
        let id = container.id.clone();
        let mut work = Work {
            daemon: Arc::clone(&daemon),
            container: Arc::clone(&container),
            started_at: 0,
        };
        daemon.runner.run(&OPERATION, &id, &mut work).await?;
        Ok(StartContainerResponse {})
    })
    .await
}

/// The error of a request that another state forbids.
pub(super) fn wrong_state(container: &Container, wanted: &'static str) -> Failure {
    let state = match container.progress() {
        _ if container.is_being_removed() => "being removed",
        Progress::Created => "created",
        Progress::Running { .. } => "running",
        Progress::Exited => "exited",
    };
    Failure::ContainerState {
        id: container.id.clone(),
        state,
        wanted,
    }
}

impl Work {
    async fn start(&mut self) -> Result<(), Failure> {
        let sandbox = &self.container.sandbox;
        let Some(shim) = sandbox.shim() else {
            return Err(Failure::SandboxNotReady {
                id: sandbox.id.clone(),
            });
        };
        let started = match shim.client.start_container(&self.container.id).await {
            Ok(started) => started,
            Err(error) => {
                // Whoever asks next is to find it ended (reason StartError); what comes is no more than its collection.
                let _ = tokio::time::timeout(END, self.container.ended()).await;
                return Err(error.into());
            }
        };
        self.started_at = started.started_at;
        Ok(())
    }

    async fn save_record(&mut self) -> Result<(), Failure> {
        let started_at = self.started_at;
        Ok(self.container.start(&self.daemon.store, started_at)?)
    }
}
