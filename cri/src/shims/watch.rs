//! One task per container that lives: waits, through the shim, until it has ended, and saves how.

use std::sync::Arc;
use std::time::Duration;

use coracle_shim_api::Code;
use coracle_shim_api::pod::{ContainerState, ContainerStatus};

use super::dead;
use crate::daemon::Daemon;
use crate::pods::{Container, Progress, Shim};
use crate::store::{ContainerPhase, ExitRecord};

/// Before a wait that failed is asked for again.
const PAUSE: Duration = Duration::from_millis(500);

/// Starts to wait for the container's end, for as long as its shim lives; the shim's end is watched elsewhere.
pub(crate) fn container(daemon: &Arc<Daemon>, container: &Arc<Container>, shim: Shim) {
    let (daemon, container) = (Arc::clone(daemon), Arc::clone(container));
    tokio::spawn(async move {
        loop {
            match shim.client.wait_container(&container.id).await {
                Ok(state) => return record_end(&daemon, &container, &state),
                // Deleted, or never there: it does not run.
                Err(error) if error.is(Code::NOT_FOUND) => {
                    return dead::record_exit(&daemon, &container, dead::KILLED, &error.to_string());
                }
                Err(error) => {
                    tracing::debug!(container = container.id, %error, "wait ended without an exit");
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
pub(crate) fn observe(daemon: &Arc<Daemon>, container: &Arc<Container>, state: &ContainerState) {
    match state.status.enum_value_or_default() {
        ContainerStatus::CONTAINER_STATUS_CREATED => {}
        ContainerStatus::CONTAINER_STATUS_RUNNING => {
            let started = container.save(&daemon.store, |record| record.started_at = state.started_at);
            if let Err(error) = started {
                tracing::error!(container = container.id, %error, "cannot save the start");
            }
            container.advance(Progress::Running {
                started_at: state.started_at,
            });
        }
        ContainerStatus::CONTAINER_STATUS_STOPPED => record_end(daemon, container, state),
    }
}

/// Saves the exit; the first report of it counts.
pub(crate) fn record_end(daemon: &Daemon, container: &Container, state: &ContainerState) {
    let message = match state.dropped_log_lines {
        0 => String::new(),
        lines => format!("{lines} log lines could not be written"),
    };
    let exit = ExitRecord {
        code: state.exit_code,
        oom_killed: state.oom_killed,
        finished_at: state.finished_at,
        message,
    };
    save_exit(daemon, container, exit, state.started_at);
}

/// Saves how a container ended, unless that is known already.
pub(crate) fn save_exit(daemon: &Daemon, container: &Container, exit: ExitRecord, started_at: i64) {
    let saved = container.save(&daemon.store, |record| {
        if record.exit.is_some() {
            return;
        }
        if record.phase() != ContainerPhase::Removing {
            record.set_phase(ContainerPhase::Exited);
        }
        if started_at != 0 {
            record.started_at = started_at;
        }
        record.exit = Some(exit);
    });
    if let Err(error) = saved {
        tracing::error!(container = container.id, %error, "cannot save the exit");
    }
    container.advance(Progress::Exited);
}
