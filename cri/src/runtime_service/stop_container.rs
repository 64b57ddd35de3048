//! StopContainer: the stop signal, a grace period, then SIGKILL for every process. Can be repeated; a container that is
//! not known is stopped.

use std::sync::Arc;
use std::time::Duration;

use coracle_cri_api::runtime_v1::{StopContainerRequest, StopContainerResponse};
use coracle_shim_api::{Code, RpcError};

use super::Failure;
use super::request::{if_there, known_container};
use crate::daemon::Daemon;
use crate::pods::{Container, Progress, Shim};
use crate::steps::{Operation, Step};

const SIGKILL: i32 = 9;
/// A killed process leaves at once, unless the kernel holds it.
const LEAVE: Duration = Duration::from_secs(10);

pub(super) const OPERATION: Operation<Work, Failure> = Operation {
    name: "stop_container",
    steps: &[
        Step {
            name: "signal",
            run: |w| Box::pin(w.signal()),
            undo: None,
        },
        Step {
            name: "kill",
            run: |w| Box::pin(w.kill()),
            undo: None,
        },
    ],
};

/// A container that is asked to end.
pub(super) struct Work {
    container: Arc<Container>,
    grace: Duration,
}

pub(super) async fn stop_container(
    daemon: Arc<Daemon>,
    request: StopContainerRequest,
) -> Result<StopContainerResponse, Failure> {
    let seconds = u64::try_from(request.timeout).map_err(|_| Failure::Invalid {
        field: "timeout",
        value: request.timeout.to_string(),
        wants: "cannot be negative",
    })?;
    let found = known_container(&daemon, &request.container_id)?;
    let grace = Duration::from_secs(seconds);
    if_there(found, async move |container| {
        stop(&daemon, &container, grace).await
    })
    .await?;
    Ok(StopContainerResponse {})
}

/// Not under the container's lock: a second request with a shorter grace period must not wait for the first.
async fn stop(daemon: &Arc<Daemon>, container: &Arc<Container>, grace: Duration) -> Result<(), Failure> {
    if container.progress() == Progress::Exited {
        return Ok(());
    }
    let mut work = Work {
        container: Arc::clone(container),
        grace,
    };
    daemon.runner.run(&OPERATION, &container.id, &mut work).await
}

impl Work {
    async fn signal(&mut self) -> Result<(), Failure> {
        let running = matches!(self.container.progress(), Progress::Running { .. });
        let Some(shim) = self
            .container
            .sandbox
            .shim()
            .filter(|_| running && !self.grace.is_zero())
        else {
            return Ok(());
        };
        let signal = self.container.with_record(|record| record.stop_signal);
        self.send(&shim, signal, false).await?;
        // Either way: the next step looks.
        let _ = tokio::time::timeout(self.grace, self.container.ended()).await;
        Ok(())
    }

    async fn kill(&mut self) -> Result<(), Failure> {
        if self.container.progress() == Progress::Exited {
            return Ok(());
        }
        if let Some(shim) = self.container.sandbox.shim() {
            self.send(&shim, SIGKILL, true).await?;
        }
        tokio::time::timeout(LEAVE, self.container.ended())
            .await
            .map_err(|_| Failure::StillRunning {
                id: self.container.id.clone(),
            })
    }

    /// A shim that dies meanwhile ends its containers too, and the container is about to be reported.
    async fn send(&self, shim: &Shim, signal: i32, all: bool) -> Result<(), Failure> {
        match shim.client.kill_container(&self.container.id, signal, all).await {
            Err(error) if !error.is(Code::NOT_FOUND) && !matches!(error, RpcError::Closed(_)) => {
                Err(error.into())
            }
            _ => Ok(()),
        }
    }
}
