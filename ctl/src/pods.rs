//! Finding a pod and its containers by the names people use.

use coracle_cri_api::runtime_v1::{Container, PodSandbox, PodSandboxState};
use thiserror::Error;

use super::client::{Client, ClientError};

/// Why a name does not lead to one pod or container.
#[derive(Debug, Error)]
pub(crate) enum FindError {
    #[error("there is no pod {name:?} in namespace {namespace:?}")]
    NoPod { name: String, namespace: String },
    #[error("pod {pod:?} has no container {name:?}; it has {}", list(existing))]
    NoContainer {
        pod: String,
        name: String,
        existing: Vec<String>,
    },
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// The pod of this name: one that is ready before one that is not, the youngest first.
pub(crate) async fn find(client: &Client, namespace: &str, name: &str) -> Result<PodSandbox, FindError> {
    let sandboxes = client.list_sandboxes().await?;
    let ready = |sandbox: &PodSandbox| sandbox.state() == PodSandboxState::SandboxReady;
    let named = sandboxes
        .into_iter()
        .filter(|sandbox| is_named(sandbox, namespace, name));
    named
        .max_by_key(|sandbox| (ready(sandbox), sandbox.created_at))
        .ok_or_else(|| FindError::NoPod {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
        })
}

/// The latest attempt of container `name` in the sandbox.
pub(crate) async fn find_container(
    client: &Client,
    sandbox: &PodSandbox,
    name: &str,
) -> Result<Container, FindError> {
    let containers = client.list_containers(Some(&sandbox.id)).await?;
    let mut existing: Vec<String> = containers
        .iter()
        .map(|container| container_name(container).to_owned())
        .collect();
    let attempt = |container: &Container| container.metadata.as_ref().map_or(0, |metadata| metadata.attempt);
    let named = containers
        .into_iter()
        .filter(|container| container_name(container) == name);
    named.max_by_key(attempt).ok_or_else(|| {
        existing.sort();
        existing.dedup();
        FindError::NoContainer {
            pod: pod_name(sandbox).to_owned(),
            name: name.to_owned(),
            existing,
        }
    })
}

pub(crate) fn is_named(sandbox: &PodSandbox, namespace: &str, name: &str) -> bool {
    sandbox
        .metadata
        .as_ref()
        .is_some_and(|metadata| metadata.name == name && metadata.namespace == namespace)
}

pub(crate) fn pod_name(sandbox: &PodSandbox) -> &str {
    sandbox
        .metadata
        .as_ref()
        .map_or("", |metadata| metadata.name.as_str())
}

pub(crate) fn container_name(container: &Container) -> &str {
    container
        .metadata
        .as_ref()
        .map_or("", |metadata| metadata.name.as_str())
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
