//! The pods' shims: starting one, finding it again, and noticing at once when one dies.
//!
//! ```text
//!   coracled                                          coracle-shim
//!      | bind STATE/pods/<id>/shim.sock                    |
//!      | posix_spawn: own session, 3 = that socket ------->|
//!      | connect; StartPod, CreateContainer ... ---------->|   shim/api
//!      | poll pidfd <- - - - - - - - - - - - - - - - - - - |   readable when it has ended, however it ended
//! ```

pub(crate) mod dead;
mod find;
mod program;
mod start;
mod stop;
pub(crate) mod watch;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use coracle_shim_api::{BindError, Code as ShimCode, ConnectError, RpcError};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tonic::Code;

use crate::cgroup::Hierarchies;
use crate::cgroup_parents::CgroupParents;
use crate::pods::{Pods, Shim};
use crate::store::Store;

pub(crate) use find::Found;
pub(crate) use program::find_program;
pub(crate) use start::report_log;
pub(crate) use stop::{collect_ended, kill, shut_down, silence};

const SOCKET: &str = "shim.sock";

/// Where shims come from and live, and what is needed when one dies.
#[derive(Debug)]
pub(crate) struct Shims {
    pub(crate) program: PathBuf,
    /// Parent of all cgroups of ours.
    pub(crate) cgroup_root: String,
    /// Shims append a JSON line per step to it, too.
    pub(crate) trace: Option<PathBuf>,
    pub(crate) hierarchies: Hierarchies,
    pub(crate) cgroup_parents: Arc<CgroupParents>,
    pub(crate) pods: Arc<Pods>,
    pub(crate) store: Arc<Store>,
}

/// A started shim, and how to notice its end.
pub(crate) struct Started {
    pub(crate) shim: Shim,
    pub(crate) end: OwnedFd,
}

/// Why there is no shim.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShimError {
    #[error(
        "{}: found neither beside this program nor on PATH; set the key shim",
        program::PROGRAM
    )]
    NoProgram,
    #[error("shim {}: no such program", .0.display())]
    NoSuchProgram(PathBuf),
    #[error(transparent)]
    Socket(#[from] BindError),
    #[error("{action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Rpc(#[from] RpcError),
}

impl ShimError {
    /// Its code for clients.
    pub(crate) fn code(&self) -> Code {
        match self {
            ShimError::Rpc(error) => code_of(error),
            ShimError::NoProgram
            | ShimError::NoSuchProgram(_)
            | ShimError::Socket(_)
            | ShimError::Io { .. }
            | ShimError::Connect(_) => Code::Internal,
        }
    }
}

/// The code of a failed call for clients. What the protocol (`pod.proto`) does not speak of is told as unknown.
pub(crate) fn code_of(error: &RpcError) -> Code {
    match error {
        RpcError::Status { code, .. } => match code {
            ShimCode::INVALID_ARGUMENT => Code::InvalidArgument,
            ShimCode::NOT_FOUND => Code::NotFound,
            ShimCode::FAILED_PRECONDITION => Code::FailedPrecondition,
            ShimCode::DEADLINE_EXCEEDED => Code::DeadlineExceeded,
            ShimCode::OK
            | ShimCode::CANCELLED
            | ShimCode::UNKNOWN
            | ShimCode::ALREADY_EXISTS
            | ShimCode::PERMISSION_DENIED
            | ShimCode::UNAUTHENTICATED
            | ShimCode::RESOURCE_EXHAUSTED
            | ShimCode::ABORTED
            | ShimCode::OUT_OF_RANGE
            | ShimCode::UNIMPLEMENTED
            | ShimCode::INTERNAL
            | ShimCode::UNAVAILABLE
            | ShimCode::DATA_LOSS => Code::Unknown,
        },
        RpcError::Closed(_) | RpcError::Silent { .. } | RpcError::Connect(_) => Code::Unavailable,
    }
}

impl Shims {
    /// Where the shims live: neither the daemon's cgroup nor a pod's.
    fn cgroup(&self) -> String {
        format!("{}/shims", self.cgroup_root)
    }

    /// Removes our own cgroups where nobody is in them.
    pub(crate) fn remove_empty_cgroups(&self) {
        self.hierarchies.remove_if_empty(&self.cgroup());
        self.hierarchies.remove_if_empty(&self.cgroup_root);
    }
}

/// Returns once the shim's process has ended.
// `with_interest` is deprecated since a type could hand out another descriptor later; OwnedFd cannot, and the other
// constructors are unsafe, which this crate forbids.
#[allow(deprecated)]
async fn ended(pidfd: &OwnedFd) -> io::Result<()> {
    let waiting = AsyncFd::with_interest(pidfd.as_fd(), Interest::READABLE)?;
    waiting.readable().await?.retain_ready();
    Ok(())
}
