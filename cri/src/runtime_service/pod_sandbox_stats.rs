//! PodSandboxStats: the figures of one pod.

use std::sync::Arc;

use coracle_cri_api::runtime_v1::{PodSandboxStatsRequest, PodSandboxStatsResponse};

use super::Failure;
use super::request::find_sandbox;
use crate::daemon::Daemon;
use crate::stats;

pub(super) async fn pod_sandbox_stats(
    daemon: Arc<Daemon>,
    request: PodSandboxStatsRequest,
) -> Result<PodSandboxStatsResponse, Failure> {
    let sandbox = find_sandbox(&daemon, &request.pod_sandbox_id)?;
    if !sandbox.is_ready() {
        return Err(Failure::SandboxNotReady {
            id: sandbox.id.clone(),
        });
    }
    Ok(PodSandboxStatsResponse {
        stats: Some(stats::pod(daemon.figures(), &sandbox)),
    })
}
