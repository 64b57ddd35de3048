//! The start of a daemon: what an earlier one left is found again, finished or undone.
//!
//! ```text
//!   sandbox record    same boot                                another boot (everything that ran is gone)
//!   Starting          undone                                   undone: DEL by id, leases freed
//!   Ready             shim answers: adopted with containers    DEL without a namespace, NOTREADY, containers EXITED 255
//!                     shim silent: kept as recorded, asked
//!                       again in the background
//!                     no shim: containers ended, 137, NOTREADY
//!   NotReady          stays; a shim that is still there is     stays
//!                       adopted, until the client stops it
//!   Removing          finished                                 finished
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_shim_api::pod::{ContainerState, StateResponse};
use tokio::task::JoinHandle;

use crate::daemon::Daemon;
use crate::error::chain;
use crate::pods::{Container, Progress, Sandbox, Shim};
use crate::runtime_service::{half_done, remove_later};
use crate::shims::{self, dead, watch};
use crate::shims::{Found, ShimError};
use crate::store::{ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord, StoreError};

/// How a container ended that a reboot took away.
const LOST: i32 = 255;
const LOST_MESSAGE: &str = "the machine was rebooted";
/// How a container ended whose end nobody can tell any more.
const UNKNOWN_MESSAGE: &str = "ended while no daemon was there";
/// Before a silent shim is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Brings memory, records and the machine together. What fails is logged and tried again at the next start; the daemon
/// serves all the same.
pub(crate) async fn recover(daemon: &Arc<Daemon>) {
    match recover_records(daemon).await {
        // What no readable record speaks of may be a running pod: nothing is taken away on a guess.
        Ok(()) if daemon.store.was_cut() => {
            tracing::warn!("records may be missing: what they do not name stays until the next start");
        }
        Ok(()) => {
            remove_orphans(daemon).await;
            collect_network_garbage(daemon).await;
        }
        Err(error) => {
            tracing::error!(error = %chain(&error), "cannot read the records: what they do not name stays");
        }
    }
    daemon.shims.remove_empty_cgroups();
}

async fn recover_records(daemon: &Arc<Daemon>) -> Result<(), StoreError> {
    let mut containers: HashMap<String, Vec<ContainerRecord>> = HashMap::new();
    for record in daemon.store.all::<ContainerRecord>()? {
        containers
            .entry(record.sandbox_id.clone())
            .or_default()
            .push(record);
    }
    let sandboxes = daemon.store.all::<SandboxRecord>()?;
    for record in sandboxes
        .iter()
        .filter(|record| record.phase() != SandboxPhase::Starting && record.boot_id == daemon.boot_id)
    {
        daemon
            .cgroup_parents
            .claim_again(&record.owned_cgroups, &record.id);
    }
    // All are asked at once: several silent ones cost no more time than one.
    let sandboxes: Vec<_> = sandboxes
        .into_iter()
        .map(|record| (ask_shim(daemon, &record), record))
        .collect();
    for (shim, record) in sandboxes {
        let containers = containers.remove(&record.id).unwrap_or_default();
        recover_sandbox(daemon, record, containers, shim).await;
    }
    for orphan in containers.into_values().flatten() {
        tracing::warn!(container = orphan.id, "its sandbox is not known: removed");
        let sandbox = Sandbox::new(SandboxRecord {
            id: orphan.sandbox_id.clone(),
            ..SandboxRecord::default()
        });
        half_done::undo_create_container(daemon, &Arc::new(sandbox), orphan).await;
    }
    Ok(())
}

/// A shim that is looked for.
type Asked = JoinHandle<Result<Option<Found>, ShimError>>;

/// None: the undo of a start looks for itself, and no shim survives a reboot.
fn ask_shim(daemon: &Arc<Daemon>, record: &SandboxRecord) -> Option<Asked> {
    let survives = record.boot_id == daemon.boot_id && record.phase() != SandboxPhase::Starting;
    let (daemon, id) = (Arc::clone(daemon), record.id.clone());
    survives
        .then(|| tokio::spawn(async move { daemon.shims.find_again(&id, &daemon.pod_directory(&id)).await }))
}

async fn recover_sandbox(
    daemon: &Arc<Daemon>,
    record: SandboxRecord,
    containers: Vec<ContainerRecord>,
    shim: Option<Asked>,
) {
    let id = record.id.clone();
    let phase = record.phase();
    if phase == SandboxPhase::Starting {
        tracing::info!(sandbox = id, "undoing a start that was cut off");
        half_done::undo_run_pod_sandbox(daemon, record).await;
        return;
    }
    let sandbox = Arc::new(Sandbox::new(record));
    daemon.pods.add_sandbox(Arc::clone(&sandbox));
    let (ready, cut_off): (Vec<_>, Vec<_>) = containers
        .into_iter()
        .partition(|record| shim.is_none() || record.phase() != ContainerPhase::Creating);
    for record in ready {
        daemon
            .pods
            .add_container(Arc::new(Container::new(Arc::clone(&sandbox), record)));
    }
    let silent = match shim {
        None => {
            after_reboot(daemon, &sandbox).await;
            false
        }
        Some(asked) => find_shim(daemon, &sandbox, asked).await,
    };
    let rest = {
        let daemon = Arc::clone(daemon);
        async move {
            for record in cut_off {
                tracing::info!(container = record.id, "undoing a creation that was cut off");
                half_done::undo_create_container(&daemon, &sandbox, record).await;
            }
            finish_removals(&daemon, &sandbox, phase).await;
        }
    };
    // Every call to a silent shim takes its whole time: nobody else waits for that.
    if silent {
        tokio::spawn(rest);
    } else {
        rest.await;
    }
}

async fn finish_removals(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>, phase: SandboxPhase) {
    for container in daemon.pods.containers_of(&sandbox.id) {
        if container.is_being_removed()
            && let Err(error) = half_done::finish_remove_container(daemon, &container).await
        {
            tracing::warn!(container = container.id, error = %chain(&error), "cannot finish its removal");
        }
    }
    if phase == SandboxPhase::Removing
        && let Err(error) = half_done::finish_remove_pod_sandbox(daemon, sandbox).await
    {
        tracing::warn!(sandbox = sandbox.id, error = %chain(&error), "cannot finish its removal");
    }
}

/// Everything that ran is gone with the boot; addresses and rules on disk are not.
async fn after_reboot(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>) {
    for container in daemon.pods.containers_of(&sandbox.id) {
        let removing = container.is_being_removed();
        if container.progress() != Progress::Exited && !removing {
            dead::record_exit(&daemon.store, &container, LOST, LOST_MESSAGE);
        }
    }
    let record = sandbox.record();
    dead::unbind(&record.netns_path);
    let mut attached = record.attached;
    if attached {
        match daemon.network.detach(&record).await {
            Ok(()) => attached = false,
            Err(error) => {
                tracing::warn!(sandbox = sandbox.id, error = %chain(&error), "cannot give back its network");
            }
        }
    }
    let saved = sandbox.save(&daemon.store, |record| {
        record.attached = attached;
        if record.phase() == SandboxPhase::Ready {
            record.set_phase(SandboxPhase::NotReady);
        }
        record.boot_id.clone_from(&daemon.boot_id);
    });
    if let Err(error) = saved {
        tracing::error!(sandbox = sandbox.id, error = %chain(&error), "cannot save the sandbox");
    }
}

/// Says whether the shim is silent.
async fn find_shim(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>, asked: Asked) -> bool {
    let found = match asked.await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::warn!(sandbox = sandbox.id, error = %chain(&error), "its shim is given up");
            None
        }
        Err(error) => {
            tracing::error!(sandbox = sandbox.id, error = %chain(&error), "its shim was not looked for");
            None
        }
    };
    let Some(Found { started, state }) = found else {
        if sandbox.is_ready() {
            tracing::warn!(sandbox = sandbox.id, "its shim is gone");
        }
        daemon.shims.end_pod(sandbox).await;
        return false;
    };
    let shim = started.shim;
    sandbox.set_shim(shim.clone());
    watch::shim(&daemon.shims, sandbox, shim.pid, started.end);
    let containers = daemon.pods.containers_of(&sandbox.id);
    match state {
        Some(state) => {
            adopt(daemon, sandbox, &containers, &state, &shim).await;
            false
        }
        None => {
            tracing::warn!(
                sandbox = sandbox.id,
                pid = shim.pid,
                "its shim is silent: kept, and asked again"
            );
            tokio::spawn(adopt_later(Arc::clone(daemon), Arc::clone(sandbox), shim));
            true
        }
    }
}

/// Asks a silent shim until it answers, or is not the sandbox's any more. Until then the containers are what the records
/// say of them.
async fn adopt_later(daemon: Arc<Daemon>, sandbox: Arc<Sandbox>, shim: Shim) {
    while sandbox.has_shim(shim.pid) {
        // Looked at before: a container that is made meanwhile is not in the answer, and watched by whoever made it.
        let containers = daemon.pods.containers_of(&sandbox.id);
        match shim.client.state().await {
            Ok(state) => return adopt(&daemon, &sandbox, &containers, &state, &shim).await,
            Err(error) => {
                tracing::debug!(sandbox = sandbox.id, error = %chain(&error), "its shim is still silent");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Takes over what the shim says about the pod and these containers.
async fn adopt(
    daemon: &Arc<Daemon>,
    sandbox: &Arc<Sandbox>,
    containers: &[Arc<Container>],
    state: &StateResponse,
    shim: &Shim,
) {
    let known: HashMap<&str, &ContainerState> = state
        .containers
        .iter()
        .map(|container| (container.id.as_str(), container))
        .collect();
    for container in containers {
        match known.get(container.id.as_str()) {
            Some(state) => {
                watch::observe(&daemon.store, container, state);
                if container.progress() != Progress::Exited {
                    watch::container(&daemon.store, container, shim.clone());
                }
            }
            None if container.progress() == Progress::Exited => {}
            None => dead::record_exit(&daemon.store, container, dead::KILLED, UNKNOWN_MESSAGE),
        }
    }
    if !state.started {
        not_ready(daemon, sandbox).await;
    }
    tracing::info!(sandbox = sandbox.id, pid = shim.pid, "found again");
}

/// StopPodSandbox was cut off after it had ended the pod.
async fn not_ready(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>) {
    let _alone = sandbox.lifecycle.write().await;
    if let Err(error) = sandbox.save_not_ready(&daemon.store) {
        tracing::error!(sandbox = sandbox.id, error = %chain(&error), "cannot save the sandbox");
    }
}

/// No pod is being attached yet: the daemon does not serve.
async fn collect_network_garbage(daemon: &Arc<Daemon>) {
    let collected = match daemon.store.all() {
        Ok(records) => daemon.network.gc(records).await,
        Err(error) => return tracing::error!(error = %chain(&error), "cannot read the sandboxes' records"),
    };
    if let Err(error) = collected {
        tracing::warn!(error = %chain(&error), "what plugins hold for pods that are gone may stay");
    }
}

/// Directories that no record speaks of: a power cut can have taken the record of a container that was being made.
async fn remove_orphans(daemon: &Arc<Daemon>) {
    // What is in it, and not the folder: a RemoveContainer may be about to move something there.
    for name in names_in(&daemon.trash_directory()) {
        remove_later(daemon.trash_directory().join(name));
    }
    for id in names_in(&daemon.containers_directory()) {
        if daemon.pods.container(&id).is_none() {
            tracing::info!(container = id, "removing a writable layer that has no record");
            remove_later(daemon.container_directory(&id));
        }
    }
    for id in names_in(&daemon.config.state.join("pods")) {
        if daemon.pods.sandbox(&id).is_some() {
            continue;
        }
        let path = daemon.pod_directory(&id);
        if let Ok(Some(found)) = daemon.shims.find_again(&id, &path).await {
            tracing::info!(sandbox = id, "ending a shim that has no record");
            shims::shut_down(&found.started.shim).await;
            shims::collect_ended(found.started).await;
        }
        remove_later(path);
    }
}

fn names_in(directory: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}
