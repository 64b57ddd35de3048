//! The configuration of one plugin. Unknown keys stay where they are.

use crate::result::CniResult;
use crate::version::Version;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON.
    #[error("the network configuration is not JSON")]
    Json(#[source] serde_json::Error),
    /// Not a JSON object.
    #[error("the network configuration is not a JSON object")]
    NotAnObject,
    /// A key has the wrong type or is missing.
    #[error("{key}")]
    Key {
        /// Its path.
        key: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A key that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
}

/// An attachment that `GC` keeps.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ValidAttachment {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Its interface.
    #[serde(rename = "ifname")]
    pub ifname: String,
}

/// The key that carries the attachments `GC` keeps.
pub(crate) const VALID_ATTACHMENTS: &str = "cni.dev/valid-attachments";
/// The same under the name older callers use.
pub(crate) const LEGACY_ATTACHMENTS: &str = "cni.dev/attachments";

/// One plugin's configuration as JSON object.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkConfig(Map<String, Value>);

impl NetworkConfig {
    /// Reads an object.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        match serde_json::from_slice(bytes).map_err(ConfigError::Json)? {
            Value::Object(map) => Ok(Self(map)),
            _ => Err(ConfigError::NotAnObject),
        }
    }

    /// Takes an object.
    pub fn from_map(map: Map<String, Value>) -> Self {
        Self(map)
    }

    /// The object.
    pub fn map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Sets a key.
    pub fn insert(&mut self, key: &str, value: Value) {
        self.0.insert(key.to_owned(), value);
    }

    /// Removes a key.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key)
    }

    /// The plugin's type, which is the name of its program.
    pub fn kind(&self) -> Option<&str> {
        self.0.get("type")?.as_str()
    }

    /// The network's name.
    pub fn name(&self) -> Option<&str> {
        self.0.get("name")?.as_str()
    }

    /// The version as written; empty when there is none.
    pub fn version_text(&self) -> &str {
        let text = self.0.get("cniVersion").and_then(Value::as_str);
        text.unwrap_or_default()
    }

    /// The version, if it is one of ours.
    pub fn version(&self) -> Option<Version> {
        Version::from_text(self.version_text())
    }

    /// The type of the address manager, if the configuration names one.
    pub fn ipam_kind(&self) -> Option<&str> {
        self.0
            .get("ipam")?
            .get("type")?
            .as_str()
            .filter(|kind| !kind.is_empty())
    }

    /// Whether the plugin takes this capability.
    pub fn has_capability(&self, capability: &str) -> bool {
        let declared = self.0.get("capabilities").and_then(|all| all.get(capability));
        declared.and_then(Value::as_bool).unwrap_or(false)
    }

    /// Reads the value at a key; none when it is absent or null.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, ConfigError> {
        at(&self.0, key, key)
    }

    /// Reads the value of a key inside an object; none when either is absent or null.
    pub fn get_in<T: DeserializeOwned>(&self, object: &str, key: &str) -> Result<Option<T>, ConfigError> {
        match self.0.get(object) {
            Some(Value::Object(inner)) => at(inner, key, &format!("{object}.{key}")),
            _ => Ok(None),
        }
    }

    /// The result of the plugins before this one.
    pub fn prev_result(&self) -> Result<Option<CniResult>, crate::ResultError> {
        match self.0.get("prevResult") {
            None | Some(Value::Null) => Ok(None),
            Some(value) => CniResult::parse(value).map(Some),
        }
    }

    /// The attachments that `GC` keeps; none when the caller did not say.
    pub fn valid_attachments(&self) -> Result<Option<Vec<ValidAttachment>>, ConfigError> {
        match self.get(VALID_ATTACHMENTS)? {
            Some(list) => Ok(Some(list)),
            None => self.get(LEGACY_ATTACHMENTS),
        }
    }

    /// As bytes for a plugin's standard input.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A map of JSON values always has a JSON form: keys are strings and numbers are finite.
        serde_json::to_vec(&self.0).unwrap_or_default()
    }
}

fn at<T: DeserializeOwned>(
    map: &Map<String, Value>,
    key: &str,
    path: &str,
) -> Result<Option<T>, ConfigError> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => T::deserialize(value)
            .map(Some)
            .map_err(|source| ConfigError::Key {
                key: path.to_owned(),
                source,
            }),
    }
}
