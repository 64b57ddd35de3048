//! PodSandboxStatus, from memory.

use std::collections::HashMap;
use std::sync::Arc;

use coracle_cri_api::runtime_v1::{
    LinuxPodSandboxStatus, Namespace, PodIp, PodSandboxNetworkStatus, PodSandboxStatus,
    PodSandboxStatusRequest, PodSandboxStatusResponse,
};
use serde_json::{Value, json};

use super::request::find_sandbox;
use super::{Failure, container_status, list_pod_sandbox};
use crate::clock::now;
use crate::daemon::Daemon;
use crate::pods::Sandbox;
use crate::spec;
use crate::store::SandboxRecord;

pub(super) async fn pod_sandbox_status(
    daemon: Arc<Daemon>,
    request: PodSandboxStatusRequest,
) -> Result<PodSandboxStatusResponse, Failure> {
    let sandbox = find_sandbox(&daemon, &request.pod_sandbox_id)?;
    let containers = daemon.pods.containers_of(&sandbox.id);
    Ok(PodSandboxStatusResponse {
        status: Some(status(&sandbox)),
        info: if request.verbose {
            info(&sandbox)
        } else {
            HashMap::new()
        },
        containers_statuses: containers
            .iter()
            .map(|each| container_status::status(&daemon, each))
            .collect(),
        timestamp: now(),
    })
}

fn status(sandbox: &Sandbox) -> PodSandboxStatus {
    let state = list_pod_sandbox::state(sandbox);
    sandbox.with_record(|record| PodSandboxStatus {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state: state.into(),
        created_at: record.created_at,
        network: Some(network(record)),
        linux: Some(LinuxPodSandboxStatus {
            namespaces: Some(Namespace {
                options: Some(spec::namespace_options(&record.config)),
            }),
        }),
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        runtime_handler: record.runtime_handler.clone(),
    })
}

/// Empty for a pod on the host's network: its addresses are the node's.
fn network(record: &SandboxRecord) -> PodSandboxNetworkStatus {
    let mut ips = record.ips.iter().cloned();
    PodSandboxNetworkStatus {
        ip: ips.next().unwrap_or_default(),
        additional_ips: ips.map(|ip| PodIp { ip }).collect(),
    }
}

fn info(sandbox: &Sandbox) -> HashMap<String, String> {
    let record = sandbox.record();
    let result: Value = serde_json::from_str(&record.cni_result).unwrap_or_default();
    let info = json!({
        "pid": sandbox.shim().map(|shim| shim.pid),
        "cgroupParent": record.cgroup_parent,
        "networkNamespace": record.netns_path,
        "cniResult": result,
    });
    HashMap::from([("info".to_owned(), info.to_string())])
}
