//! Calls about pod sandboxes.

use std::time::Duration;

use coracle_cri_api::runtime_v1::{
    ListPodSandboxRequest, PodSandbox, PodSandboxConfig, PodSandboxStatus, PodSandboxStatusRequest,
    RemovePodSandboxRequest, RunPodSandboxRequest, StopPodSandboxRequest,
};

use super::{CALL_TIMEOUT, Client, ClientError, request};

impl Client {
    /// Runs the sandbox of `pod`; its id.
    pub(crate) async fn run_sandbox(
        &self,
        pod: &str,
        config: PodSandboxConfig,
    ) -> Result<String, ClientError> {
        // CNI plugins may take their time; the kubelet grants twice the usual time as well.
        let timeout = CALL_TIMEOUT * 2;
        let message = RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: String::new(),
        };
        let result = self.runtime().run_pod_sandbox(request(message, timeout)).await;
        Ok(self.answer("RunPodSandbox", pod, result)?.pod_sandbox_id)
    }

    pub(crate) async fn stop_sandbox(&self, id: &str) -> Result<(), ClientError> {
        let message = StopPodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        let result = self
            .runtime()
            .stop_pod_sandbox(request(message, CALL_TIMEOUT))
            .await;
        self.answer("StopPodSandbox", id, result).map(drop)
    }

    /// Removes the sandbox and every container in it.
    pub(crate) async fn remove_sandbox(&self, id: &str) -> Result<(), ClientError> {
        let message = RemovePodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        let result = self
            .runtime()
            .remove_pod_sandbox(request(message, CALL_TIMEOUT))
            .await;
        self.answer("RemovePodSandbox", id, result).map(drop)
    }

    /// None when the daemon leaves the status out.
    pub(crate) async fn sandbox_status(&self, id: &str) -> Result<Option<PodSandboxStatus>, ClientError> {
        let message = PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: false,
        };
        let result = self.runtime().pod_sandbox_status(request(message, QUICK)).await;
        Ok(self.answer("PodSandboxStatus", id, result)?.status)
    }

    pub(crate) async fn list_sandboxes(&self) -> Result<Vec<PodSandbox>, ClientError> {
        let result = self
            .runtime()
            .list_pod_sandbox(request(ListPodSandboxRequest::default(), QUICK))
            .await;
        Ok(self.answer("ListPodSandbox", "", result)?.items)
    }
}

/// For calls that only look something up.
pub(super) const QUICK: Duration = Duration::from_secs(20);
