//! CreateContainer: a container that is complete and does not run yet.
//!
//! ```text
//!   plan (pure) -> record -> directories -> volumes -> shim -> ready
//!                    +------ the disk syncs meanwhile -----------^
//! ```

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use coracle_cri_api::runtime_v1::{ContainerConfig, CreateContainerRequest, CreateContainerResponse};
use coracle_shim_api::Code;
use coracle_shim_api::pod::{CreateContainerRequest as ShimRequest, Overlay};
use tokio::task::JoinHandle;

use super::container_plan::{self, Planned};
use super::request::{find_sandbox, to_the_end};
use super::{Failure, files};
use crate::daemon::Daemon;
use crate::error::chain;
use crate::host_path;
use crate::pods::{Container, Progress, Sandbox};
use crate::shims::{dead, watch};
use crate::spec::{Look, ROOTFS, Volume, VolumeError};
use crate::steps::{Operation, Step};
use crate::store::{ContainerPhase, ContainerRecord, StoreError};

pub(super) const OPERATION: Operation<Work, Failure> = Operation {
    name: "create_container",
    steps: &[
        Step {
            name: "record",
            run: |w| Box::pin(w.save_record()),
            undo: Some(|w| Box::pin(w.forget())),
        },
        Step {
            name: "directories",
            run: |w| Box::pin(w.make_directories()),
            undo: Some(|w| Box::pin(w.remove_directories())),
        },
        Step {
            name: "volumes",
            run: |w| Box::pin(w.prepare_volumes()),
            undo: Some(|w| Box::pin(w.remove_made_volumes())),
        },
        Step {
            name: "shim",
            run: |w| Box::pin(w.create()),
            undo: Some(|w| Box::pin(w.delete())),
        },
        Step {
            name: "ready",
            run: |w| Box::pin(w.make_ready()),
            undo: None,
        },
    ],
};

/// A container in the making.
pub(super) struct Work {
    daemon: Arc<Daemon>,
    /// Nobody else knows it before it is ready.
    container: Arc<Container>,
    directory: PathBuf,
    /// Absent when an earlier daemon's work is undone.
    input: Option<Planned>,
    on_disk: Option<JoinHandle<Result<(), StoreError>>>,
    /// As the shim says.
    created_at: i64,
}

pub(super) async fn create_container(
    daemon: Arc<Daemon>,
    request: CreateContainerRequest,
) -> Result<CreateContainerResponse, Failure> {
    let config = request.config.ok_or(Failure::Missing { field: "config" })?;
    let metadata = config.metadata.clone().ok_or(Failure::Missing {
        field: "config.metadata",
    })?;
    if metadata.name.is_empty() {
        return Err(Failure::Missing {
            field: "config.metadata.name",
        });
    }
    let sandbox = find_sandbox(&daemon, &request.pod_sandbox_id)?;
    to_the_end(async move {
        let name = name(&sandbox.id, &config);
        let _reservation = daemon.pods.reserve(format!("container {name}")).await;
        let _shared = sandbox.lifecycle.read().await;
        if !sandbox.is_ready() {
            return Err(Failure::SandboxNotReady {
                id: sandbox.id.clone(),
            });
        }
        if let Some(existing) = find(&daemon, &sandbox, &config) {
            return same_again(&existing, &config, name);
        }
        let (record, input) = container_plan::plan(&daemon, &sandbox, config)?;
        let id = record.id.clone();
        let mut work = Work::new(&daemon, &sandbox, record, Some(input));
        daemon.runner.run(&OPERATION, &id, &mut work).await?;
        Ok(CreateContainerResponse { container_id: id })
    })
    .await
}

/// Undoes what an earlier daemon did not finish.
pub(crate) async fn undo(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>, record: ContainerRecord) {
    let id = record.id.clone();
    let mut work = Work::new(daemon, sandbox, record, None);
    daemon.runner.undo(&OPERATION, &id, &mut work).await;
}

/// What makes a container unique in its sandbox.
fn name(sandbox_id: &str, config: &ContainerConfig) -> String {
    let metadata = config.metadata.clone().unwrap_or_default();
    format!("{}_{sandbox_id}_{}", metadata.name, metadata.attempt)
}

fn find(daemon: &Daemon, sandbox: &Sandbox, config: &ContainerConfig) -> Option<Arc<Container>> {
    let same = |container: &Arc<Container>| {
        container.with_record(|record| record.config.metadata == config.metadata)
    };
    daemon.pods.containers_of(&sandbox.id).into_iter().find(same)
}

/// The same request again, after its answer was lost: the same answer.
fn same_again(
    existing: &Container,
    config: &ContainerConfig,
    name: String,
) -> Result<CreateContainerResponse, Failure> {
    let same = existing.with_record(|record| record.config == *config);
    if same && !existing.is_being_removed() && existing.progress() == Progress::Created {
        return Ok(CreateContainerResponse {
            container_id: existing.id.clone(),
        });
    }
    Err(Failure::Exists {
        kind: "container",
        name,
        id: existing.id.clone(),
    })
}

impl Work {
    fn new(
        daemon: &Arc<Daemon>,
        sandbox: &Arc<Sandbox>,
        record: ContainerRecord,
        input: Option<Planned>,
    ) -> Work {
        Work {
            directory: daemon.container_directory(&record.id),
            daemon: Arc::clone(daemon),
            container: Arc::new(Container::new(Arc::clone(sandbox), record)),
            input,
            on_disk: None,
            created_at: 0,
        }
    }

    fn input(&mut self) -> Result<&mut Planned, Failure> {
        self.input.as_mut().ok_or(Failure::OutOfOrder)
    }

    /// From here on the image's layers stay, even if the image is removed.
    async fn save_record(&mut self) -> Result<(), Failure> {
        let image = Arc::clone(&self.input()?.image);
        let lower = self
            .daemon
            .images
            .hold(&self.container.id, &image)
            .map_err(|_| Failure::NoImage(image.id.clone()))?;
        let lower = lower.iter().map(|layer| layer.display().to_string());
        let position = self
            .container
            .save(&self.daemon.store, |record| record.lower = lower.collect())?;
        let daemon = Arc::clone(&self.daemon);
        self.on_disk = Some(tokio::spawn(async move { daemon.store.sync(position).await }));
        Ok(())
    }

    async fn forget(&mut self) -> Result<(), Failure> {
        self.daemon.images.release(&self.container.id);
        Ok(self.container.forget(&self.daemon.store)?)
    }

    async fn make_directories(&mut self) -> Result<(), Failure> {
        let root = self.input()?.image.root;
        let io = |path: &PathBuf| {
            let path = path.clone();
            move |source| Failure::Io {
                action: "create",
                path,
                source,
            }
        };
        let own = ["upper", "work", ROOTFS].map(|name| self.directory.join(name));
        let volumes = &self.input()?.plan.image_volumes;
        let volumes = volumes.iter().map(|volume| volume.directory.clone());
        for path in own.into_iter().chain(volumes) {
            std::fs::create_dir_all(&path).map_err(io(&path))?;
        }
        // The root directory that the container sees is the upper one: it has to look like the image's.
        let upper = self.directory.join("upper");
        std::os::unix::fs::chown(&upper, Some(root.uid), Some(root.gid)).map_err(io(&upper))?;
        std::fs::set_permissions(&upper, std::fs::Permissions::from_mode(root.mode)).map_err(io(&upper))
    }

    async fn remove_directories(&mut self) -> Result<(), Failure> {
        files::remove_all(&self.directory).await
    }

    async fn prepare_volumes(&mut self) -> Result<(), Failure> {
        let volumes = std::mem::take(&mut self.input()?.plan.volumes);
        for volume in volumes {
            let destination = volume.container_path.clone();
            let source = self.prepare_volume(volume).await?;
            let spec = &mut self.input()?.plan.spec;
            let mut mounts = spec.mounts_mut().as_mut().into_iter().flatten();
            if let Some(mount) = mounts.find(|mount| *mount.destination() == destination) {
                mount.set_source(Some(source));
            }
        }
        Ok(())
    }

    /// The volume's source on the host. What has to be made is saved before it is: a daemon that is killed then knows it.
    async fn prepare_volume(&mut self, volume: Volume) -> Result<PathBuf, Failure> {
        let volume = Arc::new(volume);
        let missing = match self.on_host(&volume, Volume::look, |_| ()).await? {
            Look::Source(source) => return Ok(source),
            Look::Missing(missing) => missing,
        };
        let made = missing.iter().map(|path| path.display().to_string());
        self.container
            .save(&self.daemon.store, |record| record.made.extend(made))?;
        self.on_host(&volume, Volume::make, move |_| host_path::remove_empty(&missing))
            .await
    }

    /// Gives up when the pod's end is wanted.
    async fn on_host<T: Send + 'static>(
        &self,
        volume: &Arc<Volume>,
        work: impl FnOnce(&Volume) -> Result<T, VolumeError> + Send + 'static,
        take_back: impl FnOnce(Result<T, VolumeError>) + Send + 'static,
    ) -> Result<T, Failure> {
        let shared = Arc::clone(volume);
        let pods = &self.daemon.pods;
        let work = host_path::work_on(pods, &volume.host_path, move || work(&shared), take_back);
        let done = tokio::select! {
            done = work => done,
            () = self.container.sandbox.end_wanted() => return Err(self.not_ready()),
        };
        let done = done.map_err(|source| Failure::HostPath {
            field: format!("config.mounts[{}].host_path", volume.index),
            source,
        })?;
        Ok(done?)
    }

    fn not_ready(&self) -> Failure {
        Failure::SandboxNotReady {
            id: self.container.sandbox.id.clone(),
        }
    }

    /// Only what was made for this container and is still empty.
    async fn remove_made_volumes(&mut self) -> Result<(), Failure> {
        host_path::take_back(&self.container.record().made).await;
        Ok(())
    }

    async fn create(&mut self) -> Result<(), Failure> {
        let Some(shim) = self.container.sandbox.shim() else {
            return Err(self.not_ready());
        };
        let request = self.request()?;
        let created = tokio::select! {
            created = shim.client.create_container(&request) => created?,
            () = self.container.sandbox.end_wanted() => return Err(self.not_ready()),
        };
        self.created_at = created.created_at;
        Ok(())
    }

    fn request(&mut self) -> Result<ShimRequest, Failure> {
        let path = |path: PathBuf| path.display().to_string();
        let record = self.container.record();
        let overlay = Overlay {
            store: path(self.daemon.images.layer_store().to_owned()),
            lower: record.lower,
            upper: path(self.directory.join("upper")),
            work: path(self.directory.join("work")),
            ..Overlay::default()
        };
        let mut request = ShimRequest {
            id: record.id,
            overlay: Some(overlay).into(),
            log_path: record.log_path,
            stdin: record.config.stdin,
            bundle: path(self.directory.clone()),
            ..ShimRequest::default()
        };
        let plan = &self.input()?.plan;
        request.spec = serde_json::to_vec(&plan.spec)?;
        request.share_shm = plan.share_shm;
        let image_volumes = plan.image_volumes.iter();
        request.copied_up = image_volumes
            .map(|volume| path(volume.destination.clone()))
            .collect();
        Ok(request)
    }

    /// With a shim that is dead or silent by cgroup: nobody will know of this container any more.
    async fn delete(&mut self) -> Result<(), Failure> {
        if let Some(shim) = self.container.sandbox.shim() {
            match shim.client.delete_container(&self.container.id).await {
                Ok(()) => return Ok(()),
                Err(error) if error.is(Code::NOT_FOUND) => return Ok(()),
                Err(error) => {
                    tracing::warn!(container = self.container.id, error = %chain(&error), "ending it by cgroup");
                }
            }
        }
        let cgroup = self.container.with_record(|record| record.cgroup.clone());
        dead::end_cgroup(self.daemon.hierarchies, cgroup).await;
        Ok(())
    }

    async fn make_ready(&mut self) -> Result<(), Failure> {
        let (store, created_at) = (&self.daemon.store, self.created_at);
        self.container.save(store, |record| {
            record.set_phase(ContainerPhase::Created);
            record.created_at = created_at;
            // From now on they are as much the user's as the daemon's.
            record.made.clear();
        })?;
        if let Some(on_disk) = self.on_disk.take() {
            on_disk.await.map_err(|_| Failure::Join)??;
        }
        self.daemon.pods.add_container(Arc::clone(&self.container));
        match self.container.sandbox.shim() {
            Some(shim) => watch::container(store, &self.container, shim),
            // Whoever cleaned up after the shim did not know the container yet.
            None => dead::record_exit(store, &self.container, dead::KILLED, dead::MESSAGE),
        }
        Ok(())
    }
}
