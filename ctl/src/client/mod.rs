//! The connection to coracled: CRI and the image import service on one unix socket.
//!
//! The connection is made by the first call and again after the daemon has been away, so a `play` outlives a restart of
//! the daemon.

mod containers;
mod error;
mod images;
mod node;
mod pods;

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use coracle_cri_api::import_v1::image_import_client::ImageImportClient;
use coracle_cri_api::runtime_v1::image_service_client::ImageServiceClient;
use coracle_cri_api::runtime_v1::runtime_service_client::RuntimeServiceClient;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status};
use tower::service_fn;

pub(crate) use error::ClientError;

/// Where the daemon listens: `unix:///PATH`.
#[derive(Clone, Debug)]
pub(crate) struct Address(PathBuf);

/// Why a text is not an address.
#[derive(Debug, Error)]
#[error("must be unix:// and an absolute path")]
pub(crate) struct AddressError;

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        match text.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') => Ok(Address(path.into())),
            _ => Err(AddressError),
        }
    }
}

/// A handle on the daemon; clones share one connection.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    path: PathBuf,
    channel: Channel,
}

impl Client {
    /// A handle; nothing is connected yet.
    pub(crate) fn new(address: &Address) -> Client {
        let path = address.0.clone();
        let socket = path.clone();
        let by_path = service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { connect(&socket).map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://coracled").connect_with_connector_lazy(by_path);
        Client { path, channel }
    }

    fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    fn importer(&self) -> ImageImportClient<Channel> {
        ImageImportClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// The answer without its frame, or the error with what the call was about.
    fn answer<T>(
        &self,
        call: &'static str,
        object: &str,
        result: Result<Response<T>, Status>,
    ) -> Result<T, ClientError> {
        let status = match result {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) => status,
        };
        Err(match error::sort(status) {
            Ok(source) => ClientError::Unreachable {
                path: self.path.clone(),
                source,
            },
            Err(source) => ClientError::Call {
                call,
                object: object.to_owned(),
                source,
            },
        })
    }
}

/// The kubelet's limit for what a runtime answers.
const MAX_MESSAGE: usize = 16 << 20;

/// How long the daemon may take for a call that has no time of its own: the kubelet's default.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// A request that fails with DEADLINE_EXCEEDED after `timeout`.
fn request<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// A path of any length: `coracle_linux::socket` goes through /proc/self/fd where `sun_path` is too short.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let stream = StdUnixStream::from(coracle_linux::socket::connect(path)?);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_absolute_unix_path() {
        assert!("unix:///run/x.sock".parse::<Address>().is_ok());
        for text in ["", "/run/x.sock", "unix://run/x.sock", "tcp://127.0.0.1:1"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_there_is_named_with_its_path_of_any_length() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory
            .path()
            .join("d".repeat(100))
            .join("e".repeat(100))
            .join("coracled.sock");
        let client = Client::new(&format!("unix://{}", path.display()).parse().unwrap());
        let error = client.list_sandboxes().await.unwrap_err();
        assert!(error.is_unreachable());
        let text = crate::error::chain(&error);
        assert!(
            text.contains("e/coracled.sock: No such file or directory"),
            "{text}"
        );
    }
}
