//! The records of all pods and containers: in memory as they are on disk, one locked file below `--root`.
//!
//! A record is written before the action it describes. On the start path of a pod with one container two writes are
//! waited for until they are on disk (the sandbox before its network, the container before CreateContainer answers);
//! the others only have to outlive the daemon, which write(2) is enough for.

mod log;
mod record;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::Log;
use prost::Message as _;

use crate::error::chain;

pub(crate) use log::{LogError, Position};
pub(crate) use record::{ContainerPhase, ContainerRecord, ExitRecord, SandboxPhase, SandboxRecord};

/// Files smaller than this are never rewritten.
const REWRITE_ABOVE: u64 = 1 << 20;

/// The store cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("{action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: another coracled uses this --root", .0.display())]
    Locked(PathBuf),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("record {key}")]
    Decode { key: String, source: prost::DecodeError },
    #[error("record file: a frame is not a record")]
    Frame,
    #[error("the task that waits for the disk was ended")]
    Join,
}

/// The open store.
#[derive(Debug)]
pub(crate) struct Store {
    log: Arc<Log>,
    /// Key to the last frame of that key.
    live: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Whether the file is being made smaller.
    rewriting: Arc<AtomicBool>,
    /// Held for the flock(2) on it.
    _lock: File,
}

/// One change of the store on the wire: the value is absent when the record was deleted.
#[derive(Clone, PartialEq, prost::Message)]
struct Change {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(bytes = "vec", optional, tag = "2")]
    value: Option<Vec<u8>>,
}

/// A kind of record.
pub(crate) trait Record: prost::Message + Default {
    /// First part of its keys.
    const KIND: &'static str;
    /// Second part.
    fn id(&self) -> &str;
}

impl Record for SandboxRecord {
    const KIND: &'static str = "sandbox/";
    fn id(&self) -> &str {
        &self.id
    }
}

impl Record for ContainerRecord {
    const KIND: &'static str = "container/";
    fn id(&self) -> &str {
        &self.id
    }
}

impl Store {
    /// Opens the store in `directory`, which is made if absent. A second opener is refused.
    pub(crate) fn open(directory: &Path) -> Result<Store, StoreError> {
        std::fs::create_dir_all(directory).map_err(|source| StoreError::Io {
            action: "create",
            path: directory.to_owned(),
            source,
        })?;
        let lock = lock_directory(directory)?;
        let (log, payloads) = Log::open(&directory.join("records"))?;
        let mut live = BTreeMap::new();
        for payload in payloads {
            let change = Change::decode(payload.as_slice()).map_err(|_| StoreError::Frame)?;
            match change.value {
                Some(_) => live.insert(change.key, payload),
                None => live.remove(&change.key),
            };
        }
        Ok(Store {
            log: Arc::new(log),
            live: Mutex::new(live),
            rewriting: Arc::default(),
            _lock: lock,
        })
    }

    /// Whether records may be missing, because a part of the file was unreadable.
    pub(crate) fn was_cut(&self) -> bool {
        self.log.was_cut()
    }

    /// All records of one kind.
    pub(crate) fn all<R: Record>(&self) -> Result<Vec<R>, StoreError> {
        let live = self.records();
        live.range(R::KIND.to_owned()..)
            .take_while(|(key, _)| key.starts_with(R::KIND))
            .map(|(key, frame)| decode(key, frame))
            .collect()
    }

    /// Saves a record so that it outlives this process. Wait on [`Store::sync`] for the disk.
    pub(crate) fn put<R: Record>(&self, record: &R) -> Result<Position, StoreError> {
        let key = key::<R>(record.id());
        let frame = Change {
            key: key.clone(),
            value: Some(record.encode_to_vec()),
        }
        .encode_to_vec();
        let mut live = self.records();
        let position = self.log.append(&frame)?;
        live.insert(key, frame);
        self.rewrite_if_worth_it(&live);
        Ok(position)
    }

    /// Forgets a record; none there is no error.
    pub(crate) fn delete<R: Record>(&self, id: &str) -> Result<(), StoreError> {
        let key = key::<R>(id);
        let mut live = self.records();
        if !live.contains_key(&key) {
            return Ok(());
        }
        self.log.append(
            &Change {
                key: key.clone(),
                value: None,
            }
            .encode_to_vec(),
        )?;
        live.remove(&key);
        self.rewrite_if_worth_it(&live);
        Ok(())
    }

    /// Where the last change of any record is.
    pub(crate) fn position(&self) -> Position {
        self.log.position()
    }

    /// Returns once everything up to `position` is on disk.
    pub(crate) async fn sync(&self, position: Position) -> Result<(), StoreError> {
        let log = Arc::clone(&self.log);
        let done = tokio::task::spawn_blocking(move || log.sync(position)).await;
        Ok(done.map_err(|_| StoreError::Join)??)
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        // A panic elsewhere leaves the map whole: it is changed by one insert or remove.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Most of a long-lived file is history. It is rewritten by a thread, which waits for the disk; the caller holds the
    /// map, so the snapshot and the file's end belong together.
    fn rewrite_if_worth_it(&self, live: &BTreeMap<String, Vec<u8>>) {
        let size = self.log.size();
        let useful: u64 = live.values().map(|frame| frame.len() as u64).sum();
        if size <= REWRITE_ABOVE || size <= 4 * useful || self.rewriting.swap(true, Ordering::AcqRel) {
            return;
        }
        let payloads: Vec<Vec<u8>> = live.values().cloned().collect();
        let since = self.log.position();
        let (log, rewriting) = (Arc::clone(&self.log), Arc::clone(&self.rewriting));
        let thread = std::thread::Builder::new().name("records".to_owned());
        let started = thread.spawn(move || {
            if let Err(error) = log.rewrite(&payloads, since) {
                tracing::warn!(error = %chain(&error), "the record file could not be made smaller");
            }
            rewriting.store(false, Ordering::Release);
        });
        if let Err(error) = started {
            self.rewriting.store(false, Ordering::Release);
            tracing::warn!(error = %chain(&error), "the record file cannot be made smaller now");
        }
    }

    #[cfg(test)]
    fn wait_for_rewrite(&self) {
        while self.rewriting.load(Ordering::Acquire) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

fn key<R: Record>(id: &str) -> String {
    format!("{}{id}", R::KIND)
}

fn decode<R: Record>(key: &str, frame: &[u8]) -> Result<R, StoreError> {
    let decode = |source| StoreError::Decode {
        key: key.to_owned(),
        source,
    };
    let change = Change::decode(frame).map_err(decode)?;
    R::decode(change.value.unwrap_or_default().as_slice()).map_err(decode)
}

/// How long a lock may still be held by nobody: a child that a killed daemon was just starting has the daemon's descriptors
/// until its execve(2).
const LAST_CHILD: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);

fn lock_directory(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join("lock");
    let io = |action, source| StoreError::Io {
        action,
        path: path.clone(),
        source,
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|source| io("open", source))?;
    let deadline = Instant::now() + LAST_CHILD;
    loop {
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(StoreError::Locked(directory.to_owned())),
            Err(errno) => return Err(io("lock", errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(id: &str, created_at: i64) -> SandboxRecord {
        SandboxRecord {
            id: id.to_owned(),
            created_at,
            ..SandboxRecord::default()
        }
    }

    #[test]
    fn records_are_found_again_and_the_last_write_wins() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        store.put(&sandbox("a", 1)).unwrap();
        store.put(&sandbox("b", 2)).unwrap();
        store.put(&sandbox("a", 3)).unwrap();
        store
            .put(&ContainerRecord {
                id: "a".to_owned(),
                ..ContainerRecord::default()
            })
            .unwrap();
        store.delete::<SandboxRecord>("b").unwrap();
        store.delete::<SandboxRecord>("never there").unwrap();
        drop(store);
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.all::<SandboxRecord>().unwrap(), [sandbox("a", 3)]);
        assert_eq!(store.all::<ContainerRecord>().unwrap().len(), 1);
    }

    #[test]
    fn a_second_opener_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let _store = Store::open(directory.path()).unwrap();
        let error = Store::open(directory.path()).unwrap_err();
        assert!(matches!(error, StoreError::Locked(_)), "{error}");
    }

    #[test]
    fn the_file_does_not_grow_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let long = SandboxRecord {
            network: "x".repeat(10_000),
            ..sandbox("a", 1)
        };
        for _ in 0..300 {
            store.put(&long).unwrap();
        }
        store.wait_for_rewrite();
        store.put(&long).unwrap();
        store.wait_for_rewrite();
        assert!(store.log.size() < 2 * REWRITE_ABOVE);
        drop(store);
        assert_eq!(
            Store::open(directory.path())
                .unwrap()
                .all::<SandboxRecord>()
                .unwrap(),
            [long]
        );
    }
}
