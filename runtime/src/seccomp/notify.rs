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

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use oci_spec::runtime::State;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Serialize;

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
pub(super) const LISTENER_FLAGS: u64 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`, since Linux 5.19.
pub(super) const WAIT_KILLABLE_RECV: u64 = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;

/// Where the notifications of a container go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The agent's stream socket.
    pub path: PathBuf,
    /// `listenerMetadata`, passed on as it is.
    pub metadata: Option<String>,
}

/// Why the listener did not reach the agent.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// No agent there.
    #[error("linux.seccomp.listenerPath: connect to {path:?}: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// connect(2).
        source: std::io::Error,
    },
    /// The agent went away.
    #[error("linux.seccomp.listenerPath: send to {path:?}: {source}")]
    Send {
        /// The socket.
        path: PathBuf,
        /// sendmsg(2).
        source: std::io::Error,
    },
    /// The state cannot be written as JSON.
    #[error("linux.seccomp: state for the listener: {0}")]
    Encode(serde_json::Error),
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
    state: &'a State,
}

impl Listener {
    /// Hands `fd`, the listener of the filter of process `pid`, to the agent.
    ///
    /// # Errors
    /// The agent cannot be reached or does not take the message.
    pub fn deliver(&self, fd: BorrowedFd<'_>, pid: i32, state: &State) -> Result<(), DeliverError> {
        let message = ContainerProcessState {
            oci_version: state.version(),
            fds: ["seccompFd"],
            pid,
            metadata: self.metadata.as_deref(),
            state,
        };
        let message = serde_json::to_vec(&message).map_err(DeliverError::Encode)?;
        let agent = UnixStream::connect(&self.path).map_err(|source| DeliverError::Connect {
            path: self.path.clone(),
            source,
        })?;
        send(&agent, &message, fd).map_err(|source| DeliverError::Send {
            path: self.path.clone(),
            source,
        })
    }
}

fn send(agent: &UnixStream, message: &[u8], fd: BorrowedFd<'_>) -> std::io::Result<()> {
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    let sent = sendmsg(
        agent.as_fd(),
        &[IoSlice::new(message)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    // The descriptor travels with the first bytes; the rest of a long state follows as plain data.
    let mut rest = agent;
    std::io::Write::write_all(&mut rest, message.get(sent..).unwrap_or_default())
}
