//! ExecSync: runs a command in a container and returns its output. A client that goes away takes the command with it:
//! this future is dropped then, with it the connection to the shim, and the shim kills the command.

use std::sync::Arc;
use std::time::Duration;

use coracle_cri_api::runtime_v1::{ExecSyncRequest, ExecSyncResponse};
use coracle_shim_api::Code;
use coracle_shim_api::pod::ExecRequest;
use oci_spec::runtime::Process;

use super::Failure;
use super::request::find_container;
use super::start_container::wrong_state;
use crate::daemon::Daemon;
use crate::pods::{Container, Progress, Shim};
use crate::shims;

/// Of both streams together; what comes after it is dropped, as CRI says. Clients take messages of 16 MiB: what is around
/// the output has to fit in as well.
const LARGEST_OUTPUT: usize = 16_000_000;
/// Beyond the command's limit, for the shim to kill it and say so.
const SLACK: Duration = Duration::from_secs(10);

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
    // The shim ends the command in time; a shim that hangs, or a command that the kernel does not let end, must not keep
    // the caller.
    tokio::select! {
        answer = run(&shim, &exec) => answer.and_then(|answer| answer.ok_or_else(|| wrong_state(&container, "running"))),
        () = over(seconds) => Err(Failure::ExecTimeout { seconds }),
        error = shims::silence(&shim) => Err(error.into()),
    }
}

/// None: the stream ended without an exit, since the container ended under the command.
async fn run(shim: &Shim, exec: &ExecRequest) -> Result<Option<ExecSyncResponse>, Failure> {
    let mut output = shim.client.exec(exec).await?;
    let mut response = ExecSyncResponse::default();
    loop {
        let piece = output.next().await.map_err(|error| {
            if error.is(Code::DEADLINE_EXCEEDED) {
                Failure::ExecTimeout {
                    seconds: exec.timeout_ms / 1000,
                }
            } else {
                error.into()
            }
        })?;
        let Some(piece) = piece else {
            return Ok(None);
        };
        let room = room_in(&response);
        response.stdout.extend_from_slice(cut(&piece.stdout, room));
        let room = room_in(&response);
        response.stderr.extend_from_slice(cut(&piece.stderr, room));
        if piece.exited {
            response.exit_code = piece.exit_code;
            return Ok(Some(response));
        }
    }
}

/// Returns when the shim has had its time to end the command; never without a limit.
async fn over(seconds: u64) {
    match seconds {
        0 => std::future::pending().await,
        limit => tokio::time::sleep(Duration::from_secs(limit).saturating_add(SLACK)).await,
    }
}

/// The container's own process with another command: same user, environment, rights and directory.
fn process(container: &Container, command: Vec<String>) -> Result<Vec<u8>, Failure> {
    let mut process: Process = container.with_record(|record| serde_json::from_str(&record.process))?;
    process.set_args(Some(command));
    process.set_terminal(Some(false));
    Ok(serde_json::to_vec(&process)?)
}

/// How much output may still come.
fn room_in(response: &ExecSyncResponse) -> usize {
    LARGEST_OUTPUT.saturating_sub(response.stdout.len() + response.stderr.len())
}

fn cut(piece: &[u8], room: usize) -> &[u8] {
    piece.get(..room).unwrap_or(piece)
}
