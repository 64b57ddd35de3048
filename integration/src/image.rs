//! OCI image archives for the demo and the tests, made from files at hand: no registry, no network, no other tool.
//!
//! The archive is a tar of an OCI image layout (image-spec 1.1, image-layout.md): `oci-layout`, `index.json` and
//! `blobs/sha256/*`. Everything that could vary (times, owners, order) is fixed, so the same input gives the same bytes.

use std::collections::BTreeMap;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// An image to be: its layers, bottom first, and what its configuration says.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// The name it gets when imported, with a tag: `localhost/coracle/payload:1`.
    pub name: String,
    /// Bottom first.
    pub layers: Vec<Layer>,
    /// `Entrypoint` of the configuration.
    pub entrypoint: Vec<String>,
    /// `Cmd` of the configuration.
    pub cmd: Vec<String>,
    /// `NAME=VALUE` each.
    pub env: Vec<String>,
    /// `User`: name or number, with `:GROUP` or without.
    pub user: String,
    /// `WorkingDir`.
    pub working_dir: String,
    /// `StopSignal`.
    pub stop_signal: String,
    /// `Volumes`.
    pub volumes: Vec<String>,
    /// Layers as gzip instead of plain tar.
    pub gzip: bool,
}

/// One layer.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    /// In the order they stand in the tar.
    pub entries: Vec<Entry>,
}

/// One entry of a layer's tar.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Without a leading slash.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// What it is.
    pub kind: Kind,
}

/// What an [`Entry`] is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file with this content.
    File(Vec<u8>),
    /// A symbolic link to this target.
    Symlink(String),
    /// A hard link to this path of the same layer.
    Hardlink(String),
}

impl Layer {
    /// Adds a directory of root's.
    #[must_use]
    pub fn directory(self, path: &str, mode: u32) -> Layer {
        self.with(path, mode, Kind::Directory)
    }

    /// Adds a file of root's.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Layer {
        self.with(path, mode, Kind::File(content.into()))
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Layer {
        self.with(path, 0o777, Kind::Symlink(target.to_owned()))
    }

    /// Adds a hard link to a path of the same layer.
    #[must_use]
    pub fn hard_link(self, path: &str, target: &str) -> Layer {
        self.with(path, 0o755, Kind::Hardlink(target.to_owned()))
    }

    /// Gives what was added last to this user and group.
    #[must_use]
    pub fn owned_by(mut self, uid: u64, gid: u64) -> Layer {
        if let Some(last) = self.entries.last_mut() {
            (last.uid, last.gid) = (uid, gid);
        }
        self
    }

    fn with(mut self, path: &str, mode: u32, kind: Kind) -> Layer {
        let path = path.trim_start_matches('/').to_owned();
        self.entries.push(Entry {
            path,
            mode,
            uid: 0,
            gid: 0,
            kind,
        });
        self
    }
}

impl Image {
    /// The image of the demo: the payload at `/payload`, which serves on port 8080 unless told otherwise; the users
    /// root and nobody; an empty `/tmp`.
    #[must_use]
    pub fn of_payload(name: &str, payload: Vec<u8>) -> Image {
        let layer = Layer::default()
            .directory("etc", 0o755)
            .file(
                "etc/passwd",
                0o644,
                "root:x:0:0:root:/:/payload\nnobody:x:65534:65534:nobody:/:/payload\n",
            )
            .file("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n")
            .directory("tmp", 0o1777)
            .file("payload", 0o755, payload);
        Image {
            name: name.to_owned(),
            layers: vec![layer],
            entrypoint: vec!["/payload".to_owned()],
            cmd: vec!["serve".to_owned(), "8080".to_owned()],
            env: vec!["PATH=/".to_owned()],
            ..Image::default()
        }
    }

    /// Writes the archive.
    pub fn write(&self, to: impl Write) -> io::Result<()> {
        let mut blobs = BTreeMap::new();
        let layers = self
            .layers
            .iter()
            .map(|layer| self.layer_blob(layer))
            .collect::<io::Result<Vec<_>>>()?;
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let config = descriptor(
            &mut blobs,
            "application/vnd.oci.image.config.v1+json",
            self.config(&diff_ids).to_string(),
        );
        let media_type = format!(
            "application/vnd.oci.image.layer.v1.tar{}",
            if self.gzip { "+gzip" } else { "" }
        );
        let layers: Vec<_> = layers
            .into_iter()
            .map(|layer| descriptor(&mut blobs, &media_type, layer.blob))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": layers,
        });
        let mut manifest = descriptor(&mut blobs, MANIFEST, manifest.to_string());
        // Podman and skopeo put the whole name into ref.name, containerd into its own key; importers know one of them.
        manifest["annotations"] =
            json!({ "org.opencontainers.image.ref.name": self.name, "io.containerd.image.name": self.name });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [manifest],
        });
        write_layout(to, &index, &blobs)
    }

    fn config(&self, diff_ids: &[String]) -> Value {
        let mut config = json!({ "Entrypoint": self.entrypoint, "Cmd": self.cmd, "Env": self.env });
        for (key, value) in [
            ("User", &self.user),
            ("WorkingDir", &self.working_dir),
            ("StopSignal", &self.stop_signal),
        ] {
            if !value.is_empty() {
                config[key] = json!(value);
            }
        }
        if !self.volumes.is_empty() {
            let volumes: BTreeMap<_, _> = self.volumes.iter().map(|path| (path, json!({}))).collect();
            config["Volumes"] = json!(volumes);
        }
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        json!({
            "architecture": architecture,
            "os": "linux",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        })
    }

    fn layer_blob(&self, layer: &Layer) -> io::Result<LayerBlob> {
        let tar = layer_tar(layer)?;
        let diff_id = digest(&tar);
        if !self.gzip {
            return Ok(LayerBlob { diff_id, blob: tar });
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&tar)?;
        Ok(LayerBlob {
            diff_id,
            blob: encoder.finish()?,
        })
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

struct LayerBlob {
    /// Digest of the uncompressed tar.
    diff_id: String,
    blob: Vec<u8>,
}

fn layer_tar(layer: &Layer) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in &layer.entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(entry.mode);
        header.set_uid(entry.uid);
        header.set_gid(entry.gid);
        header.set_mtime(0);
        header.set_size(0);
        match &entry.kind {
            Kind::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                tar.append_data(&mut header, &entry.path, io::empty())?;
            }
            Kind::File(content) => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(content.len() as u64);
                tar.append_data(&mut header, &entry.path, content.as_slice())?;
            }
            Kind::Symlink(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                tar.append_link(&mut header, &entry.path, target)?;
            }
            Kind::Hardlink(target) => {
                header.set_entry_type(tar::EntryType::Link);
                tar.append_link(&mut header, &entry.path, target)?;
            }
        }
    }
    tar.into_inner()
}

/// Keeps `blob` and describes it.
fn descriptor(blobs: &mut BTreeMap<String, Vec<u8>>, media_type: &str, blob: impl Into<Vec<u8>>) -> Value {
    let blob = blob.into();
    let digest = digest(&blob);
    let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": blob.len() });
    blobs.insert(digest, blob);
    descriptor
}

fn write_layout(to: impl Write, index: &Value, blobs: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    let mut tar = tar::Builder::new(to);
    let mut add = |path: String, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content)
    };
    add("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add("index.json".to_owned(), index.to_string().as_bytes())?;
    for (digest, blob) in blobs {
        add(format!("blobs/{}", digest.replace(':', "/")), blob)?;
    }
    tar.into_inner()?.flush()
}

fn digest(bytes: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(bytes) {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn every_digest_of_the_archive_is_that_of_its_blob() {
        for gzip in [false, true] {
            let image = Image {
                gzip,
                ..Image::of_payload("localhost/x:1", b"\x7fELF".to_vec())
            };
            let mut archive = Vec::new();
            image.write(&mut archive).unwrap();
            let mut again = Vec::new();
            image.write(&mut again).unwrap();
            assert_eq!(archive, again, "the same input gives the same bytes");

            let mut blobs = 0;
            for entry in tar::Archive::new(archive.as_slice()).entries().unwrap() {
                let mut entry = entry.unwrap();
                let path = entry.path().unwrap().to_string_lossy().into_owned();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                if let Some(name) = path.strip_prefix("blobs/sha256/") {
                    assert_eq!(digest(&content), format!("sha256:{name}"));
                    blobs += 1;
                }
            }
            assert_eq!(blobs, 3, "layer, configuration, manifest");
        }
    }
}
