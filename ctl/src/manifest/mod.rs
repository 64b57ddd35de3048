//! A Kubernetes Pod manifest, read strictly: every field is understood, or refused by its path and line.
//!
//! ```text
//! text -> yaml (tree with lines) -> field (typed reading) -> Pod and its parts (here) -> crate::plan -> CRI requests
//! ```
//!
//! Field meanings and limits are those of the Kubernetes API reference, Pod v1 core.

mod container;
mod env;
mod field;
mod metadata;
mod pod;
mod quantity;
mod security_context;
mod volume;
mod yaml;

use thiserror::Error;

pub(crate) use container::{Container, ImagePullPolicy, Port, Protocol, Resources};
pub(crate) use env::{EnvSource, EnvVar, PodField, expand};
pub(crate) use metadata::Metadata;
pub(crate) use pod::{DnsConfig, DnsPolicy, Pod, RestartPolicy};
pub(crate) use security_context::SeccompProfile;
pub(crate) use volume::{HostPathType, MountPropagation, Volume, VolumeMount, VolumeSource};

use field::{Field, FieldError};
use yaml::YamlError;

/// Why a manifest is not played; begins with the line.
#[derive(Debug, Error)]
pub(crate) enum ManifestError {
    #[error(transparent)]
    Yaml(#[from] YamlError),
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("it has no pod")]
    Empty,
    #[error("it has pod {name:?} of namespace {namespace:?} twice")]
    SamePod { name: String, namespace: String },
}

/// Every pod of the file, in its order; empty documents are skipped.
pub(crate) fn parse(text: &str) -> Result<Vec<Pod>, ManifestError> {
    let mut pods: Vec<Pod> = Vec::new();
    for document in yaml::documents(text)?
        .iter()
        .filter(|document| !document.is_null())
    {
        let pod = Pod::read(&Field::document(document))?;
        let same = |other: &&Pod| {
            other.metadata.name == pod.metadata.name && other.metadata.namespace == pod.metadata.namespace
        };
        if pods.iter().find(same).is_some() {
            let Metadata { name, namespace, .. } = pod.metadata;
            return Err(ManifestError::SamePod { name, namespace });
        }
        pods.push(pod);
    }
    if pods.is_empty() {
        Err(ManifestError::Empty)
    } else {
        Ok(pods)
    }
}

#[cfg(test)]
mod tests;
