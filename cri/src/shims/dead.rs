//! A shim that died, or had to be killed, left its containers without a parent: they are ended by cgroup, and reported so.

use std::sync::Arc;

use rustix::mount::UnmountFlags;

use super::Shims;
use crate::cgroup::Hierarchies;
use crate::clock::now;
use crate::error::chain;
use crate::pods::{Container, Progress, Sandbox};
use crate::store::{ExitRecord, SandboxRecord, Store};

/// 128 + SIGKILL: how the containers of a dead shim end.
pub(crate) const KILLED: i32 = 137;
/// What ContainerStatus says about it.
pub(crate) const MESSAGE: &str = "the pod's shim died";

impl Shims {
    /// Ends the containers, removes what the shim held, and makes the sandbox NOTREADY. Its network is given back by
    /// StopPodSandbox.
    pub(crate) async fn end_pod(&self, sandbox: &Arc<Sandbox>) {
        let _alone = sandbox.hold_to_end().await;
        // Somebody stopped the pod while we waited.
        if self.pods.sandbox(&sandbox.id).is_none() {
            return;
        }
        if let Err(error) = sandbox.save_not_ready(&self.store) {
            tracing::error!(sandbox = sandbox.id, error = %chain(&error), "cannot save the sandbox");
        }
        self.end_containers(sandbox).await;
        self.clean_up(&sandbox.record()).await;
    }

    /// The caller holds the sandbox alone. A container that has ended by itself still has its cgroup, which a shim keeps
    /// until the container is deleted.
    pub(crate) async fn end_containers(&self, sandbox: &Arc<Sandbox>) {
        sandbox.take_shim();
        for container in self.pods.containers_of(&sandbox.id) {
            let cgroup = container.with_record(|record| record.cgroup.clone());
            end_cgroup(self.hierarchies, cgroup).await;
            if container.progress() != Progress::Exited {
                record_exit(&self.store, &container, KILLED, MESSAGE);
            }
        }
    }

    /// Removes what a shim that is gone held on the host: the pod's init, its cgroup, the path of the network namespace.
    pub(crate) async fn clean_up(&self, record: &SandboxRecord) {
        let ours = if record.has_private_cgroup() {
            record.cgroup_parent.clone()
        } else {
            format!("{}/{}", record.cgroup_parent, record.id)
        };
        end_cgroup(self.hierarchies, ours).await;
        self.release_cgroups(record);
        unbind(&record.netns_path);
    }

    /// The sandbox has left the cgroups that were made for it. Can be repeated.
    pub(crate) fn release_cgroups(&self, record: &SandboxRecord) {
        self.cgroup_parents
            .release(self.hierarchies, &record.owned_cgroups, &record.id);
    }
}

/// Kills what is in the cgroup and removes it.
pub(crate) async fn end_cgroup(hierarchies: Hierarchies, cgroup: String) {
    let name = cgroup.clone();
    let ended = tokio::task::spawn_blocking(move || hierarchies.end(&cgroup));
    match ended.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(cgroup = name, error = %chain(&error), "cannot end the cgroup"),
        Err(error) => tracing::warn!(cgroup = name, error = %chain(&error), "cannot end the cgroup"),
    }
}

/// Saves an end that nobody saw.
pub(crate) fn record_exit(store: &Store, container: &Container, code: i32, message: &str) {
    let exit = ExitRecord {
        code,
        oom_killed: false,
        finished_at: now(),
        message: message.to_owned(),
        start_failed: false,
    };
    if let Err(error) = container.end(store, exit, 0) {
        tracing::error!(container = container.id, error = %chain(&error), "cannot save the exit");
    }
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
