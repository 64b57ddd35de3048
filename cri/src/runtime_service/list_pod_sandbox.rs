//! ListPodSandbox, from memory.

use std::sync::Arc;

use coracle_cri_api::runtime_v1::{
    ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox, PodSandboxFilter, PodSandboxState,
};

use super::{Failure, labels};
use crate::daemon::Daemon;
use crate::pods::Sandbox;

pub(super) async fn list_pod_sandbox(
    daemon: Arc<Daemon>,
    request: ListPodSandboxRequest,
) -> Result<ListPodSandboxResponse, Failure> {
    let filter = request.filter.unwrap_or_default();
    let all = daemon.pods.sandboxes();
    let wanted = all.iter().filter(|sandbox| matches(sandbox, &filter));
    Ok(ListPodSandboxResponse {
        items: wanted.map(|sandbox| item(sandbox)).collect(),
    })
}

/// READY as long as containers can be made in it.
pub(super) fn state(sandbox: &Sandbox) -> PodSandboxState {
    match sandbox.is_ready() {
        true => PodSandboxState::SandboxReady,
        false => PodSandboxState::SandboxNotready,
    }
}

fn matches(sandbox: &Sandbox, filter: &PodSandboxFilter) -> bool {
    let state = state(sandbox);
    let has_state = filter.state.as_ref().is_none_or(|wanted| wanted.state() == state);
    has_state
        && sandbox.with_record(|record| {
            record.id.starts_with(&filter.id)
                && labels::matches(&filter.label_selector, &record.config.labels)
        })
}

fn item(sandbox: &Sandbox) -> PodSandbox {
    let state = state(sandbox);
    sandbox.with_record(|record| PodSandbox {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state: state.into(),
        created_at: record.created_at,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        runtime_handler: record.runtime_handler.clone(),
    })
}
