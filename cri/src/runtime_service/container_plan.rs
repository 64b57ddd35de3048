//! What a container will be: everything is checked here, and nothing touched.

use std::sync::Arc;

use coracle_cri_api::runtime_v1::ContainerConfig;
use coracle_images::Image;

use super::{Failure, id, identity, pod_request};
use crate::clock::now;
use crate::daemon::Daemon;
use crate::pods::Sandbox;
use crate::spec::{self, ImageDefaults, Plan};
use crate::store::{ContainerPhase, ContainerRecord};

/// What CreateContainer goes on with, beside the record.
pub(super) struct Planned {
    pub(super) plan: Plan,
    pub(super) image: Arc<Image>,
}

pub(super) fn plan(
    daemon: &Daemon,
    sandbox: &Sandbox,
    config: ContainerConfig,
) -> Result<(ContainerRecord, Planned), Failure> {
    let asked = config.image.clone().unwrap_or_default().image;
    if asked.is_empty() {
        return Err(Failure::Missing {
            field: "config.image",
        });
    }
    let image = daemon.images.get(&asked).ok_or(Failure::NoImage(asked))?;
    let linux = config.linux.clone().unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    let identity = identity::resolve(&daemon.images, &image, &security)?;
    let pod = sandbox.record();
    let id = id::generate()?;
    let mut record = ContainerRecord {
        sandbox_id: sandbox.id.clone(),
        image_id: image.id.clone(),
        created_at: now(),
        phase: ContainerPhase::Creating.into(),
        boot_id: daemon.boot_id.clone(),
        cgroup: format!("{}/{id}", pod.cgroup_parent),
        uid: identity.uid,
        gid: identity.gid,
        groups: identity.groups.clone(),
        id,
        ..ContainerRecord::default()
    };
    let plan = spec::plan(&spec::Request {
        id: &record.id,
        sandbox_id: &sandbox.id,
        config: &config,
        sandbox: &pod.config,
        image: defaults(&image, &image.volumes()),
        identity,
        host: &daemon.host,
        cgroup: &record.cgroup,
        hostname: &pod_request::hostname(&pod.config),
        pod_files: &daemon.pod_directory(&sandbox.id),
        directory: &daemon.container_directory(&record.id),
        unset_seccomp_profile: daemon.config.unset_seccomp_profile,
    })?;
    record.log_path = plan.log_path.display().to_string();
    record.stop_signal = plan.stop_signal;
    record.process = serde_json::to_string(plan.spec.process())?;
    record.config = config;
    Ok((record, Planned { plan, image }))
}

fn defaults<'a>(image: &'a Image, volumes: &'a [String]) -> ImageDefaults<'a> {
    ImageDefaults {
        entrypoint: image.entrypoint(),
        cmd: image.cmd(),
        env: image.env(),
        working_dir: image.working_dir(),
        stop_signal: image.stop_signal(),
        volumes,
    }
}
