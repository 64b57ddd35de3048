//! Builds images for the tests: layer archives entry by entry, OCI layouts, archives of them.
#![allow(dead_code, unreachable_pub)] // each test program uses a part

pub mod http;
pub mod registry;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde_json::json;

/// A layer archive.
pub struct Layer(tar::Builder<Vec<u8>>);

impl Default for Layer {
    fn default() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }
}

impl Layer {
    pub fn directory(self, name: &str, mode: u32) -> Self {
        self.entry(name, tar::EntryType::Directory, mode, b"", "")
    }

    pub fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(name, tar::EntryType::Regular, 0o644, content, "")
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name, tar::EntryType::Symlink, 0o777, b"", target)
    }

    pub fn link(self, name: &str, target: &str) -> Self {
        self.entry(name, tar::EntryType::Link, 0o644, b"", target)
    }

    pub fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    pub fn entry(self, name: &str, kind: tar::EntryType, mode: u32, content: &[u8], link: &str) -> Self {
        self.raw(name, kind, content, |header| {
            header.set_mode(mode);
            header.set_mtime(1_700_000_000);
            if !link.is_empty() {
                header.set_link_name_literal(link).unwrap();
            }
        })
    }

    /// Writes the name as it is, however hostile.
    pub fn raw(
        mut self,
        name: &str,
        kind: tar::EntryType,
        content: &[u8],
        adjust: impl FnOnce(&mut tar::Header),
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mode(0o644);
        header.set_mtime(0);
        adjust(&mut header);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub fn tar(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// How a layer's blob is stored.
#[derive(Clone, Copy)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

pub fn compress(tar: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => tar.to_vec(),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(tar).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => zstd::encode_all(tar, 1).unwrap(),
    }
}

pub fn digest(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(bytes);
    let hex: String = hash.iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

/// An image in memory.
pub struct Built {
    /// By digest.
    pub blobs: BTreeMap<String, Vec<u8>>,
    pub config: String,
    pub manifest: String,
    pub layers: Vec<String>,
}

/// Builds an image of the given layer archives (bottom first).
pub fn image(layers: &[(Vec<u8>, Compression)], process: serde_json::Value) -> Built {
    let mut blobs = BTreeMap::new();
    let mut add = |bytes: Vec<u8>| {
        let name = digest(&bytes);
        let size = bytes.len();
        blobs.insert(name.clone(), bytes);
        (name, size)
    };
    let mut descriptors = Vec::new();
    let mut names = Vec::new();
    for (tar, compression) in layers {
        let suffix = match compression {
            Compression::None => "",
            Compression::Gzip => "+gzip",
            Compression::Zstd => "+zstd",
        };
        let (name, size) = add(compress(tar, *compression));
        names.push(name.clone());
        let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
        descriptors.push(json!({ "mediaType": media_type, "digest": name, "size": size }));
    }
    let diff_ids: Vec<String> = layers.iter().map(|(tar, _)| digest(tar)).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": process,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let (config, config_size) = add(serde_json::to_vec(&config).unwrap());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size },
        "layers": descriptors,
    });
    let (manifest, _) = add(serde_json::to_vec(&manifest).unwrap());
    Built {
        blobs,
        config,
        manifest,
        layers: names,
    }
}

impl Built {
    /// Its index.json.
    pub fn index(&self, name: Option<&str>) -> Vec<u8> {
        let annotations = name.map_or_else(
            || json!({}),
            |name| json!({ "org.opencontainers.image.ref.name": name }),
        );
        serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": self.manifest,
                "size": self.blobs[&self.manifest].len(), "annotations": annotations,
            }],
        }))
        .unwrap()
    }

    /// An OCI archive; index.json comes last, as some writers put it.
    pub fn archive(&self, name: Option<&str>) -> Vec<u8> {
        let mut archive = Layer::default();
        for (digest, blob) in &self.blobs {
            archive = archive.file(&format!("blobs/{}", digest.replace(':', "/")), blob);
        }
        archive = archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        archive.file("index.json", &self.index(name)).tar()
    }

    /// The archive of `docker save`.
    pub fn docker_archive(&self, tags: &[&str], tars: &[Vec<u8>]) -> Vec<u8> {
        let files: Vec<String> = (0..tars.len()).map(|at| format!("{at}/layer.tar")).collect();
        let manifest = json!([{ "Config": "config.json", "RepoTags": tags, "Layers": files }]);
        let mut archive = Layer::default().file("manifest.json", &serde_json::to_vec(&manifest).unwrap());
        archive = archive.file("config.json", &self.blobs[&self.config]);
        for (file, tar) in files.iter().zip(tars) {
            archive = archive.file(file, tar);
        }
        archive.tar()
    }

    /// Writes an OCI layout, for skopeo.
    pub fn write_layout(&self, directory: &Path, name: Option<&str>) {
        std::fs::create_dir_all(directory.join("blobs/sha256")).unwrap();
        for (digest, blob) in &self.blobs {
            std::fs::write(directory.join("blobs").join(digest.replace(':', "/")), blob).unwrap();
        }
        std::fs::write(directory.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        std::fs::write(directory.join("index.json"), self.index(name)).unwrap();
    }
}

/// What is told of an error: itself and its causes.
pub fn told(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| (*error).source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Names in a directory.
pub fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
