//! `coraclectl play`: the pods of a manifest, run in the foreground without a kubelet.

mod backoff;
pub(crate) mod directory;
mod driver;
pub(crate) mod end;
mod follow;
mod host;
mod images;
mod limits;
mod pod;
mod progress;
mod rotate;
pub(crate) mod stop;
pub(crate) mod voice;
mod volumes;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::task::JoinSet;

use super::client::{Client, ClientError};
use super::manifest::{self, ManifestError};
use super::plan::{self, Place, PlanError, PodPlan};
use super::pods;
use directory::{DirectoryError, PodDirectory};
use images::EnsureError;
use pod::Outcome;
use stop::Stop;
use voice::Voice;
use volumes::VolumeError;

/// Runs the pods of a Kubernetes manifest until they end or Ctrl-C, then removes them.
///
/// Exit code: 0 when every pod succeeded or was stopped by Ctrl-C or SIGTERM, 3 when one failed or was evicted, 1 when
/// the manifest, the daemon or this machine made it impossible. A second Ctrl-C does not wait for the grace period.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The manifest: one or more documents of apiVersion v1, kind Pod; `-` is standard input.
    file: PathBuf,
    /// Prints the containers' logs.
    #[arg(short, long)]
    follow: bool,
}

/// Why a pod could not be played.
#[derive(Debug, Error)]
pub(crate) enum PlayError {
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is larger than {MAX_MANIFEST} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("{}", path.display())]
    Manifest { path: PathBuf, source: ManifestError },
    #[error("--data {}: not an absolute path", path.display())]
    RelativeData { path: PathBuf },
    #[error("read what this machine is like")]
    Host { source: io::Error },
    #[error("listen for signals")]
    Signals { source: io::Error },
    #[error("pod {name:?} of namespace {namespace:?} is there already; coraclectl down {name} removes it")]
    Exists { name: String, namespace: String },
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Image(#[from] EnsureError),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("a container that is not in the plan was to be started")]
    Internal,
    #[error("a pod's task ended early")]
    Task,
}

pub(crate) async fn run(client: Client, data: &Path, arguments: Arguments) -> Result<u8, PlayError> {
    if !data.is_absolute() {
        return Err(PlayError::RelativeData {
            path: data.to_owned(),
        });
    }
    let plans = read_plans(data, &arguments.file)?;
    // From here on a signal means "stop", not "die".
    let stop = Stop::listen().map_err(|source| PlayError::Signals { source })?;
    refuse_existing(&client, &plans).await?;
    sweep(&client, data).await?;
    let several = plans.len() > 1;
    let mut tasks = JoinSet::new();
    for plan in plans {
        let (client, mut stop) = (client.clone(), stop.clone());
        let voice = Voice::new(&plan.name, several);
        tasks.spawn(async move {
            let result = pod::play(&client, &plan, arguments.follow, &mut stop, &voice).await;
            voice.say(match &result {
                Ok(Outcome::Succeeded) => "succeeded, and is removed",
                Ok(Outcome::Failed) => "failed, and is removed",
                Ok(Outcome::Stopped) => "stopped and removed",
                Err(_) => "could not be played to its end",
            });
            result.map_err(|error| (voice, error))
        });
    }
    outcome(tasks).await
}

/// Removes the directories of pods whose `play` was killed and which the daemon does not know any more.
pub(crate) async fn sweep(client: &Client, data: &Path) -> Result<(), PlayError> {
    let known: HashSet<String> = client
        .list_sandboxes()
        .await?
        .into_iter()
        .filter_map(|sandbox| sandbox.metadata.map(|metadata| metadata.uid))
        .collect();
    let _guard = directory::guard(data)?;
    for path in directory::list(data)? {
        let uid = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        if known.contains(&uid) {
            continue;
        }
        if let Some(left) = PodDirectory::take_over(&path)? {
            left.remove()?;
        }
    }
    Ok(())
}

/// A manifest is refused by an API server when it is larger than this.
const MAX_MANIFEST: u64 = 3 << 20;
/// The exit code when a pod failed by itself.
const POD_FAILED: u8 = 3;

fn read_plans(data: &Path, file: &Path) -> Result<Vec<PodPlan>, PlayError> {
    let text = read_manifest(file)?;
    let pods = manifest::parse(&text).map_err(|source| PlayError::Manifest {
        path: file.to_owned(),
        source,
    })?;
    let machine = |source| PlayError::Host { source };
    let host = host::read().map_err(machine)?;
    let plan = |pod| {
        Ok(plan::plan(
            pod,
            &host,
            Place::new(data, &host::new_uid().map_err(machine)?),
        ))
    };
    pods.iter().map(plan).collect()
}

/// `-` is standard input.
fn read_manifest(file: &Path) -> Result<String, PlayError> {
    let read = |source| PlayError::Read {
        path: file.to_owned(),
        source,
    };
    let mut text = String::new();
    let from: Box<dyn Read> = if file.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(file).map_err(read)?)
    };
    from.take(MAX_MANIFEST + 1)
        .read_to_string(&mut text)
        .map_err(read)?;
    if text.len() as u64 > MAX_MANIFEST {
        return Err(PlayError::TooLarge {
            path: file.to_owned(),
        });
    }
    Ok(text)
}

async fn refuse_existing(client: &Client, plans: &[PodPlan]) -> Result<(), PlayError> {
    let there = client.list_sandboxes().await?;
    let exists = |plan: &&PodPlan| {
        there
            .iter()
            .any(|sandbox| pods::is_named(sandbox, &plan.namespace, &plan.name))
    };
    match plans.iter().find(exists) {
        None => Ok(()),
        Some(plan) => Err(PlayError::Exists {
            name: plan.name.clone(),
            namespace: plan.namespace.clone(),
        }),
    }
}

/// The worst that happened to any pod. Every pod is waited for. The first error ends the program, the others are said.
async fn outcome(mut tasks: JoinSet<Result<Outcome, (Voice, PlayError)>>) -> Result<u8, PlayError> {
    let mut code = 0;
    let mut first_error = None;
    while let Some(result) = tasks.join_next().await {
        match result {
            Ok(Ok(Outcome::Succeeded | Outcome::Stopped)) => {}
            Ok(Ok(Outcome::Failed)) => code = POD_FAILED,
            Ok(Err((voice, error))) if first_error.is_some() => voice.fail(&error),
            Ok(Err((_, error))) => first_error = Some(error),
            Err(_) => {
                first_error.get_or_insert(PlayError::Task);
            }
        }
    }
    first_error.map_or(Ok(code), Err)
}
