//! A small client of the Container Runtime Interface, made from the published protocol files: it drives `coracled`, and
//! containerd as its peer, without the start-up time of a program per request.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};
use tower::service_fn;

use crate::wait;

/// The messages and clients of CRI v1.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

/// The messages and client of the import service.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
pub mod import {
    tonic::include_proto!("coracle.images.v1");
}

/// No request of ours takes longer; a pull of a test's image neither.
const LONGEST: Duration = Duration::from_secs(120);

/// A connection to a CRI server. Requests wait for their answer.
#[derive(Debug)]
pub struct Cri {
    executor: Runtime,
    channel: Channel,
}

macro_rules! requests {
    ($module:ident $client:ident: $($(#[$text:meta])* $name:ident($request:ident) -> $response:ident;)*) => {$(
        $(#[$text])*
        ///
        /// # Errors
        /// The server's status.
        pub fn $name(&self, request: v1::$request) -> Result<v1::$response, Status> {
            let mut client = v1::$module::$client::new(self.channel.clone());
            self.executor.block_on(client.$name(bounded(request))).map(tonic::Response::into_inner)
        }
    )*};
}

impl Cri {
    /// Connects to a socket of any path length.
    ///
    /// # Panics
    /// When nobody answers there within 5 s.
    #[must_use]
    pub fn connect(socket: &Path) -> Cri {
        let executor = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("an executor");
        let path = socket.to_path_buf();
        let channel = wait::until(wait::SOON, || {
            let path = path.clone();
            executor.block_on(async {
                // The address is not used, but a URI has to have one.
                let endpoint = Endpoint::from_static("http://node").timeout(LONGEST);
                endpoint
                    .connect_with_connector(service_fn(move |_: Uri| open(path.clone())))
                    .await
            })
        });
        let channel = channel.unwrap_or_else(|error| panic!("connect to {}: {error:?}", socket.display()));
        Cri { executor, channel }
    }

    requests! { runtime_service_client RuntimeServiceClient:
        /// Version.
        version(VersionRequest) -> VersionResponse;
        /// Status.
        status(StatusRequest) -> StatusResponse;
        /// RunPodSandbox.
        run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse;
        /// StopPodSandbox.
        stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse;
        /// RemovePodSandbox.
        remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse;
        /// PodSandboxStatus.
        pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse;
        /// ListPodSandbox.
        list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse;
        /// CreateContainer.
        create_container(CreateContainerRequest) -> CreateContainerResponse;
        /// StartContainer.
        start_container(StartContainerRequest) -> StartContainerResponse;
        /// StopContainer.
        stop_container(StopContainerRequest) -> StopContainerResponse;
        /// RemoveContainer.
        remove_container(RemoveContainerRequest) -> RemoveContainerResponse;
        /// ListContainers.
        list_containers(ListContainersRequest) -> ListContainersResponse;
        /// ContainerStatus.
        container_status(ContainerStatusRequest) -> ContainerStatusResponse;
        /// UpdateContainerResources.
        update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse;
        /// ReopenContainerLog.
        reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse;
        /// ExecSync.
        exec_sync(ExecSyncRequest) -> ExecSyncResponse;
        /// Exec.
        exec(ExecRequest) -> ExecResponse;
        /// Attach.
        attach(AttachRequest) -> AttachResponse;
        /// PortForward.
        port_forward(PortForwardRequest) -> PortForwardResponse;
        /// ContainerStats.
        container_stats(ContainerStatsRequest) -> ContainerStatsResponse;
        /// ListContainerStats.
        list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse;
        /// PodSandboxStats.
        pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse;
        /// ListPodSandboxStats.
        list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse;
        /// UpdateRuntimeConfig.
        update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse;
        /// CheckpointContainer.
        checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse;
        /// RuntimeConfig.
        runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse;
    }

    requests! { image_service_client ImageServiceClient:
        /// ListImages.
        list_images(ListImagesRequest) -> ListImagesResponse;
        /// ImageStatus.
        image_status(ImageStatusRequest) -> ImageStatusResponse;
        /// PullImage.
        pull_image(PullImageRequest) -> PullImageResponse;
        /// RemoveImage.
        remove_image(RemoveImageRequest) -> RemoveImageResponse;
        /// ImageFsInfo.
        image_fs_info(ImageFsInfoRequest) -> ImageFsInfoResponse;
    }

    /// RunPodSandbox by a client that goes away after `limit`.
    ///
    /// # Errors
    /// The server's status, or that the time is over.
    pub fn run_pod_sandbox_within(
        &self,
        request: v1::RunPodSandboxRequest,
        limit: Duration,
    ) -> Result<v1::RunPodSandboxResponse, Status> {
        let mut client = v1::runtime_service_client::RuntimeServiceClient::new(self.channel.clone());
        let call = async move { tokio::time::timeout(limit, client.run_pod_sandbox(request)).await };
        match self.executor.block_on(call) {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => Err(Status::cancelled("the client has gone away")),
        }
    }

    /// Hands an image archive to the import service, in pieces.
    ///
    /// # Errors
    /// The server's status.
    ///
    /// # Panics
    /// When the archive cannot be read.
    pub fn import(&self, archive: &Path) -> Result<Vec<import::ImportedImage>, Status> {
        let bytes =
            std::fs::read(archive).unwrap_or_else(|error| panic!("read {}: {error}", archive.display()));
        self.import_bytes(&bytes)
    }

    /// As [`Cri::import`], of an archive in memory.
    ///
    /// # Errors
    /// The server's status.
    pub fn import_bytes(&self, archive: &[u8]) -> Result<Vec<import::ImportedImage>, Status> {
        let pieces: Vec<_> = archive
            .chunks(512 << 10)
            .map(|chunk| import::ImportRequest {
                name: None,
                chunk: chunk.to_vec(),
            })
            .collect();
        let mut client = import::image_import_client::ImageImportClient::new(self.channel.clone());
        let answer = self
            .executor
            .block_on(client.import(bounded(tokio_stream::iter(pieces))));
        answer.map(|response| response.into_inner().images)
    }
}

fn bounded<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(LONGEST);
    request
}

/// Whether somebody listens on a socket: that its file is there says nothing.
#[must_use]
pub fn listens(socket: &Path) -> bool {
    let connect = |short: &Path| std::os::unix::net::UnixStream::connect(short);
    short(socket).is_ok_and(|folder| connect(&folder.path().join(LINK)).is_ok())
}

async fn open(path: PathBuf) -> std::io::Result<TokioIo<UnixStream>> {
    let folder = short(&path)?;
    UnixStream::connect(folder.path().join(LINK))
        .await
        .map(TokioIo::new)
}

/// A socket's path may be longer than an address can be (108 bytes, unix(7)), so it is reached through a link in a folder
/// with a short path. (Not through /proc/self: a node's procfs does not know the test's own process.)
fn short(socket: &Path) -> std::io::Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().tempdir_in("/tmp")?;
    std::os::unix::fs::symlink(socket, folder.path().join(LINK))?;
    Ok(folder)
}

const LINK: &str = "s";
