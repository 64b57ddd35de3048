//! ContainerStats: the figures of one container.

use std::sync::Arc;

use coracle_cri_api::runtime_v1::{ContainerStatsRequest, ContainerStatsResponse};

use super::Failure;
use super::request::find_container;
use crate::daemon::Daemon;
use crate::stats;

pub(super) async fn container_stats(
    daemon: Arc<Daemon>,
    request: ContainerStatsRequest,
) -> Result<ContainerStatsResponse, Failure> {
    let container = find_container(&daemon, &request.container_id)?;
    Ok(ContainerStatsResponse {
        stats: Some(stats::container(daemon.figures(), &container)),
    })
}
