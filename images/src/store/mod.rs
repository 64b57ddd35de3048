//! The image store: layers as directories, records in one crash-safe file, everything else in memory.
//!
//! ```text
//!  ROOT/images.records  records of images and layers (ROOT is locked: one process at a time)
//!  ROOT/configs/        image configurations
//!  ROOT/layers/N/       layer N, directly usable as an overlayfs lower directory
//!  ROOT/tmp/            spooled archives
//! ```
//! A layer's directory is filled first and recorded, together with its image, in one transaction when all digests fit. A
//! directory without a record is half made, or half removed: open() removes it. Records say whether the files have reached the
//! disk; an image whose layers had not when the machine went down is dropped at the next boot and pulled again.

mod commit;
mod janitor;
mod open;
mod records;
mod staging;
mod state;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use commit::Draft;
use janitor::Job;
use records::Records;
pub use records::RecordsError;
pub(crate) use staging::{Claim, Group, Layer, start as start_unpacking};
use state::State;

use crate::digest::Digest;
use crate::image::{Image, LayerNumber};
use crate::limits::Limits;
use crate::lookup::{LookupError, Merged};
use crate::manifest::ManifestError;
use crate::platform::Platform;
use coracle_linux::tree::Usage;

/// What can be chosen about a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bounds on images.
    pub limits: Limits,
    /// Which image of an index is taken.
    pub platform: Platform,
    /// Layers downloaded and unpacked at the same time, over all pulls.
    pub parallel_layers: usize,
    /// Identifies the current boot of the machine.
    pub boot_id: String,
}

impl Default for Options {
    fn default() -> Self {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self {
            limits: Limits::default(),
            platform: Platform::host(),
            parallel_layers: 4,
            boot_id: boot_id.trim().to_owned(),
        }
    }
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A directory or file cannot be made or read.
    #[error("image store {path:?}")]
    Path {
        /// Which one.
        path: PathBuf,
        /// The error.
        source: std::io::Error,
    },
    /// The records cannot be opened; `RecordsError::Locked` when another process has them.
    #[error("image store {path:?}")]
    Records {
        /// The file.
        path: PathBuf,
        /// The error.
        source: RecordsError,
    },
}

/// Why the store cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such image (any more).
    #[error("image {0:?} not found")]
    NotFound(String),
    /// The records cannot be changed.
    #[error("image records")]
    Records(#[from] RecordsError),
    /// A layer's implied directories cannot be given their attributes.
    #[error("layer {layer}: adopt directories of lower layers")]
    Adopt {
        /// The layer.
        layer: Digest,
        /// The error.
        source: std::io::Error,
    },
    /// The image configuration is not usable.
    #[error(transparent)]
    Config(#[from] ManifestError),
    /// The thread that does the work was lost (shutdown).
    #[error("the store is shutting down")]
    ShuttingDown,
}

/// The images of one directory. Clones share it.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) options: Options,
    root: PathBuf,
    layers_path: PathBuf,
    layers_fd: OwnedFd,
    records: Records,
    /// Taken for every transaction, before `state`.
    writer: Mutex<()>,
    state: Mutex<State>,
    in_flight: staging::InFlight,
    pub(crate) unpackers: Arc<tokio::sync::Semaphore>,
    janitor: Sender<Job>,
}

impl Store {
    /// Opens or makes the store in `root`. `in_use` says which layers containers stand on (as `hold` returned them). Blocking.
    pub fn open(root: &Path, options: Options, in_use: &[(String, Vec<PathBuf>)]) -> Result<Self, OpenError> {
        let layers_path = root.join("layers");
        let temporary = root.join("tmp");
        for path in [root, &layers_path, &temporary] {
            open::make_directory(path)?;
        }
        let in_records = |source| OpenError::Records {
            path: root.to_owned(),
            source,
        };
        let (records, saved) = Records::open(root).map_err(in_records)?;
        let directories = open::empty_and_list(&temporary, &layers_path)?;
        let (mut state, stale) = open::remember(saved, &directories, &options);
        records.apply(&stale).map_err(in_records)?;
        for (owner, lower) in in_use {
            state.hold(owner, &numbers(lower));
        }
        let work = open::leftovers(&mut state, &directories);
        let janitor_fd = open::open_directory(&layers_path)?;
        let (janitor, jobs) = std::sync::mpsc::channel();
        let inner = Arc::new(Inner {
            unpackers: Arc::new(tokio::sync::Semaphore::new(options.parallel_layers.max(1))),
            options,
            root: root.to_owned(),
            layers_fd: open::open_directory(&layers_path)?,
            layers_path,
            records,
            writer: Mutex::new(()),
            state: Mutex::new(state),
            in_flight: staging::InFlight::default(),
            janitor,
        });
        janitor::start(jobs, janitor_fd, Arc::downgrade(&inner)).map_err(|source| OpenError::Path {
            path: root.to_owned(),
            source,
        })?;
        work.into_iter().for_each(|job| inner.send(job));
        Ok(Self { inner })
    }

    /// All images, by id.
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.inner.state().images.values().cloned().collect()
    }

    /// The image with this tag, digest, id or unique short id.
    pub fn get(&self, reference: &str) -> Option<Arc<Image>> {
        self.inner.state().find(reference)
    }

    /// Removes the image with all its names; `false` when there is none. Directories go in the background.
    pub async fn remove(&self, reference: &str) -> Result<bool, StoreError> {
        let Some(image) = self.get(reference) else {
            return Ok(false);
        };
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || inner.remove_image(&image.id))
            .await
            .map_err(|_| StoreError::ShuttingDown)?
    }

    /// Disk space of all layers. From memory.
    pub fn usage(&self) -> Usage {
        let state = self.inner.state();
        state.layers.values().fold(Usage::default(), |sum, layer| Usage {
            bytes: sum.bytes.saturating_add(layer.bytes),
            inodes: sum.inodes.saturating_add(layer.inodes),
        })
    }

    /// The directory that `lower` is relative to.
    pub fn layer_store(&self) -> &Path {
        &self.inner.layers_path
    }

    /// The layers as overlayfs wants them: relative to `layer_store`, uppermost first.
    pub fn lower(&self, image: &Image) -> Vec<PathBuf> {
        paths(&self.inner.state().lower(&image.layers))
    }

    /// Like `lower`, and keeps the layers until `release(owner)`, whatever happens to the image.
    pub fn hold(&self, owner: &str, image: &Image) -> Result<Vec<PathBuf>, StoreError> {
        let mut state = self.inner.state();
        if !state.images.contains_key(&image.id) {
            return Err(StoreError::NotFound(image.id.clone()));
        }
        let lower = state.lower(&image.layers);
        state.hold(owner, &lower);
        Ok(paths(&lower))
    }

    /// Ends what `hold` began; nothing happens when `owner` holds nothing.
    pub fn release(&self, owner: &str) {
        if self.inner.state().release(owner) {
            self.inner.send(Job::Collect);
        }
    }

    /// Reads a small file (at most 4 MiB) of the image; `None` when it has none at `path`. Blocking, but short.
    pub fn read_file(&self, image: &Image, path: impl AsRef<Path>) -> Result<Option<Vec<u8>>, LookupError> {
        let path = path.as_ref();
        let merged = self.inner.merged(&self.inner.state().lower(&image.layers));
        merged
            .map_err(|errno| LookupError::Read {
                path: path.display().to_string(),
                source: errno.into(),
            })?
            .read_file(path)
    }

    /// Waits until removed layers are gone from the disk and new ones have reached it.
    pub async fn flush(&self) {
        let (answer, done) = tokio::sync::oneshot::channel();
        self.inner.send(Job::Barrier(answer));
        let _ = done.await;
    }

    /// Flushes and closes. The store is unlocked when no clone is left.
    pub async fn close(self) {
        self.flush().await;
    }
}

impl Inner {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn send(&self, job: Job) {
        // Fails only when the thread is gone; the next open() finds the same work.
        let _ = self.janitor.send(job);
    }

    /// Where archives are spooled.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    fn merged(&self, lower: &[LayerNumber]) -> Result<Merged, rustix::io::Errno> {
        Merged::open(
            lower
                .iter()
                .map(|number| self.layers_path.join(number.to_string())),
        )
    }
}

fn paths(numbers: &[LayerNumber]) -> Vec<PathBuf> {
    numbers
        .iter()
        .map(|number| PathBuf::from(number.to_string()))
        .collect()
}

fn numbers(paths: &[PathBuf]) -> Vec<LayerNumber> {
    let number = |path: &PathBuf| path.to_str().and_then(|name| name.parse().ok()).map(LayerNumber);
    paths.iter().filter_map(number).collect()
}
