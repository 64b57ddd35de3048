//! The socket: who listens, what is served on it, and when it ends.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_cri_api::import_v1::image_import_server::ImageImportServer;
use coracle_cri_api::runtime_v1::image_service_server::ImageServiceServer;
use coracle_cri_api::runtime_v1::runtime_service_server::RuntimeServiceServer;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::UnixListenerStream;

use crate::config::Config;
use crate::daemon::Daemon;
use crate::image_service::Images;
use crate::import::Import;
use crate::runtime_service::Runtime;

/// More than any answer has; ExecSync cuts its own to what clients take.
const LARGEST_MESSAGE: usize = 64 << 20;
const BACKLOG: i32 = 1024;

/// Why nothing is served any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("{action} {}", path.display())]
    Socket {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{}: another program listens there", .0.display())]
    Taken(PathBuf),
    #[error("listen {}: it exists and is not a socket", .0.display())]
    NoSocket(PathBuf),
    #[error("serve")]
    Transport(#[from] tonic::transport::Error),
    #[error("install signal handler")]
    Signal(#[source] io::Error),
}

/// Takes the socket's path, of any length; a socket file that nobody listens on is replaced.
pub(crate) async fn listen(config: &Config) -> Result<UnixListener, ServeError> {
    let path = config.socket();
    let error = |action| {
        move |source| ServeError::Socket {
            action,
            path: path.to_owned(),
            source,
        }
    };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(error("create directory of"))?;
    }
    if coracle_linux::socket::connect(path).is_ok() {
        return Err(ServeError::Taken(path.to_owned()));
    }
    remove_stale(path)?;
    let listener = coracle_linux::socket::listen(path, BACKLOG).map_err(error("listen on"))?;
    // Whoever can connect is root on this node.
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).map_err(error("set mode of"))?;
    let listener = std::os::unix::net::UnixListener::from(listener);
    listener.set_nonblocking(true).map_err(error("listen on"))?;
    UnixListener::from_std(listener).map_err(error("listen on"))
}

/// Takes away the socket of a daemon that is gone; nothing else is ours to remove.
fn remove_stale(path: &Path) -> Result<(), ServeError> {
    let error = |action| {
        move |source| ServeError::Socket {
            action,
            path: path.to_owned(),
            source,
        }
    };
    match std::fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => std::fs::remove_file(path).map_err(error("remove")),
        Ok(_) => Err(ServeError::NoSocket(path.to_owned())),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(error("look at")(source)),
    }
}

/// Answers until SIGTERM or SIGINT. Pods run on.
pub(crate) async fn serve(daemon: &Arc<Daemon>, listener: UnixListener) -> Result<(), ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signal)?;
    let serving = tonic::transport::Server::builder()
        .add_service(
            RuntimeServiceServer::new(Runtime::new(daemon)).max_encoding_message_size(LARGEST_MESSAGE),
        )
        .add_service(ImageServiceServer::new(Images::new(daemon)).max_encoding_message_size(LARGEST_MESSAGE))
        .add_service(ImageImportServer::new(Import::new(daemon)).max_decoding_message_size(LARGEST_MESSAGE))
        .serve_with_incoming(UnixListenerStream::new(listener));
    tracing::info!(socket = %daemon.config.socket().display(), "ready");
    tokio::select! {
        ended = serving => ended?,
        _ = terminate.recv() => tracing::info!("SIGTERM: leaving, pods run on"),
        _ = interrupt.recv() => tracing::info!("SIGINT: leaving, pods run on"),
    }
    // Clients get "no such file" instead of "connection refused"; a next daemon would have replaced it.
    let _ = std::fs::remove_file(daemon.config.socket());
    Ok(())
}
