//! Why a request failed, and the one place where that becomes a gRPC code.

use std::path::PathBuf;

use coracle_shim_api::{Code as ShimCode, RpcError};
use tonic::{Code, Status};

use crate::cgroup::CgroupError;
use crate::host_path::HostPathError;
use crate::network::NetworkError;
use crate::pod_files::PodFileError;
use crate::pods::Ambiguous;
use crate::shims::ShimError;
use crate::spec::{PlanError, VolumeError};
use crate::store::StoreError;

/// A failed request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{kind} {id:?}: not found")]
    NotFound { kind: &'static str, id: String },
    #[error("{kind} {name:?} exists already, as {id}")]
    Exists {
        kind: &'static str,
        name: String,
        id: String,
    },
    #[error("{field}: {id:?}: {source}")]
    Ambiguous {
        field: &'static str,
        id: String,
        source: Ambiguous,
    },
    #[error("{field}: missing")]
    Missing { field: &'static str },
    #[error("{field}: {value:?}: {wants}")]
    Invalid {
        field: &'static str,
        value: String,
        wants: &'static str,
    },
    /// Of a list.
    #[error("{field}: {value:?}: {wants}")]
    InvalidEntry {
        field: String,
        value: String,
        wants: &'static str,
    },
    #[error("sandbox {id} is not ready")]
    SandboxNotReady { id: String },
    #[error("container {id} is {state}, not {wanted}")]
    ContainerState {
        id: String,
        state: &'static str,
        wanted: &'static str,
    },
    #[error("{rpc}: not there yet")]
    Unimplemented { rpc: &'static str },
    #[error("image {0:?}: not found")]
    NoImage(String),
    #[error("{field}: {source}")]
    User {
        field: &'static str,
        source: coracle_images::user::UserError,
    },
    #[error("{action} {}: {source}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("config.json: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error("{field}: {source}")]
    HostPath { field: String, source: HostPathError },
    #[error(transparent)]
    PodFile(#[from] PodFileError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Shim(#[from] ShimError),
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error("the task of this request was ended")]
    Join,
    #[error("a step ran without the one before it")]
    OutOfOrder,
    #[error("container {id} does not end")]
    StillRunning { id: String },
    #[error("the command ran longer than {seconds} s and was killed")]
    ExecTimeout { seconds: u64 },
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Status {
        let code = code(&failure);
        if code == Code::Internal {
            tracing::error!(error = %failure, "request failed");
        }
        Status::new(code, failure.to_string())
    }
}

fn code(failure: &Failure) -> Code {
    match failure {
        Failure::NotFound { .. } | Failure::NoImage(_) => Code::NotFound,
        Failure::Exists { .. } => Code::AlreadyExists,
        Failure::Missing { .. }
        | Failure::Invalid { .. }
        | Failure::InvalidEntry { .. }
        | Failure::Ambiguous { .. }
        | Failure::User { .. } => Code::InvalidArgument,
        Failure::Plan(PlanError::Unsupported { .. }) => Code::Unimplemented,
        Failure::Plan(_) | Failure::Volume(VolumeError::Propagation { .. }) => Code::InvalidArgument,
        Failure::SandboxNotReady { .. } | Failure::ContainerState { .. } => Code::FailedPrecondition,
        Failure::Unimplemented { .. } => Code::Unimplemented,
        Failure::ExecTimeout { .. }
        | Failure::HostPath {
            source: HostPathError::Hangs(_),
            ..
        } => Code::DeadlineExceeded,
        Failure::Rpc(error) | Failure::Shim(ShimError::Rpc(error)) => shim_code(error),
        _ => Code::Internal,
    }
}

fn shim_code(error: &RpcError) -> Code {
    match error {
        RpcError::Status {
            code: ShimCode::INVALID_ARGUMENT,
            ..
        } => Code::InvalidArgument,
        RpcError::Status {
            code: ShimCode::NOT_FOUND,
            ..
        } => Code::NotFound,
        RpcError::Status {
            code: ShimCode::FAILED_PRECONDITION,
            ..
        } => Code::FailedPrecondition,
        RpcError::Status {
            code: ShimCode::DEADLINE_EXCEEDED,
            ..
        } => Code::DeadlineExceeded,
        RpcError::Status { .. } => Code::Unknown,
        RpcError::Closed(_) | RpcError::Silent { .. } | RpcError::Connect(_) => Code::Unavailable,
    }
}
