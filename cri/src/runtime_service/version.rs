//! Version: who answers here.

use std::sync::Arc;

use coracle_cri_api::runtime_v1::{VersionRequest, VersionResponse};

use super::Failure;
use crate::daemon::Daemon;

/// Of the kubelet's runtime API; the other runtimes say the same.
const KUBELET_API: &str = "0.1.0";

pub(super) async fn version(_: Arc<Daemon>, _: VersionRequest) -> Result<VersionResponse, Failure> {
    Ok(VersionResponse {
        version: KUBELET_API.to_owned(),
        runtime_name: "coracle".to_owned(),
        runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
        runtime_api_version: "v1".to_owned(),
    })
}
