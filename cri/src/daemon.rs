//! The daemon as one value: what every request works on.

use std::path::PathBuf;
use std::sync::Arc;

use crate::cgroup::Hierarchies;
use crate::cgroup_parents::CgroupParents;
use crate::config::Config;
use crate::network::Network;
use crate::pods::Pods;
use crate::shims::{self, ShimError, Shims};
use crate::spec::Host;
use crate::state_lock::StateLock;
use crate::stats::{Figures, Sampler, Samples};
use crate::steps::{Runner, Trace, TraceError};
use crate::store::{ContainerRecord, Store, StoreError};

/// Everything of one running daemon.
pub(crate) struct Daemon {
    pub(crate) config: Config,
    pub(crate) boot_id: String,
    pub(crate) store: Arc<Store>,
    pub(crate) images: coracle_images::Store,
    pub(crate) pods: Arc<Pods>,
    pub(crate) network: Network,
    pub(crate) runner: Runner,
    pub(crate) hierarchies: Hierarchies,
    pub(crate) cgroup_parents: Arc<CgroupParents>,
    pub(crate) host: Host,
    pub(crate) shims: Arc<Shims>,
    pub(crate) samples: Arc<Samples>,
    _state_lock: StateLock,
}

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("images")]
    Images(#[from] coracle_images::OpenError),
    #[error(transparent)]
    Shim(#[from] ShimError),
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error(transparent)]
    Cgroup(#[from] coracle_linux::cgroup::CgroupError),
    #[error("{}: another coracled uses this --state", .0.display())]
    StateTaken(PathBuf),
    #[error("{action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Daemon")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Daemon {
    /// Opens everything; nothing of pods is looked at yet.
    pub(crate) fn open(config: Config) -> Result<Arc<Daemon>, StartError> {
        let shim_program = shims::find_program(config.shim.as_deref())?;
        let store = Arc::new(Store::open(&config.root)?);
        for path in [
            config.root.join("containers"),
            config.root.join("trash"),
            config.state.join("pods"),
        ] {
            std::fs::create_dir_all(&path).map_err(|source| StartError::Io {
                action: "create",
                path: path.clone(),
                source,
            })?;
        }
        let state_lock = lock_state(&config)?;
        let boot_id = std::fs::read_to_string(&config.boot_id_file).map_err(|source| StartError::Io {
            action: "read",
            path: config.boot_id_file.clone(),
            source,
        })?;
        let hierarchies = Hierarchies::discover()?;
        let host = Host::observe(hierarchies).map_err(|source| StartError::Io {
            action: "read",
            path: "/proc/self".into(),
            source,
        })?;
        let images = open_images(&config, &store)?;
        let trace = config
            .trace_steps
            .as_deref()
            .map_or_else(|| Ok(Trace::off()), Trace::open)?;
        let (pods, cgroup_parents) = (Arc::<Pods>::default(), Arc::<CgroupParents>::default());
        let shims = Arc::new(Shims {
            program: shim_program,
            cgroup_root: config.cgroup_root.clone(),
            trace: config.trace_steps.clone(),
            hierarchies,
            cgroup_parents: Arc::clone(&cgroup_parents),
            pods: Arc::clone(&pods),
            store: Arc::clone(&store),
        });
        Ok(Arc::new(Daemon {
            boot_id: boot_id.trim().to_owned(),
            network: Network::new(&config),
            runner: Runner {
                trace,
                fail_point: config.fail_point.clone(),
            },
            store,
            images,
            pods,
            hierarchies,
            cgroup_parents,
            host,
            shims,
            samples: Arc::default(),
            _state_lock: state_lock,
            config,
        }))
    }

    /// What dies with the boot: the pod's socket and files.
    pub(crate) fn pod_directory(&self, id: &str) -> PathBuf {
        self.config.state.join("pods").join(id)
    }

    /// What survives it: the container's writable layer.
    pub(crate) fn container_directory(&self, id: &str) -> PathBuf {
        self.containers_directory().join(id)
    }

    /// Writable layers, a directory per container.
    pub(crate) fn containers_directory(&self) -> PathBuf {
        self.config.root.join("containers")
    }

    /// Writable layers on their way out. On the same file system, so that a rename puts one here.
    pub(crate) fn trash_directory(&self) -> PathBuf {
        self.config.root.join("trash")
    }

    /// What the figures of pods and containers are made from.
    pub(crate) fn figures(&self) -> Figures<'_> {
        Figures {
            pods: &self.pods,
            hierarchies: self.hierarchies,
            samples: &self.samples,
            root: &self.config.root,
        }
    }

    /// What samples them in the background.
    pub(crate) fn sampler(&self) -> Sampler {
        Sampler {
            pods: Arc::clone(&self.pods),
            hierarchies: self.hierarchies,
            samples: Arc::clone(&self.samples),
            layers: self.containers_directory(),
            period: self.config.stats_period(),
        }
    }
}

fn lock_state(config: &Config) -> Result<StateLock, StartError> {
    let taken = StateLock::take(&config.state).map_err(|source| StartError::Io {
        action: "lock",
        path: config.state.clone(),
        source,
    })?;
    taken.ok_or_else(|| StartError::StateTaken(config.state.clone()))
}

/// The layers of every container that exists stay, even if its image is removed.
fn open_images(config: &Config, store: &Store) -> Result<coracle_images::Store, StartError> {
    let containers: Vec<ContainerRecord> = store.all()?;
    let in_use: Vec<(String, Vec<PathBuf>)> = containers
        .into_iter()
        .map(|record| (record.id, record.lower.into_iter().map(PathBuf::from).collect()))
        .collect();
    Ok(coracle_images::Store::open(
        &config.root.join("images"),
        coracle_images::Options::default(),
        &in_use,
    )?)
}
