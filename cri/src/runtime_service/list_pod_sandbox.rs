//! ListPodSandbox, from memory.

use std::sync::Arc;

use coracle_cri::runtime_v1::{
    ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox, PodSandboxFilter, PodSandboxState,
};

use super::{Failure, labels};
use crate::daemon::Daemon;
use crate::pods::Sandbox;
use crate::store::{SandboxPhase, SandboxRecord};

pub(super) async fn list_pod_sandbox(
    daemon: Arc<Daemon>,
    request: ListPodSandboxRequest,
) -> Result<ListPodSandboxResponse, Failure> {
    let filter = request.filter.unwrap_or_default();
    let all = daemon.pods.sandboxes();
    let wanted = all.iter().filter(|sandbox| matches(sandbox, &filter));
    Ok(ListPodSandboxResponse {
        items: wanted.map(|sandbox| sandbox.with_record(item)).collect(),
    })
}

/// READY as long as containers can be made in it.
pub(super) fn state(record: &SandboxRecord) -> PodSandboxState {
    match record.phase() {
        SandboxPhase::Ready => PodSandboxState::SandboxReady,
        _ => PodSandboxState::SandboxNotready,
    }
}

fn matches(sandbox: &Sandbox, filter: &PodSandboxFilter) -> bool {
    sandbox.with_record(|record| {
        record.id.starts_with(&filter.id)
            && filter
                .state
                .as_ref()
                .is_none_or(|wanted| wanted.state() == state(record))
            && labels::matches(&filter.label_selector, &record.config.labels)
    })
}

fn item(record: &SandboxRecord) -> PodSandbox {
    PodSandbox {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state: state(record).into(),
        created_at: record.created_at,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        runtime_handler: record.runtime_handler.clone(),
    }
}
