//! What a network changed on the host, so that `uninstall-network` can put it back: one file per network in
//! `/run/coracle-cni/networks`. It is gone after a reboot, as is what it describes.

use crate::failure::Coded;
use crate::sysctl::{self, SysctlError};
use coracle_cni_protocol::Code;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const DIR: &str = "/run/coracle-cni/networks";
const LOCK: &str = "/run/coracle-cni/lock";

/// A record could not be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// Reading or writing failed.
    #[error("network record {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A setting to be recorded failed.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
}

impl Coded for RecordError {
    fn code(&self) -> Code {
        Code::IO_FAILURE
    }
}

/// What one network changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Record {
    /// The bridge it uses.
    pub(crate) bridge: Option<String>,
    /// The bridge was made for it, not found.
    pub(crate) bridge_made: bool,
    /// Directories of address stores, without the network's name.
    pub(crate) data_dirs: BTreeSet<PathBuf>,
    /// Kernel settings and what they were before.
    pub(crate) sysctls: BTreeMap<String, String>,
}

/// Held while networks are set up or removed; attaching to one that stands needs no lock.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for it.
    pub(crate) fn take() -> Result<Self, RecordError> {
        let path = Path::new(LOCK);
        let failed = |source| RecordError::Io {
            path: path.to_owned(),
            source,
        };
        loop {
            fs::create_dir_all(DIR).map_err(failed)?;
            let file = match File::options().create(true).append(true).open(path) {
                // The directory went this moment, with the last network.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                other => other.map_err(failed)?,
            };
            flock(&file, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
            let held = file.metadata().map_err(failed)?.ino();
            if path.metadata().is_ok_and(|named| named.ino() == held) {
                fs::create_dir_all(DIR).map_err(failed)?;
                return Ok(Self { _file: file });
            }
        }
    }
}

impl Record {
    /// The record of a network; empty when there is none.
    pub(crate) fn load(network: &str) -> Result<Self, RecordError> {
        load_file(&file(network))
    }

    /// Changes the record of a network and keeps it; complete or not at all.
    pub(crate) fn change(network: &str, _: &Lock, change: impl FnOnce(&mut Self)) -> Result<(), RecordError> {
        let path = file(network);
        let mut record = load_file(&path)?;
        change(&mut record);
        let new = path.with_extension("new");
        serde_json::to_vec(&record)
            .map_err(io::Error::from)
            .and_then(|text| fs::write(&new, text))
            .and_then(|()| fs::rename(&new, &path))
            .map_err(|source| RecordError::Io { path, source })
    }

    /// Forgets a network.
    pub(crate) fn remove(network: &str, _: &Lock) -> Result<(), RecordError> {
        let path = file(network);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => Err(RecordError::Io { path, source }),
            _ => Ok(()),
        }
    }

    /// The names and records of all networks but this one.
    pub(crate) fn others(network: &str) -> Result<Vec<(String, Self)>, RecordError> {
        let failed = |source| RecordError::Io {
            path: DIR.into(),
            source,
        };
        let dir = match fs::read_dir(DIR) {
            Ok(dir) => dir,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let own = file(network);
        let mut others = Vec::new();
        for entry in dir {
            let path = entry.map_err(failed)?.path();
            if path != own && path.extension().is_some_and(|end| end == "json") {
                let name = path
                    .file_stem()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                others.push((name, load_file(&path)?));
            }
        }
        Ok(others)
    }
}

/// Sets a kernel setting for a network and records what it was. A second network that needs the same setting records
/// the same old value: the last one to go puts it back.
pub(crate) fn set_sysctl(network: &str, name: &str, value: &str) -> Result<(), RecordError> {
    keep_sysctl(network, name)?;
    Ok(sysctl::ensure(name, value)?)
}

/// Records what a kernel setting is, before it is changed: a record too many restores a value that was there, one too
/// few loses it.
pub(crate) fn keep_sysctl(network: &str, name: &str) -> Result<(), RecordError> {
    if Record::load(network)?.sysctls.contains_key(name) {
        return Ok(());
    }
    let present = sysctl::read(name)?;
    let lock = Lock::take()?;
    let inherited = Record::others(network)?
        .into_iter()
        .find_map(|(_, mut other)| other.sysctls.remove(name));
    Record::change(network, &lock, |record| {
        record
            .sysctls
            .entry(name.to_owned())
            .or_insert_with(|| inherited.unwrap_or(present));
    })
}

/// Removes the directory of records when the last network is gone. Nobody may hold a lock on a file that is not there
/// any more: [`Lock::take`] looks.
pub(crate) fn remove_if_empty(lock: Lock) {
    if fs::remove_dir(DIR).is_ok() {
        // The next network makes them again; what somebody else put there stays.
        let _ = fs::remove_file(LOCK);
        if let Some(parent) = Path::new(DIR).parent() {
            let _ = fs::remove_dir(parent);
        }
    }
    drop(lock);
}

fn file(network: &str) -> PathBuf {
    Path::new(DIR).join(format!("{network}.json"))
}

fn load_file(path: &Path) -> Result<Record, RecordError> {
    let failed = |source| RecordError::Io {
        path: path.to_owned(),
        source,
    };
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| failed(error.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Record::default()),
        Err(error) => Err(failed(error)),
    }
}
