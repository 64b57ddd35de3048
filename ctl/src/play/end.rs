//! The end of a pod: its containers are stopped, the sandbox is removed. Nothing stops it half way: what fails is
//! reported and the next step is done all the same.

use std::time::{Duration, Instant};

use super::super::client::{Client, ClientError};
use super::stop::{Level, Stop};
use super::voice::Voice;

/// A container to be stopped.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) name: String,
    pub(crate) id: String,
    /// Stopped only after the others.
    pub(crate) sidecar: bool,
}

/// Stops the containers: first all that are not sidecars, together, then the sidecars one after the other, all within
/// one grace period. A second wish to stop ends the grace.
pub(crate) async fn stop_containers(
    client: &Client,
    mut running: Vec<Running>,
    grace: Duration,
    stop: &mut Stop,
    voice: &Voice,
) {
    let deadline = Instant::now() + grace;
    let sidecars = running
        .extract_if(.., |container| container.sidecar)
        .collect::<Vec<_>>();
    let mut batches = vec![running];
    batches.extend(sidecars.into_iter().map(|sidecar| vec![sidecar]));
    for batch in batches {
        let left = deadline.saturating_duration_since(Instant::now());
        stop_together(client, &batch, whole_seconds(left), stop, voice).await;
    }
}

/// Stops and removes the sandbox with all that is in it; the daemon may be away for a while.
pub(crate) async fn remove_sandbox(client: &Client, sandbox: &str) -> Result<(), ClientError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let result = match client.stop_sandbox(sandbox).await {
            Ok(()) => client.remove_sandbox(sandbox).await,
            failed => failed,
        };
        match result {
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) if error.is_unreachable() && Instant::now() < deadline => {
                tokio::time::sleep(PAUSE).await;
            }
            other => return other,
        }
    }
}

/// Removes the sandbox of the pod `uid`, if there is one: for when the answer to RunPodSandbox never came.
pub(crate) async fn remove_sandbox_of(client: &Client, uid: &str) -> Result<(), ClientError> {
    let deadline = Instant::now() + PATIENCE;
    let sandboxes = loop {
        match client.list_sandboxes().await {
            Err(error) if error.is_unreachable() && Instant::now() < deadline => {
                tokio::time::sleep(PAUSE).await;
            }
            other => break other?,
        }
    };
    for sandbox in sandboxes {
        if sandbox.metadata.is_some_and(|metadata| metadata.uid == uid) {
            remove_sandbox(client, &sandbox.id).await?;
        }
    }
    Ok(())
}

/// How long a daemon that is away is waited for at the end.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);

async fn stop_together(client: &Client, batch: &[Running], grace: Duration, stop: &mut Stop, voice: &Voice) {
    let mut tasks = tokio::task::JoinSet::new();
    for container in batch {
        tasks.spawn(stop_one(client.clone(), container.clone(), grace, voice.clone()));
    }
    let killed = tokio::select! {
        () = drain(&mut tasks) => return,
        () = stop.reached(Level::Kill) => batch,
    };
    for container in killed {
        tasks.spawn(stop_one(
            client.clone(),
            container.clone(),
            Duration::ZERO,
            voice.clone(),
        ));
    }
    drain(&mut tasks).await;
}

async fn stop_one(client: Client, container: Running, grace: Duration, voice: Voice) {
    if let Err(error) = client.stop_container(&container.name, &container.id, grace).await
        && !error.is_not_found()
    {
        voice.fail(&error);
    }
}

async fn drain(tasks: &mut tokio::task::JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

/// CRI counts in seconds; a part of one must not become none.
fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}
