//! Requests for pods and containers as tests need them: the least that is valid, to be changed at will.

use std::path::Path;

use crate::cri::Cri;
use crate::cri::v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ExecSyncRequest, ExecSyncResponse, ImageSpec,
    LinuxContainerConfig, LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext,
    NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata, PortMapping,
    RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest, StopPodSandboxRequest,
};
use crate::daemon::PAYLOAD;

/// A pod with namespaces as Kubernetes makes them: network and IPC shared in the pod, a PID namespace for each container.
#[must_use]
pub fn sandbox(name: &str, logs: &Path) -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            namespace: "default".to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        log_directory: logs.join(name).display().to_string(),
        linux: Some(LinuxPodSandboxConfig {
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(NamespaceMode::Pod)),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The same pod on the host's network.
#[must_use]
pub fn host_network_sandbox(name: &str, logs: &Path) -> PodSandboxConfig {
    let mut config = sandbox(name, logs);
    config.hostname.clear();
    let linux = config.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default().namespace_options = Some(namespaces(NamespaceMode::Node));
    config
}

/// Network in this mode, and a PID namespace for each container.
#[must_use]
pub fn namespaces(network: NamespaceMode) -> NamespaceOption {
    NamespaceOption {
        network: network.into(),
        pid: NamespaceMode::Container.into(),
        ..Default::default()
    }
}

/// A host port of a pod, TCP.
#[must_use]
pub fn port(host: i32, container: i32) -> PortMapping {
    PortMapping {
        host_port: host,
        container_port: container,
        ..Default::default()
    }
}

/// A container of the payload image with these arguments; it logs to `NAME.log`.
#[must_use]
pub fn container(name: &str, arguments: &[&str]) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: name.to_owned(),
            attempt: 0,
        }),
        image: Some(ImageSpec {
            image: PAYLOAD.to_owned(),
            user_specified_image: PAYLOAD.to_owned(),
            ..Default::default()
        }),
        args: arguments.iter().map(|word| (*word).to_owned()).collect(),
        log_path: format!("{name}.log"),
        linux: Some(LinuxContainerConfig {
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(namespaces(NamespaceMode::Pod)),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

impl Cri {
    /// RunPodSandbox; its id.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    pub fn run(&self, config: &PodSandboxConfig) -> String {
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            ..Default::default()
        };
        self.run_pod_sandbox(request)
            .unwrap_or_else(|status| panic!("RunPodSandbox: {status:?}"))
            .pod_sandbox_id
    }

    /// CreateContainer; its id.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    pub fn create(&self, pod: &str, sandbox: &PodSandboxConfig, container: &ContainerConfig) -> String {
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(container.clone()),
            sandbox_config: Some(sandbox.clone()),
        };
        self.create_container(request)
            .unwrap_or_else(|status| panic!("CreateContainer: {status:?}"))
            .container_id
    }

    /// StartContainer.
    ///
    /// # Panics
    /// When it is refused.
    pub fn start(&self, container: &str) {
        let request = StartContainerRequest {
            container_id: container.to_owned(),
        };
        self.start_container(request)
            .unwrap_or_else(|status| panic!("StartContainer: {status:?}"));
    }

    /// CreateContainer and StartContainer; the id.
    ///
    /// # Panics
    /// When one is refused.
    #[must_use]
    pub fn launch(&self, pod: &str, sandbox: &PodSandboxConfig, container: &ContainerConfig) -> String {
        let id = self.create(pod, sandbox, container);
        self.start(&id);
        id
    }

    /// ExecSync with a bound of a minute.
    ///
    /// # Panics
    /// When it is refused; not when the command fails.
    #[must_use]
    pub fn exec_in(&self, container: &str, command: &[&str]) -> ExecSyncResponse {
        let request = ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: command.iter().map(|word| (*word).to_owned()).collect(),
            timeout: 60,
        };
        self.exec_sync(request)
            .unwrap_or_else(|status| panic!("ExecSync {command:?}: {status:?}"))
    }

    /// The standard output of a command in a container.
    ///
    /// # Panics
    /// When it does not end with 0.
    #[must_use]
    pub fn exec_output(&self, container: &str, command: &[&str]) -> String {
        let answer = self.exec_in(container, command);
        let stderr = String::from_utf8_lossy(&answer.stderr);
        assert_eq!(answer.exit_code, 0, "{command:?}: {stderr}");
        String::from_utf8_lossy(&answer.stdout).into_owned()
    }

    /// StopPodSandbox and RemovePodSandbox.
    ///
    /// # Panics
    /// When one is refused.
    pub fn discard(&self, pod: &str) {
        let stop = StopPodSandboxRequest {
            pod_sandbox_id: pod.to_owned(),
        };
        self.stop_pod_sandbox(stop)
            .unwrap_or_else(|status| panic!("StopPodSandbox: {status:?}"));
        let remove = RemovePodSandboxRequest {
            pod_sandbox_id: pod.to_owned(),
        };
        self.remove_pod_sandbox(remove)
            .unwrap_or_else(|status| panic!("RemovePodSandbox: {status:?}"));
    }
}
