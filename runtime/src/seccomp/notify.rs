//! `SCMP_ACT_NOTIFY`: the listener descriptor of a filter goes to the agent at `listenerPath`.
//!
//! ```text
//! container's process          runtime                                   agent
//!   seccomp(NEW_LISTENER) = fd
//!   "my listener is fd" -----> pidfd_getfd(process, fd)
//!                              connect, sendmsg(state JSON, SCM_RIGHTS fd) ---> serves the notifications
//!   close(fd) <--------------- "delivered"
//! ```
//!
//! The process may only use write(2) between the two messages: any other call could be one that waits for the agent.

use coracle_linux::process::Child;
use coracle_linux::socket;
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};
use serde::Serialize;
use serde_json::Value;
use std::os::fd::{AsFd as _, RawFd};
use std::path::PathBuf;

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
pub(super) const LISTENER_FLAGS: u64 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`, since Linux 5.19.
pub(super) const WAIT_KILLABLE_RECV: u64 = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;

/// Where the notifications of a container go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    /// The agent's stream socket.
    pub(crate) path: PathBuf,
    /// `listenerMetadata`, passed on as it is.
    pub(crate) metadata: Option<String>,
}

/// Why the listener did not reach the agent.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// No agent there.
    #[error("linux.seccomp.listenerPath: connect to {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// connect(2).
        source: std::io::Error,
    },
    /// The agent went away.
    #[error("linux.seccomp.listenerPath: send to {path}")]
    Send {
        /// The socket.
        path: PathBuf,
        /// sendmsg(2).
        source: std::io::Error,
    },
    /// The process has ended, or this one may not look into it.
    #[error("linux.seccomp: take the listener out of the process")]
    Take(#[source] std::io::Error),
    /// The state cannot be written as JSON.
    #[error("linux.seccomp: state for the listener")]
    Encode(#[source] serde_json::Error),
}

/// The message of the specification ("The Container Process State").
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a> {
    oci_version: &'a str,
    fds: [&'static str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    state: &'a Value,
}

impl Listener {
    /// Takes descriptor `number`, the listener of its filter, out of `process`, and hands it to the agent together
    /// with `state`, the container's state as JSON.
    ///
    /// # Errors
    /// The descriptor cannot be taken; the agent cannot be reached or does not take the message.
    pub(crate) fn deliver(&self, process: &Child, number: RawFd, state: &[u8]) -> Result<(), DeliverError> {
        let fd = pidfd_getfd(&process.pidfd, number, PidfdGetfdFlags::empty())
            .map_err(|errno| DeliverError::Take(errno.into()))?;
        let state: Value = serde_json::from_slice(state).map_err(DeliverError::Encode)?;
        let message = ContainerProcessState {
            oci_version: state["ociVersion"].as_str().unwrap_or_default(),
            fds: ["seccompFd"],
            pid: process.pid.as_raw_nonzero().get(),
            metadata: self.metadata.as_deref(),
            state: &state,
        };
        let message = serde_json::to_vec(&message).map_err(DeliverError::Encode)?;
        let agent = socket::connect(&self.path).map_err(|source| DeliverError::Connect {
            path: self.path.clone(),
            source,
        })?;
        socket::send(agent.as_fd(), &message, &[fd.as_fd()]).map_err(|source| DeliverError::Send {
            path: self.path.clone(),
            source,
        })
    }
}
