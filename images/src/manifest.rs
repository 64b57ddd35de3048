//! Manifests and indexes of the OCI image spec and docker's schema 2, turned into a checked plan.

use oci_spec::image::ImageConfiguration;
use serde::Deserialize;

use crate::digest::{Digest, DigestError};
use crate::platform::Platform;

pub(crate) const MANIFEST_TYPES: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const CONFIG_TYPES: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];

/// The kernel stacks at most this many overlay layers (OVL_MAX_STACK).
const LAYERS_MAX: usize = 500;

/// What is wrong with a manifest, an index or an image configuration.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or a field has the wrong type.
    #[error("{what} is malformed")]
    Parse {
        /// Which document.
        what: &'static str,
        /// The parser's words.
        source: serde_json::Error,
    },
    /// Docker's schema 1, which nothing makes any more.
    #[error(
        "manifest has schemaVersion 1, which is not supported (push the image again with a current client)"
    )]
    Schema1,
    /// Any other schema version.
    #[error("manifest has schemaVersion {0}, want 2")]
    SchemaVersion(u64),
    /// Could be read as a manifest and as an index (CVE-2021-41190).
    #[error("manifest has both layers and manifests")]
    Ambiguous,
    /// Neither config and layers nor manifests.
    #[error("manifest has neither config and layers nor manifests")]
    Unknown,
    /// No entry of the index fits this machine.
    #[error("no image for platform {wanted} (there are: {present})")]
    NoPlatform {
        /// This machine's platform.
        wanted: String,
        /// The platforms of the index.
        present: String,
    },
    /// Indexes nested too deep.
    #[error("indexes are nested more than {0} deep")]
    Nested(usize),
    /// An artifact (a chart, a signature), not a container image.
    #[error("not a container image: config.mediaType is {0:?}")]
    NotAnImage(String),
    /// A layer of a kind that cannot be unpacked.
    #[error("layers[{index}].mediaType {media_type:?} is not supported")]
    LayerType {
        /// Position in the manifest.
        index: usize,
        /// The type found.
        media_type: String,
    },
    /// The configuration lists another number of layers.
    #[error("manifest has {layers} layers, config rootfs.diff_ids has {diff_ids}")]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
    /// More layers than the kernel can stack.
    #[error("image has {0} layers, the kernel stacks at most {LAYERS_MAX}")]
    TooManyLayers(usize),
    /// A diff_id is not a digest.
    #[error("config rootfs.diff_ids")]
    DiffId(#[from] DigestError),
    /// The image is for another platform.
    #[error("image is for {image}, this machine is {wanted}")]
    WrongPlatform {
        /// From the configuration.
        image: String,
        /// This machine.
        wanted: String,
    },
}

/// Points to a blob (OCI image spec, descriptor.md).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
    #[serde(default)]
    pub(crate) annotations: Option<std::collections::BTreeMap<String, String>>,
}

/// A parsed manifest: one image, or a choice.
#[derive(Debug)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    schema_version: u64,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

/// Parses a manifest or an index.
pub(crate) fn parse(bytes: &[u8]) -> Result<Document, ManifestError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        #[serde(default)]
        schema_version: u64,
    }
    let malformed = |source| ManifestError::Parse {
        what: "manifest",
        source,
    };
    match serde_json::from_slice::<Version>(bytes)
        .map_err(malformed)?
        .schema_version
    {
        1 => return Err(ManifestError::Schema1),
        2 => {}
        other => return Err(ManifestError::SchemaVersion(other)),
    }
    let raw: Raw = serde_json::from_slice(bytes).map_err(malformed)?;
    debug_assert_eq!(raw.schema_version, 2);
    match (raw.config, raw.layers, raw.manifests) {
        (_, Some(_), Some(_)) | (Some(_), _, Some(_)) => Err(ManifestError::Ambiguous),
        (Some(config), Some(layers), None) => Ok(Document::Manifest(Manifest { config, layers })),
        (None, None, Some(manifests)) => Ok(Document::Index(manifests)),
        _ => Err(ManifestError::Unknown),
    }
}

/// The entry of an index that fits `platform` best; entries without a platform only when nothing else fits.
pub(crate) fn choose<'a>(
    entries: &'a [Descriptor],
    platform: &Platform,
) -> Result<&'a Descriptor, ManifestError> {
    let rank = |entry: &Descriptor| match &entry.platform {
        Some(theirs) => platform.rank(theirs),
        None => MANIFEST_TYPES.contains(&entry.media_type.as_str()).then_some(0),
    };
    let mut best: Option<(u32, &Descriptor)> = None;
    for entry in entries {
        // The first of equals wins, as the spec asks.
        if let Some(rank) = rank(entry)
            && best.is_none_or(|(b, _)| rank > b)
        {
            best = Some((rank, entry));
        }
    }
    best.map(|(_, entry)| entry)
        .ok_or_else(|| ManifestError::NoPlatform {
            wanted: platform.to_string(),
            present: entries
                .iter()
                .filter_map(|entry| entry.platform.as_ref())
                .map(Platform::to_string)
                .collect::<Vec<_>>()
                .join(", "),
        })
}

/// A layer as the manifest and the configuration together describe it.
#[derive(Clone, Debug)]
pub(crate) struct LayerPlan {
    pub(crate) blob: Descriptor,
    pub(crate) diff_id: Digest,
    /// Digest over this layer's and all lower diff_ids: identifies the layer together with what lies below.
    pub(crate) chain_id: Digest,
}

impl Manifest {
    /// Refuses what is not a container image before anything of it is fetched.
    pub(crate) fn check(&self) -> Result<(), ManifestError> {
        // Some old builders wrote octet-stream; the parse of the configuration decides then.
        let kind = self.config.media_type.as_str();
        if !CONFIG_TYPES.contains(&kind) && !matches!(kind, "" | "application/octet-stream") {
            return Err(ManifestError::NotAnImage(kind.to_owned()));
        }
        if self.layers.len() > LAYERS_MAX {
            return Err(ManifestError::TooManyLayers(self.layers.len()));
        }
        match self
            .layers
            .iter()
            .position(|layer| !unpackable(&layer.media_type))
        {
            Some(index) => Err(ManifestError::LayerType {
                index,
                media_type: self
                    .layers
                    .get(index)
                    .map_or_else(String::new, |l| l.media_type.clone()),
            }),
            None => Ok(()),
        }
    }

    /// Joins the layers with the configuration's diff_ids.
    pub(crate) fn plan(&self, config: &ImageConfiguration) -> Result<Vec<LayerPlan>, ManifestError> {
        let diff_ids = diff_ids(config)?;
        if diff_ids.len() != self.layers.len() {
            return Err(ManifestError::LayerCount {
                layers: self.layers.len(),
                diff_ids: diff_ids.len(),
            });
        }
        let chain_ids = chain_ids(&diff_ids);
        let pairs = self.layers.iter().cloned().zip(diff_ids).zip(chain_ids);
        Ok(pairs
            .map(|((blob, diff_id), chain_id)| LayerPlan {
                blob,
                diff_id,
                chain_id,
            })
            .collect())
    }
}

/// Encrypted, foreign ("non-distributable") and unknown layers cannot be unpacked. The compression itself is read from the data.
fn unpackable(media_type: &str) -> bool {
    matches!(
        media_type,
        "" | "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
    )
}

/// Parses the image configuration and checks its platform.
pub(crate) fn parse_config(bytes: &[u8], platform: &Platform) -> Result<ImageConfiguration, ManifestError> {
    let config: ImageConfiguration =
        serde_json::from_slice(bytes).map_err(|source| ManifestError::Parse {
            what: "image configuration",
            source,
        })?;
    let (os, architecture) = (config.os().to_string(), config.architecture().to_string());
    // The variant is not compared: the index chose by it, and many images of one variant leave it out or overstate it.
    if os != platform.os || architecture != platform.architecture {
        return Err(ManifestError::WrongPlatform {
            image: format!("{os}/{architecture}"),
            wanted: platform.to_string(),
        });
    }
    Ok(config)
}

/// The uncompressed digests of the layers, bottom first.
pub(crate) fn diff_ids(config: &ImageConfiguration) -> Result<Vec<Digest>, ManifestError> {
    Ok(config
        .rootfs()
        .diff_ids()
        .iter()
        .map(|id| Digest::parse(id))
        .collect::<Result<Vec<_>, _>>()?)
}

/// OCI image spec, config.md, "Layer ChainID".
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
            None => diff_id.clone(),
        });
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::chain;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn malformed_manifests_are_refused_by_name() {
        let blob = format!(r#"{{"digest":"{D}","size":1}}"#);
        let cases = [
            ("{".to_owned(), "malformed"),
            (
                r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(),
                "schemaVersion 1",
            ),
            (r#"{"schemaVersion":3}"#.to_owned(), "schemaVersion 3"),
            (r#"{"schemaVersion":2}"#.to_owned(), "neither"),
            (
                format!(r#"{{"schemaVersion":2,"config":{blob},"layers":[],"manifests":[]}}"#),
                "both",
            ),
            (
                r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:xy","size":1}]}"#.to_owned(),
                "hexadecimal",
            ),
            (
                format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{D}","size":-1}}]}}"#),
                "malformed",
            ),
            (
                format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{D}"}}]}}"#),
                "size",
            ),
        ];
        for (text, want) in cases {
            let error = chain(&parse(text.as_bytes()).unwrap_err());
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn artifacts_and_foreign_layers_are_refused() {
        let manifest = |config: &str, layer: &str| {
            let text = format!(
                r#"{{"schemaVersion":2,"config":{{"mediaType":"{config}","digest":"{D}","size":2}},
                    "layers":[{{"mediaType":"{layer}","digest":"{D}","size":1}}]}}"#
            );
            match parse(text.as_bytes()).unwrap() {
                Document::Manifest(manifest) => manifest.check(),
                Document::Index(_) => unreachable!(),
            }
        };
        let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
        manifest(CONFIG_TYPES[0], gzip).unwrap();
        let error = manifest("application/vnd.cncf.helm.config.v1+json", gzip)
            .unwrap_err()
            .to_string();
        assert!(error.contains("helm"), "{error}");
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        let error = manifest(CONFIG_TYPES[1], foreign).unwrap_err().to_string();
        assert!(error.contains("layers[0].mediaType"), "{error}");
    }

    #[test]
    fn the_index_entry_of_this_platform_is_chosen() {
        let entry = |os: &str, arch: &str| {
            let text = format!(
                r#"{{"mediaType":"{}","digest":"{D}","size":1,"platform":{{"os":"{os}","architecture":"{arch}"}}}}"#,
                MANIFEST_TYPES[0]
            );
            serde_json::from_str::<Descriptor>(&text).unwrap()
        };
        let wanted = Platform {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            variant: String::new(),
        };
        let entries = [
            entry("unknown", "unknown"),
            entry("linux", "arm64"),
            entry("linux", "amd64"),
        ];
        let chosen = choose(&entries, &wanted).unwrap();
        assert_eq!(chosen.platform.as_ref().unwrap().architecture, "amd64");
        let error = choose(&entries[..2], &wanted).unwrap_err().to_string();
        assert!(
            error.contains("linux/amd64") && error.contains("linux/arm64"),
            "{error}"
        );
    }
}
