//! ListPodSandboxStats: the figures of pods that are ready.

use std::sync::Arc;

use coracle_cri_api::runtime_v1::{
    ListPodSandboxStatsRequest, ListPodSandboxStatsResponse, PodSandboxStatsFilter,
};

use super::{Failure, labels};
use crate::daemon::Daemon;
use crate::pods::Sandbox;
use crate::stats;

pub(super) async fn list_pod_sandbox_stats(
    daemon: Arc<Daemon>,
    request: ListPodSandboxStatsRequest,
) -> Result<ListPodSandboxStatsResponse, Failure> {
    let filter = request.filter.unwrap_or_default();
    let all = daemon.pods.sandboxes();
    let wanted = all
        .iter()
        .filter(|sandbox| sandbox.is_ready() && matches(sandbox, &filter));
    Ok(ListPodSandboxStatsResponse {
        stats: wanted
            .map(|sandbox| stats::pod(daemon.figures(), sandbox))
            .collect(),
    })
}

fn matches(sandbox: &Sandbox, filter: &PodSandboxStatsFilter) -> bool {
    sandbox.with_record(|record| {
        record.id.starts_with(&filter.id) && labels::matches(&filter.label_selector, &record.config.labels)
    })
}
