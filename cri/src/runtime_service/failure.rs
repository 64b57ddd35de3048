//! Why a request failed, and which gRPC code that is.

use std::path::PathBuf;

use coracle_shim_api::RpcError;
use tonic::Code;

use crate::host_path::HostPathError;
use crate::network::NetworkError;
use crate::pod_files::PodFileError;
use crate::pods::Ambiguous;
use crate::shims::{self, ShimError};
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
    #[error("{field}: {id:?}")]
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
    #[error("image {0:?}: not found")]
    NoImage(String),
    #[error("{field}")]
    User {
        field: &'static str,
        source: coracle_images::user::UserError,
    },
    #[error("{action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("config.json")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error("{field}")]
    HostPath { field: String, source: HostPathError },
    #[error(transparent)]
    PodFile(#[from] PodFileError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Network(#[from] NetworkError),
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

impl Failure {
    /// Its code for clients.
    pub(crate) fn code(&self) -> Code {
        match self {
            Failure::NotFound { .. } | Failure::NoImage(_) => Code::NotFound,
            Failure::Exists { .. } => Code::AlreadyExists,
            Failure::Missing { .. }
            | Failure::Invalid { .. }
            | Failure::InvalidEntry { .. }
            | Failure::Ambiguous { .. }
            | Failure::User { .. } => Code::InvalidArgument,
            Failure::SandboxNotReady { .. } | Failure::ContainerState { .. } => Code::FailedPrecondition,
            Failure::ExecTimeout { .. } => Code::DeadlineExceeded,
            Failure::Plan(error) => error.code(),
            Failure::Volume(error) => error.code(),
            Failure::HostPath { source, .. } => source.code(),
            Failure::Shim(error) => error.code(),
            Failure::Rpc(error) => shims::code_of(error),
            Failure::Io { .. }
            | Failure::Json(_)
            | Failure::PodFile(_)
            | Failure::Store(_)
            | Failure::Network(_)
            | Failure::Join
            | Failure::OutOfOrder
            | Failure::StillRunning { .. } => Code::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::grpc;
    use crate::network::Network;
    use crate::store::SandboxRecord;

    fn network(directory: &Path) -> Network {
        Network::new(&Config {
            cni_conf_dir: directory.to_owned(),
            cni_bin_dir: directory.to_owned(),
            ..Config::default()
        })
    }

    fn message(failure: &Failure) -> String {
        grpc::status(failure.code(), failure).message().to_owned()
    }

    #[test]
    fn a_client_is_told_which_file_of_the_network_is_wrong_and_why() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("00.conflist");
        let cases = [
            (
                r#"{"cniVersion":"1.0.0","name":"x","plugins":["#,
                vec![path.to_str().unwrap(), "not JSON: EOF while parsing"],
            ),
            (
                r#"{"cniVersion":"1.0.0","name":"a/b","plugins":[{"type":"t"}]}"#,
                vec![path.to_str().unwrap(), "name: invalid characters"],
            ),
        ];
        for (text, parts) in cases {
            std::fs::write(&path, text).unwrap();
            let failure = Failure::from(network(directory.path()).load().unwrap_err());
            let message = message(&failure);
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
    }

    #[tokio::test]
    async fn a_client_is_told_why_a_plugin_does_not_start() {
        let directory = tempfile::tempdir().unwrap();
        let plugin = directory.path().join("locked");
        std::fs::write(&plugin, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o644)).unwrap();
        let record = SandboxRecord {
            id: "a".to_owned(),
            network: r#"{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"locked"}]}"#.to_owned(),
            ..SandboxRecord::default()
        };
        let refused = network(directory.path()).attach(&record).await.unwrap_err();
        let message = message(&Failure::from(refused));
        for part in [plugin.to_str().unwrap(), "Permission denied (os error 13)"] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_cause_is_said_once() {
        let refused = Path::new("/proc/self/nothing/there");
        let source = std::fs::read(refused).unwrap_err();
        let failure = Failure::Io {
            action: "read",
            path: refused.to_owned(),
            source,
        };
        assert_eq!(
            message(&failure),
            "read /proc/self/nothing/there: No such file or directory (os error 2)"
        );
    }
}
