//! Which files make a network.

use super::{ConfList, LoadError, flag, parse_object};
use crate::identifier;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

impl ConfList {
    /// The first network of a directory: `*.conflist` in order of their names, then `*.conf` and `*.json`.
    pub fn load_dir(dir: &Path) -> Result<Self, LoadError> {
        let first = files(dir)?
            .into_iter()
            .next()
            .ok_or_else(|| LoadError::None(dir.to_owned()))?;
        Self::load_file(&first)
    }

    /// Reads one file. Unless `loadOnlyInlinedPlugins` is set, the plugins in `<directory>/<name>/*.conf` are added.
    pub fn load_file(path: &Path) -> Result<Self, LoadError> {
        let in_file = |source| LoadError::File {
            path: path.to_owned(),
            source: Box::new(source),
        };
        let mut source = parse_object(&read(path)?).map_err(in_file)?;
        if source.contains_key("plugins") || source.contains_key("name") && !source.contains_key("type") {
            let only_inlined = flag(&source, "loadOnlyInlinedPlugins").map_err(in_file)?;
            if !only_inlined {
                append_dir(path, &mut source)?;
            }
        }
        Self::from_object(source).map_err(in_file)
    }
}

fn append_dir(path: &Path, source: &mut Map<String, Value>) -> Result<(), LoadError> {
    let Some(name) = source.get("name").and_then(Value::as_str) else {
        return Ok(());
    };
    // Checked before it becomes part of a path.
    identifier::check_network_name(name).map_err(|error| LoadError::File {
        path: path.to_owned(),
        source: Box::new(LoadError::Name(error)),
    })?;
    let dir = path.with_file_name(name);
    if !dir.is_dir() {
        return Ok(());
    }
    let mut more = Vec::new();
    for file in sorted(&dir, &["conf"])? {
        let in_file = |source| LoadError::File {
            path: file.clone(),
            source: Box::new(source),
        };
        more.push(Value::Object(parse_object(&read(&file)?).map_err(in_file)?));
    }
    let plugins = source
        .entry("plugins")
        .or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(plugins) = plugins {
        plugins.extend(more);
    }
    Ok(())
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let mut files = sorted(dir, &["conflist"])?;
    files.extend(sorted(dir, &["conf", "json"])?);
    Ok(files)
}

fn sorted(dir: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, LoadError> {
    let failed = |source| LoadError::Read {
        path: dir.to_owned(),
        source,
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let fits = path
            .extension()
            .and_then(|end| end.to_str())
            .is_some_and(|end| extensions.contains(&end));
        if fits && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    std::fs::read(path).map_err(|source| LoadError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str, text: &str) {
        std::fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
        std::fs::write(dir.join(name), text).unwrap();
    }

    #[test]
    fn lists_come_before_single_plugins_and_each_in_order() {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            "10-a.conf",
            r#"{"cniVersion":"0.4.0","name":"single","type":"bridge"}"#,
        );
        write(
            dir.path(),
            "30-b.conflist",
            r#"{"cniVersion":"1.0.0","name":"thirty","plugins":[{"type":"x"}]}"#,
        );
        write(
            dir.path(),
            "20-b.conflist",
            r#"{"cniVersion":"1.0.0","name":"twenty","plugins":[{"type":"x"}]}"#,
        );
        write(dir.path(), "05.txt", "not mine");
        for (file, name) in [
            ("20-b.conflist", "twenty"),
            ("30-b.conflist", "thirty"),
            ("10-a.conf", "single"),
        ] {
            assert_eq!(ConfList::load_dir(dir.path()).unwrap().name(), name);
            std::fs::remove_file(dir.path().join(file)).unwrap();
        }
        assert!(matches!(ConfList::load_dir(dir.path()), Err(LoadError::None(_))));
    }

    #[test]
    fn plugins_of_the_networks_directory_are_added_unless_forbidden() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "n/20.conf", r#"{"type":"second"}"#);
        write(dir.path(), "n/10.conf", r#"{"type":"first"}"#);
        write(
            dir.path(),
            "a.conflist",
            r#"{"cniVersion":"1.1.0","name":"n","plugins":[{"type":"x"}]}"#,
        );
        let kinds = |list: &ConfList| {
            list.plugins()
                .iter()
                .map(|p| p.kind().unwrap_or_default().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            kinds(&ConfList::load_dir(dir.path()).unwrap()),
            ["x", "first", "second"]
        );
        write(
            dir.path(),
            "a.conflist",
            r#"{"cniVersion":"1.1.0","name":"n","loadOnlyInlinedPlugins":"true","plugins":[{"type":"x"}]}"#,
        );
        assert_eq!(kinds(&ConfList::load_dir(dir.path()).unwrap()), ["x"]);
    }
}
