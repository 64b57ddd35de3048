//! The daemon's side of the protocol.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::UnixStream;
use ttrpc::r#async::ClientStreamReceiver;
use ttrpc::asynchronous::transport::Socket;
use ttrpc::context;

use crate::pod::{
    ContainerState, CreateContainerRequest, CreateContainerResponse, DeleteContainerRequest, Empty,
    ExecOutput, ExecRequest, KillContainerRequest, ReopenLogRequest, ShutdownRequest, StartContainerRequest,
    StartContainerResponse, StartPodRequest, StartPodResponse, StateRequest, StateResponse, StopPodRequest,
    WaitContainerRequest,
};
use crate::pod_ttrpc::PodClient;
use crate::socket::{ShortPath, SocketError};

/// One connection to a shim. Clones share it; calls may overlap.
#[derive(Clone)]
pub struct Client {
    pod: PodClient,
    path: Arc<Path>,
}

/// Why no connection was made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The path cannot name a socket.
    #[error(transparent)]
    Path(#[from] SocketError),
    /// Nobody listens (ENOENT, ECONNREFUSED: the shim is gone), or the listener's queue is full (EAGAIN).
    #[error("connect to shim {path:?}")]
    Connect {
        /// The socket's path.
        path: PathBuf,
        /// What connect(2) said.
        source: io::Error,
    },
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// The shim's answer; the message names the object.
    #[error("{message}")]
    Status {
        /// As listed in `proto/pod.proto`.
        code: ttrpc::Code,
        /// For people.
        message: String,
    },
    /// The connection ended before the answer: the shim is gone, or was told to go.
    #[error("the shim closed the connection ({0})")]
    Closed(String),
    /// A connection for the call could not be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

impl RpcError {
    /// Whether the shim answered with this code.
    pub fn is(&self, wanted: ttrpc::Code) -> bool {
        matches!(self, Self::Status { code, .. } if *code == wanted)
    }
}

impl From<ttrpc::Error> for RpcError {
    fn from(error: ttrpc::Error) -> Self {
        match error {
            ttrpc::Error::RpcStatus(status) => Self::Status {
                code: status.code(),
                message: status.message().to_owned(),
            },
            other => Self::Closed(other.to_string()),
        }
    }
}

impl Client {
    /// Connects to the shim that listens at `path`, which may be of any length. Needs a tokio runtime.
    pub async fn connect(path: &Path) -> Result<Self, ConnectError> {
        let short = ShortPath::open(path)?;
        let stream = UnixStream::connect(short.path())
            .await
            .map_err(|source| ConnectError::Connect {
                path: path.into(),
                source,
            })?;
        let pod = PodClient::new(ttrpc::r#async::Client::new(Socket::from(stream)));
        Ok(Self {
            pod,
            path: path.into(),
        })
    }

    /// Makes the pod's namespaces.
    pub async fn start_pod(&self, request: &StartPodRequest) -> Result<StartPodResponse, RpcError> {
        Ok(self.pod.start_pod(context::Context::default(), request).await?)
    }

    /// Everything the shim knows.
    pub async fn state(&self) -> Result<StateResponse, RpcError> {
        Ok(self
            .pod
            .state(context::Context::default(), &StateRequest::new())
            .await?)
    }

    /// Makes a container and stops before its program is executed.
    pub async fn create_container(
        &self,
        request: &CreateContainerRequest,
    ) -> Result<CreateContainerResponse, RpcError> {
        Ok(self
            .pod
            .create_container(context::Context::default(), request)
            .await?)
    }

    /// Lets a created container execute its program.
    pub async fn start_container(&self, id: &str) -> Result<StartContainerResponse, RpcError> {
        let request = StartContainerRequest {
            id: id.into(),
            ..Default::default()
        };
        Ok(self
            .pod
            .start_container(context::Context::default(), &request)
            .await?)
    }

    /// Sends a signal to the container's first process, or with `all` to every process of its cgroup.
    pub async fn kill_container(&self, id: &str, signal: i32, all: bool) -> Result<(), RpcError> {
        let request = KillContainerRequest {
            id: id.into(),
            signal,
            all,
            ..Default::default()
        };
        let Empty { .. } = self
            .pod
            .kill_container(context::with_timeout(ANSWER_NS), &request)
            .await?;
        Ok(())
    }

    /// Waits, without limit, until the container has ended.
    pub async fn wait_container(&self, id: &str) -> Result<ContainerState, RpcError> {
        let request = WaitContainerRequest {
            id: id.into(),
            ..Default::default()
        };
        Ok(self
            .pod
            .wait_container(context::Context::default(), &request)
            .await?)
    }

    /// Ends the container if need be and forgets it.
    pub async fn delete_container(&self, id: &str) -> Result<(), RpcError> {
        let request = DeleteContainerRequest {
            id: id.into(),
            ..Default::default()
        };
        let Empty { .. } = self
            .pod
            .delete_container(context::with_timeout(ANSWER_NS), &request)
            .await?;
        Ok(())
    }

    /// Opens the log's path anew.
    pub async fn reopen_log(&self, id: &str) -> Result<(), RpcError> {
        let request = ReopenLogRequest {
            id: id.into(),
            ..Default::default()
        };
        let Empty { .. } = self
            .pod
            .reopen_log(context::with_timeout(ANSWER_NS), &request)
            .await?;
        Ok(())
    }

    /// Runs a command in a container, over a connection of its own: dropping the [`Exec`] (or dying) kills the command.
    pub async fn exec(&self, request: &ExecRequest) -> Result<Exec, RpcError> {
        let own = Self::connect(&self.path).await?;
        let output = own.pod.exec(context::Context::default(), request).await?;
        Ok(Exec { output })
    }

    /// Ends every process of the pod.
    pub async fn stop_pod(&self) -> Result<(), RpcError> {
        let Empty { .. } = self
            .pod
            .stop_pod(context::with_timeout(ANSWER_NS), &StopPodRequest::new())
            .await?;
        Ok(())
    }

    /// Ends the pod and its shim.
    pub async fn shutdown(&self) -> Result<(), RpcError> {
        let Empty { .. } = self
            .pod
            .shutdown(context::Context::default(), &ShutdownRequest::new())
            .await?;
        Ok(())
    }
}

/// Nanoseconds for a call that a live shim answers at once, or after it has killed what it was told to: far above what a
/// loaded machine needs. A shim that is stopped or hangs must not keep its caller, and its pod's lock, for ever.
const ANSWER_NS: i64 = 30_000_000_000;

/// A command running in a container.
pub struct Exec {
    /// Holds the only handle on its connection.
    output: ClientStreamReceiver<ExecOutput>,
}

impl Exec {
    /// The next piece of output; the one with `exited` set is the last. `None` after it.
    ///
    /// A command that ran out of time ends with DEADLINE_EXCEEDED.
    pub async fn next(&mut self) -> Result<Option<ExecOutput>, RpcError> {
        Ok(self.output.recv().await?)
    }
}
