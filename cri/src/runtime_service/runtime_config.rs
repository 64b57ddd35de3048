//! RuntimeConfig: the cgroup driver that the kubelet has to use.

use std::sync::Arc;

use coracle_cri_api::runtime_v1::{
    CgroupDriver, LinuxRuntimeConfiguration, RuntimeConfigRequest, RuntimeConfigResponse,
};

use super::Failure;
use crate::daemon::Daemon;

pub(super) async fn runtime_config(
    _: Arc<Daemon>,
    _: RuntimeConfigRequest,
) -> Result<RuntimeConfigResponse, Failure> {
    let linux = LinuxRuntimeConfiguration {
        cgroup_driver: CgroupDriver::Cgroupfs.into(),
    };
    Ok(RuntimeConfigResponse { linux: Some(linux) })
}
