//! What the RPCs share: what a request names, and running one to its end.

use std::future::Future;
use std::sync::Arc;

use tonic::{Response, Status};

use super::Failure;
use crate::daemon::Daemon;
use crate::grpc;
use crate::pods::{Ambiguous, Container, Sandbox};

/// Runs a request to its end even when its client goes away: steps are never cut off half-way.
pub(super) async fn to_the_end<T: Send + 'static>(
    request: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    tokio::spawn(request).await.map_err(|_| Failure::Join)?
}

/// Stop and Remove of what is not there have nothing to do, as CRI wants it.
pub(super) async fn if_there<T, F>(
    found: Option<Arc<T>>,
    work: impl FnOnce(Arc<T>) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    match found {
        Some(found) => to_the_end(work(found)).await,
        None => Ok(()),
    }
}

pub(super) fn find_container(daemon: &Daemon, id: &str) -> Result<Arc<Container>, Failure> {
    let not_found = || Failure::NotFound {
        kind: "container",
        id: id.to_owned(),
    };
    known_container(daemon, id)?.ok_or_else(not_found)
}

pub(super) fn find_sandbox(daemon: &Daemon, id: &str) -> Result<Arc<Sandbox>, Failure> {
    let not_found = || Failure::NotFound {
        kind: "sandbox",
        id: id.to_owned(),
    };
    known_sandbox(daemon, id)?.ok_or_else(not_found)
}

/// None: it is not there (any more).
pub(super) fn known_container(daemon: &Daemon, id: &str) -> Result<Option<Arc<Container>>, Failure> {
    known("container_id", id, |id| daemon.pods.named_container(id))
}

/// None: it is not there (any more).
pub(super) fn known_sandbox(daemon: &Daemon, id: &str) -> Result<Option<Arc<Sandbox>>, Failure> {
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

pub(super) fn answer<T>(result: Result<T, Failure>) -> Result<Response<T>, Status> {
    result
        .map(Response::new)
        .map_err(|failure| grpc::status(failure.code(), &failure))
}
