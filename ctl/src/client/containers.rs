//! Calls about containers.

use std::time::Duration;

use coracle_cri_api::runtime_v1::{
    Container, ContainerConfig, ContainerFilter, ContainerStatus, ContainerStatusRequest,
    CreateContainerRequest, ExecSyncRequest, ExecSyncResponse, ListContainersRequest, PodSandboxConfig,
    RemoveContainerRequest, ReopenContainerLogRequest, StartContainerRequest, StopContainerRequest,
};

use super::pods::QUICK;
use super::{CALL_TIMEOUT, Client, ClientError, request};

impl Client {
    /// Creates a container called `name` in the sandbox; its id.
    pub(crate) async fn create_container(
        &self,
        name: &str,
        sandbox: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Result<String, ClientError> {
        let message = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let result = self
            .runtime()
            .create_container(request(message, CALL_TIMEOUT))
            .await;
        Ok(self.answer("CreateContainer", name, result)?.container_id)
    }

    pub(crate) async fn start_container(&self, name: &str, id: &str) -> Result<(), ClientError> {
        let message = StartContainerRequest {
            container_id: id.to_owned(),
        };
        let result = self
            .runtime()
            .start_container(request(message, CALL_TIMEOUT))
            .await;
        self.answer("StartContainer", name, result).map(drop)
    }

    /// Stop signal, then SIGKILL after `grace`.
    pub(crate) async fn stop_container(
        &self,
        name: &str,
        id: &str,
        grace: Duration,
    ) -> Result<(), ClientError> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let message = StopContainerRequest {
            container_id: id.to_owned(),
            timeout,
        };
        let result = self
            .runtime()
            .stop_container(request(message, grace + CALL_TIMEOUT))
            .await;
        self.answer("StopContainer", name, result).map(drop)
    }

    pub(crate) async fn remove_container(&self, name: &str, id: &str) -> Result<(), ClientError> {
        let message = RemoveContainerRequest {
            container_id: id.to_owned(),
        };
        let result = self
            .runtime()
            .remove_container(request(message, CALL_TIMEOUT))
            .await;
        self.answer("RemoveContainer", name, result).map(drop)
    }

    /// All containers, or those of one sandbox.
    pub(crate) async fn list_containers(&self, sandbox: Option<&str>) -> Result<Vec<Container>, ClientError> {
        let filter = sandbox.map(|id| ContainerFilter {
            pod_sandbox_id: id.to_owned(),
            ..ContainerFilter::default()
        });
        let result = self
            .runtime()
            .list_containers(request(ListContainersRequest { filter }, QUICK))
            .await;
        Ok(self.answer("ListContainers", "", result)?.containers)
    }

    /// None when the daemon leaves the status out.
    pub(crate) async fn container_status(&self, id: &str) -> Result<Option<ContainerStatus>, ClientError> {
        let message = ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: false,
        };
        let result = self.runtime().container_status(request(message, QUICK)).await;
        Ok(self.answer("ContainerStatus", id, result)?.status)
    }

    pub(crate) async fn reopen_log(&self, name: &str, id: &str) -> Result<(), ClientError> {
        let message = ReopenContainerLogRequest {
            container_id: id.to_owned(),
        };
        let result = self.runtime().reopen_container_log(request(message, QUICK)).await;
        self.answer("ReopenContainerLog", name, result).map(drop)
    }

    /// Runs one command to its end; no `timeout` waits as long as it takes.
    pub(crate) async fn exec_sync(
        &self,
        name: &str,
        id: &str,
        cmd: Vec<String>,
        timeout: Option<Duration>,
    ) -> Result<ExecSyncResponse, ClientError> {
        let seconds = timeout.map_or(0, |timeout| i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX));
        let message = ExecSyncRequest {
            container_id: id.to_owned(),
            cmd,
            timeout: seconds,
        };
        let message = match timeout {
            // The daemon ends the command at its own deadline; this one is for a daemon that does not.
            Some(timeout) => request(message, timeout + QUICK),
            None => tonic::Request::new(message),
        };
        let result = self.runtime().exec_sync(message).await;
        self.answer("ExecSync", name, result)
    }
}
