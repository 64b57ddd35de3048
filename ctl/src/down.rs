//! `coraclectl down`: ends a pod that `play` has left behind, or one that is played elsewhere.

use std::path::Path;
use std::time::{Duration, Instant};

use coracle_cri_api::runtime_v1::{ContainerState, PodSandbox};
use rustix::process::{Signal, kill_process};
use thiserror::Error;

use super::client::{Client, ClientError};
use super::plan::{GRACE_ANNOTATION, PLAYED_LABEL, Place};
use super::play::directory::{self, DirectoryError, PodDirectory};
use super::play::end::{self, Running};
use super::play::stop::Stop;
use super::play::voice::Voice;
use super::play::{self, PlayError};
use super::pods::{self, FindError};

/// Stops and removes a pod that `play` made, its volumes and logs included.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The pod's namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The pod's name.
    name: String,
}

#[derive(Debug, Error)]
pub(crate) enum DownError {
    #[error(transparent)]
    Find(#[from] FindError),
    #[error("pod {0:?} was not made by coraclectl play, and is left alone")]
    NotPlayed(String),
    #[error("process {pid} plays the pod and did not end within {seconds} s")]
    StillPlayed { pid: i32, seconds: u64 },
    #[error("listen for signals")]
    Signals { source: std::io::Error },
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Sweep(#[from] PlayError),
}

pub(crate) async fn run(client: &Client, data: &Path, arguments: &Arguments) -> Result<u8, DownError> {
    let found = pods::find(client, &arguments.namespace, &arguments.name).await;
    if found.is_err() {
        // The daemon may have forgotten a pod whose directory is still there.
        play::sweep(client, data).await?;
    }
    let sandbox = found?;
    if sandbox
        .labels
        .get(PLAYED_LABEL)
        .is_none_or(|label| label != "true")
    {
        return Err(DownError::NotPlayed(arguments.name.clone()));
    }
    let grace = grace(&sandbox);
    if let Some(path) = directory_of(&sandbox, data)
        && ask_player(&path, grace).await?
    {
        return Ok(0);
    }
    remove(client, &sandbox, grace).await?;
    if let Some(directory) = directory_of(&sandbox, data).map(|path| PodDirectory::take_over(&path)) {
        directory?.map_or(Ok(()), PodDirectory::remove)?;
    }
    Ok(0)
}

/// The directory is found by the pod's uid, below our own directory: a label or annotation could name any path.
fn directory_of(sandbox: &PodSandbox, data: &Path) -> Option<std::path::PathBuf> {
    let uid = &sandbox.metadata.as_ref()?.uid;
    let place = Place::new(data, uid).directory;
    directory::list(data)
        .ok()?
        .into_iter()
        .find(|path| *path == place)
}

fn grace(sandbox: &PodSandbox) -> Duration {
    let seconds = sandbox
        .annotations
        .get(GRACE_ANNOTATION)
        .and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(30))
}

/// Has the process that plays the pod end it; false when there is none.
async fn ask_player(directory: &Path, grace: Duration) -> Result<bool, DownError> {
    if !is_played(directory) {
        return Ok(false);
    }
    let Some(pid) = directory::player(directory) else {
        return Ok(false);
    };
    // The lock is held, so the number in it is that of a living process.
    if kill_process(pid, Signal::TERM).is_err() {
        return Ok(false);
    }
    let patience = grace + Duration::from_secs(60);
    let deadline = Instant::now() + patience;
    while is_played(directory) {
        if Instant::now() > deadline {
            let pid = pid.as_raw_nonzero().get();
            return Err(DownError::StillPlayed {
                pid,
                seconds: patience.as_secs(),
            });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // It may have been killed in the middle; then the pod is still ours to end.
    Ok(!directory.exists())
}

fn is_played(directory: &Path) -> bool {
    directory.exists() && matches!(PodDirectory::take_over(directory), Ok(None))
}

async fn remove(client: &Client, sandbox: &PodSandbox, grace: Duration) -> Result<(), DownError> {
    let voice = Voice::new(pods::pod_name(sandbox), false);
    let mut stop = Stop::listen().map_err(|source| DownError::Signals { source })?;
    let containers = client.list_containers(Some(&sandbox.id)).await?;
    let running = containers
        .iter()
        .filter(|container| container.state() == ContainerState::ContainerRunning);
    let running = running.map(|container| Running {
        name: pods::container_name(container).to_owned(),
        id: container.id.clone(),
        sidecar: false,
    });
    end::stop_containers(client, running.collect(), grace, &mut stop, &voice).await;
    end::remove_sandbox(client, &sandbox.id).await?;
    Ok(())
}
