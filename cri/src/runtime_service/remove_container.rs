//! RemoveContainer: ends what runs, removes the writable layer, forgets the container. One that is not known is removed.
//! Its log is the kubelet's to delete.

use std::io;
use std::sync::Arc;

use coracle_cri_api::runtime_v1::{RemoveContainerRequest, RemoveContainerResponse};
use coracle_shim_api::{Code, RpcError};

use super::request::{if_there, known_container};
use super::{Failure, files};
use crate::daemon::Daemon;
use crate::pods::Container;
use crate::shims::dead;
use crate::steps::{Operation, Step};
use crate::store::{ContainerPhase, ContainerRecord};

pub(super) const OPERATION: Operation<Work, Failure> = Operation {
    name: "remove_container",
    steps: &[
        Step {
            name: "record",
            run: |w| Box::pin(w.save_record()),
            undo: None,
        },
        Step {
            name: "shim",
            run: |w| Box::pin(w.delete()),
            undo: None,
        },
        Step {
            name: "directories",
            run: |w| Box::pin(w.remove_directories()),
            undo: None,
        },
        Step {
            name: "forget",
            run: |w| Box::pin(w.forget()),
            undo: None,
        },
    ],
};

/// A container that will be forgotten.
pub(super) struct Work {
    daemon: Arc<Daemon>,
    container: Arc<Container>,
}

pub(super) async fn remove_container(
    daemon: Arc<Daemon>,
    request: RemoveContainerRequest,
) -> Result<RemoveContainerResponse, Failure> {
    let found = known_container(&daemon, &request.container_id)?;
    if_there(found, async move |container| finish(&daemon, &container).await).await?;
    Ok(RemoveContainerResponse {})
}

/// Removes the container, wherever an earlier attempt ended.
pub(crate) async fn finish(daemon: &Arc<Daemon>, container: &Arc<Container>) -> Result<(), Failure> {
    let _shared = container.sandbox.lifecycle.read().await;
    remove(daemon, container).await
}

/// The caller holds the sandbox, shared or alone.
pub(super) async fn remove(daemon: &Arc<Daemon>, container: &Arc<Container>) -> Result<(), Failure> {
    let _alone = container.lifecycle.lock().await;
    // Somebody else may have removed it while we waited.
    if daemon.pods.container(&container.id).is_none() {
        return Ok(());
    }
    let mut work = Work {
        daemon: Arc::clone(daemon),
        container: Arc::clone(container),
    };
    daemon.runner.run(&OPERATION, &container.id, &mut work).await
}

impl Work {
    async fn save_record(&mut self) -> Result<(), Failure> {
        let removing = |record: &mut ContainerRecord| record.set_phase(ContainerPhase::Removing);
        self.container.save(&self.daemon.store, removing)?;
        Ok(())
    }

    async fn delete(&mut self) -> Result<(), Failure> {
        let deleted = match self.container.sandbox.shim() {
            Some(shim) => shim.client.delete_container(&self.container.id).await,
            None => Err(RpcError::Closed("no shim".into())),
        };
        match deleted {
            Err(RpcError::Closed(_)) => {
                let cgroup = self.container.with_record(|record| record.cgroup.clone());
                dead::end_cgroup(self.daemon.hierarchies, cgroup).await;
                Ok(())
            }
            Err(error) if !error.is(Code::NOT_FOUND) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Out of the way now, from the disk in the background: a layer can hold a million files.
    async fn remove_directories(&mut self) -> Result<(), Failure> {
        let from = self.daemon.container_directory(&self.container.id);
        let trash = self.daemon.trash_directory();
        let to = trash.join(&self.container.id);
        let moved = std::fs::create_dir_all(&trash).and_then(|()| std::fs::rename(&from, &to));
        match moved {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(Failure::Io {
                    action: "remove",
                    path: from,
                    source,
                });
            }
            _ => {}
        }
        files::remove_later(to);
        Ok(())
    }

    async fn forget(&mut self) -> Result<(), Failure> {
        self.daemon.images.release(&self.container.id);
        self.container.forget(&self.daemon.store)?;
        self.daemon.pods.remove_container(&self.container.id);
        self.daemon.samples.forget(&self.container.id);
        Ok(())
    }
}
