//! The image store: layers as directories, records in one crash-safe file, everything else in memory.
//!
//! ```text
//!  ROOT/images.redb   records of images and layers (locked: one process at a time)
//!  ROOT/layers/N/     layer N, directly usable as an overlayfs lower directory
//!  ROOT/tmp/          spooled archives
//! ```
//! A layer's directory is filled first and recorded, together with its image, in one transaction when all digests fit. A
//! directory without a record is half made, or half removed: open() removes it. Records say whether the files have reached the
//! disk; an image whose layers had not when the machine went down is dropped at the next boot and pulled again.

mod janitor;
mod records;
mod staging;
mod state;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use janitor::Job;
pub use records::RecordsError;
use records::{Change, ImageRecord, LayerRecord, Records, Saved};
use rustix::fs::{Mode, OFlags};
pub(crate) use staging::{Claim, Group, Layer, StagedLayer, start as start_unpacking};
use state::State;

use crate::digest::Digest;
use crate::image::{Image, LayerNumber};
use crate::layer::{RootAttributes, adopt_parents};
use crate::limits::Limits;
use crate::lookup::{LookupError, Merged};
use crate::manifest::{ManifestError, parse_config};
use crate::platform::Platform;
use crate::usage::Usage;

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
    #[error("image store {path:?}: {source}")]
    Path {
        /// Which one.
        path: PathBuf,
        /// The error.
        source: std::io::Error,
    },
    /// The records cannot be opened; `RecordsError::Locked` when another process has them.
    #[error("image store {path:?}: {source}")]
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
    #[error("image records: {0}")]
    Records(#[from] RecordsError),
    /// A layer's implied directories cannot be given their attributes.
    #[error("layer {layer}: adopt directories of lower layers: {source}")]
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
            make_directory(path)?;
        }
        let records_path = root.join("images.redb");
        let in_records = |source| OpenError::Records {
            path: records_path.clone(),
            source,
        };
        let records = Records::open(&records_path).map_err(in_records)?;
        let saved = records.load().map_err(in_records)?;
        let directories = empty_and_list(&temporary, &layers_path)?;
        let layers_fd = open_directory(&layers_path)?;
        let janitor_fd = open_directory(&layers_path)?;
        let (mut state, stale) = remember(saved, &directories, &options);
        records.apply(&stale).map_err(in_records)?;
        for (owner, lower) in in_use {
            state.hold(owner, &numbers(lower));
        }
        let unrecorded: Vec<LayerNumber> = directories
            .iter()
            .filter(|number| !state.layers.contains_key(number))
            .copied()
            .collect();
        let unsynced: Vec<LayerNumber> = state
            .layers
            .iter()
            .filter(|(_, record)| !record.durable)
            .map(|(number, _)| *number)
            .collect();
        let unpackers = Arc::new(tokio::sync::Semaphore::new(options.parallel_layers.max(1)));
        let (janitor, jobs) = std::sync::mpsc::channel();
        let inner = Arc::new(Inner {
            options,
            root: root.to_owned(),
            layers_path,
            layers_fd,
            records,
            writer: Mutex::new(()),
            state: Mutex::new(state),
            in_flight: staging::InFlight::default(),
            unpackers,
            janitor,
        });
        janitor::start(jobs, janitor_fd, Arc::downgrade(&inner)).map_err(|source| OpenError::Path {
            path: root.to_owned(),
            source,
        })?;
        for number in unrecorded {
            inner.send(Job::Remove(number));
        }
        inner.send(Job::Collect);
        if !unsynced.is_empty() {
            inner.send(Job::Sync(unsynced));
        }
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

/// What is needed to record an image whose layers are all there.
pub(crate) struct Draft {
    pub(crate) id: Digest,
    pub(crate) config: Vec<u8>,
    pub(crate) tags: BTreeSet<String>,
    pub(crate) digests: BTreeSet<String>,
    /// Bottom first.
    pub(crate) layers: Vec<Layer>,
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

    /// Records an image: one transaction for it and its new layers. On another thread, since it syncs.
    pub(crate) async fn commit(self: &Arc<Self>, draft: Draft) -> Result<Arc<Image>, StoreError> {
        let inner = Arc::clone(self);
        let running = tokio::task::spawn_blocking(move || inner.commit_blocking(draft));
        running.await.map_err(|_| StoreError::ShuttingDown)?
    }

    fn commit_blocking(&self, draft: Draft) -> Result<Arc<Image>, StoreError> {
        self.adopt_all(&draft.layers)?;
        let _writer = self.writer();
        let fresh: Vec<(LayerNumber, LayerRecord)> = draft
            .layers
            .iter()
            .enumerate()
            .filter_map(|(index, layer)| match layer {
                Layer::Staged(staged) if !staged.is_committed() => {
                    Some((staged.number, self.layer_record(staged, index == 0)))
                }
                _ => None,
            })
            .collect();
        let mut record = ImageRecord {
            id: draft.id.to_string(),
            repo_tags: draft.tags.into_iter().collect(),
            repo_digests: draft.digests.into_iter().collect(),
            layers: draft.layers.iter().map(Layer::number).collect(),
        };
        let losers = {
            let state = self.state();
            if let Some(known) = state.images.get(&record.id) {
                add_names(&mut record, known);
            }
            state.renamed(&record)
        };
        let change = Change {
            put_images: losers.iter().cloned().chain([record.clone()]).collect(),
            put_configs: vec![(record.id.clone(), draft.config.clone())],
            put_layers: fresh.clone(),
            ..Change::default()
        };
        self.records.apply(&change)?;
        let image = self.publish(record, &draft.config, fresh, losers)?;
        for layer in &draft.layers {
            if let Layer::Staged(staged) = layer {
                staged.commit();
            }
        }
        Ok(image)
    }

    /// Puts what was just saved into memory.
    fn publish(
        &self,
        record: ImageRecord,
        config: &[u8],
        fresh: Vec<(LayerNumber, LayerRecord)>,
        losers: Vec<ImageRecord>,
    ) -> Result<Arc<Image>, StoreError> {
        let numbers: Vec<LayerNumber> = fresh.iter().map(|(number, _)| *number).collect();
        let mut state = self.state();
        state.layers.extend(fresh);
        // Other pulls may share these layers: kept until the last of them lets its StagedLayer go.
        numbers.iter().for_each(|number| state.keep(*number));
        for loser in losers {
            if let Some(image) = state.images.get(&loser.id) {
                let image = Arc::new(Image {
                    repo_tags: loser.repo_tags,
                    ..Image::clone(image)
                });
                state.images.insert(loser.id, image);
            }
        }
        let image = Arc::new(build_image(record, config, &state, &self.options.platform)?);
        state.images.insert(image.id.clone(), Arc::clone(&image));
        drop(state);
        if !numbers.is_empty() {
            self.send(Job::Sync(numbers));
        }
        // An image of the same id may have stood on other copies of its layers.
        self.send(Job::Collect);
        Ok(image)
    }

    fn layer_record(&self, staged: &StagedLayer, bottom: bool) -> LayerRecord {
        let content = staged.content();
        LayerRecord {
            diff_id: staged.plan.diff_id.clone(),
            chain_id: (!bottom && !content.implied.is_empty()).then(|| staged.plan.chain_id.clone()),
            bytes: content.bytes,
            inodes: content.inodes,
            root: content.root,
            opaque_root: content.opaque_root,
            durable: false,
            boot_id: self.options.boot_id.clone(),
        }
    }

    /// Repairs implied directories, bottom up, since an upper layer may lean on a repaired one.
    fn adopt_all(&self, layers: &[Layer]) -> Result<(), StoreError> {
        for (index, layer) in layers.iter().enumerate() {
            let Layer::Staged(staged) = layer else { continue };
            let implied = staged.content().implied;
            let mut adopted = staged.adopted.lock().unwrap_or_else(PoisonError::into_inner);
            if !*adopted && index > 0 && !implied.is_empty() {
                let below: Vec<LayerNumber> = layers.iter().take(index).rev().map(Layer::number).collect();
                self.merged(&below)
                    .and_then(|lower| adopt_parents(staged.directory.as_fd(), &lower, &implied))
                    .map_err(|errno| StoreError::Adopt {
                        layer: staged.plan.diff_id.clone(),
                        source: errno.into(),
                    })?;
            }
            *adopted = true;
        }
        Ok(())
    }

    fn remove_image(&self, id: &str) -> Result<bool, StoreError> {
        let _writer = self.writer();
        let (image, garbage) = {
            let mut state = self.state();
            let Some(image) = state.images.remove(id) else {
                return Ok(false);
            };
            (image, take_garbage(&mut state))
        };
        let change = Change {
            delete_images: vec![id.to_owned()],
            delete_layers: garbage.iter().map(|(number, _)| *number).collect(),
            ..Change::default()
        };
        if let Err(error) = self.records.apply(&change) {
            let mut state = self.state();
            state.images.insert(id.to_owned(), image);
            state.layers.extend(garbage);
            return Err(error.into());
        }
        for (number, _) in garbage {
            self.send(Job::Remove(number));
        }
        Ok(true)
    }

    /// Forgets and removes layers that nobody needs. Called by the janitor.
    fn collect(&self) {
        let _writer = self.writer();
        let garbage = take_garbage(&mut self.state());
        if garbage.is_empty() {
            return;
        }
        let delete_layers = garbage.iter().map(|(number, _)| *number).collect();
        if let Err(error) = self.records.apply(&Change {
            delete_layers,
            ..Change::default()
        }) {
            tracing::warn!(%error, "unused layers not removed");
            self.state().layers.extend(garbage);
            return;
        }
        for (number, _) in garbage {
            self.send(Job::Remove(number));
        }
    }

    /// Notes that the files of these layers have reached the disk. Called by the janitor.
    fn mark_durable(&self, numbers: &[LayerNumber]) {
        let _writer = self.writer();
        let mut put_layers = Vec::new();
        {
            let mut state = self.state();
            for number in numbers {
                if let Some(record) = state.layers.get_mut(number) {
                    record.durable = true;
                    put_layers.push((*number, record.clone()));
                }
            }
        }
        if let Err(error) = self.records.apply(&Change {
            put_layers,
            ..Change::default()
        }) {
            tracing::warn!(%error, "layers not marked as synced");
        }
    }
}

fn add_names(record: &mut ImageRecord, known: &Image) {
    for (own, theirs) in [
        (&mut record.repo_tags, &known.repo_tags),
        (&mut record.repo_digests, &known.repo_digests),
    ] {
        own.extend(theirs.iter().cloned());
        own.sort();
        own.dedup();
    }
}

fn take_garbage(state: &mut State) -> Vec<(LayerNumber, LayerRecord)> {
    let garbage = state.garbage();
    garbage
        .into_iter()
        .filter_map(|number| Some((number, state.layers.remove(&number)?)))
        .collect()
}

/// Turns saved records into memory, and says which records are stale.
fn remember(saved: Saved, directories: &BTreeSet<LayerNumber>, options: &Options) -> (State, Change) {
    let mut state = State::default();
    let mut stale = Change::default();
    for number in directories {
        state.skip_to(*number);
    }
    for (number, record) in saved.layers {
        state.skip_to(number);
        if directories.contains(&number) && (record.durable || record.boot_id == options.boot_id) {
            state.layers.insert(number, record);
        } else {
            stale.delete_layers.push(number);
        }
    }
    for (record, config) in saved.images {
        let id = record.id.clone();
        let complete = record
            .layers
            .iter()
            .all(|number| state.layers.contains_key(number));
        match complete.then(|| build_image(record, &config, &state, &options.platform)) {
            Some(Ok(image)) => drop(state.images.insert(id, Arc::new(image))),
            refused => {
                let reason = refused.map_or_else(
                    || "a layer had not reached the disk".to_owned(),
                    |result| result.err().map(|error| error.to_string()).unwrap_or_default(),
                );
                tracing::warn!(image = %id, reason, "image dropped");
                stale.delete_images.push(id);
            }
        }
    }
    (state, stale)
}

fn build_image(
    record: ImageRecord,
    config: &[u8],
    state: &State,
    platform: &Platform,
) -> Result<Image, ManifestError> {
    let unique: BTreeSet<LayerNumber> = record.layers.iter().copied().collect();
    let bytes: u64 = unique
        .iter()
        .filter_map(|number| state.layers.get(number))
        .map(|layer| layer.bytes)
        .sum();
    // What shows as `/` is the uppermost layer's own entry for it.
    let own_root = |number: &LayerNumber| state.layers.get(number).and_then(|layer| layer.root);
    let root = state.lower(&record.layers).iter().find_map(own_root);
    Ok(Image {
        config: parse_config(config, platform)?,
        size: bytes.saturating_add(config.len() as u64),
        root: root.unwrap_or_else(RootAttributes::default),
        id: record.id,
        repo_tags: record.repo_tags,
        repo_digests: record.repo_digests,
        layers: record.layers,
    })
}

fn make_directory(path: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| OpenError::Path {
            path: path.to_owned(),
            source,
        })
}

fn open_directory(path: &Path) -> Result<OwnedFd, OpenError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| OpenError::Path {
        path: path.to_owned(),
        source: errno.into(),
    })
}

/// Empties the spool and lists the layer directories.
fn empty_and_list(temporary: &Path, layers: &Path) -> Result<BTreeSet<LayerNumber>, OpenError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Path { path, source }
    };
    for entry in std::fs::read_dir(temporary).map_err(at(temporary))? {
        let path = entry.map_err(at(temporary))?.path();
        std::fs::remove_file(&path).map_err(at(&path))?;
    }
    let mut numbers = BTreeSet::new();
    for entry in std::fs::read_dir(layers).map_err(at(layers))? {
        let name = entry.map_err(at(layers))?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.parse().ok()).map(LayerNumber));
    }
    Ok(numbers)
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
