//! ExecSync: runs a command in a container and returns its output. A client that goes away takes the command with it:
//! this future is dropped then, with it the connection to the shim, and the shim kills the command.

use std::sync::Arc;

use coracle_cri::runtime_v1::{ExecSyncRequest, ExecSyncResponse};
use coracle_shim_api::Code;
use coracle_shim_api::pod::ExecRequest;
use oci_spec::runtime::Process;

use super::start_container::wrong_state;
use super::{Failure, find_container};
use crate::daemon::Daemon;
use crate::pods::{Container, Progress};

/// Of each stream; what comes after it is dropped, as CRI says.
const LARGEST_OUTPUT: usize = 16 << 20;

pub(super) async fn exec_sync(
    daemon: Arc<Daemon>,
    request: ExecSyncRequest,
) -> Result<ExecSyncResponse, Failure> {
    let container = find_container(&daemon, &request.container_id)?;
    if request.cmd.first().is_none_or(String::is_empty) {
        return Err(Failure::Missing { field: "cmd" });
    }
    let seconds = u64::try_from(request.timeout).map_err(|_| Failure::Invalid {
        field: "timeout",
        value: request.timeout.to_string(),
        wants: "cannot be negative",
    })?;
    let running = matches!(container.progress(), Progress::Running { .. });
    let Some(shim) = container.sandbox.shim().filter(|_| running) else {
        return Err(wrong_state(&container, "running"));
    };
    let exec = ExecRequest {
        container_id: container.id.clone(),
        process: process(&container, request.cmd)?,
        timeout_ms: seconds.saturating_mul(1000),
        ..ExecRequest::default()
    };
    let mut output = shim.client.exec(&exec).await?;
    let mut response = ExecSyncResponse::default();
    loop {
        let piece = output.next().await.map_err(|error| {
            let timed_out = error.is(Code::DEADLINE_EXCEEDED);
            if timed_out {
                Failure::ExecTimeout {
                    seconds: request.timeout,
                }
            } else {
                error.into()
            }
        })?;
        let Some(piece) = piece else {
            // The stream ended without an exit: the container ended under the command.
            return Err(wrong_state(&container, "running"));
        };
        append(&mut response.stdout, &piece.stdout);
        append(&mut response.stderr, &piece.stderr);
        if piece.exited {
            response.exit_code = piece.exit_code;
            return Ok(response);
        }
    }
}

/// The container's own process with another command: same user, environment, rights and directory.
fn process(container: &Container, command: Vec<String>) -> Result<Vec<u8>, Failure> {
    let mut process: Process = container.with_record(|record| serde_json::from_str(&record.process))?;
    process.set_args(Some(command));
    process.set_terminal(Some(false));
    Ok(serde_json::to_vec(&process)?)
}

fn append(to: &mut Vec<u8>, piece: &[u8]) {
    let room = LARGEST_OUTPUT.saturating_sub(to.len()).min(piece.len());
    to.extend_from_slice(&piece[..room]);
}
