//! Pulls an image: manifest, configuration, layers (in parallel, each streamed straight into its directory), one record.
//!
//! Dropping the future ends the downloads; the unpackers notice that their stream has no end and remove what they made.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Kind;
use crate::configuration::Configuration;
use crate::digest::Digest;
use crate::image::Image;
use crate::layer::{ChannelReader, UnpackError};
use crate::manifest::{self, Document, LayerPlan, Manifest, ManifestError};
use crate::reference::Reference;
use crate::registry::{Auth, RegistryError, Repository};
use crate::store::{Claim, Draft, Group, Inner, Layer, Store, StoreError, start_unpacking};

const INDEX_DEPTH_MAX: usize = 3;
/// Chunks between a download and its unpacker; hyper makes them up to some 400 KiB large on a fast connection.
const QUEUE: usize = 8;

/// Why an image cannot be pulled.
#[derive(Debug, thiserror::Error)]
#[error("pull {reference}")]
pub struct PullError {
    reference: String,
    source: Cause,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("layer {digest}")]
    Unpack { digest: Digest, source: UnpackError },
    #[error("make layer directory")]
    Stage(#[source] rustix::io::Errno),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the store is shutting down")]
    ShuttingDown,
}

impl PullError {
    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        match &self.source {
            Cause::Registry(error) => error.kind(),
            Cause::Manifest(_) => Kind::InvalidArgument,
            Cause::Unpack { source, .. } => source.kind(),
            Cause::Stage(_) | Cause::Store(_) | Cause::ShuttingDown => Kind::Internal,
        }
    }
}

impl Store {
    /// Pulls `reference` from its registry or the mirrors that `config_directory` names for it.
    pub async fn pull(
        &self,
        reference: &Reference,
        auth: Option<&Auth>,
        config_directory: &Path,
    ) -> Result<Arc<Image>, PullError> {
        pull(&self.inner, reference, auth, config_directory)
            .await
            .map_err(|source| PullError {
                reference: reference.to_string(),
                source,
            })
    }
}

async fn pull(
    inner: &Arc<Inner>,
    reference: &Reference,
    auth: Option<&Auth>,
    config_directory: &Path,
) -> Result<Arc<Image>, Cause> {
    let options = &inner.options;
    let repository = Arc::new(Repository::open(reference, auth, config_directory)?);
    if let Some(image) = unchanged(inner, &repository, reference).await? {
        return Ok(image);
    }
    let (bytes, digest) = repository
        .manifest(reference.target(), options.limits.manifest_bytes)
        .await?;
    let manifest = image_manifest(inner, &repository, bytes).await?;
    let config = match inner.config(&manifest.config.digest) {
        Some(config) => config,
        None => {
            repository
                .small_blob(&manifest.config, options.limits.config_bytes)
                .await?
        }
    };
    let plans = manifest.plan(Configuration::read(&config, &options.platform)?.diff_ids()?)?;
    let layers = fetch_layers(inner, &repository, plans).await?;
    let draft = Draft {
        id: manifest.config.digest,
        config,
        tags: reference
            .tag()
            .map(|_| reference.to_string())
            .into_iter()
            .collect(),
        digests: BTreeSet::from([format!("{}@{digest}", reference.name())]),
        layers,
    };
    Ok(inner.commit(draft).await?)
}

/// The image that the reference stands for, when the store has it already: one HEAD says so, and nothing is fetched. Registries
/// count fetched manifests. A store that has nothing of the repository does not ask.
async fn unchanged(
    inner: &Arc<Inner>,
    repository: &Repository,
    reference: &Reference,
) -> Result<Option<Arc<Image>>, Cause> {
    let name = format!("{}@", reference.name());
    let known = |image: &Arc<Image>| image.repo_digests.iter().any(|digest| digest.starts_with(&name));
    if !inner.state().images.values().any(known) {
        return Ok(None);
    }
    let Some(digest) = repository.resolve(reference.target()).await else {
        return Ok(None);
    };
    let wanted = reference.digest().unwrap_or(&digest);
    if *wanted != digest {
        return Ok(None);
    }
    let tag = reference.tag().map(|_| reference.to_string());
    Ok(inner.name(format!("{name}{digest}"), tag).await?)
}

/// Follows indexes to the manifest for this machine.
async fn image_manifest(
    inner: &Inner,
    repository: &Repository,
    mut bytes: Vec<u8>,
) -> Result<Manifest, Cause> {
    for _ in 0..=INDEX_DEPTH_MAX {
        let entries = match manifest::parse(&bytes)? {
            Document::Manifest(manifest) => {
                manifest.check()?;
                return Ok(manifest);
            }
            Document::Index(entries) => entries,
        };
        let chosen = manifest::choose(&entries, &inner.options.platform)?;
        let limit = inner
            .options
            .limits
            .manifest_bytes
            .min(chosen.size.unwrap_or(u64::MAX));
        (bytes, _) = repository.manifest(chosen.digest.as_str(), limit).await?;
    }
    Err(ManifestError::Nested(INDEX_DEPTH_MAX).into())
}

async fn fetch_layers(
    inner: &Arc<Inner>,
    repository: &Arc<Repository>,
    plans: Vec<LayerPlan>,
) -> Result<Vec<Layer>, Cause> {
    let limit = inner.options.limits.blob_bytes;
    let size = |plan: &LayerPlan| plan.blob.size.unwrap_or(0);
    if let Some(large) = plans.iter().find(|plan| size(plan) > limit) {
        let (digest, size) = (large.blob.digest.clone(), size(large));
        return Err(RegistryError::BlobTooLarge { digest, size, limit }.into());
    }
    let mut layers: Vec<Option<Layer>> = plans.iter().map(|_| None).collect();
    let group = Group::new(inner);
    let mut tasks = JoinSet::new();
    for (index, plan) in plans.into_iter().enumerate() {
        let (inner, repository) = (Arc::clone(inner), Arc::clone(repository));
        let member = group.member();
        tasks.spawn(async move {
            let layer = fetch_layer(&inner, &repository, plan).await;
            (index, layer, member) // in this order: the member says that the layer is gone
        });
    }
    // The first failure drops the set, which aborts the others.
    while let Some(joined) = tasks.join_next().await {
        let (index, layer, _) = joined.map_err(|_| Cause::ShuttingDown)?;
        let layer = layer?;
        if let Some(slot) = layers.get_mut(index) {
            *slot = Some(layer);
        }
    }
    Ok(layers.into_iter().flatten().collect())
}

async fn fetch_layer(inner: &Arc<Inner>, repository: &Repository, plan: LayerPlan) -> Result<Layer, Cause> {
    let vacancy = match inner.claim(&plan).await {
        Claim::Ready(layer) => return Ok(layer),
        Claim::Vacant(vacancy) => vacancy,
    };
    let permit = Arc::clone(&inner.unpackers)
        .acquire_owned()
        .await
        .map_err(|_| Cause::ShuttingDown)?;
    let staged = vacancy.stage().map_err(Cause::Stage)?;
    let (sink, chunks) = mpsc::channel(QUEUE);
    let unpacking = start_unpacking(&staged, ChannelReader::new(chunks));
    let fetched = repository
        .blob(&plan.blob, inner.options.limits.blob_bytes, sink)
        .await;
    let unpacked = unpacking.finish().await.ok_or(Cause::ShuttingDown)?;
    drop(permit);
    match fetched {
        // The unpacker refused; or it failed only because the download did.
        Ok(()) | Err(RegistryError::Unwanted) => {
            let digest = plan.blob.digest;
            unpacked.map_err(|source| Cause::Unpack { digest, source })?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(vacancy.fill(staged))
}
