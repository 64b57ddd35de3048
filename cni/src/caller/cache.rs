//! Results of ADD on disk, in the format of libcni, so that either can detach what the other attached.

use super::{Attachment, CallError};
use crate::conf_list::ConfList;
use crate::result::CniResult;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const KIND: &str = "cniCacheV1";

/// A directory of results.
#[derive(Debug, Clone)]
pub(super) struct Cache(PathBuf);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    kind: String,
    container_id: String,
    /// The list as it was, base64.
    config: String,
    if_name: String,
    network_name: String,
    #[serde(default)]
    netns: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cni_args: Option<Vec<(String, String)>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    capability_args: Option<Map<String, Value>>,
    #[serde(default)]
    result: Value,
}

impl Cache {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self(dir.join("results"))
    }

    /// Keeps a result; complete or not at all.
    pub(super) fn write(
        &self,
        list: &ConfList,
        attachment: &Attachment,
        result: &CniResult,
    ) -> Result<(), CallError> {
        let path = self.path(list.name(), attachment);
        let netns = attachment.netns.as_deref().unwrap_or_else(|| Path::new(""));
        let entry = Entry {
            kind: KIND.to_owned(),
            container_id: attachment.container_id.clone(),
            config: base64(list.to_json().to_string().as_bytes()),
            if_name: attachment.ifname.clone(),
            network_name: list.name().to_owned(),
            netns: netns.to_string_lossy().into_owned(),
            cni_args: Some(attachment.args.clone()).filter(|args| !args.is_empty()),
            capability_args: Some(attachment.capabilities.clone()).filter(|all| !all.is_empty()),
            result: result.to_json(list.version()),
        };
        let written = serde_json::to_vec(&entry)
            .map_err(io::Error::from)
            .and_then(|text| replace(&path, &text));
        written.map_err(|source| CallError::Cache { path, source })
    }

    /// The result of an attachment, if one is kept.
    pub(super) fn read(
        &self,
        network: &str,
        attachment: &Attachment,
    ) -> Result<Option<CniResult>, CallError> {
        let path = self.path(network, attachment);
        let failed = |source| CallError::Cache {
            path: path.clone(),
            source,
        };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let entry: Entry = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
        CniResult::parse(&entry.result)
            .map(Some)
            .map_err(|error| failed(io::Error::new(ErrorKind::InvalidData, error)))
    }

    /// Forgets a result; one that is not kept is forgotten already.
    pub(super) fn remove(&self, network: &str, attachment: &Attachment) -> Result<(), CallError> {
        let path = self.path(network, attachment);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => Err(CallError::Cache { path, source }),
            _ => Ok(()),
        }
    }

    /// All attachments of a network. Files that are no entries are passed over: they are not ours.
    pub(super) fn attachments(&self, network: &str) -> Result<Vec<Attachment>, CallError> {
        let failed = |source| CallError::Cache {
            path: self.0.clone(),
            source,
        };
        let dir = match fs::read_dir(&self.0) {
            Ok(dir) => dir,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut found = Vec::new();
        for file in dir {
            let text = fs::read(file.map_err(failed)?.path()).unwrap_or_default();
            let Ok(entry) = serde_json::from_slice::<Entry>(&text) else {
                continue;
            };
            if entry.kind == KIND && entry.network_name == network {
                found.push(Attachment {
                    container_id: entry.container_id,
                    netns: Some(PathBuf::from(entry.netns)).filter(|path| !path.as_os_str().is_empty()),
                    ifname: entry.if_name,
                    args: entry.cni_args.unwrap_or_default(),
                    capabilities: entry.capability_args.unwrap_or_default(),
                });
            }
        }
        Ok(found)
    }

    fn path(&self, network: &str, attachment: &Attachment) -> PathBuf {
        self.0.join(format!(
            "{network}-{}-{}",
            attachment.container_id, attachment.ifname
        ))
    }
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or_else(|| Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = dir.join(format!(".{name}.{}", std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| file.write_all(text))
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // The half-written file is of no use; the first error is the one to tell.
        let _ = fs::remove_file(&new);
    }
    written
}

/// Go encodes bytes in JSON as base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = usize::try_from(bits >> (18 - 6 * place) & 63).unwrap_or(0);
            text.push(if place <= chunk.len() {
                char::from(DIGITS[digit])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_rfcs() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, coded) in cases {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
