//! The generated trait, an RPC a method: each hands over to the file of its name.

use std::sync::Arc;

use coracle_cri_api::runtime_v1 as v1;
use coracle_cri_api::runtime_v1::runtime_service_server::RuntimeService;
use tonic::{Request, Response, Status};

use super::request::answer;
use super::{
    container_stats, container_status, create_container, exec_sync, list_container_stats, list_containers,
    list_pod_sandbox, list_pod_sandbox_stats, pod_sandbox_stats, pod_sandbox_status, remove_container,
    remove_pod_sandbox, reopen_container_log, run_pod_sandbox, runtime_config, start_container, status,
    stop_container, stop_pod_sandbox, update_runtime_config, version,
};
use crate::daemon::Daemon;
use crate::grpc::unimplemented;

/// CRI's RuntimeService on this daemon.
#[derive(Debug)]
pub(crate) struct Runtime {
    daemon: Arc<Daemon>,
}

impl Runtime {
    pub(crate) fn new(daemon: &Arc<Daemon>) -> Runtime {
        Runtime {
            daemon: Arc::clone(daemon),
        }
    }

    fn daemon(&self) -> Arc<Daemon> {
        Arc::clone(&self.daemon)
    }
}

#[tonic::async_trait]
impl RuntimeService for Runtime {
    type StreamPodSandboxesStream = tokio_stream::Empty<Result<v1::StreamPodSandboxesResponse, Status>>;
    type StreamContainersStream = tokio_stream::Empty<Result<v1::StreamContainersResponse, Status>>;
    type StreamContainerStatsStream = tokio_stream::Empty<Result<v1::StreamContainerStatsResponse, Status>>;
    type StreamPodSandboxStatsStream = tokio_stream::Empty<Result<v1::StreamPodSandboxStatsResponse, Status>>;
    type GetContainerEventsStream = tokio_stream::Empty<Result<v1::ContainerEventResponse, Status>>;
    type StreamPodSandboxMetricsStream =
        tokio_stream::Empty<Result<v1::StreamPodSandboxMetricsResponse, Status>>;

    async fn version(
        &self,
        request: Request<v1::VersionRequest>,
    ) -> Result<Response<v1::VersionResponse>, Status> {
        answer(version::version(self.daemon(), request.into_inner()).await)
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<v1::RunPodSandboxRequest>,
    ) -> Result<Response<v1::RunPodSandboxResponse>, Status> {
        answer(run_pod_sandbox::run_pod_sandbox(self.daemon(), request.into_inner()).await)
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<v1::StopPodSandboxRequest>,
    ) -> Result<Response<v1::StopPodSandboxResponse>, Status> {
        answer(stop_pod_sandbox::stop_pod_sandbox(self.daemon(), request.into_inner()).await)
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<v1::RemovePodSandboxRequest>,
    ) -> Result<Response<v1::RemovePodSandboxResponse>, Status> {
        answer(remove_pod_sandbox::remove_pod_sandbox(self.daemon(), request.into_inner()).await)
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<v1::PodSandboxStatusRequest>,
    ) -> Result<Response<v1::PodSandboxStatusResponse>, Status> {
        answer(pod_sandbox_status::pod_sandbox_status(self.daemon(), request.into_inner()).await)
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<v1::ListPodSandboxRequest>,
    ) -> Result<Response<v1::ListPodSandboxResponse>, Status> {
        answer(list_pod_sandbox::list_pod_sandbox(self.daemon(), request.into_inner()).await)
    }

    async fn stream_pod_sandboxes(
        &self,
        _: Request<v1::StreamPodSandboxesRequest>,
    ) -> Result<Response<Self::StreamPodSandboxesStream>, Status> {
        unimplemented("StreamPodSandboxes")
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Result<Response<v1::CreateContainerResponse>, Status> {
        answer(create_container::create_container(self.daemon(), request.into_inner()).await)
    }

    async fn start_container(
        &self,
        request: Request<v1::StartContainerRequest>,
    ) -> Result<Response<v1::StartContainerResponse>, Status> {
        answer(start_container::start_container(self.daemon(), request.into_inner()).await)
    }

    async fn stop_container(
        &self,
        request: Request<v1::StopContainerRequest>,
    ) -> Result<Response<v1::StopContainerResponse>, Status> {
        answer(stop_container::stop_container(self.daemon(), request.into_inner()).await)
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Result<Response<v1::RemoveContainerResponse>, Status> {
        answer(remove_container::remove_container(self.daemon(), request.into_inner()).await)
    }

    async fn list_containers(
        &self,
        request: Request<v1::ListContainersRequest>,
    ) -> Result<Response<v1::ListContainersResponse>, Status> {
        answer(list_containers::list_containers(self.daemon(), request.into_inner()).await)
    }

    async fn stream_containers(
        &self,
        _: Request<v1::StreamContainersRequest>,
    ) -> Result<Response<Self::StreamContainersStream>, Status> {
        unimplemented("StreamContainers")
    }

    async fn container_status(
        &self,
        request: Request<v1::ContainerStatusRequest>,
    ) -> Result<Response<v1::ContainerStatusResponse>, Status> {
        answer(container_status::container_status(self.daemon(), request.into_inner()).await)
    }

    async fn update_container_resources(
        &self,
        _: Request<v1::UpdateContainerResourcesRequest>,
    ) -> Result<Response<v1::UpdateContainerResourcesResponse>, Status> {
        unimplemented("UpdateContainerResources")
    }

    async fn reopen_container_log(
        &self,
        request: Request<v1::ReopenContainerLogRequest>,
    ) -> Result<Response<v1::ReopenContainerLogResponse>, Status> {
        answer(reopen_container_log::reopen_container_log(self.daemon(), request.into_inner()).await)
    }

    async fn exec_sync(
        &self,
        request: Request<v1::ExecSyncRequest>,
    ) -> Result<Response<v1::ExecSyncResponse>, Status> {
        answer(exec_sync::exec_sync(self.daemon(), request.into_inner()).await)
    }

    async fn exec(&self, _: Request<v1::ExecRequest>) -> Result<Response<v1::ExecResponse>, Status> {
        unimplemented("Exec")
    }

    async fn attach(&self, _: Request<v1::AttachRequest>) -> Result<Response<v1::AttachResponse>, Status> {
        unimplemented("Attach")
    }

    async fn port_forward(
        &self,
        _: Request<v1::PortForwardRequest>,
    ) -> Result<Response<v1::PortForwardResponse>, Status> {
        unimplemented("PortForward")
    }

    async fn container_stats(
        &self,
        request: Request<v1::ContainerStatsRequest>,
    ) -> Result<Response<v1::ContainerStatsResponse>, Status> {
        answer(container_stats::container_stats(self.daemon(), request.into_inner()).await)
    }

    async fn list_container_stats(
        &self,
        request: Request<v1::ListContainerStatsRequest>,
    ) -> Result<Response<v1::ListContainerStatsResponse>, Status> {
        answer(list_container_stats::list_container_stats(self.daemon(), request.into_inner()).await)
    }

    async fn stream_container_stats(
        &self,
        _: Request<v1::StreamContainerStatsRequest>,
    ) -> Result<Response<Self::StreamContainerStatsStream>, Status> {
        unimplemented("StreamContainerStats")
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<v1::PodSandboxStatsRequest>,
    ) -> Result<Response<v1::PodSandboxStatsResponse>, Status> {
        answer(pod_sandbox_stats::pod_sandbox_stats(self.daemon(), request.into_inner()).await)
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<v1::ListPodSandboxStatsRequest>,
    ) -> Result<Response<v1::ListPodSandboxStatsResponse>, Status> {
        answer(list_pod_sandbox_stats::list_pod_sandbox_stats(self.daemon(), request.into_inner()).await)
    }

    async fn stream_pod_sandbox_stats(
        &self,
        _: Request<v1::StreamPodSandboxStatsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxStatsStream>, Status> {
        unimplemented("StreamPodSandboxStats")
    }

    async fn update_runtime_config(
        &self,
        request: Request<v1::UpdateRuntimeConfigRequest>,
    ) -> Result<Response<v1::UpdateRuntimeConfigResponse>, Status> {
        answer(update_runtime_config::update_runtime_config(self.daemon(), request.into_inner()).await)
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        answer(status::status(self.daemon(), request.into_inner()).await)
    }

    async fn checkpoint_container(
        &self,
        _: Request<v1::CheckpointContainerRequest>,
    ) -> Result<Response<v1::CheckpointContainerResponse>, Status> {
        unimplemented("CheckpointContainer")
    }

    async fn get_container_events(
        &self,
        _: Request<v1::GetEventsRequest>,
    ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
        unimplemented("GetContainerEvents")
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<v1::ListMetricDescriptorsRequest>,
    ) -> Result<Response<v1::ListMetricDescriptorsResponse>, Status> {
        unimplemented("ListMetricDescriptors")
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<v1::ListPodSandboxMetricsRequest>,
    ) -> Result<Response<v1::ListPodSandboxMetricsResponse>, Status> {
        unimplemented("ListPodSandboxMetrics")
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<v1::StreamPodSandboxMetricsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxMetricsStream>, Status> {
        unimplemented("StreamPodSandboxMetrics")
    }

    async fn runtime_config(
        &self,
        request: Request<v1::RuntimeConfigRequest>,
    ) -> Result<Response<v1::RuntimeConfigResponse>, Status> {
        answer(runtime_config::runtime_config(self.daemon(), request.into_inner()).await)
    }

    async fn update_pod_sandbox_resources(
        &self,
        _: Request<v1::UpdatePodSandboxResourcesRequest>,
    ) -> Result<Response<v1::UpdatePodSandboxResourcesResponse>, Status> {
        unimplemented("UpdatePodSandboxResources")
    }
}
