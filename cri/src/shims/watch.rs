//! Waiting for ends: of a container, through its shim, and of a shim's own process.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use coracle_shim_api::Code;
use coracle_shim_api::pod::{ContainerState, ContainerStatus};

use super::stop::collect;
use super::{Shims, dead, ended};
use crate::error::chain;
use crate::pods::{Container, Progress, Sandbox, Shim};
use crate::store::{ExitRecord, Store};

/// Before a wait that failed is asked for again.
const PAUSE: Duration = Duration::from_millis(500);

/// Watches over the shim of a sandbox that is known already: when it ends while the sandbox still counts on it, its
/// containers are ended too.
pub(crate) fn shim(shims: &Arc<Shims>, sandbox: &Arc<Sandbox>, pid: u32, end: OwnedFd) {
    let (shims, sandbox) = (Arc::clone(shims), Arc::clone(sandbox));
    tokio::spawn(async move {
        if let Err(error) = ended(&end).await {
            tracing::error!(sandbox = sandbox.id, error = %chain(&error), "cannot watch the shim");
            return;
        }
        collect(pid);
        if sandbox.has_shim(pid) {
            tracing::warn!(sandbox = sandbox.id, pid, "the shim died");
            shims.end_pod(&sandbox).await;
        }
        shims.remove_empty_cgroups();
    });
}

/// Starts to wait for the container's end, for as long as its shim lives.
pub(crate) fn container(store: &Arc<Store>, container: &Arc<Container>, shim: Shim) {
    let (store, container) = (Arc::clone(store), Arc::clone(container));
    tokio::spawn(async move {
        loop {
            match shim.client.wait_container(&container.id).await {
                Ok(state) => return record_end(&store, &container, &state),
                // Deleted, or never there: it does not run.
                Err(error) if error.is(Code::NOT_FOUND) => {
                    return dead::record_exit(&store, &container, dead::KILLED, &chain(&error));
                }
                Err(error) => {
                    tracing::debug!(container = container.id, error = %chain(&error), "wait ended without an exit");
                }
            }
            tokio::time::sleep(PAUSE).await;
            if container.progress() == Progress::Exited || !container.sandbox.has_shim(shim.pid) {
                return;
            }
        }
    });
}

/// Takes over what a shim says about a container that an earlier daemon made.
pub(crate) fn observe(store: &Store, container: &Container, state: &ContainerState) {
    match state.status.enum_value_or_default() {
        ContainerStatus::CONTAINER_STATUS_CREATED => {}
        ContainerStatus::CONTAINER_STATUS_RUNNING => {
            if let Err(error) = container.start(store, state.started_at) {
                tracing::error!(container = container.id, error = %chain(&error), "cannot save the start");
            }
        }
        ContainerStatus::CONTAINER_STATUS_STOPPED => record_end(store, container, state),
    }
}

/// Saves the exit that the shim reports.
fn record_end(store: &Store, container: &Container, state: &ContainerState) {
    let message = match state.dropped_log_lines {
        _ if !state.start_error.is_empty() => state.start_error.clone(),
        0 => String::new(),
        lines => format!("{lines} log lines could not be written"),
    };
    let exit = ExitRecord {
        code: state.exit_code,
        oom_killed: state.oom_killed,
        finished_at: state.finished_at,
        message,
        start_failed: !state.start_error.is_empty(),
    };
    if let Err(error) = container.end(store, exit, state.started_at) {
        tracing::error!(container = container.id, error = %chain(&error), "cannot save the exit");
    }
}
