//! `linux.resources.rdma`, where that hierarchy is mounted.

use std::collections::HashMap;

use oci_spec::runtime::LinuxRdma;

use crate::cgroup::SetupError;
use crate::cgroup::setting::Settings;

const FIELD: &str = "linux.resources.rdma";

pub(in crate::cgroup) fn v1(
    rdma: &HashMap<String, LinuxRdma>,
    settings: &mut Settings,
) -> Result<(), SetupError> {
    for (device, limit) in rdma {
        if device.is_empty() || device.contains(char::is_whitespace) {
            return Err(SetupError::Value {
                field: FIELD,
                value: device.clone(),
                reason: "a device name",
            });
        }
        let part =
            |name, value: Option<u32>| value.map(|value| format!(" {name}={value}")).unwrap_or_default();
        let handles = part("hca_handle", limit.hca_handles());
        let objects = part("hca_object", limit.hca_objects());
        if handles.is_empty() && objects.is_empty() {
            let reason = "neither hcaHandles nor hcaObjects is given";
            return Err(SetupError::Value {
                field: FIELD,
                value: device.clone(),
                reason,
            });
        }
        settings.set("rdma", FIELD, "rdma.max", format!("{device}{handles}{objects}"));
    }
    Ok(())
}
