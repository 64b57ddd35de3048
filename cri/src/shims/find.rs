//! Finding a pod's shim again after a restart of the daemon.
//!
//! ```text
//!   connect --refused, no such file--> nobody is there
//!      v accepted
//!   State ---answer--> found, with all it knows
//!      v none, or nonsense
//!   a process in the shims' cgroup that was started for this pod? --no--> nobody is there
//!      v yes
//!   found, and silent
//! ```
//!
//! A silent shim is stopped, or starved, or hangs, or is about to leave. It is kept, and asked again in the background: its containers run, and
//! a pod is not ended on a guess. Whoever wants the pod's end gets it: StopPodSandbox kills a shim that does not answer.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use coracle_shim_api::pod::StateResponse;
use coracle_shim_api::{Client, ConnectError};
use rustix::process::Pid;

use super::{SOCKET, ShimError, Shims, Started, kill};
use crate::error::chain;
use crate::pods::Shim;

/// How long a shim may have no room for another connection.
const ACCEPT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

/// A shim of an earlier daemon.
pub(crate) struct Found {
    pub(crate) started: Started,
    /// What it knows; none: it is silent.
    pub(crate) state: Option<StateResponse>,
}

impl Shims {
    /// Connects to the shim that an earlier daemon started for the pod. None: there is no shim any more. One that cannot even
    /// be connected to is of no use to anybody: it is killed.
    pub(crate) async fn find_again(&self, id: &str, directory: &Path) -> Result<Option<Found>, ShimError> {
        let client = match connect(&directory.join(SOCKET)).await {
            Ok(Some(client)) => client,
            Ok(None) => return Ok(None),
            Err(error) => {
                if let Some((pid, _)) = self.process(id, directory) {
                    tracing::warn!(sandbox = id, pid, error = %chain(&error), "the shim cannot be reached; killing it");
                    kill(pid);
                }
                return Err(error.into());
            }
        };
        let state = match client.state().await {
            Ok(state) => Some(state),
            // It may also be on its way out: whoever watches its process sees that.
            Err(error) => {
                tracing::info!(sandbox = id, error = %chain(&error), "its shim says nothing");
                None
            }
        };
        let process = match &state {
            Some(state) => pidfd(state.shim_pid),
            None => self.process(id, directory),
        };
        Ok(process.map(|(pid, end)| Found {
            started: Started {
                shim: Shim { client, pid },
                end,
            },
            state,
        }))
    }

    /// The process that was started as the shim of the pod. The shims' cgroup tells it from a container's first process
    /// before its execve, which has the same command line and lives in the container's cgroup.
    fn process(&self, id: &str, directory: &Path) -> Option<(u32, OwnedFd)> {
        let pids = self.hierarchies.processes(&self.cgroup()).ok()?;
        pids.into_iter().find_map(|pid| {
            // Opened first: whatever the command line then says is said of this process, not of the next with its number.
            let found = pidfd(pid.as_raw_nonzero().get().unsigned_abs())?;
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            is_shim_of(&command, id, directory).then_some(found)
        })
    }
}

/// None: nobody listens.
async fn connect(socket: &Path) -> Result<Option<Client>, ConnectError> {
    let deadline = Instant::now() + ACCEPT;
    loop {
        match Client::connect(socket) {
            Ok(client) => return Ok(Some(client)),
            Err(error)
                if matches!(
                    error.source.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn is_shim_of(command: &[u8], id: &str, directory: &Path) -> bool {
    let words: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
    let has = |flag: &[u8], value: &[u8]| words.windows(2).any(|pair| pair == [flag, value]);
    has(b"--id", id.as_bytes()) && has(b"--state-dir", directory.as_os_str().as_bytes())
}

fn pidfd(pid: u32) -> Option<(u32, OwnedFd)> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    Some((pid, coracle_linux::pidfd::open(raw).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_is_known_by_its_pod_and_its_folder() {
        let command = b"coracle-shim\0--id\0abc\0--state-dir\0/run/x/pods/abc\0--cgroup\0/c/shims\0";
        assert!(is_shim_of(command, "abc", Path::new("/run/x/pods/abc")));
        assert!(!is_shim_of(command, "ab", Path::new("/run/x/pods/abc")));
        assert!(!is_shim_of(command, "abc", Path::new("/run/y/pods/abc")));
        assert!(!is_shim_of(b"", "", Path::new("")));
    }
}
