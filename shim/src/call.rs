//! One call of the protocol on its way through the shim: what is asked, who asks, where the answer goes, and why a call is
//! not done.
//!
//! ```text
//!   server --Request (with a Reply)--> driver ----starts----> tasks
//!      ^                                 |                      |
//!      '--------- Result<T, Refused> ----'----------------------'
//!   Exec, besides: ExecOutput, piece by piece; a caller who is slow slows the command down
//! ```
//! Nothing here knows the transport, nor what a pod or a container is.

use std::error::Error;
use std::sync::Arc;

use coracle_shim_api::pod::{
    ContainerState, CreateContainerRequest, CreateContainerResponse, Empty, ExecOutput, ExecRequest,
    KillContainerRequest, StartContainerResponse, StartPodRequest, StartPodResponse, StateResponse,
};
use tokio::sync::{mpsc, oneshot, watch};

/// Where an answer goes; the caller may be gone.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Refused>>;

/// One call of the protocol.
pub(crate) enum Request {
    StartPod(StartPodRequest, Reply<StartPodResponse>),
    SetInterfaceSysctls(Reply<Empty>),
    State(Reply<StateResponse>),
    Create(Box<CreateContainerRequest>, Reply<CreateContainerResponse>),
    Start(String, Reply<StartContainerResponse>),
    Kill(KillContainerRequest, Reply<Empty>),
    Wait(String, Reply<ContainerState>),
    Delete(String, Reply<Empty>),
    ReopenLog(String, Reply<Empty>),
    Exec {
        request: ExecRequest,
        /// When it is gone the command is killed.
        caller: Connection,
        output: mpsc::Sender<ExecOutput>,
        reply: Reply<()>,
    },
    StopPod(Reply<Empty>),
    Shutdown(Reply<Empty>),
}

/// What is behind a refusal. Several callers may be waiting for the same end, and each hears the whole of it.
type Cause = Arc<dyn Error + Send + Sync>;

/// Why a call was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("container {0:?} is unknown")]
    Unknown(String),
    #[error("container {0:?} exists already")]
    Exists(String),
    #[error("container {id:?} is {is}, not {wanted}")]
    ContainerState {
        id: String,
        is: &'static str,
        wanted: &'static str,
    },
    #[error("the pod is {0}")]
    PodState(&'static str),
    #[error("container {0:?} was ended while it was being created")]
    Cancelled(String),
    #[error("the command did not end within {0} ms")]
    Timeout(u64),
    /// The request is to blame: it would fail on every machine.
    #[error(transparent)]
    Invalid(Cause),
    /// The request is not to blame.
    #[error(transparent)]
    Failed(Cause),
    #[error("remove container {id:?}")]
    NotRemoved { id: String, source: Cause },
}

impl Refused {
    pub(crate) fn invalid(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Invalid(Arc::new(error))
    }

    pub(crate) fn failed(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Failed(Arc::new(error))
    }
}

/// Answers a caller, who may be gone.
pub(crate) fn answer<T>(reply: Reply<T>, result: Result<T, Refused>) {
    let _ = reply.send(result);
}

/// A handle on the connection that a call came over.
#[derive(Clone)]
pub(crate) struct Connection {
    open: watch::Receiver<()>,
}

impl Connection {
    /// A connection that is open for as long as the sender lives.
    pub(crate) fn new() -> (watch::Sender<()>, Self) {
        let (sender, open) = watch::channel(());
        (sender, Self { open })
    }

    /// Returns once the other side has closed it.
    pub(crate) async fn closed(&self) {
        // Nothing is ever sent: an answer can only mean that the sender is gone.
        while self.open.clone().changed().await.is_ok() {}
    }
}
