//! The OCI image layout (OCI image spec, image-layout.md) in an archive.

use std::collections::{BTreeMap, BTreeSet};

use super::spool::Spool;
use super::{Candidate, ImportError, docker, document};
use crate::configuration::Configuration;
use crate::digest::Digest;
use crate::manifest::{self, Descriptor, Document, Manifest, ManifestError};
use crate::reference::Reference;
use crate::store::Options;

const INDEX_DEPTH_MAX: usize = 3;
/// The spec's annotation: a full name, or only a tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// containerd's and docker's annotation: always a full name.
const FULL_NAME: &str = "io.containerd.image.name";

/// The images of `index.json` that fit this machine, one per configuration, with all their names.
pub(super) fn candidates(
    spool: &Spool,
    name: Option<&Reference>,
    options: &Options,
) -> Result<Vec<Candidate>, ImportError> {
    let bytes = spool.read("index.json", options.limits.manifest_bytes)?;
    let Document::Index(entries) = parse("index.json", &bytes)? else {
        return Err(ImportError::NotAnImage);
    };
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut skipped = None;
    // docker save writes its own names beside the layout.
    let docker_names = docker::names(spool, options)?;
    for entry in &entries {
        let manifest = match image_of(spool, entry, options, 0) {
            // Other platforms, signatures and the like may lie beside the image.
            Err(ImportError::Image(
                error @ (ManifestError::NoPlatform { .. } | ManifestError::NotAnImage(_)),
            )) => {
                skipped = Some(error);
                continue;
            }
            other => other?,
        };
        let mut candidate = match candidate(spool, &manifest, options) {
            Err(ImportError::Document {
                source: source @ ManifestError::WrongPlatform { .. },
                ..
            }) => {
                skipped = Some(source);
                continue;
            }
            other => other?,
        };
        name_it(&mut candidate, entry, name, &docker_names)?;
        match candidates.iter_mut().find(|known| known.id == candidate.id) {
            Some(known) => {
                known.tags.append(&mut candidate.tags);
                known.digests.append(&mut candidate.digests);
            }
            None => candidates.push(candidate),
        }
    }
    match skipped {
        Some(error) if candidates.is_empty() => Err(error.into()),
        _ if candidates.is_empty() => Err(ImportError::Empty("index.json")),
        _ => Ok(candidates),
    }
}

fn parse(file: &str, bytes: &[u8]) -> Result<Document, ImportError> {
    manifest::parse(bytes).map_err(|source| ImportError::Document {
        file: file.to_owned(),
        source,
    })
}

fn blob_file(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// Follows indexes to the manifest for this machine.
fn image_of(
    spool: &Spool,
    entry: &Descriptor,
    options: &Options,
    depth: usize,
) -> Result<Manifest, ImportError> {
    if depth > INDEX_DEPTH_MAX {
        return Err(ManifestError::Nested(INDEX_DEPTH_MAX).into());
    }
    // Also checks the platform an entry states, before its blob is missed: layouts may hold one platform of several.
    let entry = manifest::choose(std::slice::from_ref(entry), &options.platform)?;
    let file = blob_file(&entry.digest);
    let bytes = document(spool, &file, entry, options.limits.manifest_bytes)?;
    match parse(&file, &bytes)? {
        Document::Manifest(manifest) => manifest.check().map(|()| manifest).map_err(ImportError::Image),
        Document::Index(entries) => image_of(
            spool,
            manifest::choose(&entries, &options.platform)?,
            options,
            depth + 1,
        ),
    }
}

fn candidate(spool: &Spool, manifest: &Manifest, options: &Options) -> Result<Candidate, ImportError> {
    let file = blob_file(&manifest.config.digest);
    let config = document(spool, &file, &manifest.config, options.limits.config_bytes)?;
    let at_file = |source| ImportError::Document {
        file: file.clone(),
        source,
    };
    let parsed = Configuration::read(&config, &options.platform).map_err(at_file)?;
    let diff_ids = parsed.diff_ids().map_err(at_file)?;
    let plans = manifest.plan(diff_ids).map_err(at_file)?;
    let layers = plans
        .into_iter()
        .map(|plan| (plan.clone(), blob_file(&plan.blob.digest), true))
        .collect();
    Ok(Candidate {
        id: manifest.config.digest.clone(),
        config,
        tags: BTreeSet::new(),
        digests: BTreeSet::new(),
        layers,
    })
}

fn name_it(
    candidate: &mut Candidate,
    entry: &Descriptor,
    name: Option<&Reference>,
    docker_names: &BTreeMap<String, Vec<Reference>>,
) -> Result<(), ImportError> {
    let bad = |source| ImportError::Name {
        file: "index.json",
        source,
    };
    let annotation = |key| entry.annotations.get(key);
    let mut references = docker_names
        .get(candidate.id.as_str())
        .cloned()
        .unwrap_or_default();
    if let Some(full) = annotation(FULL_NAME) {
        references.push(Reference::parse(full).map_err(bad)?);
    } else if let Some(text) = annotation(REF_NAME) {
        match name {
            // A word alone is a tag; whose tag, only the caller can say.
            _ if text.contains(['/', ':']) => references.push(Reference::parse(text).map_err(bad)?),
            Some(name) => references.push(name.with_tag(text).map_err(bad)?),
            None => {}
        }
    }
    for reference in references {
        candidate
            .digests
            .insert(format!("{}@{}", reference.name(), entry.digest));
        if reference.tag().is_some() {
            candidate.tags.insert(reference.to_string());
        }
    }
    Ok(())
}
