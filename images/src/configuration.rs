//! An image's configuration (OCI image spec, config.md), as far as something here or a client reads it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::digest::Digest;
use crate::form::Form;
use crate::manifest::ManifestError;
use crate::platform::Platform;

/// The configuration of an image. Serialized as the specification has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Configuration {
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// As the image writes it; empty when it does not say.
    pub architecture: String,
    /// As the image writes it; empty when it does not say.
    pub os: String,
    /// What runs in a container of it.
    pub config: ProcessConfiguration,
    /// Its layers.
    pub rootfs: RootFilesystem,
    /// How it was made.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub history: Value,
}

/// The object `config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProcessConfiguration {
    /// User and group.
    pub user: String,
    /// Ports it listens on, as `80/tcp`.
    pub exposed_ports: BTreeMap<String, Empty>,
    /// Environment: `NAME=value`.
    pub env: Vec<String>,
    /// What is started.
    pub entrypoint: Vec<String>,
    /// Its arguments, or what is started without an entrypoint.
    pub cmd: Vec<String>,
    /// Paths that are kept apart from the root.
    pub volumes: BTreeMap<String, Empty>,
    /// Working directory.
    pub working_dir: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What stops it.
    pub stop_signal: String,
}

/// The specification's `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Empty {}

/// The object `rootfs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RootFilesystem {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Digests of the uncompressed layers, bottom first.
    pub diff_ids: Vec<String>,
}

impl Configuration {
    /// Reads the document and checks that it is for `platform`. One that does not say what it is for is taken for this machine's.
    pub(crate) fn read(bytes: &[u8], platform: &Platform) -> Result<Self, ManifestError> {
        let malformed = |source| ManifestError::Parse {
            what: "image configuration",
            source,
        };
        let value: Value = serde_json::from_slice(bytes).map_err(malformed)?;
        let Some(form) = Form::of("image configuration", &value) else {
            return Err(ManifestError::NoObject("image configuration"));
        };
        let rootfs = form.inner("rootfs", "image configuration, rootfs");
        let process = form.inner("config", "image configuration, config");
        let read = Self {
            created: form.text("created"),
            author: form.text("author"),
            architecture: form.text("architecture").unwrap_or_default(),
            os: form.text("os").unwrap_or_default(),
            config: process.map(process_configuration).unwrap_or_default(),
            rootfs: RootFilesystem {
                kind: "layers",
                diff_ids: rootfs.and_then(|form| form.texts("diff_ids")).unwrap_or_default(),
            },
            history: form.get("history").cloned().unwrap_or_default(),
        };
        read.check(platform)?;
        Ok(read)
    }

    /// The uncompressed digests of the layers, bottom first.
    pub(crate) fn diff_ids(&self) -> Result<Vec<Digest>, ManifestError> {
        let ids = self.rootfs.diff_ids.iter();
        Ok(ids.map(|id| Digest::parse(id)).collect::<Result<_, _>>()?)
    }

    /// The variant is not compared: the index chose by it, and many images of one variant leave it out or overstate it.
    fn check(&self, platform: &Platform) -> Result<(), ManifestError> {
        let own = Platform::normal(&self.os, &self.architecture, "");
        let fits = |own: &str, wanted: &str| own.is_empty() || own == wanted;
        if fits(&own.os, &platform.os) && fits(&own.architecture, &platform.architecture) {
            return Ok(());
        }
        Err(ManifestError::WrongPlatform {
            image: format!("{}/{}", self.os, self.architecture),
            wanted: platform.to_string(),
        })
    }
}

fn process_configuration(form: Form<'_>) -> ProcessConfiguration {
    let set = |key| {
        let keys = form.keys(key).unwrap_or_default();
        keys.into_iter().map(|key| (key, Empty {})).collect()
    };
    ProcessConfiguration {
        user: form.text("User").unwrap_or_default(),
        exposed_ports: set("ExposedPorts"),
        env: form.texts("Env").unwrap_or_default(),
        entrypoint: form.texts("Entrypoint").unwrap_or_default(),
        cmd: form.texts("Cmd").unwrap_or_default(),
        volumes: set("Volumes"),
        working_dir: form.text("WorkingDir").unwrap_or_default(),
        labels: form.pairs("Labels").unwrap_or_default().into_iter().collect(),
        stop_signal: form.text("StopSignal").unwrap_or_default(),
    }
}
