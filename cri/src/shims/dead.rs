//! A shim that died, or had to be killed, left its containers without a parent: they are ended by cgroup, and reported so.

use std::sync::Arc;

use rustix::mount::UnmountFlags;

use super::watch;
use crate::daemon::{Daemon, now};
use crate::pods::{Container, Progress, Sandbox};
use crate::store::{ExitRecord, SandboxPhase, SandboxRecord};

/// 128 + SIGKILL: how the containers of a dead shim end.
pub(crate) const KILLED: i32 = 137;
/// What ContainerStatus says about it.
pub(crate) const MESSAGE: &str = "the pod's shim died";

/// Ends the containers, removes what the shim held, and makes the sandbox NOTREADY. Its network is given back by
/// StopPodSandbox.
pub(crate) async fn end_pod(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>) {
    let _alone = sandbox.hold_to_end().await;
    // Somebody stopped the pod while we waited.
    if daemon.pods.sandbox(&sandbox.id).is_none() {
        return;
    }
    end_containers(daemon, sandbox).await;
    let mut record = sandbox.record();
    clean_up(daemon, &record).await;
    if record.phase() == SandboxPhase::Ready {
        record.set_phase(SandboxPhase::NotReady);
        if let Err(error) = daemon.store.put(&record) {
            tracing::error!(sandbox = sandbox.id, %error, "cannot save the sandbox");
        }
        sandbox.set_record(record);
    }
}

/// The caller holds the sandbox alone. A container that has ended by itself still has its cgroup, which a shim keeps until
/// the container is deleted.
pub(crate) async fn end_containers(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>) {
    sandbox.take_shim();
    for container in daemon.pods.containers_of(&sandbox.id) {
        let cgroup = container.with_record(|record| record.cgroup.clone());
        end_cgroup(daemon, cgroup).await;
        if container.progress() != Progress::Exited {
            record_exit(daemon, &container, KILLED, MESSAGE);
        }
    }
}

/// Removes what a shim that is gone held on the host: the pod's init, its cgroup, the path of the network namespace.
pub(crate) async fn clean_up(daemon: &Arc<Daemon>, record: &SandboxRecord) {
    let ours = if record.has_private_cgroup() {
        record.cgroup_parent.clone()
    } else {
        format!("{}/{}", record.cgroup_parent, record.id)
    };
    end_cgroup(daemon, ours).await;
    daemon.release_cgroups(record);
    unbind(&record.netns_path);
}

/// Kills what is in the cgroup and removes it.
pub(crate) async fn end_cgroup(daemon: &Arc<Daemon>, cgroup: String) {
    let task = Arc::clone(daemon);
    let name = cgroup.clone();
    let ended = tokio::task::spawn_blocking(move || {
        task.hierarchies
            .kill(&cgroup)
            .and_then(|()| task.hierarchies.remove(&cgroup))
    });
    match ended.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(cgroup = name, %error, "cannot end the cgroup"),
        Err(error) => tracing::warn!(cgroup = name, %error, "cannot end the cgroup"),
    }
}

/// Saves an end that nobody saw.
pub(crate) fn record_exit(daemon: &Daemon, container: &Container, code: i32, message: &str) {
    let exit = ExitRecord {
        code,
        oom_killed: false,
        finished_at: now(),
        message: message.to_owned(),
    };
    watch::save_exit(daemon, container, exit, 0);
}

/// Takes the path of a network namespace away; none there is fine.
pub(crate) fn unbind(path: &str) {
    if path.is_empty() {
        return;
    }
    // EINVAL: not mounted; ENOENT: not there.
    let _ = rustix::mount::unmount(path, UnmountFlags::DETACH);
    let _ = std::fs::remove_file(path);
}
