//! The directory of all containers of one `--root`: one directory each, with the record, a copy of the specification,
//! and the gate.

use super::Record;
use super::record::VERSION;
use crate::id::ContainerId;
use crate::payload::read_last_words;
use rustix::fs::{CWD, FileType, Mode};
use rustix::io::Errno;
use serde::Deserialize;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A directory of containers.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// A container without a record.
#[derive(Debug)]
pub struct HalfMade {
    /// Its bundle; `None` before its cgroup was made.
    pub bundle: Option<PathBuf>,
}

/// A record that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is one of this name already.
    #[error("container with given ID already exists: {0}")]
    Exists(ContainerId),
    /// There is none of this name.
    #[error("container does not exist: {0}")]
    Missing(ContainerId),
    /// The file system said no.
    #[error("{doing} {path}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is not a record.
    #[error("{path} is not a container's record")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It is a record of a newer version of this program, whose meaning nobody here knows.
    #[error("{path} has format {found}, and this program knows formats up to {known} only")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that is known.
        known: u32,
    },
}

impl Store {
    /// The store in this directory, which need not exist.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The directory of a container.
    #[must_use]
    pub fn dir(&self, id: &ContainerId) -> PathBuf {
        self.root.join(id)
    }

    /// The names of all containers, sorted.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<ContainerId>, StoreError> {
        let failed = |source| StoreError::File {
            doing: "reading",
            path: self.root.clone(),
            source,
        };
        let entries = match std::fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse::<ContainerId>().ok()));
        }
        ids.sort();
        Ok(ids)
    }

    /// Takes the name: makes the container's directory.
    ///
    /// # Errors
    /// [`StoreError::Exists`], or the directory cannot be made.
    pub fn reserve(&self, id: &ContainerId) -> Result<Reservation, StoreError> {
        let dir = self.dir(id);
        let failed = |path: &Path, source| StoreError::File {
            doing: "making",
            path: path.to_owned(),
            source,
        };
        let mode = Mode::from_raw_mode(0o711);
        let mut made = rustix::fs::mkdir(&dir, mode);
        if made == Err(Errno::NOENT) {
            std::fs::create_dir_all(&self.root).map_err(|error| failed(&self.root, error))?;
            rustix::fs::chmod(&self.root, mode).map_err(|errno| failed(&self.root, errno.into()))?;
            made = rustix::fs::mkdir(&dir, mode);
        }
        match made {
            Ok(()) => Ok(Reservation { dir, kept: false }),
            Err(Errno::EXIST) => Err(StoreError::Exists(id.clone())),
            Err(errno) => Err(failed(&dir, errno.into())),
        }
    }

    /// The gate of a container that waits to be started.
    #[must_use]
    pub fn fifo(&self, id: &ContainerId) -> PathBuf {
        self.dir(id).join(super::record::EXEC_FIFO)
    }

    /// What the first process of a container left as its last words, if it did.
    #[must_use]
    pub fn last_words(&self, id: &ContainerId) -> Option<String> {
        read_last_words(&self.dir(id).join(LAST_WORDS))
    }

    /// A container without a record: one that is being made, or whose maker was killed. `None` when there is nothing of
    /// that name.
    #[must_use]
    pub fn half_made(&self, id: &ContainerId) -> Option<HalfMade> {
        let dir = self.dir(id);
        dir.is_dir().then(|| HalfMade {
            bundle: std::fs::read_link(dir.join(MARK)).ok(),
        })
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`StoreError::Missing`], or the record cannot be read.
    pub fn load(&self, id: &ContainerId) -> Result<Record, StoreError> {
        let path = self.dir(id).join(RECORD);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Missing(id.clone()));
            }
            Err(source) => {
                return Err(StoreError::File {
                    doing: "reading",
                    path,
                    source,
                });
            }
        };
        parse(&text, path)
    }

    /// Removes a container's directory, if there is one.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, id: &ContainerId) -> Result<(), StoreError> {
        remove(&self.dir(id))
    }
}

/// The format is looked at by itself, first: what else a newer one holds may be anything.
fn parse(text: &[u8], path: PathBuf) -> Result<Record, StoreError> {
    #[derive(Deserialize)]
    struct Format {
        version: u32,
    }
    let malformed = |source| StoreError::Malformed {
        path: path.clone(),
        source,
    };
    let Format { version } = serde_json::from_slice(text).map_err(malformed)?;
    if version > VERSION {
        return Err(StoreError::Newer {
            path,
            found: version,
            known: VERSION,
        });
    }
    serde_json::from_slice(text).map_err(malformed)
}

/// A name taken, given back when this is dropped before [`keep`](Self::keep).
#[derive(Debug)]
pub struct Reservation {
    dir: PathBuf,
    kept: bool,
}

impl Reservation {
    /// Where the first process leaves its last words.
    #[must_use]
    pub fn last_words(&self) -> PathBuf {
        self.dir.join(LAST_WORDS)
    }

    /// The link to the bundle that tells of a container in the making whether its cgroup is its own yet.
    #[must_use]
    pub fn mark(&self) -> PathBuf {
        self.dir.join(MARK)
    }

    /// Makes the gate, which the container's user opens for writing.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make_fifo(&self) -> Result<PathBuf, StoreError> {
        let path = self.dir.join(super::record::EXEC_FIFO);
        let made = rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o622), 0)
            // The mode once more: the umask took its share.
            .and_then(|()| rustix::fs::chmod(&path, Mode::from_raw_mode(0o622)));
        match made {
            Ok(()) => Ok(path),
            Err(errno) => Err(StoreError::File {
                doing: "making",
                path,
                source: errno.into(),
            }),
        }
    }

    /// Writes the specification as it is now: the bundle's may change.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_spec(&self, text: &[u8]) -> Result<(), StoreError> {
        let path = self.dir.join("config.json");
        std::fs::write(&path, text).map_err(|source| StoreError::File {
            doing: "writing",
            path,
            source,
        })
    }

    /// Writes the record, all or nothing.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, record: &Record) -> Result<(), StoreError> {
        let path = self.dir.join(RECORD);
        let text = serde_json::to_vec(record);
        let text = text.map_err(|source| StoreError::Malformed {
            path: path.clone(),
            source,
        })?;
        write_file(&path, &text).map_err(|source| StoreError::File {
            doing: "writing",
            path,
            source,
        })
    }

    /// From now on the container exists: the directory stays.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.kept {
            let _ = remove(&self.dir);
        }
    }
}

/// Writes a file that is either whole or not there: a new one, renamed. It is not synced; what it tells of dies with the
/// boot.
///
/// # Errors
/// The kernel's.
pub fn write_file(path: &Path, text: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    let temporary = path.with_file_name(temporary);
    std::fs::File::create(&temporary)?.write_all(text)?;
    std::fs::rename(&temporary, path)
}

fn remove(dir: &Path) -> Result<(), StoreError> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::File {
            doing: "removing",
            path: dir.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}

const RECORD: &str = "state.json";
const LAST_WORDS: &str = "last-words";
const MARK: &str = "creating";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_a_newer_version_is_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path().to_owned());
        let id: ContainerId = "c".parse().unwrap();
        let file = store.dir(&id).join(RECORD);
        std::fs::create_dir(store.dir(&id)).unwrap();
        let newer = VERSION + 1;
        std::fs::write(&file, format!(r#"{{"version":{newer},"id":["c"]}}"#)).unwrap();
        let error = store.load(&id).unwrap_err();
        assert!(matches!(error, StoreError::Newer { .. }), "{error}");
        let text = error.to_string();
        for named in [file.to_str().unwrap(), &newer.to_string(), &VERSION.to_string()] {
            assert!(text.contains(named), "{text}");
        }
        std::fs::write(&file, format!(r#"{{"version":{VERSION}}}"#)).unwrap();
        let error = store.load(&id).unwrap_err();
        assert!(matches!(error, StoreError::Malformed { .. }), "{error}");
    }
}
