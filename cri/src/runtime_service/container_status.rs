//! ContainerStatus, from memory.

use std::collections::HashMap;
use std::sync::Arc;

use coracle_cri_api::runtime_v1::{
    ContainerResources, ContainerState, ContainerStatus, ContainerStatusRequest, ContainerStatusResponse,
    ContainerUser, ImageSpec, LinuxContainerUser,
};
use serde_json::{Value, json};

use super::request::find_container;
use super::{Failure, list_containers};
use crate::daemon::Daemon;
use crate::pods::Container;
use crate::spec;
use crate::store::{ContainerRecord, ExitRecord};

pub(super) async fn container_status(
    daemon: Arc<Daemon>,
    request: ContainerStatusRequest,
) -> Result<ContainerStatusResponse, Failure> {
    let container = find_container(&daemon, &request.container_id)?;
    Ok(ContainerStatusResponse {
        status: Some(status(&daemon, &container)),
        info: if request.verbose {
            info(&container)
        } else {
            HashMap::new()
        },
    })
}

/// The status of one container.
pub(super) fn status(daemon: &Daemon, container: &Container) -> ContainerStatus {
    // First: an end is saved before it is told, so whoever sees the end sees the record of it.
    let state = list_containers::state(container);
    let record = container.record();
    let ended = container
        .exit()
        .filter(|_| state == ContainerState::ContainerExited);
    let exit = ended.cloned().unwrap_or_default();
    let (image, image_ref) = image(daemon, &record);
    ContainerStatus {
        state: state.into(),
        created_at: record.created_at,
        started_at: record.started_at,
        finished_at: exit.finished_at,
        exit_code: exit.code,
        image: Some(image),
        image_ref,
        reason: ended.map(reason).unwrap_or_default().to_owned(),
        message: exit.message,
        resources: Some(ContainerResources {
            linux: record
                .config
                .linux
                .as_ref()
                .and_then(|linux| linux.resources.clone()),
            windows: None,
        }),
        user: Some(ContainerUser {
            linux: Some(user(&record)),
        }),
        stop_signal: spec::signal_from_cri(record.stop_signal).into(),
        id: record.id,
        metadata: record.config.metadata,
        labels: record.config.labels,
        annotations: record.config.annotations,
        mounts: record.config.mounts,
        log_path: record.log_path,
        image_id: record.image_id,
    }
}

/// The kubelet shows these words.
fn reason(exit: &ExitRecord) -> &'static str {
    match exit {
        ExitRecord {
            start_failed: true, ..
        } => "StartError",
        ExitRecord { oom_killed: true, .. } => "OOMKilled",
        ExitRecord { code: 0, .. } => "Completed",
        _ => "Error",
    }
}

/// The image by a name that people know, and by digest, as long as the store has it.
fn image(daemon: &Daemon, record: &ContainerRecord) -> (ImageSpec, String) {
    let mut spec = record.config.image.clone().unwrap_or_default();
    let Some(image) = daemon.images.get(&record.image_id) else {
        return (spec, record.image_id.clone());
    };
    if let Some(name) = image.repo_tags.first().or_else(|| image.repo_digests.first()) {
        spec.image.clone_from(name);
    }
    (spec, image.repo_digests.first().unwrap_or(&image.id).clone())
}

fn user(record: &ContainerRecord) -> LinuxContainerUser {
    LinuxContainerUser {
        uid: record.uid.into(),
        gid: record.gid.into(),
        supplemental_groups: record.groups.iter().map(|group| i64::from(*group)).collect(),
    }
}

fn info(container: &Container) -> HashMap<String, String> {
    let record = container.record();
    let process: Value = serde_json::from_str(&record.process).unwrap_or_default();
    let info = json!({
        "sandboxID": record.sandbox_id,
        "cgroup": record.cgroup,
        "process": process,
        "removing": record.phase() == crate::store::ContainerPhase::Removing,
    });
    HashMap::from([("info".to_owned(), info.to_string())])
}
