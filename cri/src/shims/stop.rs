//! Letting a shim go.

use std::time::Duration;

use coracle_shim_api::RpcError;
use rustix::process::{Pid, WaitOptions};

use super::{Started, ended};
use crate::error::chain;
use crate::pods::Shim;

/// How long a shim that was told to go may take to do so.
pub(super) const LEAVE: Duration = Duration::from_secs(10);
/// How often a shim is asked, while somebody waits for it, whether it is still there.
const ASK_AGAIN: Duration = Duration::from_secs(20);

/// Returns with an error once the shim does not answer any more; as long as it does, never.
pub(crate) async fn silence(shim: &Shim) -> RpcError {
    loop {
        tokio::time::sleep(ASK_AGAIN).await;
        if let Err(error) = shim.client.state().await {
            return error;
        }
    }
}

/// Tells a shim to end everything it holds and to leave. False: it would not, and was killed; what it held is left.
pub(crate) async fn shut_down(shim: &Shim) -> bool {
    match shim.client.shutdown().await {
        Ok(()) | Err(RpcError::Closed(_)) => true,
        Err(error) => {
            tracing::warn!(pid = shim.pid, error = %chain(&error), "the shim does not leave; killing it");
            kill(shim.pid);
            false
        }
    }
}

/// Waits for the end of a shim that was told to go, and collects it.
pub(crate) async fn collect_ended(started: Started) {
    if let Ok(Err(error)) = tokio::time::timeout(LEAVE, ended(&started.end)).await {
        tracing::warn!(pid = started.shim.pid, error = %chain(&error), "cannot wait for the shim");
    }
    collect(started.shim.pid);
}

/// At once, whatever state it is in.
pub(crate) fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // ESRCH: it went by itself.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// A shim of this daemon is its child; one of an earlier daemon is not, which is no error.
pub(super) fn collect(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
    }
}
