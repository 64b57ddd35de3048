//! The shim's side of the protocol: each call becomes a [`Request`] to the [driver](crate::driver), and what the driver
//! refuses becomes a status. The only place that knows ttrpc and its status codes.
//!
//! Every connection has a ttrpc server of its own, because ttrpc does not tell a streaming call that its caller is gone:
//! here the [`Connection`] that an Exec came over does.

mod watched;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use async_trait::async_trait;
use coracle_shim_api::pod::{
    ContainerState, CreateContainerRequest, CreateContainerResponse, DeleteContainerRequest, Empty,
    ExecOutput, ExecRequest, KillContainerRequest, ReopenLogRequest, SetInterfaceSysctlsRequest,
    ShutdownRequest, StartContainerRequest, StartContainerResponse, StartPodRequest, StartPodResponse,
    StateRequest, StateResponse, StopPodRequest, WaitContainerRequest,
};
use coracle_shim_api::{Code, pod_ttrpc};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use ttrpc::r#async::{Server, ServerStreamSender, TtrpcContext};
use ttrpc::asynchronous::transport::Listener;

use crate::call::{Connection, Refused, Reply, Request};
use crate::report::chain;
use watched::Watched;

/// Accepts connections for as long as the shim lives.
pub(crate) async fn serve(listener: OwnedFd, requests: mpsc::Sender<Request>) -> std::io::Result<()> {
    let listener = std::os::unix::net::UnixListener::from(listener);
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (socket, connection) = Watched::new(stream);
                tokio::spawn(serve_one(socket, connection, requests.clone()));
            }
            // Out of descriptors, or the caller gave up: the next one may be luckier, but not at once.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}

async fn serve_one(socket: Watched, connection: Connection, requests: mpsc::Sender<Request>) {
    let service = PodService {
        requests,
        connection: connection.clone(),
    };
    let mut server = Server::new()
        .add_listener(Listener::new(tokio_stream::once(Ok(socket))))
        .register_service(pod_ttrpc::create_pod(Arc::new(service)));
    if server.start().await.is_ok() {
        // Dropping the server ends its connections.
        connection.closed().await;
    }
}

struct PodService {
    requests: mpsc::Sender<Request>,
    connection: Connection,
}

impl PodService {
    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> ttrpc::Result<T> {
        let (reply, answer) = oneshot::channel();
        let leaving = || ttrpc::Error::RpcStatus(ttrpc::get_status(Code::UNAVAILABLE, "the shim is leaving"));
        self.requests.send(request(reply)).await.map_err(|_| leaving())?;
        answer
            .await
            .map_err(|_| leaving())?
            .map_err(|refused| status(&refused))
    }
}

#[async_trait]
impl pod_ttrpc::Pod for PodService {
    async fn start_pod(&self, _: &TtrpcContext, request: StartPodRequest) -> ttrpc::Result<StartPodResponse> {
        self.ask(|reply| Request::StartPod(request, reply)).await
    }

    async fn set_interface_sysctls(
        &self,
        _: &TtrpcContext,
        _: SetInterfaceSysctlsRequest,
    ) -> ttrpc::Result<Empty> {
        self.ask(Request::SetInterfaceSysctls).await
    }

    async fn state(&self, _: &TtrpcContext, _: StateRequest) -> ttrpc::Result<StateResponse> {
        self.ask(Request::State).await
    }

    async fn create_container(
        &self,
        _: &TtrpcContext,
        request: CreateContainerRequest,
    ) -> ttrpc::Result<CreateContainerResponse> {
        self.ask(|reply| Request::Create(Box::new(request), reply)).await
    }

    async fn start_container(
        &self,
        _: &TtrpcContext,
        request: StartContainerRequest,
    ) -> ttrpc::Result<StartContainerResponse> {
        self.ask(|reply| Request::Start(request.id, reply)).await
    }

    async fn kill_container(&self, _: &TtrpcContext, request: KillContainerRequest) -> ttrpc::Result<Empty> {
        self.ask(|reply| Request::Kill(request, reply)).await
    }

    async fn wait_container(
        &self,
        _: &TtrpcContext,
        request: WaitContainerRequest,
    ) -> ttrpc::Result<ContainerState> {
        self.ask(|reply| Request::Wait(request.id, reply)).await
    }

    async fn delete_container(
        &self,
        _: &TtrpcContext,
        request: DeleteContainerRequest,
    ) -> ttrpc::Result<Empty> {
        self.ask(|reply| Request::Delete(request.id, reply)).await
    }

    async fn reopen_log(&self, _: &TtrpcContext, request: ReopenLogRequest) -> ttrpc::Result<Empty> {
        self.ask(|reply| Request::ReopenLog(request.id, reply)).await
    }

    async fn exec(
        &self,
        _: &TtrpcContext,
        request: ExecRequest,
        output: ServerStreamSender<ExecOutput>,
    ) -> ttrpc::Result<()> {
        let caller = self.connection.clone();
        // One piece at a time, so that a slow caller slows the command down.
        let (sender, mut pieces) = mpsc::channel(1);
        let answer = self.ask(|reply| Request::Exec {
            request,
            caller,
            output: sender,
            reply,
        });
        let forward = async move {
            while let Some(piece) = pieces.recv().await {
                output.send(&piece).await?;
            }
            Ok::<(), ttrpc::Error>(())
        };
        // A caller that cannot be written to is gone: the driver sees that by the pieces nobody takes.
        let (answer, _) = tokio::join!(answer, forward);
        answer
    }

    async fn stop_pod(&self, _: &TtrpcContext, _: StopPodRequest) -> ttrpc::Result<Empty> {
        self.ask(Request::StopPod).await
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> ttrpc::Result<Empty> {
        self.ask(Request::Shutdown).await
    }
}

fn status(refused: &Refused) -> ttrpc::Error {
    let code = match refused {
        Refused::Unknown(_) => Code::NOT_FOUND,
        Refused::Exists(_) => Code::ALREADY_EXISTS,
        Refused::ContainerState { .. } | Refused::PodState(_) | Refused::Cancelled(_) => {
            Code::FAILED_PRECONDITION
        }
        Refused::Invalid(_) => Code::INVALID_ARGUMENT,
        Refused::Timeout(_) => Code::DEADLINE_EXCEEDED,
        Refused::Failed(_) | Refused::NotRemoved { .. } => Code::INTERNAL,
    };
    ttrpc::Error::RpcStatus(ttrpc::get_status(code, chain(refused)))
}
