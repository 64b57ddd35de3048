//! The archive that `docker save` writes: manifest.json, image configurations, layer tars.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::spool::Spool;
use super::{Candidate, ImportError};
use crate::configuration::Configuration;
use crate::digest::Digest;
use crate::manifest::{self, Descriptor, LayerPlan, ManifestError};
use crate::reference::Reference;
use crate::store::Options;

const FILE: &str = "manifest.json";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// All images of `manifest.json`.
pub(super) fn candidates(spool: &Spool, options: &Options) -> Result<Vec<Candidate>, ImportError> {
    let entries = entries(spool, options)?;
    if entries.is_empty() {
        return Err(ImportError::Empty(FILE));
    }
    entries
        .iter()
        .map(|entry| candidate(spool, entry, options))
        .collect()
}

/// The names `manifest.json` gives, by image id; none without that file.
pub(super) fn names(
    spool: &Spool,
    options: &Options,
) -> Result<BTreeMap<String, Vec<Reference>>, ImportError> {
    let mut names = BTreeMap::new();
    if spool.has(FILE) {
        for entry in entries(spool, options)? {
            let config = spool.read(&entry.config, options.limits.config_bytes)?;
            names.insert(Digest::of(&config).to_string(), references(&entry)?);
        }
    }
    Ok(names)
}

fn entries(spool: &Spool, options: &Options) -> Result<Vec<Entry>, ImportError> {
    let bytes = spool.read(FILE, options.limits.manifest_bytes)?;
    serde_json::from_slice(&bytes).map_err(|source| ImportError::Document {
        file: FILE.to_owned(),
        source: ManifestError::Parse {
            what: "list of images",
            source,
        },
    })
}

fn references(entry: &Entry) -> Result<Vec<Reference>, ImportError> {
    let tags = entry.repo_tags.iter().flatten();
    tags.map(|tag| Reference::parse(tag))
        .collect::<Result<_, _>>()
        .map_err(|source| ImportError::Name { file: FILE, source })
}

fn candidate(spool: &Spool, entry: &Entry, options: &Options) -> Result<Candidate, ImportError> {
    let config = spool.read(&entry.config, options.limits.config_bytes)?;
    let at_file = |source| ImportError::Document {
        file: entry.config.clone(),
        source,
    };
    let parsed = Configuration::read(&config, &options.platform).map_err(at_file)?;
    let diff_ids = parsed.diff_ids().map_err(at_file)?;
    let layers = entry.layers.as_deref().unwrap_or_default();
    if diff_ids.len() != layers.len() {
        let count = ManifestError::LayerCount {
            layers: layers.len(),
            diff_ids: diff_ids.len(),
        };
        return Err(at_file(count));
    }
    let chain_ids = manifest::chain_ids(&diff_ids);
    let layers = layers.iter().zip(diff_ids).zip(chain_ids);
    let layers = layers.map(|((file, diff_id), chain_id)| {
        // No blob digest is recorded here; the diff_id is what is verified.
        let blob = Descriptor {
            media_type: String::new(),
            digest: diff_id.clone(),
            size: None,
            platform: None,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
        };
        (
            LayerPlan {
                blob,
                diff_id,
                chain_id,
            },
            file.clone(),
            false,
        )
    });
    Ok(Candidate {
        id: Digest::of(&config),
        tags: references(entry)?
            .iter()
            .map(Reference::to_string)
            .collect::<BTreeSet<_>>(),
        digests: BTreeSet::new(),
        layers: layers.collect(),
        config,
    })
}
