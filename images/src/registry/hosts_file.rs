//! The form of `hosts.toml`: what serde reads. Unknown keys are errors that name them.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) server: Option<String>,
    #[serde(default)]
    pub(super) host: Ordered<Settings>,
    pub(super) capabilities: Option<Vec<String>>,
    pub(super) ca: Option<Paths>,
    pub(super) client: Option<Client>,
    pub(super) skip_verify: Option<bool>,
    #[serde(default)]
    pub(super) header: Ordered<Words>,
    pub(super) override_path: Option<bool>,
    pub(super) dial_timeout: Option<String>,
    pub(super) plain_redirects: Option<bool>,
    pub(super) layer_urls: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    pub(super) capabilities: Option<Vec<String>>,
    pub(super) ca: Option<Paths>,
    pub(super) client: Option<Client>,
    pub(super) skip_verify: Option<bool>,
    #[serde(default)]
    pub(super) header: Ordered<Words>,
    pub(super) override_path: Option<bool>,
    pub(super) dial_timeout: Option<String>,
    pub(super) plain_redirects: Option<bool>,
    pub(super) layer_urls: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Paths {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

/// One file with certificate and key, several such files, or pairs of files.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Client {
    One(PathBuf),
    Many(Vec<PathBuf>),
    Pairs(Vec<[PathBuf; 2]>),
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Words {
    One(String),
    Many(Vec<String>),
}

/// A table in the file's order, which is the order mirrors are tried in.
pub(super) struct Ordered<T>(pub(super) Vec<(String, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Ordered<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a table")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }
        deserializer.deserialize_map(Entries(std::marker::PhantomData))
    }
}
