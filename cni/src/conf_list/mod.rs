//! A network: the list of plugins of one configuration file, loaded as libcni does.

mod files;

use crate::config::NetworkConfig;
use crate::identifier::{self, IdentifierError};
use crate::version::Version;
use serde_json::{Map, Value};
use std::io;
use std::path::PathBuf;

/// A network could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file or directory could not be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file has an error.
    #[error("{path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<LoadError>,
    },
    /// Not JSON.
    #[error("not JSON")]
    Json(#[source] serde_json::Error),
    /// A key has the wrong type.
    #[error("{0} must be {1}")]
    Type(String, &'static str),
    /// The name is missing or wrong.
    #[error("name")]
    Name(#[source] IdentifierError),
    /// No version that Coracle speaks.
    #[error("cniVersion {0:?} is not supported, known are {known}", known = Version::list())]
    Version(String),
    /// No plugin at all.
    #[error("plugins is empty")]
    NoPlugins,
    /// A plugin without type.
    #[error("plugins[{0}].type is missing")]
    NoType(usize),
    /// A plugin whose type cannot be the name of a program.
    #[error("plugins[{0}].type {1:?} is not a program name")]
    BadType(usize, String),
    /// No file in the directory.
    #[error("no network configuration in {0}")]
    None(PathBuf),
}

/// A network and its plugins, in the order of ADD.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfList {
    name: String,
    version: Version,
    disable_gc: bool,
    plugins: Vec<NetworkConfig>,
    source: Map<String, Value>,
}

impl ConfList {
    /// Reads a list, or a single plugin's configuration, which makes a list of one.
    pub fn parse(bytes: &[u8]) -> Result<Self, LoadError> {
        Self::from_object(parse_object(bytes)?)
    }

    /// The network's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The newest version that both the list and Coracle speak.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The plugins, in the order of ADD.
    pub fn plugins(&self) -> &[NetworkConfig] {
        &self.plugins
    }

    /// GC is not to be called.
    pub fn disables_gc(&self) -> bool {
        self.disable_gc
    }

    /// The list as it was read, for a record: `parse` of it gives the same network without the directory.
    pub fn to_json(&self) -> Value {
        Value::Object(self.source.clone())
    }

    fn from_object(source: Map<String, Value>) -> Result<Self, LoadError> {
        let source = if source.contains_key("plugins") {
            source
        } else {
            list_of_one(source)
        };
        let name = text(&source, "name")?.unwrap_or_default();
        identifier::check_network_name(&name).map_err(LoadError::Name)?;
        let Some(Value::Array(entries)) = source.get("plugins") else {
            return Err(LoadError::Type("plugins".to_owned(), "a list"));
        };
        let plugins: Vec<_> = entries
            .iter()
            .enumerate()
            .map(|(index, entry)| plugin(index, entry))
            .collect::<Result<_, _>>()?;
        if plugins.is_empty() {
            return Err(LoadError::NoPlugins);
        }
        Ok(Self {
            version: negotiate(&source)?,
            disable_gc: flag(&source, "disableGC")?,
            name,
            plugins,
            source,
        })
    }
}

/// `cniVersion` and the list `cniVersions`: the newest of ours among them (specification 1.1.0). Without either it is the
/// first version.
fn negotiate(source: &Map<String, Value>) -> Result<Version, LoadError> {
    let mut named: Vec<String> = text(source, "cniVersion")?.into_iter().collect();
    match source.get("cniVersions") {
        None | Some(Value::Null) => {}
        Some(Value::Array(list)) => {
            for entry in list {
                let entry = entry
                    .as_str()
                    .ok_or_else(|| LoadError::Type("cniVersions".to_owned(), "a list of strings"))?;
                named.push(entry.to_owned());
            }
        }
        Some(_) => return Err(LoadError::Type("cniVersions".to_owned(), "a list of strings")),
    }
    if named.is_empty() {
        return Ok(Version::V0_1_0);
    }
    named
        .iter()
        .filter_map(|text| Version::from_text(text))
        .max()
        .ok_or_else(|| LoadError::Version(named.join(", ")))
}

fn plugin(index: usize, entry: &Value) -> Result<NetworkConfig, LoadError> {
    let Value::Object(map) = entry else {
        return Err(LoadError::Type(format!("plugins[{index}]"), "an object"));
    };
    match map.get("type") {
        None => Err(LoadError::NoType(index)),
        Some(Value::String(kind)) if kind.is_empty() => Err(LoadError::NoType(index)),
        Some(Value::String(kind)) if kind.contains('/') || kind == "." || kind == ".." => {
            Err(LoadError::BadType(index, kind.clone()))
        }
        Some(Value::String(_)) => Ok(NetworkConfig::from_map(map.clone())),
        Some(_) => Err(LoadError::Type(format!("plugins[{index}].type"), "a string")),
    }
}

/// A single plugin's configuration (the `.conf` of versions before 1.0.0) as a list.
fn list_of_one(plugin: Map<String, Value>) -> Map<String, Value> {
    let mut list = Map::new();
    for key in ["name", "cniVersion"] {
        if let Some(value) = plugin.get(key) {
            list.insert(key.to_owned(), value.clone());
        }
    }
    let empty = !plugin.contains_key("type");
    let plugins = if empty {
        Vec::new()
    } else {
        vec![Value::Object(plugin)]
    };
    list.insert("plugins".to_owned(), Value::Array(plugins));
    list
}

fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, LoadError> {
    match serde_json::from_slice(bytes).map_err(LoadError::Json)? {
        Value::Object(map) => Ok(map),
        _ => Err(LoadError::Type("the configuration".to_owned(), "a JSON object")),
    }
}

fn text(source: &Map<String, Value>, key: &str) -> Result<Option<String>, LoadError> {
    match source.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(LoadError::Type(key.to_owned(), "a string")),
    }
}

/// libcni takes `"true"` and `"false"` for booleans too.
fn flag(source: &Map<String, Value>, key: &str) -> Result<bool, LoadError> {
    match source.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(Value::String(text)) if text == "true" || text == "false" => Ok(text == "true"),
        Some(_) => Err(LoadError::Type(key.to_owned(), "true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::chain;

    #[test]
    fn the_newest_known_version_is_taken() {
        let list = |versions: &str| {
            let text = format!(r#"{{{versions},"name":"n","plugins":[{{"type":"x"}}]}}"#);
            ConfList::parse(text.as_bytes()).map(|list| list.version())
        };
        for version in Version::ALL {
            assert_eq!(list(&format!(r#""cniVersion":"{version}""#)).unwrap(), version);
        }
        for none in [r#""cniVersion":"""#, r#""cniVersion":null"#, r#""x":1"#] {
            assert_eq!(list(none).unwrap(), Version::V0_1_0);
        }
        assert_eq!(
            list(r#""cniVersion":"0.3.1","cniVersions":["0.4.0","9.9.9"]"#).unwrap(),
            Version::V0_4_0
        );
        assert!(matches!(list(r#""cniVersion":"9.9.9""#), Err(LoadError::Version(text)) if text == "9.9.9"));
    }

    #[test]
    fn bad_lists_are_refused_with_the_key() {
        let cases = [
            ("[]", "a JSON object"),
            ("{", "not JSON"),
            (
                r#"{"cniVersion":"1.0.0","plugins":[{"type":"x"}]}"#,
                "name: missing",
            ),
            (
                r#"{"cniVersion":"1.0.0","name":"../x","plugins":[{"type":"x"}]}"#,
                "name: invalid",
            ),
            (
                r#"{"cniVersion":"1.0.0","name":"n","plugins":[]}"#,
                "plugins is empty",
            ),
            (r#"{"cniVersion":"1.0.0","name":"n"}"#, "plugins is empty"),
            (
                r#"{"cniVersion":"1.0.0","name":"n","plugins":{}}"#,
                "plugins must be",
            ),
            (
                r#"{"cniVersion":"1.0.0","name":"n","plugins":[{}]}"#,
                "plugins[0].type",
            ),
            (
                r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":7}]}"#,
                "plugins[0].type",
            ),
            (
                r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"../../sh"}]}"#,
                "plugins[0].type",
            ),
            (
                r#"{"cniVersion":7,"name":"n","plugins":[{"type":"x"}]}"#,
                "cniVersion must be",
            ),
            (
                r#"{"cniVersion":"1.0.0","name":"n","disableGC":3,"plugins":[{"type":"x"}]}"#,
                "disableGC",
            ),
        ];
        for (text, want) in cases {
            let error = ConfList::parse(text.as_bytes()).unwrap_err();
            assert!(chain(&error).contains(want), "{text}: {}", chain(&error));
        }
    }
}
