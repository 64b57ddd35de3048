//! RunPodSandbox: a pod that is ready for containers, its network included.
//!
//! ```text
//!   record ---> directories ---> shim ---> pod ---> network ---> sysctls (of interfaces) ---> ready
//!     |  written, not yet on disk                     ^
//!     +--- the disk syncs meanwhile ------------------+  before the first address is taken
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_cri_api::runtime_v1::{
    NamespaceMode, PodSandboxConfig, RunPodSandboxRequest, RunPodSandboxResponse,
};
use tokio::task::JoinHandle;

use super::pod_request::{self, hostname};
use super::request::to_the_end;
use super::{Failure, files, sandbox_request};
use crate::clock::now;
use crate::daemon::Daemon;
use crate::error::chain;
use crate::network::HostLinks;
use crate::pods::Sandbox;
use crate::shims::{self, Started, watch};
use crate::steps::{Operation, Step};
use crate::store::{SandboxPhase, SandboxRecord, StoreError};
use crate::{host_path, pod_files, spec};

pub(super) const OPERATION: Operation<Work, Failure> = Operation {
    name: "run_pod_sandbox",
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
            name: "shim",
            run: |w| Box::pin(w.start_shim()),
            undo: Some(|w| Box::pin(w.end_shim())),
        },
        Step {
            name: "pod",
            run: |w| Box::pin(w.start_pod()),
            undo: None,
        },
        Step {
            name: "network",
            run: |w| Box::pin(w.attach()),
            undo: Some(|w| Box::pin(w.detach())),
        },
        Step {
            name: "sysctls",
            run: |w| Box::pin(w.set_interface_sysctls()),
            undo: None,
        },
        Step {
            name: "ready",
            run: |w| Box::pin(w.make_ready()),
            undo: None,
        },
    ],
};

/// A pod in the making.
pub(super) struct Work {
    daemon: Arc<Daemon>,
    /// Nobody else knows it before it is ready.
    sandbox: Arc<Sandbox>,
    directory: PathBuf,
    shim: Option<Started>,
    /// The record on its way to the disk.
    on_disk: Option<JoinHandle<Result<(), StoreError>>>,
    /// Giving the network back failed.
    network_is_left: bool,
    /// The shim waits for the network with some.
    has_interface_sysctls: bool,
}

pub(super) async fn run_pod_sandbox(
    daemon: Arc<Daemon>,
    request: RunPodSandboxRequest,
) -> Result<RunPodSandboxResponse, Failure> {
    let config = request.config.ok_or(Failure::Missing { field: "config" })?;
    sandbox_request::check(&config, &request.runtime_handler)?;
    to_the_end(async move {
        let name = name(&config);
        let _reservation = daemon.pods.reserve(format!("sandbox {name}")).await;
        if let Some(existing) = find(&daemon, &config) {
            return same_again(&existing, &config, name);
        }
        let id = super::id::generate()?;
        let record = plan(&daemon, id.clone(), config, request.runtime_handler)?;
        let mut work = Work::new(&daemon, record);
        daemon.runner.run(&OPERATION, &id, &mut work).await?;
        Ok(RunPodSandboxResponse { pod_sandbox_id: id })
    })
    .await
}

/// Undoes what an earlier daemon did not finish.
pub(crate) async fn undo(daemon: &Arc<Daemon>, record: SandboxRecord) {
    let id = record.id.clone();
    let mut work = Work::new(daemon, record);
    daemon.runner.undo(&OPERATION, &id, &mut work).await;
}

/// What makes a sandbox unique for the kubelet, for people.
fn name(config: &PodSandboxConfig) -> String {
    let metadata = config.metadata.clone().unwrap_or_default();
    format!(
        "{}_{}_{}_{}",
        metadata.name, metadata.namespace, metadata.uid, metadata.attempt
    )
}

fn find(daemon: &Daemon, config: &PodSandboxConfig) -> Option<Arc<Sandbox>> {
    let same =
        |sandbox: &Arc<Sandbox>| sandbox.with_record(|record| record.config.metadata == config.metadata);
    daemon.pods.sandboxes().into_iter().find(same)
}

/// The same request again, after its answer was lost: the same answer. Anything else under that name is an error.
fn same_again(
    existing: &Sandbox,
    config: &PodSandboxConfig,
    name: String,
) -> Result<RunPodSandboxResponse, Failure> {
    if existing.is_ready() && existing.with_record(|record| record.config == *config) {
        return Ok(RunPodSandboxResponse {
            pod_sandbox_id: existing.id.clone(),
        });
    }
    Err(Failure::Exists {
        kind: "sandbox",
        name,
        id: existing.id.clone(),
    })
}

fn plan(
    daemon: &Daemon,
    id: String,
    config: PodSandboxConfig,
    runtime_handler: String,
) -> Result<SandboxRecord, Failure> {
    let linux = config.linux.clone().unwrap_or_default();
    let own_network = spec::network_mode(&config) == NamespaceMode::Pod;
    Ok(SandboxRecord {
        cgroup_parent: cgroup_parent(&linux.cgroup_parent)
            .unwrap_or_else(|| format!("{}/{id}", daemon.config.cgroup_root)),
        // Names of network namespaces are short: they stand in messages and in `ip netns`.
        netns_path: if own_network {
            format!("/run/netns/coracle-{}", &id[..32])
        } else {
            String::new()
        },
        network: if own_network {
            daemon.network.load()?
        } else {
            String::new()
        },
        attached: own_network,
        created_at: now(),
        phase: SandboxPhase::Starting.into(),
        boot_id: daemon.boot_id.clone(),
        runtime_handler,
        config,
        id,
        ..SandboxRecord::default()
    })
}

/// As asked, in its shortest form; None: nothing is asked.
fn cgroup_parent(asked: &str) -> Option<String> {
    let parts = asked.split('/').filter(|part| !matches!(*part, "" | "."));
    let path: String = parts.map(|part| format!("/{part}")).collect();
    Some(path).filter(|path| !path.is_empty())
}

impl Work {
    fn new(daemon: &Arc<Daemon>, record: SandboxRecord) -> Work {
        let directory = daemon.pod_directory(&record.id);
        Work {
            daemon: Arc::clone(daemon),
            sandbox: Arc::new(Sandbox::new(record)),
            directory,
            shim: None,
            on_disk: None,
            network_is_left: false,
            has_interface_sysctls: false,
        }
    }

    fn config(&self) -> PodSandboxConfig {
        self.sandbox.with_record(|record| record.config.clone())
    }

    async fn save_record(&mut self) -> Result<(), Failure> {
        let (hierarchies, parents) = (self.daemon.hierarchies, &self.daemon.cgroup_parents);
        let parent = self.sandbox.with_record(|record| record.cgroup_parent.clone());
        let owned = parents.claim(hierarchies, &parent, &self.sandbox.id);
        let saved = self.sandbox.save(&self.daemon.store, |record| {
            record.owned_cgroups.clone_from(&owned);
        });
        if saved.is_err() {
            parents.release(hierarchies, &owned, &self.sandbox.id);
        }
        let position = saved?;
        let daemon = Arc::clone(&self.daemon);
        self.on_disk = Some(tokio::spawn(async move { daemon.store.sync(position).await }));
        Ok(())
    }

    /// A network that could not be given back is not forgotten: the sandbox stays, NOTREADY, and stopping or removing it
    /// tries again.
    async fn forget(&mut self) -> Result<(), Failure> {
        let store = &self.daemon.store;
        self.daemon.shims.release_cgroups(&self.sandbox.record());
        if !self.network_is_left {
            return Ok(self.sandbox.forget(store)?);
        }
        let not_ready = |record: &mut SandboxRecord| record.set_phase(SandboxPhase::NotReady);
        self.sandbox.save(store, not_ready)?;
        self.daemon.pods.add_sandbox(Arc::clone(&self.sandbox));
        Ok(())
    }

    async fn make_directories(&mut self) -> Result<(), Failure> {
        self.make_log_directory().await?;
        let config = self.config();
        Ok(pod_files::write(&self.directory, &config, &hostname(&config))?)
    }

    /// What has to be made is saved before it is: a daemon that is killed then knows it.
    async fn make_log_directory(&mut self) -> Result<(), Failure> {
        if self.config().log_directory.is_empty() {
            return Ok(());
        }
        let missing = self.on_log_directory(host_path::missing, |_| ()).await?;
        if missing.is_empty() {
            return Ok(());
        }
        let made = missing.iter().map(|path| path.display().to_string());
        self.sandbox
            .save(&self.daemon.store, |record| record.made = made.collect())?;
        self.on_log_directory(host_path::make, move |_| host_path::remove_empty(&missing))
            .await
    }

    async fn on_log_directory<T: Send + 'static>(
        &self,
        work: fn(&Path) -> io::Result<T>,
        take_back: impl FnOnce(io::Result<T>) + Send + 'static,
    ) -> Result<T, Failure> {
        let path = PathBuf::from(self.config().log_directory);
        let same = path.clone();
        let done = host_path::work_on(&self.daemon.pods, &path, move || work(&same), take_back).await;
        let done = done.map_err(|source| Failure::HostPath {
            field: "config.log_directory".to_owned(),
            source,
        })?;
        done.map_err(|source| Failure::Io {
            action: "create config.log_directory",
            path,
            source,
        })
    }

    async fn remove_directories(&mut self) -> Result<(), Failure> {
        host_path::take_back(&self.sandbox.record().made).await;
        files::remove_all(&self.directory).await
    }

    async fn start_shim(&mut self) -> Result<(), Failure> {
        self.shim = Some(self.daemon.shims.start(&self.sandbox.id, &self.directory).await?);
        Ok(())
    }

    /// Also finds the shim of a daemon that was killed here, and cleans up after one that is dead.
    async fn end_shim(&mut self) -> Result<(), Failure> {
        let started = match self.shim.take() {
            Some(started) => Some(started),
            None => match self
                .daemon
                .shims
                .find_again(&self.sandbox.id, &self.directory)
                .await
            {
                Ok(found) => found.map(|found| found.started),
                Err(error) => {
                    tracing::warn!(sandbox = self.sandbox.id, error = %chain(&error), "its shim is given up");
                    None
                }
            },
        };
        if let Some(started) = started {
            shims::shut_down(&started.shim).await;
            shims::collect_ended(started).await;
        }
        self.daemon.shims.clean_up(&self.sandbox.record()).await;
        self.daemon.shims.remove_empty_cgroups();
        Ok(())
    }

    async fn start_pod(&mut self) -> Result<(), Failure> {
        let Some(started) = &self.shim else {
            return Err(Failure::OutOfOrder);
        };
        let request = self.sandbox.with_record(pod_request::pod_request);
        let result = started.shim.client.start_pod(&request).await;
        if result.is_err() {
            // The log goes with the pod's directory: what the shim had to say is kept here.
            shims::report_log(started, &self.sandbox.id, &self.directory).await;
        }
        self.has_interface_sysctls = result?.has_interface_sysctls;
        Ok(())
    }

    /// Of interfaces that a plugin has made.
    async fn set_interface_sysctls(&mut self) -> Result<(), Failure> {
        let shim = self.shim.as_ref().filter(|_| self.has_interface_sysctls);
        if let Some(started) = shim {
            started.shim.client.set_interface_sysctls().await?;
        }
        Ok(())
    }

    async fn attach(&mut self) -> Result<(), Failure> {
        // Before an address is taken, the record that gives it back has to be on disk.
        if let Some(on_disk) = self.on_disk.take() {
            on_disk.await.map_err(|_| Failure::Join)??;
        }
        let record = self.sandbox.record();
        if !record.attached {
            return Ok(());
        }
        let attached = self.daemon.network.attach(&record).await?;
        let (name, ips) = (hostname(&record.config), attached.ips.clone());
        self.sandbox.save(&self.daemon.store, |record| {
            record.cni_result = attached.result;
            record.ips = attached.ips;
        })?;
        Ok(pod_files::write_hosts(
            &self.directory,
            &record.config,
            &name,
            &ips,
        )?)
    }

    async fn detach(&mut self) -> Result<(), Failure> {
        let record = self.sandbox.record();
        if record.attached {
            let links = HostLinks::of(&record);
            self.network_is_left = true;
            self.daemon.network.detach(&record).await?;
            self.network_is_left = false;
            tokio::spawn(links.gone());
        }
        Ok(())
    }

    async fn make_ready(&mut self) -> Result<(), Failure> {
        self.sandbox.save(&self.daemon.store, |record| {
            record.set_phase(SandboxPhase::Ready);
            // From now on the log directory is the client's.
            record.made.clear();
        })?;
        let Some(Started { shim, end }) = self.shim.take() else {
            return Err(Failure::OutOfOrder);
        };
        let pid = shim.pid;
        self.sandbox.set_shim(shim);
        // Before its shim is watched: the end of one that is dead by now is an end of this sandbox.
        self.daemon.pods.add_sandbox(Arc::clone(&self.sandbox));
        watch::shim(&self.daemon.shims, &self.sandbox, pid, end);
        Ok(())
    }
}
