//! An image as the kubelet sees it.

use std::collections::HashMap;

use crate::configuration::Configuration;
use crate::layer::RootAttributes;

/// Name of a layer's directory in the layer store: a short decimal number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct LayerNumber(pub(crate) u32);

impl std::fmt::Display for LayerNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A pulled or imported image, complete on disk.
#[derive(Clone, Debug)]
pub struct Image {
    /// Digest of the image configuration, `sha256:...`: the same whatever registry it came from.
    pub id: String,
    /// Normalised names with tag.
    pub repo_tags: Vec<String>,
    /// Normalised names with the digest of the manifest or index they were pulled by.
    pub repo_digests: Vec<String>,
    /// Disk space in bytes, never 0.
    pub size: u64,
    /// The image configuration.
    pub config: Configuration,
    /// Mode and owner of `/`.
    pub root: RootAttributes,
    /// Bottom first.
    pub layers: Vec<LayerNumber>,
}

/// The user an image wants to run as, as CRI reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageUser {
    /// A number; 0 when the image says nothing.
    Uid(u32),
    /// A name, to be looked up in the image.
    Name(String),
}

impl Image {
    /// ENTRYPOINT.
    pub fn entrypoint(&self) -> &[String] {
        &self.config.config.entrypoint
    }

    /// CMD.
    pub fn cmd(&self) -> &[String] {
        &self.config.config.cmd
    }

    /// ENV, `NAME=VALUE` each.
    pub fn env(&self) -> &[String] {
        &self.config.config.env
    }

    /// USER as written, empty when there is none.
    pub fn user(&self) -> &str {
        &self.config.config.user
    }

    /// WORKDIR, empty when there is none.
    pub fn working_dir(&self) -> &str {
        &self.config.config.working_dir
    }

    /// STOPSIGNAL.
    pub fn stop_signal(&self) -> Option<&str> {
        Some(self.config.config.stop_signal.as_str()).filter(|signal| !signal.is_empty())
    }

    /// VOLUME paths, sorted.
    pub fn volumes(&self) -> Vec<String> {
        self.config.config.volumes.keys().cloned().collect()
    }

    /// LABEL.
    pub fn labels(&self) -> HashMap<String, String> {
        self.config.config.labels.clone().into_iter().collect()
    }

    /// The user part of USER.
    pub fn user_spec(&self) -> ImageUser {
        let user = self.user().split(':').next().unwrap_or_default();
        match user.parse() {
            Ok(uid) => ImageUser::Uid(uid),
            Err(_) if user.is_empty() => ImageUser::Uid(0),
            Err(_) => ImageUser::Name(user.to_owned()),
        }
    }
}
