//! CRI's RuntimeService: one file per RPC.

mod container_stats;
mod container_status;
mod create_container;
mod exec_sync;
mod failure;
mod files;
mod id;
mod identity;
mod labels;
mod list_container_stats;
mod list_containers;
mod list_pod_sandbox;
mod list_pod_sandbox_stats;
mod pod_sandbox_stats;
mod pod_sandbox_status;
mod remove_container;
mod remove_pod_sandbox;
mod reopen_container_log;
mod run_pod_sandbox;
mod runtime_config;
mod sandbox_request;
mod start_container;
mod status;
mod stop_container;
mod stop_pod_sandbox;
mod unimplemented;
mod update_runtime_config;
mod version;

use std::future::Future;
use std::sync::Arc;

use coracle_cri::runtime_v1 as v1;
use coracle_cri::runtime_v1::runtime_service_server::RuntimeService;
use tonic::{Request, Response, Status};

use crate::daemon::Daemon;
use crate::pods::{Ambiguous, Container, Sandbox};
use crate::steps::Operation;

pub(crate) use failure::Failure;
pub(crate) use unimplemented::unimplemented;

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

/// All steps as `rpc.step`, in the order in which they run.
pub(crate) fn step_names() -> impl Iterator<Item = String> {
    fn names<W, E>(operation: &'static Operation<W, E>) -> impl Iterator<Item = String> {
        operation
            .steps
            .iter()
            .map(|step| format!("{}.{}", operation.name, step.name))
    }
    names(&run_pod_sandbox::OPERATION)
        .chain(names(&create_container::OPERATION))
        .chain(names(&start_container::OPERATION))
        .chain(names(&stop_container::OPERATION))
        .chain(names(&remove_container::OPERATION))
        .chain(names(&stop_pod_sandbox::OPERATION))
        .chain(names(&remove_pod_sandbox::OPERATION))
}

/// What a start of the daemon finishes or undoes.
pub(crate) mod half_done {
    pub(crate) use super::create_container::undo as undo_create_container;
    pub(crate) use super::remove_container::finish as finish_remove_container;
    pub(crate) use super::remove_pod_sandbox::finish as finish_remove_pod_sandbox;
    pub(crate) use super::run_pod_sandbox::undo as undo_run_pod_sandbox;
}

/// Runs a request to its end even when its client goes away: steps are never cut off half-way.
async fn to_the_end<T: Send + 'static>(
    request: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    tokio::spawn(request).await.map_err(|_| Failure::Join)?
}

/// Stop and Remove of what is not there have nothing to do, as CRI wants it.
async fn if_there<T, F>(found: Option<Arc<T>>, work: impl FnOnce(Arc<T>) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    match found {
        Some(found) => to_the_end(work(found)).await,
        None => Ok(()),
    }
}

fn find_container(daemon: &Daemon, id: &str) -> Result<Arc<Container>, Failure> {
    let not_found = || Failure::NotFound {
        kind: "container",
        id: id.to_owned(),
    };
    known_container(daemon, id)?.ok_or_else(not_found)
}

fn find_sandbox(daemon: &Daemon, id: &str) -> Result<Arc<Sandbox>, Failure> {
    let not_found = || Failure::NotFound {
        kind: "sandbox",
        id: id.to_owned(),
    };
    known_sandbox(daemon, id)?.ok_or_else(not_found)
}

/// None: it is not there (any more).
fn known_container(daemon: &Daemon, id: &str) -> Result<Option<Arc<Container>>, Failure> {
    known("container_id", id, |id| daemon.pods.named_container(id))
}

/// None: it is not there (any more).
fn known_sandbox(daemon: &Daemon, id: &str) -> Result<Option<Arc<Sandbox>>, Failure> {
    known("pod_sandbox_id", id, |id| daemon.pods.named_sandbox(id))
}

fn known<T>(
    field: &'static str,
    id: &str,
    named: impl FnOnce(&str) -> Result<Option<T>, Ambiguous>,
) -> Result<Option<T>, Failure> {
    if id.is_empty() {
        return Err(Failure::Missing { field });
    }
    named(id).map_err(|source| Failure::Ambiguous {
        field,
        id: id.to_owned(),
        source,
    })
}

fn answer<T>(result: Result<T, Failure>) -> Result<Response<T>, Status> {
    Ok(Response::new(result?))
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
