//! What is saved about images and layers: one redb file, every change one transaction, one fsync.

use std::path::Path;

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::image::LayerNumber;
use crate::layer::RootAttributes;

const IMAGES: TableDefinition<&str, &[u8]> = TableDefinition::new("images");
const CONFIGS: TableDefinition<&str, &[u8]> = TableDefinition::new("configs");
const LAYERS: TableDefinition<u32, &[u8]> = TableDefinition::new("layers");
const META: TableDefinition<&str, u32> = TableDefinition::new("meta");
const FORMAT: u32 = 1;
/// The whole file is rarely larger than this.
const CACHE_BYTES: usize = 1 << 20;

/// Why the records cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// Another process has the store open.
    #[error("it is in use by another process")]
    Locked,
    /// Written by a newer version.
    #[error("it has format {0}, this version reads {FORMAT}")]
    Format(u32),
    /// A record cannot be decoded.
    #[error("record {key}: {source}")]
    Record {
        /// Table and key.
        key: String,
        /// The parser's words.
        source: serde_json::Error,
    },
    /// The database failed.
    #[error(transparent)]
    Database(Box<redb::Error>),
}

impl<E: Into<redb::Error>> From<E> for RecordsError {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::DatabaseAlreadyOpen => Self::Locked,
            other => Self::Database(Box::new(other)),
        }
    }
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

pub(crate) struct Records(Database);

impl Records {
    pub(crate) fn open(path: &Path) -> Result<Self, RecordsError> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(path)?;
        let transaction = database.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            let format = meta.get("format")?.map(|value| value.value());
            match format {
                None => drop(meta.insert("format", FORMAT)?),
                Some(FORMAT) => {}
                Some(other) => return Err(RecordsError::Format(other)),
            }
            transaction.open_table(IMAGES)?;
            transaction.open_table(CONFIGS)?;
            transaction.open_table(LAYERS)?;
        }
        transaction.commit()?;
        Ok(Self(database))
    }

    pub(crate) fn load(&self) -> Result<Saved, RecordsError> {
        let transaction = self.0.begin_read()?;
        let (images, configs) = (transaction.open_table(IMAGES)?, transaction.open_table(CONFIGS)?);
        let mut saved = Saved {
            images: Vec::new(),
            layers: Vec::new(),
        };
        for row in images.iter()? {
            let (id, record) = row?;
            let record = decode(|| format!("images/{}", id.value()), record.value())?;
            let config = configs
                .get(id.value())?
                .map(|c| c.value().to_vec())
                .unwrap_or_default();
            saved.images.push((record, config));
        }
        for row in transaction.open_table(LAYERS)?.iter()? {
            let (number, record) = row?;
            let record = decode(|| format!("layers/{}", number.value()), record.value())?;
            saved.layers.push((LayerNumber(number.value()), record));
        }
        Ok(saved)
    }

    pub(crate) fn apply(&self, change: &Change) -> Result<(), RecordsError> {
        let transaction = self.0.begin_write()?;
        {
            let mut images = transaction.open_table(IMAGES)?;
            let mut configs = transaction.open_table(CONFIGS)?;
            let mut layers = transaction.open_table(LAYERS)?;
            for record in &change.put_images {
                images.insert(record.id.as_str(), encode(&record.id, record)?.as_slice())?;
            }
            for (id, config) in &change.put_configs {
                configs.insert(id.as_str(), config.as_slice())?;
            }
            for id in &change.delete_images {
                images.remove(id.as_str())?;
                configs.remove(id.as_str())?;
            }
            for (number, record) in &change.put_layers {
                layers.insert(number.0, encode(&number.to_string(), record)?.as_slice())?;
            }
            for number in &change.delete_layers {
                layers.remove(number.0)?;
            }
        }
        Ok(transaction.commit()?)
    }
}

fn encode(key: &str, record: &impl Serialize) -> Result<Vec<u8>, RecordsError> {
    serde_json::to_vec(record).map_err(|source| RecordsError::Record {
        key: key.to_owned(),
        source,
    })
}

fn decode<T: serde::de::DeserializeOwned>(
    key: impl FnOnce() -> String,
    bytes: &[u8],
) -> Result<T, RecordsError> {
    serde_json::from_slice(bytes).map_err(|source| RecordsError::Record { key: key(), source })
}
