//! `coraclectl ps`: the daemon's pods with their containers.

use std::io;

use coracle_cri_api::runtime_v1::{Container, ContainerState, PodSandbox, PodSandboxState};
use serde::Serialize;
use thiserror::Error;

use super::client::{Client, ClientError};
use super::pods::{container_name, pod_name};
use super::table;

/// Lists pods and their containers, whoever made them.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Error)]
pub(crate) enum PsError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("write the list")]
    Write(#[from] io::Error),
    #[error("write the list as JSON")]
    Json(#[from] serde_json::Error),
}

/// One pod as printed; the JSON form is stable.
#[derive(Debug, Serialize)]
struct PodRow {
    name: String,
    namespace: String,
    id: String,
    state: &'static str,
    /// Nanoseconds since the epoch.
    created_at: i64,
    ips: Vec<String>,
    containers: Vec<ContainerRow>,
}

#[derive(Debug, Serialize)]
struct ContainerRow {
    name: String,
    id: String,
    state: &'static str,
    attempt: u32,
    image: String,
    created_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

pub(crate) async fn run(client: &Client, arguments: &Arguments) -> Result<u8, PsError> {
    let mut pods = Vec::new();
    let mut containers = client.list_containers(None).await?;
    containers.sort_by_key(|container| container.created_at);
    let mut sandboxes = client.list_sandboxes().await?;
    sandboxes.sort_by_key(|sandbox| sandbox.created_at);
    for sandbox in sandboxes {
        pods.push(pod_row(client, &sandbox, &containers).await?);
    }
    let mut out = io::stdout().lock();
    match arguments.output {
        Output::Table => table::unless_closed(table::write(&mut out, &rows(&pods)))?,
        Output::Json => {
            let text = serde_json::to_string_pretty(&pods)?;
            table::unless_closed(io::Write::write_all(&mut out, format!("{text}\n").as_bytes()))?;
        }
    }
    Ok(0)
}

async fn pod_row(
    client: &Client,
    sandbox: &PodSandbox,
    containers: &[Container],
) -> Result<PodRow, ClientError> {
    let mut row = PodRow {
        name: pod_name(sandbox).to_owned(),
        namespace: sandbox
            .metadata
            .as_ref()
            .map(|metadata| metadata.namespace.clone())
            .unwrap_or_default(),
        id: sandbox.id.clone(),
        state: match sandbox.state() {
            PodSandboxState::SandboxReady => "Ready",
            PodSandboxState::SandboxNotready => "NotReady",
        },
        created_at: sandbox.created_at,
        ips: addresses(client, &sandbox.id).await?,
        containers: Vec::new(),
    };
    for container in containers
        .iter()
        .filter(|container| container.pod_sandbox_id == sandbox.id)
    {
        row.containers.push(container_row(client, container).await?);
    }
    Ok(row)
}

/// The pod's addresses; none when the pod went away meanwhile.
async fn addresses(client: &Client, sandbox: &str) -> Result<Vec<String>, ClientError> {
    let status = match client.sandbox_status(sandbox).await {
        Err(error) if error.is_not_found() => None,
        other => other?,
    };
    let Some(network) = status.and_then(|status| status.network) else {
        return Ok(Vec::new());
    };
    let all = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|ip| ip.ip));
    Ok(all.filter(|ip| !ip.is_empty()).collect())
}

async fn container_row(client: &Client, container: &Container) -> Result<ContainerRow, ClientError> {
    let ended = container.state() == ContainerState::ContainerExited;
    let status = match client.container_status(&container.id).await {
        Err(error) if error.is_not_found() => None,
        other => other?,
    };
    let named = |status: &coracle_cri_api::runtime_v1::ContainerStatus| {
        let image = status.image.as_ref()?;
        let given = if image.user_specified_image.is_empty() {
            &image.image
        } else {
            &image.user_specified_image
        };
        Some(given.clone())
    };
    let image = status.as_ref().and_then(named).filter(|image| !image.is_empty());
    Ok(ContainerRow {
        name: container_name(container).to_owned(),
        id: container.id.clone(),
        state: state(container.state()),
        attempt: container.metadata.as_ref().map_or(0, |metadata| metadata.attempt),
        image: image.unwrap_or_else(|| {
            container
                .image
                .as_ref()
                .map(|image| image.image.clone())
                .unwrap_or_default()
        }),
        created_at: container.created_at,
        exit_code: status.as_ref().filter(|_| ended).map(|status| status.exit_code),
        reason: status.filter(|_| ended).map(|status| status.reason),
    })
}

fn state(state: ContainerState) -> &'static str {
    match state {
        ContainerState::ContainerCreated => "Created",
        ContainerState::ContainerRunning => "Running",
        ContainerState::ContainerExited => "Exited",
        ContainerState::ContainerUnknown => "Unknown",
    }
}

fn rows(pods: &[PodRow]) -> Vec<Vec<String>> {
    let head = [
        "POD",
        "NAMESPACE",
        "POD STATE",
        "ADDRESS",
        "CONTAINER",
        "STATE",
        "RESTARTS",
        "AGE",
        "IMAGE",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for pod in pods {
        let address = if pod.ips.is_empty() {
            "-".to_owned()
        } else {
            pod.ips.join(",")
        };
        let first = vec![
            pod.name.clone(),
            pod.namespace.clone(),
            pod.state.to_owned(),
            address,
        ];
        for container in &pod.containers {
            let state = match (container.exit_code, &container.reason) {
                (Some(code), Some(reason)) => format!("{} ({reason}, {code})", container.state),
                _ => container.state.to_owned(),
            };
            let mut row = first.clone();
            row.extend([
                container.name.clone(),
                state,
                container.attempt.to_string(),
                table::age(table::now().saturating_sub(container.created_at)),
                container.image.clone(),
            ]);
            rows.push(row);
        }
        if pod.containers.is_empty() {
            let age = table::age(table::now().saturating_sub(pod.created_at));
            let dash = || "-".to_owned();
            rows.push([first, vec![dash(), dash(), dash(), age, dash()]].concat());
        }
    }
    rows
}
