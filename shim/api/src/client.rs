//! The daemon's side of the protocol.
//!
//! Every call but [`Client::wait_container`] is bounded: a shim that is stopped or hangs must not keep its caller, and its
//! pod's lock, for ever. A connection that breaks while the shim lives is made anew for the next call.

use std::error::Error;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UnixStream;
use ttrpc::r#async::ClientStreamReceiver;
use ttrpc::asynchronous::transport::Socket;
use ttrpc::context::{self, Context};

use crate::pod::{
    ContainerState, CreateContainerRequest, CreateContainerResponse, DeleteContainerRequest, Empty,
    ExecOutput, ExecRequest, KillContainerRequest, ReopenLogRequest, SetInterfaceSysctlsRequest,
    ShutdownRequest, StartContainerRequest, StartContainerResponse, StartPodRequest, StartPodResponse,
    StateRequest, StateResponse, StopPodRequest, WaitContainerRequest,
};
use crate::pod_ttrpc::PodClient;
use crate::socket::{self, ConnectError};

/// For a call that makes or starts something: hooks run within it, and their own limits are in seconds.
const MAKE: Duration = Duration::from_secs(150);
/// For a call that a live shim answers at once, or after it has killed what it was told to: far above what a loaded
/// machine needs.
const CHANGE: Duration = Duration::from_secs(30);
/// For a call that only looks, and for the shim's leave-taking, which comes after StopPod has ended everything.
const LOOK: Duration = Duration::from_secs(10);

/// One connection to a shim. Clones share it; calls may overlap.
#[derive(Clone)]
pub struct Client {
    connection: Arc<Mutex<Connection>>,
    path: Arc<Path>,
}

/// The connection that is in use now.
#[derive(Clone)]
struct Connection {
    pod: PodClient,
    /// How many there were before it.
    number: u64,
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
    #[error("the shim closed the connection")]
    Closed(#[source] Box<dyn Error + Send + Sync>),
    /// The shim is there and did not answer in time: it is stopped, or hangs.
    #[error("the shim did not answer {call} within {} s", .limit.as_secs())]
    Silent {
        /// The call, as `proto/pod.proto` names it.
        call: &'static str,
        /// How long it had.
        limit: Duration,
    },
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
            // Its text repeats the errno, which says it once.
            ttrpc::Error::Nix(errno) => Self::Closed(Box::new(errno)),
            ttrpc::Error::Socket(_)
            | ttrpc::Error::LocalClosed
            | ttrpc::Error::RemoteClosed
            | ttrpc::Error::Eof
            | ttrpc::Error::Others(_) => Self::Closed(Box::new(error)),
        }
    }
}

impl Client {
    /// Connects to the shim that listens at `path`, which may be of any length. Needs a tokio runtime.
    ///
    /// # Errors
    /// When nobody accepts there.
    pub fn connect(path: &Path) -> Result<Self, ConnectError> {
        let connection = Connection {
            pod: connect(path)?,
            number: 0,
        };
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
            path: path.into(),
        })
    }

    /// Makes the pod's namespaces.
    pub async fn start_pod(&self, request: &StartPodRequest) -> Result<StartPodResponse, RpcError> {
        self.bounded("StartPod", MAKE, async |pod, context| {
            pod.start_pod(context, request).await
        })
        .await
    }

    /// Everything the shim knows.
    pub async fn state(&self) -> Result<StateResponse, RpcError> {
        self.bounded("State", LOOK, async |pod, context| {
            pod.state(context, &StateRequest::new()).await
        })
        .await
    }

    /// Makes a container and stops before its program is executed.
    pub async fn create_container(
        &self,
        request: &CreateContainerRequest,
    ) -> Result<CreateContainerResponse, RpcError> {
        self.bounded("CreateContainer", MAKE, async |pod, context| {
            pod.create_container(context, request).await
        })
        .await
    }

    /// Lets a created container execute its program.
    pub async fn start_container(&self, id: &str) -> Result<StartContainerResponse, RpcError> {
        let request = StartContainerRequest {
            id: id.into(),
            ..Default::default()
        };
        self.bounded("StartContainer", MAKE, async |pod, context| {
            pod.start_container(context, &request).await
        })
        .await
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
            .bounded("KillContainer", CHANGE, async |pod, context| {
                pod.kill_container(context, &request).await
            })
            .await?;
        Ok(())
    }

    /// Waits, without limit, until the container has ended.
    pub async fn wait_container(&self, id: &str) -> Result<ContainerState, RpcError> {
        let request = WaitContainerRequest {
            id: id.into(),
            ..Default::default()
        };
        self.call(async |pod, context| pod.wait_container(context, &request).await)
            .await
    }

    /// Ends the container if need be and forgets it.
    pub async fn delete_container(&self, id: &str) -> Result<(), RpcError> {
        let request = DeleteContainerRequest {
            id: id.into(),
            ..Default::default()
        };
        let Empty { .. } = self
            .bounded("DeleteContainer", CHANGE, async |pod, context| {
                pod.delete_container(context, &request).await
            })
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
            .bounded("ReopenLog", CHANGE, async |pod, context| {
                pod.reopen_log(context, &request).await
            })
            .await?;
        Ok(())
    }

    /// Runs a command in a container, over a connection of its own: dropping the [`Exec`] (or dying) kills the command.
    pub async fn exec(&self, request: &ExecRequest) -> Result<Exec, RpcError> {
        let pod = connect(&self.path)?;
        let output = within("Exec", CHANGE, pod.exec(Context::default(), request)).await?;
        Ok(Exec { output })
    }

    /// Writes the sysctls of the pod's interfaces, which are there by now.
    pub async fn set_interface_sysctls(&self) -> Result<(), RpcError> {
        let Empty { .. } = self
            .bounded("SetInterfaceSysctls", CHANGE, async |pod, context| {
                let request = SetInterfaceSysctlsRequest::new();
                pod.set_interface_sysctls(context, &request).await
            })
            .await?;
        Ok(())
    }

    /// Ends every process of the pod.
    pub async fn stop_pod(&self) -> Result<(), RpcError> {
        let Empty { .. } = self
            .bounded("StopPod", CHANGE, async |pod, context| {
                pod.stop_pod(context, &StopPodRequest::new()).await
            })
            .await?;
        Ok(())
    }

    /// Ends the pod and its shim.
    pub async fn shutdown(&self) -> Result<(), RpcError> {
        let Empty { .. } = self
            .bounded("Shutdown", LOOK, async |pod, context| {
                pod.shutdown(context, &ShutdownRequest::new()).await
            })
            .await?;
        Ok(())
    }

    async fn bounded<T>(
        &self,
        call: &'static str,
        limit: Duration,
        ask: impl AsyncFnOnce(PodClient, Context) -> ttrpc::Result<T>,
    ) -> Result<T, RpcError> {
        match tokio::time::timeout(limit, self.call(ask)).await {
            Ok(answer) => answer,
            Err(_) => Err(RpcError::Silent { call, limit }),
        }
    }

    /// A call is not repeated here: whether it may be is the caller's to know.
    async fn call<T>(
        &self,
        ask: impl AsyncFnOnce(PodClient, Context) -> ttrpc::Result<T>,
    ) -> Result<T, RpcError> {
        let used = self.connection().clone();
        let answer = ask(used.pod, context::Context::default()).await;
        let answer = answer.map_err(RpcError::from);
        if let Err(RpcError::Closed(_)) = answer {
            self.connect_anew(used.number);
        }
        answer
    }

    /// Takes the place of a connection that broke. Where nobody listens any more the broken one stays, and every call over
    /// it fails at once.
    fn connect_anew(&self, broken: u64) {
        if self.connection().number != broken {
            return;
        }
        let Ok(pod) = connect(&self.path) else {
            return;
        };
        let mut connection = self.connection();
        if connection.number == broken {
            *connection = Connection {
                pod,
                number: broken + 1,
            };
        }
    }

    fn connection(&self) -> std::sync::MutexGuard<'_, Connection> {
        // It is replaced as a whole: a panic elsewhere cannot leave half of one.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn connect(path: &Path) -> Result<PodClient, ConnectError> {
    let stream = socket::connect(path)?;
    let stream = UnixStream::from_std(stream).map_err(|source| ConnectError {
        path: path.into(),
        source,
    })?;
    Ok(PodClient::new(ttrpc::r#async::Client::new(Socket::from(stream))))
}

async fn within<T>(
    call: &'static str,
    limit: Duration,
    answer: impl Future<Output = ttrpc::Result<T>>,
) -> Result<T, RpcError> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(RpcError::Silent { call, limit }),
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod_ttrpc;
    use tokio::net::UnixListener;
    use ttrpc::r#async::{Server, TtrpcContext};
    use ttrpc::asynchronous::transport::Listener;

    struct Ended;

    #[async_trait::async_trait]
    impl pod_ttrpc::Pod for Ended {
        async fn wait_container(
            &self,
            _: &TtrpcContext,
            request: WaitContainerRequest,
        ) -> ttrpc::Result<ContainerState> {
            Ok(ContainerState {
                id: request.id,
                exit_code: 7,
                ..Default::default()
            })
        }
    }

    #[tokio::test]
    async fn a_connection_that_broke_is_made_anew_for_the_next_call() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shim.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let client = Client::connect(&path).unwrap();
        drop(listener.accept().await.unwrap());
        let broken = client.wait_container("c").await;
        assert!(matches!(broken, Err(RpcError::Closed(_))), "{broken:?}");
        let (socket, _) = listener.accept().await.unwrap();
        let mut server = Server::new()
            .add_listener(Listener::new(tokio_stream::once(Ok(Socket::from(socket)))))
            .register_service(pod_ttrpc::create_pod(Arc::new(Ended)));
        server.start().await.unwrap();
        let state = tokio::time::timeout(CHANGE, client.wait_container("c")).await;
        let state = state.unwrap().unwrap();
        assert_eq!((state.id.as_str(), state.exit_code), ("c", 7));
    }
}
