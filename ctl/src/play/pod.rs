//! One pod from its directory to its end.
//!
//! ```text
//! images -> directory, volumes -> RunPodSandbox -> containers ... -> stop -> StopPodSandbox, RemovePodSandbox -> directory
//! ```

use super::super::client::Client;
use super::super::plan::PodPlan;
use super::directory::PodDirectory;
use super::driver::Driver;
use super::end;
use super::images;
use super::progress::End;
use super::stop::{Level, Stop};
use super::voice::Voice;
use super::{PlayError, limits, volumes};

/// How a pod came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Succeeded,
    /// A container failed for good, or the pod was evicted.
    Failed,
    /// The person wished so.
    Stopped,
}

/// Plays the pod until it ends or is stopped; whatever happens, it is gone afterwards.
pub(super) async fn play(
    client: &Client,
    plan: &PodPlan,
    follow: bool,
    stop: &mut Stop,
    voice: &Voice,
) -> Result<Outcome, PlayError> {
    let mut here = Vec::new();
    for container in plan.all_containers() {
        tokio::select! {
            image = images::ensure(client, container, voice) => here.push(image?),
            () = stop.reached(Level::Stop) => return Ok(Outcome::Stopped),
        }
    }
    let directory = PodDirectory::create(&plan.place)?;
    let result = match volumes::prepare(plan) {
        Ok(()) => play_sandbox(client, plan, here, follow, stop, voice).await,
        Err(error) => Err(error.into()),
    };
    first_error(result, directory.remove(), voice)
}

async fn play_sandbox(
    client: &Client,
    plan: &PodPlan,
    images: Vec<images::Present>,
    follow: bool,
    stop: &mut Stop,
    voice: &Voice,
) -> Result<Outcome, PlayError> {
    let sandbox = match client.run_sandbox(&plan.name, plan.sandbox.clone()).await {
        Ok(sandbox) => sandbox,
        Err(error) => {
            let removed = end::remove_sandbox_of(client, &plan.place.uid).await;
            return first_error(Err(error.into()), removed, voice);
        }
    };
    let mut driver = Driver::new(client, plan, voice, sandbox.clone(), images, follow);
    let mut grace = plan.grace;
    let result = tokio::select! {
        end = driver.run() => end.map(|end| if end == End::Succeeded { Outcome::Succeeded } else { Outcome::Failed }),
        exceeded = limits::exceeded(plan) => {
            voice.say(&exceeded.reason);
            grace = exceeded.grace;
            Ok(Outcome::Failed)
        }
        () = stop.reached(Level::Stop) => {
            voice.say("stopping");
            Ok(Outcome::Stopped)
        }
    };
    let running = driver.to_stop().await;
    end::stop_containers(client, running, grace, stop, voice).await;
    driver.finish_logs().await;
    let removed = end::remove_sandbox(client, &sandbox).await;
    first_error(result, removed, voice)
}

/// The first error is the one that matters; the second, of cleaning up after it, is said.
fn first_error<E: std::error::Error + Into<PlayError>>(
    result: Result<Outcome, PlayError>,
    cleaned: Result<(), E>,
    voice: &Voice,
) -> Result<Outcome, PlayError> {
    match (result, cleaned) {
        (Err(first), Err(second)) => {
            voice.fail(&second);
            Err(first)
        }
        (Ok(_), Err(error)) => Err(error.into()),
        (result, Ok(())) => result,
    }
}
