//! Making the file smaller, beside those who append to it.
//!
//! ```text
//!   records locked   what lives now, and where the file ends: the snapshot
//!   nothing locked   new file <- the snapshot; synced                  others append to the old file, and sync it
//!   syncs held       new file <- what was appended since; synced
//!   end locked       new file <- the few frames since; renamed         from here on others append to the new file
//!   syncs held       new file and its directory synced
//! ```
//!
//! A power cut before the rename finds the old file, one after it the new one. Whatever was confirmed to be on disk is in
//! both, since nothing is confirmed between the second sync and the last.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Log, LogError, MAGIC, Position, frame, lock, sync_parent};

impl Log {
    /// Replaces the file by one that holds `payloads` and every frame appended after `since`. Blocks on the disk; one at a
    /// time.
    pub(crate) fn rewrite(&self, payloads: &[Vec<u8>], since: Position) -> Result<(), LogError> {
        let path = new_path(&self.path);
        let replaced = self.replace(&path, payloads, since);
        if replaced.is_err() {
            // Half of a new file is of no use. After the rename there is none of this name.
            let _ = std::fs::remove_file(&path);
        }
        replaced
    }

    fn replace(&self, path: &Path, payloads: &[Vec<u8>], since: Position) -> Result<(), LogError> {
        let io = |action| {
            move |source| LogError::Io {
                action,
                path: path.to_owned(),
                source,
            }
        };
        let (file, mut length) = write_snapshot(path, payloads)?;
        let mut synced = lock(&self.synced);
        let (old, until) = {
            let tail = lock(&self.tail);
            (Arc::clone(&tail.file), tail.position.offset)
        };
        length += copy(&old, since.offset..until, &file, length).map_err(io("copy to"))?;
        file.sync_data().map_err(io("sync"))?;
        let end = {
            let mut tail = lock(&self.tail);
            length += copy(&old, until..tail.position.offset, &file, length).map_err(io("copy to"))?;
            std::fs::rename(path, &self.path).map_err(io("rename"))?;
            tail.file = Arc::clone(&file);
            tail.position = Position {
                generation: since.generation + 1,
                offset: length,
            };
            tail.allocated = length;
            tail.position
        };
        // The next sync does what fails here.
        synced.is_named = false;
        file.sync_data().map_err(io("sync"))?;
        sync_parent(&self.path)?;
        synced.is_named = true;
        synced.position = end;
        Ok(())
    }
}

/// Where the new file grows.
pub(super) fn new_path(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// A new file with these records, on disk, and its length.
fn write_snapshot(path: &Path, payloads: &[Vec<u8>]) -> Result<(Arc<File>, u64), LogError> {
    let mut content = MAGIC.to_vec();
    for payload in payloads {
        content.extend(frame(payload)?);
    }
    let written = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .and_then(|mut file| {
            file.write_all(&content)?;
            file.sync_all()?;
            Ok(file)
        });
    match written {
        Ok(file) => Ok((Arc::new(file), content.len() as u64)),
        Err(source) => Err(LogError::Io {
            action: "write",
            path: path.to_owned(),
            source,
        }),
    }
}

/// Returns how many bytes there were.
fn copy(from: &File, range: Range<u64>, to: &File, at: u64) -> io::Result<u64> {
    let length = range.end - range.start;
    let size = usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; size];
    from.read_exact_at(&mut bytes, range.start)?;
    to.write_all_at(&bytes, at)?;
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use crate::store::{REWRITE_ABOVE, SandboxRecord, Store};
    use std::sync::mpsc;
    use std::time::Duration;

    fn texts(payloads: &[Vec<u8>]) -> Vec<&str> {
        payloads
            .iter()
            .map(|payload| std::str::from_utf8(payload).unwrap())
            .collect()
    }

    #[test]
    fn a_rewrite_keeps_what_it_is_given_and_what_came_since() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records");
        let (log, _) = Log::open(&path).unwrap();
        let before = log.append(b"one").unwrap();
        let since = log.append(b"two").unwrap();
        let meanwhile = log.append(b"three").unwrap();
        log.rewrite(&[b"two".to_vec()], since).unwrap();
        log.sync(before).unwrap();
        log.sync(meanwhile).unwrap();
        let after = log.append(b"four").unwrap();
        log.sync(after).unwrap();
        drop(log);
        let (_, found) = Log::open(&path).unwrap();
        assert_eq!(texts(&found), ["two", "three", "four"]);
        assert!(!new_path(&path).exists());
    }

    #[test]
    fn nothing_that_is_appended_during_rewrites_is_lost_or_out_of_order() {
        const FRAMES: usize = 3000;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records");
        let (log, _) = Log::open(&path).unwrap();
        let log = Arc::new(log);
        let appender = std::thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for number in 0..FRAMES {
                    let position = log.append(number.to_string().as_bytes()).unwrap();
                    if number % 100 == 0 {
                        log.sync(position).unwrap();
                    }
                }
            }
        });
        // Each rewrite keeps all that there is, so that what is missing in the end was lost.
        while !appender.is_finished() {
            let since = log.position();
            let content = std::fs::read(&path).unwrap();
            let end = usize::try_from(since.offset).unwrap();
            let (all, _) = parse(&content[MAGIC.len()..end]);
            log.rewrite(&all, since).unwrap();
        }
        appender.join().unwrap();
        drop(log);
        let (_, found) = Log::open(&path).unwrap();
        let expected: Vec<String> = (0..FRAMES).map(|number| number.to_string()).collect();
        assert_eq!(texts(&found), expected);
    }

    #[test]
    fn whoever_saves_a_record_does_not_wait_for_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(directory.path()).unwrap());
        // As a disk that takes its time with a sync.
        let syncing = lock(&store.log.synced);
        let (tell, told) = mpsc::channel();
        let long = SandboxRecord {
            id: "a".to_owned(),
            network: "x".repeat(10_000),
            ..SandboxRecord::default()
        };
        let saving = std::thread::spawn({
            let (store, long) = (Arc::clone(&store), long.clone());
            move || {
                for _ in 0..300 {
                    store.put(&long).unwrap();
                }
                tell.send(()).unwrap();
            }
        });
        told.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(store.log.size() > 2 * REWRITE_ABOVE, "the rewrite waits");
        drop(syncing);
        saving.join().unwrap();
        store.wait_for_rewrite();
        // What came while it waited is history now too.
        store.put(&long).unwrap();
        store.wait_for_rewrite();
        assert!(store.log.size() < REWRITE_ABOVE);
    }
}
