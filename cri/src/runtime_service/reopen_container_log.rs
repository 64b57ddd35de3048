//! ReopenContainerLog: the kubelet has renamed the log file; the new one exists when this returns.

use std::sync::Arc;

use coracle_cri_api::runtime_v1::{ReopenContainerLogRequest, ReopenContainerLogResponse};

use super::Failure;
use super::request::find_container;
use super::start_container::wrong_state;
use crate::daemon::Daemon;
use crate::pods::Progress;

pub(super) async fn reopen_container_log(
    daemon: Arc<Daemon>,
    request: ReopenContainerLogRequest,
) -> Result<ReopenContainerLogResponse, Failure> {
    let container = find_container(&daemon, &request.container_id)?;
    let running = matches!(container.progress(), Progress::Running { .. });
    let Some(shim) = container.sandbox.shim().filter(|_| running) else {
        // The kubelet then removes the name it rotated to.
        return Err(wrong_state(&container, "running"));
    };
    shim.client.reopen_log(&container.id).await?;
    Ok(ReopenContainerLogResponse {})
}
