//! What is saved about images and layers: one small file, written anew for every change and put in place by rename(2).
//!
//! ```text
//!  ROOT/images.records      coracle-images 1
//!                           SUM {"layer":{"number":1,...}}      SUM: the first 16 digits of the SHA-256 of what
//!                           SUM {"image":{"id":"sha256:...",...}}    follows it on its line
//!                           SUM {"end":{"records":2}}
//!  ROOT/configs/sha256-HEX  image configurations, named by their digest
//! ```
//! So the file is the old one or the new one, never a mixture of times, and a damaged line costs only what it says. Images can be
//! pulled again: whatever the file holds, the store opens, and the log says what was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::image::LayerNumber;
use crate::layer::RootAttributes;

const FILE: &str = "images.records";
const CONFIGS: &str = "configs";
const HEADER: &str = "coracle-images 1";
const SUM_DIGITS: usize = 16;
/// What versions before this file wrote.
const EARLIER_FILE: &str = "images.redb";

/// Why the records cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// Another process has the store open.
    #[error("it is in use by another process")]
    Locked,
    /// A file or directory cannot be read or written.
    #[error("{action} {path:?}")]
    File {
        /// What was done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// A record cannot be encoded.
    #[error("encode record")]
    Encode(#[from] serde_json::Error),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    pub(crate) id: String,
    pub(crate) repo_tags: Vec<String>,
    pub(crate) repo_digests: Vec<String>,
    pub(crate) layers: Vec<LayerNumber>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    pub(crate) diff_id: Digest,
    /// Set when the layer only fits on top of this chain (see `Content::implied`).
    pub(crate) chain_id: Option<Digest>,
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
    pub(crate) root: Option<RootAttributes>,
    pub(crate) opaque_root: bool,
    /// The files have reached the disk. Until then they are only good as long as the machine stays up.
    pub(crate) durable: bool,
    /// Boot in which the layer was unpacked.
    pub(crate) boot_id: String,
}

/// A set of changes that happen together or not at all.
#[derive(Default)]
pub(crate) struct Change {
    pub(crate) put_images: Vec<ImageRecord>,
    pub(crate) put_configs: Vec<(String, Vec<u8>)>,
    pub(crate) delete_images: Vec<String>,
    pub(crate) put_layers: Vec<(LayerNumber, LayerRecord)>,
    pub(crate) delete_layers: Vec<LayerNumber>,
}

/// Everything saved.
pub(crate) struct Saved {
    /// With the raw configuration.
    pub(crate) images: Vec<(ImageRecord, Vec<u8>)>,
    pub(crate) layers: Vec<(LayerNumber, LayerRecord)>,
}

/// The open file.
pub(crate) struct Records {
    root: PathBuf,
    /// Held for the flock(2) on it.
    _lock: OwnedFd,
    /// What the file says.
    written: Mutex<Written>,
}

#[derive(Clone, Default)]
struct Written {
    images: BTreeMap<String, ImageRecord>,
    layers: BTreeMap<LayerNumber, LayerRecord>,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Layer {
        number: LayerNumber,
        #[serde(flatten)]
        record: LayerRecord,
    },
    Image(ImageRecord),
    End {
        records: usize,
    },
}

impl Records {
    /// Locks the store in the directory `root` and reads what is saved.
    pub(crate) fn open(root: &Path) -> Result<(Self, Saved), RecordsError> {
        let lock = lock(root)?;
        let configs = root.join(CONFIGS);
        std::fs::create_dir_all(&configs).map_err(at("make", &configs))?;
        forget_earlier(root)?;
        let path = root.join(FILE);
        let (mut written, mut damaged) = match std::fs::read(&path) {
            Ok(bytes) => parse(&path, &bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Written::default(), false),
            Err(error) => return Err(at("read", &path)(error)),
        };
        let mut images = Vec::new();
        for (id, record) in std::mem::take(&mut written.images) {
            if let Some(config) = read_config(&configs, &id) {
                images.push((record.clone(), config));
                written.images.insert(id, record);
            } else {
                tracing::warn!(image = %id, "image dropped: its configuration is missing or damaged");
                damaged = true;
            }
        }
        remove_unnamed(&configs, &written)?;
        let layers = written.layers.iter();
        let saved = Saved {
            images,
            layers: layers.map(|(number, record)| (*number, record.clone())).collect(),
        };
        if damaged {
            save(root, &written)?;
        }
        let records = Self {
            root: root.to_owned(),
            _lock: lock,
            written: Mutex::new(written),
        };
        Ok((records, saved))
    }

    /// The configuration of an image, when it is there and whole.
    pub(crate) fn config(&self, id: &str) -> Option<Vec<u8>> {
        read_config(&self.root.join(CONFIGS), id)
    }

    /// Saves the change. After an error nothing of it counts, though the disk may have it.
    pub(crate) fn apply(&self, change: &Change) -> Result<(), RecordsError> {
        let configs = self.root.join(CONFIGS);
        for (id, config) in &change.put_configs {
            write_config(&configs, id, config)?;
        }
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = written.clone();
        for id in &change.delete_images {
            next.images.remove(id);
        }
        for record in &change.put_images {
            next.images.insert(record.id.clone(), record.clone());
        }
        for number in &change.delete_layers {
            next.layers.remove(number);
        }
        next.layers.extend(change.put_layers.iter().cloned());
        save(&self.root, &next)?;
        *written = next;
        for id in &change.delete_images {
            // What cannot be removed is left for the next open.
            let _ = std::fs::remove_file(configs.join(config_name(id)));
        }
        Ok(())
    }
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RecordsError {
    move |source| RecordsError::File {
        action,
        path: path.to_owned(),
        source,
    }
}

fn lock(root: &Path) -> Result<OwnedFd, RecordsError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let locked = rustix::fs::open(root, flags, Mode::empty()).and_then(|directory| {
        rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).map(|()| directory)
    });
    match locked {
        Err(Errno::WOULDBLOCK) => Err(RecordsError::Locked),
        other => other.map_err(|errno| at("lock", root)(errno.into())),
    }
}

fn forget_earlier(root: &Path) -> Result<(), RecordsError> {
    let path = root.join(EARLIER_FILE);
    match std::fs::remove_file(&path) {
        Ok(()) => tracing::warn!(
            ?path,
            "records of an earlier version are not read: images are pulled again"
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(at("remove", &path)(error)),
    }
    Ok(())
}

/// What the file says, and whether some of it was lost.
fn parse(path: &Path, bytes: &[u8]) -> (Written, bool) {
    let mut written = Written::default();
    let mut lines = bytes.split(|byte| *byte == b'\n');
    if lines.next() != Some(HEADER.as_bytes()) {
        tracing::warn!(?path, "not a record file of this version: all images are lost");
        return (written, true);
    }
    let (mut damaged, mut announced) = (false, None);
    for (index, line) in lines.enumerate().filter(|(_, line)| !line.is_empty()) {
        match parse_line(line) {
            Some(Line::Layer { number, record }) => drop(written.layers.insert(number, record)),
            Some(Line::Image(record)) => drop(written.images.insert(record.id.clone(), record)),
            Some(Line::End { records }) => announced = Some(records),
            None => {
                tracing::warn!(
                    ?path,
                    line = index + 2,
                    "the record of an image or layer is damaged"
                );
                damaged = true;
            }
        }
    }
    let found = written.layers.len() + written.images.len();
    if !damaged && announced != Some(found) {
        tracing::warn!(
            ?path,
            ?announced,
            found,
            "records of images or layers are missing"
        );
        damaged = true;
    }
    (written, damaged)
}

fn parse_line(line: &[u8]) -> Option<Line> {
    let (sum, rest) = line.split_at_checked(SUM_DIGITS)?;
    let json = rest.strip_prefix(b" ")?;
    (sum == sum_of(json).as_bytes())
        .then(|| serde_json::from_slice(json).ok())
        .flatten()
}

fn sum_of(json: &[u8]) -> String {
    Digest::of(json).hex().chars().take(SUM_DIGITS).collect()
}

fn save(root: &Path, written: &Written) -> Result<(), RecordsError> {
    let mut text = format!("{HEADER}\n");
    let mut add = |line: &Line| {
        let json = serde_json::to_string(line)?;
        text.extend([&sum_of(json.as_bytes()), " ", &json, "\n"]);
        Ok::<_, serde_json::Error>(())
    };
    for (number, record) in &written.layers {
        let (number, record) = (*number, record.clone());
        add(&Line::Layer { number, record })?;
    }
    for record in written.images.values() {
        add(&Line::Image(record.clone()))?;
    }
    let records = written.layers.len() + written.images.len();
    add(&Line::End { records })?;
    replace(&root.join(FILE), text.as_bytes())
}

/// Writes a file so that after a crash at any time its name has the old content or the new one.
fn replace(path: &Path, content: &[u8]) -> Result<(), RecordsError> {
    let new = path.with_extension("new");
    File::create(&new)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .map_err(at("write", &new))?;
    std::fs::rename(&new, path).map_err(at("replace", path))?;
    let parent = path.parent().unwrap_or(path);
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .map_err(at("sync", parent))
}

fn config_name(id: &str) -> String {
    id.replace(':', "-")
}

fn write_config(configs: &Path, id: &str, config: &[u8]) -> Result<(), RecordsError> {
    if read_config(configs, id).is_some() {
        return Ok(());
    }
    replace(&configs.join(config_name(id)), config)
}

/// The configuration, when it is there and is what its name says.
fn read_config(configs: &Path, id: &str) -> Option<Vec<u8>> {
    let digest = Digest::parse(id).ok()?;
    let config = std::fs::read(configs.join(config_name(id))).ok()?;
    digest.matches(&config).then_some(config)
}

fn remove_unnamed(configs: &Path, written: &Written) -> Result<(), RecordsError> {
    let named: BTreeSet<String> = written.images.keys().map(|id| config_name(id)).collect();
    for entry in std::fs::read_dir(configs).map_err(at("read", configs))? {
        let entry = entry.map_err(at("read", configs))?;
        if entry
            .file_name()
            .to_str()
            .is_none_or(|name| !named.contains(name))
        {
            let path = entry.path();
            std::fs::remove_file(&path).map_err(at("remove", &path))?;
        }
    }
    Ok(())
}
