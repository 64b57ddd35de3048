//! UpdateRuntimeConfig: the node's pod CIDR. The network is configured by files, so there is nothing to do with it.

use std::sync::Arc;

use coracle_cri_api::runtime_v1::{UpdateRuntimeConfigRequest, UpdateRuntimeConfigResponse};

use super::Failure;
use crate::daemon::Daemon;

pub(super) async fn update_runtime_config(
    _: Arc<Daemon>,
    request: UpdateRuntimeConfigRequest,
) -> Result<UpdateRuntimeConfigResponse, Failure> {
    let network = request
        .runtime_config
        .and_then(|config| config.network_config)
        .unwrap_or_default();
    tracing::info!(
        pod_cidr = network.pod_cidr,
        "told of the pod CIDR; the CNI configuration decides"
    );
    Ok(UpdateRuntimeConfigResponse {})
}
