//! ListContainers, from memory.

use std::sync::Arc;

use coracle_cri_api::runtime_v1::{
    Container as Item, ContainerFilter, ContainerState, ListContainersRequest, ListContainersResponse,
};

use super::{Failure, labels};
use crate::daemon::Daemon;
use crate::pods::{Container, Progress};

pub(super) async fn list_containers(
    daemon: Arc<Daemon>,
    request: ListContainersRequest,
) -> Result<ListContainersResponse, Failure> {
    let filter = request.filter.unwrap_or_default();
    let all = daemon.pods.containers();
    let wanted = all.iter().filter(|container| matches(container, &filter));
    Ok(ListContainersResponse {
        containers: wanted.map(|container| item(container)).collect(),
    })
}

/// What CRI calls the container's progress.
pub(super) fn state(container: &Container) -> ContainerState {
    match container.progress() {
        Progress::Created => ContainerState::ContainerCreated,
        Progress::Running { .. } => ContainerState::ContainerRunning,
        Progress::Exited => ContainerState::ContainerExited,
    }
}

fn matches(container: &Container, filter: &ContainerFilter) -> bool {
    container.with_record(|record| {
        record.id.starts_with(&filter.id)
            && record.sandbox_id.starts_with(&filter.pod_sandbox_id)
            && filter
                .state
                .as_ref()
                .is_none_or(|wanted| wanted.state() == state(container))
            && labels::matches(&filter.label_selector, &record.config.labels)
    })
}

fn item(container: &Container) -> Item {
    container.with_record(|record| Item {
        id: record.id.clone(),
        pod_sandbox_id: record.sandbox_id.clone(),
        metadata: record.config.metadata.clone(),
        image: record.config.image.clone(),
        image_ref: record.image_id.clone(),
        state: state(container).into(),
        created_at: record.created_at,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        image_id: record.image_id.clone(),
    })
}
