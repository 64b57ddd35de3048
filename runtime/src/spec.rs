//! Loading config.json.
//!
//! The parser is strict and fast. Where it is stricter than runc (an unknown capability is a warning there) or spells a
//! value wrongly (two scheduler flags), a second, slower pass corrects the document and parses it again; a good
//! document never sees it.

use oci_spec::runtime::{Capability, Process, Spec};
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Why a specification cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// No such file, or it cannot be read.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not a specification.
    #[error("parsing {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
}

/// A specification, with what had to be left out of it.
#[derive(Debug)]
pub struct Loaded {
    /// The specification.
    pub spec: Spec,
    /// Sentences for the log.
    pub warnings: Vec<String>,
    /// The document as it was read.
    pub text: Vec<u8>,
}

/// Reads `config.json` in `bundle`.
pub fn load(bundle: &Path) -> Result<Loaded, SpecError> {
    let path = bundle.join("config.json");
    match read(&path) {
        Ok(text) => parse(text).map_err(|source| SpecError::Parse { path, source }),
        Err(source) => Err(SpecError::Read { path, source }),
    }
}

/// Reads a regular file: to read anything else can take for ever.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ));
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(text)
}

/// Reads the `process` of an additional process from a file of its own (`exec --process`).
pub fn load_process(path: &Path) -> Result<Process, SpecError> {
    let failed = |source| SpecError::Parse {
        path: path.to_owned(),
        source,
    };
    let text = std::fs::read(path).map_err(|source| SpecError::Read {
        path: path.to_owned(),
        source,
    })?;
    match serde_json::from_slice(&text) {
        Ok(process) => Ok(process),
        Err(strict) => {
            let Ok(mut document) = serde_json::from_slice::<Value>(&text) else {
                return Err(failed(strict));
            };
            correct_process(&mut document, &mut Vec::new());
            serde_json::from_value(document).map_err(|_| failed(strict))
        }
    }
}

/// Parses a specification.
pub fn parse(text: Vec<u8>) -> Result<Loaded, serde_json::Error> {
    match serde_json::from_slice(&text) {
        Ok(spec) => Ok(Loaded {
            spec,
            warnings: Vec::new(),
            text,
        }),
        Err(strict) => parse_leniently(text, strict),
    }
}

fn parse_leniently(text: Vec<u8>, strict: serde_json::Error) -> Result<Loaded, serde_json::Error> {
    let Ok(mut document) = serde_json::from_slice::<Value>(&text) else {
        return Err(strict);
    };
    let mut warnings = Vec::new();
    if let Some(process) = document.get_mut("process") {
        correct_process(process, &mut warnings);
    }
    match serde_json::from_value(document) {
        Ok(spec) => Ok(Loaded { spec, warnings, text }),
        // The first error knows line and column.
        Err(_) => Err(strict),
    }
}

/// Corrects a `process` object (also that of `exec --process`).
pub(crate) fn correct_process(process: &mut Value, warnings: &mut Vec<String>) {
    // The user is required, and runc takes a missing one, or a missing id of it, as root.
    if let Some(process) = process.as_object_mut() {
        let user = process.entry("user").or_insert(Value::Null);
        if user.is_null() {
            *user = Value::Object(serde_json::Map::new());
        }
        for id in ["uid", "gid"] {
            if let Some(user) = user.as_object_mut().filter(|user| !user.contains_key(id)) {
                user.insert(id.to_owned(), 0.into());
            }
        }
    }
    for set in ["bounding", "effective", "inheritable", "permitted", "ambient"] {
        if let Some(Value::Array(names)) = process.pointer_mut(&format!("/capabilities/{set}")) {
            names.retain(|name| known_capability(name, set, warnings));
        }
    }
    if let Some(Value::Array(flags)) = process.pointer_mut("/scheduler/flags") {
        for flag in flags {
            match flag.as_str() {
                Some("SCHED_FLAG_RESET_ON_FORK") => *flag = "SCHED_RESET_ON_FORK".into(),
                Some("SCHED_FLAG_DL_OVERRUN") => *flag = "SCHED_FLAG_D_L_OVERRUN".into(),
                _ => {}
            }
        }
    }
}

fn known_capability(name: &Value, set: &str, warnings: &mut Vec<String>) -> bool {
    let known = serde_json::from_value::<Capability>(name.clone()).is_ok();
    if !known && name.is_string() {
        warnings.push(format!(
            "ignoring unknown capability {name} in process.capabilities.{set}"
        ));
    }
    // What is not even text stays, and fails the second parse too.
    known || !name.is_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(process: &str) -> String {
        format!(r#"{{"ociVersion":"1.0.2","process":{process}}}"#)
    }

    #[test]
    fn unknown_capabilities_are_left_out_with_a_warning() {
        let text = document(
            r#"{"cwd":"/","user":{"uid":0,"gid":0},"capabilities":{"bounding":["CAP_KILL","CAP_FUTURE"]}}"#,
        );
        let loaded = parse(text.into_bytes()).unwrap();
        let process = loaded.spec.process().as_ref().unwrap();
        assert_eq!(
            process
                .capabilities()
                .as_ref()
                .unwrap()
                .bounding()
                .as_ref()
                .unwrap()
                .len(),
            1
        );
        assert!(loaded.warnings[0].contains("CAP_FUTURE"), "{:?}", loaded.warnings);
    }

    #[test]
    fn a_process_without_a_user_is_roots() {
        for user in ["", r#","user":null"#, r#","user":{}"#, r#","user":{"gid":0}"#] {
            let text = document(&format!(r#"{{"cwd":"/"{user}}}"#));
            let loaded = parse(text.into_bytes()).unwrap();
            let user = loaded.spec.process().as_ref().unwrap().user();
            assert_eq!((user.uid(), user.gid()), (0, 0));
        }
    }

    #[test]
    fn errors_say_where() {
        let error = parse(document(r#"{"cwd":7}"#).into_bytes()).unwrap_err();
        assert!(error.to_string().contains("line 1"), "{error}");
    }
}
