//! Manifests and indexes of the OCI image spec and docker's schema 2, turned into a checked plan.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::chain::chain;
use crate::digest::{Digest, DigestError};
use crate::form::Form;
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
    /// JSON, but no object.
    #[error("{0} is not an object")]
    NoObject(&'static str),
    /// A descriptor does not say what it points to.
    #[error("{0}.digest is missing")]
    NoDigest(&'static str),
    /// A descriptor's digest cannot be used.
    #[error("{what}.digest")]
    BadDigest {
        /// Which descriptor.
        what: &'static str,
        /// What is wrong with it.
        source: DigestError,
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
#[derive(Clone, Debug)]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    /// `None` when it is not told: the digest alone says then what comes.
    pub(crate) size: Option<u64>,
    pub(crate) platform: Option<Platform>,
    /// Where else it may be found.
    pub(crate) urls: Vec<String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Descriptor {
    fn read(what: &'static str, value: &Value) -> Result<Self, ManifestError> {
        let form = Form::of(what, value).ok_or(ManifestError::NoObject(what))?;
        let digest = form.text("digest").ok_or(ManifestError::NoDigest(what))?;
        let digest = Digest::parse(&digest).map_err(|source| ManifestError::BadDigest { what, source })?;
        let platform = form.inner("platform", "platform").map(|form| {
            let text = |key| form.text(key).unwrap_or_default();
            Platform::normal(&text("os"), &text("architecture"), &text("variant"))
        });
        Ok(Self {
            media_type: form.text("mediaType").unwrap_or_default(),
            digest,
            size: form.number("size").filter(|size| *size > 0),
            // An empty one says as little as none.
            platform: platform
                .filter(|platform| !(platform.os.is_empty() && platform.architecture.is_empty())),
            urls: form.texts("urls").unwrap_or_default(),
            annotations: form
                .pairs("annotations")
                .unwrap_or_default()
                .into_iter()
                .collect(),
        })
    }

    /// Whether it may be a manifest or an index.
    fn is_document(&self) -> bool {
        self.media_type.is_empty() || MANIFEST_TYPES.contains(&self.media_type.as_str())
    }
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

/// Parses a manifest or an index.
pub(crate) fn parse(bytes: &[u8]) -> Result<Document, ManifestError> {
    let malformed = |source| ManifestError::Parse {
        what: "manifest",
        source,
    };
    let value: Value = serde_json::from_slice(bytes).map_err(malformed)?;
    let form = Form::of("manifest", &value).ok_or(ManifestError::NoObject("manifest"))?;
    let (config, layers, manifests) = (form.get("config"), form.list("layers"), form.list("manifests"));
    match form.number("schemaVersion") {
        Some(1) => return Err(ManifestError::Schema1),
        // Who leaves it out means the only one there is.
        None | Some(0 | 2) => {}
        Some(other) => return Err(ManifestError::SchemaVersion(other)),
    }
    match (config, layers, manifests) {
        (_, Some(_), Some(_)) | (Some(_), _, Some(_)) => Err(ManifestError::Ambiguous),
        (Some(config), layers, None) => {
            let layers = layers.unwrap_or_default().iter();
            Ok(Document::Manifest(Manifest {
                config: Descriptor::read("config", config)?,
                layers: layers
                    .map(|layer| Descriptor::read("layers[]", layer))
                    .collect::<Result<_, _>>()?,
            }))
        }
        (None, None, Some(manifests)) => Ok(Document::Index(manifests.iter().filter_map(entry).collect())),
        (None, Some(_), None) | (None, None, None) => Err(ManifestError::Unknown),
    }
}

/// An entry of an index; one that cannot be read spoils no other.
fn entry(value: &Value) -> Option<Descriptor> {
    Descriptor::read("manifests[]", value)
        .inspect_err(|error| tracing::warn!(error = chain(error), "an entry of an index is not read"))
        .ok()
}

/// The entry of an index that fits `platform` best; entries without a platform only when nothing else fits.
pub(crate) fn choose<'a>(
    entries: &'a [Descriptor],
    platform: &Platform,
) -> Result<&'a Descriptor, ManifestError> {
    let rank = |entry: &Descriptor| match &entry.platform {
        _ if !entry.is_document() => None,
        Some(theirs) => platform.rank(theirs),
        None => Some(0),
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
    pub(crate) fn plan(&self, diff_ids: Vec<Digest>) -> Result<Vec<LayerPlan>, ManifestError> {
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

/// Encrypted and unknown layers cannot be unpacked; those that registries need not keep ("foreign") can, where one has them. The compression itself is read from the data.
fn unpackable(media_type: &str) -> bool {
    matches!(
        media_type,
        "" | "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.zstd"
    )
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
            ("[]".to_owned(), "not an object"),
            (
                format!(r#"{{"schemaVersion":2,"config":{blob},"layers":[],"manifests":[]}}"#),
                "both",
            ),
            (
                format!(r#"{{"schemaVersion":2,"config":{{"digest":"sha256:xy"}},"layers":[{blob}]}}"#),
                "hexadecimal",
            ),
            (
                format!(r#"{{"schemaVersion":2,"config":{blob},"layers":[{{"size":1}}]}}"#),
                "layers[].digest is missing",
            ),
        ];
        for (text, want) in cases {
            let error = chain(&parse(text.as_bytes()).unwrap_err());
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn artifacts_and_encrypted_layers_are_refused() {
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
        manifest(CONFIG_TYPES[1], foreign).unwrap();
        let error = manifest(CONFIG_TYPES[1], &format!("{gzip}+encrypted"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("layers[0].mediaType"), "{error}");
    }

    #[test]
    fn the_index_entry_of_this_platform_is_chosen() {
        let entry = |os: &str, arch: &str| {
            let text = format!(
                r#"{{"mediaType":"{}","digest":"{D}","size":1,"platform":{{"os":"{os}","architecture":"{arch}"}}}}"#,
                MANIFEST_TYPES[0]
            );
            Descriptor::read("entry", &serde_json::from_str(&text).unwrap()).unwrap()
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
