//! ListContainerStats: the figures of running containers.

use std::sync::Arc;

use coracle_cri_api::runtime_v1::{
    ContainerStatsFilter, ListContainerStatsRequest, ListContainerStatsResponse,
};

use super::{Failure, labels};
use crate::daemon::Daemon;
use crate::pods::{Container, Progress};
use crate::stats;

pub(super) async fn list_container_stats(
    daemon: Arc<Daemon>,
    request: ListContainerStatsRequest,
) -> Result<ListContainerStatsResponse, Failure> {
    let filter = request.filter.unwrap_or_default();
    let all = daemon.pods.containers();
    let wanted = all.iter().filter(|container| matches(container, &filter));
    Ok(ListContainerStatsResponse {
        stats: wanted
            .map(|container| stats::container(daemon.figures(), container))
            .collect(),
    })
}

fn matches(container: &Container, filter: &ContainerStatsFilter) -> bool {
    matches!(container.progress(), Progress::Running { .. })
        && container.with_record(|record| {
            record.id.starts_with(&filter.id)
                && record.sandbox_id.starts_with(&filter.pod_sandbox_id)
                && labels::matches(&filter.label_selector, &record.config.labels)
        })
}
