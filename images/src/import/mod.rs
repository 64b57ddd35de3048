//! Imports an OCI archive (a tar of an OCI image layout) or the output of `docker save`, plain or compressed.
//!
//! ```text
//!  stream -> spool: decompressed into ROOT/tmp -> index of its entries -> oci | docker -> layers -> images
//! ```
//! The spool makes the order of the entries irrelevant; it is a file without a name, so that nothing is left of it whatever happens.

mod docker;
mod oci;
mod spool;

use std::collections::BTreeSet;
use std::sync::Arc;

use spool::Spool;
pub use spool::SpoolError;
use tokio::io::AsyncRead;
use tokio::task::JoinSet;

use crate::Kind;
use crate::digest::Digest;
use crate::image::Image;
use crate::layer::UnpackError;
use crate::manifest::{Descriptor, LayerPlan, ManifestError};
use crate::reference::{Reference, ReferenceError};
use crate::store::{Claim, Draft, Group, Inner, Layer, Store, StoreError, start_unpacking};

/// Why an archive cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The archive cannot be received or read.
    #[error("archive")]
    Spool(#[from] SpoolError),
    /// Neither index.json nor manifest.json.
    #[error("archive has neither index.json (OCI) nor manifest.json (docker save)")]
    NotAnImage,
    /// A list of images that has none.
    #[error("archive: {0} lists no image")]
    Empty(&'static str),
    /// A document of the archive is malformed.
    #[error("archive: {file}")]
    Document {
        /// Which file.
        file: String,
        /// What is wrong.
        source: ManifestError,
    },
    /// A file is missing.
    #[error("archive has no file {0:?}")]
    Missing(String),
    /// A blob has the wrong size or digest.
    #[error("archive: {file}: content has {found}, want {expected}")]
    Digest {
        /// Which file.
        file: String,
        /// Digest or size that was found.
        found: String,
        /// From the document that names it.
        expected: String,
    },
    /// A document is larger than allowed.
    #[error("archive: {file} has {size} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Which file.
        file: String,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A name in the archive is not a reference.
    #[error("archive: {file}")]
    Name {
        /// Which file.
        file: &'static str,
        /// What is wrong.
        source: ReferenceError,
    },
    /// One name for several images, of which one has no name, or none the repository of this one.
    #[error("archive has {0} images, one name cannot be given to all")]
    OneName(usize),
    /// No image for this machine.
    #[error("archive")]
    Image(#[from] ManifestError),
    /// A layer cannot be unpacked.
    #[error("archive: layer {file}")]
    Unpack {
        /// Its file.
        file: String,
        /// Why.
        source: UnpackError,
    },
    /// The layer's directory cannot be made.
    #[error("make layer directory")]
    Stage(#[source] rustix::io::Errno),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Shutdown.
    #[error("the store is shutting down")]
    ShuttingDown,
}

impl ImportError {
    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Spool(error) => error.kind(),
            Self::OneName(_) | Self::Name { .. } | Self::Image(_) => Kind::InvalidArgument,
            Self::Stage(_) | Self::Store(_) | Self::ShuttingDown => Kind::Internal,
            Self::Unpack { source, .. } => source.kind(),
            Self::NotAnImage
            | Self::Empty(_)
            | Self::Document { .. }
            | Self::Missing(_)
            | Self::Digest { .. }
            | Self::TooLarge { .. } => Kind::Corrupt,
        }
    }
}

/// An image of an archive, ready to be unpacked.
struct Candidate {
    id: Digest,
    config: Vec<u8>,
    tags: BTreeSet<String>,
    digests: BTreeSet<String>,
    /// Bottom first: the layer, its file in the spool, and whether the blob digest is known.
    layers: Vec<(LayerPlan, String, bool)>,
}

impl Store {
    /// Imports all images of `archive` that fit this machine. `name` names an archive's only image, or is the repository for names
    /// in the archive that are only a tag; used for neither it is an error. An image without any name is found by its id.
    pub async fn import(
        &self,
        archive: impl AsyncRead + Unpin + Send,
        name: Option<&Reference>,
    ) -> Result<Vec<Arc<Image>>, ImportError> {
        let limits = &self.inner.options.limits;
        let spool = Arc::new(Spool::fill(archive, &self.inner.temporary(), limits).await?);
        let candidates = self.candidates(&spool, name)?;
        let mut images = Vec::new();
        for candidate in candidates {
            images.push(self.import_one(&spool, candidate).await?);
        }
        Ok(images)
    }

    fn candidates(&self, spool: &Spool, name: Option<&Reference>) -> Result<Vec<Candidate>, ImportError> {
        let options = &self.inner.options;
        let mut candidates = if spool.has("index.json") {
            oci::candidates(spool, name, options)?
        } else if spool.has("manifest.json") {
            docker::candidates(spool, options)?
        } else {
            return Err(ImportError::NotAnImage);
        };
        match (name, candidates.as_mut_slice()) {
            (Some(name), [only]) => {
                only.tags.insert(name.to_string());
            }
            (Some(name), several) if !names_all(name, several) => {
                return Err(ImportError::OneName(several.len()));
            }
            _ => {}
        }
        Ok(candidates)
    }

    async fn import_one(&self, spool: &Arc<Spool>, candidate: Candidate) -> Result<Arc<Image>, ImportError> {
        let group = Group::new(&self.inner);
        let mut tasks = JoinSet::new();
        for (index, (plan, file, verify)) in candidate.layers.iter().cloned().enumerate() {
            let (inner, spool) = (Arc::clone(&self.inner), Arc::clone(spool));
            let member = group.member();
            tasks.spawn(async move {
                let layer = import_layer(inner, spool, plan, file, verify).await;
                (index, layer, member) // in this order: the member says that the layer is gone
            });
        }
        let mut layers: Vec<Option<Layer>> = candidate.layers.iter().map(|_| None).collect();
        while let Some(joined) = tasks.join_next().await {
            let (index, layer, _) = joined.map_err(|_| ImportError::ShuttingDown)?;
            if let Some(slot) = layers.get_mut(index) {
                *slot = Some(layer?);
            }
        }
        let draft = Draft {
            id: candidate.id,
            config: candidate.config,
            tags: candidate.tags,
            digests: candidate.digests,
            layers: layers.into_iter().flatten().collect(),
        };
        Ok(self.inner.commit(draft).await?)
    }
}

/// Whether every image has a tag, and one at least from `name`: a name that nothing uses would be lost without a word.
fn names_all(name: &Reference, several: &[Candidate]) -> bool {
    let of_name = format!("{}:", name.name());
    let mut tags = several.iter().flat_map(|candidate| &candidate.tags);
    tags.any(|tag| tag.starts_with(&of_name)) && several.iter().all(|candidate| !candidate.tags.is_empty())
}

async fn import_layer(
    inner: Arc<Inner>,
    spool: Arc<Spool>,
    plan: LayerPlan,
    file: String,
    verify: bool,
) -> Result<Layer, ImportError> {
    let vacancy = match inner.claim(&plan).await {
        Claim::Ready(layer) => return Ok(layer),
        Claim::Vacant(vacancy) => vacancy,
    };
    let permit = Arc::clone(&inner.unpackers).acquire_owned().await;
    let permit = permit.map_err(|_| ImportError::ShuttingDown)?;
    let staged = vacancy.stage().map_err(ImportError::Stage)?;
    let source = spool.reader(&file, verify.then_some(&plan.blob))?;
    let unpacked = start_unpacking(&staged, source)
        .finish()
        .await
        .ok_or(ImportError::ShuttingDown)?;
    drop(permit);
    unpacked.map_err(|source| ImportError::Unpack { file, source })?;
    Ok(vacancy.fill(staged))
}

/// Reads a document of the archive, checked against its descriptor.
fn document(spool: &Spool, file: &str, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, ImportError> {
    let bytes = spool.read(file, limit)?;
    if let Some(size) = blob.size.filter(|size| *size != bytes.len() as u64) {
        return Err(ImportError::Digest {
            file: file.to_owned(),
            found: format!("{} bytes", bytes.len()),
            expected: format!("{size} bytes"),
        });
    }
    if !blob.digest.matches(&bytes) {
        return Err(ImportError::Digest {
            file: file.to_owned(),
            found: Digest::of(&bytes).to_string(),
            expected: blob.digest.to_string(),
        });
    }
    Ok(bytes)
}
